//! A server on real sockets with a handler that says what reached it.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use api::{Auth, Logical, Operation, Reply, Request, Status, Ttl};
use host::{BootId, BootTime, Clock, OsDisk, OsEntropy, WallTime};
use pki::{Ca, Scope, ServerCertificate, ServerNames};
use secret::{Accessor, SecretBytes, Token};
use server::{
    AdminFuture, AdminPeer, AdminPort, AdminRefusal, AdminStatus, Answer, GateStatus, Handler, Identity, Limits,
    Listen, Machine, Recovered, Sealed, Security, Server, SlotWish, Tcp, TlsVersions,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Answers with what it was asked, or does what the path says.
#[derive(Default)]
pub struct Echo {
    pub begun: Notify,
    pub go: Notify,
    pub finished: AtomicU32,
    /// Whether clients are asked for their certificates.
    pub asks: AtomicBool,
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request) -> Answer {
        let reply = match request.path.as_str() {
            "wait" => {
                self.begun.notify_one();
                self.go.notified().await;
                self.finished.fetch_add(1, Ordering::SeqCst);
                Reply::no_content()
            }
            "panic-at-once" => panic!("a handler that fails"),
            "panic" => {
                tokio::task::yield_now().await;
                panic!("a handler that fails")
            }
            "absent" => Reply::absent(),
            "denied" => Reply::error(Status::FORBIDDEN, "permission denied"),
            "nothing" => Reply::no_content(),
            "raw" => Reply::raw(Status::OK, &serde_json::json!({"initialized": true})),
            "top" => Reply::logical(Logical {
                data: Some(Zeroizing::new(br#"{"keys":["default","root"]}"#.to_vec())),
                data_at_top: true,
                ..Logical::default()
            }),
            "stored" => Reply::logical(Logical {
                data: Some(Zeroizing::new(br#"{ "n": 12345678901234567890123, "u":"\u00e9" }"#.to_vec())),
                lease_duration: Ttl::seconds(2_764_800),
                ..Logical::default()
            }),
            "login" => Reply::logical(login()),
            "shown" => Reply::data(&match &request.certificates {
                None => serde_json::Value::Null,
                Some(shown) => serde_json::json!({
                    "chain": shown.chain().count(), "name": shown.name().common_name, "sha256": shown.name().sha256,
                }),
            }),
            "large" => Reply::logical(Logical {
                data: Some(Zeroizing::new(format!("{{\"x\":\"{}\"}}", "y".repeat(900_000)).into_bytes())),
                ..Logical::default()
            }),
            _ => echo(&request),
        };
        Answer { request_id: *b"5d3f2c1e-0000-4000-8000-000000000000", reply }
    }

    fn asks_for_certificates(&self) -> bool {
        self.asks.load(Ordering::SeqCst)
    }
}

fn echo(request: &Request) -> Reply {
    let operation = match request.operation {
        Operation::Read => "read",
        Operation::List => "list",
        Operation::Write => "write",
        Operation::Delete => "delete",
        Operation::Patch => "patch",
    };
    Reply::data(&serde_json::json!({
        "operation": operation,
        "path": request.path.as_str(),
        "query": request.query,
        "token": request.token.as_ref().map(|t| t.expose().len()),
        "body": request.body.expose().len(),
    }))
}

fn login() -> Logical {
    Logical {
        warnings: vec!["TTL of \"1h\" is capped".to_owned()],
        auth: Some(Auth {
            client_token: Token::parse("s.dEkhu4I7STVTP1T79wpS7bpy").unwrap(),
            accessor: Accessor::parse("cR0V2dz43ZjJObbb39brpVtW").unwrap(),
            policies: vec!["default".into(), "p1".into()],
            token_policies: vec!["default".into(), "p1".into()],
            identity_policies: Vec::new(),
            metadata: Some([("username".to_owned(), "u1".to_owned())].into()),
            lease_duration: Ttl::seconds(3600),
            renewable: true,
            entity_id: "efd9eaa2-7540-3c19-e64d-efedb8406cb1".to_owned(),
            token_type: "service",
            orphan: true,
            num_uses: 0,
        }),
        ..Logical::default()
    }
}

/// An admin port that remembers the key it was given.
#[derive(Default)]
pub struct Desk(pub std::sync::Mutex<Vec<String>>);

impl AdminPort for Desk {
    fn status<'a>(&'a self, _: &'a AdminPeer) -> AdminFuture<'a, AdminStatus> {
        Box::pin(async {
            AdminStatus {
                state: "sealed",
                reason: Some("the key source does not answer".to_owned()),
                profile: Some("production"),
                gates: vec![GateStatus { name: "ready".to_owned(), open: false, waits_for: Some("tokens".to_owned()) }],
                memory: Some("keys are locked".to_owned()),
                lacking: vec!["keys come from a file".to_owned()],
            }
        })
    }

    fn seal<'a>(&'a self, by: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(async move {
            self.0.lock().unwrap().push(format!("seal by {}", by.uid()));
            Ok(())
        })
    }

    fn generate_root<'a>(
        &'a self,
        key: SecretBytes,
        ttl: Ttl,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Auth, Recovered), AdminRefusal>> {
        Box::pin(async move {
            let text = String::from_utf8(key.expose().to_vec()).unwrap();
            self.0.lock().unwrap().push(format!("root token for {} s by {} with {text}", ttl.as_seconds(), by.uid()));
            let auth = Auth { lease_duration: ttl, ..login().auth.unwrap() };
            Ok((auth, Recovered::Replaced { place: "/r/recovery.age".into() }))
        })
    }

    fn rekey<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer) -> AdminFuture<'a, Result<Recovered, AdminRefusal>> {
        Box::pin(async move {
            let text = String::from_utf8(key.expose().to_vec()).unwrap();
            self.0.lock().unwrap().push(format!("rekey by {} with {text}", by.uid()));
            Ok(Recovered::Offered { key: SecretBytes::new(b"ekr1-new".to_vec()) })
        })
    }

    fn slots<'a>(
        &'a self,
        wish: SlotWish,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<serde_json::Value, AdminRefusal>> {
        Box::pin(async move {
            self.0.lock().unwrap().push(format!("slots {wish:?} by {}", by.uid()));
            let refusal = AdminRefusal { status: Status::FORBIDDEN, told: "the last that opens".to_owned() };
            if wish == SlotWish::Remove(1) { Err(refusal) } else { Ok(serde_json::json!({"generation": 3})) }
        })
    }

    fn recover<'a>(
        &'a self,
        key: SecretBytes,
        reseal: bool,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Recovered, Option<serde_json::Value>), AdminRefusal>> {
        Box::pin(async move {
            let resealed = reseal.then(|| serde_json::json!({"added": [3]}));
            let text = String::from_utf8(key.expose().to_vec()).unwrap();
            let right = text == "ekr1-right";
            self.0.lock().unwrap().push(text);
            let refusal = AdminRefusal { status: Status::BAD_REQUEST, told: "not the recovery key".to_owned() };
            let offered = || Recovered::Offered { key: SecretBytes::new(b"ekr1-new".to_vec()) };
            if right { Ok((offered(), resealed)) } else { Err(refusal) }
        })
    }

    fn confirm_recovery<'a>(&'a self, key: SecretBytes, _: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(async move {
            self.0.lock().unwrap().push(format!("confirm {}", String::from_utf8(key.expose().to_vec()).unwrap()));
            Ok(())
        })
    }
}

