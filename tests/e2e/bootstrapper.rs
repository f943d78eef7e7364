//! Redis, PostgreSQL and Mosquitto, configured by our commands from our store and then logged in to.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::device::{Device, EDGEKEEP};
use crate::part;

/// A server that is stopped with its test.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        Self(command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap())
    }

    /// Asks until the answer is yes; a server that ends before, or never says it, is shown by its log.
    fn until(&mut self, log: &Path, mut ask: impl FnMut() -> bool) {
        for _ in 0..5000 {
            if ask() {
                return;
            }
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", std::fs::read_to_string(log).unwrap_or_default());
            std::thread::yield_now();
        }
        panic!("the server does not answer: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    fn stop(&mut self) {
        part::must(Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]));
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status().ok();
        }
        self.0.wait().ok();
    }
}

/// A directory that servers under users of their own can enter.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// The variables by which EdgeX's compose files would lead a bootstrapper to this device's store.
fn to_store(command: &mut Command, device: &Device, service: &str) {
    command.env_clear().env("PATH", path()).stdin(Stdio::null());
    command.env("SECRETSTORE_PROTOCOL", "https").env("SECRETSTORE_HOST", &device.ip).env("SECRETSTORE_PORT", "8200");
    command.env("SECRETSTORE_TOKENFILE", device.secrets_dir().join(service).join("secrets-token.json"));
    command.env("EDGEX_STARTUP_DURATION", "20");
}

fn bootstrapper(device: &Device, service: &str) -> Command {
    let face = device.dir().join("security-bootstrapper");
    if !face.exists() {
        std::os::unix::fs::symlink(EDGEKEEP, &face).unwrap();
    }
    let mut command = Command::new(face);
    to_store(&mut command, device, service);
    command.current_dir(device.dir());
    command
}

fn path() -> OsString {
    let usual = "/usr/sbin:/usr/bin:/sbin:/bin";
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten();
    let bins: Vec<PathBuf> = versions.map(|v| v.unwrap().path().join("bin")).collect();
    std::env::join_paths(bins.into_iter().chain(std::env::split_paths(usual))).unwrap()
}

/// Puts another credential in the place of one, by way of files: no password is an argument.
fn put(device: &Device, service: &str, at: &str, user: &str, password: &str) {
    let [user_file, password_file] = ["user", "password"].map(|name| device.dir().join(format!("put-{name}")));
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&user_file, user).unwrap();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&password_file, password).unwrap();
    let pairs = [("username", &user_file), ("password", &password_file)].map(|(k, f)| format!("{k}=@{}", f.display()));
    let output =
        device.as_service(service, &["kv", "put", &format!("secret/edgex/{service}/{at}"), &pairs[0], &pairs[1]]);
    assert!(output.status.success(), "{output:?}");
}

