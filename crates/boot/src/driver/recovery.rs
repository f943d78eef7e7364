//! A recovery key is spent by its use: whoever has seen it typed, or has kept a copy, holds nothing afterwards.
//!
//! ```text
//! slots that stay are due -> new key with its keeper -> root key, data key and slots anew, and the new slot's KEK under the barrier, at the
//!     one moment of a commit (`slots::change`) -> new key in its place
//! ```
//! A power cut between any two leaves a store that opens by one of the two keys, and the keeper has both: the old one
//! until the commit, the new one from then on. The new key waits beside its place, under its public name, until the
//! slots are new; the next start finds by the name in the slot whether it goes into its place or away. A person at a
//! terminal is such a keeper too: the new key is offered, and counts when the person's side confirms that it was shown.
//!
//! The used key opens older copies of the slot files, which flash and backups keep: so the root key that it opened
//! there goes with it, and the KEKs that it could read under the barrier are due to be others (`kept_keks`). There is
//! no moment at which the new key is in force and the used one is as good as an older copy.
//!
//! `a_power_cut_while_the_recovery_key_is_replaced_leaves_one_that_opens` plays each cut.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::PeerAddress;
use host::Disk;
use pipeline::Core;
use seal::{Change, RecoveryKey, SlotFiles, SlotSet, SourceKind, seal_to_recipients, write_recovery_file};
use zeroize::Zeroizing;

use super::environment::Environment;
use super::kept_keks;
use super::keys::refused;
use super::running::Running;
use super::state_dir::RECOVERY;
use crate::machine::Halt;
use crate::plan::{Plan, RecoverySpec};

/// What became of the key that opened the store.
#[derive(Debug)]
pub enum Rotation {
    /// It opens nothing any more; the new key is with its keeper, here.
    Replaced(PathBuf),
    /// It stays valid until [`Running::confirm_recovery`]: this new key is to be shown to a person first.
    Offered(Zeroizing<String>),
    /// It stays valid, for this reason. The store is open.
    Kept(String),
}

impl Running {
    /// Records the use of `key`, which has opened the store, and replaces it.
    ///
    /// # Errors
    /// A [`Halt`] if the audit does not take the record: what cannot be recorded does not happen, so the device is
    /// sealed again.
    pub(super) async fn spend(&mut self, key: &RecoveryKey, by: PeerAddress) -> Result<Rotation, Halt> {
        let core = self.hands.core.clone().ok_or_else(not_open)?;
        let used = match core.announce_recovery("admin/recover", &key.name(), by).await {
            Ok(used) => used,
            Err(e) => {
                self.seal().await;
                return Err(Halt::Refused {
                    fact: format!(
                        "the use of the recovery key cannot be recorded, so the store is sealed again: {}",
                        e.logged()
                    ),
                    hint: "see whether the disk of the audit ring works".into(),
                });
            }
        };
        let new = RecoveryKey::generate(&*self.env.entropy);
        let (rotation, outcome) = match place(&self.plan) {
            Some(place) => match self.replace(key, &new, Some(&place)).await {
                Ok(sequence) => (Rotation::Replaced(place), Ok(sequence)),
                Err(halt) => (self.kept(&halt), Err(halt.to_string())),
            },
            None => {
                let text = new.format();
                self.hands.offered = Some(new);
                (Rotation::Offered(text), Ok(None))
            }
        };
        if let Err(e) = core.conclude_local(used, outcome.as_ref().copied().map_err(String::as_str)).await {
            self.alarm(format!("the audit has the use of the recovery key, and not its outcome: {}", e.logged()));
        }
        Ok(rotation)
    }

    /// A root token for `ttl`, for whoever shows the recovery key of the open store. The key is spent by it.
    ///
    /// # Errors
    /// A [`Halt`] if the store is sealed, the key is not its, or the audit does not take the record: then there is no
    /// such token.
    pub async fn generate_root(
        &mut self,
        key: &RecoveryKey,
        ttl: api::Ttl,
        by: PeerAddress,
    ) -> Result<(api::Auth, Rotation), Halt> {
        let core = self.owned_by(key, "admin/generate-root", &by).await?;
        let auth = core.generate_root(ttl).await.map_err(|e| Halt::Refused {
            fact: format!("no root token is made: {}", e.logged()),
            hint: "see whether the disks of the store and the audit ring work".into(),
        })?;
        let rotation = self.spend(key, by).await?;
        Ok((auth, rotation))
    }

