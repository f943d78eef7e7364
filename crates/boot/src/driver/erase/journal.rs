//! What a device that is being erased remembers, so that a power cut does not leave one that is dead and cannot say so.
//!
//! ```text
//! erasing.key   a private key for this one receipt, PKCS #8: in clear, for nothing can be opened any more when it is needed
//! erasing       what was begun, signed by the device CA; the public halves of the slots, for sources that keep something for them
//! erased.json   the receipt: all of it is done
//! ```
//! Beside the state directory, in this order. While a slot copy can be read the journal counts for nothing: the device
//! lives, whoever has put it there.

use std::io;

use host::Disk;
use pki::Ca;
use seal::{CopyFault, ReadSlotsError, SlotFiles, SlotPublic, SlotSet};
use secret::SecretBytes;
use secret::crypto::{Curve, SigningKey};
use serde::{Deserialize, Serialize};

use super::super::destroy::overwrite_and_remove;
use super::receipt::{Beginning, SignedBeginning, SignedReceipt, sign};
use crate::plan::Plan;

/// The journal of one erasure.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    format: u8,
    pub(super) begun: SignedBeginning,
    pub(super) certificate: String,
    /// [`SlotPublic::to_bytes`], hexadecimal, by the slot's number.
    slots: Vec<(u16, String)>,
}

impl Journal {
    /// Begins one: durable on return, and nothing was destroyed.
    pub(super) fn begin(
        disk: &dyn Disk,
        plan: &Plan,
        set: &SlotSet,
        ca: &Ca,
        beginning: impl FnOnce(&SigningKey) -> Beginning,
    ) -> Result<Self, JournalError> {
        forget(disk, plan)?;
        let key = SigningKey::generate(Curve::P256)?;
        let beginning = serde_json::to_string(&beginning(&key)).map_err(io::Error::from)?;
        let signature = sign(ca.key().expose_pkcs8(), &beginning)?;
        let slots = set.slots().iter().map(|slot| (slot.id().0, hex::encode(slot.public().to_bytes()))).collect();
        let begun = SignedBeginning { beginning, signature };
        let journal = Self { format: 1, begun, certificate: ca.pem(), slots };
        let text = serde_json::to_vec(&journal).map_err(io::Error::from)?;
        // The key first: a journal without it could not end in a receipt.
        disk.replace(&plan.data_dir.join(KEY), key.to_pkcs8()?.expose(), 0o600, None)?;
        disk.replace(&plan.data_dir.join(JOURNAL), &text, 0o600, None)?;
        Ok(journal)
    }

    /// The journal of an erasure that was cut short.
    pub(super) fn read(disk: &dyn Disk, plan: &Plan) -> io::Result<Option<Self>> {
        let path = plan.data_dir.join(JOURNAL);
        if disk.meta(&path)?.is_none() {
            return Ok(None);
        }
        let journal: Self = serde_json::from_slice(&disk.read(&path, MAX_BYTES)?)?;
        if journal.format != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is not known", journal.format)));
        }
        Ok(Some(journal))
    }

    /// What was begun.
    pub(super) fn beginning(&self) -> io::Result<Beginning> {
        Ok(serde_json::from_str(&self.begun.beginning)?)
    }

    /// The slots that are destroyed, as their sources know them.
    pub(super) fn slots(&self) -> io::Result<Vec<(u16, SlotPublic)>> {
        let slot = |(id, text): &(u16, String)| Some((*id, SlotPublic::from_bytes(&hex::decode(text).ok()?)?));
        let slots: Option<Vec<_>> = self.slots.iter().map(slot).collect();
        slots.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a slot in it cannot be understood"))
    }

    /// The key for the receipt.
    pub(super) fn key(disk: &dyn Disk, plan: &Plan) -> io::Result<SecretBytes> {
        Ok(SecretBytes::new(disk.read(&plan.data_dir.join(KEY), MAX_BYTES)?.to_vec()))
    }

    /// It is done: the receipt is durable, then the journal goes.
    pub(super) fn end(disk: &dyn Disk, plan: &Plan, receipt: &SignedReceipt) -> io::Result<()> {
        disk.replace(&plan.data_dir.join(RECEIPT), &serde_json::to_vec_pretty(receipt)?, 0o600, None)?;
        clear(disk, plan)
    }
}

