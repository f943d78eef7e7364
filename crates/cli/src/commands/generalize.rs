//! `edgekeep generalize`: a device becomes an image for many.

use std::path::PathBuf;

use boot::driver::DestroyError;
use boot::plan::{Plan, RecoverySpec};
use clap::Args;
use host::OsDisk;

use crate::failure::{Code, Failure};

/// Example: edgekeep generalize --destroys-all-secrets
#[derive(Args)]
pub(crate) struct Generalize {
    /// Says that every secret of this device is given up.
    #[arg(long)]
    destroys_all_secrets: bool,
    /// The configuration of the device; EDGEKEEP_CONFIG, or /etc/edgekeep/edgekeep.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory whose store is thrown away, in place of the one that the configuration names.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(generalize: &Generalize) -> Result<(), Failure> {
    let data_dir = generalize.data_dir.as_deref();
    let plan = super::up::load(&super::up::config_file(generalize.config.as_deref()), None, data_dir)?.plan;
    prepare(&plan, generalize.destroys_all_secrets)?;
    super::beside::forget(&plan);
    crate::output::line(&told(&plan));
    Ok(())
}

fn prepare(plan: &Plan, said: bool) -> Result<(), Failure> {
    if !said {
        let fact = format!("nothing was done: this would destroy all secrets in {}", plan.data_dir.display());
        return Err(
            Failure::usage(fact).hint("if this is to be an image for many devices, repeat with --destroys-all-secrets")
        );
    }
    boot::driver::generalize(&OsDisk, plan).map_err(|e| match &e {
        DestroyError::Running { .. } => Failure::of(Code::Refused, &e).hint("stop it first"),
        DestroyError::Io { .. } => {
            Failure::of(Code::Fault, &e).hint("put that right and repeat: it goes on where it ended")
        }
    })
}

/// What was done, and what edgekeep cannot do.
fn told(plan: &Plan) -> String {
    let mut lines = vec![
        "Slots, store, certificates, key files and tokens are gone; every device that starts from this image makes its own."
            .to_owned(),
        "Before the image is captured: empty /etc/machine-id, and take away what else names this one device (host keys of SSH).".into(),
        "Flash may keep what was overwritten: capture files, not the raw medium, or use a medium that was never in use.".into(),
    ];
    if let Some(RecoverySpec::File(path)) = &plan.recovery {
        lines.push(format!("The recovery key in {} was not touched, and opens nothing any more.", path.display()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use host::Disk;

    use super::*;

    fn plan(dir: &Path) -> Plan {
        let wish = config::Demo { data_dir: &dir.join("data"), run_dir: &dir.join("run"), listen: None };
        config::demo(&wish).unwrap()
    }

    /// A device as it lies on its disk, with its tokens.
    fn device(dir: &Path) {
        for path in ["data", "data/data", "run", "run/secrets", "run/secrets/sensor"] {
            OsDisk.create_dir(&dir.join(path), 0o700).unwrap();
        }
        for path in [
            "data/data/slots.a",
            "data/data/store.db",
            "data/software.key",
            "run/secrets/sensor/secrets-token.json",
            "run/ca.pem",
        ] {
            OsDisk.write_new(&dir.join(path), b"x", 0o600, None).unwrap();
        }
    }

    #[test]
    fn everything_that_makes_two_devices_alike_goes_when_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        device(dir.path());
        let plan = plan(dir.path());
        assert_eq!(prepare(&plan, false).unwrap_err().code, Code::Usage);
        assert!(dir.path().join("data/data/slots.a").exists(), "nothing is destroyed unless it is said");
        for _ in 0..2 {
            prepare(&plan, true).unwrap();
            assert_eq!(OsDisk.list(&dir.path().join("data")).unwrap(), Vec::<String>::new());
            assert_eq!(OsDisk.list(&dir.path().join("run")).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_running_device_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        device(dir.path());
        let held = OsDisk.lock(&dir.path().join("data/lock")).unwrap();
        assert_eq!(prepare(&plan(dir.path()), true).unwrap_err().code, Code::Refused);
        assert!(dir.path().join("data/data/slots.a").exists() && dir.path().join("run/ca.pem").exists());
        drop(held);
    }
}
