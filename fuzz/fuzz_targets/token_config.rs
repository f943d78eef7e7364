//! EdgeX's token-config.json: any text gives services whose names lead nowhere else, or faults.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match config::fuzzing::token_config(text) {
    Ok(plan) => {
        assert!(plan.services.iter().all(|s| !s.name.as_str().contains(['/', '\0'])));
        assert!(plan.credentials.iter().all(|c| c.check().is_ok()));
    }
    Err(faults) => assert!(!faults.as_slice().is_empty()),
});
