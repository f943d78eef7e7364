//! One OpenBao of a test's own: an address of 127.0.0.0/8, a directory in memory, storage that outlives the process,
//! TLS by our own `pki`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::{DangerPlainVault, Deadlines, HttpsVault, Remote, Trust};
use serde_json::Value;
use testkit::{BaoServer, Pair, SiteCa};

/// A program of the Python environment that scripts/test.sh makes.
pub(crate) fn in_venv(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(".test/venv/bin").join(name);
    assert!(path.is_file(), "{} is missing: scripts/test.sh makes it", path.display());
    path
}

pub(crate) struct Bao {
    server: BaoServer,
    pub(crate) ip: String,
    setup: Setup,
}

/// How one is set up.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// With the unauthenticated doors of old.
    pub(crate) legacy: bool,
    pub(crate) storage: Storage,
    /// Behind TLS, with a certificate of this authority.
    pub(crate) authority: Option<Arc<Authority>>,
    /// The first node of a cluster.
    pub(crate) join: Option<String>,
    /// A device that writes down every request and reply.
    pub(crate) audit: bool,
    /// Seconds that raft waits for a leader, and for votes, at least; one where nothing is said.
    pub(crate) election: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Storage {
    #[default]
    Raft,
    /// Gone with the process.
    Memory,
}

impl Bao {
    /// As OpenBao comes: nobody gets a root token for shares without logging in. None where `clients` is skipped.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Setup::default())
    }

    /// With the unauthenticated doors of old.
    pub(crate) fn legacy() -> Option<Self> {
        Self::with(Setup { legacy: true, ..Setup::default() })
    }

    pub(crate) fn with(setup: Setup) -> Option<Self> {
        if testkit::is_skipped("clients") {
            return None;
        }
        let server = BaoServer::new();
        let mut bao = Self { ip: server.ip().to_string(), server, setup };
        if let Some(authority) = &bao.setup.authority {
            let Pair { certificate, key } = authority.ca.server_of(&[&bao.ip, "edgex-secret-store"]);
            bao.server.put("tls.crt", &certificate);
            bao.server.put("tls.key", &key);
        }
        bao.start();
        Some(bao)
    }

    fn start(&mut self) {
        let configuration = self.configuration();
        self.server.start(&configuration);
    }

    fn configuration(&self) -> String {
        let (ip, setup) = (&self.ip, &self.setup);
        let scheme = if setup.authority.is_some() { "https" } else { "http" };
        let join = setup.join.as_ref().map(|first| {
            let ca =
                setup.authority.as_ref().map(|a| format!(" leader_ca_cert_file = {:?}\n", a.file)).unwrap_or_default();
            format!(" retry_join {{\n leader_api_addr = \"{scheme}://{first}:8200\"\n{ca} }}\n")
        });
        let storage = match setup.storage {
            Storage::Raft => format!(
                "storage \"raft\" {{\n path = {:?}\n node_id = \"{ip}\"\n performance_multiplier = {}\n{}}}\n",
                self.server.store(),
                setup.election.unwrap_or(1),
                join.unwrap_or_default()
            ),
            Storage::Memory => "storage \"inmem\" {}\n".to_owned(),
        };
        let doors = if setup.legacy { "disable_unauthed_generate_root_endpoints = false" } else { "" };
        let at = |name| self.server.at(name);
        let tls = match setup.authority {
            Some(_) => format!("tls_cert_file = {:?}\n tls_key_file = {:?}", at("tls.crt"), at("tls.key")),
            None => "tls_disable = true".into(),
        };
        let audit = match setup.audit {
            true => format!("audit \"file\" \"all\" {{\n options {{\n file_path = {:?}\n }}\n}}\n", self.audit_file()),
            false => String::new(),
        };
        format!(
            "{storage}cluster_addr = \"https://{ip}:8201\"\napi_addr = \"{scheme}://{ip}:8200\"\n\
             listener \"tcp\" {{\n address = \"{ip}:8200\"\n {tls}\n {doors}\n}}\n{audit}"
        )
    }

    /// Where the audit device writes.
    pub(crate) fn audit_file(&self) -> PathBuf {
        self.server.at("audit.log")
    }

    /// The way to it, for the libraries below the face.
    pub(crate) fn vault(&self) -> Remote {
        let deadlines = Deadlines::default();
        match &self.setup.authority {
            None => Remote::DangerPlain(DangerPlainVault::new(&self.ip, 8200, deadlines).unwrap()),
            Some(authority) => {
                let trust = Trust::of_pem(authority.ca.pem().as_bytes()).unwrap().allow_tls12();
                Remote::Https(HttpsVault::new(&self.ip, 8200, &trust, deadlines).unwrap())
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        self.server.kill();
    }

    /// As after a power cut: sealed again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn restart_legacy(&mut self, legacy: bool) {
        self.setup.legacy = legacy;
        self.restart();
    }

    /// From its next start on, elections take no longer than they must.
    pub(crate) fn elects_soon(&mut self) {
        self.setup.election = None;
    }

    /// A store that was never there before.
    pub(crate) fn wipe(&mut self) {
        self.server.wipe();
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
        // OpenBao closes without TLS's goodbye; the length, or the last chunk, tells that all is there.
        match stream.read_to_string(&mut text) {
            Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => panic!("{e}"),
            _ => {}
        }
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

    /// Until it answers so.
    pub(crate) fn until(&self, wanted: &[u16]) {
        let begun = std::time::Instant::now();
        while !wanted.contains(&self.health()) {
            assert!(begun.elapsed().as_secs() < 120, "its health is {}", self.health());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Whether a token is alive.
    pub(crate) fn knows(&self, token: &str) -> bool {
        self.call("GET", "auth/token/lookup-self", Some(token), None).0 == 200
    }

    /// A node that lags behind hears of a new token a little later.
    pub(crate) fn until_known(&self, token: &str) {
        let begun = std::time::Instant::now();
        while !self.knows(token) {
            assert!(begun.elapsed().as_secs() < 120, "it does not know the token");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn connect(&self) -> Box<dyn Wire> {
        for _ in 0..12_000 {
            match TcpStream::connect((self.ip.as_str(), 8200)) {
                Ok(stream) => {
                    return match &self.setup.authority {
                        Some(authority) => authority.over(stream, &self.ip),
                        None => Box::new(stream),
                    };
                }
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        panic!("OpenBao does not listen: {}", self.server.said());
    }

    pub(crate) fn until_it_says(&self, text: &str) {
        self.server.until_it_says(text);
    }
}

/// A CA, and its certificate in a file.
pub(crate) struct Authority {
    ca: SiteCa,
    _dir: tempfile::TempDir,
    pub(crate) file: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let (dir, ca) = (tempfile::tempdir().unwrap(), SiteCa::new());
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ca.pem()).unwrap();
        Arc::new(Self { ca, _dir: dir, file })
    }

    fn over(&self, stream: TcpStream, ip: &str) -> Box<dyn Wire> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().to_vec().into()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(ip.to_owned()).unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Box::new(rustls::StreamOwned::new(connection, stream))
    }
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

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
