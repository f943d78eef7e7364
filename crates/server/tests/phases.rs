//! What listens in which phase, what it says there, and how it ends.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use server::{Drained, Identity, Limits, Security, TlsVersions};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn sealed_only_the_admin_socket_listens() {
    let bench = Bench::sealed(Security::Device { versions: TlsVersions::Tls13 }, Limits::default());
    assert!(bench.server.addresses().tcp.is_empty());
    assert!(UnixStream::connect(bench.api_path()).await.is_err());
    let mut admin = bench.admin().await;
    let said = ask(&mut admin, &get("/admin/status")).await;
    assert!(said.contains("\"state\":\"sealed\"") && said.contains("\"waits_for\":\"tokens\""), "{said}");
    assert_eq!(status(&ask(&mut admin, &get("/v1/sys/health")).await), 503);
}

#[tokio::test]
async fn sealed_nothing_but_health_and_seal_status_is_answered() {
    let bench = Bench::sealed(Security::DangerPlainHttp, Limits::default());
    let mut admin = bench.admin().await;
    for (request, wanted) in [
        (get("/v1/sys/health"), 503),
        (get("/v1/sys/health?sealedcode=299"), 299),
        (get("/v1/sys/health?sealedcode=99"), 400),
        (get("/v1/sys/health?sealedcode=x"), 400),
        (get("/v1/sys/seal-status"), 200),
    ] {
        assert_eq!(status(&ask(&mut admin, &request).await), wanted, "{request}");
    }
    // Before the token is looked at: a right one, a wrong one and none get the same.
    let mut answers = Vec::new();
    for token in ["", "X-Vault-Token: s.right\r\n", "X-Vault-Token: wrong\r\n"] {
        for path in ["secret/a", "sys/mounts", "auth/userpass/login/u", "sys/init"] {
            answers.push(ask(&mut admin, &format!("GET /v1/{path} HTTP/1.1\r\nHost: h\r\n{token}\r\n")).await);
        }
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert!(answers[0].ends_with("{\"errors\":[\"Vault is sealed\"]}\n"), "{}", answers[0]);
}

#[tokio::test]
async fn an_operators_certificate_serves_health_while_sealed() {
    let other = Bench::plain(Limits::default());
    let identity = Identity::of_device(&other.device).unwrap();
    let security = Security::Operator { identity, versions: TlsVersions::Tls13 };
    let mut bench = Bench::sealed(security, Limits::default());
    let address = bench.address();
    let mut stream = tls_client(&other.ca, address, "localhost").await;
    assert_eq!(status(&ask(&mut stream, &get("/v1/sys/health")).await), 503);
    assert_eq!(status(&ask(&mut stream, &get("/v1/secret/a")).await), 503);
    bench.unseal();
    assert_eq!(bench.address(), address, "the same listener goes on");
    assert_eq!(status(&ask(&mut stream, &get("/v1/secret/a")).await), 200, "and so does the connection");
}

#[tokio::test]
async fn sealing_stops_answers_at_once_and_closes_the_listeners() {
    let mut bench = Bench::plain(Limits::default());
    let address = bench.address();
    let mut stream = bench.connect().await;
    assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200);
    assert_eq!(bench.server.seal(sealed(), PATIENCE).await, Drained::Whole);
    assert_eq!(rest(&mut stream).await, "");
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!bench.api_path().exists());
    let mut admin = bench.admin().await;
    assert_eq!(status(&ask(&mut admin, &get("/v1/a")).await), 503);
    bench.unseal();
    let mut stream = bench.connect().await;
    assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200, "and it opens again");
}

#[tokio::test]
async fn a_port_in_use_leaves_the_store_sealed_and_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let listen = server::Listen {
        tcp: Some(server::Tcp::new(vec![free, address], Security::DangerPlainHttp).unwrap()),
        api_socket: None,
        admin_socket: dir.path().join("admin/admin.sock"),
    };
    let machine = server::Machine { clock: Arc::new(host::OsClock::new().unwrap()), disk: Arc::new(host::OsDisk) };
    let desk = Arc::new(Desk::default());
    let mut server = server::Server::start(listen, Limits::default(), sealed(), desk, machine).unwrap();
    let bench = Bench::plain(Limits::default());
    let refused = server.unseal(Arc::<Echo>::default(), &Identity::of_device(&bench.device).unwrap()).unwrap_err();
    assert_eq!(refused.to_string(), format!("cannot listen at {address}"));
    assert!(refused.hint().unwrap().contains("another process listens there"));
    assert!(server.addresses().tcp.is_empty(), "the first address is not left open");
}

