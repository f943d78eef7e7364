//! The transports against servers that behave and servers that do not.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::{ApiPath, Body, Operation, Payload, Request};
use client::{CallError, DangerPlainVault, Deadlines, HttpsVault, Trust, UnixVault, Vault};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secret::Token;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn read_request(path: &str) -> Request {
    Request::new(Operation::Read, ApiPath::parse(path).unwrap()).with_token(Token::parse("s.test").unwrap())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"sealed\":0}\n";
const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"sealed\":0}\n";

/// Answers each request with the next of `replies`, then closes. Returns what it read.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, replies: &[&[u8]]) -> Vec<u8> {
    let mut read = Vec::new();
    for reply in replies {
        let start = read.len();
        while !read[start..].windows(4).any(|w| w == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return read;
            }
        }
        stream.write_all(reply).await.ok();
        stream.flush().await.ok();
    }
    stream.shutdown().await.ok();
    read
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn trust(&self) -> Trust {
        Trust::of_pem(self.pem.as_bytes()).unwrap()
    }

    fn acceptor(&self, name: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A TLS server on loopback that answers each connection with `replies`; counts the handshakes that came through.
async fn tls_server(acceptor: TlsAcceptor, replies: &'static [&'static [u8]]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(tls, replies).await;
            }
        }
    });
    (port, count)
}

/// A plain server that runs `serve` for each connection.
async fn plain_server(replies: &'static [&'static [u8]]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            answer(tcp, replies).await;
        }
    });
    (port, count)
}

fn https(port: u16, trust: &Trust) -> HttpsVault {
    HttpsVault::new("127.0.0.1", port, trust, Deadlines::default()).unwrap()
}

