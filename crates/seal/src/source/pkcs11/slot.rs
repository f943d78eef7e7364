//! What a slot remembers of its token.
//!
//! ```text
//! item 1   version 1 | mode | wants a PIN: 0 or 1 | length of the label u8 | label | serial number
//! item 2   CKA_ID of the key
//! item 3   salt (HMAC), or what the key encrypted (RSA) or wrapped (AES)
//! ```

use ikm::{Key, Mode, TokenName};

use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// A token's key, and what opens it.
pub(super) struct TokenKey {
    pub(super) token: TokenName,
    pub(super) key: Key,
    pub(super) pin: bool,
}

impl TokenKey {
    pub(super) fn to_slot(&self) -> Option<SlotPublic> {
        let label = self.token.label.as_bytes();
        let length = u8::try_from(label.len()).ok()?;
        let head = [VERSION, self.key.mode.number(), u8::from(self.pin), length];
        let name = [&head[..], label, self.token.serial.as_bytes()].concat();
        let items = vec![(TAG_NAME, name), (TAG_ID, self.key.id.clone()), (TAG_DATA, self.key.data.clone())];
        SlotPublic::new(SourceKind::Pkcs11, None, items).ok()
    }

    pub(super) fn from_slot(slot: &SlotPublic) -> Result<Self, SourceError> {
        Self::parse(slot).ok_or(SourceError::OtherSlot { kind: SourceKind::Pkcs11 })
    }

    fn parse(slot: &SlotPublic) -> Option<Self> {
        if slot.kind() != SourceKind::Pkcs11 || slot.items().len() != 3 {
            return None;
        }
        let (head, rest) = slot.item(TAG_NAME)?.split_first_chunk::<4>()?;
        let &[VERSION, mode, pin @ (0 | 1), length] = head else { return None };
        let (label, serial) = rest.split_at_checked(length.into())?;
        let text = |bytes: &[u8]| {
            let printable = !bytes.is_empty() && bytes.iter().all(|b| matches!(b, b' '..=b'~'));
            if printable { std::str::from_utf8(bytes).ok().map(str::to_owned) } else { None }
        };
        let token = TokenName { label: text(label)?, serial: text(serial)? };
        let within = |bytes: &[u8], max| (1..=max).contains(&bytes.len()).then(|| bytes.to_vec());
        let id = within(slot.item(TAG_ID)?, Key::MAX_ID_BYTES)?;
        let data = within(slot.item(TAG_DATA)?, Key::MAX_DATA_BYTES)?;
        Some(Self { token, key: Key { mode: Mode::from_number(mode)?, id, data }, pin: pin == 1 })
    }
}

const VERSION: u8 = 1;
const TAG_NAME: u16 = 1;
const TAG_ID: u16 = 2;
const TAG_DATA: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey {
            token: TokenName { label: "edge".into(), serial: "9f1c".into() },
            key: Key { mode: Mode::RsaOaepSha1, id: vec![1; 16], data: vec![2; 384] },
            pin: true,
        }
    }

    #[test]
    fn a_slot_reads_what_it_writes() {
        let read = TokenKey::from_slot(&key().to_slot().unwrap()).unwrap();
        assert_eq!((read.token, read.key, read.pin), (key().token, key().key, true));
    }

    #[test]
    fn refusals_by_name() {
        let items = key().to_slot().unwrap().items().to_vec();
        let read = |items: Vec<(u16, Vec<u8>)>| {
            TokenKey::from_slot(&SlotPublic::new(SourceKind::Pkcs11, None, items).unwrap()).is_ok()
        };
        assert!(read(items.clone()));
        let changed = |item: usize, value: &[u8]| {
            let mut items = items.clone();
            items[item].1 = value.to_vec();
            read(items)
        };
        let name = &items[0].1;
        for (at, byte, defect) in [(0, 2, "version"), (1, 0, "mode"), (1, 6, "mode"), (2, 2, "pin"), (3, 200, "label")]
        {
            let mut bad = name.clone();
            bad[at] = byte;
            assert!(!changed(0, &bad), "{defect}");
        }
        assert!(!changed(0, &name[..8]), "no serial number");
        assert!(!changed(0, b""), "no name");
        assert!(!changed(1, b"") && !changed(1, &[1; 65]), "id");
        assert!(!changed(2, b"") && !changed(2, &[1; 1025]), "data");
        assert!(!read(items[..2].to_vec()), "an item is missing");
    }
}
