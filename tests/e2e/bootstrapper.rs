//! Redis, PostgreSQL and Mosquitto, configured by our commands from our store and then logged in to.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::device::{Device, EDGEKEEP};
use crate::part;
use crate::server::{
    HOSTILE, Server, ask_redis, device_with_mqtt, dir_of, number_of, open_dir, path, put, tell_mosquitto, to_store,
};

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

#[test]
fn redis_configured_by_our_command_takes_the_right_password_alone() {
    if part::is_skipped("redis") {
        return;
    }
    let server = part::program("redis-server", "redis-server", &[]);
    let mut device = Device::edgex();
    device.up();
    let service = "security-bootstrapper-redis";
    let dir = open_dir();
    let (conf, socket, log) = (dir.path().join("redis/conf"), dir.path().join("redis.sock"), dir.path().join("log"));
    let ask = |login: Option<(&str, &str)>, question: &[&str]| ask_redis(&socket, login, question);
    let generated = device.field(service, &format!("secret/edgex/{service}/redisdb"), "password");
    for (user, password) in [("default", generated.as_str()), ("redis5", HOSTILE)] {
        put(&device, service, "redisdb", user, password);
        part::must(bootstrapper(&device, service).arg("configureRedis").env("DATABASECONFIG_PATH", &conf));
        let mode = std::fs::metadata(conf.join("edgex_redis_acl.conf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let mut redis = Command::new(&server);
        redis.arg(conf.join("redis.conf")).args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        let mut redis = Server::start(redis.arg("--dir").arg(dir.path()), &log);
        redis.until(|| ask(Some((user, password)), &["PING"]) == "PONG");
        assert!(ask(Some((user, "another")), &["PING"]).contains("NOAUTH"));
        assert!(ask(None, &["PING"]).contains("NOAUTH"), "whoever says no name is let in");
        assert!(ask(Some((user, password)), &["FLUSHALL"]).contains("NOPERM"), "a dangerous command");
        redis.signal("INT");
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
    server.until(|| ask(&device, "core_data", &first, "select current_user") == (true, "core_data".into()));
    assert!(!ask(&device, "core_data", &superuser, "select 1").0, "another's password");
    assert!(!ask(&device, "core_data", "", "select 1").0, "no password");
    assert_eq!(ask(&device, hostile_user, HOSTILE, "select current_user"), (true, hostile_user.into()));
    assert!(ask(&device, "core_data", &first, "create table core_data.t (n int)").0, "its own schema");
    let theirs = format!("create table \"{}\".t (n int)", hostile_user.replace('"', "\"\""));
    assert!(!ask(&device, "core_data", &first, &theirs).0, "another's schema");
    assert!(ask(&device, "postgres", &superuser, "select 1").0);
    assert!(!dir.path().join("secrets/postgres_password").exists(), "the superuser's password is left behind");
    server.signal("INT");

    // Rotated: the cluster is there already, and yet the new password counts.
    put(&device, service, "core-data/postgres", "core_data", "a new one");
    put(&device, service, "postgres", "postgres", HOSTILE);
    let mut server = cluster(&device);
    server.until(|| ask(&device, "core_data", "a new one", "select count(*) from core_data.t") == (true, "0".into()));
    assert!(!ask(&device, "core_data", &first, "select 1").0, "the old password still works");
    assert!(ask(&device, "postgres", HOSTILE, "select 1").0);
    assert!(!ask(&device, "postgres", &superuser, "select 1").0);
    server.signal("INT");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("a new one") && !said.contains(&first), "a password in the log");
}

#[test]
fn mosquitto_configured_by_our_command_takes_the_right_password_alone() {
    if part::is_skipped("mosquitto") {
        return;
    }
    let broker = part::program("mosquitto", "mosquitto", &["/usr/sbin"]);
    let dir = open_dir();
    let mut device = device_with_mqtt(dir.path());
    device.up();
    let service = "security-bootstrapper-messagebus";
    // As in the image: the directory is the broker's, and so become the files in it.
    let config = dir_of(number_of("mosquitto"), dir.path().join("config"));
    let (conf, log) = (config.join("mosquitto.conf"), dir.path().join("log"));
    let free = testkit::port().to_string();
    let say = |login: Option<(&str, &str)>| tell_mosquitto(&free, login);
    let generated = device.field(service, &format!("secret/edgex/{service}/message-bus"), "password");
    for (user, password) in [("msgbususer", generated.as_str()), ("bus user", HOSTILE)] {
        put(&device, service, "message-bus", user, password);
        let mut command = bootstrapper(&device, service);
        command.env("SECUREMOSQUITTO_PASSWORDFILE", config.join("pwdfile")).env("SECUREMOSQUITTO_PORT", &free);
        part::must(command.env("SECUREMOSQUITTO_BROKERCONFIGFILE", &conf).args(["setupMessageBusCreds", "mosquitto"]));
        let mut broker = Server::start(Command::new(&broker).arg("-c").arg(&conf), &log);
        broker.until(|| say(Some((user, password))));
        assert!(!say(Some((user, "another"))), "a wrong password");
        assert!(!say(Some(("another", password))), "a wrong user");
        assert!(!say(None), "nobody");
        broker.signal("INT");
    }
}
