//! A generated credential logs in to the real database, and a wrong one does not.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::device::Device;
use crate::part;
use crate::server::{Server, ask_redis, dir_of, number_of, open_dir, path};

#[test]
fn redis_takes_the_generated_credential() {
    if part::is_skipped("redis") {
        return;
    }
    let server = part::program("redis-server", "redis-server", &[]);
    let mut device = Device::edgex();
    device.up();
    let path = "secret/edgex/core-data/redisdb";
    let (user, password) = (device.field("core-data", path, "username"), device.field("core-data", path, "password"));
    assert_eq!(password.len(), 44, "33 random bytes in base64");
    assert_eq!(password, device.field("core-metadata", "secret/edgex/core-metadata/redisdb", "password"));

    let dir = tempfile::tempdir().unwrap();
    let (socket, log) = (dir.path().join("redis.sock"), dir.path().join("log"));
    let mut redis = Command::new(server);
    redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).arg("--dir").arg(dir.path());
    redis.args(["--user", &user, "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    let mut redis = Server::start(&mut redis, &log);
    redis.until(|| ask_redis(&socket, Some((&user, &password)), &["PING"]) == "PONG");
    assert!(ask_redis(&socket, Some((&user, "another")), &["PING"]).contains("NOAUTH"));
}

#[test]
fn postgres_takes_the_generated_credentials() {
    if part::is_skipped("postgres") {
        return;
    }
    part::program("psql", "postgresql", &[]);
    let mut device = Device::edgex();
    device.up();
    let superuser = device.field(
        "security-bootstrapper-postgres",
        "secret/edgex/security-bootstrapper-postgres/postgres",
        "password",
    );
    let at = "secret/edgex/core-data/postgres";
    let (user, password) = (device.field("core-data", at, "username"), device.field("core-data", at, "password"));
    assert_eq!(user, "core_data");
    assert_ne!(password, superuser);

    let (dir, postgres) = (open_dir(), number_of("postgres"));
    let (data, log) = (dir_of(postgres, dir.path().join("pg")), dir.path().join("log"));
    let secret = dir.path().join("superuser");
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&secret, &superuser).unwrap();
    std::os::unix::fs::chown(&secret, Some(postgres.0), Some(postgres.1)).unwrap();
    // PostgreSQL refuses to run as root.
    let as_postgres = |program: &str| {
        let mut command = Command::new(program);
        command.env("PATH", path()).uid(postgres.0).gid(postgres.1).current_dir("/");
        command
    };
    part::must(
        as_postgres("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "scram-sha-256", "-U", "postgres", "--no-sync"])
            .arg(format!("--pwfile={}", secret.display())),
    );
    let mut server = as_postgres("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(&data).args(["-c", "listen_addresses="]);
    let mut server = Server::start(&mut server, &log);
    let psql = |user: &str, password: &str, sql: &str| {
        let output = Command::new("psql")
            .env("PATH", path())
            .arg("-h")
            .arg(&data)
            .args(["-U", user, "-d", "postgres", "-Atc", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    server.until(|| psql("postgres", &superuser, "select 1").0);
    // The password is base64: it has no quote to escape.
    assert!(psql("postgres", &superuser, &format!("create role {user} login password '{password}'")).0);
    assert_eq!(psql(&user, &password, "select current_user"), (true, user.clone()));
    assert!(!psql(&user, &superuser, "select 1").0, "another's password must not do");
}
