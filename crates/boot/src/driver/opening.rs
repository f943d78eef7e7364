//! From key material to a store that is open: slot, root key, head, machine, audit ring, certificates.

use std::sync::Arc;

use pipeline::audit::{AuditDevice, SyncPolicy};
use pipeline::{Core, Services};
use seal::{FoundSlots, HeadCheck, RecoveryKey, SlotFiles, SlotSet, SourceKind, UnlockError};
use store::{OpenError, Store};

use super::identity::{self, MachineId, Whose};
use super::running::Running;
use super::seam::Seam;
use super::work::{out_of_order, told};
use super::{audit_keys, certificates, keys, source, state_dir};
use crate::machine::{Epoch, Event, Halt};
use crate::plan::{AuditSync, MountKind};

impl Running {
    pub(super) fn unlock(&mut self) -> Event {
        // By the recovery key the slots were not read yet.
        if self.hands.found.is_none() {
            match SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read() {
                Ok(found) => self.hands.found = Some(found),
                Err(e) => return Event::Failed(keys::refused(&e, e.hint())),
            }
        }
        self.take_older_slots();
        let Some(found) = &self.hands.found else { return Event::Failed(out_of_order("unlock")) };
        let by_keeper = self.hands.kept.take().and_then(|kek| found.set.unlock_by(kek));
        let unlocked = match (by_keeper, self.hands.ikm.take()) {
            (Some(unlocked), _) => Ok((unlocked, false)),
            (None, Some((kind, ikm))) => {
                // While it is at hand: for a slot that is due another KEK, and for one that had another before a cut.
                let by_source = kind != SourceKind::Recovery;
                let slot = found.set.kek_by(kind, &ikm).map(|kek| kek.slot).filter(|_| by_source);
                self.hands.fresh = slot.and_then(|slot| found.set.fresh_kek(slot, &ikm, &*self.env.entropy));
                self.hands.kek_before = found.older.as_ref().and_then(|older| older.kek_by(kind, &ikm));
                found.set.unlock(kind, ikm).map(|u| (u, by_source))
            }
            (None, None) => return Event::Failed(out_of_order("unlock")),
        };
        match unlocked {
            Ok((unlocked, by_source)) => {
                let heal = found.heal.is_some();
                let profile = keys::plan_profile(unlocked.header().profile);
                if let Some((copy, fault)) = &found.heal {
                    let text = format!("{} {fault}; it will be written anew from the other copy", copy.file_name());
                    self.warn(text);
                }
                self.hands.by_source = by_source;
                self.hands.unlocked = Some(unlocked);
                self.phase("unlocked");
                Event::Unlocked { profile, heal }
            }
            Err(e) => Event::Failed(not_unlocked(&e)),
        }
    }

    /// Whether the key opens a slot of the newest set, or of the one before, which a cut may have left in force. Nothing
    /// is opened.
    pub(super) fn fits_a_recovery_slot(&self, key: &RecoveryKey) -> Result<(), Halt> {
        let ikm = key.ikm().map_err(|e| keys::refused(&e, "give the key as it was given out"))?;
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read();
        let found = found.map_err(|e| keys::refused(&e, e.hint()))?;
        let fits = |set: &SlotSet| set.kek_by(SourceKind::Recovery, &ikm).is_some();
        if fits(&found.set) || found.older.as_ref().is_some_and(fits) {
            return Ok(());
        }
        found.set.unlock(SourceKind::Recovery, ikm).map(drop).map_err(|e| not_unlocked(&e))
    }

    /// The slots of before, where key material fits them and not the newer ones: a recovery key whose replacement was
    /// cut short before the store knew of it. That they are in force still, the head says.
    fn take_older_slots(&mut self) {
        let (Some(found), Some((kind, ikm))) = (&self.hands.found, &self.hands.ikm) else { return };
        let fits = |set: &SlotSet| set.kek_by(*kind, ikm).is_some();
        if !fits(&found.set) && found.older.as_ref().is_some_and(fits) && host::in_force("cut-slots-step-back") {
            self.hands.found = self.hands.found.take().and_then(FoundSlots::step_back);
        }
    }

