//! `edgekeep entry` in the place of EdgeX's entrypoint scripts, with the real programs behind it: each is held back
//! until its gate is open, finds its configuration, is its user, and hears signals; killed at any step and started
//! again it ends the same.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::device::{Device, EDGEKEEP};
use crate::part;
use crate::server::{
    HOSTILE, RENAMES, SYNCS, Server, ask_redis, cut, device_with_mqtt, dir_of, number_of, open_dir, path, put,
    tell_mosquitto, to_store,
};

/// `edgekeep entry ROLE`, led to this device's store and to its gates.
fn entry(device: &Device, role: &str, service: &str) -> Command {
    let mut command = Command::new(EDGEKEEP);
    to_store(&mut command, device, service);
    command.env("EDGEKEEP_RUN_DIR", device.run_dir()).current_dir("/").args(["entry", role]);
    command
}

/// `edgekeep entry ROLE`, led to gates that are ports of this address.
fn entry_by_ports(ip: &str, role: &str) -> Command {
    let mut command = Command::new(EDGEKEEP);
    command.env_clear().env("PATH", path()).current_dir("/").args(["entry", role]);
    for host in ["STAGEGATE_BOOTSTRAPPER_HOST", "STAGEGATE_DATABASE_HOST", "PROXY_SETUP_HOST"] {
        command.env(host, ip);
    }
    command.env("STAGEGATE_WAITFOR_RETRYINTERVAL", "50ms");
    command
}

/// Kills it at each of its renames and syncs, from a fresh start each time, and starts it again: `ran` is what its
/// program makes.
fn cut_everywhere(ran: &Path, fresh: impl Fn(), entry: impl Fn() -> Command, mut after: impl FnMut(&str)) {
    let mut cuts = 0;
    for calls in [RENAMES, SYNCS] {
        for nth in 1.. {
            fresh();
            let mut command = entry();
            command.args(["--", "touch"]).arg(ran);
            let whole = cut(&command, calls, nth);
            assert_eq!(ran.exists(), whole, "the program ran ahead of its configuration: {calls}, {nth}");
            if whole {
                break;
            }
            cuts += 1;
            part::must(&mut command);
            after(&format!("cut at {calls}, {nth}"));
        }
    }
    assert!(cuts >= 4, "two files are renamed and synced: {cuts}");
}

fn remove(path: &Path) {
    use host::Disk;
    host::OsDisk.remove_tree(path).unwrap();
}

#[test]
fn redis_waits_for_its_credential_and_is_its_user() {
    if part::is_skipped("redis") || part::is_skipped("strace") {
        return;
    }
    part::program("redis-server", "redis-server", &[]);
    let (service, dir) = ("security-bootstrapper-redis", open_dir());
    // As in the image: the user of EdgeX's script has a directory for its data, and a tmpfs for its configuration.
    let data = dir_of((999, 1000), dir.path().join("data"));
    let (conf, socket, log) = (dir.path().join("conf"), data.join("redis.sock"), dir.path().join("log"));
    let mut device = Device::edgex();
    let redis = |device: &Device| {
        let mut command = entry(device, "redis", service);
        command.env("DATABASECONFIG_PATH", &conf);
        command
    };
    let start = |device: &Device| {
        let mut command = redis(device);
        command.args(["--", "redis-server"]).arg(conf.join("redis.conf")).args(["--port", "0", "--unixsocket"]);
        Server::start(command.arg(&socket).arg("--dir").arg(&data), &log)
    };
    let ask = |login: Option<&str>, question: &[&str]| ask_redis(&socket, login.map(|p| ("default", p)), question);

    let mut server = start(&device);
    server.until_it_says("waiting for the gate tokens-ready");
    assert!(!conf.exists(), "written ahead of the gate");
    device.up();
    let generated = device.field(service, &format!("secret/edgex/{service}/redisdb"), "password");
    server.until(|| ask(Some(&generated), &["PING"]) == "PONG");
    assert_eq!(server.is(), ("redis-server".to_owned(), 999), "the same process, another program and user");
    assert!(ask(Some("another"), &["PING"]).contains("NOAUTH"));
    assert!(ask(None, &["PING"]).contains("NOAUTH"));
    assert_eq!(ask(Some(&generated), &["SET", "kept", "1"]), "OK");
    assert_eq!(server.signal("TERM").code(), Some(0), "SIGTERM is Redis's own: it saves, and ends well");

    // Rotated to something that quoting has ever been forgotten for: the data stay, the old password is over.
    put(&device, service, "redisdb", "default", HOSTILE);
    let mut server = start(&device);
    server.until(|| ask(Some(HOSTILE), &["GET", "kept"]) == "1");
    assert!(ask(Some(&generated), &["PING"]).contains("NOAUTH"));
    server.signal("TERM");

    let files = || ["redis.conf", "edgex_redis_acl.conf"].map(|name| std::fs::read(conf.join(name)).ok());
    let (whole, ran) = (files(), dir.path().join("data/ran"));
    let fresh = || [&conf, &ran].into_iter().for_each(|path| remove(path));
    cut_everywhere(&ran, fresh, || redis(&device), |when| assert!(files() == whole, "{when}"));
}

