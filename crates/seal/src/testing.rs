//! What the tests of this crate share.

use std::sync::atomic::{AtomicU8, Ordering};

use host::Entropy;
use secret::{RootKey, Secret, SecretBytes};

use crate::ikm::Ikm;
use crate::recovery::RecoveryKey;
use crate::slot::{Profile, SealMode, SlotPublic, SourceKind, StoreId};
use crate::slot_set::{NewSlot, SetHeader, SlotKek, SlotSet};

/// 0, 1, 2 ... 255, 0 ...
#[derive(Default)]
pub(crate) struct Counting(AtomicU8);

impl Counting {
    pub(crate) fn from(first: u8) -> Self {
        Self(AtomicU8::new(first))
    }
}

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().for_each(|b| *b = self.0.fetch_add(1, Ordering::Relaxed));
    }
}

/// The IKM that EdgeX's documents give as their example.
pub(crate) const DOCUMENTED_IKM: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

pub(crate) fn ikm() -> Ikm {
    Ikm::new(SecretBytes::new(hex::decode(DOCUMENTED_IKM).unwrap()), None).unwrap()
}

pub(crate) fn other_ikm() -> Ikm {
    Ikm::new(SecretBytes::new((1..=32).collect()), None).unwrap()
}

pub(crate) fn root() -> RootKey {
    RootKey::new(Secret::init_with(|k| Counting::from(0x40).fill(k)))
}

pub(crate) fn recovery() -> RecoveryKey {
    RecoveryKey::generate(&Counting::default())
}

pub(crate) fn header() -> SetHeader {
    let mut store = StoreId([0; 16]);
    Counting::from(0x10).fill(&mut store.0);
    SetHeader { store, profile: Profile::Production, mode: SealMode::Slots }
}

pub(crate) fn exec_slot() -> NewSlot {
    NewSlot { public: SlotPublic::bare(SourceKind::Exec), ikm: ikm() }
}

/// The set of the golden file: a hook, and a recovery key.
pub(crate) fn golden_set() -> (SlotSet, Vec<SlotKek>) {
    let slots = vec![exec_slot(), recovery().new_slot().unwrap()];
    SlotSet::create(header(), &root(), slots, &Counting::default()).unwrap()
}