    pub(super) async fn open_store(&mut self) -> Result<Event, Halt> {
        let fresh = self.hands.fresh.take();
        if let Some(store) = self.plan.store.external().cloned() {
            self.hands.kek_before = None;
            return self.open_kept(&store).await;
        }
        let store = self.open_by_root()?;
        let unlocked = self.hands.unlocked.as_ref().ok_or_else(|| out_of_order("open"))?;
        let head = store.head().map_err(|e| keys::refused(&e, "start again"))?;
        let digest = seal::SlotDigest(head.slots.digest);
        match unlocked.check_head(head.slots.generation, &digest).map_err(|e| keys::refused(&e, e.hint()))? {
            HeadCheck::Current(_) => {}
            HeadCheck::HeadIsBehind { generation, digest } => {
                // A change of the slots was cut between the files and the head: the head follows.
                let slots = store::SlotSet { generation, digest: digest.0 };
                store.set_slot_set(slots).await.map_err(|e| keys::refused(&e, "see whether the disk is full"))?;
            }
        }
        let epoch = if head.boot.boot_id == self.env.clock.boot_id() { Epoch::Same } else { Epoch::New };
        // Here, where the root key is at hand: afterwards nobody can. A key that is not replaced is no reason to stay
        // sealed: long before it may not be used any more, the writer refuses.
        let replaced = store.rotate_if_worn(&unlocked.root).await;
        match replaced {
            Ok(true) => tracing::info!("the data key was replaced"),
            Ok(false) => {}
            Err(e) => self.alarm(told("the data key is worn, and was not replaced", &e)),
        }
        store.begin_boot().map_err(|e| keys::refused(&e, "start again"))?;
        let profile = keys::head_profile(head.profile);
        // From here on a failure closes the store again: `CloseStore` finds it in its place.
        self.hands.store = Some(store.clone());
        self.check_machine(&store).await?;
        let audit = self.open_audit(&store, head.sequence).await?;
        // After it: a new root key turns the audit to another key.
        self.freshen(fresh).await;
        let clock = Arc::clone(&self.env.clock);
        let services = Services::new(store, clock, Arc::clone(&self.env.entropy));
        let (engines, directory) = (self.env.engines)(&services);
        let core = Core::open(services, engines, directory, audit).await.map_err(|e| Halt::Refused {
            fact: format!("the store's tables cannot be opened: {}", e.logged()),
            hint: "see the log".into(),
        })?;
        self.gates_follow(&core);
        let vault = core
            .in_process_at(&boot_mounts(&self.plan))
            .map_err(|e| keys::refused(&e, "give mounts plain names in edgekeep.toml"))?;
        self.hands.vault = Some(Seam::Ours(vault));
        self.hands.core = Some(core);
        if let Err(e) = state_dir::settle(&*self.env.disk, &self.plan) {
            self.warn(format!("a note of the first boot is left behind: {e}"));
        }
        self.give_up_erasing();
        if let Some(found) = self.hands.found.take() {
            self.settle_recovery(&found.set);
            self.hands.found = Some(found);
        }
        if let Some(unlocked) = &self.hands.unlocked
            && self.hands.by_source
        {
            self.hands.seen.opened(unlocked.kek.slot, &self.hands.evidence);
        }
        self.close_others().await;
        self.close_when_open().await;
        self.phase("opened");
        Ok(Event::Opened { profile, epoch })
    }