#[test]
fn mosquitto_waits_for_its_credential_and_hears_signals() {
    if part::is_skipped("mosquitto") || part::is_skipped("strace") {
        return;
    }
    let broker = part::program("mosquitto", "mosquitto", &["/usr/sbin"]);
    let (service, dir) = ("security-bootstrapper-messagebus", open_dir());
    let config = dir_of(number_of("mosquitto"), dir.path().join("config"));
    let (conf, log) = (config.join("mosquitto.conf"), dir.path().join("log"));
    let free = testkit::port().to_string();
    let mut device = device_with_mqtt(dir.path());
    let bus = |device: &Device| {
        let mut command = entry(device, "messagebus", service);
        command.env("SECUREMOSQUITTO_PASSWORDFILE", config.join("pwdfile")).env("SECUREMOSQUITTO_PORT", &free);
        command.env("SECUREMOSQUITTO_BROKERCONFIGFILE", &conf).env("BROKER_TYPE", "mosquitto");
        command
    };
    // EdgeX's compose file names the program in a variable.
    let named = format!("{} -c {}", broker.display(), conf.display());
    let start = |device: &Device| Server::start(bus(device).env("ENTRYPOINT", &named), &log);
    let tell = |login: Option<(&str, &str)>| tell_mosquitto(&free, login);

    let mut server = start(&device);
    server.until_it_says("waiting for the gate tokens-ready");
    assert!(!conf.exists(), "written ahead of the gate");
    device.up();
    let generated = device.field(service, &format!("secret/edgex/{service}/message-bus"), "password");
    server.until(|| tell(Some(("msgbususer", &generated))));
    assert_eq!(server.is().0, "mosquitto");
    assert!(!tell(Some(("msgbususer", "another"))) && !tell(None));
    assert_eq!(server.signal("TERM").code(), Some(0));

    put(&device, service, "message-bus", "bus user", HOSTILE);
    let ran = dir.path().join("ran");
    let files = ["pwdfile", "mosquitto.conf"].map(|name| config.join(name));
    let fresh = || files.iter().chain([&ran]).for_each(|path| remove(path));
    cut_everywhere(
        &ran,
        fresh,
        || bus(&device),
        |when| {
            let mut server = start(&device);
            server.until(|| tell(Some(("bus user", HOSTILE))));
            assert!(!tell(Some(("msgbususer", &generated))), "{when}");
            assert_eq!(server.signal("TERM").code(), Some(0), "{when}");
        },
    );
}

