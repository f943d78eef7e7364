//! The bare server beside which edgekeep is measured: TLS, HTTP and 400 bytes, nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use host::{Disk, OsDisk, OsEntropy};
use pki::{Ca, Scope, ServerNames};

use super::aes::Aes;
use super::process::Owned;
use super::tls::Client;

pub(super) struct Hello {
    program: PathBuf,
    dir: tempfile::TempDir,
    client: Client,
}

impl Hello {
    /// With a certificate such as a device has.
    pub(super) fn new(program: &Path, on: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(on)?;
        let ca = Ca::create(&Scope::Any, &OsEntropy)?;
        let server =
            ca.issue_server(&ServerNames::parse([ADDRESS.split(':').next().unwrap_or_default()])?, &OsEntropy)?;
        let keep = |name: &str, text: &str| OsDisk.replace(&dir.path().join(name), text.as_bytes(), 0o600, None);
        keep("ca.pem", &ca.pem())?;
        keep("server.pem", &pem("CERTIFICATE", server.der()))?;
        keep("server.key", &pem("PRIVATE KEY", server.key().expose_pkcs8()))?;
        let client = Client::trusting(&dir.path().join("ca.pem"))?;
        Ok(Self { program: program.to_owned(), dir, client })
    }

    /// Milliseconds from exec to the first 200.
    pub(super) fn first_answer(&self, aes: Aes) -> Result<f64> {
        let mut command = Command::new(&self.program);
        command.arg(ADDRESS).args([self.dir.path().join("server.pem"), self.dir.path().join("server.key")]);
        aes.set(command.env_clear()).stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let _server = Owned(command.spawn().with_context(|| self.program.display().to_string())?);
        let address: SocketAddr = ADDRESS.parse()?;
        Ok(self.client.first_answer(address)?.duration_since(begun).as_secs_f64() * 1e3)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

const ADDRESS: &str = "127.83.84.1:8201";
