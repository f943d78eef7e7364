//! The head: one encrypted record, rewritten in every commit, that vouches for everything else.
//!
//! ```text
//! format u8 = 1 | store id 16 | nonce 12 | AES-256-GCM ciphertext 290 | tag 16             (numbers big-endian)
//! associated data = format | store id
//! clear:  0 sequence u64           batches committed since the store was made
//!         8 boot id 16             the kernel's, of the boot epoch
//!        24 boot count u64         boot epochs since the store was made
//!        32 store epoch u64        reserved: who leads, in a cluster
//!        40 profile u8             1 production, 2 demo
//!        41 slot generation u64
//!        49 slot digest 32         SHA-256 of the slot set
//!        81 time: boot id 16 | CLOCK_BOOTTIME ms u64 | store time ms u64
//!       113 keyring digest 32      SHA-256 of the keyring record
//!       145 rows u64               rows of `name`
//!       153 root 32                multiset hash over them
//!       185 anchor kind u8 | anchor counter u64     reserved: a hardware counter
//!       194 audit segment u64 | audit position u64  reserved: how far the audit log had come
//!       210 sealed u64             values encrypted under the keyring's last term
//!       218 zeros 72               reserved
//! ```
//! Whoever has an old head and the old rows with it has an old store whole; that is found by the slot digest and, when
//! one is there, by the anchor. Anything less than the whole is found by the root.

use host::{BootId, BootTime, Entropy};
use secret::crypto::{NONCE_BYTES, TAG_BYTES};

use crate::StoreTime;
use crate::keyring::Keys;
use crate::root::Root;
use crate::time::TimeRecord;

/// Length of the record.
pub(crate) const HEAD_BYTES: usize = 17 + NONCE_BYTES + CLEAR_BYTES + TAG_BYTES;

/// What a store is for; stands in slots and head alike, and the two must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Real secrets.
    Production,
    /// Asked for by `--demo`: known to be unprotected.
    Demo,
}

/// One run of the kernel as the store counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEpoch {
    /// The kernel's id of the boot.
    pub boot_id: BootId,
    /// How many boots this store has seen; 1 for the one in which it was made.
    pub count: u64,
}

/// The slot set that this store was last bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSet {
    /// Counts changes of the set.
    pub generation: u64,
    /// SHA-256 of the set, as `seal` computes it.
    pub digest: [u8; 32],
}

/// The head's fields that others decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Batches committed since the store was made.
    pub sequence: u64,
    /// The last boot epoch that was recorded.
    pub boot: BootEpoch,
    /// Reserved for clusters; 1.
    pub store_epoch: u64,
    /// What the store is for.
    pub profile: Profile,
    /// The slot set it was last bound to.
    pub slots: SlotSet,
    /// Values that were encrypted under the newest data key, committed or not; see [`KeyWear`](crate::KeyWear).
    pub sealed_values: u64,
}

/// All of the head, in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    pub(crate) public: Head,
    pub(crate) time: TimeRecord,
    pub(crate) keyring_digest: [u8; 32],
    pub(crate) rows: u64,
    pub(crate) root: Root,
}

impl HeadRecord {
    /// The record to be stored.
    pub(crate) fn seal(&self, keys: &Keys, entropy: &dyn Entropy) -> Vec<u8> {
        let mut text = self.clear();
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let header = header(keys.store_id());
        keys.head().seal(nonce, &header, &mut text);
        [header.as_slice(), &nonce, &text].concat()
    }

