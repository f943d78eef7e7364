//! The real OpenBao (`bao` of the Python environment that scripts/test.sh makes), behind TLS, with an audit file: the
//! holder of other devices' keys.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bao_server::BaoServer;
use crate::site_ca::{Pair, SiteCa};

/// A server in memory, unsealed; gone when it is dropped.
pub struct Bao {
    server: BaoServer,
    host: String,
    ca: SiteCa,
    unseal_key: String,
    root_token: String,
}

impl Bao {
    /// Starts a server, initialised and unsealed.
    ///
    /// # Panics
    /// If OpenBao is not installed, by name, or does not start.
    pub fn start() -> Self {
        let (mut server, ca) = (BaoServer::new(), SiteCa::new());
        let host = server.ip().to_string();
        let Pair { certificate, key } = ca.server(&host);
        for (name, text) in [(CA, ca.pem()), ("server.pem", &certificate), ("server.key", &key)] {
            server.put(name, text);
        }
        server.start(&format!(
            "storage \"inmem\" {{}}\n\
             listener \"tcp\" {{\n address = \"{host}:{PORT}\"\n tls_cert_file = {:?}\n tls_key_file = {:?}\n}}\n\
             audit \"file\" \"to-file\" {{ options {{ file_path = {:?} }} }}\n\
             api_addr = \"https://{host}:{PORT}\"\n",
            server.at("server.pem"),
            server.at("server.key"),
            server.at(AUDIT),
        ));
        server.until_it_listens(PORT);
        let mut bao = Self { server, host, ca, unseal_key: String::new(), root_token: String::new() };
        let made = bao.bao(&["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"], "");
        let field = |name: &str| {
            let (_, rest) = made.split_once(&format!("\"{name}\"")).expect("init gives it");
            let rest = &rest[rest.find(':').expect("a value follows")..];
            rest.split('"').nth(1).expect("a text").to_owned()
        };
        (bao.unseal_key, bao.root_token) = (field("unseal_keys_b64"), field("root_token"));
        bao.unseal();
        bao
    }

    /// Its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The CA of its own certificate, and of devices' certificates.
    pub fn ca_file(&self) -> PathBuf {
        self.server.at(CA)
    }

    /// What it wrote into its audit.
    pub fn audit(&self) -> String {
        fs::read_to_string(self.server.at(AUDIT)).unwrap_or_default()
    }

    /// A certificate of the site's CA for this device: PEM, and its private key.
    pub fn device(&self, name: &str) -> (String, String) {
        let Pair { certificate, key } = self.ca.device(name);
        (certificate, key)
    }

    /// Runs the real command as root, with this text on its standard input; what it printed.
    ///
    /// # Panics
    /// If it fails, with what it said.
    pub fn bao(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(BaoServer::program())
            .args(arguments)
            .env_clear()
            .env("HOME", self.server.at(""))
            .env("BAO_ADDR", format!("https://{}:{PORT}", self.host))
            .env("BAO_CACERT", self.ca_file())
            .env("BAO_TOKEN", &self.root_token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bao runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("bao ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bao {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Seals it.
    pub fn seal(&self) {
        self.bao(&["operator", "seal"], "");
    }

    /// Unseals it.
    pub fn unseal(&self) {
        self.bao(&["operator", "unseal", &self.unseal_key], "");
    }

    /// Ends it, as a power cut does.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// It takes connections and says nothing, until [`Bao::wakes`].
    pub fn sleeps(&self) {
        self.server.signal("-STOP");
    }

    /// It goes on.
    pub fn wakes(&self) {
        self.server.signal("-CONT");
    }
}

const CA: &str = "ca.pem";
const AUDIT: &str = "audit.log";
/// Not that of devices of the same address.
const PORT: u16 = 8300;
