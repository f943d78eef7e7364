//! What a slot remembers of a combination: each part's own items, and for `threshold` a share under each part's key
//! material.
//!
//! ```text
//! item 1        version 1 | parts needed | number of parts, n | a byte for each: bit 0, it asks for a PIN
//! item 2        salt 32 (threshold alone)
//! item 16 + i   source kind | releases per boot, 0 for no limit | the part's items, as a slot has them
//! item 32 + i   share i + 1 under AES-256-GCM, 32 + 16 (threshold alone)
//! ```
//! The whole is bound by the wrap of the slot. A part's key material may be the same at each provisioning (a hook's
//! is), so the keys of the shares are salted: a key with a nonce of zeros seals once.

use std::num::NonZeroU8;

use host::Entropy;
use secret::crypto::{self, Gcm, NONCE_BYTES, TAG_BYTES};
use secret::{Secret, SecretBytes};
use zeroize::Zeroizing;

use super::MAX_PARTS;
use crate::ikm::Ikm;
use crate::labels;
use crate::shamir::{self, SHARE_BYTES};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::{Released, SourceError};

/// Whether sources of this kind may be parts: combinations are not nested, and a person's recovery key is no source.
pub(super) fn may_be_part(kind: SourceKind) -> bool {
    !matches!(kind, SourceKind::All | SourceKind::Threshold | SourceKind::Recovery)
}

/// One part, as its own source made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotPart {
    pub(super) public: SlotPublic,
    /// Whether it asks for a PIN, so that it is not asked at will.
    pub(super) pin: bool,
}

/// All that a release needs, and nothing that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CombinedSlot {
    pub(super) parts: Vec<SlotPart>,
    shares: Option<Shares>,
}

/// `threshold` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shares {
    threshold: u8,
    salt: [u8; SALT_BYTES],
    sealed: Vec<[u8; SEALED_BYTES]>,
}

impl CombinedSlot {
    pub(super) fn all(parts: Vec<SlotPart>) -> Self {
        Self { parts, shares: None }
    }

    /// New key material, and a share of it for each part. 1 <= threshold <= number of parts.
    pub(super) fn shared<I: std::borrow::Borrow<Ikm>>(
        threshold: u8,
        parts: Vec<SlotPart>,
        ikms: &[I],
        entropy: &dyn Entropy,
    ) -> Result<(Self, Ikm), SourceError> {
        let secret = Secret::init_with(|bytes| entropy.fill(bytes));
        let count = u8::try_from(parts.len()).expect("there are at most eight parts");
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let mut shares = Shares { threshold, salt, sealed: Vec::with_capacity(parts.len()) };
        for ((share, ikm), point) in shamir::split(&secret, threshold, count, entropy).iter().zip(ikms).zip(1..) {
            let mut text = Vec::with_capacity(SEALED_BYTES);
            text.extend_from_slice(share.expose());
            shares.key(ikm.borrow(), point).seal(NONCE, &shares.associated(count, point), &mut text);
            let mut sealed = [0; SEALED_BYTES];
            sealed.copy_from_slice(&text);
            shares.sealed.push(sealed);
        }
        Ok((Self { parts, shares: Some(shares) }, material(&secret)?))
    }

    /// How many parts are needed.
    pub(super) fn needed(&self) -> usize {
        self.shares.as_ref().map_or(self.parts.len(), |s| usize::from(s.threshold))
    }

    /// The same, of `threshold` alone.
    pub(super) fn threshold(&self) -> Option<u8> {
        self.shares.as_ref().map(|shares| shares.threshold)
    }

