//! A PostgreSQL cluster, made or mended before anybody can reach it.
//!
//! ```text
//! as root: credentials read, password file and script written for the server's user
//! as that user: a cluster if there is none (`initdb`) -> a server without a network -> the script -> that server stopped
//! ```
//! The port opens only with the real server, when every user has the password of today: a gate that asks the database
//! is told the truth.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use boot::gate::{Database, NotReady, Pace, persist};
use config::{Bootstrapper, Environment};
use host::{Disk, OsDisk, Owner};
use rustix::process::Signal;

use super::super::postgres::{Written, configure};
use super::child::{self, Running, not_run};
use super::initdb;
use crate::failure::{Code, Failure};

/// A cluster with its credentials at hand.
pub(super) struct Cluster {
    data: PathBuf,
    written: Written,
}

/// Reads the credentials and writes what the cluster needs, all of it for `user`.
///
/// # Errors
/// If a credential cannot be had or written, or `PGDATA` is not set.
pub(super) async fn prepare(
    config: &Bootstrapper,
    environment: &Environment,
    user: Option<Owner>,
) -> Result<Cluster, Failure> {
    let data = environment.value("PGDATA").filter(|d| d.starts_with('/')).map(PathBuf::from).ok_or_else(|| {
        Failure::usage("PGDATA names no directory").hint("set it to the cluster's directory, as PostgreSQL's images do")
    })?;
    let written = configure(config, environment, Some("create-users.sql"), user).await?;
    let failed = |e: std::io::Error| Failure::fault(format!("{} cannot be made: {e}", data.display()));
    if OsDisk.meta(&data).map_err(failed)?.is_none() {
        OsDisk.create_dir(&data, 0o700).map_err(failed)?;
    }
    // Given away while it is empty: a start that was killed before this leaves it root's.
    if let Some(user) = user
        && OsDisk.list(&data).map_err(failed)?.is_empty()
    {
        OsDisk.chown(&data, user).map_err(failed)?;
    }
    Ok(Cluster { data, written })
}

impl Cluster {
    /// Makes the cluster if there is none, and runs the script.
    ///
    /// # Errors
    /// If one of PostgreSQL's programs fails; its own words go to standard error.
    pub(super) async fn mend(&self) -> Result<(), Failure> {
        let make = async |at: &Path| {
            run(Command::new("initdb").arg("-D").arg(at).args([
                &format!("--username={}", self.written.superuser),
                &format!("--pwfile={}", self.written.password_file.display()),
                "--encoding=UTF8",
                // Whoever is this user on this machine owns the files anyway; everybody else shows a password.
                "--auth-local=peer",
                "--auth-host=scram-sha-256",
            ]))
            .await
        };
        initdb::ensure(&OsDisk, &self.data, make).await?;
        let mut server = Server::start(&self.data)?;
        server.until_ready().await?;
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-password", "--dbname=postgres", "--host"]).arg(&self.data);
        psql.arg(format!("--username={}", self.written.superuser)).arg("--file").arg(&self.written.script);
        let ran = run(&mut psql).await;
        server.stop()?;
        ran?;
        // What is left of it would only be another place to steal it from.
        OsDisk
            .remove_file(&self.written.password_file)
            .map_err(|e| Failure::fault(format!("{} cannot be removed: {e}", self.written.password_file.display())))
    }

    /// The real server, where no program was given.
    pub(super) fn server(&self) -> Vec<OsString> {
        vec!["postgres".into(), "-D".into(), self.data.clone().into_os_string()]
    }
}

/// A server that only this user on this machine can reach: no address, and a socket in the cluster's own directory.
struct Server {
    running: Running,
    socket: PathBuf,
}

impl Server {
    fn start(data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new("postgres");
        command.arg("-D").arg(data).args(["-c", "listen_addresses="]);
        command.arg("-c").arg(format!("unix_socket_directories={}", data.display()));
        // The name of the socket follows the port; a cluster that was given another one must not change it.
        command.args(["-c", "port=5432", "-c", "unix_socket_permissions=0700"]).stdin(Stdio::null());
        // SIGINT is PostgreSQL's fast shutdown: sessions are ended, and everything is written out.
        let running = Running::start(&mut command, Signal::INT).map_err(|e| not_run(command.get_program(), &e))?;
        Ok(Self { running, socket: data.join(".s.PGSQL.5432") })
    }

    async fn until_ready(&mut self) -> Result<(), Failure> {
        let pace = Pace { attempt: Duration::from_secs(5), pause: Duration::from_millis(100), total: Some(RECOVERY) };
        let socket = &self.socket;
        let attempt = || {
            let ended = self.running.ended();
            async move {
                match ended {
                    // It will not come up any more, however long it is waited for.
                    Some(status) => Ok(Err(format!("the server ended with {status}"))),
                    None => Database::Postgres.accepts_queries_at(socket).await.map(Ok),
                }
            }
        };
        let seen = match persist(pace, attempt).await {
            Ok(Ok(_standing)) => return Ok(()),
            Ok(Err(ended)) => ended,
            Err(gave_up) => gave_up.last.map_or_else(|| "no answer".to_owned(), |e: NotReady| host::with_causes(&e)),
        };
        let what = format!("the cluster at {} does not come up: {seen}", self.socket.display());
        Err(Failure::new(Code::NotReady, what).hint("its own words stand above"))
    }

    fn stop(mut self) -> Result<(), Failure> {
        let ended = self.running.end().map_err(|e| Failure::fault(format!("the server does not stop: {e}")))?;
        if ended.success() { Ok(()) } else { Err(Failure::fault(format!("the server ended with {ended}"))) }
    }
}

async fn run(command: &mut Command) -> Result<(), Failure> {
    // Its words go where ours go: standard output belongs to the real server.
    child::run(command.stdin(Stdio::null()).stdout(std::io::stderr())).await
}

/// A database that was cut off from its power reads its log first; on a small disk that takes minutes.
const RECOVERY: Duration = Duration::from_secs(600);