/// The unit test cuts the making of a cluster at every event; here it is initdb's own, and the server that mends it.
#[test]
fn postgres_that_is_killed_while_it_is_made_is_made_by_the_next_start() {
    if part::is_skipped("postgres") || part::is_skipped("strace") {
        return;
    }
    part::program("psql", "postgresql", &[]);
    let ((uid, gid), dir) = (number_of("postgres"), open_dir());
    let (service, data, log) = ("security-bootstrapper-postgres", dir.path().join("pg"), dir.path().join("log"));
    let mut device = Device::edgex();
    device.add(&format!(
        "[[gate]]\nname = \"tokens-ready\"\nneeds = [\"services\", \"credentials\"]\n\
         [[gate]]\nname = \"ready-to-run\"\nneeds = [\"gate:tokens-ready\"]\nprobes = [\"postgres:{}:5432\"]\n",
        device.ip
    ));
    device.start();
    device.wait_for_gate("tokens-ready");
    let superuser = device.field(service, &format!("secret/edgex/{service}/postgres"), "password");
    let postgres = || {
        let mut command = entry(&device, "postgres", service);
        command.env("PGDATA", &data).env("DATABASECONFIG_PATH", dir.path().join("init"));
        command.env("POSTGRES_PASSWORD_FILE", dir.path().join("secrets/postgres_password"));
        command.args(["--user", &format!("{uid}:{gid}"), "--"]);
        command
    };
    // The password file and the script; the cluster becomes one; its first and some later part is moved; initdb is at
    // work; the password file goes.
    let moments =
        [(RENAMES, 1), (RENAMES, 2), (RENAMES, 4), (RENAMES, 5), (RENAMES, 20), (SYNCS, 9), ("?unlink,?unlinkat", 1)];
    let mut whole = 0;
    for (calls, nth) in moments {
        let mut command = postgres();
        whole += u32::from(cut(command.arg("true"), calls, nth));
        assert!(!data.join("PG_VERSION").exists() || data.join("global/pg_control").exists(), "half a cluster");
    }
    assert!(whole <= 2, "one cut in two must have hit: {whole}");
    device.until_gate("ready-to-run", false);
    let mut command = postgres();
    command.args(["postgres", "-D"]).arg(&data).args(["-c", "unix_socket_directories=", "-c", "port=5432", "-c"]);
    let mut server = Server::start(command.arg(format!("listen_addresses={}", device.ip)), &log);
    let ask = |password: &str| {
        let mut psql = Command::new("psql");
        psql.env_clear().env("PATH", path()).env("PGPASSWORD", password).env("PGUSER", "postgres");
        psql.args(["-h", &device.ip, "-d", "edgex_db", "-w", "-Atc", "select 1"]).output().unwrap().status.success()
    };
    server.until(|| ask(&superuser));
    assert_eq!(server.is(), ("postgres".to_owned(), uid));
    assert!(!ask("another"));
    let left: Vec<_> = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".edgekeep")), "{left:?}");
    device.until_gate("ready-to-run", true);
    assert_eq!(server.signal("TERM").code(), Some(0), "SIGTERM is PostgreSQL's own: it waits for nobody here");
    device.until_gate("ready-to-run", false);
}

/// A proxy in front of the store, as EdgeX has it: set up by a program that takes certificate and key out of the store,
/// asking the store about each token.
struct Proxy {
    dir: tempfile::TempDir,
    device: Device,
    address: String,
}

const SETUP: &str = "security-proxy-setup";

impl Proxy {
    fn new() -> Self {
        let mut device = Device::edgex();
        device.up();
        let dir = open_dir();
        let proxy = Self { address: format!("{}:8443", device.ip), dir, device };
        let (key, cert) = (proxy.file("made.key"), proxy.file("made.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=proxy", "-addext", &format!("subjectAltName=IP:{}", proxy.device.ip), "-keyout"]);
        part::must(openssl.arg(&key).arg("-out").arg(&cert));
        let pairs = [("cert", &cert), ("key", &key)].map(|(name, file)| format!("{name}=@{}", file.display()));
        let put = ["kv", "put", "secret/edgex/security-proxy-setup/tls", &pairs[0], &pairs[1]];
        let output = proxy.device.as_service(SETUP, &put);
        assert!(output.status.success(), "{output:?}");
        proxy.write_setup();
        proxy
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What an image's set-up does: the pair out of the store, then the configuration, the last of all.
    fn write_setup(&self) {
        let (ip, dir) = (&self.device.ip, self.dir.path().display());
        let conf = format!(
            "daemon off; user www-data; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;\n\
             uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;\n\
             server {{\n listen {address} ssl; ssl_protocols TLSv1.3;\n\
             ssl_certificate {dir}/tls.pem; ssl_certificate_key {dir}/tls.key;\n\
             location / {{ auth_request /auth; root {dir}/www; try_files /index =404; }}\n\
             location = /auth {{ internal; proxy_pass https://{ip}:8200/v1/auth/token/lookup-self;\n\
             proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;\n\
             proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }}\n}}\n}}\n",
            address = self.address,
            ca = self.device.ca(SETUP).display(),
        );
        let script = format!(
            "set -e\numask 077\nread -r line <{dir}/hold\n\
             get() {{ {EDGEKEEP} --as {SETUP} kv get -field=$1 secret/edgex/{SETUP}/tls; }}\n\
             get cert >{dir}/tls.pem\nget key >{dir}/tls.key\n\
             cp {dir}/nginx.draft {dir}/nginx.conf.new\nmv {dir}/nginx.conf.new {dir}/nginx.conf\n"
        );
        std::fs::create_dir(self.file("www")).unwrap();
        for (name, text) in [("nginx.draft", &*conf), ("setup.sh", &*script), ("www/index", "inside\n")] {
            #[allow(clippy::disallowed_methods)]
            std::fs::write(self.file(name), text).unwrap();
        }
        // The set-up stands still here until somebody writes into it.
        part::must(Command::new("mkfifo").arg(self.file("hold")));
    }

    fn set_up(&self, log: &str, killed: bool) -> Server {
        let mut command = entry_by_ports(&self.device.ip, "proxy-setup");
        command.env("EDGEKEEP_RUN_DIR", self.device.run_dir()).args(["--", "sh"]).arg(self.file("setup.sh"));
        // As in a container: whoever kills the first process kills all.
        let mut contained = Command::new("unshare");
        contained.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
        contained.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Server::start(if killed { &mut contained } else { &mut command }, &self.file(log))
    }

    fn serve(&self) -> Server {
        let mut command = entry_by_ports(&self.device.ip, "nginx");
        Server::start(command.args(["--", "nginx", "-c"]).arg(self.file("nginx.conf")), &self.file("nginx.log"))
    }

    fn get(&self, token: Option<&str>) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-w", "%{http_code}", "--cacert"]).arg(self.file("made.pem"));
        if let Some(token) = token {
            curl.arg("-H").arg(format!("X-Vault-Token: {token}"));
        }
        curl.arg(format!("https://{}/", self.address)).env_clear().env("PATH", path());
        curl.stdin(Stdio::null()).output().expect("curl is missing: apt-get install curl")
    }