    /// The key material, of parts by their place; the fault is a part's that gave something else than it was made with.
    pub(super) fn join(&self, given: &[(usize, Released)]) -> Result<Ikm, (usize, SourceError)> {
        let Some(shares) = &self.shares else {
            let ikms: Vec<&Ikm> = given.iter().map(|(_, released)| &released.ikm).collect();
            return joined(&ikms).map_err(|e| (0, e));
        };
        let mut opened = Vec::with_capacity(given.len());
        for (at, released) in given {
            opened.push(shares.open(self.parts.len(), *at, &released.ikm).ok_or_else(|| (*at, other_key(*at)))?);
        }
        let points: Vec<(u8, &Secret<SHARE_BYTES>)> = opened.iter().map(|(point, share)| (*point, share)).collect();
        material(&shamir::join(&points)).map_err(|e| (0, e))
    }

    /// Whether a part gave what the slot was made with, where that can be told of a part alone.
    pub(super) fn fits(&self, at: usize, ikm: &Ikm) -> Result<(), SourceError> {
        match &self.shares {
            Some(shares) if shares.open(self.parts.len(), at, ikm).is_none() => Err(other_key(at)),
            // Of `all` it cannot, and shall not: whoever could try the parts one by one would have an easier time.
            _ => Ok(()),
        }
    }

    /// As it is kept.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`].
    pub(super) fn write(&self, limit: Option<NonZeroU8>) -> Result<SlotPublic, SourceError> {
        let kind = if self.shares.is_some() { SourceKind::Threshold } else { SourceKind::All };
        let small = |n: usize| u8::try_from(n).expect("there are at most eight parts");
        let mut head = vec![VERSION, small(self.needed()), small(self.parts.len())];
        head.extend(self.parts.iter().map(|part| u8::from(part.pin)));
        let mut items = vec![(TAG_HEAD, head)];
        items.extend(self.shares.as_ref().map(|shares| (TAG_SALT, shares.salt.to_vec())));
        items.extend(self.parts.iter().zip(TAG_PART..).map(|(part, tag)| (tag, part.public.to_bytes())));
        let sealed = self.shares.iter().flat_map(|shares| &shares.sealed);
        items.extend(sealed.zip(TAG_SHARE..).map(|(sealed, tag)| (tag, sealed.to_vec())));
        SlotPublic::new(kind, limit, items).map_err(|e| SourceError::TooLarge { kind, defect: e.to_string() })
    }

    /// What [`CombinedSlot::write`] wrote; the disk is hostile, so every item is looked at.
    pub(super) fn read(slot: &SlotPublic) -> Option<Self> {
        let (head, pins) = slot.item(TAG_HEAD)?.split_first_chunk()?;
        let &[VERSION, needed, count] = head else { return None };
        let n = usize::from(count);
        if !(2..=MAX_PARTS).contains(&n) || !(1..=count).contains(&needed) || pins.len() != n {
            return None;
        }
        let part = |(at, pin): (u16, &u8)| {
            let public = SlotPublic::from_bytes(slot.item(TAG_PART + at)?).filter(|p| may_be_part(p.kind()))?;
            let pin = match pin {
                0 => false,
                1 => true,
                _ => return None,
            };
            Some(SlotPart { public, pin })
        };
        let parts: Vec<SlotPart> = (0..).zip(pins).map(part).collect::<Option<_>>()?;
        let (shares, items) = match slot.kind() {
            SourceKind::All if needed == count => (None, 1 + n),
            SourceKind::Threshold => {
                let salt = slot.item(TAG_SALT)?.try_into().ok()?;
                let share = |at: u16| slot.item(TAG_SHARE + at)?.try_into().ok();
                let sealed = (0..u16::from(count)).map(share).collect::<Option<_>>()?;
                (Some(Shares { threshold: needed, salt, sealed }), 2 + 2 * n)
            }
            _ => return None,
        };
        // Nothing that is not understood: equal slots have equal bytes.
        (slot.items().len() == items).then_some(Self { parts, shares })
    }
}

