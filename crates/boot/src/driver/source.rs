//! The key source at work, on a thread of its own: hardware takes as long as it likes, and the device's sockets answer
//! meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use host::{Clock, Disk, Entropy};
use seal::{
    Auth, Board, Closed, CombinedSource, CredentialSource, Deadline, EscrowSource, Evidence, ExecSource, KeySource,
    Left, NoAuth, Part, PcrValues, PinFile, Pkcs11Source, Provisioned, ReleaseLatch, Released, ShortIkmAllowed, Slot,
    SlotPublic, SoftwareSource, SourceError, TangSource, TpmNvSource, TpmSource, Unkept, Wanted, slot_and_parts,
};
use tokio::sync::oneshot;

use super::environment::Environment;
use crate::plan::{PinPlace, Plan, SourceSpec, TpmKeeping, TpmSpec};

/// What sources are made of, besides their settings.
pub struct SourceGround {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Whether key material of 16 to 31 octets is taken.
    pub short_ikm: Option<ShortIkmAllowed>,
    /// Held by whoever releases from a TPM.
    pub tpm_lock: PathBuf,
    /// Says whether one of them may have released.
    pub latch: ReleaseLatch,
    /// The slots of the store and their parts, where one is released: what they have of a boot together is no more.
    pub others: Vec<SlotPublic>,
}

impl SourceGround {
    fn of(plan: &Plan, env: &Environment) -> Self {
        Self {
            disk: Arc::clone(&env.disk),
            clock: Arc::clone(&env.clock),
            entropy: Arc::clone(&env.entropy),
            short_ikm: plan.dangers.short_ikm.then(ShortIkmAllowed::danger_short_ikm),
            tpm_lock: plan.data_dir.join(TPM_LOCK),
            latch: env.latch.clone(),
            others: Vec::new(),
        }
    }

    /// A source by its settings, which are of a plan without faults.
    pub fn source(&self, spec: &SourceSpec) -> Box<dyn KeySource> {
        let (disk, clock, entropy) =
            (|| Arc::clone(&self.disk), || Arc::clone(&self.clock), || Arc::clone(&self.entropy));
        match spec {
            SourceSpec::Software { file } => Box::new(SoftwareSource::new(file, disk(), entropy())),
            SourceSpec::Exec { path, env: vars, .. } => {
                let vars = vars.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                Box::new(ExecSource::new(path, vars, self.short_ikm, clock()))
            }
            SourceSpec::Tpm(tpm) => match tpm.keeping {
                TpmKeeping::Index => Box::new(
                    TpmNvSource::new(&tpm.device, self.tpm_lock.clone(), disk(), clock(), entropy())
                        .signing(tpm.signing.clone())
                        .latched(self.latch.clone())
                        .among(&self.others),
                ),
                TpmKeeping::Sealed => Box::new(self.sealed_by_tpm(tpm)),
            },
            SourceSpec::Tang { servers, .. } => Box::new(TangSource::new(servers.clone(), clock(), entropy())),
            SourceSpec::Pkcs11 { setup, .. } => Box::new(Pkcs11Source::new(setup.clone(), clock())),
            SourceSpec::Credential { directory, name, form } => {
                Box::new(CredentialSource::new(directory, name.clone(), *form, disk()))
            }
            SourceSpec::Escrow { holder, .. } => {
                Box::new(EscrowSource::new(holder.as_ref().clone(), disk(), clock(), entropy()))
            }
            SourceSpec::Combined { threshold, parts } => {
                let part = |spec: &SourceSpec| {
                    Part::new(self.source(spec), spec.deadline()).under(spec.policy()).with_auth(self.auth(spec))
                };
                let parts = parts.iter().map(part).collect();
                let made = match threshold {
                    Some(threshold) => CombinedSource::threshold(*threshold, parts, clock(), entropy()),
                    None => CombinedSource::all(parts, clock(), entropy()),
                };
                Box::new(made.expect("a plan without faults has combinations that are some"))
            }
        }
    }