    fn answer(&self, token: Option<&str>) -> String {
        String::from_utf8(self.get(token).stdout).unwrap()
    }
}

#[test]
fn nginx_waits_for_its_setup_and_lets_in_whom_the_store_knows() {
    if part::is_skipped("nginx") || part::is_skipped("openssl") || part::is_skipped("curl") {
        return;
    }
    part::program("nginx", "nginx-light", &["/usr/sbin"]);
    let proxy = Proxy::new();
    let port = || TcpStream::connect((proxy.device.ip.as_str(), 54325));
    let mut nginx = proxy.serve();
    nginx.until_it_says("waiting for tcp://");

    // Told to stop in the middle of its work, the set-up's program is told as well, and no gate opens behind it.
    let mut first = proxy.set_up("first.log", false);
    first.until_it_says("running sh");
    assert_eq!(first.signal("TERM").code(), Some(2), "{}", first.said());
    assert!(port().is_err() && !proxy.file("nginx.conf").exists());
    // Killed as well.
    let mut second = proxy.set_up("second.log", true);
    second.until_it_says("running sh");
    second.signal("KILL");
    assert!(port().is_err() && !proxy.file("nginx.conf").exists());
    assert_eq!(nginx.is().0, "edgekeep", "nginx runs ahead of its set-up");

    let mut third = proxy.set_up("third.log", false);
    third.until_it_says("running sh");
    #[allow(clippy::disallowed_methods)]
    std::fs::write(proxy.file("hold"), "go on\n").unwrap();
    third.until_it_says(&format!("open: {}:54325", proxy.device.ip));
    nginx.until(|| proxy.get(None).status.success());
    assert_eq!(nginx.is().0, "nginx", "the same process");
    let token = proxy.device.token("core-data");
    assert_eq!(proxy.answer(Some(&token)), "inside\n200");
    for stranger in [None, Some("another"), Some(HOSTILE), Some("x\r\nX-Vault-Token: y")] {
        let seen = proxy.answer(stranger);
        assert!(!seen.contains("inside") && !seen.ends_with("200"), "{stranger:?}: {seen}");
    }
    assert_eq!(nginx.signal("TERM").code(), Some(0), "SIGTERM is nginx's own");
    assert!(TcpStream::connect(&proxy.address).is_err());
    assert_eq!(third.signal("TERM").code(), Some(0));
    assert!(port().is_err(), "the gate ends with whoever holds it");
}