impl Shares {
    fn key(&self, ikm: &Ikm, point: u8) -> Gcm {
        let info = [labels::THRESHOLD_SHARE.text.as_bytes(), &[point]].concat();
        let key: Secret<{ labels::THRESHOLD_SHARE.bytes }> =
            Secret::init_with(|key| crypto::hkdf_sha256(&self.salt, ikm.expose(), &info, key));
        Gcm::new(key.expose())
    }

    fn associated(&self, count: u8, point: u8) -> [u8; 4] {
        [VERSION, self.threshold, count, point]
    }

    /// The share of the part at a place, and its point.
    fn open(&self, count: usize, at: usize, ikm: &Ikm) -> Option<(u8, Secret<SHARE_BYTES>)> {
        let (count, point) = (u8::try_from(count).ok()?, u8::try_from(at + 1).ok()?);
        let clear = self.key(ikm, point).open(NONCE, &self.associated(count, point), self.sealed.get(at)?).ok()?;
        let share = Secret::try_init_with(|share: &mut [u8; SHARE_BYTES]| {
            share.copy_from_slice(clear.get(..SHARE_BYTES).ok_or(())?);
            Ok::<(), ()>(())
        });
        Some((point, share.ok()?))
    }
}

/// The key material of `all`: of every part's, each behind its length, so that no two sets of parts are the same
/// octets.
pub(super) fn joined<I: std::borrow::Borrow<Ikm>>(ikms: &[I]) -> Result<Ikm, SourceError> {
    let octets: usize = ikms.iter().map(|ikm| 2 + ikm.borrow().expose().len()).sum();
    // One allocation that never grows.
    let mut all = Zeroizing::new(Vec::with_capacity(octets));
    for ikm in ikms.iter().map(|ikm| ikm.borrow().expose()) {
        all.extend_from_slice(&u16::try_from(ikm.len()).expect("an IKM has at most 4096 octets").to_be_bytes());
        all.extend_from_slice(ikm);
    }
    let key: Secret<{ labels::ALL.bytes }> =
        Secret::init_with(|key| crypto::hkdf_sha256(&[], &all, labels::ALL.text.as_bytes(), key));
    material(&key)
}

fn material(secret: &Secret<32>) -> Result<Ikm, SourceError> {
    Ikm::new(SecretBytes::new(secret.expose().to_vec()), None)
        .map_err(|source| SourceError::Ikm { what: "the combination".into(), source })
}

fn other_key(at: usize) -> SourceError {
    SourceError::OtherKey { what: format!("part {}", at + 1) }
}

