//! A PostgreSQL cluster, made or mended before anybody can reach it.
//!
//! ```text
//! as root: credentials read, password file and script written for the server's user
//! as that user: initdb if there is no cluster -> a server without a network -> the script -> that server stopped
//! ```
//! The port opens only with the real server, when every user has the password of today: a gate that asks the database is told
//! the truth.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use boot::gate::{Database, NotReady, Pace, persist};
use config::{Bootstrapper, Environment};
use host::{Disk, OsDisk, Owner};
use rustix::process::{Pid, Signal, kill_process};

use super::super::postgres::{Written, configure};
use crate::failure::{Code, Failure};
use crate::output;

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
        if let Some(user) = user {
            OsDisk.chown(&data, user).map_err(failed)?;
        }
    }
    Ok(Cluster { data, written })
}

impl Cluster {
    /// Makes the cluster if there is none, and runs the script.
    ///
    /// # Errors
    /// If one of PostgreSQL's programs fails; its own words go to standard error.
    pub(super) async fn mend(&self) -> Result<(), Failure> {
        let version = self.data.join("PG_VERSION");
        let there = OsDisk.meta(&version).map_err(|e| Failure::fault(format!("{}: {e}", version.display())))?;
        if there.is_none() {
            run(Command::new("initdb").arg("-D").arg(&self.data).args([
                &format!("--username={}", self.written.superuser),
                &format!("--pwfile={}", self.written.password_file.display()),
                "--encoding=UTF8",
                // Whoever is this user on this machine owns the files anyway; everybody else shows a password.
                "--auth-local=peer",
                "--auth-host=scram-sha-256",
            ]))?;
            self.let_others_in()?;
        }
        let server = Server::start(&self.data)?;
        server.until_ready().await?;
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-password", "--dbname=postgres", "--host"]).arg(&self.data);
        psql.arg(format!("--username={}", self.written.superuser)).arg("--file").arg(&self.written.script);
        let ran = run(&mut psql);
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

    /// initdb lets in this machine alone; services come over the containers' network, and with a password.
    fn let_others_in(&self) -> Result<(), Failure> {
        let file = self.data.join("pg_hba.conf");
        let failed = |e: std::io::Error| Failure::fault(format!("{}: {e}", file.display()));
        let mut text = OsDisk.read(&file, MAX_HBA_BYTES).map_err(failed)?.to_vec();
        text.extend_from_slice(b"\nhost all all all scram-sha-256\n");
        OsDisk.replace(&file, &text, 0o600, None).map_err(failed)
    }
}

/// A server that only this user on this machine can reach: no address, and a socket in the cluster's own directory.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new("postgres");
        command.arg("-D").arg(data).args(["-c", "listen_addresses="]);
        command.arg("-c").arg(format!("unix_socket_directories={}", data.display()));
        // The name of the socket follows the port; a cluster that was given another one must not change it.
        command.args(["-c", "port=5432", "-c", "unix_socket_permissions=0700"]).stdin(Stdio::null());
        let child =
            command.spawn().map_err(|e| Failure::usage(format!("postgres cannot be run: {e}")).hint(ON_PATH))?;
        Ok(Self { child, socket: data.join(".s.PGSQL.5432") })
    }

    async fn until_ready(&self) -> Result<(), Failure> {
        let pace = Pace { attempt: Duration::from_secs(5), pause: Duration::from_millis(100), total: Some(RECOVERY) };
        let ready = persist(pace, || Database::Postgres.accepts_queries_at(&self.socket)).await;
        ready.map_err(|gave_up| {
            let seen = gave_up.last.as_ref().map_or_else(|| "no answer".to_owned(), |e: &NotReady| host::with_causes(e));
            let what = format!("the cluster in {} does not come up: {seen}", self.socket.display());
            Failure::new(Code::NotReady, what).hint(
                "its own words stand above; a cluster whose first start was killed is incomplete: remove it and start again",
            )
        })
    }

    /// SIGINT is PostgreSQL's fast shutdown: sessions are ended, and everything is written out.
    fn stop(mut self) -> Result<(), Failure> {
        let ended = self.end().map_err(|e| Failure::fault(format!("the server does not stop: {e}")))?;
        if ended.success() { Ok(()) } else { Err(Failure::fault(format!("the server ended with {ended}"))) }
    }

    fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let (None, Ok(id)) = (self.child.try_wait()?, i32::try_from(self.child.id()))
            && let Some(pid) = Pid::from_raw(id)
        {
            kill_process(pid, Signal::INT)?;
        }
        self.child.wait()
    }
}

impl Drop for Server {
    /// Where the work was given up; after `stop` there is nothing left to end.
    fn drop(&mut self) {
        self.end().ok();
    }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().display().to_string();
    output::error(&format!("running {name}"));
    // Its words go where ours go: standard output belongs to the real server.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.map_err(|e| Failure::usage(format!("{name} cannot be run: {e}")).hint(ON_PATH))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Code::Refused, format!("{name} ended with {status}")).hint("its own words stand above"))
}

const ON_PATH: &str = "PostgreSQL's programs must be on PATH";
/// A database that was cut off from its power reads its log first; on a small disk that takes minutes.
const RECOVERY: Duration = Duration::from_secs(600);
const MAX_HBA_BYTES: usize = 1024 * 1024;
