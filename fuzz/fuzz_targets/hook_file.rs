//! Hook files: any bytes give a file or an error, and a file has one form only.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| seal::fuzzing::hook_file(bytes));
