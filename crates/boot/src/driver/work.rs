//! Each action, carried out.

use std::sync::Arc;

use client::Vault;
use pipeline::audit::{AuditDevice, Ring, SyncPolicy};
use pipeline::{Core, Services};
use seal::{FoundSlots, HeadCheck, Remedy, SlotFiles, SlotId, SourceKind};
use store::{OpenError, Store};

use super::asking::{self, End, Given, Round};
use super::backoff::Came;
use super::environment::Note;
use super::identity::{self, MachineId, Whose};
use super::running::{Hands, ProbeNews, Running};
use super::seam::Seam;
use super::upkeep::Watched;
use super::{certificates, keys, source, state_dir};
use crate::gate::{Evidence, ProbeFailure, lapse_of, probe_until};
use crate::join::join_all;
use crate::machine::{Action, Epoch, Event, Halt};
use crate::plan::{AuditSync, GateName, MountKind, Need, ServiceName};
use crate::provision::{Keeper, Kept, Minting, ProvisionError, keep_credentials, keep_identity, lay_ground};

impl Running {
    /// Carries out one action, or several `Provide` together; the events in order.
    pub(super) async fn act(&mut self, batch: Vec<Action>) -> Vec<Event> {
        let mut provide = Vec::new();
        let mut events = Vec::new();
        for action in batch {
            let event = match action {
                Action::Provide { service, anew, .. } => {
                    provide.push((service, anew));
                    continue;
                }
                Action::Look => Some(self.look()),
                Action::FinishErasing => Some(self.finish_erasing().await),
                Action::ClearLeftover => self.clear_leftover(),
                Action::Make => Some(self.make().await),
                Action::Publish => Some(self.publish()),
                Action::Release { .. } => Some(self.release().await),
                Action::Unlock => Some(self.unlock()),
                Action::Reach { .. } => Some(self.reach().await),
                Action::OpenStore => Some(self.open_store().await.unwrap_or_else(Event::Failed)),
                Action::HealSlots => self.heal_slots(),
                Action::EnsureCertificate => Some(self.certify().await),
                Action::Serve => self.serve().await.err().map(Event::Failed),
                Action::LayGround { .. } => Some(self.lay_ground().await),
                Action::KeepCredentials { .. } => Some(self.keep_credentials().await),
                Action::Probe { gate, at } => {
                    self.begin_probe(gate, at);
                    None
                }
                Action::SetGates { open, evidence } => {
                    self.set_gates(&open, Some(evidence)).await;
                    None
                }
                Action::ShutGates => {
                    self.set_gates(&std::collections::BTreeSet::new(), None).await;
                    None
                }
                Action::CloseStore => {
                    self.close_store().await;
                    None
                }
                Action::Tell(halt) => {
                    tracing::error!(fact = %halt, hint = %halt.hint(), "the boot has stopped");
                    self.observer.note(Note::Halted(halt));
                    None
                }
            };
            events.extend(event);
        }
        if !provide.is_empty() {
            events.extend(self.provide(provide).await);
        }
        events
    }

    fn look(&mut self) -> Event {
        match state_dir::look(&*self.env.disk, &self.plan) {
            Ok(remains) => Event::Looked(remains),
            Err(e) => Event::Failed(keys::refused(&e, "data_dir must be readable for the user that runs edgekeep")),
        }
    }

    fn clear_leftover(&mut self) -> Option<Event> {
        let published = self.env.disk.meta(&self.plan.state_dir().join(state_dir::STORE)).is_ok_and(|m| m.is_some());
        match state_dir::clear_leftover(&*self.env.disk, &self.plan, published) {
            Ok(()) => {
                self.warn("a first boot that was cut short was cleared away".into());
                None
            }
            Err(e) => Some(Event::Failed(keys::refused(&e, "data.new in data_dir cannot be removed"))),
        }
    }

    async fn make(&mut self) -> Event {
        match keys::make(&self.plan, &self.env, &mut *self.observer).await {
            Ok(()) => {
                self.phase("made");
                Event::Made
            }
            Err(halt) => {
                // Nothing of it was ever seen: what was begun goes, so that the next attempt finds nothing.
                if let Err(e) = state_dir::clear_leftover(&*self.env.disk, &self.plan, false) {
                    self.warn(format!("{} is left behind: {e}", self.plan.data_dir.join(state_dir::NEW).display()));
                }
                Event::Failed(halt)
            }
        }
    }

