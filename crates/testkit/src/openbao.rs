//! The real OpenBao, behind TLS, with an address, a CA and a storage of its own for each test.
//!
//! The test is its operator: it is made and unsealed by [`OpenBao::make`], and dies and comes back as the test says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::{ApiPath, Body, Operation, Payload, Request};
use base64::Engine as _;
use client::{Deadlines, HttpsVault, Trust, Vault};
use pki::{Ca, Scope, ServerNames};
use secret::Token;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::SeededEntropy;

/// A server; killed when it is dropped.
pub struct OpenBao {
    dir: tempfile::TempDir,
    address: SocketAddr,
    name: String,
    child: Option<Child>,
    root: Option<String>,
    shares: Vec<String>,
}

impl OpenBao {
    /// A server at an address that no other test has, with a certificate for that address. It is not initialised.
    ///
    /// # Panics
    /// When `bao` is not in the environment that scripts/test.sh makes.
    pub fn start() -> Self {
        let ip = loopback();
        Self::at(SocketAddr::from((ip, 8200)), &ip.to_string())
    }

    /// A server at `address`, whose certificate is for `name` and of a CA of its own.
    ///
    /// # Panics
    /// As [`OpenBao::start`].
    pub fn at(address: SocketAddr, name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("edgekeep-bao-").tempdir_in("/dev/shm").expect("there is /dev/shm");
        let mut bao = Self { dir, address, name: name.to_owned(), child: None, root: None, shares: Vec::new() };
        bao.write_certificates();
        bao.write_configuration();
        bao.run();
        bao
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A client for it.
    pub fn vault(&self) -> HttpsVault {
        let trust = Trust::of_pem(&std::fs::read(self.ca_file()).expect("it was written")).expect("it is a CA");
        let trust = trust.named(&self.name).expect("it is a name");
        HttpsVault::new(&self.address.ip().to_string(), self.address.port(), &trust, Deadlines::default())
            .expect("address and name are sound")
    }

    /// Initialises it with one share, and unseals it.
    pub async fn make(&mut self) {
        let made =
            self.call(Operation::Write, "sys/init", None, json!({ "secret_shares": 1, "secret_threshold": 1 })).await;
        assert_eq!(made.0, 200, "{}", made.1);
        self.root = made.1["root_token"].as_str().map(str::to_owned);
        self.shares = made.1["keys_base64"].as_array().expect("there are shares").iter().map(text).collect();
        self.unseal().await;
    }

    /// Unseals it, as its operator does.
    pub async fn unseal(&self) {
        for share in &self.shares {
            let (status, said) = self.call(Operation::Write, "sys/unseal", None, json!({ "key": share })).await;
            assert_eq!(status, 200, "{said}");
        }
        let began = Instant::now();
        // It answers 500 until it leads.
        while self.health().await != Some(200) {
            assert!(began.elapsed() < PATIENCE, "it does not serve: {}", self.said());
            tokio::task::yield_now().await;
        }
    }

    /// The root token of [`OpenBao::make`].
    pub fn root(&self) -> &str {
        self.root.as_deref().expect("it was made")
    }

    /// One call; status and answer: `data` where there is an envelope.
    pub async fn call(&self, operation: Operation, path: &str, token: Option<&str>, body: Value) -> (u16, Value) {
        let mut request = Request::new(operation, ApiPath::parse(path).expect("a path of the API"));
        if let Some(token) = token {
            request = request.with_token(Token::parse(token).expect("a token"));
        }
        if !body.is_null() {
            request = request.with_body(Body::new(Zeroizing::new(body.to_string().into_bytes())));
        }
        let reply = self.vault().call(request).await.unwrap_or_else(|e| panic!("{path}: {e}: {}", self.said()));
        let value = match &reply.payload {
            Payload::Raw { bytes, .. } => serde_json::from_slice(bytes).unwrap_or_default(),
            Payload::Errors(errors) => json!(errors),
            Payload::Logical(logical) => match &logical.auth {
                Some(auth) => json!({
                    "client_token": auth.client_token.expose(),
                    "accessor": auth.accessor.as_str(),
                    "entity_id": auth.entity_id,
                    "policies": auth.policies,
                }),
                None => reply.data_text().and_then(|t| serde_json::from_slice(t).ok()).unwrap_or_default(),
            },
            Payload::Empty => Value::Null,
        };
        (reply.status.0, value)
    }

    /// One call with the root token, which must be granted.
    pub async fn as_root(&self, operation: Operation, path: &str, body: Value) -> Value {
        let (status, said) = self.call(operation, path, Some(self.root()), body).await;
        assert!((200..300).contains(&status), "{path}: {status} {said}");
        said
    }

    /// Whether a token is alive.
    pub async fn knows(&self, token: &str) -> bool {
        self.call(Operation::Read, "auth/token/lookup-self", Some(token), Value::Null).await.0 == 200
    }

    /// The status of `sys/health`; `None` while nobody answers.
    pub async fn health(&self) -> Option<u16> {
        let request = Request::new(Operation::Read, ApiPath::parse("sys/health").expect("a path of the API"));
        self.vault().call(request).await.ok().map(|reply| reply.status.0)
    }

    /// SIGKILL: its storage stays, as after a power cut.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts it again after [`OpenBao::kill`], and does not wait: it comes back sealed.
    pub fn start_again(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.expect("its directory is ours");
        let child = Command::new(in_venv("bao"))
            .args(["server", "-config"])
            .arg(self.dir.path().join("bao.hcl"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("bao starts");
        self.child = Some(child);
    }

    /// Everything that it kept is gone: at its next start it is not initialised.
    pub fn wipe(&mut self) {
        self.kill();
        let store = self.dir.path().join("store");
        std::fs::remove_dir_all(&store).and_then(|()| std::fs::create_dir(&store)).expect("its directory is ours");
    }

    /// What it has written to its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn run(&mut self) {
        self.start_again();
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "bao has ended: {ended:?}: {}", self.said());
            assert!(began.elapsed() < PATIENCE, "bao does not listen: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn write_certificates(&self) {
        // Another CA for each server, whatever the test is.
        let entropy = SeededEntropy::new(u64::from(NEXT.fetch_add(1, Ordering::Relaxed)));
        let ca = Ca::create(&Scope::Any, &entropy).expect("a CA can be made");
        let names = ServerNames::parse([self.name.as_str()]).expect("a name of a server");
        let server = ca.issue_server(&names, &entropy).expect("a certificate can be made");
        self.write("ca.pem", &ca.pem());
        self.write("server.pem", &pem("CERTIFICATE", server.der()));
        self.write("server.key", &pem("PRIVATE KEY", server.key().expose_pkcs8()));
    }

    fn write_configuration(&self) {
        let at = |name: &str| self.dir.path().join(name);
        let (address, store) = (self.address, at("store"));
        std::fs::create_dir_all(&store).expect("its directory is ours");
        let cluster = SocketAddr::new(address.ip(), address.port() + 1);
        self.write(
            "bao.hcl",
            &format!(
                "storage \"raft\" {{\n path = {store:?}\n node_id = \"one\"\n performance_multiplier = 1\n}}\n\
                 cluster_addr = \"https://{cluster}\"\napi_addr = \"https://{address}\"\n\
                 listener \"tcp\" {{\n address = \"{address}\"\n tls_cert_file = {:?}\n tls_key_file = {:?}\n}}\n",
                at("server.pem"),
                at("server.key"),
            ),
        );
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("its directory is ours");
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let from = said.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- what OpenBao said last\n{}", &said[from..]);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("it is text").to_owned()
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A program of the Python environment that scripts/test.sh makes.
fn in_venv(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository's root");
    let path = root.join(".test/venv/bin").join(name);
    assert!(path.is_file(), "{} is missing: scripts/test.sh makes it", path.display());
    path
}

/// An address of 127.0.0.0/8 that no other test of any running process has.
fn loopback() -> IpAddr {
    let (n, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
    let octet = |n: u32, from: u32| u8::try_from(from + n % 100).expect("less than 256");
    IpAddr::V4(Ipv4Addr::new(127, octet(pid / 100, 100), octet(pid, 100), octet(n, 100)))
}

static NEXT: AtomicU32 = AtomicU32::new(1);
const PATIENCE: Duration = Duration::from_secs(60);
