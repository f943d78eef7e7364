//! A holder that gives the key and then hangs: what is here is given, and does not wait for the logout.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use host::BootTime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Lets everybody in and has one key for all; nobody is let out.
struct Holder {
    port: u16,
    logouts: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Holder {
    fn new(pair: &testkit::Pair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let (logouts, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (asked, ended) = (Arc::clone(&logouts), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for tcp in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                serve(StreamOwned::new(tls, tcp.unwrap()), &asked);
            }
        });
        Self { port, logouts, over, thread: Some(thread) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Until the other side hangs up.
fn serve(mut stream: impl Read + Write, logouts: &AtomicU32) {
    while let Some(head) = request(&mut stream) {
        let body = match head.split(' ').nth(1).unwrap() {
            "/v1/auth/approle/login" => {
                r#"{"request_id":"r","auth":{"client_token":"s.one","accessor":"one","token_type":"service"}}"#
            }
            "/v1/escrow/device-01" => concat!(
                r#"{"request_id":"r","data":{"ikm":"000102030405060708090a0b0c0d0e0f"#,
                r#"101112131415161718191a1b1c1d1e1f"}}"#
            ),
            _ => {
                logouts.fetch_add(1, Ordering::SeqCst);
                continue;
            }
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        if stream
            .write_all([answer.as_bytes(), body.as_bytes()].concat().as_slice())
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
    }
}

/// The head of a request, its body being read too.
fn request(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

#[test]
fn a_key_that_is_here_does_not_wait_for_the_logout() {
    let (ca, dir) = (testkit::SiteCa::new(), testkit::scratch_dir());
    let holder = Holder::new(&ca.server("127.0.0.1"));
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        OsDisk.write_new(&path, text.as_bytes(), 0o600, None).unwrap();
        path
    };
    let setup = Escrow {
        host: "127.0.0.1".into(),
        port: holder.port,
        ca: file("ca.pem", ca.pem()),
        server_name: None,
        identity: None,
        login: Login::AppRole { mount: named("approle"), role_id: named("one"), secret_id: file("secret", "two\n") },
        hold: Hold::Kv { mount: named("escrow"), path: named("device-01"), version: 1 },
    };
    let clock = OsClock::new().unwrap();
    let soon = |begun: BootTime| clock.boottime().since(begun) < LONG / 2;
    let begun = clock.boottime();
    let made = provision(&setup).unwrap();
    assert!(soon(begun), "the logout has a limit of its own");
    let begun = clock.boottime();
    opens(&setup, &made);
    assert!(soon(begun));
    assert_eq!(holder.logouts.load(Ordering::SeqCst), 2);
}
