//! A generated credential logs in to the real database, and a wrong one does not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::device::Device;
use crate::part;

/// A server that is stopped with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks until the answer is yes; a server that does not come up ends with its log.
fn until(mut ask: impl FnMut() -> bool, log: &Path) {
    for _ in 0..2000 {
        if ask() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the server does not answer: {}", std::fs::read_to_string(log).unwrap_or_default());
}

#[test]
fn redis_takes_the_generated_credential() {
    if part::is_skipped("redis") {
        return;
    }
    let server = part::program("redis-server", "redis-server", &[]);
    let cli = part::program("redis-cli", "redis-server", &[]);
    let mut device = Device::edgex();
    device.up();
    let path = "secret/edgex/core-data/redisdb";
    let (user, password) = (device.field("core-data", path, "username"), device.field("core-data", path, "password"));
    assert_eq!(password.len(), 44, "33 random bytes in base64");
    assert_eq!(password, device.field("core-metadata", "secret/edgex/core-metadata/redisdb", "password"));

    let dir = tempfile::tempdir().unwrap();
    let (socket, log) = (dir.path().join("redis.sock"), dir.path().join("log"));
    let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    let mut redis = Command::new(server);
    redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).arg("--dir").arg(dir.path());
    redis.args(["--user", &user, "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    let _redis = Server(redis.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    let ping = |password: &str| {
        let output = Command::new(&cli)
            .arg("-s")
            .arg(&socket)
            .args(["--no-auth-warning", "--user", &user, "PING"])
            .env("REDISCLI_AUTH", password)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    until(|| ping(&password) == "PONG", &log);
    assert!(ping("another").contains("NOAUTH"));
}

#[test]
fn postgres_takes_the_generated_credentials() {
    if part::is_skipped("postgres") {
        return;
    }
    let bin = std::fs::read_dir("/usr/lib/postgresql")
        .ok()
        .and_then(|mut versions| versions.next())
        .map(|v| v.unwrap().path().join("bin"))
        .expect("postgresql is missing: apt-get install postgresql, or EDGEKEEP_TEST_SKIP=postgres");
    let mut device = Device::edgex();
    device.up();
    let superuser = device.field(
        "security-bootstrapper-postgres",
        "secret/edgex/security-bootstrapper-postgres/postgres",
        "password",
    );
    let path = "secret/edgex/core-data/postgres";
    let (user, password) = (device.field("core-data", path, "username"), device.field("core-data", path, "password"));
    assert_eq!(user, "core_data");
    assert_ne!(password, superuser);

    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("pg"), dir.path().join("log"));
    let secret = dir.path().join("superuser");
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&secret, &superuser).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // PostgreSQL refuses to run as root.
    let id = |flag: &str| {
        let output = part::must(Command::new("id").args([flag, "postgres"]));
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    let (uid, gid) = (id("-u"), id("-g"));
    std::os::unix::fs::chown(&secret, Some(uid), Some(gid)).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(uid), Some(gid)).unwrap();
    let as_postgres = |program: &str| {
        let mut command = Command::new(bin.join(program));
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, gid);
        command.current_dir("/");
        command
    };
    part::must(
        as_postgres("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "scram-sha-256", "-U", "postgres", "--no-sync"])
            .arg(format!("--pwfile={}", secret.display())),
    );
    let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    let mut server = as_postgres("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(&data).args(["-c", "listen_addresses="]);
    let _server = Server(server.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    let psql = |user: &str, password: &str, sql: &str| {
        let output = Command::new(bin.join("psql"))
            .arg("-h")
            .arg(&data)
            .args(["-U", user, "-d", "postgres", "-Atc", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    until(|| psql("postgres", &superuser, "select 1").0, &log);
    // The password is base64: it has no quote to escape.
    assert!(psql("postgres", &superuser, &format!("create role {user} login password '{password}'")).0);
    assert_eq!(psql(&user, &password, "select current_user"), (true, user.clone()));
    assert!(!psql(&user, &superuser, "select 1").0, "another's password must not do");
}
