//! The bytes of a slot set. The reader is total: any input gives a set or an error, and every set has one form only.

use std::num::NonZeroU8;

use secret::crypto::{self, NONCE_BYTES};

use super::{Slot, SlotDigest, SlotSet, WRAP_BYTES};
use crate::derive::{SALT_BYTES, VERIFIER_BYTES};
use crate::slot::{Profile, SealMode, SlotId, SlotPublic, SlotPublicError, SourceKind, StoreId};

/// Most slots of a set: more sources than any device has.
pub const MAX_SLOTS: usize = 16;
/// Longest slot set; a longer file is not read.
pub const MAX_SLOT_SET_BYTES: usize = HEADER_BYTES + MAX_SLOTS * (SLOT_BYTES + SlotPublic::MAX_BYTES) + DIGEST_BYTES;

const MAGIC: &[u8; 8] = b"EKSLOTS\0";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8 + 2 + 16 + 8 + 1 + 1 + 1;
const DIGEST_BYTES: usize = 32;
/// A slot without public items.
const SLOT_BYTES: usize = 2 + 1 + 1 + SALT_BYTES + 2 + VERIFIER_BYTES + NONCE_BYTES + WRAP_BYTES;

impl SlotSet {
    /// Reads a set.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ParseError::NotASlotSet);
        }
        // Before the version: a newer format keeps its digest at the end too, so rot is not taken for novelty.
        let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(ParseError::CutShort)?;
        if crypto::sha256(&[body]) != *digest {
            return Err(ParseError::BitRot);
        }
        let mut r = Reader(body);
        r.take(MAGIC.len())?;
        let version = r.u16()?;
        if version != VERSION {
            return Err(ParseError::Version { found: version });
        }
        let store = StoreId(r.array()?);
        let generation = u64::from_be_bytes(r.array()?);
        let number = r.u8()?;
        let profile = Profile::from_number(number).ok_or(ParseError::Field { what: "profile", number })?;
        let number = r.u8()?;
        let mode = SealMode::from_number(number).ok_or(ParseError::Field { what: "seal mode", number })?;
        let count = r.u8()?;
        if count == 0 || usize::from(count) > MAX_SLOTS {
            return Err(ParseError::Field { what: "number of slots", number: count });
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let slot = r.slot()?;
            if slots.last().is_some_and(|before| before.id >= slot.id) {
                return Err(ParseError::Order);
            }
            slots.push(slot);
        }
        if !r.0.is_empty() {
            return Err(ParseError::TrailingBytes { count: r.0.len() });
        }
        Ok(Self { store, generation, profile, mode, slots })
    }

    /// The set's bytes, digest last.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.body();
        out.extend_from_slice(&crypto::sha256(&[&out]));
        out
    }

    /// The digest at the end of [`SlotSet::encode`].
    pub fn digest(&self) -> SlotDigest {
        SlotDigest(crypto::sha256(&[&self.body()]))
    }

    fn body(&self) -> Vec<u8> {
        let mut out = self.header_bytes();
        for slot in &self.slots {
            slot.put_bound(&mut out);
            out.extend_from_slice(&slot.nonce);
            out.extend_from_slice(&slot.wrap);
        }
        out
    }

    fn header_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_SLOT_SET_BYTES / 8);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.push(self.profile.number());
        out.push(self.mode.number());
        out.push(u8::try_from(self.slots.len()).expect("a set is made with at most MAX_SLOTS slots"));
        out
    }

    /// What the wrap of `slot` binds: the header and the slot up to its verifier.
    pub(super) fn associated(&self, slot: &Slot) -> Vec<u8> {
        let mut out = self.header_bytes();
        slot.put_bound(&mut out);
        if host::in_force("slot-header-bound") { out } else { Vec::new() }
    }
}

impl Slot {
    fn put_bound(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_be_bytes());
        out.push(self.public.kind().number());
        out.push(self.public.release_limit().map_or(0, NonZeroU8::get));
        out.extend_from_slice(&self.salt);
        let items = self.public.item_bytes();
        out.extend_from_slice(&u16::try_from(items.len()).expect("SlotPublic holds at most MAX_BYTES").to_be_bytes());
        out.extend_from_slice(&items);
        out.extend_from_slice(&self.verifier);
    }
}

/// What is left of the input.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], ParseError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(ParseError::CutShort)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(ParseError::CutShort)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, ParseError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, ParseError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn slot(&mut self) -> Result<Slot, ParseError> {
        let id = SlotId(self.u16()?);
        let number = self.u8()?;
        let kind = SourceKind::from_number(number).ok_or(ParseError::Field { what: "source kind", number })?;
        let release_limit = NonZeroU8::new(self.u8()?);
        let salt = self.array()?;
        let length = self.u16()?;
        let items = self.take(usize::from(length))?;
        let public = SlotPublic::from_item_bytes(kind, release_limit, items).ok_or(ParseError::CutShort)??;
        let (verifier, nonce, wrap) = (self.array()?, self.array()?, self.array()?);
        Ok(Slot { id, public, salt, verifier, nonce, wrap })
    }
}

/// Why bytes are no slot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The file begins with something else.
    #[error("not a slot file")]
    NotASlotSet,
    /// The digest at the end does not fit: worn flash, or a torn write.
    #[error("the slot file is damaged: its digest does not fit")]
    BitRot,
    /// Ends too early, though the digest fits.
    #[error("the slot file ends too early")]
    CutShort,
    /// Written by a newer edgekeep.
    #[error("the slot file has format version {found}; this edgekeep reads version {VERSION}")]
    Version {
        /// The version it names.
        found: u16,
    },
    /// A number that means nothing in this version.
    #[error("the slot file has {what} {number}, which this edgekeep does not know")]
    Field {
        /// Which field.
        what: &'static str,
        /// What stands in it.
        number: u8,
    },
    /// Slots out of order, or the same twice.
    #[error("the slots of the slot file are out of order")]
    Order,
    /// More bytes than the slots account for.
    #[error("the slot file has {count} bytes too many")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A slot's public part breaks its rules.
    #[error(transparent)]
    Public(#[from] SlotPublicError),
}