    /// Whether the store was made on this machine. What is bound to its device has shown it by opening; a recovery key
    /// says that it is meant to be here from now on.
    async fn check_machine(&mut self, store: &Store) -> Result<(), Halt> {
        let failed = |e: store::CommitError| keys::refused(&e, "see whether the disk is full");
        let now = MachineId::read(&*self.env.disk, &self.env.machine);
        match identity::check(store, &now).await.map_err(failed)? {
            Whose::This => return Ok(()),
            Whose::Unknown => {
                self.warn("nothing tells whether this machine is the one that the store was made on".into());
                return Ok(());
            }
            Whose::Another => {}
        }
        let kind = self.hands.unlocked.as_ref().map(|u| u.source);
        let bound = |spec: &&crate::plan::SourceSpec| {
            Some(spec.kind()) == kind && source::source(spec, &self.plan, &self.env).capabilities().device_bound
        };
        let shown = kind == Some(SourceKind::Recovery) || self.plan.sources.iter().any(|spec| bound(&spec));
        if !shown && !self.plan.dangers.any_machine && host::in_force("machine-known") {
            return Err(Halt::Refused {
                fact: "this store was made on another machine: this is an image that was captured after the first boot, or a disk \
                       that was moved"
                    .into(),
                hint: "an image: edgekeep generalize --destroys-all-secrets, and capture it after that; a disk that was moved: \
                       edgekeep recover --reseal"
                    .into(),
            });
        }
        self.warn("the store was made on another machine; from now on it is this one's".into());
        identity::bind(store, &now).await.map_err(failed)
    }

    /// Opens the store by the root key in the newest slot set; or by the one before, where the power was cut between
    /// the first copy of a set with a new root key and the store's commit (`slots::change`). The head then confirms the
    /// one that opened.
    fn open_by_root(&mut self) -> Result<Store, Halt> {
        let config = keys::store_config(&self.env, &self.plan.state_dir());
        let unlocked = self.hands.unlocked.take().ok_or_else(|| out_of_order("open"))?;
        let kek_before = self.hands.kek_before.take();
        let refused = match Store::open(&config, &unlocked.root, unlocked.header().store.0) {
            Ok(store) => {
                self.hands.unlocked = Some(unlocked);
                return Ok(store);
            }
            Err(e) => e,
        };
        let older = self.hands.found.as_ref().and_then(|found| found.older.clone());
        let cut_short = matches!(refused, OpenError::WrongRoot) && host::in_force("cut-slots-step-back");
        let by_recovery = unlocked.source == SourceKind::Recovery;
        // The slot may have had another KEK before.
        let too_early = by_recovery && older.is_some() && matches!(refused, OpenError::WrongRoot);
        let back = older
            .filter(|_| cut_short)
            .and_then(|set| kek_before.and_then(|kek| set.unlock_by(kek)).or_else(|| unlocked.step_back(&set)));
        let Some(back) = back else {
            return Err(if too_early { not_in_force() } else { unopened(&refused) });
        };
        let store = Store::open(&config, &back.root, back.header().store.0).map_err(|_| unopened(&refused))?;
        self.warn("a change of the key slots was cut short: the slots of before are in force".into());
        self.hands.unlocked = Some(back);
        self.hands.found = self.hands.found.take().and_then(FoundSlots::step_back);
        Ok(store)
    }

    async fn open_audit(&mut self, store: &Store, sequence: u64) -> Result<Arc<AuditDevice>, Halt> {
        let former = audit_keys::Former::of(store).await?;
        let dir = self.plan.state_dir().join(state_dir::AUDIT);
        let opened = former
            .open(&*self.env.disk, &dir, audit_keys::today(store)?, sequence)
            .map_err(|e| keys::refused(&e, "put the audit ring back from a backup of the same time"))?;
        for alarm in &opened.alarms {
            self.alarm(alarm.to_string());
        }
        if former.is_turning() {
            let noted = match &opened.turned {
                Some(turned) => former.note(store, turned).await.map_err(|e| e.to_string()),
                None => Err("its disk takes no other segment".into()),
            };
            if let Err(e) = noted {
                self.hands.audit_turns = true;
                self.alarm(format!("the audit's former key is still believed, and it is tried on: {e}"));
            }
        }
        let policy = match self.plan.audit.sync {
            AuditSync::Never => SyncPolicy::Never,
            AuditSync::Interval(interval) => SyncPolicy::Interval(interval),
            AuditSync::Each => SyncPolicy::Each,
        };
        let audit = Arc::new(AuditDevice::new(opened.ring, Arc::clone(&self.env.clock), policy));
        self.hands.audit = Some(Arc::clone(&audit));
        Ok(audit)
    }

