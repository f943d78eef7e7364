//! Answers of a holder of keys: any bytes give a value or none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| seal::fuzzing::escrow_reply(bytes));
