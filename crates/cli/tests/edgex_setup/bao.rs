//! One OpenBao of a test's own: an address of 127.0.0.0/8, a directory in memory, raft storage that outlives the process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Whether the real OpenBao is to be left out. Says so when it is.
pub(crate) fn is_skipped() -> bool {
    let skipped = std::env::var("EDGEKEEP_TEST_SKIP").is_ok_and(|list| list.split(',').any(|s| s.trim() == "clients"));
    if skipped {
        println!("skipped by EDGEKEEP_TEST_SKIP: clients");
    }
    skipped
}

/// A program of the Python environment that scripts/test.sh makes.
pub(crate) fn in_venv(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(".test/venv/bin").join(name);
    assert!(path.is_file(), "{} is missing: scripts/test.sh makes it", path.display());
    path
}

pub(crate) struct Bao {
    dir: tempfile::TempDir,
    pub(crate) ip: String,
    child: Option<Child>,
    legacy: bool,
}

impl Bao {
    /// As OpenBao comes: nobody gets a root token for shares without logging in.
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// With the unauthenticated doors of old.
    pub(crate) fn legacy() -> Self {
        Self::with(true)
    }

    fn with(legacy: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("edgekeep-bao-").tempdir_in("/dev/shm").unwrap();
        let mut bao = Self { dir, ip: loopback(), child: None, legacy };
        bao.start();
        bao
    }

    fn start(&mut self) {
        let (ip, dir) = (&self.ip, self.dir.path());
        let raft = dir.join("raft");
        std::fs::create_dir_all(&raft).unwrap();
        let doors = if self.legacy { "disable_unauthed_generate_root_endpoints = false" } else { "" };
        let config = format!(
            "storage \"raft\" {{\n path = {raft:?}\n node_id = \"one\"\n}}\n\
             cluster_addr = \"http://{ip}:8201\"\napi_addr = \"http://{ip}:8200\"\n\
             listener \"tcp\" {{\n address = \"{ip}:8200\"\n tls_disable = true\n {doors}\n}}\n"
        );
        std::fs::write(dir.join("bao.hcl"), config).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(in_venv("bao"))
            .args(["server", "-config"])
            .arg(dir.join("bao.hcl"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// As after a power cut: sealed again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn restart_legacy(&mut self, legacy: bool) {
        self.legacy = legacy;
        self.restart();
    }

    /// A store that was never there before.
    pub(crate) fn wipe(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.dir.path().join("raft")).unwrap();
        self.start();
    }

    /// One call; the status, and the answer where there is one. Waits for the listener, and no longer than a minute.
    pub(crate) fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let mut stream = self.connect();
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let token = token.map(|t| format!("X-Vault-Token: {t}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: bao\r\nConnection: close\r\n{token}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        // Long answers come in chunks.
        let json = body.find('{').and_then(|from| body.rfind('}').map(|to| &body[from..=to])).unwrap_or("null");
        let json: String = if head.contains("chunked") { unchunked(body) } else { json.to_owned() };
        (status, serde_json::from_str(&json).unwrap_or(Value::Null))
    }

    pub(crate) fn health(&self) -> u16 {
        self.call("GET", "sys/health", None, None).0
    }

    /// Whether a token is alive.
    pub(crate) fn knows(&self, token: &str) -> bool {
        self.call("GET", "auth/token/lookup-self", Some(token), None).0 == 200
    }

    fn connect(&self) -> TcpStream {
        for _ in 0..1200 {
            match TcpStream::connect((self.ip.as_str(), 8200)) {
                Ok(stream) => return stream,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
        panic!("OpenBao does not listen: {}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let said = self.said();
            eprintln!("--- what OpenBao said last\n{}", &said[said.len().saturating_sub(4000)..]);
        }
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// An address that no other test of any running process has.
fn loopback() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid & 255, 1 + n % 250)
}
