//! `cargo xtask bench build`: how long a cold build of the workspace takes, in a target directory of its own.
//!
//! The one figure without a peer beside it: what it is held to is a length of time that somebody waits. So it says what
//! the machine was busy with.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// On two idle cores, with the registry's sources there already.
const LIMIT: Duration = Duration::from_secs(8 * 60);

/// Builds, prints, and fails under `--strict` if the limit is missed.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let strict = match arguments {
        [] => false,
        ["--strict"] => true,
        _ => bail!("cargo xtask bench build [--strict]"),
    };
    let directory = tempfile::tempdir_in(crate::root().join("target")).context("a directory below target/")?;
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let fetched = cargo().args(["fetch", "--locked"]).current_dir(crate::root()).status()?;
    ensure!(fetched.success(), "cargo fetch: {fetched}");
    let before = load()?;
    let began = Instant::now();
    let status = cargo()
        .args(["build", "--release", "--workspace", "--locked", "--offline"])
        .env("CARGO_TARGET_DIR", directory.path())
        .current_dir(crate::root())
        .status()?;
    let took = began.elapsed();
    ensure!(status.success(), "cargo build: {status}");
    let cores = std::thread::available_parallelism()?;
    let holds = took <= LIMIT;
    println!(
        "cold build of the workspace: {} min {} s on {cores} cores (load {before} when it began); limit {} min, {}",
        took.as_secs() / 60,
        took.as_secs() % 60,
        LIMIT.as_secs() / 60,
        if holds { "holds" } else { "MISSED" }
    );
    ensure!(holds || !strict, "the build takes longer than its limit");
    Ok(())
}

/// Of the last minute (proc_loadavg(5)).
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or("?").to_owned())
}
