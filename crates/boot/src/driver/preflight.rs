//! What stands in the way of a start, as far as files tell: no hardware is asked, nothing is run, made or written.
//!
//! ```text
//! claim    data_dir, the place for tokens, the gates' socket      by the checks that `claim` makes
//! machine  Started, Looked(what is on the disk)                   by the machine itself, whose actions nobody carries out
//!    Making     what a first boot makes outside, its sources, the recovery key's file      each is a refusal
//!    Releasing  the sources' files; what may come, and what others stand in for, is awaited
//!    Reaching   the store's CA: awaited
//! ```
//! That nothing is found promises nothing: hardware, servers, other processes and a full disk have the last word.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use delivery::PathError;
use seal::{Wanted, check_recovery_file};

use super::asking::{Asking, End};
use super::claim::{UpError, channel, check_data_dir};
use super::environment::Environment;
use super::keys::{of_source, outside, refused};
use super::{reach, source, state_dir};
use crate::gate::{BindError, GateSocket};
use crate::machine::{Event, Halt, Machine, State};
use crate::plan::{PinPlace, Plan, RecoverySpec, SourceSpec};

/// What was found, in the order in which a start would meet it.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Why nothing would be started.
    pub refused: Vec<UpError>,
    /// Why the boot would stop.
    pub halted: Vec<Halt>,
    /// What a start would wait for, or go on without.
    pub awaited: Vec<String>,
}

/// Looks at everything that a start would look at before it asks anybody.
pub fn preflight(plan: &Plan, env: &Environment) -> Preflight {
    let mut found = Preflight::default();
    let faults = plan.faults();
    if !faults.is_empty() {
        found.refused.push(UpError::Plan(faults));
    }
    match check_data_dir(plan, env) {
        Ok(warning) => found.awaited.extend(warning),
        Err(e) => found.refused.push(e),
    }
    found.refused.extend(channel(plan, env).inspect().err().map(UpError::from));
    found.refused.extend(check_door(plan, env).err().map(UpError::from));
    // Where nothing can be claimed, nothing is looked at.
    if found.refused.is_empty() {
        found.look(plan, env);
    }
    found
}

/// The gates' socket; its directory is there, or is the run directory that will be.
fn check_door(plan: &Plan, env: &Environment) -> Result<(), BindError> {
    let path = &plan.listen.gate_socket;
    GateSocket::check_place(&*env.disk, path, env.us)?;
    let failed = |cause| BindError::Io(PathError::new("bind", path, cause));
    match path.parent() {
        Some(dir) if dir != plan.run_dir => env.disk.check_writable(dir).map_err(failed),
        _ => Ok(()),
    }
}

impl Preflight {
    fn look(&mut self, plan: &Plan, env: &Environment) {
        let (mut machine, _) = Machine::new(Arc::new(plan.clone())).step(Event::Started);
        let mut cut_short = false;
        if matches!(machine.state(), State::PoweredOn) {
            match state_dir::look(&*env.disk, plan) {
                Ok(remains) => {
                    cut_short = remains.leftover;
                    (machine, _) = machine.step(Event::Looked(remains));
                }
                Err(e) => return self.halted.push(refused(&e, state_dir::UNREADABLE)),
            }
        }
        match machine.state() {
            State::Halted(halt) => self.halted.push(halt.clone()),
            State::Making => self.first_boot(plan, env, cut_short),
            State::Releasing(_) => self.another_boot(plan, env),
            State::Reaching(_) => self.elsewhere(plan, env),
            _ => {}
        }
    }

    /// Every source is needed, and nothing is waited for.
    fn first_boot(&mut self, plan: &Plan, env: &Environment, cut_short: bool) {
        // What a first boot that was cut short has left is cleared away before.
        if !cut_short {
            self.halted.extend(outside(plan, env).err());
        }
        for spec in &plan.sources {
            if self.comes_with_the_unit(spec, env) {
                continue;
            }
            let looked = source::look(spec, plan, env, Wanted::Provision);
            self.halted.extend(looked.err().map(|e| of_source(spec, plan, &e, e.hint())));
        }
        if let Some(RecoverySpec::File(path)) = &plan.recovery
            && !(cut_short && matches!(env.disk.meta(path), Ok(Some(_))))
        {
            let checked = check_recovery_file(&*env.disk, path, &plan.data_dir);
            let fault = checked.err().map(|e| refused(&e, e.hint()));
            // That it is there already was said.
            self.halted.extend(fault.filter(|_| !matches!(env.disk.meta(path), Ok(Some(_)))));
        }
    }

    fn another_boot(&mut self, plan: &Plan, env: &Environment) {
        let comes = plan.sources.iter().filter(|spec| self.comes_with_the_unit(spec, env)).count() > 0;
        let round = Asking::default().look(plan, env);
        match round.end {
            End::Never(halt) if !comes => self.halted.push(halt),
            _ => self.awaited.extend(round.told.into_iter().map(|(_, told)| told)),
        }
    }

    fn elsewhere(&mut self, plan: &Plan, env: &Environment) {
        let Some(store) = plan.store.external() else { return };
        self.awaited.extend(reach::line(&*env.disk, store).err());
        if store.is_kept() {
            self.another_boot(plan, env);
        }
    }

    /// Credentials of a unit are there while it runs: by hand nobody sees them.
    fn comes_with_the_unit(&mut self, spec: &SourceSpec, env: &Environment) -> bool {
        let missing: Vec<PathBuf> = spec
            .parts()
            .iter()
            .flat_map(handed_by_systemd)
            .filter(|dir| dir.starts_with(CREDENTIALS) && matches!(env.disk.meta(dir), Ok(None)))
            .collect();
        let told = missing.iter().map(|dir| format!("{spec}: systemd makes {} when it starts the unit", dir.display()));
        self.awaited.extend(told);
        !missing.is_empty()
    }
}

/// Directories of files that may be credentials.
fn handed_by_systemd(spec: &SourceSpec) -> Vec<PathBuf> {
    let parent = |file: &Path| file.parent().map(Path::to_owned);
    match (spec, spec.pin()) {
        (SourceSpec::Credential { directory, .. }, _) => vec![directory.clone()],
        (SourceSpec::Escrow { holder, .. }, _) => holder.files().into_iter().filter_map(parent).collect(),
        (_, Some(PinPlace::File(path))) => parent(path).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Where systemd puts a unit's credentials (systemd.exec(5)).
const CREDENTIALS: &str = "/run/credentials";