    /// Puts another recovery key in the place of `key`, with the store open.
    ///
    /// # Errors
    /// As above.
    pub async fn rekey(&mut self, key: &RecoveryKey, by: PeerAddress) -> Result<Rotation, Halt> {
        self.owned_by(key, "admin/rekey", &by).await?;
        self.spend(key, by).await
    }

    /// Records that `key` is shown for `path`, and sees that it opens the store.
    async fn owned_by(&self, key: &RecoveryKey, path: &'static str, by: &PeerAddress) -> Result<Arc<Core>, Halt> {
        let core = self.hands.core.clone().ok_or_else(not_open)?;
        let unrecorded = |e: pipeline::EngineError| Halt::Refused {
            fact: format!("the use of the recovery key cannot be recorded: {}", e.logged()),
            hint: "see whether the disk of the audit ring works".into(),
        };
        let used = core.announce_recovery(path, &key.name(), by.clone()).await.map_err(unrecorded)?;
        let looked = self
            .vouched()
            .and_then(|set| Ok((set, key.ikm().map_err(|e| refused(&e, "give the key as it was given out"))?)));
        let (set, ikm) = match looked {
            Ok(both) => both,
            Err(halt) => {
                core.conclude_local(used, Err(&halt.to_string())).await.map_err(unrecorded)?;
                return Err(halt);
            }
        };
        let opens = set.unlock(SourceKind::Recovery, ikm).is_ok() || !host::in_force("recovery-key-proves-the-owner");
        let outcome = if opens { Ok(None) } else { Err("it is not this store's recovery key") };
        core.conclude_local(used, outcome).await.map_err(unrecorded)?;
        match opens {
            true => Ok(core),
            false => Err(Halt::Refused {
                fact: format!("{} is not the recovery key of this store", key.name()),
                hint: "a key is replaced by each use: take the newest, or see `edgekeep seal slots list` for its name"
                    .into(),
            }),
        }
    }

    /// Puts the offered key into force; `key` is the used one, once more. From then on the used one opens nothing.
    ///
    /// # Errors
    /// A [`Halt`] if no key was offered, or the slots cannot be changed. The used key stays valid, the offered one is
    /// forgotten.
    pub async fn confirm_recovery(&mut self, key: &RecoveryKey, by: PeerAddress) -> Result<(), Halt> {
        let Some(new) = self.hands.offered.take() else {
            let fact = "no new recovery key waits to be confirmed".to_owned();
            return Err(Halt::Refused {
                fact,
                hint: "one is offered when the store is opened: edgekeep recover".into(),
            });
        };
        let core = self.hands.core.clone().ok_or_else(not_open)?;
        let used =
            core.announce_recovery("admin/recover/confirm", &key.name(), by).await.map_err(|e| Halt::Refused {
                fact: format!("the use of the recovery key cannot be recorded: {}", e.logged()),
                hint: "see whether the disk of the audit ring works".into(),
            })?;
        let outcome = self.replace(key, &new, None).await;
        let told = outcome.as_ref().copied().map_err(ToString::to_string);
        if let Err(e) = core.conclude_local(used, told.as_ref().copied().map_err(String::as_str)).await {
            self.alarm(format!("the audit has the use of the recovery key, and not its outcome: {}", e.logged()));
        }
        outcome.map(drop).inspect_err(|halt| {
            self.kept(halt);
        })
    }

    fn kept(&mut self, halt: &Halt) -> Rotation {
        self.warn(format!("the used recovery key stays valid: {halt}; {}", halt.hint()));
        Rotation::Kept(format!("{halt}; {}", halt.hint()))
    }