fn plain(port: u16) -> DangerPlainVault {
    DangerPlainVault::new("127.0.0.1", port, Deadlines::default()).unwrap()
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[test]
fn one_connection_serves_many_calls() {
    run(async {
        let ca = Ca::new();
        let (port, connections) = tls_server(ca.acceptor("127.0.0.1", BOTH), &[OK, OK, OK]).await;
        let vault = https(port, &ca.trust());
        for _ in 0..3 {
            let reply = vault.call(read_request("sys/health")).await.unwrap();
            assert!(matches!(reply.payload, Payload::Raw { .. }));
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_server_of_another_ca_is_untrusted() {
    run(async {
        let (port, connections) = tls_server(Ca::new().acceptor("127.0.0.1", BOTH), &[OK]).await;
        let error = https(port, &Ca::new().trust()).call(read_request("a")).await.unwrap_err();
        assert!(matches!(error, CallError::Untrusted { .. }), "{error:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 0, "no request may have been sent");
    });
}

#[test]
fn a_server_of_another_name_is_untrusted_unless_the_name_is_configured() {
    run(async {
        let ca = Ca::new();
        let (port, _) = tls_server(ca.acceptor("edgekeep.internal", BOTH), &[OK]).await;
        let error = https(port, &ca.trust()).call(read_request("a")).await.unwrap_err();
        assert!(matches!(error, CallError::Untrusted { .. }), "{error:?}");
        let named = ca.trust().named("edgekeep.internal").unwrap();
        assert!(https(port, &named).call(read_request("a")).await.is_ok());
    });
}

#[test]
fn tls12_is_spoken_only_where_it_is_allowed() {
    run(async {
        let ca = Ca::new();
        let (port, _) = tls_server(ca.acceptor("127.0.0.1", &[&rustls::version::TLS12]), &[OK]).await;
        let error = https(port, &ca.trust()).call(read_request("a")).await.unwrap_err();
        assert!(matches!(error, CallError::Untrusted { .. }), "{error:?}");
        assert!(https(port, &ca.trust().allow_tls12()).call(read_request("a")).await.is_ok());
    });
}

#[test]
fn a_connection_closed_while_idle_is_made_anew() {
    run(async {
        let (port, connections) = plain_server(&[OK]).await;
        let vault = plain(port);
        for _ in 0..3 {
            vault.call(read_request("a")).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        let (port, connections) = plain_server(&[CLOSE, OK]).await;
        let vault = plain(port);
        for _ in 0..2 {
            vault.call(read_request("a")).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_call_that_breaks_in_the_middle_is_not_sent_again() {
    run(async {
        let (port, connections) = plain_server(&[OK, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]).await;
        let vault = plain(port);
        vault.call(read_request("a")).await.unwrap();
        let error = vault.call(read_request("a")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn what_is_no_reply_is_malformed() {
    run(async {
        let html = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
        for (replies, reason) in
            [(&[&b"SSH-2.0-OpenSSH_9\r\n\r\n"[..]][..], "it is not HTTP/1.1"), (&[&html[..]][..], "it is not JSON")]
        {
            let (port, _) = plain_server(replies.to_vec().leak()).await;
            let error = plain(port).call(read_request("a")).await.unwrap_err();
            assert!(matches!(&error, CallError::Malformed { reason: r, .. } if r == reason), "{error:?}");
        }
        // A server that greets first, as one for SSH or SMTP does.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"220 mail.example ready\r\n").await.unwrap();
            tcp.read_to_end(&mut Vec::new()).await.ok();
        });
        let error = https(port, &Ca::new().trust()).call(read_request("a")).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Malformed { reason, .. } if reason == "it does not speak TLS"),
            "{error:?}"
        );
    });
}

#[test]
fn a_reply_without_end_is_cut_off() {
    run(async {
        let mut flood = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n".to_vec();
        flood.resize(5 * 1024 * 1024, b' ');
        let replies: Vec<&'static [u8]> = vec![flood.leak()];
        let (port, _) = plain_server(replies.leak()).await;
        let error = plain(port).call(read_request("a")).await.unwrap_err();
        assert!(matches!(&error, CallError::Malformed { reason, .. } if reason.contains("4 MiB")), "{error:?}");
    });
}

#[test]
fn silence_ends_at_the_deadline() {
    run(async {
        // The kernel completes the connection; nobody ever accepts it.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let deadlines = Deadlines { connect: Duration::from_secs(5), total: Duration::from_millis(30) };
        let vault = DangerPlainVault::new("127.0.0.1", port, deadlines).unwrap();
        assert!(matches!(vault.call(read_request("a")).await.unwrap_err(), CallError::TimedOut { .. }));
        let deadlines = Deadlines { connect: Duration::from_millis(30), total: Duration::from_secs(5) };
        let vault = HttpsVault::new("127.0.0.1", port, &Ca::new().trust(), deadlines).unwrap();
        assert!(matches!(vault.call(read_request("a")).await.unwrap_err(), CallError::TimedOut { .. }));
    });
}

#[test]
fn nobody_there_is_unreachable() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let vault = UnixVault::new(folder.path().join("none.sock"), Deadlines::default());
        let error = vault.call(read_request("a")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    });
}

#[test]
fn a_unix_socket_carries_the_same_calls() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            answer(socket, &[b"HTTP/1.1 204 No Content\r\n\r\n"]).await
        });
        let vault = UnixVault::new(&path, Deadlines::default());
        let body = Body::new(b"{\"value\":\"x\"}".to_vec().into());
        let write = Request::new(Operation::Write, ApiPath::parse("secret/a b").unwrap())
            .with_body(body)
            .with_token(Token::parse("s.test").unwrap());
        let reply = vault.call(write).await.unwrap();
        assert_eq!(reply.status.0, 204);
        drop(vault);
        let sent = String::from_utf8(served.await.unwrap()).unwrap();
        assert!(sent.starts_with("POST /v1/secret/a%20b HTTP/1.1\r\nhost: localhost\r\n"), "{sent}");
        assert!(
            sent.contains("\r\nx-vault-token: s.test\r\n") && sent.contains("\r\nx-vault-request: true\r\n"),
            "{sent}"
        );
    });
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    for host in ["192.0.2.1", "vault.example", "10.0.0.1", "::2", "localhost.example"] {
        assert!(DangerPlainVault::new(host, 8200, Deadlines::default()).is_err(), "{host}");
    }
    for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
        assert!(DangerPlainVault::new(host, 8200, Deadlines::default()).is_ok(), "{host}");
    }
}
