//! Keys and sealed objects: templates, names, and what is kept of them.

use std::fmt;

use secret::Secret;
use secret::crypto::{self, P256_POINT_BYTES};

use crate::wire::{Malformed, Reader, Writer};

/// The name of an object: SHA-256 over its public area, behind the number of the hash (part 1, 16).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; Name::BYTES]);

impl Name {
    /// How long it is.
    pub const BYTES: usize = 2 + 32;

    /// A name that was kept.
    ///
    /// # Errors
    /// `None` if it is no SHA-256 name.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let name: [u8; Self::BYTES] = bytes.try_into().ok()?;
        name.starts_with(&SHA256.to_be_bytes()).then_some(Self(name))
    }

    /// The name of whatever has this public area.
    pub(crate) fn of(public_area: &[u8]) -> Self {
        let mut name = [0; Self::BYTES];
        name[..2].copy_from_slice(&SHA256.to_be_bytes());
        name[2..].copy_from_slice(&crypto::sha256(&[public_area]));
        Self(name)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash's number is the same for all; sixteen bytes tell keys apart.
        self.0[2..18].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// The storage key that a TPM has just made from its seed. Nobody has said yet that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageKey {
    handle: u32,
    area: Vec<u8>,
    point: [u8; P256_POINT_BYTES],
}

impl StorageKey {
    /// Reads its public area. The name is computed here, not believed.
    pub(crate) fn read(handle: u32, public_area: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(public_area);
        let template = storage_template();
        // Everything before the point must be what was asked for: a key that could be used to decrypt at large, or that
        // was imported and is known elsewhere, would have other attributes.
        let fixed = template.get(..template.len() - TEMPLATE_POINT_BYTES).unwrap_or_default();
        if r.take(fixed.len())? != fixed && host::in_force("tpm-storage-template") {
            return Err(Malformed("the storage key has other attributes than were asked for"));
        }
        let mut point = [0; P256_POINT_BYTES];
        point[0] = 4;
        for half in [1, 33] {
            let coordinate = r.sized()?;
            // Leading zeros may be left out.
            let start = half + 32usize.checked_sub(coordinate.len()).ok_or(Malformed("a coordinate is too long"))?;
            point[start..half + 32].copy_from_slice(coordinate);
        }
        r.end()?;
        Ok(Self { handle, area: public_area.to_vec(), point })
    }

    /// Its name.
    pub fn name(&self) -> Name {
        Name::of(&self.area)
    }

    /// At provisioning: this is the key from now on.
    pub fn pin(self) -> PinnedKey {
        PinnedKey(self)
    }

    /// Afterwards: it must be the key of that name.
    ///
    /// # Errors
    /// The key itself, if it is another.
    pub fn pinned(self, expected: &Name) -> Result<PinnedKey, Name> {
        let name = self.name();
        if name == *expected || !host::in_force("tpm-key-pinned") { Ok(PinnedKey(self)) } else { Err(name) }
    }
}

/// Proof that a storage key is the one that was named at provisioning. Only to such a key is a session salted: whoever
/// sits on the bus and puts a key of his own in its place would else read all that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey(StorageKey);

impl PinnedKey {
    /// Its name.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    pub(crate) fn handle(&self) -> u32 {
        self.0.handle
    }

    /// Whether the TPM keeps it, so that there is nothing to flush.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.handle == KEPT_AT
    }

    pub(crate) fn point(&self) -> &[u8; P256_POINT_BYTES] {
        &self.0.point
    }

    /// The same key, where the TPM keeps it.
    pub(crate) fn kept(&self) -> KeptKey {
        KeptKey(Self(StorageKey { handle: KEPT_AT, ..self.0.clone() }))
    }
}

/// A storage key that the TPM keeps, with the public area that it had at provisioning: a session is salted to it
/// without asking the TPM for anything. Should another key be in its place by then, no session with it comes to
/// anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptKey(PinnedKey);

impl KeptKey {
    /// One that was noted as [`KeptKey::area`].
    ///
    /// # Errors
    /// `None` if that is no storage key, or not the one of this name.
    pub fn noted(area: &[u8], name: &Name) -> Option<Self> {
        StorageKey::read(KEPT_AT, area).ok()?.pinned(name).ok().map(Self)
    }

    /// Its public area (TPMT_PUBLIC), which names it.
    pub fn area(&self) -> &[u8] {
        &self.0.0.area
    }

    /// To use it.
    pub fn key(&self) -> PinnedKey {
        self.0.clone()
    }
}

/// Where a TPM keeps its storage root key (Registry of Reserved TPM 2.0 Handles and Localities, 2.3.1; TPM 2.0
/// Provisioning Guidance, 7.5.1). Others keep theirs there too: made from the same template it is the same key.
pub(crate) const KEPT_AT: u32 = 0x8100_0001;

/// A secret sealed by a TPM: of use to that TPM alone, and then only under its policy. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedObject {
    /// Its public area (TPMT_PUBLIC): attributes and policy.
    pub public: Vec<u8>,
    /// The secret, encrypted under the storage key (the content of a TPM2B_PRIVATE).
    pub private: Vec<u8>,
}

impl SealedObject {
    /// Its name.
    pub fn name(&self) -> Name {
        Name::of(&self.public)
    }
}

/// What opens an object beside its policy: a PIN, hashed, so that any length fits (part 1, 11.4.5: at most the
/// digest's).
pub struct AuthValue(Secret<32>);

impl AuthValue {
    /// From a PIN.
    pub fn from_pin(pin: &[u8]) -> Self {
        Self(Secret::init_with(|out| out.copy_from_slice(&crypto::sha256(&[PIN_CONTEXT, pin]))))
    }

