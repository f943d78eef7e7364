//! What a slot remembers of its Tang servers: for each a binding, and one share of the key material under the key that
//! only this server's answer gives.
//!
//! ```text
//! item 1        version 1 | threshold | number of servers
//! item 16 + i   pinned signing key 32 | binding 134 | share i under AES-256-GCM, 32 + 16
//! ```
//! The shares are our own (Shamir) and not the servers' points: so each has a tag, and a server that lies is known by
//! name.

use host::Entropy;
use secret::Secret;
use secret::crypto::{Gcm, NONCE_BYTES, TAG_BYTES};
use tang::{BINDING_BYTES, Binding, Shared, Thumbprint};

use crate::ikm::Ikm;
use crate::shamir::{self, SHARE_BYTES};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// Most servers of a slot: what its public part has room for.
pub(super) const MAX_SERVERS: usize = 8;

/// One server's part of a slot.
pub(super) struct Entry {
    /// The signing key that was pinned when the slot was made.
    pub(super) pinned: Thumbprint,
    pub(super) binding: Binding,
    sealed: [u8; SEALED_BYTES],
    point: u8,
    threshold: u8,
    count: u8,
}

/// A share that came out whole.
pub(super) struct Share {
    pub(super) point: u8,
    bytes: Secret<SHARE_BYTES>,
}

impl Entry {
    /// Opens the share with what the server's answer gave. `None`: the answer was not the one, or the slot was changed.
    pub(super) fn open(&self, shared: Shared) -> Option<Share> {
        let gcm = Gcm::new(shared.into_key().expose());
        let clear = gcm.open(NONCE, &self.associated(), &self.sealed).ok()?;
        let bytes = Secret::try_init_with(|share: &mut [u8; SHARE_BYTES]| {
            let clear = clear.get(..SHARE_BYTES).ok_or(())?;
            share.copy_from_slice(clear);
            Ok::<(), ()>(())
        });
        Some(Share { point: self.point, bytes: bytes.ok()? })
    }

    fn seal(&mut self, shared: Shared, share: &Secret<SHARE_BYTES>) {
        let mut text = Vec::with_capacity(SEALED_BYTES);
        text.extend_from_slice(share.expose());
        Gcm::new(shared.into_key().expose()).seal(NONCE, &self.associated(), &mut text);
        text.resize(SEALED_BYTES, 0);
        self.sealed.copy_from_slice(&text);
    }

    fn associated(&self) -> [u8; 36] {
        let mut out = [VERSION; 36];
        out[1..4].copy_from_slice(&[self.threshold, self.count, self.point]);
        out[4..].copy_from_slice(&self.pinned.0);
        out
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&self.pinned.0[..], &self.binding.to_bytes(), &self.sealed].concat()
    }
}

/// All of a slot's servers.
pub(super) struct Entries {
    pub(super) threshold: u8,
    pub(super) all: Vec<Entry>,
}

impl Entries {
    /// Shares new key material among servers with whom a secret was just made. 1 <= threshold <= number of servers.
    pub(super) fn make(
        threshold: u8,
        servers: Vec<(Thumbprint, Binding, Shared)>,
        entropy: &dyn Entropy,
    ) -> (Self, Secret<SHARE_BYTES>) {
        let secret = Secret::init_with(|bytes| entropy.fill(bytes));
        let count = u8::try_from(servers.len()).expect("there are at most eight servers");
        let shares = shamir::split(&secret, threshold, count, entropy);
        let seal = |((pinned, binding, shared), (share, point))| {
            let sealed = [0; SEALED_BYTES];
            let mut entry = Entry { pinned, binding, sealed, point, threshold, count };
            entry.seal(shared, share);
            entry
        };
        let all = servers.into_iter().zip(shares.iter().zip(1..=count)).map(seal).collect();
        (Self { threshold, all }, secret)
    }

    /// The slot's public part.
    pub(super) fn to_slot(&self) -> SlotPublic {
        let count = u8::try_from(self.all.len()).expect("there are at most eight servers");
        let head = (TAG_HEAD, vec![VERSION, self.threshold, count]);
        let entries = self.all.iter().zip(TAG_FIRST..).map(|(entry, tag)| (tag, entry.to_bytes()));
        let items = std::iter::once(head).chain(entries).collect();
        SlotPublic::new(SourceKind::Tang, None, items).expect("eight entries of 214 bytes fit")
    }

    /// Reads a slot's public part.
    pub(super) fn from_slot(slot: &SlotPublic) -> Result<Self, SourceError> {
        Self::parse(slot).ok_or(SourceError::OtherSlot { kind: SourceKind::Tang })
    }

    fn parse(slot: &SlotPublic) -> Option<Self> {
        let (threshold, count) = match slot.item(TAG_HEAD)? {
            &[VERSION, threshold, count] => (threshold, count),
            _ => return None,
        };
        let shape = usize::from(count) <= MAX_SERVERS && (1..=count).contains(&threshold);
        if slot.kind() != SourceKind::Tang || !shape || slot.items().len() != 1 + usize::from(count) {
            return None;
        }
        let entry = |point: u8| {
            let bytes = slot.item(TAG_FIRST + u16::from(point) - 1)?;
            let (pinned, rest) = bytes.split_first_chunk::<32>()?;
            let (binding, sealed) = rest.split_first_chunk::<BINDING_BYTES>()?;
            let binding = Binding::from_bytes(binding).ok()?;
            let sealed = sealed.try_into().ok()?;
            Some(Entry { pinned: Thumbprint(*pinned), binding, sealed, point, threshold, count })
        };
        Some(Self { threshold, all: (1..=count).map(entry).collect::<Option<_>>()? })
    }

    /// The key material, from as many shares as the threshold says.
    pub(super) fn join(&self, shares: &[Share]) -> Option<Ikm> {
        if shares.len() < usize::from(self.threshold) && host::in_force("tang-threshold") {
            return None;
        }
        let points: Vec<_> = shares.iter().map(|s| (s.point, &s.bytes)).collect();
        ikm(&shamir::join(&points))
    }
}

/// The secret as key material.
pub(super) fn ikm(secret: &Secret<SHARE_BYTES>) -> Option<Ikm> {
    Ikm::new(secret::SecretBytes::new(secret.expose().to_vec()), None).ok()
}

const VERSION: u8 = 1;
const TAG_HEAD: u16 = 1;
const TAG_FIRST: u16 = 16;
const SEALED_BYTES: usize = SHARE_BYTES + TAG_BYTES;
/// Each key seals one share, once: it comes from a random number of this very provisioning (SP 800-38D, 8.2.1 asks no
/// more of a nonce than that it is not used twice under a key).
const NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];
