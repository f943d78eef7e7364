//! `edgekeep up`: the whole road from a bare device to provisioned services, in one command.

mod check;

use std::path::{Path, PathBuf};

use clap::Args;
use config::{Config, Inputs};
use host::{Disk, OsDisk};

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
    /// Print the whole plan and change nothing.
    #[arg(long)]
    check: bool,
    /// A directory with EdgeX's own files, in place of [edgex] config_dir.
    #[arg(long, value_name = "DIR")]
    edgex_config: Option<PathBuf>,
    /// Where the store is kept, in place of data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the demo listens, if 127.0.0.1:8200 is taken.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "demo")]
    listen: Option<String>,
}

pub(super) fn run(up: Up) -> Result<(), Failure> {
    let file = up.config.clone().or_else(|| std::env::var_os("EDGEKEEP_CONFIG").map(PathBuf::from));
    let file = file.unwrap_or_else(|| CONFIG_FILE.into());
    let config = load(&file, up.edgex_config.as_deref(), up.data_dir.as_deref())?;
    if up.check {
        crate::output::line(&check::text(&config, &file));
        return Ok(());
    }
    Err(Failure::fault("not wired yet"))
}

/// Reads a configuration, or says all that is wrong with it.
pub(super) fn load(file: &Path, edgex: Option<&Path>, data_dir: Option<&Path>) -> Result<Config, Failure> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|e| Failure::usage(format!("{} is no path: {e}", path.display())))
    };
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
    config::load(&inputs).map_err(|faults| {
        let count = faults.as_slice().len();
        crate::output::error(&faults.to_string());
        Failure::usage(format!(
            "{count} {} in the configuration; nothing was done",
            if count == 1 { "fault" } else { "faults" }
        ))
        .hint("each is shown above with its place and its remedy")
    })
}

/// Where a configuration is looked for.
pub(super) const CONFIG_FILE: &str = "/etc/edgekeep/edgekeep.toml";