fn number_of(user: &str) -> (u32, u32) {
    let id = |flag: &str| {
        let output = part::must(Command::new("id").args([flag, user]));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

/// Everything that quoting has ever been forgotten for.
const HOSTILE: &str = r#"a'b"c\d $(e) `f`;--%#:{g} @h/i"#;

#[test]
fn redis_configured_by_our_command_takes_the_right_password_alone() {
    if part::is_skipped("redis") {
        return;
    }
    let server = part::program("redis-server", "redis-server", &[]);
    let cli = part::program("redis-cli", "redis-server", &[]);
    let mut device = Device::edgex();
    device.up();
    let service = "security-bootstrapper-redis";
    let dir = open_dir();
    let (conf, socket, log) = (dir.path().join("redis/conf"), dir.path().join("redis.sock"), dir.path().join("log"));
    let ask = |user: &str, password: Option<&str>, question: &[&str]| {
        let mut command = Command::new(&cli);
        command.arg("-s").arg(&socket).arg("--no-auth-warning").env_clear();
        if let Some(password) = password {
            command.args(["--user", user]).env("REDISCLI_AUTH", password);
        }
        let output = command.args(question).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let generated = device.field(service, &format!("secret/edgex/{service}/redisdb"), "password");
    for (user, password) in [("default", generated.as_str()), ("redis5", HOSTILE)] {
        put(&device, service, "redisdb", user, password);
        part::must(bootstrapper(&device, service).arg("configureRedis").env("DATABASECONFIG_PATH", &conf));
        let mode = std::fs::metadata(conf.join("edgex_redis_acl.conf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let mut redis = Command::new(&server);
        redis.arg(conf.join("redis.conf")).args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        let mut redis = Server::start(redis.arg("--dir").arg(dir.path()), &log);
        redis.until(&log, || ask(user, Some(password), &["PING"]) == "PONG");
        assert!(ask(user, Some("another"), &["PING"]).contains("NOAUTH"));
        assert!(ask("", None, &["PING"]).contains("NOAUTH"), "whoever says no name is let in");
        assert!(ask(user, Some(password), &["FLUSHALL"]).contains("NOPERM"), "a dangerous command");
        redis.stop();
    }
}

#[test]
fn postgres_is_made_mended_and_rotated_before_anybody_reaches_it() {
    if part::is_skipped("postgres") {
        return;
    }
    part::program("psql", "postgresql", &[]);
    let mut device = Device::edgex();
    device.up();
    let service = "security-bootstrapper-postgres";
    let ((uid, gid), dir) = (number_of("postgres"), open_dir());
    let (data, log) = (dir.path().join("pg"), dir.path().join("log"));
    let cluster = |device: &Device| {
        let mut entry = Command::new(EDGEKEEP);
        to_store(&mut entry, device, service);
        entry.env("EDGEKEEP_RUN_DIR", device.run_dir()).env("PGDATA", &data).current_dir("/");
        entry.env("DATABASECONFIG_PATH", dir.path().join("init")).env("DATABASECONFIG_NAME", "create-users.sh");
        entry.env("POSTGRES_PASSWORD_FILE", dir.path().join("secrets/postgres_password"));
        entry.args(["entry", "postgres", "--user", &format!("{uid}:{gid}"), "--", "postgres", "-D"]).arg(&data);
        entry.args(["-c", "unix_socket_directories=", "-c", "port=5432"]);
        Server::start(entry.arg("-c").arg(format!("listen_addresses={}", device.ip)), &log)
    };
    let ask = |device: &Device, user: &str, password: &str, sql: &str| {
        let mut psql = Command::new("psql");
        psql.env_clear().env("PATH", path()).env("PGPASSWORD", password).env("PGUSER", user);
        let output = psql.args(["-h", &device.ip, "-d", "edgex_db", "-w", "-Atc", sql]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let of = |service_name: &str| format!("secret/edgex/{service}/{service_name}postgres");
    let superuser = device.field(service, &of(""), "password");
    let first = device.field(service, &of("core-data/"), "password");
    let hostile_user = r#"x"; DROP DATABASE edgex_db; --'\"#;
    put(&device, service, "evil/postgres", hostile_user, HOSTILE);

    let mut server = cluster(&device);
    server.until(&log, || ask(&device, "core_data", &first, "select current_user") == (true, "core_data".into()));
    assert!(!ask(&device, "core_data", &superuser, "select 1").0, "another's password");
    assert!(!ask(&device, "core_data", "", "select 1").0, "no password");
    assert_eq!(ask(&device, hostile_user, HOSTILE, "select current_user"), (true, hostile_user.into()));
    assert!(ask(&device, "core_data", &first, "create table core_data.t (n int)").0, "its own schema");
    let theirs = format!("create table \"{}\".t (n int)", hostile_user.replace('"', "\"\""));
    assert!(!ask(&device, "core_data", &first, &theirs).0, "another's schema");
    assert!(ask(&device, "postgres", &superuser, "select 1").0);
    assert!(!dir.path().join("secrets/postgres_password").exists(), "the superuser's password is left behind");
    server.stop();

    // Rotated: the cluster is there already, and yet the new password counts.
    put(&device, service, "core-data/postgres", "core_data", "a new one");
    put(&device, service, "postgres", "postgres", HOSTILE);
    let mut server = cluster(&device);
    server.until(&log, || {
        ask(&device, "core_data", "a new one", "select count(*) from core_data.t") == (true, "0".into())
    });
    assert!(!ask(&device, "core_data", &first, "select 1").0, "the old password still works");
    assert!(ask(&device, "postgres", HOSTILE, "select 1").0);
    assert!(!ask(&device, "postgres", &superuser, "select 1").0);
    server.stop();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("a new one") && !said.contains(&first), "a password in the log");
}

#[test]
fn mosquitto_configured_by_our_command_takes_the_right_password_alone() {
    if part::is_skipped("mosquitto") {
        return;
    }
    let broker = part::program("mosquitto", "mosquitto", &["/usr/sbin"]);
    let publish = part::program("mosquitto_pub", "mosquitto-clients", &[]);
    let dir = open_dir();
    let setup = dir.path().join("configuration.yaml");
    let yaml = std::fs::read_to_string(part::sample("edgex-secretstore-setup.yaml")).unwrap();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&setup, yaml.replace("SecureMessageBus:\n  Type: none", "SecureMessageBus:\n  Type: mqtt")).unwrap();
    let mut device = Device::new(&format!(
        "[edgex]\ntoken_config = {:?}\nsecretstore_setup = {setup:?}\n",
        part::sample("edgex-token-config.json")
    ));
    device.up();
    let service = "security-bootstrapper-messagebus";
    // As in the image: the directory is the broker's, and so become the files in it.
    let ((uid, gid), config) = (number_of("mosquitto"), dir.path().join("config"));
    std::fs::create_dir(&config).unwrap();
    std::os::unix::fs::chown(&config, Some(uid), Some(gid)).unwrap();
    let (conf, log) = (config.join("mosquitto.conf"), dir.path().join("log"));
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let say = |login: Option<(&str, &str)>| {
        let mut command = Command::new(&publish);
        command.args(["-h", "127.0.0.1", "-p", &free, "-t", "t", "-m", "m"]);
        if let Some((user, password)) = login {
            command.args(["-u", user, "-P", password]);
        }
        command.output().unwrap().status.success()
    };
    let generated = device.field(service, &format!("secret/edgex/{service}/message-bus"), "password");
    for (user, password) in [("msgbususer", generated.as_str()), ("bus user", HOSTILE)] {
        put(&device, service, "message-bus", user, password);
        let mut command = bootstrapper(&device, service);
        command.env("SECUREMOSQUITTO_PASSWORDFILE", config.join("pwdfile")).env("SECUREMOSQUITTO_PORT", &free);
        part::must(command.env("SECUREMOSQUITTO_BROKERCONFIGFILE", &conf).args(["setupMessageBusCreds", "mosquitto"]));
        let mut broker = Server::start(Command::new(&broker).arg("-c").arg(&conf), &log);
        broker.until(&log, || say(Some((user, password))));
        assert!(!say(Some((user, "another"))), "a wrong password");
        assert!(!say(Some(("another", password))), "a wrong user");
        assert!(!say(None), "nobody");
        broker.stop();
    }
}