const VERSION: u8 = 1;
const TAG_HEAD: u16 = 1;
const TAG_SALT: u16 = 2;
const TAG_PART: u16 = 16;
const TAG_SHARE: u16 = 32;
const SALT_BYTES: usize = 32;
const SEALED_BYTES: usize = SHARE_BYTES + TAG_BYTES;
const NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Counting, ikm, other_ikm};

    fn parts() -> Vec<SlotPart> {
        let first = SlotPublic::new(SourceKind::Tpm, NonZeroU8::new(3), vec![(1, vec![1]), (9, vec![2, 3])]).unwrap();
        vec![SlotPart { public: first, pin: true }, SlotPart { public: SlotPublic::bare(SourceKind::Exec), pin: false }]
    }

    fn threshold(needed: u8) -> (CombinedSlot, Ikm) {
        CombinedSlot::shared(needed, parts(), &[ikm(), other_ikm()], &Counting::default()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for slot in [CombinedSlot::all(parts()), threshold(1).0, threshold(2).0] {
            let public = slot.write(None).unwrap();
            assert_eq!(CombinedSlot::read(&public).unwrap(), slot);
        }
    }

    type Items = Vec<(u16, Vec<u8>)>;

    /// Each with one thing changed.
    #[test]
    fn refused_slots() {
        let changed = |kind: SourceKind, change: &dyn Fn(&mut Items)| {
            let slot = if kind == SourceKind::All { CombinedSlot::all(parts()) } else { threshold(2).0 };
            let mut items = slot.write(None).unwrap().items().to_vec();
            change(&mut items);
            CombinedSlot::read(&SlotPublic::new(kind, None, items).unwrap())
        };
        let set = |at: usize, byte: usize, value: u8| move |items: &mut Items| items[at].1[byte] = value;
        for kind in [SourceKind::All, SourceKind::Threshold] {
            let part = if kind == SourceKind::All { 1 } else { 2 };
            assert!(changed(kind, &|_| {}).is_some());
            assert!(changed(kind, &set(0, 0, 2)).is_none(), "version");
            for (needed, count) in [(0, 2), (3, 2), (1, 1), (1, 3), (2, 9)] {
                let counts = |items: &mut Items| items[0].1[1..3].copy_from_slice(&[needed, count]);
                assert!(changed(kind, &counts).is_none(), "{needed} of {count}");
            }
            assert!(changed(kind, &set(0, 3, 2)).is_none(), "no PIN and no other");
            for number in [0, 3, 9, 10, 11, 255] {
                assert!(changed(kind, &set(part, 0, number)).is_none(), "a part of kind {number}");
            }
            assert!(changed(kind, &|items| _ = items[part].1.pop()).is_none(), "an item that is cut short");
            assert!(changed(kind, &|items| items[part].1.truncate(1)).is_none(), "no kind and limit");
            assert!(changed(kind, &|items| items.push((99, vec![]))).is_none(), "an item too many");
            assert!(changed(kind, &|items| _ = items.pop()).is_none(), "an item too few");
        }
        assert!(changed(SourceKind::All, &set(0, 1, 1)).is_none(), "all, and one is enough");
        assert!(changed(SourceKind::Threshold, &|items| _ = items[1].1.pop()).is_none(), "a short salt");
        assert!(CombinedSlot::read(&threshold(2).0.write(None).unwrap()).is_some());
        let exec = SlotPublic::new(SourceKind::Exec, None, threshold(2).0.write(None).unwrap().items().to_vec());
        assert!(CombinedSlot::read(&exec.unwrap()).is_none());
    }

    /// `all` is order and borders too; computed by an independent program (Python's `hmac`).
    #[test]
    fn the_key_of_all_is_known() {
        let key = |ikms: &[&Ikm]| hex::encode(joined(ikms).unwrap().expose());
        let (one, other) = (ikm(), other_ikm());
        assert_eq!(key(&[&one, &other]), GOLDEN_ALL);
        assert_ne!(key(&[&other, &one]), GOLDEN_ALL);
        assert_ne!(key(&[&one]), GOLDEN_ALL);
    }

    const GOLDEN_ALL: &str = "c3a22cfcee906bd17d462c7ace2fda3af136b55279b7b4c730eb68cebe4fc7c0";

    #[test]
    fn shares_of_one_key_are_never_under_the_same_key_twice() {
        let entropy = Counting::default();
        let make = || CombinedSlot::shared(2, parts(), &[ikm(), other_ikm()], &entropy).unwrap().0;
        let (one, two) = (make().shares.unwrap(), make().shares.unwrap());
        let key = |shares: &Shares| {
            let mut text = vec![0; 16];
            shares.key(&ikm(), 1).seal(NONCE, &[], &mut text);
            text
        };
        assert_ne!(key(&one), key(&two), "the hook gives the same octets, the salt differs");
    }

    #[test]
    fn a_share_opens_with_its_own_parts_key_alone() {
        let (slot, _) = threshold(2);
        assert!(slot.fits(0, &ikm()).is_ok() && slot.fits(1, &other_ikm()).is_ok());
        assert!(matches!(slot.fits(0, &other_ikm()), Err(SourceError::OtherKey { .. })));
        assert!(matches!(slot.fits(1, &ikm()), Err(SourceError::OtherKey { .. })));
        assert!(CombinedSlot::all(parts()).fits(0, &other_ikm()).is_ok(), "nothing tells it of `all`");
    }
}
