//! What a slot remembers of a key that is kept elsewhere.
//!
//! ```text
//! item 1   version 1 | 1 transit, 2 kv
//! item 2   the place at the holder, as its policies name it
//! item 3   what the holder's transit engine decrypts (transit alone)
//! item 4   check 16: HKDF of the key material, so that another key is told from this one before it is used
//! ```

use secret::crypto;

use crate::ikm::Ikm;
use crate::labels;
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// All that a release needs, and nothing that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EscrowSlot {
    pub(super) place: String,
    pub(super) ciphertext: Option<String>,
    pub(super) check: [u8; CHECK_BYTES],
}

impl EscrowSlot {
    /// As it is kept.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`].
    pub(super) fn write(&self) -> Result<SlotPublic, SourceError> {
        let mode = if self.ciphertext.is_some() { TRANSIT } else { KV };
        let mut items = vec![(TAG_HEAD, vec![VERSION, mode]), (TAG_PLACE, self.place.clone().into_bytes())];
        items.extend(self.ciphertext.iter().map(|text| (TAG_CIPHERTEXT, text.clone().into_bytes())));
        items.push((TAG_CHECK, self.check.to_vec()));
        let kind = SourceKind::Escrow;
        SlotPublic::new(kind, None, items).map_err(|e| SourceError::TooLarge { kind, defect: e.to_string() })
    }

    /// What [`EscrowSlot::write`] wrote; the disk is hostile, so every item is looked at.
    pub(super) fn read(slot: &SlotPublic) -> Option<Self> {
        let text = |tag: u16| Some(String::from_utf8(slot.item(tag)?.to_vec()).ok()?).filter(|t| is_plain(t));
        let (ciphertext, items) = match slot.item(TAG_HEAD)? {
            [VERSION, TRANSIT] => (Some(text(TAG_CIPHERTEXT)?), 4),
            [VERSION, KV] => (None, 3),
            _ => return None,
        };
        let whole = slot.kind() == SourceKind::Escrow && slot.items().len() == items;
        let read = Self { place: text(TAG_PLACE)?, ciphertext, check: slot.item(TAG_CHECK)?.try_into().ok()? };
        whole.then_some(read)
    }
}

/// Whether a text goes into a JSON string and onto a log line as it is.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// What tells this key material from any other.
pub(super) fn check(ikm: &Ikm) -> [u8; CHECK_BYTES] {
    let mut out = [0; CHECK_BYTES];
    crypto::hkdf_sha256(&[], ikm.expose(), labels::ESCROW_CHECK.text.as_bytes(), &mut out);
    out
}

const VERSION: u8 = 1;
const TRANSIT: u8 = 1;
const KV: u8 = 2;
const TAG_HEAD: u16 = 1;
const TAG_PLACE: u16 = 2;
const TAG_CIPHERTEXT: u16 = 3;
const TAG_CHECK: u16 = 4;
const CHECK_BYTES: usize = labels::ESCROW_CHECK.bytes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ikm;

    fn slot(ciphertext: Option<&str>) -> EscrowSlot {
        let place = "transit/decrypt/device-07".to_owned();
        EscrowSlot { place, ciphertext: ciphertext.map(str::to_owned), check: check(&ikm()) }
    }

    type Items = Vec<(u16, Vec<u8>)>;

    #[test]
    fn what_is_written_is_read_again_and_a_changed_item_is_not() {
        for slot in [slot(None), slot(Some("vault:v1:AAAA+/=="))] {
            let public = slot.write().unwrap();
            assert_eq!(EscrowSlot::read(&public), Some(slot));
            let changed = |change: &dyn Fn(&mut Items)| {
                let mut items = public.items().to_vec();
                change(&mut items);
                EscrowSlot::read(&SlotPublic::new(SourceKind::Escrow, None, items).unwrap())
            };
            assert_eq!(changed(&|items| items[0].1[0] = 2), None, "version");
            assert_eq!(changed(&|items| items[0].1[1] ^= 3), None, "the other mode");
            assert_eq!(changed(&|items| items[1].1.push(b'"')), None, "a quote");
            assert_eq!(changed(&|items| items[1].1.push(0xff)), None, "no text");
            assert_eq!(changed(&|items| _ = items.last_mut().unwrap().1.pop()), None, "a short check");
            assert_eq!(changed(&|items| items.push((9, vec![]))), None, "an item too many");
            let other = SlotPublic::new(SourceKind::Tang, None, public.items().to_vec()).unwrap();
            assert_eq!(EscrowSlot::read(&other), None);
        }
    }
}
