//! `edgekeep reprovision --destroys-all-secrets`: the way out when a store cannot be opened by anybody any more.

use std::path::PathBuf;

use clap::Args;
use host::{Disk, OsDisk};

use crate::failure::{Code, Failure};

/// Example: edgekeep reprovision --destroys-all-secrets --data-dir /var/lib/edgekeep
#[derive(Args)]
pub(crate) struct Reprovision {
    /// Says that every secret of this device is given up.
    #[arg(long)]
    destroys_all_secrets: bool,
    /// The directory whose store is thrown away.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn run(reprovision: &Reprovision) -> Result<(), Failure> {
    let dir = &reprovision.data_dir;
    if !reprovision.destroys_all_secrets {
        return Err(Failure::usage(format!("nothing was done: this would destroy all secrets in {}", dir.display()))
            .hint("restore a backup if there is one; otherwise repeat with --destroys-all-secrets"));
    }
    let io = |what: &str, e: std::io::Error| Failure::fault(format!("{what} {}: {e}", dir.display()));
    let there = [dir.join("data"), dir.join("data.new")].map(|p| (OsDisk.meta(&p), p));
    if !there.iter().any(|(meta, _)| matches!(meta, Ok(Some(_)))) {
        return Err(Failure::usage(format!("there is no store in {}", dir.display()))
            .hint("name the data_dir of edgekeep.toml"));
    }
    let lock = OsDisk.lock(&dir.join("lock")).map_err(|e| io("cannot lock", e))?;
    let Some(_held) = lock else {
        return Err(
            Failure::new(Code::Refused, format!("an edgekeep is running on {}", dir.display())).hint("stop it first")
        );
    };
    // Renamed first: if the power fails in the midst, what is left is not taken for a store with parts missing.
    let doomed = dir.join("data.destroyed");
    OsDisk.remove_tree(&doomed).map_err(|e| io("cannot remove what an earlier run left in", e))?;
    for (_, path) in there.iter().filter(|(meta, _)| matches!(meta, Ok(Some(_)))) {
        OsDisk.rename(path, &doomed, false).map_err(|e| io("cannot rename the store in", e))?;
        OsDisk.sync_dir(dir).map_err(|e| io("cannot sync", e))?;
        OsDisk
            .remove_tree(&doomed)
            .map_err(|e| io("the store is out of use, but not all of it could be removed from", e))?;
    }
    OsDisk.sync_dir(dir).map_err(|e| io("cannot sync", e))?;
    crate::output::line(&format!(
        "The store in {} is gone. The next `edgekeep up` is a first boot, and makes new keys, tokens and credentials.",
        dir.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(dir: &std::path::Path, destroys_all_secrets: bool) -> Result<(), Failure> {
        run(&Reprovision { destroys_all_secrets, data_dir: dir.to_owned() })
    }

    #[test]
    fn nothing_is_destroyed_unless_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.create_dir(&dir.path().join("data"), 0o700).unwrap();
        OsDisk.write_new(&dir.path().join("data/slots.a"), b"x", 0o600, None).unwrap();
        assert_eq!(with(dir.path(), false).unwrap_err().code, Code::Usage);
        assert!(dir.path().join("data/slots.a").exists());
        with(dir.path(), true).unwrap();
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["lock"]);
    }

    #[test]
    fn a_running_store_is_not_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.create_dir(&dir.path().join("data"), 0o700).unwrap();
        let _held = OsDisk.lock(&dir.path().join("lock")).unwrap().unwrap();
        assert_eq!(with(dir.path(), true).unwrap_err().code, Code::Refused);
        assert!(dir.path().join("data").exists());
    }

    #[test]
    fn a_place_without_a_store_is_a_slip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(with(dir.path(), true).unwrap_err().code, Code::Usage);
    }
}
