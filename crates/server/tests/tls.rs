//! The TLS listener as clients and strangers meet it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a scratch file for openssl

mod common;

use common::*;
use host::OsEntropy;
use server::{Identity, Limits, Security, TlsVersions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn the_hybrid_exchange_is_first_and_the_version_is_1_3() {
    let bench = Bench::tls(Limits::default());
    let mut stream = tls_client(&bench.ca, bench.address(), "localhost").await;
    assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200);
    let (_, session) = stream.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.negotiated_key_exchange_group().map(|g| g.name()), Some(rustls::NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn a_client_that_pins_the_ca_refuses_another_device() {
    let (bench, other) = (Bench::tls(Limits::default()), Bench::plain(Limits::default()));
    assert!(try_tls(&other.ca, bench.address(), "localhost").await.is_err());
    assert!(try_tls(&bench.ca, bench.address(), "elsewhere").await.is_err());
    assert!(try_tls(&bench.ca, bench.address(), "127.0.0.1").await.is_ok());
}

#[tokio::test]
async fn an_unknown_server_name_is_shown_the_same_certificate() {
    if testkit::is_skipped("openssl") {
        return;
    }
    let bench = Bench::tls(Limits::default());
    let text = openssl(&bench, &["-servername", "who.is.that"]).await;
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
}

#[tokio::test]
async fn openssl_verifies_with_the_devices_ca_and_gets_no_older_version() {
    if testkit::is_skipped("openssl") {
        return;
    }
    let bench = Bench::tls(Limits::default());
    let text = openssl(&bench, &["-verify_hostname", "localhost"]).await;
    assert!(text.contains("Verify return code: 0 (ok)") && text.contains("TLSv1.3"), "{text}");
    let text = openssl(&bench, &["-tls1_2"]).await;
    assert!(text.contains("alert protocol version") && text.contains("no peer certificate available"), "{text}");
}

#[tokio::test]
async fn tls_1_2_is_there_only_where_it_was_asked_for() {
    if testkit::is_skipped("openssl") {
        return;
    }
    let mut bench = Bench::sealed(Security::Device { versions: TlsVersions::DangerTls12 }, Limits::default());
    bench.unseal();
    let text = openssl(&bench, &["-tls1_2", "-verify_hostname", "localhost"]).await;
    assert!(text.contains("Verify return code: 0 (ok)") && text.contains("ECDHE-ECDSA-AES"), "{text}");
}

/// Runs `openssl s_client` against the bench until it has shaken hands.
async fn openssl(bench: &Bench, arguments: &[&str]) -> String {
    let ca = bench.dir.path().join("ca.pem");
    std::fs::write(&ca, bench.ca.pem()).unwrap();
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-connect", &bench.address().to_string(), "-verify_return_error", "-CAfile"]).arg(&ca);
    command.args(arguments).stdin(std::process::Stdio::null());
    let out = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .expect("openssl is missing: apt-get install openssl, or EDGEKEEP_TEST_SKIP=openssl");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// Clear text on the TLS port, and handshakes that stop: nothing is answered but an alert, and others are served.
#[tokio::test]
async fn clear_text_to_the_tls_port_gets_no_http() {
    let bench = Bench::tls(short());
    let request = "GET /v1/secret/a HTTP/1.1\r\nHost: h\r\nX-Vault-Token: s.secret\r\n\r\n";
    let said = to_the_end(bench.connect().await, request.as_bytes()).await;
    assert!(!said.contains("HTTP"), "{said:?}");
    let mut silent = bench.connect().await;
    assert_eq!(rest(&mut silent).await, "", "a handshake that does not begin is closed");
    let mut half = bench.connect().await;
    half.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    assert_eq!(rest(&mut half).await, "");
    assert_eq!(bench.server.counts().handshakes_failed, 3);
    // Others are served; who was held up by this machine for longer than the server waits comes again.
    let served = async {
        loop {
            let Ok(mut stream) = try_tls(&bench.ca, bench.address(), "localhost").await else { continue };
            let request = "GET /v1/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            if stream.write_all(request.as_bytes()).await.is_ok()
                && rest(&mut stream).await.starts_with("HTTP/1.1 200 ")
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("others are served");
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    let bench = Bench::tls(Limits::default());
    let mut old = tls_client(&bench.ca, bench.address(), "localhost").await;
    let names = pki::ServerNames::parse(["edge.local"]).unwrap();
    let renewed = bench.ca.issue_server(&names, &OsEntropy).unwrap();
    bench.server.replace_identity(Identity::of_device(&renewed).unwrap());
    assert!(try_tls(&bench.ca, bench.address(), "localhost").await.is_err());
    assert!(try_tls(&bench.ca, bench.address(), "edge.local").await.is_ok());
    assert_eq!(status(&ask(&mut old, &get("/v1/a")).await), 200, "who was there before goes on");
}

#[tokio::test]
async fn tls_replies_ask_browsers_to_stay_with_tls() {
    let bench = Bench::tls(Limits::default());
    let mut stream = tls_client(&bench.ca, bench.address(), "localhost").await;
    stream.write_all(get("/v1/nothing").as_bytes()).await.unwrap();
    let mut said = [0; 4096];
    let n = stream.read(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said[..n]).into_owned();
    assert!(said.contains("strict-transport-security: max-age=31536000\r\n"), "{said}");
}
