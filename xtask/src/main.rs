//! `cargo xtask`: the repository's own commands.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptance;
mod bench;
mod floors;
mod foreign;
mod release;
mod testlog;
mod threats;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask floors               a crate uses only the floors below it, and no other C library comes into the executables
cargo xtask threats [LOG]        every threat is tested (by tests that passed in LOG), accepted or open
cargo xtask threats --bite [ID]  the same tests with their mitigation switched off: each must fail
cargo xtask release [TARGET]     the static executable and the helper ikm-pkcs11, checked for size and for what they must not hold:
                                 --root DIR lays out a package or image, --check runs it in containers FROM scratch, or for
                                 another processor by qemu
cargo xtask bench boot [OPTIONS] first and later boots beside a bare TLS server: --rounds N, --quick, --strict,
                                 --dir DIR (on the disk to be measured), --artefact FILE --hello FILE
cargo xtask bench calls --artefact FILE --against FILE
                                 processor time of a call, one build beside another: --rounds N, --calls N, --dir DIR
cargo xtask bench sources --artefact FILE --helper FILE
                                 a release from each key source, with the start of the process: --rounds N, --strict
cargo xtask bench build          a cold build of the workspace: --strict
cargo xtask acceptance [LOG]     demands of EdgeX's documents against the ways of running
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["floors"] => floors::check().and_then(|()| foreign::check()),
        ["threats", "--bite", rest @ ..] => threats::bite(rest.first().copied()),
        ["threats", rest @ ..] => threats::check(rest.first().copied()),
        ["release", rest @ ..] => release::release(rest),
        ["bench", "boot", rest @ ..] => bench::boot(rest),
        ["bench", "calls", rest @ ..] => bench::calls(rest),
        ["bench", "sources", rest @ ..] => bench::sources(rest),
        ["bench", "build", rest @ ..] => bench::build(rest),
        ["bench", bench::PCR_READ, socket] => bench::pcr_read(socket),
        ["bench", bench::AES_RATE] => bench::aes_rate(),
        ["acceptance", rest @ ..] => acceptance::print(rest.first().copied()),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root, wherever the command was called.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}