    pub(super) fn heal_slots(&mut self) -> Option<Event> {
        let (Some(found), Some(unlocked)) = (&self.hands.found, &self.hands.unlocked) else { return None };
        let files = SlotFiles::new(&*self.env.disk, self.plan.state_dir());
        if let Err(e) = files.heal(found, unlocked) {
            self.alarm(format!("the slot files have one copy only, and the other cannot be written: {e}"));
        }
        None
    }

    pub(super) async fn certify(&mut self) -> Event {
        let Some(store) = &self.hands.store else { return Event::Failed(out_of_order("certify")) };
        match certificates::ensure(store, &self.plan.listen.names, &*self.env.entropy).await {
            Ok(certificates) => {
                let ca = certificates.ca.fingerprint().0;
                self.hands.certificates = Some(certificates);
                // The root key has done its work; what the store needs of it is in its keyring.
                self.hands.unlocked = None;
                self.hands.found = None;
                self.phase("certified");
                Event::Certified { ca }
            }
            Err(fact) => {
                let hint = "see [listen] names, and whether the disk is full".into();
                Event::Failed(Halt::Refused { fact: format!("the server certificate: {fact}"), hint })
            }
        }
    }
}

fn boot_mounts(plan: &crate::plan::Plan) -> pipeline::BootMounts {
    let of = |kind, prefix: &str| {
        plan.mounts.iter().filter(|m| m.kind == kind).map(|m| format!("{prefix}{}/", m.path)).collect()
    };
    pipeline::BootMounts { secrets: of(MountKind::KvV1, ""), logins: of(MountKind::Userpass, "auth/") }
}

/// Whoever types a recovery key is told of keys, and not of slots.
fn not_unlocked(error: &UnlockError) -> Halt {
    let (fact, hint) = match error {
        UnlockError::WrongIkm { kind: SourceKind::Recovery, .. } => (
            "this is not the recovery key of this store",
            "each use replaces the key: take the newest, from where [recovery] puts it",
        ),
        UnlockError::NoSlotOfKind { kind: SourceKind::Recovery } => {
            ("this store has no recovery key", "[recovery] was none when it was made: its key sources alone open it")
        }
        _ => return keys::refused(error, error.hint()),
    };
    Halt::Refused { fact: fact.into(), hint: hint.into() }
}

/// A recovery key that was given out, and whose slot the store never came to know.
fn not_in_force() -> Halt {
    Halt::Refused {
        fact: "the replacement of the recovery key was cut short before this key was in force".into(),
        hint: "take the key that it was to replace: that one is valid still, and its use is gone on with".into(),
    }
}

fn unopened(error: &OpenError) -> Halt {
    let hint = match error {
        OpenError::Foreign { .. } => "slots and store are of different devices: put back those that belong together",
        OpenError::WrongRoot => {
            "the slots are not those of this store, or the keyring was changed: put both back from one backup"
        }
        OpenError::Tampered { .. } => "keep a copy for investigation, then put the store back from a backup",
        OpenError::Locked { .. } => "stop the other process that has the store open",
        OpenError::Disk(_) => {
            "nothing says that the store is broken: the disk is full, mounted read-only, closed to edgekeep's user, or fails; see the \
             cause and `df`, make room, and restart edgekeep"
        }
        _ => "see the cause; a backup of the state directory can be put back whole",
    };
    keys::refused(error, hint)
}
