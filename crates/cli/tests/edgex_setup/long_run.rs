//! `--longRun`: services ask for another token, with curl at the socket, and at the open port as EdgeX's own services
//! do.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Pair, SiteCa};

use crate::bao::Bao;
use crate::place::Place;
use crate::runs::only_our_root;

/// The long run of a place, until it is dropped.
pub(crate) struct LongRun(Child);

impl LongRun {
    pub(crate) fn start(place: &Place, socket: &std::path::Path) -> Self {
        let run = Self(place.start("security-secretstore-setup", &["-configDir", "res", "--longRun=true"]));
        place.until("it listens at its socket", || std::os::unix::net::UnixStream::connect(socket).is_ok());
        run
    }

    /// One that listens at a port, too: it does so after the socket.
    pub(crate) fn at_port(place: &Place, socket: &std::path::Path, ip: &str) -> Self {
        let run = Self::start(place, socket);
        place.until("it listens at its port", || std::net::TcpStream::connect((ip, PORT)).is_ok());
        run
    }

    /// By a signal: its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for LongRun {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// EdgeX's own, where services ask for another token.
const PORT: u16 = 59843;

/// Status and answer.
fn curl(arguments: &[&str]) -> (u16, Value) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("curl is missing: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn end_token(place: &Place, bao: &Bao, token: &str) {
    place.as_root(bao, |root| {
        assert_eq!(bao.call("POST", "auth/token/revoke", Some(root), Some(json!({ "token": token }))).0, 204);
    });
    assert!(!bao.knows(token));
}

fn entity(place: &Place, service: &str) -> String {
    place.token_file(service)["auth"]["entity_id"].as_str().unwrap().to_owned()
}

/// With a hook: B2, Go's set-up hands the store no share then.
#[test]
fn b2_b10_b11_a_token_that_has_ended_is_made_anew_for_its_own_service_alone() {
    if testkit::is_skipped("curl") {
        return;
    }
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let socket = place.path("run/regenerate.sock");
    let place = place.with("EDGEKEEP_REGENERATE_SOCKET", socket.to_str().unwrap());
    place.must_set_up();
    let run = LongRun::start(&place, &socket);
    let ask = |method: &str, path: &str, token: Option<&str>| {
        let url = format!("http://x{path}");
        let header = format!("X-Vault-Token: {}", token.unwrap_or_default());
        curl(&["--unix-socket", socket.to_str().unwrap(), "-X", method, "-H", &header, &url])
    };
    let (mine, other) = (place.token("core-data"), place.token("core-metadata"));
    let path = format!("/api/v3/token/entityId/{}", entity(&place, "core-data"));
    for (method, path, token, wanted) in [
        ("GET", path.as_str(), Some(mine.as_str()), 405),
        ("PUT", "/api/v3/token", Some(mine.as_str()), 404),
        ("PUT", "/api/v3/token/entityId/..%2Fx", Some(mine.as_str()), 400),
        ("PUT", path.as_str(), None, 403),
        ("PUT", path.as_str(), Some(other.as_str()), 403),
        ("PUT", path.as_str(), Some(mine.as_str()), 400),
    ] {
        assert_eq!(ask(method, path, token).0, wanted, "{method} {path}");
    }
    assert_eq!(place.token("core-data"), mine, "a token that lives stays");

    end_token(&place, &bao, &mine);
    assert_eq!(ask("PUT", &path, Some(&other)).0, 403, "another's token");
    let (status, answer) = ask("PUT", &path, Some(&mine));
    assert_eq!((status, answer), (200, json!({ "apiVersion": "v3", "statusCode": 200 })));
    let token = place.token("core-data");
    assert_ne!(token, mine);
    assert_eq!(bao.call("POST", "secret/edgex/core-data/x", Some(&token), Some(json!({"a": "b"}))).0, 204);
    assert_eq!(place.token("core-metadata"), other);
    let looked = bao.call("GET", "auth/token/lookup-self", Some(&token), None).1["data"].clone();
    assert!(path.ends_with(looked["entity_id"].as_str().unwrap()), "it is the same identity: {looked}");
    assert!(path.ends_with(&entity(&place, "core-data")), "and can be asked for again");
    only_our_root(&place, &bao);

    // B11: what goes wrong is told, and the next one is served.
    let third = place.token("app");
    let path = format!("/api/v3/token/entityId/{}", entity(&place, "app"));
    end_token(&place, &bao, &third);
    bao.stop();
    assert_eq!(ask("PUT", &path, Some(&third)).0, 503);
    bao.restart();
    place.until_said("the store was found sealed, and was unsealed");
    bao.until(&[200]);
    assert_eq!(ask("PUT", &path, Some(&third)).0, 200);
    assert!(bao.knows(&place.token("app")));
    let second = place.token("core-data");
    place.must_set_up();
    assert!(!bao.knows(&second) && bao.knows(&place.token("core-data")), "a set-up beside it makes all of them anew");
    assert_eq!(run.stop(), Some(0));
}

/// A service that owns its own file may write into it what it likes.
#[test]
fn a_service_that_names_anothers_entity_gets_nothing() {
    if testkit::is_skipped("curl") {
        return;
    }
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let socket = place.path("run/regenerate.sock");
    let place = place.with("EDGEKEEP_REGENERATE_SOCKET", socket.to_str().unwrap());
    place.must_set_up();
    let victim = entity(&place, "core-metadata");
    let file = json!({ "auth": { "client_token": "s.000000000000000000000000", "entity_id": victim } });
    place.lay("secrets/app/secrets-token.json", file.to_string().as_bytes());
    let before = place.token_file("core-metadata");
    let _run = LongRun::start(&place, &socket);
    let url = format!("http://x/api/v3/token/entityId/{victim}");
    let (status, _) = curl(&[
        "--unix-socket",
        socket.to_str().unwrap(),
        "-X",
        "PUT",
        "-H",
        "Authorization: Bearer s.000000000000000000000000",
        &url,
    ]);
    assert_eq!(status, 500);
    assert_eq!(place.token_file("core-metadata"), before);
    assert_eq!(place.token_file("app"), file);
    only_our_root(&place, &bao);
}

/// EdgeX's own services show nothing. Where that is allowed, they get no more than a token in place of one that has
/// ended.
#[test]
fn at_the_open_port_only_a_token_that_has_ended_is_made_anew() {
    if testkit::is_skipped("curl") {
        return;
    }
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let socket = place.path("run/regenerate.sock");
    let place = place
        .with("EDGEKEEP_REGENERATE_SOCKET", socket.to_str().unwrap())
        .with("SERVICE_HOST", &bao.ip)
        .with("EDGEKEEP_DANGER_OPEN_REGENERATE", "true");
    place.must_set_up();
    let _run = LongRun::at_port(&place, &socket, &bao.ip);
    let token = place.token("core-data");
    let url = format!("http://{}:{PORT}/api/v3/token/entityId/{}", bao.ip, entity(&place, "core-data"));
    assert_eq!(curl(&["-X", "PUT", &url]).0, 400, "it lives");
    end_token(&place, &bao, &token);
    let mut asked = Instant::now();
    assert_eq!(curl(&["-X", "PUT", &url]).0, 200);
    // A machine that takes longer than the pause between the two has to be quicker once.
    for _ in 0..10 {
        let next = place.token("core-data");
        assert!(bao.knows(&next));
        end_token(&place, &bao, &next);
        let again = Instant::now();
        match curl(&["-X", "PUT", &url]).0 {
            429 => return,
            status => assert!(status == 200 && asked.elapsed() >= PAUSE, "not as often as somebody likes: {status}"),
        }
        asked = again;
    }
    panic!("never asked twice within {PAUSE:?}");
}

/// Between two tokens of one service at the open port.
const PAUSE: Duration = Duration::from_secs(10);

/// Mutual TLS, for callers who come over a network and have lost the token that they had.
#[test]
fn behind_mutual_tls_a_certificate_of_the_service_is_let_in_and_no_other() {
    if testkit::is_skipped("curl") {
        return;
    }
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let socket = place.path("run/regenerate.sock");
    let (site, other) = (SiteCa::new(), SiteCa::new());
    place.lay("callers.pem", site.pem().as_bytes());
    let lay = |name: &str, pair: &Pair| {
        place.lay(&format!("{name}.crt"), pair.certificate.as_bytes());
        place.lay(&format!("{name}.key"), pair.key.as_bytes());
    };
    lay("door", &site.server(&bao.ip));
    for (name, pair) in [
        ("mine", site.client("core-data")),
        ("anothers", site.client("core-metadata")),
        ("ended", site.client_of_the_past("core-data")),
        ("of-another-site", other.client("core-data")),
        ("for-servers", site.server("core-data")),
        ("by-common-name", site.device("core-data")),
    ] {
        lay(name, &pair);
    }
    let at = |name: &str| place.path(name).display().to_string();
    let variables = [
        ("EDGEKEEP_REGENERATE_SOCKET", at("run/regenerate.sock")),
        ("EDGEKEEP_REGENERATE_CLIENT_CA", at("callers.pem")),
        ("EDGEKEEP_REGENERATE_CERT", at("door.crt")),
        ("EDGEKEEP_REGENERATE_KEY", at("door.key")),
        ("SERVICE_HOST", bao.ip.clone()),
    ];
    let place = variables.into_iter().fold(place, |place, (name, value)| place.with(name, &value));
    place.must_set_up();
    let _run = LongRun::at_port(&place, &socket, &bao.ip);
    let token = place.token("core-data");
    let path = format!("{}:{PORT}/api/v3/token/entityId/{}", bao.ip, entity(&place, "core-data"));
    let https = format!("https://{path}");
    let file = |name: &str| place.path(name).display().to_string();
    let by = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        curl(&["-X", "PUT", "--cacert", &file("callers.pem"), "--cert", &certificate, "--key", &key, &https]).0
    };
    assert_eq!(by("mine"), 400, "it lives");
    end_token(&place, &bao, &token);
    // The handshake ends there: no status.
    assert_eq!(curl(&["-X", "PUT", "--cacert", &file("callers.pem"), &https]).0, 0, "without a certificate");
    assert_eq!(curl(&["-X", "PUT", &format!("http://{path}")]).0, 0, "in clear");
    for refused in ["ended", "of-another-site", "for-servers"] {
        assert_eq!(by(refused), 0, "{refused}");
    }
    for refused in ["anothers", "by-common-name"] {
        assert_eq!(by(refused), 403, "{refused}");
    }
    assert_eq!(place.token("core-data"), token, "nothing was made until now");
    assert_eq!(by("mine"), 200);
    let second = place.token("core-data");
    assert!(second != token && bao.knows(&second));
    only_our_root(&place, &bao);
}

