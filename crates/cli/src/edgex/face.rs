//! What the faces that work on a store have in common: where their configuration is, how the store is reached, how they
//! end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use client::{DangerPlainVault, Deadlines, HttpsVault, PlainNetworkAllowed, PlainRefused, Remote, Trust};
use config::{Environment, Face, Faults, StoreAt};
use external::{Patient, Stop};
use host::{Disk, OsDisk};

use crate::failure::{Code, Failure};

/// Flags of every program of EdgeX that has a configuration.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// The directory of the configuration; EDGEX_CONFIG_DIR.
    #[arg(long = "configDir", aliases = ["cd", "confdir"], value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Its file; EDGEX_CONFIG_FILE.
    #[arg(long = "configFile", aliases = ["cf"], value_name = "FILE")]
    file: Option<PathBuf>,
    /// A directory below it; EDGEX_PROFILE.
    #[arg(long = "profile", short = 'p', value_name = "NAME")]
    profile: Option<String>,
}

impl Where {
    /// The same flags, for another process of this executable.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let given = [("--configDir", &self.dir), ("--configFile", &self.file)];
        let mut arguments: Vec<OsString> = given
            .into_iter()
            .filter_map(|(flag, path)| Some([flag.into(), path.clone()?.into_os_string()]))
            .flatten()
            .collect();
        arguments.extend(self.profile.iter().flat_map(|profile| ["--profile".into(), profile.into()]));
        arguments
    }

    /// The file: variables before flags, as EdgeX has it.
    fn path(&self, environment: &Environment, usual_dir: &str) -> PathBuf {
        let variable = |name: &str| environment.value(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = variable("EDGEX_CONFIG_DIR").or_else(|| self.dir.clone()).unwrap_or_else(|| usual_dir.into());
        let profile =
            variable("EDGEX_PROFILE").or_else(|| self.profile.as_ref().map(PathBuf::from)).unwrap_or_default();
        let file =
            variable("EDGEX_CONFIG_FILE").or_else(|| self.file.clone()).unwrap_or_else(|| "configuration.yaml".into());
        dir.join(profile).join(file)
    }
}

/// What a face reads its configuration from.
pub(super) struct Ground {
    environment: Environment,
    directory: PathBuf,
    uid: u32,
}

impl Ground {
    /// The process's own.
    pub(super) fn of_process() -> Result<Self, Failure> {
        let directory = std::env::current_dir()
            .map_err(|e| Failure::usage(format!("the working directory is not to be had: {e}")))?;
        Ok(Self { environment: Environment::new(std::env::vars_os()), directory, uid: crate::process::uid() })
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Reads a face's file with `read`.
    pub(super) fn read<T>(
        &self,
        at: &Where,
        usual_dir: &str,
        read: impl FnOnce(&Face<'_>) -> Result<T, Faults>,
    ) -> Result<T, Failure> {
        let file = self.directory.join(at.path(&self.environment, usual_dir));
        let face = Face {
            disk: &OsDisk,
            environment: &self.environment,
            uid: self.uid,
            file: &file,
            directory: &self.directory,
        };
        read(&face).map_err(|faults| Failure::usage(faults.to_string()))
    }
}

/// A way to the store that the configuration names.
pub(super) fn connect(store: &StoreAt) -> Result<Patient<Remote>, Failure> {
    reach(store).map(Patient)
}

fn reach(store: &StoreAt) -> Result<Remote, Failure> {
    let deadlines = Deadlines::default();
    if store.https {
        let Some(ca) = &store.ca_file else {
            // The configuration is refused without one.
            return Err(Failure::usage("SecretStore.CaFilePath is blank").hint("name the PEM file of the store's CA"));
        };
        return Ok(Remote::Https(verified(store, ca, deadlines)?));
    }
    plain(&store.host, store.port, store.danger_plain_http).map(Remote::DangerPlain).map_err(|e| {
        Failure::of(Code::Refused, &e).hint(
            "give the store a certificate, and set Protocol to https and CaFilePath; or, on a private network of containers, \
             EDGEKEEP_DANGER_PLAIN_HTTP=true",
        )
    })
}

/// A store without TLS: on this machine; on a private network only where the configuration asked for it, whose author
/// is told each time.
pub(super) fn plain(
    host: &str,
    port: u16,
    allowed: Option<PlainNetworkAllowed>,
) -> Result<DangerPlainVault, PlainRefused> {
    match (DangerPlainVault::new(host, port, Deadlines::default()), allowed) {
        (Err(_), Some(allowed)) => {
            crate::output::error(&format!(
                "warning: tokens and secrets cross the network to {host} in clear (EDGEKEEP_DANGER_PLAIN_HTTP)"
            ));
            Ok(DangerPlainVault::on_private_network(host, port, Deadlines::default(), allowed))
        }
        (known, _) => known,
    }
}

fn verified(store: &StoreAt, ca: &Path, deadlines: Deadlines) -> Result<HttpsVault, Failure> {
    let pem = OsDisk
        .read(ca, MAX_CA_BYTES)
        .map_err(|e| Failure::new(Code::Refused, format!("the CA {} cannot be read: {e}", ca.display())))?;
    let trust = Trust::of_pem(&pem).map(Trust::allow_tls12);
    let trust = trust.and_then(|t| match &store.server_name {
        Some(name) => t.named(name),
        None => Ok(t),
    });
    trust
        .and_then(|t| HttpsVault::new(&store.host, store.port, &t, deadlines))
        .map_err(|e| Failure::of(Code::Refused, &e).hint("see SecretStore.CaFilePath and ServerName"))
}

/// Runs a face's work to its end, or until a signal; EdgeX's programs have two exit codes.
pub(super) fn exit<W>(work: impl FnOnce(Stop) -> W) -> ExitCode
where
    W: Future<Output = Result<(), Failure>>,
{
    ended(until_signal(work))
}

/// Runs work that hears signals.
pub(super) fn until_signal<W>(work: impl FnOnce(Stop) -> W) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            let (halt, stop) = external::stop();
            let mut signals =
                server::Signals::new().map_err(|e| Failure::fault(format!("signals cannot be taken over: {e}")))?;
            let listening = tokio::spawn(async move {
                while signals.next().await != server::Signal::Terminate {}
                halt.say();
            });
            let outcome = work(stop).await;
            listening.abort();
            outcome
        }),
        Err(e) => Err(Failure::fault(format!("the asynchronous runtime does not start: {e}"))),
    }
}

/// 0 or 1.
pub(super) fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            crate::failure::report(&failure);
            ExitCode::FAILURE
        }
    }
}

const MAX_CA_BYTES: usize = 1024 * 1024;

/// Reads the arguments of a face, Go's way; or shows help or a refusal, and gives the exit code.
pub(super) fn parse<A: clap::Parser>(arguments: Vec<std::ffi::OsString>) -> Result<A, ExitCode> {
    A::try_parse_from(super::go_flags::doubled(arguments)).map_err(|e| {
        let text = e.render().to_string();
        // Called without arguments nothing was done, and that is no success.
        if e.kind() == clap::error::ErrorKind::DisplayHelp || e.kind() == clap::error::ErrorKind::DisplayVersion {
            crate::output::line(&text);
            return ExitCode::SUCCESS;
        }
        crate::output::error(text.trim_end());
        ExitCode::FAILURE
    })
}
