//! What strangers send. Each is refused or cut, nothing reaches the handler that should not, and the next client is
//! served.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// After whatever happened, the server answers an honest request. Where its patience is short, a machine that held us
/// up has us ask again.
async fn still_serves(bench: &Bench) {
    let request = get("/v1/secret/a").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let served =
        async { while !to_the_end(bench.connect().await, request.as_bytes()).await.starts_with("HTTP/1.1 200 ") {} };
    tokio::time::timeout(PATIENCE, served).await.expect("an honest request is answered");
}

#[tokio::test]
async fn refused_with_a_status_and_without_an_echo() {
    let bench = Bench::plain(Limits::default());
    let long_header = format!("GET /v1/a HTTP/1.1\r\nHost: h\r\nX-A: {}\r\n\r\n", "MARK".repeat(5000));
    let many_headers = format!("GET /v1/a HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-A: MARK\r\n".repeat(70));
    let long_path = format!("GET /v1/{} HTTP/1.1\r\nHost: h\r\n\r\n", "MARK".repeat(300));
    for (name, sent, wanted) in [
        ("not http", "MARK\r\n\r\n", 400),
        ("http 0.9", "GET /v1/MARK\r\n\r\n", 400),
        ("binary", "\x00\x01\x02MARK\r\n\r\n", 400),
        ("tls hello", "\x16\x03\x01\x02\x00\x01\x00\x01\x7f\x03\x03MARK\r\n\r\n", 400),
        ("bare line feed in a value", "GET /v1/a HTTP/1.1\r\nX: a\x01MARK\r\n\r\n", 400),
        ("space before the colon", "GET /v1/a HTTP/1.1\r\nHost : MARK\r\n\r\n", 400),
        ("folded header", "GET /v1/a HTTP/1.1\r\nHost: h\r\n MARK\r\n\r\n", 400),
        ("future version", "GET /v1/MARK HTTP/9.9\r\n\r\n", 400),
        ("header too long", &long_header, 431),
        ("too many headers", &many_headers, 431),
        ("path too long", &long_path, 400),
        ("bad percent", "GET /v1/%zzMARK HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("parent", "GET /v1/MARK/../../sys HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("encoded parent", "GET /v1/MARK/%2e%2e/sys HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("encoded control", "GET /v1/MARK%0a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("outside", "GET /MARK HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        ("method", "MARK /v1/a HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("two tokens", "GET /v1/a HTTP/1.1\r\nX-Vault-Token: MARK\r\nX-Vault-Token: b\r\n\r\n", 400),
        ("lengths that differ", "POST /v1/a HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nMARKK", 400),
        ("length that is none", "POST /v1/a HTTP/1.1\r\nContent-Length: +4\r\n\r\nMARK", 400),
        ("length beyond numbers", "POST /v1/a HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nMARK", 431),
        ("too large", "POST /v1/a HTTP/1.1\r\nContent-Length: 1048577\r\n\r\nMARK", 413),
        ("chunked in http 1.0", "POST /v1/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("coding unknown", "POST /v1/a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nMARK", 400),
        ("chunk size", "POST /v1/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nMARK\r\n", 400),
        (
            "form",
            "POST /v1/a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\nMARK=1",
            400,
        ),
    ] {
        let mut stream = bench.connect().await;
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut said = vec![0; 4096];
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut said)).await.expect("an answer").unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..n]).into_owned();
        assert_eq!(status(&said), wanted, "{name}: {said}");
        assert!(!said.contains("MARK"), "{name} is echoed: {said}");
        assert!(!said.to_lowercase().contains("server:") && !said.to_lowercase().contains("date:"), "{said}");
    }
    still_serves(&bench).await;
}