#[test]
fn half_of_mutual_tls_or_a_key_that_others_read_opens_no_port() {
    let Some(bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    let site = SiteCa::new();
    let door = site.server(&bao.ip);
    for (name, text) in [("callers.pem", site.pem()), ("door.crt", &door.certificate), ("door.key", &door.key)] {
        place.lay(name, text.as_bytes());
    }
    let refused = |place: &Place, wanted: &str| {
        let output = place.run("security-secretstore-setup", &["-configDir", "res", "--longRun=true"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{said}");
    };
    let at = |name: &str| place.path(name).display().to_string();
    let (socket, ca, certificate, key) = (at("run/regenerate.sock"), at("callers.pem"), at("door.crt"), at("door.key"));
    let place = place.with("EDGEKEEP_REGENERATE_SOCKET", &socket).with("SERVICE_HOST", &bao.ip);
    let place = place.with("EDGEKEEP_REGENERATE_CLIENT_CA", &ca);
    refused(&place, "half of what mutual TLS needs");
    let place = place.with("EDGEKEEP_REGENERATE_CERT", &certificate).with("EDGEKEEP_REGENERATE_KEY", &key);
    let place = place.with("EDGEKEEP_DANGER_OPEN_REGENERATE", "true");
    refused(&place, "the port is open to anybody besides");
    let place = place.without("EDGEKEEP_DANGER_OPEN_REGENERATE");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&place, "others may read the private key");
    let place = place.with("EDGEKEEP_REGENERATE_CLIENT_CA", &key);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused(&place, "there is no authority in it");
}
