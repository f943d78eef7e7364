//! One slot: the root key wrapped under what one source gives, and everything public about it.

use std::fmt;
use std::num::NonZeroU8;

/// A store's random name: what belongs to one store is never taken for another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// A new store's name.
    pub fn generate(entropy: &dyn host::Entropy) -> Self {
        let mut id = [0; 16];
        entropy.fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// What a store was made for. The two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Secrets that matter.
    Production,
    /// Made by `up --demo`, with protection lacking.
    Demo,
}

impl Profile {
    /// Its number in every format that names it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Production => 1,
            Self::Demo => 2,
        }
    }

    /// The profile of that number.
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Production),
            2 => Some(Self::Demo),
            _ => None,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Demo => "demo",
        })
    }
}

/// How a store is unsealed, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealMode {
    /// By itself: each slot alone opens it.
    Slots,
    /// By people's shares, joined to the KEK of the only slot.
    Shamir,
}

impl SealMode {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Slots => 1,
            Self::Shamir => 2,
        }
    }

    pub(crate) const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Slots),
            2 => Some(Self::Shamir),
            _ => None,
        }
    }
}

/// What kind of source a slot opens with. Number 11 is kept for shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A key file: for demo and tests.
    Software,
    /// An executable that prints hexadecimal octets.
    Exec,
    /// The recovery key.
    Recovery,
    /// A TPM: an object sealed to a policy.
    Tpm,
    /// A smart card or HSM behind a PKCS #11 module.
    Pkcs11,
    /// A key held by another machine, which must be reached and must agree.
    Escrow,
    /// Tang servers, by the McCallum-Relyea exchange.
    Tang,
    /// A systemd credential.
    Credential,
    /// All of several others.
    All,
    /// Any so many of several others.
    Threshold,
    /// A TPM: an NV index that is locked once it was read.
    TpmNv,
}

/// Each kind, its number on disk and its name.
const KINDS: [(SourceKind, u8, &str); 11] = [
    (SourceKind::Software, 1, "software"),
    (SourceKind::Exec, 2, "exec"),
    (SourceKind::Recovery, 3, "recovery"),
    (SourceKind::Tpm, 4, "tpm"),
    (SourceKind::Pkcs11, 5, "pkcs11"),
    (SourceKind::Escrow, 6, "escrow"),
    (SourceKind::Tang, 7, "tang"),
    (SourceKind::Credential, 8, "credential"),
    (SourceKind::All, 9, "all"),
    (SourceKind::Threshold, 10, "threshold"),
    (SourceKind::TpmNv, 12, "tpm-nv"),
];

impl SourceKind {
    fn row(self) -> (u8, &'static str) {
        KINDS.iter().find(|(kind, ..)| *kind == self).map(|(_, n, name)| (*n, *name)).expect("each kind has a row")
    }

    /// Whether a TPM opens it, by an object or by an index.
    pub fn is_of_tpm(self) -> bool {
        matches!(self, Self::Tpm | Self::TpmNv)
    }

    pub(crate) fn number(self) -> u8 {
        self.row().0
    }

    pub(crate) fn from_number(n: u8) -> Option<Self> {
        KINDS.iter().find(|(_, number, _)| *number == n).map(|(kind, ..)| *kind)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

/// A slot's number within its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a source made when it was provisioned, and needs again to release: public, kept in the slot, bound into its
/// wrap.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotPublic {
    kind: SourceKind,
    release_limit: Option<NonZeroU8>,
    items: Vec<(u16, Vec<u8>)>,
}

impl SlotPublic {
    /// Most bytes of all items together, their tags and lengths counted.
    pub const MAX_BYTES: usize = 2048;

    /// The public part of a source's slot. `items` are (tag, bytes), the tags rising; their meaning is the source's.
    ///
    /// # Errors
    /// [`SlotPublicError`].
    pub fn new(
        kind: SourceKind,
        release_limit: Option<NonZeroU8>,
        items: Vec<(u16, Vec<u8>)>,
    ) -> Result<Self, SlotPublicError> {
        if !items.windows(2).all(|w| w[0].0 < w[1].0) {
            return Err(SlotPublicError::Order);
        }
        let bytes: usize = items.iter().map(|(_, value)| 4 + value.len()).sum();
        if bytes > Self::MAX_BYTES {
            return Err(SlotPublicError::TooLarge { bytes });
        }
        Ok(Self { kind, release_limit, items })
    }

    /// A source that needs nothing to be remembered.
    pub(crate) fn bare(kind: SourceKind) -> Self {
        Self { kind, release_limit: None, items: Vec::new() }
    }

    /// What kind of source opens the slot.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// How often per boot the source releases; `None` is without limit.
    pub fn release_limit(&self) -> Option<NonZeroU8> {
        self.release_limit
    }

    /// The item of that tag.
    pub fn item(&self, tag: u16) -> Option<&[u8]> {
        self.items.iter().find(|(t, _)| *t == tag).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn items(&self) -> &[(u16, Vec<u8>)] {
        &self.items
    }

    /// As one text of bytes: source kind, releases per boot (0 for no limit), the items.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind.number(), self.release_limit.map_or(0, NonZeroU8::get)];
        bytes.extend(self.item_bytes());
        bytes
    }

    /// What [`SlotPublic::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[kind, limit], items) = bytes.split_first_chunk()?;
        Self::from_item_bytes(SourceKind::from_number(kind)?, NonZeroU8::new(limit), items)?.ok()
    }

    /// The items as bytes: tag u16, length u16, value, one after the other.
    pub(crate) fn item_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.items.iter().map(|(_, value)| 4 + value.len()).sum());
        for (tag, value) in &self.items {
            let length = u16::try_from(value.len()).expect("all items together have at most MAX_BYTES");
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
        out
    }

    /// What [`SlotPublic::item_bytes`] wrote; `None` where an item ends beyond the bytes.
    pub(crate) fn from_item_bytes(
        kind: SourceKind,
        release_limit: Option<NonZeroU8>,
        mut bytes: &[u8],
    ) -> Option<Result<Self, SlotPublicError>> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            let (tag, rest) = bytes.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            items.push((u16::from_be_bytes(*tag), value.to_vec()));
            bytes = rest;
        }
        Some(Self::new(kind, release_limit, items))
    }
}

impl fmt::Debug for SlotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotPublic({}", self.kind)?;
        for (tag, value) in &self.items {
            write!(f, ", {tag}={}", hex::encode(value))?;
        }
        f.write_str(")")
    }
}

/// Why items are no public part of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotPublicError {
    /// Tags must rise, each once: then equal contents have equal bytes.
    #[error("the tags of a slot's public part must rise")]
    Order,
    /// Over [`SlotPublic::MAX_BYTES`].
    #[error("a slot's public part of {bytes} bytes; at most {max} fit", max = SlotPublic::MAX_BYTES)]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
}
