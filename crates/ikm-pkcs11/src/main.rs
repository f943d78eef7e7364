//! `ikm-pkcs11`: gives edgekeep key material from a smart card or HSM, through its vendor's PKCS #11 module.
//!
//! The module is foreign C code. It is loaded here and nowhere else, in a process that does one thing and ends: read
//! one request (crate `ikm`), answer it, be gone. It holds the PIN and the key material for milliseconds, is not
//! dumpable, and whatever the module does to it, it does not do to the store.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod keys;
mod serve;
mod token;

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use host::OsEntropy;
use ikm::{MAX_MESSAGE_BYTES, Refusal, Reply, Request};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::stdio::{dup2_stdout, stderr};
use zeroize::Zeroizing;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ikm-pkcs11: {e}");
            ExitCode::from(70)
        }
    }
}

fn run() -> io::Result<()> {
    harden()?;
    let mut output = keep_stdout()?;
    let mut message = Zeroizing::new(Vec::with_capacity(MAX_MESSAGE_BYTES + 1));
    io::stdin().lock().take(MAX_MESSAGE_BYTES as u64 + 1).read_to_end(&mut message)?;
    let reply = match Request::parse(&message) {
        Ok(request) => serve::serve(request, &OsEntropy),
        Err(e) => Reply::refused(Refusal::Request, &e.to_string()),
    };
    output.write_all(&reply.to_bytes())
}

/// No core file, and no look into the memory by others of this user (prctl(2), PR_SET_DUMPABLE).
fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// The standard output, for the reply alone: what the module prints goes where complaints go.
fn keep_stdout() -> io::Result<File> {
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    dup2_stdout(stderr())?;
    Ok(output.into())
}
