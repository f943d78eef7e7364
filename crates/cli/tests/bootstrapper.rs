//! The executable as `security-bootstrapper`: EdgeX's flags and codes, and none of the defects of its gates.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::{LongestWait, is_root_skipped, is_skipped, loopback};

/// The mitigation that `xtask threats --bite` has switched off, if any: it must be off in the process that is looked
/// at.
fn bitten() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os("EDGEKEEP_BITE").map(|name| ("EDGEKEEP_BITE", name))
}

/// The face, in an empty directory with an empty environment.
fn face(dir: &Path) -> Command {
    let path = dir.join("security-bootstrapper");
    if !path.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_edgekeep"), &path).unwrap();
    }
    let mut command = Command::new(path);
    command.current_dir(dir).env_clear().envs(bitten()).stdin(Stdio::null());
    command
}

fn run(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(face(dir).args(arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A child that ends with its test, and what it says.
struct Running(Child, Option<Lines<BufReader<ChildStderr>>>);

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = child.stderr.take().map(|said| BufReader::new(said).lines());
        Self(child, lines)
    }

    /// Reads its words up to a line that holds this.
    fn until_it_says(&mut self, words: &str) -> String {
        let _wait = LongestWait::of(&self.0, "it says what it should");
        let mut lines = self.1.as_mut().unwrap().map_while(Result::ok);
        lines.find(|line| line.contains(words)).unwrap_or_else(|| panic!("it never said {words:?}"))
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn exit_codes_are_edgexs_and_a_slip_is_never_0() {
    let dir = tempfile::tempdir().unwrap();
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp://{}", there.local_addr().unwrap());
    for (arguments, code) in [
        (&[][..], 1),
        (&["fly"], 1),
        (&["--nosuch", "gate"], 1),
        (&["listenTcp"], 1),
        (&["listenTcp", "--port", "0"], 1),
        (&["waitFor"], 1),
        (&["waitFor", "-uri", "gopher://x"], 1),
        (&["waitFor", "-uri", &uri, "-timeout", "0s"], 1),
        (&["--configDir", "nowhere", "waitFor", "-uri", &uri], 1),
        (&["setupMessageBusCreds"], 1),
        (&["setupMessageBusCreds", "kafka"], 1),
        (&["getHttpStatus", "--url", "ftp://x"], 1),
        (&["waitFor", "-uri", "file:///nonexistent/x", "-timeout", "10ms", "-retryInterval", "1ms"], 2),
        (&["listenTcp", "--port", "1", "--host", "192.0.2.1"], 2),
        (&["waitFor", "-uri", &uri, "-timeout=60s", "--retryInterval=10ms"], 0),
        (&["setupMessageBusCreds", "redis"], 0),
        (&["genPassword"], 0),
        (&["--help"], 0),
        (&["help"], 0),
    ] {
        let (seen, _, said) = run(dir.path(), arguments);
        assert_eq!(seen, code, "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_generated_password_stands_alone_on_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let [(_, one, said), (_, two, _)] = [(); 2].map(|()| run(dir.path(), &["genPassword"]));
    assert_eq!((one.len(), one.lines().count(), said.as_str()), (45, 1, ""), "33 random bytes in base64 and a newline");
    assert_ne!(one, two);
}

#[test]
fn a_listener_is_on_its_host_alone_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (loopback().to_string(), loopback().to_string());
    let mut listener = Running::start(face(dir.path()).args(["listenTcp", "--port", "54322", "--host", &ours]));
    listener.until_it_says(&format!("open: {ours}:54322"));
    let mut client = TcpStream::connect((ours.as_str(), 54322)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "no byte, and a close");
    assert!(TcpStream::connect((other.as_str(), 54322)).is_err(), "open on another address of this machine");
    listener.signal("TERM");
    assert_eq!(listener.0.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect((ours.as_str(), 54322)).is_err());
}

#[test]
fn a_wait_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", silent.local_addr().unwrap());
    let mut waiting = Running::start(face(dir.path()).args(["waitFor", "-uri", &uri, "-timeout", "1h"]));
    let (_held, _) = silent.accept().unwrap(); // it is in the middle of an attempt
    waiting.signal("TERM");
    assert_eq!(waiting.0.wait().unwrap().code(), Some(2));
}

#[test]
fn a_file_is_waited_for_until_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    std::fs::write(&path, b"").unwrap();
    let uri = format!("file://{}", path.display());
    let wait = |timeout| run(dir.path(), &["waitFor", "-uri", &uri, "-timeout", timeout, "-retryInterval", "5ms"]);
    let (code, _, said) = wait("50ms");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("redis.conf (empty)"), "{said}");
    std::fs::write(&path, b"aclfile x\n").unwrap();
    assert_eq!(wait("30s").0, 0);
}

#[test]
fn https_that_nobody_vouches_for_is_not_ready() {
    if is_skipped("openssl") {
        return;
    }
    let (dir, ip) = (tempfile::tempdir().unwrap(), loopback());
    let at = format!("{ip}:8443");
    let url = format!("https://{at}/");
    let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let profile = dir.path().join("openssl.cnf");
    let leaf = format!("subjectAltName=IP:{ip}\nbasicConstraints=critical,CA:FALSE\n");
    std::fs::write(&profile, format!("[req]\ndistinguished_name=n\nx509_extensions=e\n[n]\n[e]\n{leaf}")).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=x", "-config"])
        .arg(&profile)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is missing: apt-get install openssl");
    assert!(made.status.success(), "{made:?}");
    let mut tls = Command::new("openssl");
    tls.args(["s_server", "-www", "-quiet", "-accept", &at, "-key"]).arg(&key).arg("-cert").arg(&cert);
    let _server = Running(tls.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(), None);
    let status = |trusted: &Path| {
        told(face(dir.path()).env("SSL_CERT_FILE", trusted).args(["getHttpStatus", "--url", &url]).output().unwrap())
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let seen = loop {
        let seen = status(&cert);
        if seen.0 == 0 || Instant::now() > deadline {
            break seen;
        }
    };
    assert_eq!((seen.0, seen.1.as_str()), (0, "200\n"), "{}", seen.2);
    // The same server, for whoever trusts somebody else.
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let (code, out, said) = status(if system.exists() { system } else { Path::new("/nonexistent") });
    assert_eq!((code == 0, out.as_str()), (false, ""), "{said}");
    let wait = |trusted: &Path, timeout| {
        let wait = ["waitFor", "-uri", &url, "-timeout", timeout, "-retryInterval", "50ms"];
        told(face(dir.path()).env("SSL_CERT_FILE", trusted).args(wait).output().unwrap())
    };
    let seen = wait(&cert, "60s");
    assert_eq!(seen.0, 0, "{}", seen.2);
    assert_ne!(wait(system, "200ms").0, 0);
}

/// PostgreSQL's refusal with the code of the moment, to every caller; one who has not waited for it asks again.
fn answering(listener: TcpListener, code: Arc<Mutex<&'static str>>) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let fields = format!("SFATAL\0C{}\0\0", code.lock().unwrap());
            let head = [b'E', 0, 0, 0, u8::try_from(fields.len() + 4).unwrap()];
            let asked = stream.read_exact(&mut [0; 41]);
            asked.and_then(|()| stream.write_all(&[&head, fields.as_bytes()].concat())).ok();
        }
    });
}

