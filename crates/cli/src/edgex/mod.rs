//! EdgeX's security programs as faces of this executable: their names, flags, files and exit codes. What they do is
//! done by the floors below; nothing here is needed by another face.

mod bootstrapper;
mod child;
mod face;
mod go_flags;
mod setup;
mod token_provider;

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use bootstrapper::Entry;
pub(crate) use face::Where;

use crate::failure::Failure;

/// Runs the program that the process is called as; `arguments` begin with that name.
pub(crate) fn run(face: &str, arguments: Vec<OsString>) -> ExitCode {
    match face {
        "security-bootstrapper" => bootstrapper::run(arguments),
        "security-secretstore-setup" => setup::run(arguments),
        "security-file-token-provider" => token_provider::run(arguments),
        _ => crate::failure::report(&crate::faces::refuse(face)),
    }
}

/// `edgekeep seal encrypt-existing`: EdgeX's key shares, wrapped under the hook and replaced. `former` is the hook of
/// before.
pub(crate) fn encrypt_existing(at: &Where, former: Option<&str>) -> Result<(), Failure> {
    crate::process::log("info");
    crate::process::lock_memory();
    let ground = face::Ground::of_process()?;
    face::until_signal(async |stop| setup::encrypt(&ground, at, former, &stop).await)
}

/// `edgekeep seal decrypt-existing`: EdgeX's key shares, back in clear.
pub(crate) fn decrypt_existing(at: &Where) -> Result<(), Failure> {
    crate::process::log("info");
    crate::process::lock_memory();
    setup::decrypt(&face::Ground::of_process()?, at)
}

/// `edgekeep entry`: what the shell scripts of EdgeX's images do.
pub(crate) fn entry(entry: Entry) -> Result<(), Failure> {
    bootstrapper::entry(entry)
}