    fn publish(&mut self) -> Event {
        match state_dir::publish(&*self.env.disk, &self.plan) {
            Ok(()) => {
                self.phase("published");
                Event::Published
            }
            Err(e) => Event::Failed(keys::refused(&e, "data_dir must be writable; start again")),
        }
    }

    /// Asks the sources for the slots that they made.
    async fn release(&mut self) -> Event {
        if let Some(released) = self.ask_keeper() {
            return released;
        }
        // After the keeper, whose key costs nothing.
        if let Some(rest) = self.rest_first() {
            return rest;
        }
        if let Err(e) = self.post_guard() {
            let hint = "start edgekeep again; without a guard nothing is released while [release] after_close is set";
            return Event::Failed(keys::refused(&e, hint));
        }
        if let Err(rest) = self.note_try() {
            return rest;
        }
        let mut asking = std::mem::take(&mut self.hands.asking);
        let Round { end, told } = asking.round(&self.plan, &self.env).await;
        self.used_up = asking.ends_with_the_boot();
        self.note_outcome(match &end {
            End::Given(_) => Came::Given,
            _ if asking.needs_somebody() => Came::Refused,
            End::Later => Came::Later,
            End::Never(_) if self.used_up => Came::Exhausted,
            End::Never(_) => Came::Refused,
        });
        self.hands.asking = asking;
        for (remedy, text) in told {
            if remedy == Remedy::Alarm { self.alarm(text) } else { self.warn(text) }
        }
        match end {
            End::Given(given) => {
                let Given { found, kind, ikm, last } = *given;
                if last {
                    let text = "the source gives nothing more in this boot: after a seal or a crash the device must be restarted";
                    self.warn(text.into());
                }
                self.hands.found = Some(found);
                self.hands.ikm = Some((kind, ikm));
                self.hands.last_release = last;
                self.see_to_guard().await;
                self.phase("released");
                Event::Released
            }
            End::Later => Event::SourceBusy,
            End::Never(halt) => Event::Failed(halt),
        }
    }

    /// Ends this boot's releases of every slot but `kept`, of those that a source of the plan can open: what they might still give
    /// is then for nobody.
    pub(super) async fn close_sources(&mut self, kept: Option<SlotId>) {
        let Ok(found) = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read() else { return };
        let (plan, env) = (Arc::clone(&self.plan), self.env.clone());
        for pair in asking::pairs(&plan, &env, &found.set).into_iter().filter(|p| Some(p.slot) != kept) {
            let slot = found.set.slots().iter().find(|s| s.id() == pair.slot).map(|s| s.public().clone());
            let (Some(spec), Some(slot)) = (plan.sources.get(pair.source), slot) else { continue };
            match source::close(spec, &plan, &env, slot).await {
                Ok(closed) if closed.is_until_reboot() => {
                    tracing::info!(slot = %pair.slot, "the source gives nothing more in this boot");
                }
                Ok(_) => {}
                Err(e) => self.warn(told(&format!("{spec} was not closed for this boot"), &e)),
            }
        }
    }

    fn unlock(&mut self) -> Event {
        // By the recovery key the slots were not read yet.
        if self.hands.found.is_none() {
            match SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read() {
                Ok(found) => self.hands.found = Some(found),
                Err(e) => return Event::Failed(keys::refused(&e, e.hint())),
            }
        }
        let Some(found) = &self.hands.found else { return Event::Failed(out_of_order("unlock")) };
        let by_keeper = self.hands.kept.take().and_then(|kek| found.set.unlock_by(kek));
        let unlocked = match (by_keeper, self.hands.ikm.take()) {
            (Some(unlocked), _) => Ok((unlocked, false)),
            (None, Some((kind, ikm))) => found.set.unlock(kind, ikm).map(|u| (u, kind != SourceKind::Recovery)),
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
            Err(e) => Event::Failed(keys::refused(&e, e.hint())),
        }
    }

