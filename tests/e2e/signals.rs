//! SIGHUP and SIGTERM to a device that serves.

use std::path::Path;
use std::process::Command;

use api::{ApiPath, Operation, Request};
use base64::Engine;
use client::{Deadlines, HttpsVault, Trust, Vault};
use host::OsEntropy;
use pki::{Ca, Scope, ServerNames};

use crate::device::Device;
use crate::part;

/// An operator's certificate is shown anew after SIGHUP. A configuration or a certificate that has become unreadable
/// changes nothing: what was in force stays so, and the log says why.
#[test]
fn hangup_shows_the_new_certificate_and_no_broken_one() {
    let mut device = Device::with_services(&["sensor"]);
    let (certificate, key) = (device.dir().join("server.pem"), device.dir().join("server.key"));
    let ip = device.ip.clone();
    let listen = format!("address = \"{ip}:8200\"\ntls_certificate = {certificate:?}\ntls_key = {key:?}\n");
    device.replace_section("listen", &listen);
    let (first, second) = (Operator::new(&ip), Operator::new(&ip));
    first.install(&certificate, &key);
    device.up();
    assert!(first.is_shown(&ip) && !second.is_shown(&ip));

    second.install(&certificate, &key);
    hangup(&device);
    part::until(|| second.is_shown(&ip), || device.said());
    assert!(!first.is_shown(&ip));

    // Of two pairs.
    put(&certificate, &first.certificate);
    hangup(&device);
    part::until(|| device.said().contains("the certificate stays as it was"), || device.said());
    second.install(&certificate, &key);
    let good = std::fs::read_to_string(device.config()).unwrap();
    put(&device.config(), &format!("{good}\n[[service\n"));
    hangup(&device);
    part::until(|| device.said().contains("the configuration stays as it was"), || device.said());
    assert!(second.is_shown(&ip), "and it serves on");
    put(&device.config(), &format!("{good}\n[[service]]\nname = \"late\"\n"));
    hangup(&device);
    part::until(|| device.said().contains("all other changes wait for a restart"), || device.said());
    assert!(!device.secrets_dir().join("late").exists());
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert!(device.secrets_dir().join("late").exists(), "after a restart the new service is provided for");
}

/// SIGTERM ends it with 0 though clients hold connections; gates shut with it, and tokens stay alive for the next
/// start.
#[test]
fn terminate_drains_shuts_and_keeps_tokens() {
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let token = device.token("sensor");
    let idle: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect((device.ip.as_str(), 8200)).unwrap()).collect();
    #[allow(clippy::disallowed_methods)] // a real process's time
    let begun = std::time::Instant::now();
    assert_eq!(device.stop(), Some(0));
    // Without the drain's deadline of 5 s it would wait for their handshakes' of 10 s.
    assert!(begun.elapsed().as_secs() < 10 || !testkit::are_figures_held(), "{:?}", begun.elapsed());
    drop(idle);
    assert_eq!(device.wait(&["--gate", "ready-to-run", "--timeout", "0"]).0, Some(2));
    device.up();
    assert_eq!(device.token("sensor"), token);
    assert!(device.as_service("sensor", &["token", "lookup"]).status.success());
}

/// An operator's own CA, and a certificate of it.
struct Operator {
    ca: String,
    certificate: String,
    key: String,
}

impl Operator {
    fn new(name: &str) -> Self {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let server = ca.issue_server(&ServerNames::parse([name]).unwrap(), &OsEntropy).unwrap();
        let key = pem("PRIVATE KEY", server.key().expose_pkcs8());
        Self { ca: ca.pem(), certificate: pem("CERTIFICATE", server.der()), key }
    }

    fn install(&self, certificate: &Path, key: &Path) {
        put(certificate, &self.certificate);
        put(key, &self.key);
    }

    /// Whether the device's listener has this certificate now.
    fn is_shown(&self, ip: &str) -> bool {
        let trust = Trust::of_pem(self.ca.as_bytes()).unwrap();
        let vault = HttpsVault::new(ip, 8200, &trust, Deadlines::default()).unwrap();
        let request = Request::new(Operation::Read, ApiPath::parse("sys/health").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(vault.call(request)).is_ok()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn hangup(device: &Device) {
    part::must(Command::new("kill").args(["-HUP", &device.pid().to_string()]));
}

#[allow(clippy::disallowed_methods)]
fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