struct Still;

impl Clock for Still {
    fn boot_id(&self) -> BootId {
        BootId([0; 16])
    }
    fn boottime(&self) -> BootTime {
        BootTime(0)
    }
    fn wall(&self) -> WallTime {
        WallTime(1_795_316_124_000_000_000)
    }
}

/// A server and what a test needs to speak to it.
pub struct Bench {
    pub server: Server<Echo>,
    pub echo: Arc<Echo>,
    pub desk: Arc<Desk>,
    pub ca: Ca,
    pub device: ServerCertificate,
    pub dir: TempDir,
}

pub fn sealed() -> Sealed {
    Sealed { initialized: true, seal_type: "slots", recovery_seal: true, version: "0.1.0" }
}

/// Patience on the scale of a test.
pub fn short() -> Limits {
    let brief = Duration::from_millis(300);
    Limits { handshake: brief, head: brief, first: brief, idle: brief, stall: brief, ..Limits::default() }
}

pub fn names() -> ServerNames {
    ServerNames::parse(["localhost", "127.0.0.1"]).unwrap()
}

impl Bench {
    pub fn sealed(security: Security, limits: Limits) -> Self {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let device = ca.issue_server(&names(), &OsEntropy).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // At an address of its own nobody takes its port when it is closed.
        let address = SocketAddr::new(testkit::loopback().into(), 0);
        let listen = Listen {
            tcp: Some(Tcp::new(vec![address], security).unwrap()),
            api_socket: Some(dir.path().join("run/api.sock")),
            admin_socket: dir.path().join("admin/admin.sock"),
        };
        let desk = Arc::new(Desk::default());
        let machine = Machine { clock: Arc::new(Still), disk: Arc::new(OsDisk) };
        let server = Server::start(listen, limits, sealed(), Arc::clone(&desk) as Arc<dyn AdminPort>, machine).unwrap();
        Self { server, echo: Arc::default(), desk, ca, device, dir }
    }