    fn sealed_by_tpm(&self, tpm: &TpmSpec) -> TpmSource {
        let (disk, clock, entropy) = (Arc::clone(&self.disk), Arc::clone(&self.clock), Arc::clone(&self.entropy));
        TpmSource::new(&tpm.device, Some(tpm.gate_pcr), self.tpm_lock.clone(), disk, clock, entropy)
            .counting(tpm.counting)
            .signing(tpm.signing.clone())
            .latched(self.latch.clone())
    }

    /// Who has the PIN.
    pub fn auth(&self, spec: &SourceSpec) -> Box<dyn Auth> {
        match spec.pin() {
            Some(PinPlace::File(path)) => Box::new(PinFile::new(path, Arc::clone(&self.disk))),
            Some(PinPlace::Descriptor(handed)) => Box::new(handed.clone()),
            None => Box::new(NoAuth),
        }
    }
}

/// A source of the plan.
pub(super) fn source(spec: &SourceSpec, plan: &Plan, env: &Environment) -> Box<dyn KeySource> {
    SourceGround::of(plan, env).source(spec)
}

fn auth(spec: &SourceSpec, plan: &Plan, env: &Environment) -> Box<dyn Auth> {
    SourceGround::of(plan, env).auth(spec)
}

/// What the source's files say of what is wanted of it; it is not asked.
pub(super) fn look(spec: &SourceSpec, plan: &Plan, env: &Environment, wish: Wanted) -> Result<(), SourceError> {
    source(spec, plan, env).look(wish, &*auth(spec, plan, env))
}

/// Makes key material under the policy of `spec`.
pub(super) async fn provision(spec: &SourceSpec, plan: &Plan, env: &Environment) -> Result<Provisioned, SourceError> {
    let (mut source, auth, policy) = (source(spec, plan, env), auth(spec, plan, env), spec.policy());
    // It is made, asked for to see that it comes back, and taken back if it does not.
    let limit = spec.deadline() * 3;
    let deadline = Deadline::after_each(&*env.clock, spec.deadline(), 2);
    beside(limit, move || source.provision(&policy, &*auth, deadline)).await
}

/// As [`provision`], where `beside` is a slot of the source's that goes when the new one has opened.
pub(super) async fn provision_beside(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    beside_slot: SlotPublic,
    board: Board,
) -> Result<Provisioned, SourceError> {
    let (mut source, auth, policy) = (source(spec, plan, env), auth(spec, plan, env), spec.policy());
    let limit = spec.deadline() * 3;
    let deadline = Deadline::after_each(&*env.clock, spec.deadline(), 2);
    beside(limit, move || source.provision_beside(&beside_slot, board, &policy, &*auth, deadline)).await
}

/// Makes key material that is released as that of `slot` is, when registers have `values`.
pub(super) async fn predict(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
    values: PcrValues,
) -> Result<Provisioned, SourceError> {
    let (mut source, auth) = (source(spec, plan, env), auth(spec, plan, env));
    // What cannot be made for other values is asked for, and what was made in vain is taken back.
    let limit = spec.deadline() * 2;
    let deadline = Deadline::after_each(&*env.clock, spec.deadline(), 2);
    beside(limit, move || source.predict(&slot, &values, &*auth, deadline)).await
}

/// Destroys what a source keeps for a slot that is no more, unless one of `kept` needs it.
pub(super) async fn discard(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
    kept: Vec<SlotPublic>,
) -> Result<(), SourceError> {
    let (mut source, auth, limit) = (source(spec, plan, env), auth(spec, plan, env), spec.deadline());
    let deadline = Deadline::after(&*env.clock, limit);
    // Also what is a part of another slot.
    let kept: Vec<SlotPublic> = kept.iter().flat_map(slot_and_parts).collect();
    beside(limit, move || source.discard(&slot, &kept.iter().collect::<Vec<_>>(), &*auth, deadline)).await
}

/// Has sources destroy what they have made for slots that did not come about, unless one of `kept` needs it; what
/// stays.
pub(super) async fn take_back(
    mut unkept: Unkept<SourceSpec>,
    plan: &Plan,
    env: &Environment,
    kept: Vec<SlotPublic>,
) -> Vec<String> {
    let mut stays = Vec::new();
    while let Some((spec, public)) = unkept.pop() {
        match discard(&spec, plan, env, public.clone(), kept.clone()).await {
            Ok(()) => tracing::info!("{spec}: what was made for a slot that did not come about is taken back"),
            Err(e) => stays.push(seal::left_behind(&public, &e)),
        }
    }
    stays
}

