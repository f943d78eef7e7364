//! Clients that are asked for a certificate: what reaches the handler is what the handshake has proven.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, SignatureScheme};
use serde_json::{Value, json};
use server::{Limits, Security, TlsVersions};
use testkit::{Pair, SiteCa};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

fn asking() -> Bench {
    let bench = Bench::tls(Limits::default());
    bench.echo.asks.store(true, Ordering::SeqCst);
    bench
}

/// Shows a certificate, and signs with the key of whichever pair it is told to.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn client(bench: &Bench, shows: Option<(&str, &Pair)>) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(bench.ca.der().to_vec())).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shows {
        None => builder.with_no_client_auth(),
        Some((chain, pair)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
            builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))))
        }
    })
}

async fn connect(bench: &Bench, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(bench.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// What the handler knows of the client; an error if the server ends the connection, as TLS 1.3 lets it do after the
/// client's handshake is over.
async fn seen(bench: &Bench, config: &Arc<ClientConfig>) -> io::Result<Value> {
    use tokio::io::AsyncWriteExt;
    let mut stream = connect(bench, config).await?;
    stream.write_all(get("/v1/shown").as_bytes()).await?;
    let mut first = [0; 1];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await?;
    let reply = String::from_utf8_lossy(&first).into_owned() + &reply(&mut stream).await;
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    Ok(serde_json::from_str::<Value>(body).unwrap()["data"].clone())
}

#[tokio::test]
async fn a_certificate_reaches_the_handler_and_a_client_without_one_is_served() {
    let (bench, ca) = (asking(), SiteCa::new());
    let pair = ca.device("device-07");
    let seven = client(&bench, Some((&pair.certificate, &pair)));
    let shown = seen(&bench, &seven).await.unwrap();
    assert_eq!((&shown["chain"], &shown["name"]), (&json!(1), &json!("device-07")));
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(seen(&bench, &client(&bench, None)).await.unwrap(), Value::Null);
    let past = ca.client_of_the_past("device-07");
    let past = client(&bench, Some((&past.certificate, &past)));
    assert_ne!(seen(&bench, &past).await.unwrap(), Value::Null, "whom to trust is not the handshake's matter");
}

#[tokio::test]
async fn a_certificate_without_its_key_ends_the_handshake() {
    let (bench, ca) = (asking(), SiteCa::new());
    let (seven, thief) = (ca.device("device-07"), ca.device("thief"));
    let config = client(&bench, Some((&seven.certificate, &thief)));
    assert!(seen(&bench, &config).await.is_err());
}

#[tokio::test]
async fn nobody_is_asked_while_nobody_wants_to_know() {
    let (bench, ca) = (Bench::tls(Limits::default()), SiteCa::new());
    let pair = ca.device("device-07");
    let config = client(&bench, Some((&pair.certificate, &pair)));
    assert_eq!(seen(&bench, &config).await.unwrap(), Value::Null);
    bench.echo.asks.store(true, Ordering::SeqCst);
    assert_eq!(
        seen(&bench, &config).await.unwrap()["name"],
        json!("device-07"),
        "no session of before is gone on with"
    );
}

/// Bytes to the server and from it until the client's handshake is over.
fn handshake_bytes(address: std::net::SocketAddr, config: Arc<ClientConfig>) -> io::Result<(usize, usize)> {
    let mut stream = std::net::TcpStream::connect(address)?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let (mut sent, mut received) = (0, 0);
    while tls.is_handshaking() || tls.wants_write() {
        while tls.wants_write() {
            sent += tls.write_tls(&mut stream)?;
        }
        if tls.is_handshaking() {
            received += tls.read_tls(&mut stream)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok((sent, received))
}

#[tokio::test]
async fn being_asked_costs_a_client_without_a_certificate_a_hundred_bytes() {
    let bench = Bench::tls(Limits::default());
    let (address, config) = (bench.address(), client(&bench, None));
    let bytes = async || {
        let config = Arc::clone(&config);
        tokio::task::spawn_blocking(move || handshake_bytes(address, config)).await.unwrap().unwrap()
    };
    let quiet = bytes().await;
    bench.echo.asks.store(true, Ordering::SeqCst);
    let asked = bytes().await;
    let more = (asked.0.abs_diff(quiet.0), asked.1.abs_diff(quiet.1));
    assert!(more.0 < 50 && more.1 < 100, "{quiet:?} {asked:?}");
}

#[tokio::test]
async fn each_connection_proves_the_key_anew() {
    let (bench, ca) = (asking(), SiteCa::new());
    let pair = ca.device("device-07");
    let config = client(&bench, Some((&pair.certificate, &pair)));
    for _ in 0..3 {
        let mut stream = connect(&bench, &config).await.unwrap();
        assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_chain_that_is_too_long_ends_the_handshake() {
    let (bench, ca) = (asking(), SiteCa::new());
    let pair = ca.device("device-07");
    let chain = |others: usize| pair.certificate.clone() + &ca.pem().repeat(others);
    let shown = seen(&bench, &client(&bench, Some((&chain(4), &pair)))).await.unwrap();
    assert_eq!(shown["chain"], json!(5));
    assert!(seen(&bench, &client(&bench, Some((&chain(5), &pair)))).await.is_err());
}

#[tokio::test]
async fn tls_1_2_proves_as_much() {
    let mut bench = Bench::sealed(Security::Device { versions: TlsVersions::DangerTls12 }, Limits::default());
    bench.unseal();
    bench.echo.asks.store(true, Ordering::SeqCst);
    let ca = SiteCa::new();
    let (seven, thief) = (ca.device("device-07"), ca.device("thief"));
    let older = |pair: &Pair| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(bench.ca.der().to_vec())).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(seven.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))));
        Arc::new(config)
    };
    let config = older(&seven);
    for _ in 0..2 {
        assert_eq!(seen(&bench, &config).await.unwrap()["name"], json!("device-07"));
    }
    assert!(seen(&bench, &older(&thief)).await.is_err());
}
