//! A device without a battery behind its clock: it begins in 1970, and steps to the present while clients talk to it.
//!
//! Driver, store and server are the real ones; the clocks of the device and of its client are in the test's hands. The
//! server verifies no certificate and so asks no clock of its own for a handshake.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boot::driver::{Environment, Front, Note, Observer, Running, Serving, claim};
use boot::machine::Halt;
use engines::{Facts, ThreadPool};
use host::{Clock, OsDisk, OsEntropy, WallTime};
use pipeline::{BoxFuture, Core};
use pki::ServerCertificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use secret::SecretBytes;
use server::{
    AdminFuture, AdminPeer, AdminPort, AdminRefusal, AdminStatus, Identity, Limits, Listen, Machine, Recovered, Sealed,
    Security, Server, Tcp, TlsVersions, Unsealed,
};
use testkit::FakeClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// 22 November 2026, as a time server would tell it.
const NOW: i64 = 1_795_316_124;

/// Host and client both in 1970, then a step to 2026 and one back: gates stay open, no handshake fails before, at or
/// after each, a connection goes on through all of them, and no token dies of it.
#[tokio::test]
async fn from_1970_to_2026_no_handshake_fails_and_no_gate_shuts() {
    let mut device = Device::up().await;
    let at_home = Arc::new(FakeClock::at(0));
    let client = Client::new(&device, &at_home);
    let mut kept = client.connect().await;
    for (host, own) in [(0, 0), (NOW, 0), (NOW, NOW), (0, NOW), (0, 0), (NOW, NOW), (NOW, FAR)] {
        device.clock.step_wall(host);
        at_home.step_wall(own);
        device.clock.advance(Duration::from_secs(1));
        device.running.tick().await;
        let when = format!("host at {host}, client at {own}");
        assert_eq!(client.ask(&mut kept).await, 200, "the connection that was there, {when}");
        // The same client again (it may resume), and one that has never been here.
        for client in [&client, &Client::new(&device, &at_home)] {
            let mut fresh = client.connect().await;
            assert_eq!(client.ask(&mut fresh).await, 200, "{when}");
        }
        assert_eq!(device.open(), ["ready-to-run", "tokens-ready"], "{when}");
    }
    assert_eq!(*device.shut.lock().unwrap(), [] as [String; 0], "no gate was shut in between");
    let counts = device.listeners.server.lock().await.as_ref().unwrap().counts();
    assert_eq!(counts.handshakes_failed, 0);
    device.running.shutdown().await;
}

/// The 31st of December 9998.
const FAR: i64 = 253_370_764_799;

struct Device {
    running: Running,
    clock: Arc<FakeClock>,
    listeners: Arc<Listeners>,
    shut: Arc<std::sync::Mutex<Vec<String>>>,
    run: tempfile::TempDir,
    _data: tempfile::TempDir,
}

impl Device {
    /// A demo in 1970, with its gates open.
    async fn up() -> Self {
        let data = tempfile::tempdir().unwrap();
        let run = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
        let wish = config::Demo { data_dir: data.path(), run_dir: run.path(), listen: Some("127.0.0.1:0") };
        let plan = config::demo(&wish).unwrap();
        let clock = Arc::new(FakeClock::at(0));
        let pool = Arc::new(ThreadPool::new(1, 4).unwrap());
        let environment = Environment {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::new(OsEntropy),
            disk: Arc::new(OsDisk),
            medium: Arc::new(delivery::OsMedium),
            us: rustix::process::geteuid().as_raw(),
            vfs: None,
            keeper: None,
            guard: None,
            latch: seal::ReleaseLatch::default(),
            maker: None,
            key_wear: store::KeyWear::default(),
            machine: "/".into(),
            // A build of today whose clock says that it was made 56 years later.
            build_date: WallTime(i128::from(NOW) * 1_000_000_000),
            engines: Arc::new(move |services| {
                let facts = Facts {
                    version: "test".into(),
                    build_date: "2026-11-22T00:00:00Z".into(),
                    cluster_name: "test".into(),
                    cluster_id: String::new(),
                    shares: None,
                };
                engines::all(services, facts, Arc::clone(&pool) as Arc<dyn engines::HashPool>)
            }),
        };
        let machine = Machine { clock: Arc::clone(&clock) as Arc<dyn Clock>, disk: Arc::new(OsDisk) };
        let listeners = Listeners::new(&plan.listen.api_socket, &plan.listen.admin_socket, machine);
        let shut = Arc::default();
        let claimed = claim(plan, environment, Box::new(Shuts(Arc::clone(&shut)))).unwrap();
        let running = claimed.start(Some(Arc::clone(&listeners) as Arc<dyn Front>)).await;
        assert_eq!(running.halted(), None);
        Self { running, clock, listeners, shut, run, _data: data }
    }

    fn open(&self) -> Vec<String> {
        self.running.gates().borrow().open().iter().map(ToString::to_string).collect()
    }
}

