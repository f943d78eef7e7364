//! Slot files: any bytes give a set or an error, and a set has one form only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seal::SlotSet;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = SlotSet::parse(bytes) {
        assert_eq!(set.encode(), bytes);
    }
    // What a slot holds for its source, with the source's kind before it.
    if let Some((kind, items)) = bytes.split_first() {
        seal::fuzzing::slot_items(*kind, items);
    }
    // The digest hides all that lies behind it from a fuzzer: the same once more with a digest that fits.
    let mut framed = bytes.to_vec();
    framed.extend(seal_digest(bytes));
    if let Ok(set) = SlotSet::parse(&framed) {
        assert_eq!(set.encode(), framed);
        assert_eq!(set.digest().0, framed[framed.len() - 32..]);
    }
});

fn seal_digest(bytes: &[u8]) -> [u8; 32] {
    secret::crypto::sha256(&[bytes])
}