    /// Puts `new` in the place of `old`. The store's sequence number after it.
    async fn replace(
        &mut self,
        old: &RecoveryKey,
        new: &RecoveryKey,
        place: Option<&Path>,
    ) -> Result<Option<u64>, Halt> {
        let store = self.hands.store.clone().ok_or_else(not_open)?;
        let env = self.env.clone();
        let disk = &*env.disk;
        let (ground, used) = self.ground_by(old).await?;
        let slot = new.new_slot().map_err(|e| refused(&e, "start edgekeep again"))?;
        let remove = if host::in_force("recovery-key-spent") { vec![used] } else { Vec::new() };
        let change = Change { remove, add: vec![slot], ..Change::default() };

        let stays = ground.set().slots().iter().map(seal::Slot::id).filter(|id| *id != used);
        kept_keks::mark(&store, stays).await?;
        // Before the slots: a cut behind them must not leave a key that nobody has.
        let waiting = place.map(|place| waiting(place, &new.name()));
        if let Some(waiting) = &waiting {
            deliver(&self.plan, &env, waiting, new)?;
        }
        let renewed = match self.renew(&ground, change).await {
            Ok(renewed) => renewed,
            Err(halt) => {
                // Where the files name it, it may be in force: the next start finds out.
                let files = SlotFiles::new(disk, self.plan.state_dir());
                let names = |set: &SlotSet| recovery_names(set).any(|name| name == new.name());
                if let Some(waiting) = waiting.filter(|_| files.read().is_ok_and(|found| !names(&found.set)))
                    && let Err(e) = disk.remove_file(&waiting)
                {
                    self.warn(format!("a recovery key that opens nothing is left behind: {e}"));
                }
                return Err(halt);
            }
        };
        if let (Some(place), Some(waiting)) = (place, &waiting)
            && let Err(e) = into_place(disk, waiting, place)
        {
            self.warn(format!("the new recovery key stays at {}: {e}", waiting.display()));
        }
        Ok(Some(renewed.sequence()))
    }

    /// Ends what a power cut has left of a rotation: `set` is open, so a waiting key is in force if a slot bears its
    /// name.
    pub(super) fn settle_recovery(&mut self, set: &SlotSet) {
        if let Some(place) = place(&self.plan)
            && let Err(e) = settle(&*self.env.disk, &self.plan, set, &place)
        {
            self.warn(format!("the recovery key may not be at {}: {e}", place.display()));
        }
    }
}

/// The public names of the recovery keys of a set.
fn recovery_names(set: &SlotSet) -> impl Iterator<Item = String> {
    set.slots_of(SourceKind::Recovery).filter_map(|slot| slot.public().recovery_name())
}

/// Gives the new key to its keeper, durably, under the name that waits.
fn deliver(plan: &Plan, env: &Environment, waiting: &Path, key: &RecoveryKey) -> Result<(), Halt> {
    match &plan.recovery {
        Some(RecoverySpec::Age(recipients)) => {
            let sealed =
                seal_to_recipients(key, recipients).map_err(|e| refused(&e, "see [recovery] in edgekeep.toml"))?;
            env.disk.replace(waiting, &sealed, 0o600, None).map_err(|e| refused(&e, FULL))
        }
        _ => write_recovery_file(&*env.disk, waiting, &plan.data_dir, key).map_err(|e| refused(&e, e.hint())),
    }
}

/// Where the plan keeps the recovery key, if that is a file.
fn place(plan: &Plan) -> Option<PathBuf> {
    match &plan.recovery {
        Some(RecoverySpec::Age(_)) => Some(plan.state_dir().join(RECOVERY)),
        Some(RecoverySpec::File(path)) => Some(path.clone()),
        Some(RecoverySpec::Terminal | RecoverySpec::None) | None => None,
    }
}

/// Where a key waits for its slot: `recovery.age.<public name>`.
fn waiting(place: &Path, name: &str) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push(".");
    path.push(name);
    path.into()
}

fn into_place(disk: &dyn Disk, waiting: &Path, place: &Path) -> io::Result<()> {
    disk.rename(waiting, place, true)?;
    disk.sync_dir(place.parent().unwrap_or(Path::new("/")))
}

fn settle(disk: &dyn Disk, plan: &Plan, set: &SlotSet, place: &Path) -> io::Result<()> {
    for name in recovery_names(set) {
        let waiting = waiting(place, &name);
        if disk.meta(&waiting)?.is_some() {
            into_place(disk, &waiting, place)?;
        }
    }
    // In our own directory what waits for a slot that never came is cleared away; elsewhere nothing is removed by a
    // pattern.
    let state = plan.state_dir();
    if place.parent() == Some(&*state) {
        let stale = format!("{RECOVERY}.");
        for name in disk.list(&state)?.into_iter().filter(|n| n.trim_start_matches('.').starts_with(&stale)) {
            disk.remove_file(&state.join(name))?;
        }
    }
    Ok(())
}

fn not_open() -> Halt {
    Halt::Refused { fact: "the store is not open".into(), hint: "open it by the recovery key: edgekeep recover".into() }
}

const FULL: &str = "see whether the disk is full";