    /// Opens what was read from disk; `None` if it is not a head of this store.
    pub(crate) fn open(keys: &Keys, record: &[u8]) -> Option<Self> {
        if record.len() != HEAD_BYTES {
            return None;
        }
        let (head, rest) = record.split_first_chunk::<17>()?;
        if *head != header(keys.store_id()) {
            return None;
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
        Self::parse(&keys.head().open(*nonce, head, text).ok()?)
    }

    pub(crate) fn clear(&self) -> Vec<u8> {
        let Head { sequence, boot, store_epoch, profile, slots, sealed_values } = &self.public;
        let mut out = Vec::with_capacity(CLEAR_BYTES + TAG_BYTES);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&boot.boot_id.0);
        out.extend_from_slice(&boot.count.to_be_bytes());
        out.extend_from_slice(&store_epoch.to_be_bytes());
        out.push(match profile {
            Profile::Production => 1,
            Profile::Demo => 2,
        });
        out.extend_from_slice(&slots.generation.to_be_bytes());
        out.extend_from_slice(&slots.digest);
        out.extend_from_slice(&self.time.boot_id.0);
        out.extend_from_slice(&self.time.boottime.0.to_be_bytes());
        out.extend_from_slice(&self.time.store_time.0.to_be_bytes());
        out.extend_from_slice(&self.keyring_digest);
        out.extend_from_slice(&self.rows.to_be_bytes());
        out.extend_from_slice(&self.root.to_bytes());
        out.extend_from_slice(&[0; RESERVED_BEFORE_SEALED]);
        out.extend_from_slice(&sealed_values.to_be_bytes());
        out.resize(CLEAR_BYTES, 0); // the rest is reserved
        out
    }

    pub(crate) fn parse(clear: &[u8]) -> Option<Self> {
        if clear.len() != CLEAR_BYTES {
            return None;
        }
        let mut rest = clear;
        let mut record = Self {
            public: Head {
                sequence: number(&mut rest)?,
                boot: BootEpoch { boot_id: BootId(take(&mut rest)?), count: number(&mut rest)? },
                store_epoch: number(&mut rest)?,
                profile: match take::<1>(&mut rest)? {
                    [1] => Profile::Production,
                    [2] => Profile::Demo,
                    _ => return None,
                },
                slots: SlotSet { generation: number(&mut rest)?, digest: take(&mut rest)? },
                sealed_values: 0,
            },
            time: TimeRecord {
                boot_id: BootId(take(&mut rest)?),
                boottime: BootTime(number(&mut rest)?),
                store_time: StoreTime(number(&mut rest)?),
            },
            keyring_digest: take(&mut rest)?,
            rows: number(&mut rest)?,
            root: Root::from_bytes(&take(&mut rest)?),
        };
        // An anchor that a later format has set must not be overlooked by this one.
        let anchor: [u8; RESERVED_BEFORE_SEALED] = take(&mut rest)?;
        record.public.sealed_values = number(&mut rest)?;
        anchor.iter().chain(rest).all(|b| *b == 0).then_some(record)
    }
}

fn header(store_id: &[u8; 16]) -> [u8; 17] {
    let mut out = [FORMAT; 17];
    out[1..].copy_from_slice(store_id);
    out
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_be_bytes)
}

const FORMAT: u8 = 1;
const CLEAR_BYTES: usize = 290;
/// Anchor and audit position.
const RESERVED_BEFORE_SEALED: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Keyring;
    use host::OsEntropy;

    fn record() -> HeadRecord {
        HeadRecord {
            public: Head {
                sequence: 5,
                boot: BootEpoch { boot_id: BootId([3; 16]), count: 2 },
                store_epoch: 1,
                profile: Profile::Demo,
                slots: SlotSet { generation: 4, digest: [9; 32] },
                sealed_values: 0x0102_0304_0506,
            },
            time: TimeRecord { boot_id: BootId([3; 16]), boottime: BootTime(77), store_time: StoreTime(88) },
            keyring_digest: [6; 32],
            rows: 12,
            root: Root::from_bytes(&[200; 32]),
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let keys = Keyring::generate(&OsEntropy).keys([7; 16]);
        let sealed = record().seal(&keys, &OsEntropy);
        assert_eq!(sealed.len(), HEAD_BYTES);
        assert_eq!(HeadRecord::open(&keys, &sealed), Some(record()));
    }

    #[test]
    fn each_byte_counts() {
        let keys = Keyring::generate(&OsEntropy).keys([7; 16]);
        let sealed = record().seal(&keys, &OsEntropy);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(HeadRecord::open(&keys, &changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_reserved_field_in_use_is_refused() {
        for at in [185, 209, 218, 289] {
            let mut clear = record().clear();
            assert!(HeadRecord::parse(&clear).is_some());
            clear[at] = 1;
            assert_eq!(HeadRecord::parse(&clear), None, "byte {at}");
        }
    }
}