    async fn open_store(&mut self) -> Result<Event, Halt> {
        if let Some(store) = self.plan.store.external().cloned() {
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
        // Here, where the root key is at hand: afterwards nobody can.
        // A key that is not replaced is no reason to stay sealed: long before it may not be used any more, the writer refuses.
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
        let audit = self.open_audit(&store, head.sequence)?;
        let clock = Arc::clone(&self.env.clock);
        let services = Services::new(store, clock, Arc::clone(&self.env.entropy));
        let (engines, directory) = (self.env.engines)(&services);
        let core = Core::open(services, engines, directory, audit).await.map_err(|e| Halt::Refused {
            fact: format!("the store's tables cannot be opened: {}", e.logged()),
            hint: "see the log".into(),
        })?;
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
            self.hands.seen.opened(unlocked.kek.slot);
        }
        if self.hands.last_release {
            // The agreement of this boot is used up; a second source would renew it.
            let opened_by = self.hands.unlocked.as_ref().map(|u| u.kek.slot);
            self.close_sources(opened_by).await;
        }
        self.close_when_open().await;
        self.phase("opened");
        Ok(Event::Opened { profile, epoch })
    }

    /// Whether the store was made on this machine. What is bound to its device has shown it by opening; a recovery key says that it is
    /// meant to be here from now on.
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

    /// Opens the store by the root key in the newest slot set; or by the one before, where the power was cut between the first copy of a
    /// set with a new root key and the store's commit (`slots::change`). The head then confirms the one that opened.
    fn open_by_root(&mut self) -> Result<Store, Halt> {
        let config = keys::store_config(&self.env, &self.plan.state_dir());
        let unlocked = self.hands.unlocked.take().ok_or_else(|| out_of_order("open"))?;
        let refused = match Store::open(&config, &unlocked.root, unlocked.header().store.0) {
            Ok(store) => {
                self.hands.unlocked = Some(unlocked);
                return Ok(store);
            }
            Err(e) => e,
        };
        let older = self.hands.found.as_ref().and_then(|found| found.older.clone());
        let cut_short = matches!(refused, OpenError::WrongRoot) && host::in_force("cut-slots-step-back");
        let back = older.filter(|_| cut_short).and_then(|set| unlocked.step_back(&set));
        let Some(back) = back else { return Err(unopened(&refused)) };
        let store = Store::open(&config, &back.root, back.header().store.0).map_err(|_| unopened(&refused))?;
        self.warn("a change of the key slots was cut short: the slots of before are in force".into());
        self.hands.unlocked = Some(back);
        self.hands.found = self.hands.found.take().and_then(FoundSlots::step_back);
        Ok(store)
    }

