//! What is said of slots; as JSON it is the answer of the admin socket. Nothing of it is secret.

use seal::{Slot, SlotPublic, slot_and_parts, storage_key};
use serde::{Deserialize, Serialize};

/// All slots of the store, and what the configuration has besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotList {
    /// The store's name, 32 hexadecimal digits.
    pub store: String,
    /// Counts the changes of the set.
    pub generation: u64,
    /// The slots, ids rising.
    pub slots: Vec<SlotReport>,
    /// Sources of the configuration that have no slot, by their number and what they are.
    pub without_slot: Vec<String>,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// Its number.
    pub id: u16,
    /// The kind of source that it names.
    pub kind: String,
    /// The source of the configuration that it goes with.
    pub source: Option<String>,
    /// Releases per boot; none for no limit.
    pub releases_per_boot: Option<u8>,
    /// Whether it was seen to open since the store was opened.
    pub opened: bool,
    /// What its source says now: (name, value).
    pub facts: Vec<(String, String)>,
    /// Why it would not open here and now; none where nothing speaks against it.
    pub missing: Option<String>,
}

/// What was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChange {
    /// Slots that came.
    pub added: Vec<u16>,
    /// Slots that went: root key and data key are new.
    pub removed: Vec<u16>,
    /// Slots that should have gone, and stay because the new one cannot be tried in this boot.
    pub kept: Vec<u16>,
    /// Slots that hang on another TPM than those that they took the place of, with the names of both.
    #[serde(default)]
    pub moved: Vec<String>,
    /// What did not go as it should.
    pub told: Vec<String>,
}

/// What to say of a slot that hangs on another TPM than the one it took the place of.
pub(super) fn moved(old: &SlotPublic, new: &Slot) -> Option<String> {
    let keys = |slot| slot_and_parts(slot).iter().filter_map(storage_key).collect::<Vec<_>>();
    let (before, now) = (keys(old), keys(new.public()));
    let differ = before.iter().zip(&now).find(|(before, now)| before != now);
    differ.map(|(before, now)| {
        format!("slot {} hangs on the TPM with storage key {now}; before it was {before}", new.id())
    })
}

/// A slot that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTest {
    /// Its number.
    pub id: u16,
    /// The kind of source that it names.
    pub kind: String,
    /// What came of it.
    pub verdict: Verdict,
    /// In words.
    pub told: String,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Its source has released what fits it, and the wrap has opened.
    Opens,
    /// Its source counts releases and was not asked for one; nothing speaks against it.
    NotAsked,
    /// It does not open.
    Refuses,
    /// No source of the configuration goes with it.
    NoSource,
}
