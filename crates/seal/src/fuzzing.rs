//! Doors for fuzzers: readers that are no part of the public face, each with what it promises.

use crate::slot::{SlotPublic, SourceKind};
pub use crate::source::fuzzing::escrow_reply;

/// A slot's items of any kind: what is read is written as the same bytes.
pub fn slot_items(kind: u8, bytes: &[u8]) {
    let Some(kind) = SourceKind::from_number(kind) else { return };
    if let Some(Ok(slot)) = SlotPublic::from_item_bytes(kind, None, bytes) {
        assert_eq!(slot.item_bytes(), bytes);
        crate::source::fuzzing::slot_of(&slot);
    }
}

/// A hook file, and a hook's status: what is read is written as the same bytes.
pub fn hook_file(bytes: &[u8]) {
    crate::source::fuzzing::hook_status(bytes);
    let digest = secret::crypto::sha256(&[bytes]);
    for bytes in [bytes.to_vec(), [bytes, &digest].concat()] {
        if let Ok(file) = crate::HookFile::parse(&bytes) {
            assert_eq!(file.encode(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..16_u8, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            slot_items(kind, &bytes);
            hook_file(&bytes);
            hook_file(&[b"EKHOOK\0\0\0\x01", &bytes[..]].concat());
            escrow_reply(&bytes);
        }
    }
}
