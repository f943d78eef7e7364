//! What our listeners cost above bare hyper: processor time of the serving thread for one request, as a ratio.
//!
//! `cargo bench -p edgekeep-server --bench ratio`. Both servers run in this process, each on a thread of its own, and
//! are loaded in turn over 32 connections; the figure is the median of interleaved pairs, so that a noisy machine
//! disturbs both. `--most 1.3` fails above that ratio.

#![allow(clippy::unwrap_used)] // a measurement that cannot be taken ends here

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use api::{Logical, Reply, Request, Ttl};
use host::{OsClock, OsDisk, OsEntropy};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pki::{Ca, Scope, ServerCertificate, ServerNames};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use server::{
    AdminFuture, AdminPeer, AdminPort, AdminRefusal, AdminStatus, Answer, Handler, Identity, Limits, Listen, Machine,
    Recovered, Sealed, Security, Server, Tcp, TlsVersions,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

const CONNECTIONS: usize = 32;
const REQUESTS: usize = 1000; // a connection, in one run
const PAIRS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let most = arguments.iter().position(|a| a == "--most").and_then(|at| arguments.get(at + 1)?.parse::<f64>().ok());
    let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
    let device = ca.issue_server(&ServerNames::parse(["localhost"]).unwrap(), &OsEntropy).unwrap();
    for (name, tls) in [("plain", false), ("tls", true)] {
        let (ours, bare) = (Running::ours(&device, tls), Running::bare(&device, tls));
        let trust = tls.then(|| connector(&ca));
        let mut pairs: Vec<(f64, f64)> = (0..=PAIRS).map(|_| (ours.run(&trust), bare.run(&trust))).collect();
        pairs.remove(0); // the first warms
        let ratio = median(pairs.iter().map(|(o, b)| o / b).collect());
        let (o, b) = (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()));
        let _ = writeln!(std::io::stdout(), "{name}: ours {o:.1} us, bare hyper {b:.1} us a request; ratio {ratio:.2}");
        assert!(most.is_none_or(|most| ratio <= most), "{name}: {ratio:.2} is above what was allowed");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server on a thread of its own, which tells how much processor time that thread has used.
struct Running {
    address: SocketAddr,
    ask: mpsc::Sender<oneshot::Sender<f64>>,
}

impl Running {
    fn start<F: Future<Output = SocketAddr>>(name: &str, begin: impl FnOnce() -> F + Send + 'static) -> Self {
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<f64>>(1);
        let (tell, told) = std::sync::mpsc::channel();
        let serving = thread::Builder::new().name(name.to_owned());
        let spawned = serving.spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                tell.send(begin().await).unwrap();
                while let Some(answer) = asked.recv().await {
                    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                    answer.send(spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3).unwrap();
                }
            });
        });
        spawned.unwrap();
        Self { address: told.recv().unwrap(), ask }
    }

    fn ours(device: &ServerCertificate, tls: bool) -> Self {
        let identity = Identity::of_device(device).unwrap();
        Self::start("ours", move || async move {
            let dir = tempfile::tempdir().unwrap();
            let security =
                if tls { Security::Device { versions: TlsVersions::Tls13 } } else { Security::DangerPlainHttp };
            let listen = Listen {
                tcp: Some(Tcp::new(vec!["127.0.0.1:0".parse().unwrap()], security).unwrap()),
                api_socket: None,
                admin_socket: dir.path().join("admin/admin.sock"),
            };
            let machine = Machine { clock: Arc::new(OsClock::new().unwrap()), disk: Arc::new(OsDisk) };
            let sealed = Sealed { initialized: true, seal_type: "slots", recovery_seal: true, version: "0" };
            let mut server = Server::start(listen, Limits::default(), sealed, Arc::new(NoPort), machine).unwrap();
            let address = server.unseal(Arc::new(Hello), &identity).unwrap().tcp[0];
            tokio::spawn(async move {
                let _kept = (server, dir);
                std::future::pending::<()>().await;
            });
            address
        })
    }

    fn bare(device: &ServerCertificate, tls: bool) -> Self {
        let chain = vec![CertificateDer::from(device.der().to_vec())];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(device.key().expose_pkcs8().to_vec()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tls.then(|| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        Self::start("bare", move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        match acceptor {
                            Some(acceptor) => bare(acceptor.accept(stream).await.unwrap()).await,
                            None => bare(stream).await,
                        }
                    });
                }
            });
            address
        })
    }

    fn spent(&self) -> f64 {
        let (answer, spent) = oneshot::channel();
        self.ask.blocking_send(answer).unwrap();
        spent.blocking_recv().unwrap()
    }

    /// Microseconds of the server's thread for one request; handshakes are over before the counting begins.
    fn run(&self, trust: &Option<tokio_rustls::TlsConnector>) -> f64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let streams = runtime.block_on(async {
            let mut streams: Vec<Box<dyn Wire>> = Vec::new();
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect(self.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream: Box<dyn Wire> = match trust {
                    None => Box::new(stream),
                    Some(trust) => {
                        Box::new(trust.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap())
                    }
                };
                ask(&mut stream).await;
                streams.push(stream);
            }
            streams
        });
        let before = self.spent();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for mut stream in streams {
                tasks.spawn(async move {
                    for _ in 0..REQUESTS {
                        ask(&mut stream).await;
                    }
                    stream
                });
            }
            let kept = tasks.join_all().await;
            // Still connected, so that closing is not counted.
            let after = self.ask_spent().await;
            drop(kept);
            after - before
        }) / (CONNECTIONS * REQUESTS) as f64
    }

    async fn ask_spent(&self) -> f64 {
        let (answer, spent) = oneshot::channel();
        self.ask.send(answer).await.unwrap();
        spent.await.unwrap()
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn ask(stream: &mut Box<dyn Wire>) {
    const ASKED: &[u8] = b"GET /v1/secret/edgex/device/redisdb HTTP/1.1\r\nHost: localhost:8200\r\n\
        X-Vault-Token: s.dEkhu4I7STVTP1T79wpS7bpy\r\nX-Vault-Request: true\r\nAccept: */*\r\n\r\n";
    stream.write_all(ASKED).await.unwrap();
    let mut reply = [0; 2048];
    let mut read = 0;
    loop {
        read += stream.read(&mut reply[read..]).await.unwrap();
        // Both bodies end in a newline after a closing character.
        if reply[..read].ends_with(b"}\n") {
            return;
        }
    }
}

fn connector(ca: &Ca) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn bare<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let body = Bytes::from(format!(
        "{{\"request_id\":\"00000000-0000-0000-0000-000000000000\",\"lease_id\":\"\",\"renewable\":false,\
         \"lease_duration\":2764800,\"data\":{{\"value\":\"{}\"}},\"wrap_info\":null,\"warnings\":null,\"auth\":null}}\n",
        "x".repeat(200)
    ));
    let service = service_fn(move |_: hyper::Request<hyper::body::Incoming>| {
        let body = body.clone();
        async move {
            Ok::<_, Infallible>(
                hyper::Response::builder()
                    .header("content-type", "application/json")
                    .header("cache-control", "no-store")
                    .body(Full::new(body))
                    .unwrap(),
            )
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A stored secret of 200 bytes, copied as the cache would.
struct Hello;

impl Handler for Hello {
    async fn handle(self: Arc<Self>, request: Request) -> Answer {
        std::hint::black_box(&request);
        let mut data = Vec::with_capacity(220);
        data.extend_from_slice(b"{\"value\":\"");
        data.extend_from_slice(&[b'x'; 200]);
        data.extend_from_slice(b"\"}");
        let reply = Reply::logical(Logical {
            data: Some(Zeroizing::new(data)),
            lease_duration: Ttl::seconds(2_764_800),
            ..Logical::default()
        });
        Answer { request_id: *b"00000000-0000-0000-0000-000000000000", reply }
    }
}

struct NoPort;

impl AdminPort for NoPort {
    fn status<'a>(&'a self, _: &'a AdminPeer) -> AdminFuture<'a, AdminStatus> {
        Box::pin(async { AdminStatus::default() })
    }
    fn seal<'a>(&'a self, _: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(async { Ok(()) })
    }
    fn recover<'a>(
        &'a self,
        _: secret::SecretBytes,
        _: bool,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Recovered, Option<serde_json::Value>), AdminRefusal>> {
        Box::pin(async { Ok((Recovered::Kept { why: String::new() }, None)) })
    }
    fn slots<'a>(
        &'a self,
        _: server::SlotWish,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<serde_json::Value, AdminRefusal>> {
        Box::pin(async { Ok(serde_json::Value::Null) })
    }
    fn generate_root<'a>(
        &'a self,
        _: secret::SecretBytes,
        _: api::Ttl,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(api::Auth, Recovered), AdminRefusal>> {
        Box::pin(async { Err(AdminRefusal { status: api::Status::NOT_FOUND, told: String::new() }) })
    }
    fn rekey<'a>(
        &'a self,
        _: secret::SecretBytes,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<Recovered, AdminRefusal>> {
        Box::pin(async { Ok(Recovered::Kept { why: String::new() }) })
    }
    fn confirm_recovery<'a>(
        &'a self,
        _: secret::SecretBytes,
        _: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(async { Ok(()) })
    }
}