/// How far a device is on the way to its end.
pub(in crate::driver) fn stage(disk: &dyn Disk, plan: &Plan) -> io::Result<Stage> {
    let there = |name: &str| Ok::<bool, io::Error>(disk.meta(&plan.data_dir.join(name))?.is_some());
    let slots_stand = match SlotFiles::new(disk, plan.state_dir()).read() {
        Ok(_) | Err(ReadSlotsError::Disagree { .. }) => true,
        // A copy that cannot be read today may be whole: an erasure must not be taken for begun because a disk fails.
        Err(
            ReadSlotsError::Corrupt { a: CopyFault::Disk(e), .. }
            | ReadSlotsError::Corrupt { b: CopyFault::Disk(e), .. },
        ) if there(JOURNAL)? && host::in_force("erasure-needs-destroyed-slots") => {
            let what = format!("an erasure was begun, and whether it has destroyed the slots cannot be seen: {e}");
            return Err(io::Error::new(e.kind(), what));
        }
        Err(ReadSlotsError::Corrupt { .. } | ReadSlotsError::Absent { .. }) => false,
    };
    if slots_stand {
        return Ok(if there(JOURNAL)? || there(KEY)? { Stage::GivenUp } else { Stage::None });
    }
    Ok(match (there(JOURNAL)?, there(RECEIPT)?) {
        (true, _) => Stage::Erasing,
        (false, true) => Stage::Erased,
        (false, false) => Stage::None,
    })
}

/// What [`stage`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Stage {
    /// Nobody wants to erase it.
    None,
    /// That was cut short while a slot could still be read: the device lives.
    GivenUp,
    /// Slots are destroyed, and no receipt is there.
    Erasing,
    /// The receipt is there.
    Erased,
}

/// The receipt of a device that was erased.
pub(super) fn receipt(disk: &dyn Disk, plan: &Plan) -> io::Result<SignedReceipt> {
    Ok(serde_json::from_slice(&disk.read(&plan.data_dir.join(RECEIPT), MAX_BYTES)?)?)
}

/// The receipt, where only the journal was left to go: it is written when all else is done.
pub(super) fn ended(disk: &dyn Disk, plan: &Plan) -> io::Result<Option<SignedReceipt>> {
    if disk.meta(&plan.data_dir.join(RECEIPT))?.is_none() {
        return Ok(None);
    }
    clear(disk, plan)?;
    receipt(disk, plan).map(Some)
}

/// Takes journal, key and receipt away.
pub(in crate::driver) fn forget(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    clear(disk, plan)?;
    let receipt = plan.data_dir.join(RECEIPT);
    if disk.meta(&receipt)?.is_some() {
        disk.remove_file(&receipt)?;
        disk.sync_dir(&plan.data_dir)?;
    }
    Ok(())
}

/// The key goes first: what is left after a cut is a journal without one, beside a receipt or a device that lives.
fn clear(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    for name in [KEY, JOURNAL] {
        let path = plan.data_dir.join(name);
        for path in [host::temporary_beside(&path)?, path] {
            overwrite_and_remove(disk, &path)?;
        }
        disk.sync_dir(&plan.data_dir)?;
    }
    Ok(())
}

/// Why an erasure is not begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// The disk failed.
    #[error("the journal of the erasure cannot be written")]
    Disk(#[from] io::Error),
    /// The library's generator failed.
    #[error("the beginning cannot be signed")]
    Sign(#[from] secret::crypto::SignError),
}

const JOURNAL: &str = "erasing";
const KEY: &str = "erasing.key";
/// The receipt in the data directory.
pub(in crate::driver) const RECEIPT: &str = "erased.json";
/// Sixteen slots of 2 KiB, in hexadecimal, and a certificate.
const MAX_BYTES: usize = 128 * 1024;
