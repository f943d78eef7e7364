//! `edgekeep reprovision --destroys-all-secrets`: the way out when a store cannot be opened by anybody any more.

use std::path::PathBuf;

use boot::driver::{DestroyError, destroy_state};
use boot::plan::Plan;
use clap::Args;
use host::{Disk, OsDisk};

use crate::failure::{Code, Failure};

/// Example: edgekeep reprovision --destroys-all-secrets
#[derive(Args)]
pub(crate) struct Reprovision {
    /// Says that every secret of this device is given up.
    #[arg(long)]
    destroys_all_secrets: bool,
    /// The store is the demo's.
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// The configuration of the device; EDGEKEEP_CONFIG, or /etc/edgekeep/edgekeep.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory whose store is thrown away, in place of the one that the configuration names.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(reprovision: &Reprovision) -> Result<(), Failure> {
    let data_dir = reprovision.data_dir.as_deref();
    let plan = if reprovision.demo {
        super::up::demo_plan(data_dir, None)?.0
    } else {
        super::up::load(&super::up::config_file(reprovision.config.as_deref()), None, data_dir)?.plan
    };
    destroy(&plan, reprovision.destroys_all_secrets)?;
    super::beside::forget(&plan);
    crate::output::line(&format!(
        "The store in {} is gone. The next `edgekeep up` is a first boot, and makes new keys, tokens and credentials.",
        plan.data_dir.display()
    ));
    Ok(())
}

fn destroy(plan: &Plan, said: bool) -> Result<(), Failure> {
    let dir = plan.data_dir.display();
    if !said {
        return Err(Failure::usage(format!("nothing was done: this would destroy all secrets in {dir}"))
            .hint("restore a backup if there is one; otherwise repeat with --destroys-all-secrets"));
    }
    let there = |name: &str| matches!(OsDisk.meta(&plan.data_dir.join(name)), Ok(Some(_)));
    if !["data", "data.new", "destroying", "erasing", "erased.json"].into_iter().any(there) {
        return Err(Failure::usage(format!("there is no store in {dir}")).hint("name its directory with --data-dir"));
    }
    destroy_state(&OsDisk, plan).map_err(|e| match &e {
        DestroyError::Running { .. } => Failure::of(Code::Refused, &e).hint("stop it first"),
        DestroyError::Io { .. } => {
            Failure::of(Code::Fault, &e).hint("put that right and repeat: it goes on where it ended")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan(dir: &Path) -> Plan {
        config::demo(&config::Demo { data_dir: dir, run_dir: Path::new("/r"), listen: None }).unwrap()
    }

    #[test]
    fn nothing_is_destroyed_unless_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.create_dir(&dir.path().join("data"), 0o700).unwrap();
        OsDisk.write_new(&dir.path().join("data/slots.a"), b"x", 0o600, None).unwrap();
        assert_eq!(destroy(&plan(dir.path()), false).unwrap_err().code, Code::Usage);
        assert!(dir.path().join("data/slots.a").exists());
        destroy(&plan(dir.path()), true).unwrap();
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["lock"]);
    }

    #[test]
    fn a_running_store_is_not_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.create_dir(&dir.path().join("data"), 0o700).unwrap();
        let _held = OsDisk.lock(&dir.path().join("lock")).unwrap().unwrap();
        assert_eq!(destroy(&plan(dir.path()), true).unwrap_err().code, Code::Refused);
        assert!(dir.path().join("data").exists());
    }

    #[test]
    fn a_place_without_a_store_is_a_slip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(destroy(&plan(dir.path()), true).unwrap_err().code, Code::Usage);
    }
}