    fn open_audit(&mut self, store: &Store, sequence: u64) -> Result<Arc<AuditDevice>, Halt> {
        let chain = keys::chain_key(store)?;
        let dir = self.plan.state_dir().join(state_dir::AUDIT);
        let opened = Ring::open(&*self.env.disk, &dir, chain, sequence)
            .map_err(|e| keys::refused(&e, "put the audit ring back from a backup of the same time"))?;
        for alarm in &opened.alarms {
            self.alarm(alarm.to_string());
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

    fn heal_slots(&mut self) -> Option<Event> {
        let (Some(found), Some(unlocked)) = (&self.hands.found, &self.hands.unlocked) else { return None };
        let files = SlotFiles::new(&*self.env.disk, self.plan.state_dir());
        if let Err(e) = files.heal(found, unlocked) {
            self.alarm(format!("the slot files have one copy only, and the other cannot be written: {e}"));
        }
        None
    }

    async fn certify(&mut self) -> Event {
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

    /// Listens, and says where: only then is anything done whose end would open a gate.
    async fn serve(&mut self) -> Result<(), Halt> {
        // A store in another process answers for itself.
        if let Some(front) = self.front.clone().filter(|_| self.plan.store.external().is_none()) {
            let (Some(core), Some(certificates)) = (&self.hands.core, &self.hands.certificates) else {
                return Err(out_of_order("serve"));
            };
            self.serving = front.open(core, &certificates.server).await?;
        }
        self.forget_tries();
        self.publish_endpoint();
        self.phase("serving");
        Ok(())
    }

    async fn lay_ground(&mut self) -> Event {
        let Some(vault) = &self.hands.vault else { return Event::NoGround };
        match lay_ground(vault, &self.plan).await {
            Ok(ground) => {
                self.hands.ground = Some(ground);
                Event::GroundLaid
            }
            Err(e) => {
                self.warn(told("mounts and signing key are not there yet", &e));
                Event::NoGround
            }
        }
    }

    async fn keep_credentials(&mut self) -> Event {
        let (Some(vault), Some(ground)) = (&self.hands.vault, &self.hands.ground) else {
            return Event::CredentialsLacking;
        };
        match keep_credentials(vault, &self.plan, ground, &*self.env.entropy).await {
            Ok(_) => {
                self.hands.credentials = true;
                Event::CredentialsKept
            }
            Err(e) => {
                self.warn(told("credentials are not all there yet", &e));
                Event::CredentialsLacking
            }
        }
    }

    /// Provides for several services together.
    async fn provide(&mut self, wanted: Vec<(ServiceName, bool)>) -> Vec<Event> {
        let (Some(vault), Some(ground), Some(receipts), Some(pem)) =
            (&self.hands.vault, &self.hands.ground, self.receipts(), self.ca_pem())
        else {
            return wanted.into_iter().map(|(service, _)| Event::NotProvided { service }).collect();
        };
        let minting = match vault {
            Seam::Ours(_) => Minting::ByBoot,
            Seam::Theirs(_) => Minting::ByLogin { userpass: &ground.userpass, entropy: &*self.env.entropy },
        };
        let keeper = Keeper {
            channel: &self.channel,
            receipts: &receipts,
            boot: self.env.clock.boot_id(),
            ca_pem: pem.as_bytes(),
            minting,
        };
        let (plan, entropy, entities) = (&self.plan, &*self.env.entropy, &self.hands.entities);
        let (keeper, known) = (&keeper, &entities);
        let outcomes = join_all(wanted.into_iter().map(|(name, anew)| async move {
            let outcome = one(vault, plan, ground, entropy, keeper, known.get(&name), &name, anew).await;
            (name, outcome)
        }))
        .await;
        let mut events = Vec::with_capacity(outcomes.len());
        for (service, outcome) in outcomes {
            events.push(self.provided(service, outcome));
        }
        self.reduce_when_done();
        events
    }

    fn provided(&mut self, service: ServiceName, outcome: Result<(String, Kept), ProvisionError>) -> Event {
        match outcome {
            Ok((entity, Kept { receipt, issued })) => {
                let digest = receipt.digest();
                let place = receipt.place.clone().into();
                self.hands.entities.insert(service.clone(), entity);
                let now = self.env.clock.boottime();
                self.hands
                    .watched
                    .insert(service.clone(), Watched { receipt, renewed: now, seen: now, ca_told: false });
                self.observer.note(Note::Token { service: service.clone(), place, issued });
                Event::Provided { service, receipt: digest }
            }
            Err(e) => {
                self.warn(told(&format!("{service} has no token yet"), &e));
                Event::NotProvided { service }
            }
        }
    }

    /// When everything was made once, the boot gives up the power to make it.
    fn reduce_when_done(&mut self) {
        let all = self.plan.services.iter().all(|s| self.hands.entities.contains_key(&s.name));
        if all && self.hands.credentials && self.hands.ground.is_some() {
            self.hands.vault = self.hands.vault.take().map(Seam::reduce);
        }
    }

    fn begin_probe(&mut self, gate: GateName, at: usize) {
        let plan = self.plan.gates.iter().find(|g| g.name == gate);
        let Some((Some(Need::Probe(probe)), deadline)) = plan.map(|g| (g.needs.get(at).cloned(), g.deadline)) else {
            return;
        };
        let (disk, send) = (Arc::clone(&self.env.disk), self.probes.0.clone());
        self.probing.push(tokio::spawn(async move {
            let told = |e: &ProbeFailure| format!("{probe}: {}", host::with_causes(e));
            let tell = async |news| send.send((gate.clone(), at, news)).await.is_ok();
            // What was there once is waited for without an end: somebody has stopped it, and starts it again.
            let mut within = deadline;
            loop {
                let standing = match probe_until(&*disk, &probe, within.take()).await {
                    Ok(standing) => standing,
                    Err(e) => {
                        tell(ProbeNews::GivenUp(told(&e))).await;
                        return;
                    }
                };
                let lapse = async { tell(ProbeNews::Lapsed(told(&lapse_of(&*disk, &probe, standing).await))).await };
                if !(tell(ProbeNews::Passed).await && lapse.await) {
                    return tracing::debug!("a probe ended after its device");
                }
            }
        }));
    }

    async fn set_gates(&mut self, open: &std::collections::BTreeSet<GateName>, evidence: Option<Evidence>) {
        let before = self.board.borrow().open();
        self.board.send_modify(|board| match evidence {
            Some(evidence) => board.set(open, evidence),
            None => board.shut_all(),
        });
        let board = self.board.borrow().clone();
        for alarm in self.hints.follow(&board).await {
            self.alarm(told("a hint port is not ours", &alarm));
        }
        let at_ms = self.at_ms();
        for gate in open.difference(&before) {
            self.observer.note(Note::GateOpen { gate: gate.clone(), at_ms });
        }
        for gate in before.difference(open) {
            self.observer.note(Note::GateShut { gate: gate.clone() });
        }
    }

    async fn close_store(&mut self) {
        self.probing.drain(..).for_each(|p| p.abort());
        if let Some(front) = self.front.clone().filter(|_| self.plan.store.external().is_none()) {
            // What was begun is finished while there are keys.
            front.close().await;
        }
        let hands = std::mem::take(&mut self.hands);
        let Hands { core, audit, store, .. } = hands;
        if let Some(core) = core
            && let Err(e) = core.close().await
        {
            self.warn(format!("what was gathered is not written down: {}", e.logged()));
        }
        if let Some(audit) = audit
            && let Err(e) = audit.close()
        {
            self.warn(told("the last audit records are not written", &e));
        }
        if let Some(store) = store {
            store.close();
        }
    }
}

/// Identity and token of one service.
#[expect(clippy::too_many_arguments, reason = "one call, split off so that it can run beside others")]
async fn one<V: Vault>(
    vault: &V,
    plan: &crate::plan::Plan,
    ground: &crate::provision::Ground,
    entropy: &dyn host::Entropy,
    keeper: &Keeper<'_>,
    entity: Option<&String>,
    name: &ServiceName,
    anew: bool,
) -> Result<(String, Kept), ProvisionError> {
    let service = plan
        .service(name)
        .ok_or_else(|| ProvisionError::Service { service: name.to_string(), reason: "the plan has none" })?;
    let entity = match entity {
        Some(entity) => entity.clone(),
        None => keep_identity(vault, service, ground, entropy).await?,
    };
    let kept = keeper.keep_token(vault, service, &entity, anew).await?;
    Ok((entity, kept))
}

/// A fault with its causes, in one line.
pub(super) fn told(what: &str, error: &dyn std::error::Error) -> String {
    match keys::refused(error, "") {
        Halt::Refused { fact, .. } => format!("{what}: {fact}"),
        other => format!("{what}: {other}"),
    }
}

fn boot_mounts(plan: &crate::plan::Plan) -> pipeline::BootMounts {
    let of = |kind, prefix: &str| {
        plan.mounts.iter().filter(|m| m.kind == kind).map(|m| format!("{prefix}{}/", m.path)).collect()
    };
    pipeline::BootMounts { secrets: of(MountKind::KvV1, ""), logins: of(MountKind::Userpass, "auth/") }
}

pub(super) fn out_of_order(what: &str) -> Halt {
    Halt::Refused { fact: format!("internal fault: {what} out of its order"), hint: "please report this".into() }
}

fn unopened(error: &OpenError) -> Halt {
    let hint = match error {
        OpenError::Foreign { .. } => "slots and store are of different devices: put back those that belong together",
        OpenError::WrongRoot => {
            "the slots are not those of this store, or the keyring was changed: put both back from one backup"
        }
        OpenError::Tampered { .. } => "keep a copy for investigation, then put the store back from a backup",
        OpenError::Locked { .. } => "stop the other process that has the store open",
        _ => "see the cause; a backup of the state directory can be put back whole",
    };
    keys::refused(error, hint)
}
