//! `edgekeep up`: the whole road from a bare device to provisioned services, in one command.

mod admin;
mod build;
mod check;
mod engines;
mod front;
mod preflight;
mod run;
mod slots;
mod story;

pub(super) use run::{environment, keeper};

use std::path::{Path, PathBuf};

use boot::plan::Plan;
use clap::Args;
use config::{Config, Faults, Inputs};
use host::{Disk, OsDisk};

use crate::commands::beside::CalledAs;
use crate::failure::Failure;

/// Example: edgekeep up --config /etc/edgekeep/edgekeep.toml
#[derive(Args)]
pub(crate) struct Up {
    /// Look around: two services, a key in a file, no configuration, all in ./edgekeep-data. Protects nothing.
    #[arg(long, conflicts_with_all = ["config", "edgex_config", "check"])]
    demo: bool,
    /// The configuration; EDGEKEEP_CONFIG, or /etc/edgekeep/edgekeep.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the whole plan, refuse what `up` would refuse, and change nothing; no hardware is asked.
    #[arg(long)]
    check: bool,
    /// A directory with EdgeX's own files, in place of [edgex] config_dir.
    #[arg(long, value_name = "DIR")]
    edgex_config: Option<PathBuf>,
    /// Where the store is kept, in place of data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ask the key sources at once, however many starts before this one have ended before the store was served.
    #[arg(long, conflicts_with = "check")]
    at_once: bool,
    /// Where the demo listens, if 127.0.0.1:8200 is taken.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "demo")]
    listen: Option<String>,
}

pub(super) fn run(up: Up) -> Result<(), Failure> {
    crate::process::log("warn");
    if up.demo {
        let demo = || demo_plan(up.data_dir.as_deref(), up.listen.as_deref());
        let (plan, note) = demo()?;
        let start = run::Start { note, called_as: None, at_once: up.at_once };
        return on_runtime(run::run(plan, start, || demo().map(|(plan, _)| plan)));
    }
    let file = config_file(up.config.as_deref());
    let read = || load(&file, up.edgex_config.as_deref(), up.data_dir.as_deref());
    let config = read()?;
    if up.check {
        let found = preflight::preflight(&config.plan)?;
        crate::output::line(&check::text(&config, &file, &found.awaited));
        return found.end();
    }
    for note in config.notes.iter().cloned().chain(super::ikm::gate_shared_with_the_hook(&config.plan)) {
        tracing::warn!("{note}");
    }
    let called_as =
        CalledAs { config: absolute(&file)?, edgex_config: up.edgex_config.clone(), data_dir: up.data_dir.clone() };
    let start = run::Start { note: None, called_as: Some(called_as), at_once: up.at_once };
    on_runtime(run::run(config.plan, start, || read().map(|config| config.plan)))
}

/// The demo: what it keeps is in the directory where it is started, what it hands out on a tmpfs.
pub(super) fn demo_plan(
    data_dir: Option<&Path>,
    listen: Option<&str>,
) -> Result<(Plan, Option<&'static str>), Failure> {
    let data_dir = absolute(data_dir.unwrap_or(Path::new(DEMO_DIR)))?;
    let (run_dir, note) = match crate::locate::environment().value("EDGEKEEP_RUN_DIR").filter(|d| !d.is_empty()) {
        Some(dir) => (absolute(Path::new(dir))?, None),
        None => {
            let chosen = crate::locate::fresh_run_dir()?;
            (chosen.path, chosen.note)
        }
    };
    let wish = config::Demo { data_dir: &data_dir, run_dir: &run_dir, listen };
    let plan = config::demo(&wish).map_err(|faults| faulty(&faults))?;
    Ok((plan, note))
}

/// One thread serves a device; it is measured to be enough, and every thread costs a stack.
fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::fault(format!("the asynchronous runtime does not start: {e}")))?
        .block_on(work)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::usage(format!("{} is no path: {e}", path.display())))
}

/// As named, as `EDGEKEEP_CONFIG` names it, or in its usual place.
pub(super) fn config_file(named: Option<&Path>) -> PathBuf {
    let file = named.map(Path::to_owned).or_else(|| std::env::var_os("EDGEKEEP_CONFIG").map(PathBuf::from));
    file.unwrap_or_else(|| CONFIG_FILE.into())
}

/// Reads a configuration, or says all that is wrong with it.
pub(super) fn load(file: &Path, edgex: Option<&Path>, data_dir: Option<&Path>) -> Result<Config, Failure> {
    let (edgex, data_dir) = (edgex.map(absolute).transpose()?, data_dir.map(absolute).transpose()?);
    if matches!(OsDisk.meta(file), Ok(None)) {
        return Err(Failure::usage(format!("there is no configuration at {}; nothing was done", file.display()))
            .hint("`edgekeep setup` writes one; `edgekeep up --demo` needs none"));
    }
    let environment = crate::locate::environment();
    let inputs = Inputs {
        disk: &OsDisk,
        environment: &environment,
        uid: crate::process::uid(),
        file,
        edgex_dir: edgex.as_deref(),
        data_dir: data_dir.as_deref(),
        terminal: crate::output::is_terminal(),
    };
    config::load(&inputs).map_err(|faults| faulty(&faults))
}

/// All faults on standard error, and their number.
pub(super) fn faulty(faults: &Faults) -> Failure {
    let count = faults.as_slice().len();
    crate::output::error(&faults.to_string());
    let word = if count == 1 { "fault" } else { "faults" };
    Failure::usage(format!("{count} {word} in the configuration; nothing was done"))
        .hint("each is shown above with its place and its remedy")
}

/// Where a configuration is looked for.
pub(super) const CONFIG_FILE: &str = "/etc/edgekeep/edgekeep.toml";
const DEMO_DIR: &str = "edgekeep-data";
