//! The record of tries: any bytes are a record, damage, or nothing; a record has one form only.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| boot::driver::fuzz_tries(bytes));