    pub fn plain(limits: Limits) -> Self {
        let mut bench = Self::sealed(Security::DangerPlainHttp, limits);
        bench.unseal();
        bench
    }

    pub fn tls(limits: Limits) -> Self {
        let mut bench = Self::sealed(Security::Device { versions: TlsVersions::Tls13 }, limits);
        bench.unseal();
        bench
    }

    pub fn unseal(&mut self) {
        let identity = Identity::of_device(&self.device).unwrap();
        self.server.unseal(Arc::clone(&self.echo), &identity).unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addresses().tcp[0]
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    pub fn api_path(&self) -> PathBuf {
        self.dir.path().join("run/api.sock")
    }

    pub async fn admin(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("admin/admin.sock")).await.unwrap()
    }
}

/// Sends `bytes` and reads until the server closes.
pub async fn to_the_end<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> String {
    // The server may close before it has read everything: that is an answer too.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// Reads until the server closes.
pub async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("the server closes") {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
            Err(e) => panic!("{e}"),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// One reply with a Content-Length, or without a body.
pub async fn reply<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let read = async {
        let mut text = Vec::new();
        loop {
            let head = text.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
            if let Some(head) = head {
                let words = String::from_utf8_lossy(&text[..head]).to_lowercase();
                let length = words
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "))
                    .map_or(0, |n| n.trim().parse::<usize>().unwrap());
                if text.len() >= head + length {
                    assert_eq!(text.len(), head + length, "one reply at a time");
                    return String::from_utf8(text).unwrap();
                }
            }
            let mut byte = [0; 1];
            assert_ne!(
                stream.read(&mut byte).await.unwrap(),
                0,
                "the server closed: {}",
                String::from_utf8_lossy(&text)
            );
            text.push(byte[0]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a reply comes")
}

/// One request on a connection that stays open.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    reply(stream).await
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// The status line's number.
pub fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {reply:?}"))
}

/// A client that trusts `ca` alone and asks for `name`.
pub async fn tls_client(ca: &Ca, address: SocketAddr, name: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    try_tls(ca, address, name).await.unwrap()
}

pub async fn try_tls(
    ca: &Ca,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from(ca.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