#[tokio::test]
async fn a_slowloris_is_cut_though_it_never_stops_sending() {
    let bench = Bench::plain(Limits { head: short().head, ..Limits::default() });
    let mut stream = bench.connect().await;
    stream.write_all(b"GET /v1/a HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let begun = tokio::time::Instant::now();
    let drip = async {
        let mut tick = tokio::time::interval(short().head / 10);
        loop {
            tick.tick().await;
            if writer.write_all(b"X-A: b\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        said = rest(&mut reader) => assert_eq!(said, ""),
        () = drip => {}
    }
    assert!(begun.elapsed() < PATIENCE / 2);
    assert_eq!(bench.server.counts().cut, 1);
    still_serves(&bench).await;
}

#[tokio::test]
async fn silence_is_closed_in_order() {
    let bench = Bench::plain(Limits { idle: short().idle, ..Limits::default() });
    let mut stream = bench.connect().await;
    assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200);
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(bench.server.counts().cut, 0);
}

#[tokio::test]
async fn a_peer_that_takes_no_reply_is_cut() {
    let bench = Bench::plain(Limits { stall: short().stall, ..Limits::default() });
    let mut stream = bench.connect().await;
    // More replies than the kernel's buffers hold, and never a byte read.
    for _ in 0..30 {
        if stream.write_all(get("/v1/large").as_bytes()).await.is_err() {
            break;
        }
    }
    let cut = async {
        while bench.server.counts().cut == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("the connection is cut");
    still_serves(&bench).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused() {
    let limits = Limits { request: std::time::Duration::from_millis(300), ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut stream = bench.connect().await;
    stream.write_all(b"POST /v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{").await.unwrap();
    assert_eq!(status(&reply(&mut stream).await), 408);
    still_serves(&bench).await;
}

/// A request with a body of so many bytes, an object in JSON.
fn post(bytes: usize) -> String {
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - 8));
    format!("POST /v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n{body}")
}

#[tokio::test]
async fn bodies_that_are_announced_and_never_sent_stop_nobodys() {
    let bench = Bench::plain(Limits::default());
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = bench.connect().await;
        stream.write_all(b"POST /v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n{").await.unwrap();
        silent.push(stream);
    }
    let mut stream = bench.connect().await;
    assert_eq!(status(&ask(&mut stream, &post(1_000_000)).await), 200);
    let mut socket = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
    assert_eq!(status(&ask(&mut socket, &post(1_000_000)).await), 200);
}

#[tokio::test]
async fn a_full_budget_of_the_network_leaves_the_sockets_theirs() {
    let limits = Limits { body_budget_bytes: 200_000, ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut held = bench.connect().await;
    let most = post(100_000);
    // All but the last byte.
    held.write_all(&most.as_bytes()[..most.len() - 1]).await.unwrap();
    let crowded = async {
        loop {
            let mut stream = bench.connect().await;
            if status(&ask(&mut stream, &post(50_000)).await) == 503 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, crowded).await.expect("one address has its half, and no more");
    let mut socket = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
    assert_eq!(status(&ask(&mut socket, &post(50_000)).await), 200);
    held.write_all(&most.as_bytes()[most.len() - 1..]).await.unwrap();
    assert_eq!(status(&reply(&mut held).await), 200);
}

#[tokio::test]
async fn a_flood_of_chunks_ends_at_the_limit() {
    let bench = Bench::plain(Limits::default());
    let mut stream = bench.connect().await;
    stream.write_all(b"POST /v1/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let (mut reader, mut writer) = stream.split();
    let flood = async {
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        said = rest(&mut reader) => assert_eq!(status(&said), 413),
        () = flood => {}
    }
    still_serves(&bench).await;
}

/// CL.TE: a proxy that believes the length would send the rest as the beginning of another's request (RFC 9112, 6.3).
/// hyper ends the connection with the reply, so the rest is nobody's request; this holds it to that.
#[tokio::test]
async fn smuggling_by_two_lengths_ends_the_connection() {
    for both in
        ["Content-Length: 42\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 42\r\n"]
    {
        let bench = Bench::plain(Limits::default());
        let sent = format!(
            "POST /v1/a HTTP/1.1\r\nHost: h\r\n{both}\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        let said = to_the_end(bench.connect().await, sent.as_bytes()).await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        assert!(!said.contains("smuggled"), "{said}");
        assert!(said.to_lowercase().contains("connection: close"), "{said}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let bench = Bench::plain(Limits::default());
    let sent = format!(
        "{}{}{}",
        get("/v1/one"),
        "POST /v1/two HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        "GET /v1/three HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    );
    let said = to_the_end(bench.connect().await, sent.as_bytes()).await;
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text} in {said}"));
    assert!(at("\"path\":\"one\"") < at("\"path\":\"two\"") && at("\"path\":\"two\"") < at("\"path\":\"three\""));
}

#[tokio::test]
async fn a_handler_that_panics_takes_nobody_with_it() {
    let bench = Bench::plain(Limits::default());
    let mut stream = bench.connect().await;
    for path in ["/v1/panic", "/v1/panic-at-once"] {
        let said = ask(&mut stream, &get(path)).await;
        assert_eq!(status(&said), 500);
        assert!(said.ends_with("{\"errors\":[\"internal error\"]}\n"), "{said}");
    }
    still_serves(&bench).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let limits = Limits { tcp_connections: 1, ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut first = bench.connect().await;
    assert_eq!(status(&ask(&mut first, &get("/v1/a")).await), 200);
    let mut second = bench.connect().await;
    second.write_all(get("/v1/b").as_bytes()).await.unwrap();
    assert_eq!(bench.server.counts().connections, 1);
    // The services' socket is not starved by it.
    let mut socket = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
    assert_eq!(status(&ask(&mut socket, &get("/v1/c")).await), 200);
    drop(first);
    assert_eq!(status(&reply(&mut second).await), 200);
}

use server::Limits;

#[tokio::test]
async fn one_user_leaves_room_at_the_socket_and_at_the_network() {
    let limits = Limits { connections_per_user: 2, socket_connections: 3, ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
        assert_eq!(status(&ask(&mut stream, &get("/v1/a")).await), 200);
        held.push(stream);
    }
    let third = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
    assert_eq!(to_the_end(third, b"").await, "", "closed without a word");
    assert_eq!(bench.server.counts().crowded, 1);
    // Whoever administers is not counted with the services.
    let mut admin = bench.admin().await;
    assert_eq!(status(&ask(&mut admin, &get("/admin/status")).await), 200);
    still_serves(&bench).await;
    held.clear();
    let again = async {
        loop {
            let mut stream = tokio::net::UnixStream::connect(bench.api_path()).await.unwrap();
            stream.write_all(get("/v1/a").as_bytes()).await.unwrap_or(());
            if stream.read_u8().await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("who left has made room");
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_makes_room_soon() {
    let limits = Limits { tcp_connections: 1, first: std::time::Duration::from_millis(300), ..Limits::default() };
    let bench = Bench::plain(limits);
    let mut silent = bench.connect().await;
    let mut next = bench.connect().await;
    next.write_all(get("/v1/b").as_bytes()).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(status(&reply(&mut next).await), 200);
}
