//! Configuration: edgekeep.toml and EdgeX's own files, parsed once into a [`boot::plan::Plan`].
//!
//! Text becomes a tree with line numbers (`document`), sections are read out of the tree (`settings`, `edgex`), and
//! every fault goes to one collector, so that one run shows all of them with file, line and remedy. What has no fault
//! has no doubt: unknown keys, overrides that override nothing, names that could leave their place and files that
//! others may change are all refused.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod demo;
mod document;
mod edgex;
mod environment;
mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod nearest;
mod places;
mod section;
mod settings;

use std::path::{Path, PathBuf};

use boot::plan::{Plan, Profile, RecoverySpec, SourceSpec};
use host::Disk;

pub use demo::{Demo, demo};
pub use edgex::bootstrapper::{
    Bootstrapper, DatabaseFiles, Mosquitto, SecretStore, StageGates, bootstrapper, go_duration,
};
pub use edgex::{
    Admits, Bus, Face, Kuiper, Program, ProviderFace, ProxyCertificate, RegenerateAt, RegeneratePort, SetupFace,
    StoreAt,
};
pub use environment::Environment;
pub use fault::{Fault, Faults, Place};

use fault::Collector;
use places::Places;
use section::Source;

/// What a configuration is read from.
pub struct Inputs<'a> {
    /// Where the files are.
    pub disk: &'a dyn Disk,
    /// Variables that override.
    pub environment: &'a Environment,
    /// The user that runs this: files may belong to it, or to root.
    pub uid: u32,
    /// edgekeep.toml.
    pub file: &'a Path,
    /// `--edgex-config`: in place of `edgex.config_dir`.
    pub edgex_dir: Option<&'a Path>,
    /// `--data-dir`: in place of `data_dir`.
    pub data_dir: Option<&'a Path>,
    /// Whether somebody sits in front of this, who could be shown a recovery key.
    pub terminal: bool,
}

/// A configuration without faults.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub plan: Plan,
    /// Settings that have no effect here, each in one line with its place.
    pub notes: Vec<String>,
}

/// Reads a configuration; nothing is written and nothing is opened but the files themselves.
///
/// # Errors
/// [`Faults`]: all of them at once.
pub fn load(inputs: &Inputs<'_>) -> Result<Config, Faults> {
    let faults = Collector::default();
    let Some(root) = input::read(inputs.disk, inputs.uid, inputs.file, document::toml, &faults) else {
        return Err(faults.finish(()).expect_err("a file that cannot be read is noted as a fault"));
    };
    let source = Source { file: inputs.file, faults: &faults, environment: inputs.environment };
    let mut places = Places::new(inputs.file);
    let mut notes = Vec::new();
    let settings = settings::read(source, &root, &run_dir(inputs.uid, inputs.environment), &mut places);
    let (mut plan, mut edgex_files) = (settings.plan, settings.edgex);
    if let Some(dir) = inputs.edgex_dir {
        edgex_files.config_dir = Some(dir.to_owned());
    }
    if let Some(dir) = inputs.data_dir {
        plan.data_dir = dir.to_owned();
    }
    if plan.recovery.is_none() && inputs.terminal && plan.store.has_slots() {
        plan.recovery = Some(RecoverySpec::Terminal);
    }
    if edgex_files.is_any() {
        let reader =
            edgex::Reader { disk: inputs.disk, uid: inputs.uid, environment: inputs.environment, faults: &faults };
        reader.add(&edgex_files, &mut plan, &mut places, &mut notes);
    }
    inputs.environment.finish(&faults);
    check_policies(&plan, &places, &faults);
    places.report(&plan, &faults);
    faults.finish(Config { plan, notes })
}

/// Key sources alone, for whoever asks them without a store.
#[derive(Debug)]
pub struct KeySources {
    /// At least one.
    pub sources: Vec<SourceSpec>,
    /// Whether key material of 16 to 31 octets is taken.
    pub short_ikm: bool,
}

/// Reads `[source]` of a configuration, and nothing else that may stand in it.
///
/// # Errors
/// [`Faults`]: all of them at once.
pub fn load_sources(inputs: &Inputs<'_>) -> Result<KeySources, Faults> {
    let faults = Collector::default();
    let Some(root) = input::read(inputs.disk, inputs.uid, inputs.file, document::toml, &faults) else {
        return Err(faults.finish(()).expect_err("a file that cannot be read is noted as a fault"));
    };
    let source = Source { file: inputs.file, faults: &faults, environment: inputs.environment };
    let mut places = Places::new(inputs.file);
    let (sources, dangers) = settings::read_sources(source, &root, &mut places);
    // What goes together is for a plan to say: this one is of nothing but sources.
    let here = Path::new("/");
    let plan = demo(&Demo { data_dir: here, run_dir: here, listen: None })?;
    let plan = Plan { profile: Profile::Production, sources, dangers, ..plan };
    places.report(&plan, &faults);
    faults.finish(KeySources { sources: plan.sources, short_ikm: dangers.short_ikm })
}

/// A policy that the store would refuse is found before anything is made.
fn check_policies(plan: &Plan, places: &Places, faults: &Collector) {
    for service in &plan.services {
        if let Err(e) = policy::Policy::parse(&service.policy_name(), &service.policy_text()) {
            let what = format!("the policy of {}: {e}", service.name);
            faults.add(places.of(places::Part::Service, &service.name), what, "correct its custom rules");
        }
    }
}

/// Where tokens and sockets live unless the configuration says otherwise: `/run/edgekeep` for root, the user's own
/// runtime directory for others.
pub fn run_dir(uid: u32, environment: &Environment) -> PathBuf {
    match environment.value("XDG_RUNTIME_DIR").filter(|d| uid != 0 && Path::new(d).is_absolute()) {
        Some(dir) => Path::new(dir).join("edgekeep"),
        None => PathBuf::from("/run/edgekeep"),
    }
}
