//! The release artefact: one static executable, checked for what it claims.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// design: the executable is at most 12 MB.
pub(crate) const MAX_BYTES: u64 = 12 * 1000 * 1000;

/// Builds the artefact for `target`, and fails if it is dynamic, too large, or can switch mitigations off.
pub(crate) fn build(target: Option<&str>) -> Result<()> {
    let target = target.unwrap_or("x86_64-unknown-linux-musl");
    let artefact = artefact(target)?;
    let bytes = std::fs::read(&artefact)?;
    ensure!(is_static(&bytes), "{} asks for a dynamic loader", artefact.display());
    ensure!(
        !bytes.windows(13).any(|w| w == b"EDGEKEEP_BITE"),
        "{} was built with the test-only feature `bite`",
        artefact.display()
    );
    ensure!(bytes.len() as u64 <= MAX_BYTES, "{} bytes, more than {MAX_BYTES}", bytes.len());
    println!("release: {} {} bytes, static", artefact.display(), bytes.len());
    Ok(())
}

/// Builds with the profile `dist` and gives the path of the executable.
pub(crate) fn artefact(target: &str) -> Result<PathBuf> {
    dist(target, &["--package", "edgekeep", "--bin", "edgekeep"], "edgekeep")
}

/// Builds one executable with the profile `dist`; `made` is where it lies below the profile's folder.
pub(crate) fn dist(target: &str, what: &[&str], made: &str) -> Result<PathBuf> {
    if target.ends_with("-musl") && Command::new("musl-gcc").arg("--version").output().is_err() {
        bail!("musl-gcc is missing (C parts are compiled for the target): apt-get install musl-tools");
    }
    // Where rustup does not manage the toolchain the build below says what is missing.
    let _installed = Command::new("rustup").args(["target", "add", target]).output();
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(crate::root())
        .args(["rustc", "--profile", "dist", "--target", target])
        .args(what)
        // Keys come from getrandom(2) alone, as `host::OsEntropy` takes them. aws-lc's own second source measures the jitter
        // of the processor for 0.1 to 0.2 s in every process, before its first handshake or key.
        .env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1")
        // Of a profile's `strip` cargo makes `debuginfo` where the profile of the executable's own package is overridden.
        // Relative relocations packed (DT_RELR, which musl applies to itself since 1.2.4): a third of a megabyte.
        .args(["--", "-C", "strip=symbols"])
        // Not for a dynamic one: older libraries of the system do not read it.
        .args(if target.ends_with("-musl") { &["-C", "link-arg=-Wl,-z,pack-relative-relocs"][..] } else { &[] })
        .status()
        .context("cargo rustc")?;
    ensure!(status.success(), "{made} could not be built for {target}");
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    Ok(folder.join(target).join("dist").join(made))
}

/// Whether an ELF file has no PT_INTERP segment (System V gABI, program header type 3).
fn is_static(elf: &[u8]) -> bool {
    let word =
        |at: usize, n: usize| elf.get(at..at + n).map(|b| b.iter().rev().fold(0usize, |v, x| v << 8 | usize::from(*x)));
    let (Some(table), Some(size), Some(count)) = (word(32, 8), word(54, 2), word(56, 2)) else { return false };
    elf.starts_with(b"\x7fELF\x02\x01") && (0..count).all(|i| word(table + i * size, 4).is_some_and(|kind| kind != 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_dynamic_test_is_not_static() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&me));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
