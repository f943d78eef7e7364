//! The state directory: looked at, made in `data.new`, renamed to `data` in one step, or given up on request.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, FileKind};
use serde::{Deserialize, Serialize};

use super::destroy;
use super::erase::{self, Stage};
use crate::machine::{Ending, Part, Remains};
use crate::plan::{Plan, RecoverySpec, SourceSpec};

/// The directory in which a first boot makes everything.
pub(super) const NEW: &str = "data.new";
/// The database in the state directory.
pub(super) const STORE: &str = "store.db";
/// The key shares of a store in another process, by EdgeX's name.
pub(super) const SHARES: &str = "resp-init.json";
/// The audit ring's directory in it.
pub(super) const AUDIT: &str = "audit";
/// The recovery key, sealed.
pub(super) const RECOVERY: &str = "recovery.age";
/// What a first boot makes outside of `data.new`, so that one that was cut short can be cleared away.
const MAKING: &str = "making";

/// What to do where [`look`] fails.
pub(super) const UNREADABLE: &str = "data_dir must be readable for the user that runs edgekeep";

/// Looks what is there, changing nothing.
pub(super) fn look(disk: &dyn Disk, plan: &Plan) -> io::Result<Remains> {
    let state = plan.state_dir();
    let leftover = disk.meta(&plan.data_dir.join(NEW))?.is_some();
    let mut parts = Vec::new();
    match disk.meta(&state)? {
        None => {}
        Some(meta) if meta.kind == FileKind::Dir => {
            for name in disk.list(&state)? {
                match name.as_str() {
                    "slots.a" => parts.push(Part::SlotsA),
                    "slots.b" => parts.push(Part::SlotsB),
                    STORE => parts.push(Part::Store),
                    // An empty directory is no audit: its ring is gone.
                    AUDIT if !disk.list(&state.join(AUDIT)).unwrap_or_default().is_empty() => parts.push(Part::Audit),
                    AUDIT => {}
                    SHARES | external::INTENT_FILE => parts.push(Part::Shares),
                    // The recovery key says that a store was here; so does a WAL.
                    _ => parts.push(Part::Other),
                }
            }
        }
        Some(_) => parts.push(Part::Other),
    }
    parts.sort();
    parts.dedup();
    // Files that belong to a whole store say nothing beside one.
    if parts.contains(&Part::Store) || parts.contains(&Part::Shares) {
        parts.retain(|p| *p != Part::Other);
    }
    let ending = match erase::stage(disk, plan)? {
        _ if disk.meta(&plan.data_dir.join(destroy::NOTE))?.is_some() => Some(Ending::Destroying),
        Stage::Erasing => Some(Ending::Erasing),
        Stage::Erased if parts.is_empty() => Some(Ending::Erased { receipt: plan.data_dir.join(erase::RECEIPT) }),
        Stage::Erased | Stage::GivenUp | Stage::None => None,
    };
    Ok(Remains { parts, leftover, ending })
}

/// Files outside of the state directory that a first boot is about to make; none of them is there yet. Below the data
/// directory they are named from there.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Making {
    outside: Vec<PathBuf>,
}

impl Making {
    pub(super) fn new(plan: &Plan, outside: &[PathBuf]) -> Self {
        let short = |p: &PathBuf| p.strip_prefix(&plan.data_dir).unwrap_or(p).to_path_buf();
        Self { outside: outside.iter().map(short).collect() }
    }
}

/// Files outside of the state directory that the plan makes at a first boot: a software key, a recovery file.
pub(super) fn outside(plan: &Plan) -> Vec<PathBuf> {
    let keys = plan.sources.iter().flat_map(SourceSpec::makes_files).map(Path::to_owned);
    let recovery = match &plan.recovery {
        Some(RecoverySpec::File(file)) => Some(file.clone()),
        _ => None,
    };
    keys.chain(recovery).collect()
}

/// Begins a first boot: `data.new`, and in it the note of what will be made outside. Durable on return.
pub(super) fn begin(disk: &dyn Disk, plan: &Plan, making: &Making) -> io::Result<PathBuf> {
    let new = plan.data_dir.join(NEW);
    disk.create_dir(&new, 0o700)?;
    // Before anything outside exists: a cut after this line finds the note, and removes what may be there.
    disk.replace(&new.join(MAKING), &serde_json::to_vec(making)?, 0o600, None)?;
    disk.sync_dir(&plan.data_dir)?;
    Ok(new)
}

/// Removes what a first boot that was cut short has left. `data` is not touched.
pub(super) fn clear_leftover(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    let new = plan.data_dir.join(NEW);
    // When `data` is there, the files outside belong to it.
    if !is_published(disk, plan)? {
        let noted = disk.read(&new.join(MAKING), 64 * 1024).ok();
        let making: Making = noted.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        // Only what the plan would make today: a note cannot name just any file for removal.
        let ours = outside(plan);
        for path in making.outside.iter().map(|p| plan.data_dir.join(p)).filter(|p| ours.contains(p)) {
            if disk.meta(&path)?.is_some_and(|m| m.kind == FileKind::File) {
                disk.remove_file(&path)?;
            }
        }
    }
    disk.remove_tree(&new)?;
    disk.sync_dir(&plan.data_dir)
}

