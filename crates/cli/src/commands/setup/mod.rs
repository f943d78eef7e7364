//! `edgekeep setup`: what this device has, and an edgekeep.toml to begin with.

mod probe;
mod template;

use std::path::{Path, PathBuf};

use clap::Args;
use delivery::OsMedium;
use host::{Disk, OsClock, OsDisk};

use crate::failure::Failure;

/// Example: edgekeep setup --edgex-config /etc/edgex --out /etc/edgekeep/edgekeep.toml
#[derive(Args)]
pub(crate) struct Setup {
    /// A directory with EdgeX's own files (res/, res-file-token-provider/): its services are taken over.
    #[arg(long, value_name = "DIR")]
    edgex_config: Option<PathBuf>,
    /// Where to write; /etc/edgekeep/edgekeep.toml for root, ./edgekeep.toml for others.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(setup: &Setup) -> Result<(), Failure> {
    let uid = crate::process::uid();
    let out = match &setup.out {
        Some(out) => out.clone(),
        None if uid == 0 => PathBuf::from(super::up::CONFIG_FILE),
        None => PathBuf::from("edgekeep.toml"),
    };
    let edgex = setup.edgex_config.as_deref().map(absolute).transpose()?;
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let environment = crate::locate::environment();
    let found = probe::Findings::of(&OsDisk, &OsMedium, &clock, &environment, Path::new("/"));
    write(&OsDisk, &out, template::text(&found, edgex.as_deref()).as_bytes(), setup.force)?;
    let mut lines = found.lines();
    lines.push(format!(
        "wrote {}; next: edit it, then `edgekeep up --check --config {}`",
        out.display(),
        out.display()
    ));
    crate::output::line(&lines.join("\n"));
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::usage(format!("{} is no path: {e}", path.display())))
}

/// A configuration that somebody edited is worth more than one that was made in a second.
fn write(disk: &dyn Disk, out: &Path, text: &[u8], force: bool) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::fault(format!("cannot write {}: {e}", out.display()));
    let there = disk.meta(out).map_err(failed)?.is_some();
    if there && !force {
        return Err(Failure::usage(format!("{} is there already; nothing was written", out.display()))
            .hint("name another file with --out, or write over this one with --force"));
    }
    if let Some(dir) = out.parent().filter(|d| !d.as_os_str().is_empty())
        && disk.meta(dir).map_err(failed)?.is_none()
    {
        disk.create_dir(dir, 0o755).map_err(failed)?;
    }
    disk.replace(out, text, 0o644, None).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn a_file_that_is_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("etc/edgekeep.toml");
        write(&OsDisk, &out, b"one", false).unwrap();
        assert_eq!(write(&OsDisk, &out, b"two", false).unwrap_err().code, Code::Usage);
        assert_eq!(&OsDisk.read(&out, 10).unwrap()[..], b"one");
        write(&OsDisk, &out, b"two", true).unwrap();
        assert_eq!(&OsDisk.read(&out, 10).unwrap()[..], b"two");
    }
}
