//! The client whose first answer is waited for: one for both servers, so that its own time falls out of the difference.

use std::io::{BufRead, BufReader, Read, Write};
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
        self.connect(address)?.call(method, path, token, "")
    }

    /// A connection; the handshake is made with the first call.
    pub(super) fn connect(&self, address: SocketAddr) -> Result<Connection> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(Arc::clone(&self.0), address.ip().into())?;
        Ok(Connection { address, stream: BufReader::new(StreamOwned::new(connection, tcp)) })
    }
}

/// A connection that is kept for one call after the other.
pub(super) struct Connection {
    address: SocketAddr,
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Connection {
    /// One call, its answer read to the end; the status.
    pub(super) fn call(&mut self, method: &str, path: &str, token: Option<&str>, body: &str) -> Result<u16> {
        let (address, length) = (self.address, body.len());
        let token = token.map(|t| format!("X-Vault-Token: {t}\r\n")).unwrap_or_default();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", _)) => bail!("an answer without a length: {path}"),
                Some(_) => {}
            }
        }
        std::io::copy(&mut self.stream.by_ref().take(length), &mut std::io::sink())?;
        status.with_context(|| format!("not HTTP: {first:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the connection ended");
        Ok(line.trim_end().to_owned())
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
