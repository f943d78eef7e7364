//! The end of a device: whatever could open its store is destroyed, and a receipt says so.
//!
//! ```text
//! audit -> gates shut, store closed -> journal -> slots.a, slots.b and key files: zeros, then gone -> what sources keep (NV indices)
//!       -> sources are asked again -> the rest -> there is no slot file to unseal by -> receipt -> the journal goes
//! ```
//! Until the last slot copy is touched a cut leaves a device that lives, and nobody was told anything else. After it
//! the next start goes on by itself, with what the [`journal`] remembers, and ends with a receipt as well. There is
//! none while a source has not answered: a receipt is for what was done to its end. `driver::tests::erase` cuts the
//! power at each step.

mod journal;
mod receipt;

use std::sync::Arc;

use api::PeerAddress;
use pki::Ca;
use seal::{Fit, Left, ReadSlotsError, SlotFiles, SlotPublic, SourceKind};

use super::destroy;
use super::identity::MachineId;
use super::keys::{of_source, refused};
use super::running::Running;
use super::source;
use crate::machine::{Event, Halt};
use crate::plan::SourceSpec;
use journal::Journal;
use receipt::sign;

pub(super) use journal::{RECEIPT, Stage, forget, stage};
pub use receipt::{Beginning, ErasedDevice, Receipt, SignedBeginning, SignedReceipt};

impl Running {
    /// Destroys everything that could open this store, goes on with that, or gives the receipt of what was done.
    /// Afterwards the device is erased for good.
    ///
    /// # Errors
    /// A [`Halt`] if the store is sealed, if it cannot be recorded, or if something could not be destroyed: then there
    /// is no receipt, and asking again goes on.
    pub async fn erase(&mut self, by: PeerAddress) -> Result<SignedReceipt, Halt> {
        let (disk, plan) = (Arc::clone(&self.env.disk), Arc::clone(&self.plan));
        match stage(&*disk, &plan).map_err(|e| refused(&e, AGAIN))? {
            Stage::Erased => return journal::receipt(&*disk, &plan).map_err(|e| refused(&e, AGAIN)),
            Stage::Erasing => {
                let signed = self.go_on().await?;
                self.feed(Event::Erased { receipt: plan.data_dir.join(RECEIPT) }).await;
                return Ok(signed);
            }
            Stage::None | Stage::GivenUp => {}
        }
        let set = self.vouched()?;
        // The record of the beginning is durable; that of the end would lie in a ring that is about to go.
        let act = self.announce("admin/erase", by).await?;
        let Some(ca) = self.hands.certificates.take().map(|c| c.ca) else {
            let halt = Halt::Refused {
                fact: "the device has no certificate yet".into(),
                hint: "ask again in a moment".into(),
            };
            self.conclude(act, Err(halt.clone())).await?;
            return Err(halt);
        };
        drop(act);
        let kept = self.keeper_forgets().err();
        self.feed(Event::Failed(Halt::Erasing)).await;
        let (machine, at) = (MachineId::read(&*disk, &self.env.machine), self.env.clock.wall().to_rfc3339());
        let begun = Journal::begin(&*disk, &plan, &set, &ca, |key| Beginning::of(&set, machine, at, key));
        let journal = begun.map_err(|e| {
            refused(&e, "nothing was destroyed: see whether the disk is full, start edgekeep again, and ask again")
        })?;
        let signed = self.destroy(&journal, Some(&ca), kept).await?;
        self.feed(Event::Erased { receipt: plan.data_dir.join(RECEIPT) }).await;
        Ok(signed)
    }

    /// After a start that found an erasure cut short.
    pub(super) async fn finish_erasing(&mut self) -> Event {
        match self.go_on().await {
            Ok(_) => Event::Erased { receipt: self.plan.data_dir.join(RECEIPT) },
            Err(halt) => Event::Failed(halt),
        }
    }

    /// An erasure that was cut short before it had destroyed a slot is none.
    pub(super) fn give_up_erasing(&mut self) {
        let (disk, plan) = (Arc::clone(&self.env.disk), Arc::clone(&self.plan));
        if !matches!(stage(&*disk, &plan), Ok(Stage::GivenUp)) {
            return;
        }
        self.warn("an erasure was cut short before a slot was destroyed: ask for it again".into());
        if let Err(e) = forget(&*disk, &plan) {
            self.warn(format!("its journal is left behind: {e}"));
        }
    }

    async fn go_on(&mut self) -> Result<SignedReceipt, Halt> {
        if let Some(receipt) = journal::ended(&*self.env.disk, &self.plan).map_err(|e| refused(&e, AGAIN))? {
            return Ok(receipt);
        }
        let journal = Journal::read(&*self.env.disk, &self.plan).map_err(|e| refused(&e, SPOILT))?;
        let journal = journal.ok_or_else(|| super::work::out_of_order("erase"))?;
        // The process that was killed may have left a keeper, and a power cut has not.
        let kept = self.keeper_forgets().err();
        self.destroy(&journal, None, kept).await
    }