/// Asks what is left of a slot that was discarded.
pub(super) async fn left_of(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
) -> Result<Left, SourceError> {
    let (mut source, auth, limit) = (source(spec, plan, env), auth(spec, plan, env), spec.deadline());
    let deadline = Deadline::after(&*env.clock, limit);
    beside(limit, move || source.left_of(&slot, &*auth, deadline)).await
}

/// Asks for the key material of a slot, which is one of `all`.
pub(super) async fn release(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
    all: &[Slot],
) -> Result<Released, SourceError> {
    let others = all.iter().flat_map(|slot| slot_and_parts(slot.public())).collect();
    let mut source = SourceGround { others, ..SourceGround::of(plan, env) }.source(spec);
    let (auth, limit) = (auth(spec, plan, env), spec.deadline());
    let deadline = Deadline::after(&*env.clock, limit);
    beside(limit, move || source.release(&slot, &*auth, deadline)).await
}

/// What a release would say of a slot, as far as it can be told without one.
pub(super) async fn foresee(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
) -> Result<Evidence, SourceError> {
    let (mut source, limit) = (source(spec, plan, env), spec.deadline());
    let deadline = Deadline::after(&*env.clock, limit);
    beside(limit, move || source.foresee(&slot, deadline)).await
}

/// Ends the releases of this boot.
pub(super) async fn close(
    spec: &SourceSpec,
    plan: &Plan,
    env: &Environment,
    slot: SlotPublic,
) -> Result<Closed, SourceError> {
    let (mut source, limit) = (source(spec, plan, env), spec.deadline());
    let deadline = Deadline::after(&*env.clock, limit);
    beside(limit, move || source.close(&slot, deadline)).await
}

/// Runs a source's call beside the executor. The call keeps its deadline by itself; should it hang in the kernel, where
/// nothing ends it, it is left to hang there, and what it gives in the end is wiped.
async fn beside<T, F>(limit: Duration, call: F) -> Result<T, SourceError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, SourceError> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let watched = thread("key source's watch").spawn(move || {
        let (done, ended) = sync_channel(1);
        // A receiver that has gone away has been told that the time is over.
        let started = thread("key source").spawn(move || drop(done.send(call())));
        let result = match started.map(|_| ended.recv_timeout(limit.saturating_add(GRACE))) {
            Ok(Ok(result)) => result,
            Ok(Err(RecvTimeoutError::Timeout)) => Err(SourceError::TimedOut { what: WHAT.into(), limit }),
            Ok(Err(RecvTimeoutError::Disconnected)) => Err(gone()),
            Err(source) => Err(SourceError::Os { what: WHAT.into(), source }),
        };
        drop(answer.send(result));
    });
    match watched {
        Ok(_) => answered.await.unwrap_or_else(|_| Err(gone())),
        Err(source) => Err(SourceError::Os { what: WHAT.into(), source }),
    }
}

fn gone() -> SourceError {
    SourceError::Protocol { what: WHAT.into(), defect: "its thread ended without an answer".into() }
}

const WHAT: &str = "the key source";
/// What a call may take beyond its deadline: killing a hook, flushing a TPM.
const GRACE: Duration = Duration::from_secs(5);
/// Held by whoever releases from the TPM; beside the lock of the data directory.
const TPM_LOCK: &str = "tpm.lock";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[tokio::test]
    async fn the_executor_goes_on_while_a_source_takes_its_time() {
        let theirs = Arc::new(Barrier::new(2));
        let held = Arc::clone(&theirs);
        let call = beside(Duration::from_secs(60), move || {
            held.wait();
            Ok(7)
        });
        // Only the executor's own thread lets the source go on: were the call to block it, neither would.
        let (given, ()) = tokio::join!(call, async {
            tokio::task::yield_now().await;
            theirs.wait();
        });
        assert_eq!(given.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_source_that_dies_is_no_answer() {
        let result = beside::<(), _>(Duration::from_secs(60), || panic!("a fault of ours")).await;
        assert!(matches!(result, Err(SourceError::Protocol { .. })));
    }
}
