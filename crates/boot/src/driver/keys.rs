//! From the source to the root key, and the making of both.

use std::path::Path;
use std::sync::Arc;

use pipeline::audit::{Beginning, Ring, RingSize};
use seal::{
    NewSlot, Provisioned, RecoveryKey, SealMode, SetHeader, SlotFiles, SlotKek, SlotSet, StoreId, Unkept, Wanted,
    new_root_key, seal_to_recipients, write_recovery_file,
};
use store::{NewStore, Store, StoreConfig};

use super::environment::{Environment, Note, Observer};
use super::state_dir::{self, AUDIT, Making, RECOVERY, STORE};
use super::{audit_keys, backoff, kept_keks, owner, source};
use crate::machine::Halt;
use crate::plan::{Plan, Profile, RecoverySpec, SourceSpec};

/// A fault of one source; where the plan has several, it is told which.
pub(super) fn of_source(spec: &SourceSpec, plan: &Plan, error: &dyn std::error::Error, hint: &str) -> Halt {
    match refused(error, hint) {
        Halt::Refused { fact, hint } if plan.sources.len() > 1 => {
            Halt::Refused { fact: format!("{spec}: {fact}"), hint }
        }
        alone => alone,
    }
}

/// A refusal with its causes, in one line.
pub(super) fn refused(error: &dyn std::error::Error, hint: &str) -> Halt {
    Halt::Refused { fact: host::with_causes(error), hint: hint.into() }
}

/// The store of a directory.
pub(super) fn store_config(env: &Environment, dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(
        dir.join(STORE),
        Arc::clone(&env.disk),
        Arc::clone(&env.clock),
        Arc::clone(&env.entropy),
        env.build_date,
    );
    config.vfs.clone_from(&env.vfs);
    config.wear = env.key_wear;
    config
}

/// The audit ring's size by the plan.
fn ring_size(plan: &Plan) -> RingSize {
    let segment_bytes = u32::try_from(plan.audit.segment_bytes).unwrap_or(u32::MAX);
    RingSize { segments: plan.audit.segments, segment_bytes }
}

/// What a first boot has made, in `data.new` and in the hardware of its sources.
pub(super) struct Made {
    /// The KEK of a slot that took a release to make, which is then this boot's.
    pub(super) released: Option<SlotKek>,
    /// Until it is seen under its final name.
    pub(super) unkept: Unkept<SourceSpec>,
}

/// Makes slots, store and audit ring in `data.new`, and hands out the recovery key. All of it is durable on return;
/// nothing is seen under its final name. What sources have made is taken back if anything fails.
pub(super) async fn make(plan: &Plan, env: &Environment, observer: &mut dyn Observer) -> Result<Made, Halt> {
    let mut unkept = Unkept::default();
    match make_all(plan, env, observer, &mut unkept).await {
        Ok(released) => Ok(Made { released, unkept }),
        Err(halt) => {
            for stays in source::take_back(unkept, plan, env, Vec::new()).await {
                tracing::warn!("{stays}");
                observer.note(Note::Warning(stays));
            }
            Err(halt)
        }
    }
}

async fn make_all(
    plan: &Plan,
    env: &Environment,
    observer: &mut dyn Observer,
    unkept: &mut Unkept<SourceSpec>,
) -> Result<Option<SlotKek>, Halt> {
    let disk = &*env.disk;
    let io = |what: &'static str| move |e: std::io::Error| refused(&e, what);
    let new = state_dir::begin(disk, plan, &Making::new(plan, &outside(plan, env)?))
        .map_err(io("data_dir must be writable, with room for the store and the audit ring"))?;

    let mut made: Vec<Option<NewSlot>> = plan.sources.iter().map(|_| None).collect();
    let mut released = None;
    for at in order_of_making(plan, env) {
        let spec = &plan.sources[at];
        let Provisioned { public, ikm } = source::provision(spec, plan, env)
            .await
            .map_err(|e| of_source(spec, plan, &e, e.hint_for(Wanted::Provision)))?;
        unkept.note(spec.clone(), &public);
        if let Some(weakly) = spec.counts_weakly(&public) {
            tracing::warn!("{weakly}");
            observer.note(Note::Warning(weakly));
        }
        if source::source(spec, plan, env).released_when_made(&public) {
            released = Some(at);
        }
        made[at] = Some(NewSlot { public, ikm });
    }
    let mut slots: Vec<NewSlot> = made.into_iter().flatten().collect();
    backoff::prepare(plan, disk, &new).map_err(io("see whether the disk is full"))?;
    let recovery = plan.recovery.as_ref().ok_or(Halt::NoRecovery)?;
    let key = (*recovery != RecoverySpec::None).then(|| RecoveryKey::generate(&*env.entropy));
    if let Some(key) = &key {
        slots.push(key.new_slot().map_err(|e| refused(&e, "start again"))?);
    }

    let root = new_root_key(&*env.entropy);
    let store_id = StoreId::generate(&*env.entropy);
    let header = SetHeader { store: store_id, profile: seal_profile(plan.profile), mode: SealMode::Slots };
    let (set, keks) = SlotSet::create(header, &root, slots, &*env.entropy).map_err(|e| refused(&e, "start again"))?;
    SlotFiles::new(disk, &new).write(&set).map_err(io("see whether the disk is full"))?;

    match plan.store.external() {
        None => make_store(plan, env, &new, &root, &set, &keks).await?,
        Some(_) => owner::prepare(env, &new, &root, &store_id)?,
    }

    // Last, and before anything is seen: a recovery key that is out there belongs to a store that is whole.
    hand_out(plan, env, observer, recovery, key.as_ref(), &new)?;
    disk.sync_dir(&new).map_err(io("see whether the disk is full"))?;
    let released = released.and_then(|at| set.slots().get(at)).map(seal::Slot::id);
    Ok(keks.into_iter().find(|kek| Some(kek.slot) == released))
}

