//! Stored values and hidden names: any bytes are refused, and what was sealed opens.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    store::fuzzing::entry(bytes);
    store::fuzzing::name(bytes);
});