    /// From the journal to the receipt; each step may have been done before. `kept` is what the keeper would not give
    /// up: no reason to let a device live, and none to be silent in its receipt.
    async fn destroy(
        &mut self,
        journal: &Journal,
        ca: Option<&Ca>,
        kept: Option<String>,
    ) -> Result<SignedReceipt, Halt> {
        let (disk, plan) = (Arc::clone(&self.env.disk), Arc::clone(&self.plan));
        destroy::slots(&*disk, &plan).map_err(|e| refused(&e, AGAIN))?;
        let (sources, mut remains) = self.ask_again(&journal.slots().map_err(|e| refused(&e, SPOILT))?).await?;
        destroy::rest(&*disk, &plan).map_err(|e| refused(&e, AGAIN))?;
        let opens =
            |fault| format!("{fault}; it opens copies of the slot files, kept elsewhere, until the device restarts");
        remains.extend(kept.map(opens));
        remains.extend(NOT_OURS.map(str::to_owned));
        let unseal = match SlotFiles::new(&*disk, plan.state_dir()).read() {
            Err(e @ ReadSlotsError::Absent { .. }) => e.to_string(),
            other => {
                let fact = format!("slot files are there still: {other:?}");
                return Err(Halt::Refused { fact, hint: AGAIN.into() });
            }
        };
        let erased = journal.beginning().map_err(|e| refused(&e, SPOILT))?.erased;
        let at = self.env.clock.wall().to_rfc3339();
        let receipt = Receipt { erased, at, unseal, sources, remains };
        let text = serde_json::to_string(&receipt).map_err(|e| refused(&e, "please report this"))?;
        let signature = match ca {
            Some(ca) => sign(ca.key().expose_pkcs8(), &text),
            None => sign(Journal::key(&*disk, &plan).map_err(|e| refused(&e, SPOILT))?.expose(), &text),
        };
        let signed = SignedReceipt {
            receipt: text,
            signature: signature.map_err(|e| refused(&e, SPOILT))?,
            certificate: journal.certificate.clone(),
            begun: ca.is_none().then(|| journal.begun.clone()),
        };
        Journal::end(&*disk, &plan, &signed).map_err(|e| refused(&e, AGAIN))?;
        Ok(signed)
    }

    /// Has each source destroy what it keeps for the slots, and asks it for the key that it must not have any more.
    /// What was said, and what a copy of a slot would still open.
    async fn ask_again(&mut self, slots: &[(u16, SlotPublic)]) -> Result<(Vec<String>, Vec<String>), Halt> {
        let (plan, env) = (Arc::clone(&self.plan), self.env.clone());
        let (mut said, mut remains) = (Vec::new(), Vec::new());
        for (id, slot) in slots.iter().filter(|(_, slot)| slot.kind() != SourceKind::Recovery) {
            let owners = self.owners(slot);
            if owners.is_empty() {
                remains.push(format!(
                    "no source of the configuration goes with slot {id} ({}): none was asked",
                    slot.kind()
                ));
            }
            for spec in owners {
                let failed = |e| of_source(spec, &plan, &e, UNANSWERED);
                source::discard(spec, &plan, &env, slot.clone(), Vec::new()).await.map_err(failed)?;
                match source::left_of(spec, &plan, &env, slot.clone()).await.map_err(failed)? {
                    Left::Copies(what) => {
                        remains.push(format!("a copy of slot {id}, kept elsewhere, may open: {what}"))
                    }
                    Left::Nothing(how) if host::in_force("erased-sources-asked") => {
                        match source::release(spec, &plan, &env, slot.clone(), &[]).await {
                            Err(e) => said.push(format!("{how}; asked for its key: {}", host::with_causes(&e))),
                            Ok(_) => {
                                let fact = format!("{spec} gives the key of slot {id}, though {how}");
                                return Err(Halt::Refused { fact, hint: UNANSWERED.into() });
                            }
                        }
                    }
                    Left::Nothing(_) => {}
                }
            }
        }
        for list in [&mut said, &mut remains] {
            list.sort();
            list.dedup();
        }
        Ok((said, remains))
    }

    /// The sources of the plan that may have made a slot: those that name it, else those that may.
    fn owners(&self, slot: &SlotPublic) -> Vec<&SourceSpec> {
        let of = |fit| {
            let fits = |spec: &&SourceSpec| source::source(spec, &self.plan, &self.env).fits(slot) == fit;
            self.plan.sources.iter().filter(fits).collect::<Vec<_>>()
        };
        Some(of(Fit::Yes)).filter(|named| !named.is_empty()).unwrap_or_else(|| of(Fit::Maybe))
    }
}

const AGAIN: &str = "see what is wrong there, and repeat edgekeep erase: it goes on";
const UNANSWERED: &str = "repeat edgekeep erase when it answers; if it never will, take its [[source]] out of edgekeep.toml, and the receipt says so";
const SPOILT: &str = "there will be no receipt: edgekeep reprovision --destroys-all-secrets destroys what is left";
/// What no program on the device can answer for.
const NOT_OURS: [&str; 3] = [
    "flash may keep earlier contents of overwritten blocks; they are of use only with the key source",
    "copies of the data directory that lie elsewhere open with the key source as before, unless it has destroyed what it kept",
    "the recovery key that is with its keeper opens such copies",
];