/// The container of the gates, as its user, and `up` itself, in front of a database that comes, goes and comes again:
/// what waits behind a gate is let go only while the database takes queries.
#[test]
fn the_last_gate_is_open_while_a_real_redis_runs_and_no_longer() {
    if part::is_skipped("redis") {
        return;
    }
    part::program("redis-server", "redis-server", &[]);
    let (mut device, dir) = (Device::new(""), open_dir());
    let (ip, log) = (device.ip.clone(), dir.path().join("gate.log"));
    let ip = &ip;
    device.add(&format!("[[gate]]\nname = \"database\"\nneeds = [\"store\"]\nprobes = [\"redis:{ip}:6379\"]\n"));
    device.start();
    let redis = || {
        let mut redis = Command::new("redis-server");
        redis.args(["--bind", ip, "--port", "6379", "--save", "", "--requirepass", "secret", "--dir"]).arg(dir.path());
        Server::start(&mut redis, &dir.path().join("redis.log"))
    };
    let mut gate = entry_by_ports(ip, "bootstrapper");
    let mut gate = Server::start(gate.env("STAGEGATE_DATABASE_READYPORT", "6379"), &log);
    gate.until_it_says(&format!("open: {ip}:54321"));
    assert_eq!(gate.is(), ("edgekeep".to_owned(), 2002), "EdgeX's user");
    let ready = || TcpStream::connect((ip.as_str(), 54329)).is_ok();
    // Another program on the database's port is none.
    let squatter = TcpListener::bind((ip.as_str(), 6379)).unwrap();
    drop(squatter.accept().unwrap());
    assert!(!ready());
    drop(squatter);
    let face = dir.path().join("security-bootstrapper");
    std::os::unix::fs::symlink(EDGEKEEP, &face).unwrap();
    let wait_for = |timeout| {
        let mut command = Command::new(&face);
        command.args(["waitFor", "-uri", &format!("redis://{ip}:6379"), "-timeout", timeout, "-retryInterval", "10ms"]);
        command.env_clear().current_dir(dir.path()).output().unwrap().status.code()
    };
    for stopped in ["TERM", "KILL"] {
        assert!(!ready());
        device.until_gate("database", false);
        assert_eq!(wait_for("100ms"), Some(2));
        let mut database = redis();
        assert_eq!(wait_for("60s"), Some(0));
        gate.until(ready);
        device.until_gate("database", true);
        database.signal(stopped);
        gate.until(|| !ready());
        device.until_gate("database", false);
    }
    // One that comes and goes while a service waits for it: that one is told, and goes on waiting.
    let mut service = entry_by_ports(ip, "ready-to-run");
    let ran = dir.path().join("ran");
    let mut service = Server::start(service.args(["--", "touch"]).arg(&ran), &dir.path().join("service.log"));
    service.until_it_says("waiting for tcp://");
    assert!(!ran.exists());
    let _database = redis();
    assert!(service.ends().success());
    assert!(ran.exists());
    assert_eq!(gate.signal("TERM").code(), Some(0));
}

/// SIGTERM at each call by which a stage is taken down, up to the one that gives the place to the program: between two
/// stages nobody waits, and yet it is told.
#[test]
fn a_stop_between_two_stages_is_heard() {
    if part::is_skipped("strace") {
        return;
    }
    let strace = part::program("strace", "strace", &[]);
    let (dir, ip) = (open_dir(), testkit::loopback().to_string());
    let _gate = TcpListener::bind((ip.as_str(), 54329)).unwrap();
    let (ran, log) = (dir.path().join("ran"), dir.path().join("trace"));
    let traced = |nth: Option<usize>| {
        remove(&ran);
        let entry = entry_by_ports(&ip, "ready-to-run");
        let mut command = Command::new(&strace);
        command.args(["-e", "trace=close,execve,rt_sigaction", "-o"]).arg(&log);
        if let Some(nth) = nth {
            command.args(["-e", &format!("inject=close:signal=SIGTERM:when={nth}")]);
        }
        command.arg(entry.get_program()).args(entry.get_args()).args(["--", "touch"]).arg(&ran);
        command.env_clear().envs(entry.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let status = command.current_dir("/").stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        (status.code(), std::fs::read_to_string(&log).unwrap())
    };
    let (code, whole) = traced(None);
    assert_eq!(code, Some(0), "{whole}");
    let lines: Vec<&str> = whole.lines().collect();
    let at = |what: &str| lines.iter().rposition(|l| l.starts_with(what)).unwrap_or_else(|| panic!("{what}: {whole}"));
    let closes = |until: usize| lines[..until].iter().filter(|l| l.starts_with("close(")).count();
    let (heard, program) = (closes(at("rt_sigaction(SIGTERM, {")), closes(at("execve(")));
    assert!(program >= heard + 4, "the gate, and the runtimes of the stages: {whole}");
    for nth in heard + 1..=program {
        let (code, trace) = traced(Some(nth));
        assert!(trace.contains("--- SIGTERM"), "{nth}: {trace}");
        assert_eq!((code, ran.exists()), (Some(2), false), "SIGTERM at close {nth}: {trace}");
    }
}
