//! What is destroyed on request: a store, or everything that makes two devices of one image alike.
//!
//! ```text
//! note `destroying` -> slots, key files: zeros, then gone -> the rest -> (generalize: tokens, locks) -> the note goes
//! ```
//! The slots first: without them the rest is noise. Whatever is left when that is cut short, half a device or a key
//! file of one that is no more, the note stands beside it, and nothing starts from it until the command was repeated.
//! `driver::tests::destroy` cuts the power at each step.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, FileKind};

use super::state_dir::NEW;
use super::{erase, factory};
use crate::plan::{Plan, SourceSpec};

/// Says that a destruction was begun and not ended.
pub(super) const NOTE: &str = "destroying";

/// Destroys all secrets of a device. For `edgekeep reprovision --destroys-all-secrets` alone.
///
/// # Errors
/// [`DestroyError`]; running it again goes on.
pub fn destroy_state(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let _held = begin(disk, plan)?;
    secrets(disk, plan)?;
    end(disk, plan)
}

/// Takes everything away that would make two devices of one image alike: [`destroy_state`], tokens and certificate in
/// the run directory, locks. For `edgekeep generalize`; an edgekeep that runs is left alone. Durable on return.
///
/// # Errors
/// [`DestroyError`]; running it again goes on.
pub fn generalize(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let at = |path: &Path| failed(path.to_owned());
    let there = disk.meta(&plan.data_dir).map_err(at(&plan.data_dir))?.is_some();
    let held = if there { Some(begin(disk, plan)?) } else { None };
    if there {
        secrets(disk, plan)?;
    }
    for name in ["secrets", delivery::CA_FILE, delivery::ENDPOINT_FILE] {
        let path = plan.run_dir.join(name);
        disk.remove_tree(&path).map_err(at(&path))?;
    }
    if there {
        // Receipts name the tokens that one device gave out in another's store.
        for path in ["receipts", "tpm.lock"].map(|name| plan.data_dir.join(name)) {
            disk.remove_tree(&path).map_err(at(&path))?;
        }
        end(disk, plan)?;
        drop(held);
        let lock = plan.data_dir.join("lock");
        disk.remove_file(&lock).and_then(|()| disk.sync_dir(&plan.data_dir)).map_err(at(&lock))?;
    }
    Ok(())
}

/// Takes the lock, and makes the note.
fn begin(disk: &dyn Disk, plan: &Plan) -> Result<Box<dyn Send>, DestroyError> {
    let lock = plan.data_dir.join("lock");
    let held = disk.lock(&lock).map_err(failed(lock.clone()))?.ok_or(DestroyError::Running { lock })?;
    if host::in_force("destruction-noted") {
        let note = plan.data_dir.join(NOTE);
        // Durable before the first byte is touched: a cut after this line leaves nothing that starts.
        disk.replace(&note, b"", 0o600, None).map_err(failed(note))?;
    }
    Ok(held)
}

/// Everything but the note.
fn secrets(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    slots(disk, plan)?;
    rest(disk, plan)?;
    erase::forget(disk, plan).map_err(failed(plan.data_dir.clone()))
}

fn end(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let note = plan.data_dir.join(NOTE);
    let gone = overwrite_and_remove(disk, &note).and_then(|()| disk.sync_dir(&plan.data_dir));
    gone.map_err(failed(note))
}

/// The slots and the key files of sources, by whoever holds the lock. Durable on return: nothing opens the store.
pub(super) fn slots(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let at = |path: &Path| failed(path.to_owned());
    for dir in [plan.state_dir(), plan.data_dir.join(NEW)] {
        if disk.meta(&dir).map_err(at(&dir))?.is_none_or(|m| m.kind != FileKind::Dir) {
            continue;
        }
        let mut names = disk.list(&dir).map_err(at(&dir))?;
        // `slots.b` last: while one copy is whole the device lives.
        names.sort();
        for name in names.iter().filter(|name| name.trim_start_matches('.').starts_with("slots.")) {
            let path = dir.join(name);
            overwrite_and_remove(disk, &path).map_err(at(&path))?;
        }
        disk.sync_dir(&dir).map_err(at(&dir))?;
    }
    for file in plan.sources.iter().flat_map(SourceSpec::makes_files) {
        // What a crash in its making has left lies beside it.
        for path in [host::temporary_beside(file).map_err(at(file))?, file.to_owned()] {
            overwrite_and_remove(disk, &path).map_err(at(&path))?;
        }
        // A name that comes back would be a key file at what is a first boot, which refuses it.
        if let Some(dir) = file.parent().filter(|dir| matches!(disk.meta(dir), Ok(Some(_)))) {
            disk.sync_dir(dir).map_err(at(dir))?;
        }
    }
    Ok(())
}

/// What is noise without the slots.
pub(super) fn rest(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let (new, note) = (plan.data_dir.join(NEW), plan.data_dir.join(factory::NOTE));
    for path in [new, plan.state_dir(), plan.run_dir.join("secrets"), note] {
        disk.remove_tree(&path).map_err(failed(path))?;
    }
    disk.sync_dir(&plan.data_dir).map_err(failed(plan.data_dir.clone()))
}

fn failed(path: PathBuf) -> impl FnOnce(io::Error) -> DestroyError {
    move |cause| DestroyError::Io { path, cause }
}

/// Zeros over a file's bytes, on the disk before the name goes. What a flash has copied elsewhere by itself stays
/// there.
pub(super) fn overwrite_and_remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.meta(path)? {
        None => return Ok(()),
        Some(meta) if meta.kind == FileKind::File && host::in_force("erased-bytes-overwritten") => {
            let mut file = disk.open_rw(path)?;
            let zeros = [0; 4096];
            let (mut at, end) = (0, file.len()?);
            while at < end {
                let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
                file.write_at(&zeros[..part], at)?;
                at += part as u64;
            }
            file.sync_data()?;
        }
        // A link or something else that is not ours: its name alone goes.
        Some(_) => {}
    }
    disk.remove_file(path)
}

/// Why a state was not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// An edgekeep is running on it.
    #[error("{} is held by a running edgekeep", lock.display())]
    Running {
        /// The lock.
        lock: PathBuf,
    },
    /// The disk failed.
    #[error("{} cannot be removed", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::super::state_dir::{Making, begin, look, publish};
    use super::*;
    use crate::testing::demo_plan;

    #[test]
    fn a_running_device_is_not_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = demo_plan(dir.path(), "/nonexistent".as_ref());
        begin(&OsDisk, &plan, &Making::default()).unwrap();
        publish(&OsDisk, &plan).unwrap();
        let held = OsDisk.lock(&dir.path().join("lock")).unwrap();
        assert!(matches!(destroy_state(&OsDisk, &plan), Err(DestroyError::Running { .. })));
        drop(held);
        destroy_state(&OsDisk, &plan).unwrap();
        assert!(look(&OsDisk, &plan).unwrap().is_virgin());
    }
}