    /// As the TPM keeps it: zeros at the end are taken away (part 1, 17.6.4.3).
    pub(crate) fn expose(&self) -> &[u8] {
        let bytes = self.0.expose();
        let kept = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        &bytes[..kept]
    }
}

impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthValue(..)")
    }
}

/// The storage key on P-256 (TCG EK Credential Profile 2.5, B.3.4, template L-2, with the attributes of a storage root
/// key by TPM 2.0 Provisioning Guidance 7.5.1). The same seed gives the same key each time, so that nothing need be
/// kept in the TPM.
pub(crate) fn storage_template() -> zeroize::Zeroizing<Vec<u8>> {
    let attributes = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT;
    Writer::new()
        .u16(ECC)
        .u16(SHA256)
        .u32(attributes)
        .sized(&[])
        .u16(AES)
        .u16(128)
        .u16(CFB)
        .u16(NULL)
        .u16(NIST_P256)
        .u16(NULL)
        .sized(&[0; 32])
        .sized(&[0; 32])
        .done()
}

/// The point at the template's end.
const TEMPLATE_POINT_BYTES: usize = 2 * (2 + 32);

/// An object of data that opens by its policy alone: not by its authorisation value (`userWithAuth` and, for changes,
/// `adminWithPolicy`). With a PIN it counts towards the TPM's lockout; without there is nothing to guess.
pub(crate) fn sealed_template(policy: &[u8; 32], pin: bool) -> zeroize::Zeroizing<Vec<u8>> {
    let attributes = FIXED_TPM | FIXED_PARENT | ADMIN_WITH_POLICY | if pin { 0 } else { NO_DA };
    Writer::new().u16(KEYED_HASH).u16(SHA256).u32(attributes).sized(policy).u16(NULL).sized(&[]).done()
}

// Algorithms (part 2, 6.3) and curves (6.4).
pub(crate) const RSA: u16 = 0x0001;
pub(crate) const AES: u16 = 0x0006;
const KEYED_HASH: u16 = 0x0008;
pub(crate) const SHA256: u16 = 0x000B;
pub(crate) const NULL: u16 = 0x0010;
pub(crate) const ECC: u16 = 0x0023;
pub(crate) const CFB: u16 = 0x0043;
pub(crate) const NIST_P256: u16 = 0x0003;

// Attributes of objects (part 2, 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
pub(crate) const USER_WITH_AUTH: u32 = 1 << 6;
const ADMIN_WITH_POLICY: u32 = 1 << 7;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
pub(crate) const SIGN: u32 = 1 << 18;

const PIN_CONTEXT: &[u8] = b"edgekeep/v1/tpm-pin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_by_the_byte() {
        let point = format!("0020{z}0020{z}", z = "00".repeat(32));
        let storage = format!("0023000b0003047200000006008000430010000300 10{point}").replace(' ', "");
        assert_eq!(hex::encode(&*storage_template()), storage);
        let policy = format!("0020{}", "ab".repeat(32));
        assert_eq!(hex::encode(&*sealed_template(&[0xab; 32], false)), format!("0008000b00000492{policy}00100000"));
        assert_eq!(hex::encode(&*sealed_template(&[0xab; 32], true)), format!("0008000b00000092{policy}00100000"));
    }

    #[test]
    fn a_storage_key_is_what_was_asked_for() {
        let template = storage_template();
        let fixed = template.len() - TEMPLATE_POINT_BYTES;
        let area = |x: &[u8], y: &[u8]| [&template[..fixed], &Writer::new().sized(x).sized(y).done()].concat();
        let key = StorageKey::read(1, &area(&[1; 32], &[2; 31])).unwrap();
        assert_eq!(key.point[..3], [4, 1, 1]);
        assert_eq!(key.point[32..35], [1, 0, 2], "a short coordinate is filled up from the left");
        assert_eq!(key.name(), Name::of(&area(&[1; 32], &[2; 31])));
        assert!(StorageKey::read(1, &area(&[1; 33], &[2; 32])).is_err());
        assert!(StorageKey::read(1, &[area(&[1; 32], &[2; 32]), vec![0]].concat()).is_err());
        assert!(StorageKey::read(1, &template[..20]).is_err());
        // Without `restricted` it would decrypt anything for anybody.
        let mut loose = area(&[1; 32], &[2; 32]);
        loose[5] = 0x02;
        assert!(StorageKey::read(1, &loose).is_err());
    }

    #[test]
    fn only_the_named_key_is_taken() {
        let template = storage_template();
        let key = StorageKey::read(1, &template).unwrap();
        let name = key.name();
        assert!(key.clone().pinned(&name).is_ok());
        assert_eq!(key.pinned(&Name::of(b"another")).unwrap_err(), name);
        assert_eq!(Name::from_bytes(name.as_bytes()), Some(name));
        assert_eq!(Name::from_bytes(&name.as_bytes()[1..]), None);
        assert_eq!(Name::from_bytes(&[0; Name::BYTES]), None);
    }

    #[test]
    fn a_pin_is_hashed_and_its_last_zeros_go() {
        let value = AuthValue(Secret::init_with(|b| b[..4].copy_from_slice(&[0, 7, 0, 9])));
        assert_eq!(value.expose(), [0, 7, 0, 9]);
        assert_ne!(AuthValue::from_pin(b"1234").expose(), AuthValue::from_pin(b"1235").expose());
        assert_eq!(format!("{:?}", AuthValue::from_pin(b"1234")), "AuthValue(..)");
    }
}
