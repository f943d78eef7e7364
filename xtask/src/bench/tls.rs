//! The client whose first answer is waited for: one for both servers, so that its own time falls out of the difference.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Who trusts one CA.
#[derive(Clone)]
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    pub(super) fn trusting(ca: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).with_context(|| ca.display().to_string())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every handshake is a full one, as a client's first is.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The moment of the first 200. Asks again and again, as a client does that starts with its server.
    pub(super) fn first_answer(&self, address: SocketAddr) -> Result<Instant> {
        let begun = Instant::now();
        loop {
            match self.ask(address, "GET", "/v1/sys/health", None) {
                Ok(200) => return Ok(Instant::now()),
                other if begun.elapsed() > PATIENCE => bail!("no 200 from {address}: {other:?}"),
                // A short rest leaves the core to the server.
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// One request over a connection of its own; the status.
    pub(super) fn ask(&self, address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> Result<u16> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(Arc::clone(&self.0), address.ip().into())?;
        let mut stream = StreamOwned::new(connection, tcp);
        let token = token.map(|t| format!("X-Vault-Token: {t}\r\n")).unwrap_or_default();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        ensure!(head.starts_with(b"HTTP/1.1 "), "not HTTP: {head:?}");
        Ok(std::str::from_utf8(&head[9..])?.parse()?)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
