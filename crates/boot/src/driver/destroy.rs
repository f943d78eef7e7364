//! What is destroyed on request: a store, or everything that makes two devices of one image alike.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, FileKind};

use super::state_dir::NEW;
use crate::plan::{Plan, SourceSpec};

/// Destroys all secrets of a device: the slots first, for without them the rest is noise. For
/// `edgekeep reprovision --destroys-all-secrets` alone.
///
/// # Errors
/// [`DestroyError`]; running it again goes on.
pub fn destroy_state(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let failed = |path: &Path, cause| DestroyError::Io { path: path.into(), cause };
    let lock = plan.data_dir.join("lock");
    let held = disk.lock(&lock).map_err(|e| failed(&lock, e))?;
    if held.is_none() {
        return Err(DestroyError::Running { lock });
    }
    slots(disk, plan)?;
    rest(disk, plan)
}

/// The slots and the key files of sources, by whoever holds the lock. Durable on return: nothing opens the store.
pub(super) fn slots(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let failed = |path: &Path, cause| DestroyError::Io { path: path.into(), cause };
    let state = plan.state_dir();
    for name in ["slots.a", "slots.b"] {
        let path = state.join(name);
        overwrite_and_remove(disk, &path).map_err(|e| failed(&path, e))?;
    }
    if disk.meta(&state).map_err(|e| failed(&state, e))?.is_some() {
        disk.sync_dir(&state).map_err(|e| failed(&state, e))?;
    }
    for file in plan.sources.iter().flat_map(SourceSpec::makes_files) {
        overwrite_and_remove(disk, file).map_err(|e| failed(file, e))?;
    }
    Ok(())
}

/// What is noise without the slots.
pub(super) fn rest(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let failed = |path: &Path, cause| DestroyError::Io { path: path.into(), cause };
    for path in [plan.data_dir.join(NEW), plan.state_dir(), plan.run_dir.join("secrets")] {
        disk.remove_tree(&path).map_err(|e| failed(&path, e))?;
    }
    disk.sync_dir(&plan.data_dir).map_err(|e| failed(&plan.data_dir, e))
}

/// Takes everything away that would make two devices of one image alike: [`destroy_state`], tokens and certificate in the run
/// directory, locks. For `edgekeep generalize`; an edgekeep that runs is left alone.
///
/// # Errors
/// [`DestroyError`]; running it again goes on.
pub fn generalize(disk: &dyn Disk, plan: &Plan) -> Result<(), DestroyError> {
    let failed = |path: &Path, cause| DestroyError::Io { path: path.into(), cause };
    if disk.meta(&plan.data_dir).map_err(|e| failed(&plan.data_dir, e))?.is_some() {
        destroy_state(disk, plan)?;
    }
    for name in ["secrets", delivery::CA_FILE, delivery::ENDPOINT_FILE] {
        let path = plan.run_dir.join(name);
        disk.remove_tree(&path).map_err(|e| failed(&path, e))?;
    }
    for name in ["lock", "tpm.lock"] {
        let path = plan.data_dir.join(name);
        if disk.meta(&path).map_err(|e| failed(&path, e))?.is_some() {
            disk.remove_file(&path).map_err(|e| failed(&path, e))?;
        }
    }
    Ok(())
}

/// Zeros over a file's bytes, on the disk before the name goes. What a flash has copied elsewhere by itself stays there.
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
