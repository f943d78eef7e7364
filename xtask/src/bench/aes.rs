//! A processor without instructions for AES, as small boards have: they are masked, and seen to be.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Which instructions a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aes {
    /// All that the processor has.
    Instructions,
    /// None for AES or for carry-less multiplication.
    Masked,
}

impl Aes {
    pub(super) fn set(self, command: &mut Command) -> &mut Command {
        match self {
            Self::Instructions => command,
            Self::Masked => command.env("OPENSSL_ia32cap", MASK),
        }
    }
}

/// Megabytes per second of AES-256-GCM in this process, at its best.
pub(super) fn rate() -> Result<f64> {
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new).ok().context("a key of 32 bytes")?;
    let mut bytes = vec![0; 1 << 20];
    let mut best = 0.0;
    for n in 0..ROUNDS {
        let begun = Instant::now();
        let mut nonce = [0; 12];
        nonce[0] = n;
        let sealed = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes);
        let _tag = sealed.ok().context("AES-256-GCM")?;
        best = f64::max(best, bytes.len() as f64 / 1e6 / begun.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The rates without and with the mask, each in a process of its own: the library looks at the processor once.
///
/// # Errors
/// If the mask slows nothing down, for then a "masked" figure would be a lie.
pub(super) fn rates() -> Result<(f64, f64)> {
    let rate = |aes: Aes| -> Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", super::AES_RATE]).env_remove("OPENSSL_ia32cap");
        let output = aes.set(&mut command).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    let (plain, masked) = (rate(Aes::Instructions)?, rate(Aes::Masked)?);
    ensure!(masked * 2.0 < plain, "OPENSSL_ia32cap masks nothing here: {plain:.0} and {masked:.0} MB/s");
    Ok((plain, masked))
}

/// OPENSSL_ia32cap(3), as aws-lc's cpu_intel.c reads it: CPUID 1 ECX bits 1 (PCLMULQDQ) and 25 (AES); CPUID 7 ECX bits
/// 9 (VAES) and 10 (VPCLMULQDQ).
const MASK: &str = "~0x0200000200000000:~0x0000060000000000";
const ROUNDS: u8 = 8;