/// Hears which gates are shut.
struct Shuts(Arc<std::sync::Mutex<Vec<String>>>);

impl Observer for Shuts {
    fn note(&mut self, note: Note) {
        if let Note::GateShut { gate } = note {
            self.0.lock().unwrap().push(gate.to_string());
        }
    }
}

/// A service with a clock of its own.
struct Client {
    connector: tokio_rustls::TlsConnector,
    address: std::net::SocketAddr,
    token: String,
}

impl Client {
    fn new(device: &Device, clock: &Arc<FakeClock>) -> Self {
        let dir = device.run.path().join("secrets/sensor");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_details(provider, Arc::new(Watch(Arc::clone(clock))))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("secrets-token.json")).unwrap()).unwrap();
        Self {
            connector: tokio_rustls::TlsConnector::from(Arc::new(config)),
            address: device.listeners.address(),
            token: file["auth"]["client_token"].as_str().unwrap().to_owned(),
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// Looks its own token up; the status.
    async fn ask(&self, stream: &mut TlsStream<TcpStream>) -> u16 {
        let token = &self.token;
        let request = format!("GET /v1/auth/token/lookup-self HTTP/1.1\r\nHost: h\r\nX-Vault-Token: {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&reply).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0usize) {
                    return head.split(' ').nth(1).unwrap().parse().unwrap();
                }
            }
            let mut more = [0; 4096];
            let n = stream.read(&mut more).await.unwrap();
            assert_ne!(n, 0, "the connection has ended: {text}");
            reply.extend_from_slice(&more[..n]);
        }
    }
}

/// The time that the client's TLS believes in.
#[derive(Debug)]
struct Watch(Arc<FakeClock>);

impl rustls::time_provider::TimeProvider for Watch {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().unix_seconds()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// The real server in the hands of the boot.
struct Listeners {
    server: tokio::sync::Mutex<Option<Server<Unsealed>>>,
    tcp: std::sync::Mutex<Option<std::net::SocketAddr>>,
}

impl Listeners {
    fn new(api_socket: &Path, admin_socket: &Path, machine: Machine) -> Arc<Self> {
        let security = Security::Device { versions: TlsVersions::Tls13 };
        let listen = Listen {
            tcp: Some(Tcp::new(vec!["127.0.0.1:0".parse().unwrap()], security).unwrap()),
            api_socket: Some(api_socket.into()),
            admin_socket: admin_socket.into(),
        };
        let server = Server::start(listen, Limits::default(), sealed(), Arc::new(Nobody), machine).unwrap();
        Arc::new(Self { server: tokio::sync::Mutex::new(Some(server)), tcp: std::sync::Mutex::default() })
    }

    fn address(&self) -> std::net::SocketAddr {
        self.tcp.lock().unwrap().expect("it listens")
    }
}

impl Front for Listeners {
    fn open<'a>(&'a self, core: &'a Arc<Core>, device: &'a ServerCertificate) -> BoxFuture<'a, Result<Serving, Halt>> {
        Box::pin(async move {
            let identity = Identity::of_device(device).unwrap();
            let mut server = self.server.lock().await;
            let tcp = server.as_mut().unwrap().unseal(Unsealed::new(Arc::clone(core)), &identity).unwrap().tcp;
            *self.tcp.lock().unwrap() = tcp.first().copied();
            Ok(Serving { tcp })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(server) = self.server.lock().await.take() {
                server.drain(Duration::from_secs(1)).await;
            }
        })
    }
}

fn sealed() -> Sealed {
    Sealed { initialized: true, seal_type: "slots", recovery_seal: true, version: "test" }
}

/// Behind the admin socket of this device is nobody.
struct Nobody;

fn nobody<'a, T: Send + 'a>() -> AdminFuture<'a, Result<T, AdminRefusal>> {
    Box::pin(async { Err(AdminRefusal { status: api::Status::UNAVAILABLE, told: "nobody is here".to_owned() }) })
}

impl AdminPort for Nobody {
    fn status<'a>(&'a self, _: &'a AdminPeer) -> AdminFuture<'a, AdminStatus> {
        Box::pin(async { AdminStatus::default() })
    }

    fn seal<'a>(&'a self, _: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        nobody()
    }

    fn slots<'a>(
        &'a self,
        _: server::SlotWish,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<serde_json::Value, AdminRefusal>> {
        nobody()
    }

    fn recover<'a>(
        &'a self,
        _: SecretBytes,
        _: bool,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Recovered, Option<serde_json::Value>), AdminRefusal>> {
        nobody()
    }

    fn generate_root<'a>(
        &'a self,
        _: SecretBytes,
        _: api::Ttl,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(api::Auth, Recovered), AdminRefusal>> {
        nobody()
    }

    fn rekey<'a>(&'a self, _: SecretBytes, _: &'a AdminPeer) -> AdminFuture<'a, Result<Recovered, AdminRefusal>> {
        nobody()
    }

    fn confirm_recovery<'a>(&'a self, _: SecretBytes, _: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        nobody()
    }
}
