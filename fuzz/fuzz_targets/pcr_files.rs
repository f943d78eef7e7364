//! Files that say which states of a device are good: a vendor's signatures and key, and predicted register values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seal::{PcrSignatures, PcrValues, parse_pcr_public_key};

fuzz_target!(|bytes: &[u8]| {
    let _ = PcrSignatures::parse(bytes);
    let _ = parse_pcr_public_key(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<PcrValues>();
    }
});
