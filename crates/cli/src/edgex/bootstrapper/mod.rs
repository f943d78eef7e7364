//! EdgeX's `security-bootstrapper`: gates between processes, and the configuration of databases and brokers.
//!
//! What is waited for and what is written is decided below (`boot::gate`, `delivery::peers`); here are names, flags and
//! codes.

mod arguments;
mod entry;
mod files;
mod gate;
mod listen;
mod message_bus;
mod postgres;
mod redis;
mod secrets;
mod signals;
mod trust;
mod wait_for;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use config::{Bootstrapper, Environment};
use host::{Disk, Entropy, OsDisk, OsEntropy};
use secret::Password;

use self::arguments::{Arguments, Command};
pub(crate) use self::entry::{Entry, entry};
use self::signals::Signals;
use self::wait_for::Patience;
use crate::failure::{Code, Failure, report};
use crate::output;

/// Runs the program by its arguments, its name first.
pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let parsed = match Arguments::try_parse_from(super::go_flags::doubled(arguments)) {
        Ok(parsed) => parsed,
        Err(e) if !e.use_stderr() => {
            output::line(&e.render().to_string());
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            output::error(e.render().to_string().trim_end());
            return ExitCode::from(UNUSABLE);
        }
    };
    let code = code_of(&parsed.command);
    match on_runtime(dispatch(parsed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::from(code(failure.code))
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let environment = crate::locate::environment();
    let config = || load(&environment, arguments.config_dir.as_deref(), arguments.config_file.as_deref());
    match arguments.command {
        Command::Gate => gate::run(&mut Signals::listen()?, &config()?.gates).await,
        Command::ListenTcp { port, host } => listen::run(&mut Signals::listen()?, &host, port).await,
        Command::WaitFor(wanted) => {
            let usual = config()?.gates;
            let patience = Patience {
                timeout: wanted.timeout.unwrap_or(usual.timeout),
                interval: wanted.retry_interval.unwrap_or(usual.retry_interval),
            };
            Signals::listen()?.or_stopped(wait_for::all(wanted.uri, patience)).await
        }
        Command::GenPassword => {
            let password = Password::generate(&mut |out| OsEntropy.fill(out));
            output::line(password.expose());
            Ok(())
        }
        Command::GetHttpStatus { url } => status(&url, &environment).await,
        Command::ConfigureRedis => {
            Signals::listen()?.or_stopped(async { redis::configure(&config()?, None).await.map(drop) }).await
        }
        Command::ConfigurePostgres => {
            let work = async { postgres::configure(&config()?, &environment, None, None).await.map(drop) };
            Signals::listen()?.or_stopped(work).await
        }
        Command::SetupMessageBusCreds { broker } => {
            Signals::listen()?.or_stopped(async { message_bus::configure(&config()?, broker, None).await }).await
        }
    }
}

/// `getHttpStatus`: the status, whatever it is; that somebody answers is all that is asked.
async fn status(url: &client::WebUrl, environment: &Environment) -> Result<(), Failure> {
    let trust = if url.is_tls() { Some(trust::of_this_machine(environment)?) } else { None };
    let told = match tokio::time::timeout(STATUS_DEADLINE, url.status(trust.as_ref())).await {
        Ok(Ok(status)) => {
            output::line(&status.to_string());
            return Ok(());
        }
        Ok(Err(e)) => host::with_causes(&e),
        Err(_) => format!("no answer within {STATUS_DEADLINE:?}"),
    };
    Err(Failure::new(Code::NotReady, format!("{url}: {told}"))
        .hint("see whether it runs, and by whom its certificate is signed"))
}

/// The configuration that the command line or the environment names; or `res/configuration.yaml`, where there is one.
///
/// # Errors
/// If it was named and is not there, or has faults.
fn load(environment: &Environment, dir: Option<&Path>, file: Option<&Path>) -> Result<Bootstrapper, Failure> {
    let of_environment = |name| environment.value(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let file = file.map(Path::to_owned).or_else(|| of_environment("EDGEX_CONFIG_FILE"));
    let dir = dir.map(Path::to_owned).or_else(|| of_environment("EDGEX_CONFIG_DIR"));
    let named = dir.is_some() || file.is_some();
    let path = dir.unwrap_or("res".into()).join(file.unwrap_or("configuration.yaml".into()));
    // Unnamed and absent is no fault: the variables of EdgeX's compose files say it all.
    let there = named || matches!(OsDisk.meta(&path), Ok(Some(_)));
    config::bootstrapper(&OsDisk, environment, crate::process::uid(), there.then_some(path.as_path())).map_err(
        |faults| {
            output::error(&faults.to_string());
            Failure::usage("the configuration has faults; nothing was done")
                .hint("each is shown above with its place and its remedy")
        },
    )
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::fault(format!("the asynchronous runtime does not start: {e}")))?
        .block_on(work)
}

/// EdgeX's codes: 1 where nothing could be begun, and for whatever a configure command or the gate meets; 2 where
/// another command ran and failed.
fn code_of(command: &Command) -> fn(Code) -> u8 {
    match command {
        Command::Gate | Command::ConfigureRedis | Command::ConfigurePostgres | Command::SetupMessageBusCreds { .. } => {
            |_| UNUSABLE
        }
        Command::ListenTcp { .. } | Command::WaitFor(_) | Command::GenPassword | Command::GetHttpStatus { .. } => {
            |code| if code == Code::Usage { UNUSABLE } else { FAILED }
        }
    }
}

const UNUSABLE: u8 = 1;
const FAILED: u8 = 2;
/// EdgeX's own.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