#[tokio::test]
async fn what_is_begun_is_finished_though_the_client_leaves() {
    let bench = Bench::plain(Limits::default());
    let mut stream = bench.connect().await;
    stream.write_all(post("/v1/wait", "{}").as_bytes()).await.unwrap();
    bench.echo.begun.notified().await;
    drop(stream);
    // The server has seen the client go before the handler may continue.
    let mut other = bench.connect().await;
    assert_eq!(status(&ask(&mut other, &get("/v1/a")).await), 200);
    let echo = Arc::clone(&bench.echo);
    echo.go.notify_one();
    drop(other);
    assert_eq!(bench.server.drain(PATIENCE).await, Drained::Whole);
    assert_eq!(echo.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_drain_waits_for_the_request_under_way_and_takes_no_other() {
    let bench = Bench::plain(Limits::default());
    let address = bench.address();
    let mut busy = bench.connect().await;
    busy.write_all(post("/v1/wait", "{}").as_bytes()).await.unwrap();
    bench.echo.begun.notified().await;
    let mut idle = bench.connect().await;
    assert_eq!(status(&ask(&mut idle, &get("/v1/a")).await), 200);
    let echo = Arc::clone(&bench.echo);
    let drain = tokio::spawn(bench.server.drain(PATIENCE));
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!drain.is_finished());
    echo.go.notify_one();
    assert_eq!(status(&reply(&mut busy).await), 204);
    assert_eq!(drain.await.unwrap(), Drained::Whole);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let bench = Bench::plain(Limits::default());
    let mut busy = bench.connect().await;
    busy.write_all(post("/v1/wait", "{}").as_bytes()).await.unwrap();
    bench.echo.begun.notified().await;
    assert_eq!(bench.server.drain(Duration::from_millis(50)).await, Drained::CutShort);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_and_goes_on() {
    let limits = Limits { request: Duration::from_millis(100), ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut stream = bench.connect().await;
    let said = ask(&mut stream, &post("/v1/wait", "{}")).await;
    assert_eq!(status(&said), 503);
    assert_eq!(bench.server.counts().late, 1);
    bench.echo.go.notify_one();
    drop(stream);
    let echo = Arc::clone(&bench.echo);
    assert_eq!(bench.server.drain(PATIENCE).await, Drained::Whole);
    assert_eq!(echo.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_admin_socket_takes_a_recovery_key_and_no_other_body() {
    let bench = Bench::sealed(Security::DangerPlainHttp, Limits::default());
    let mut admin = bench.admin().await;
    for (request, wanted) in [
        (post("/admin/recover", "{\"key\":\"ekr1-right\"}"), 200),
        (post("/admin/recover/confirm", "{\"key\":\"ekr1-right\"}"), 204),
        (post("/admin/recover/confirm", "{}"), 400),
        (get("/admin/recover/confirm"), 405),
        (post("/admin/recover", "{\"key\":\"ekr1-wrong\"}"), 400),
        (post("/admin/recover", "{\"key\":1}"), 400),
        (post("/admin/recover", "{\"key\":\"a\",\"force\":true}"), 400),
        (post("/admin/recover", ""), 400),
        (post("/admin/seal", ""), 204),
        (get("/admin/seal"), 405),
        (get("/admin/other"), 404),
    ] {
        assert_eq!(status(&ask(&mut admin, &request).await), wanted, "{request}");
    }
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(
        *bench.desk.0.lock().unwrap(),
        ["ekr1-right", "confirm ekr1-right", "ekr1-wrong", &format!("seal by {uid}")]
    );
}

#[tokio::test]
async fn whoever_has_the_recovery_key_gets_a_root_token_that_ends() {
    let bench = Bench::sealed(Security::DangerPlainHttp, Limits::default());
    let mut admin = bench.admin().await;
    for (request, wanted) in [
        (post("/admin/generate-root", "{\"key\":\"k\",\"ttl\":60}"), 200),
        (post("/admin/generate-root", "{\"key\":\"k\"}"), 400),
        (post("/admin/generate-root", "{\"key\":\"k\",\"ttl\":0}"), 400),
        (post("/admin/generate-root", "{\"key\":\"k\",\"ttl\":86401}"), 400),
        (post("/admin/generate-root", "{\"ttl\":60}"), 400),
        (get("/admin/generate-root"), 405),
        (post("/admin/rekey", "{\"key\":\"k\"}"), 200),
        (post("/admin/rekey", "{\"key\":\"k\",\"ttl\":60}"), 400),
        (post("/admin/rekey", "{}"), 400),
        (get("/admin/rekey"), 405),
    ] {
        assert_eq!(status(&ask(&mut admin, &request).await), wanted, "{request}");
    }
    let uid = rustix::process::geteuid().as_raw();
    let asked = [format!("root token for 60 s by {uid} with k"), format!("rekey by {uid} with k")];
    assert_eq!(*bench.desk.0.lock().unwrap(), asked);
    let reply = ask(&mut admin, &post("/admin/generate-root", "{\"key\":\"k\",\"ttl\":60}")).await;
    let wanted = r#"{"token":"s.dEkhu4I7STVTP1T79wpS7bpy","accessor":"cR0V2dz43ZjJObbb39brpVtW","ttl":60,"replaced":"/r/recovery.age"}"#;
    assert!(reply.trim_end().ends_with(wanted), "{reply}");
    let reply = ask(&mut admin, &post("/admin/rekey", "{\"key\":\"k\"}")).await;
    assert!(reply.trim_end().ends_with(r#"{"offered":"ekr1-new"}"#), "{reply}");
}

#[tokio::test]
async fn wishes_about_slots_reach_the_device_with_their_peer_and_no_other_words_do() {
    let bench = Bench::sealed(Security::DangerPlainHttp, Limits::default());
    let mut admin = bench.admin().await;
    for (request, wanted) in [
        (get("/admin/slots"), 200),
        (post("/admin/slots", ""), 405),
        (post("/admin/slots/add", "{}"), 200),
        (post("/admin/slots/remove", "{\"slot\":1}"), 403),
        (post("/admin/slots/remove", "{\"slot\":2}"), 200),
        (post("/admin/slots/remove", "{}"), 400),
        (post("/admin/slots/test", "{\"slot\":\"2\"}"), 400),
        (get("/admin/slots/test"), 405),
        (post("/admin/slots/forget", "{}"), 404),
        (post("/admin/erase", "{}"), 400),
        (post("/admin/erase", ""), 400),
        (post("/admin/erase", "{\"destroys_all_secrets\":false}"), 400),
        (get("/admin/erase"), 405),
        (post("/admin/erase", "{\"destroys_all_secrets\":true}"), 200),
        (post("/admin/slots/predict", "{}"), 400),
        (post("/admin/slots/predict", "{\"pcrs\":\"x\"}"), 200),
        (post("/admin/slots/commit", "{}"), 200),
    ] {
        assert_eq!(status(&ask(&mut admin, &request).await), wanted, "{request}");
    }
    let uid = rustix::process::geteuid().as_raw();
    let wanted = ["List", "Add(None)", "Remove(1)", "Remove(2)", "Erase", "Predict(\"x\")", "Commit"]
        .map(|wish| format!("slots {wish} by {uid}"));
    assert_eq!(*bench.desk.0.lock().unwrap(), wanted);
    let reply = ask(&mut admin, &post("/admin/recover", "{\"key\":\"ekr1-right\",\"reseal\":true}")).await;
    assert!(reply.contains("\"resealed\":{\"added\":[3]}"), "{reply}");
}

#[tokio::test]
async fn admin_routes_exist_on_no_other_listener() {
    let bench = Bench::plain(Limits::default());
    let mut tcp = bench.connect().await;
    let mut api = UnixStream::connect(bench.api_path()).await.unwrap();
    for request in [
        get("/admin/status"),
        get("/admin/slots"),
        post("/admin/seal", ""),
        post("/admin/recover", "{\"key\":\"ekr1-right\"}"),
        post("/admin/generate-root", "{\"key\":\"ekr1-right\",\"ttl\":60}"),
        post("/admin/rekey", "{\"key\":\"ekr1-right\"}"),
    ] {
        assert_eq!(status(&ask(&mut tcp, &request).await), 404, "{request}");
        assert_eq!(status(&ask(&mut api, &request).await), 404, "{request}");
    }
    assert!(bench.desk.0.lock().unwrap().is_empty());
}
