//! Finding a running edgekeep: the run directory that holds its `endpoint.json`.

use std::path::{Path, PathBuf};

use config::Environment;
use delivery::{ENDPOINT_FILE, Endpoint, OsMedium, RunDir, check_parents};
use host::{Disk, OsDisk};

use crate::failure::{Code, Failure};

/// The variables of this process.
pub(crate) fn environment() -> Environment {
    Environment::new(std::env::vars_os())
}

/// The run directory: as given, as `EDGEKEEP_RUN_DIR` says, or the first usual place where an edgekeep has written
/// where it is.
pub(crate) fn run_dir(given: Option<&Path>) -> PathBuf {
    let environment = environment();
    if let Some(dir) = given {
        return dir.to_owned();
    }
    if let Some(dir) = environment.value("EDGEKEEP_RUN_DIR").filter(|d| !d.is_empty()) {
        return PathBuf::from(dir);
    }
    let uid = crate::process::uid();
    let mut places = vec![PathBuf::from("/run/edgekeep")];
    if let Some(dir) = environment.value("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
        places.push(Path::new(dir).join("edgekeep"));
    }
    places.push(PathBuf::from(format!("/dev/shm/edgekeep-{uid}")));
    let there = places.iter().position(|dir| matches!(OsDisk.meta(&dir.join(ENDPOINT_FILE)), Ok(Some(_))));
    places.swap_remove(there.unwrap_or(0))
}

/// Where a new edgekeep would put tokens if nobody says where.
pub(crate) fn fresh_run_dir() -> Result<RunDir, Failure> {
    let environment = environment();
    let xdg = environment.value("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(Path::new);
    RunDir::choose(&OsDisk, &OsMedium, crate::process::uid(), xdg)
        .map_err(|e| Failure::of(Code::Usage, &e).hint(e.hint()))
}

/// Reads where the running edgekeep is. The directory must not be one that a stranger could have made.
pub(crate) fn endpoint(run_dir: &Path) -> Result<Endpoint, Failure> {
    check_parents(&OsDisk, run_dir, crate::process::uid())
        .map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))?;
    Endpoint::read(&OsDisk, run_dir).map_err(|e| {
        Failure::new(Code::NotReady, host::with_causes(&e))
            .hint("start edgekeep (`edgekeep up`), or name its run directory with --run-dir")
    })
}
