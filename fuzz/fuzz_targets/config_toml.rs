//! edgekeep.toml: any text gives a plan without faults, or faults with their places.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match config::fuzzing::config_toml(text) {
    Ok(plan) => {
        assert!(plan.services.iter().all(|s| !s.name.as_str().contains(['/', '\0'])));
        assert!(plan.credentials.iter().all(|c| c.check().is_ok()));
    }
    Err(faults) => assert!(!faults.as_slice().is_empty()),
});
