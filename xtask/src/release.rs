//! The release artefacts: one static executable, and the dynamic helper beside it; checked for what they claim.
//!
//! ```text
//! edgekeep     TARGET, mostly musl    static: any kernel, no library, also FROM scratch
//! ikm-pkcs11   the same, by glibc     dynamic: it loads a vendor's module, which is made for glibc
//! ```
//! For another processor both come from Debian's cross compiler and its glibc, edgekeep static all the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// design: the executable is at most 12 MB.
pub(crate) const MAX_BYTES: u64 = 12 * 1000 * 1000;

/// `release [TARGET] [--root DIR] [--check]`
pub(crate) fn release(words: &[&str]) -> Result<()> {
    let (mut target, mut root, mut check) = ("x86_64-unknown-linux-musl", None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--root" => root = Some(words.next().context("--root needs a directory")?),
            "--check" => check = true,
            word if word.starts_with('-') => bail!("{word} is unknown: release [TARGET] [--root DIR] [--check]"),
            word => target = word,
        }
    }
    let (executable, helper) = (executable(target)?, helper(target)?);
    if let Some(root) = root {
        let layout = crate::root().join("packaging/layout.sh");
        let status = Command::new(layout).arg(root).arg(&executable).arg(&helper).status().context("layout.sh")?;
        ensure!(status.success(), "{root} could not be laid out");
    }
    match (check, is_foreign(target)) {
        (false, _) => Ok(()),
        (true, false) => passes("containers::", "EDGEKEEP_ARTEFACT", &executable),
        (true, true) => passes("processors::", "EDGEKEEP_FOREIGN", &executable),
    }
}

/// Builds the executable, and fails if it is dynamic, too large, or can switch mitigations off.
fn executable(target: &str) -> Result<PathBuf> {
    let artefact = artefact(target)?;
    let bytes = read(&artefact)?;
    ensure!(!is_dynamic(&bytes), "{} asks for a dynamic loader", artefact.display());
    ensure!(bytes.len() as u64 <= MAX_BYTES, "{} bytes, more than {MAX_BYTES}", bytes.len());
    println!("release: {} {} bytes, static", artefact.display(), bytes.len());
    Ok(artefact)
}

/// Builds the helper, and fails if it could load no module, or can switch mitigations off.
fn helper(target: &str) -> Result<PathBuf> {
    let helper = dist(
        &target.replace("-musl", "-gnu"),
        &["--package", "edgekeep-ikm-pkcs11", "--bin", "ikm-pkcs11"],
        "ikm-pkcs11",
    )?;
    let bytes = read(&helper)?;
    ensure!(is_dynamic(&bytes), "{} is static: it could not load a vendor's module", helper.display());
    let glibc = newest_glibc(&bytes).context("a dynamic helper names no version of glibc")?;
    println!("release: {} {} bytes, dynamic, glibc 2.{glibc} or later", helper.display(), bytes.len());
    Ok(helper)
}

/// A file of what is released; one that knows how to switch mitigations off is none.
fn read(artefact: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(artefact).with_context(|| artefact.display().to_string())?;
    let bites = bytes.windows(13).any(|w| w == b"EDGEKEEP_BITE");
    ensure!(!bites, "{} was built with the test-only feature `bite`", artefact.display());
    Ok(bytes)
}

