//! A segment of the audit ring: any bytes give proven records or none, and never more than fit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeline::audit::{ChainKey, ChainKeys, MAX_BODY_BYTES, verify_segment};

fuzz_target!(|bytes: &[u8]| {
    let key = ChainKeys::new(ChainKey::new(&[1; 32]));
    for slot in [0, u32::MAX] {
        let mut shown = 0;
        if let Some(found) = verify_segment(bytes, slot, &key, |entry| {
            assert!(entry.line.len() <= MAX_BODY_BYTES);
            shown += 1;
        }) {
            assert_eq!(found.records, shown);
        }
    }
});