/// Our own store with its audit ring, in `new`.
async fn make_store(
    plan: &Plan,
    env: &Environment,
    new: &Path,
    root: &secret::RootKey,
    set: &SlotSet,
    keks: &[SlotKek],
) -> Result<(), Halt> {
    let disk = &*env.disk;
    let io = |what: &'static str| move |e: std::io::Error| refused(&e, what);
    let config = store_config(env, new);
    let made = NewStore {
        store_id: set.header().store.0,
        profile: store_profile(plan.profile),
        slots: store::SlotSet { generation: set.generation(), digest: set.digest().0 },
    };
    let store = Store::create(&config, root, &made).map_err(|e| refused(&e, "see whether the disk is full"))?;
    kept_keks::keep(&store, keks).await?;
    let audit = new.join(AUDIT);
    disk.create_dir(&audit, 0o700).map_err(io("see whether the disk is full"))?;
    let sequence = store.head().map_err(|e| refused(&e, "start again"))?.sequence;
    let chain = audit_keys::today(&store)?;
    Ring::create(disk, &audit, ring_size(plan), chain, &*env.entropy, Beginning::NewStore, sequence)
        .map_err(|e| refused(&e, "make room on the disk, or set smaller [audit] segments"))?;
    store.close();
    Ok(())
}

/// Servers first: they are the likeliest to be away, and what was not begun need not be taken back. The slots stand in
/// the plan's order all the same.
fn order_of_making(plan: &Plan, env: &Environment) -> Vec<usize> {
    let mut order: Vec<usize> = (0..plan.sources.len()).collect();
    order.sort_by_key(|at| !source::source(&plan.sources[*at], plan, env).capabilities().needs_network);
    order
}

/// What will be made outside of the state directory and is not there yet. A file that is there already is nobody's
/// leftover.
pub(super) fn outside(plan: &Plan, env: &Environment) -> Result<Vec<std::path::PathBuf>, Halt> {
    let paths = state_dir::outside(plan);
    for path in &paths {
        let there = env.disk.meta(path).map_err(|e| refused(&e, "see whether the directory exists"))?;
        if there.is_some() {
            let fact = format!("{} is there already, and this is a first boot", path.display());
            let hint = "move it away if it belongs to no store any more".into();
            return Err(Halt::Refused { fact, hint });
        }
    }
    Ok(paths)
}

fn hand_out(
    plan: &Plan,
    env: &Environment,
    observer: &mut dyn Observer,
    recovery: &RecoverySpec,
    key: Option<&RecoveryKey>,
    new: &Path,
) -> Result<(), Halt> {
    let Some(key) = key else { return Ok(()) };
    let disk = &*env.disk;
    match recovery {
        RecoverySpec::None => Ok(()),
        RecoverySpec::Age(recipients) => {
            let hint = "see [recovery] in edgekeep.toml; nothing was made";
            let sealed = seal_to_recipients(key, recipients).map_err(|e| refused(&e, hint))?;
            disk.replace(&new.join(RECOVERY), &sealed, 0o600, None).map_err(|e| refused(&e, hint))?;
            observer.note(Note::RecoveryAt(plan.state_dir().join(RECOVERY)));
            Ok(())
        }
        RecoverySpec::File(path) => {
            write_recovery_file(disk, path, &plan.data_dir, key).map_err(|e| refused(&e, e.hint()))?;
            observer.note(Note::RecoveryAt(path.clone()));
            Ok(())
        }
        RecoverySpec::Terminal => observer
            .show_recovery_key(key)
            .map_err(|e| refused(&e, "run the first boot on a terminal, or choose age recipients in [recovery]")),
    }
}

pub(super) fn seal_profile(profile: Profile) -> seal::Profile {
    match profile {
        Profile::Production => seal::Profile::Production,
        Profile::Demo => seal::Profile::Demo,
    }
}

pub(super) fn store_profile(profile: Profile) -> store::Profile {
    match profile {
        Profile::Production => store::Profile::Production,
        Profile::Demo => store::Profile::Demo,
    }
}

pub(super) fn plan_profile(profile: seal::Profile) -> Profile {
    match profile {
        seal::Profile::Production => Profile::Production,
        seal::Profile::Demo => Profile::Demo,
    }
}

pub(super) fn head_profile(profile: store::Profile) -> Profile {
    match profile {
        store::Profile::Production => Profile::Production,
        store::Profile::Demo => Profile::Demo,
    }
}