/// Whether `data` holds a state: a store, or the slots of one that is in another process.
fn is_published(disk: &dyn Disk, plan: &Plan) -> io::Result<bool> {
    for name in [STORE, "slots.a", "slots.b"] {
        if disk.meta(&plan.state_dir().join(name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes `data.new` seen as `data`. Durable on return.
pub(super) fn publish(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    let (new, state) = (plan.data_dir.join(NEW), plan.state_dir());
    disk.sync_dir(&new)?;
    if disk.meta(&state)?.is_some() {
        // Only an empty one can be there, and only that is removed: rmdir(2) refuses all others.
        disk.remove_dir(&state)?;
    }
    disk.rename(&new, &state, false)?;
    disk.sync_dir(&plan.data_dir)
}

/// Forgets what was made outside: it is part of a published state now.
pub(super) fn settle(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    let note = plan.state_dir().join(MAKING);
    if disk.meta(&note)?.is_some() { disk.remove_file(&note) } else { Ok(()) }
}

#[cfg(test)]
mod unit {
    use host::OsDisk;

    use super::*;
    use crate::testing::demo_plan;

    /// What can lie beside a store.
    const BESIDE: [&str; 6] = ["store.lock", "store.db-wal", "store.db-shm", "store.db-journal", RECOVERY, MAKING];

    fn plan(dir: &tempfile::TempDir) -> Plan {
        demo_plan(dir.path(), "/nonexistent".as_ref())
    }

    fn put(path: &Path) {
        OsDisk.write_new(path, b"x", 0o600, None).unwrap();
    }

    #[test]
    fn what_lies_beside_a_lost_store_is_not_nothing() {
        for name in BESIDE {
            let dir = tempfile::tempdir().unwrap();
            let plan = plan(&dir);
            assert!(look(&OsDisk, &plan).unwrap().is_virgin());
            OsDisk.create_dir(&plan.state_dir(), 0o700).unwrap();
            assert!(look(&OsDisk, &plan).unwrap().is_virgin(), "an empty directory was never a store");
            put(&plan.state_dir().join(name));
            assert!(!look(&OsDisk, &plan).unwrap().is_virgin(), "{name} says that a store was here");
        }
    }

    #[test]
    fn a_first_boot_that_was_cut_short_leaves_nothing_behind_and_touches_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir);
        let (key, other) = (dir.path().join("software.key"), dir.path().join("other"));
        begin(&OsDisk, &plan, &Making::new(&plan, std::slice::from_ref(&key))).unwrap();
        put(&key);
        put(&other);
        assert!(look(&OsDisk, &plan).unwrap().leftover);
        clear_leftover(&OsDisk, &plan).unwrap();
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["other"]);
    }

    #[test]
    fn a_forged_note_removes_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir);
        let victim = dir.path().join("victim");
        put(&victim);
        begin(&OsDisk, &plan, &Making::new(&plan, &[victim.clone(), "../victim".into()])).unwrap();
        clear_leftover(&OsDisk, &plan).unwrap();
        assert!(OsDisk.meta(&victim).unwrap().is_some());
    }

    #[test]
    fn a_published_state_keeps_what_was_made_outside() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir);
        let key = dir.path().join("software.key");
        begin(&OsDisk, &plan, &Making::new(&plan, std::slice::from_ref(&key))).unwrap();
        put(&key);
        publish(&OsDisk, &plan).unwrap();
        settle(&OsDisk, &plan).unwrap();
        // Another attempt was begun and cut; its note names the same file. One whose store is elsewhere has slots alone.
        for (name, kept) in [("slots.b", true), (STORE, true), (RECOVERY, false)] {
            put(&plan.state_dir().join(name));
            begin(&OsDisk, &plan, &Making::new(&plan, std::slice::from_ref(&key))).unwrap();
            clear_leftover(&OsDisk, &plan).unwrap();
            assert_eq!(OsDisk.meta(&key).unwrap().is_some(), kept, "beside {name}");
            OsDisk.remove_file(&plan.state_dir().join(name)).unwrap();
        }
    }

    #[test]
    fn publishing_displaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir);
        begin(&OsDisk, &plan, &Making::default()).unwrap();
        OsDisk.create_dir(&plan.state_dir(), 0o700).unwrap();
        put(&plan.state_dir().join("slots.a"));
        publish(&OsDisk, &plan).unwrap_err();
        assert!(OsDisk.meta(&plan.state_dir().join("slots.a")).unwrap().is_some());
    }
}