/// Runs these tests with what was built, in place of the executable of the tests.
fn passes(tests: &str, named_by: &str, executable: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut run = Command::new(cargo);
    run.current_dir(crate::root()).args(["test", "--package", "edgekeep", "--test", "e2e", tests]);
    let status = run.env(named_by, executable).status().context("cargo test")?;
    ensure!(status.success(), "{} does not do what it should: see the tests {tests}", executable.display());
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
    let static_by_glibc = made == "edgekeep" && target.contains("-gnu");
    // Where rustup does not manage the toolchain the build below says what is missing.
    let _installed = Command::new("rustup").args(["target", "add", target]).output();
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(crate::root())
        .args(["rustc", "--profile", "dist", "--target", target])
        .args(what)
        // Keys come from getrandom(2) alone, as `host::OsEntropy` takes them. aws-lc's own second source measures the
        // jitter of the processor for 0.1 to 0.2 s in every process, before its first handshake or key.
        .env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1")
        .envs(if is_foreign(target) { cross(target)? } else { Vec::new() })
        // For every crate, not the last alone: libc's links by it.
        .envs(static_by_glibc.then(|| (of_target(target, "RUSTFLAGS"), "-C target-feature=+crt-static".to_owned())))
        // Of a profile's `strip` cargo makes `debuginfo` where the profile of the executable's own package is
        // overridden. Relative relocations packed (DT_RELR, which musl applies to itself since 1.2.4): a third of a
        // megabyte.
        .args(["--", "-C", "strip=symbols"])
        // Not for a dynamic one: older libraries of the system do not read it.
        .args(if target.ends_with("-musl") { &["-C", "link-arg=-Wl,-z,pack-relative-relocs"][..] } else { &[] })
        .status()
        .context("cargo rustc")?;
    ensure!(status.success(), "{made} could not be built for {target}");
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    Ok(folder.join(target).join("dist").join(made))
}

/// Whether it is made for another processor than the one that this runs on.
fn is_foreign(target: &str) -> bool {
    target.split('-').next() != Some(std::env::consts::ARCH)
}

/// Debian's cross compiler, as linker and for what is C.
fn cross(target: &str) -> Result<Vec<(String, String)>> {
    let system = target.replace("-unknown-", "-").replace("armv7", "arm");
    let gcc = format!("{system}-gcc");
    if Command::new(&gcc).arg("--version").output().is_err() {
        bail!("{gcc} is missing: apt-get install gcc-{system}");
    }
    Ok(vec![(of_target(target, "LINKER"), gcc.clone()), (format!("CC_{}", target.replace('-', "_")), gcc)])
}

/// cargo's name for a setting of this target alone.
fn of_target(target: &str, setting: &str) -> String {
    format!("CARGO_TARGET_{}_{setting}", target.replace('-', "_").to_uppercase())
}

/// Whether an ELF file has a PT_INTERP segment (System V gABI, program header type 3).
fn is_dynamic(elf: &[u8]) -> bool {
    let word =
        |at: usize, n: usize| elf.get(at..at + n).map(|b| b.iter().rev().fold(0usize, |v, x| v << 8 | usize::from(*x)));
    // Of another class or byte order than 64-bit little-endian the table lies elsewhere: 32-bit ones have it at 28, 42,
    // 44.
    let wide = elf.get(4) == Some(&2);
    let [table, size, count] =
        if wide { [word(32, 8), word(54, 2), word(56, 2)] } else { [word(28, 4), word(42, 2), word(44, 2)] };
    let (Some(table), Some(size), Some(count)) = (table, size, count) else { return false };
    elf.starts_with(b"\x7fELF") && (0..count).any(|i| word(table + i * size, 4) == Some(3))
}

/// The newest 2.N of glibc of which an ELF file asks for symbols.
fn newest_glibc(elf: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"GLIBC_2.";
    let digits = |at: usize| elf[at + NAME.len()..].iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b));
    let named = elf.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    named.filter_map(|(at, _)| digits(at).collect::<String>().parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_dynamic_test_is_not_static() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_dynamic(&me));
        assert!(!is_dynamic(b"#!/bin/sh"));
        assert!(newest_glibc(&me).is_some_and(|minor| minor >= 17), "Rust's own least");
        assert_eq!(newest_glibc(b"GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE"), Some(34));
    }
    #[test]
    fn another_processor_is_told_by_the_target() {
        assert!(!is_foreign(&format!("{}-unknown-linux-musl", std::env::consts::ARCH)));
        assert!(is_foreign("mips-unknown-linux-musl"));
        assert_eq!(of_target("aarch64-unknown-linux-gnu", "LINKER"), "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
    }
}