#[test]
fn the_last_gate_stays_shut_while_the_database_takes_no_queries() {
    let dir = tempfile::tempdir().unwrap();
    let ip = loopback().to_string();
    let database = TcpListener::bind((ip.as_str(), 5432)).unwrap();
    let mut gate = face(dir.path());
    gate.arg("gate").envs([("STAGEGATE_BOOTSTRAPPER_HOST", &ip), ("STAGEGATE_DATABASE_HOST", &ip)]);
    gate.env("STAGEGATE_DATABASE_READYPORT", "5432");
    let mut gate = Running::start(&mut gate);
    gate.until_it_says(&format!("open: {ip}:54321"));
    TcpStream::connect((ip.as_str(), 54321)).unwrap();
    let code = Arc::new(Mutex::new("57P03"));
    answering(database, Arc::clone(&code));
    gate.until_it_says("57P03");
    assert!(TcpStream::connect((ip.as_str(), 54329)).is_err(), "its port is open, but it recovers");
    *code.lock().unwrap() = "28000";
    gate.until_it_says(&format!("open: {ip}:54329"));
    TcpStream::connect((ip.as_str(), 54329)).unwrap();
    gate.signal("TERM");
    assert_eq!(gate.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gate_whose_port_is_taken_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let ip = loopback().to_string();
    let _taken = TcpListener::bind((ip.as_str(), 54321)).unwrap();
    let output = face(dir.path()).arg("gate").env("STAGEGATE_BOOTSTRAPPER_HOST", &ip).output().unwrap();
    let (code, _, said) = told(output);
    assert_eq!(code, 1);
    assert!(said.contains("port 54321 cannot be opened"), "{said}");
}

#[test]
fn nothing_is_written_without_a_token_and_a_trusted_store() {
    let dir = tempfile::tempdir().unwrap();
    let configure = |variables: &[(&str, &str)]| {
        let mut command = face(dir.path());
        command
            .arg("configureRedis")
            .env("EDGEX_STARTUP_DURATION", "1")
            .env("DATABASECONFIG_PATH", dir.path().join("conf"));
        told(command.envs(variables.iter().copied()).output().unwrap())
    };
    let (code, _, said) = configure(&[("SECRETSTORE_TOKENFILE", "/nonexistent/token")]);
    assert_eq!(code, 1);
    assert!(said.contains("/nonexistent/token cannot be read"), "{said}");
    let token = dir.path().join("secrets-token.json");
    std::fs::write(&token, r#"{"auth":{"client_token":"s.test-token"}}"#).unwrap();
    let file = token.to_str().unwrap();
    let plain = [("SECRETSTORE_TOKENFILE", file), ("SECRETSTORE_HOST", "192.0.2.1")];
    let (code, _, said) = configure(&plain);
    assert_eq!(code, 1);
    assert!(said.contains("plain http") && said.contains("SECRETSTORE_PROTOCOL=https"), "{said}");
    let tls = [("SECRETSTORE_TOKENFILE", file), ("SECRETSTORE_PROTOCOL", "https")];
    let (code, _, said) = configure(&tls);
    assert_eq!(code, 1);
    assert!(said.contains("ca.pem"), "{said}");
    assert!(!said.contains("s.test-token"));
    assert!(!dir.path().join("conf").exists());
}

/// `edgekeep entry`, behind a port that stands for the gate.
fn entry(ip: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgekeep"));
    command.arg("entry").env_clear().envs(bitten()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command.env("STAGEGATE_BOOTSTRAPPER_HOST", ip).env("STAGEGATE_WAITFOR_RETRYINTERVAL", "10ms");
    command
}

#[test]
fn a_program_runs_behind_its_gate_in_the_place_of_entry() {
    let ip = loopback().to_string();
    let script = ["ready-to-run", "--", "sh", "-c", "echo $$ >&2; exec cat"];
    let mut running = Running::start(entry(&ip).args(script).stdin(Stdio::piped()));
    running.until_it_says("waiting for tcp://");
    let _gate = TcpListener::bind((ip.as_str(), 54329)).unwrap();
    let pid = running.0.id().to_string();
    let mut lines = running.1.as_mut().unwrap().map_while(Result::ok);
    let word = lines.find(|line| line.parse::<u32>().is_ok());
    assert_eq!(word, Some(pid), "the same process");
    running.signal("TERM");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&running.0.wait().unwrap()), Some(15), "signals reach it");
}

#[test]
fn a_program_whose_gate_stays_shut_never_runs() {
    let ip = loopback().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let mut command = entry(&ip);
    command.env("STAGEGATE_WAITFOR_TIMEOUT", "100ms").args(["kuiper", "--", "touch"]).arg(&ran);
    let (code, _, said) = told(command.output().unwrap());
    assert_eq!(code, 2, "{said}");
    assert!(!ran.exists());
}

#[test]
fn a_program_has_no_rights_but_those_of_its_user() {
    if is_root_skipped() {
        return;
    }
    let ip = loopback().to_string();
    let _gate = TcpListener::bind((ip.as_str(), 54329)).unwrap();
    let arguments = ["ready-to-run", "--user", "1501:1502", "--", "cat", "/proc/self/status"];
    let (code, out, said) = told(entry(&ip).args(arguments).output().unwrap());
    assert_eq!(code, 0, "{said}");
    let field = |name: &str| {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "1501 1501 1501 1501");
    assert_eq!(field("Gid:"), "1502 1502 1502 1502");
    assert_eq!(field("Groups:"), "1502");
    assert_eq!(field("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
}

#[test]
fn the_proxys_gate_opens_only_when_its_setup_has_ended_well() {
    let ip = loopback().to_string();
    let _gate = TcpListener::bind((ip.as_str(), 54329)).unwrap();
    let (code, _, said) =
        told(entry(&ip).env("PROXY_SETUP_HOST", &ip).args(["proxy-setup", "--", "false"]).output().unwrap());
    assert_eq!(code, 1, "{said}");
    assert!(TcpStream::connect((ip.as_str(), 54325)).is_err());
    let mut setup = Running::start(entry(&ip).env("PROXY_SETUP_HOST", &ip).args(["proxy-setup", "--", "true"]));
    setup.until_it_says(&format!("open: {ip}:54325"));
    TcpStream::connect((ip.as_str(), 54325)).unwrap();
}
