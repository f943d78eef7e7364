//! The store's head and keyring: any bytes give a record or a refusal, and a record has one form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    store::fuzzing::head(bytes);
    store::fuzzing::keyring(bytes);
});
