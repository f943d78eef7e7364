//! `edgekeep entry ROLE -- PROGRAM ...`: the first process of one of EdgeX's containers, in place of its shell scripts.
//!
//! ```text
//! wait for the gate of the role -> write what the program reads -> become its user -> the program takes this process's place
//! ```
//! Nothing of a step is done before the one in front of it is done whole: a program never runs ahead of its gate, with
//! half a configuration, or as root by mistake. Killed in between, it begins anew; told to stop at any of them, between
//! two or just before the last, it ends with code 2 and the program never runs.

mod child;
mod initdb;
mod postgres;
mod privileges;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use boot::gate::{Trust, WaitError, wait_for};
use boot::plan::GateName;
use clap::{Args, ValueEnum};
use config::{Bootstrapper, Environment, StageGates};
use host::{Clock, OsClock, OsDisk, Owner};

use self::privileges::{become_user, user_of_passwd};
use super::message_bus::Broker;
use super::signals::Signals;
use super::wait_for::{Condition, Family, Patience, all};
use super::{listen, load, message_bus, on_runtime, redis};
use crate::failure::{Code, Failure};

/// Example: edgekeep entry redis --user 999:1000 -- redis-server /run/redis/conf/redis.conf
#[derive(Args)]
pub(crate) struct Entry {
    /// What the container is.
    #[arg(value_enum)]
    role: Role,
    /// The directory of configuration.yaml [env: CONF_DIR, EDGEX_CONFIG_DIR].
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Whom to become before the program starts, by number; only root can. [default: the user of EdgeX's script for the
    /// role]
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    user: Option<Owner>,
    /// The program and its arguments.
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The container of the gates; as user EDGEX_USER:EDGEX_GROUP. No program.
    Bootstrapper,
    /// A store: waits until the start port is open.
    SecretStore,
    /// Redis: waits for tokens, writes redis.conf; as user 999:1000.
    Redis,
    /// PostgreSQL: waits for tokens, makes or mends the cluster; as user postgres.
    Postgres,
    /// Mosquitto: waits for tokens, writes its configuration. The program is $ENTRYPOINT where none is given.
    #[value(name = "messagebus")]
    MessageBus,
    /// Any service: waits until everything is ready to run.
    ReadyToRun,
    /// eKuiper: the same.
    Kuiper,
    /// The proxy's set-up: waits until everything is ready to run, runs the program, then opens the proxy's gate.
    ProxySetup,
    /// The proxy: waits until it is set up.
    Nginx,
}

/// Never returns when all goes well: the program has taken our place.
///
/// # Errors
/// What was not there in time, or could not be done.
pub(crate) fn entry(entry: Entry) -> Result<(), Failure> {
    // Before all else: from the first process of a container the kernel hides what it has no handler for
    // (pid_namespaces(7)).
    let mut signals = on_runtime(async { Signals::listen() })?;
    let environment = crate::locate::environment();
    let of_environment = |name| environment.value(name).filter(|v| !v.is_empty());
    let dir = entry.config_dir.clone().or_else(|| of_environment("CONF_DIR").map(PathBuf::from));
    let config = load(&environment, dir.as_deref(), None)?;
    let plan = Start { environment: &environment, config: &config, entry: &entry, user: entry.user(&environment)? };
    plan.start(&mut signals)
}

struct Start<'a> {
    environment: &'a Environment,
    config: &'a Bootstrapper,
    entry: &'a Entry,
    /// Whom to become; `None` to stay who we are.
    user: Option<Owner>,
}

impl Start<'_> {
    fn start(self, signals: &mut Signals) -> Result<(), Failure> {
        let program = self.entry.program.clone();
        match self.entry.role {
            Role::Bootstrapper => {
                self.drop_privileges()?;
                on_runtime(super::gate::run(signals, &self.config.gates))
            }
            Role::SecretStore | Role::ReadyToRun | Role::Kuiper | Role::Nginx => {
                on_runtime(self.gate(signals))?;
                self.replace_by(signals, program)
            }
            Role::Redis => {
                let conf = on_runtime(async {
                    self.gate(signals).await?;
                    signals.or_stopped(redis::configure(self.config, self.user)).await
                })?;
                let usual = || vec!["redis-server".into(), conf.into_os_string()];
                self.replace_by(signals, if program.is_empty() { usual() } else { program })
            }
            Role::MessageBus => {
                let broker = self.broker()?;
                on_runtime(async {
                    self.gate(signals).await?;
                    signals.or_stopped(message_bus::configure(self.config, broker, self.user)).await
                })?;
                let named = || self.environment.value("ENTRYPOINT").unwrap_or_default();
                let usual = || named().split_ascii_whitespace().map(OsString::from).collect();
                self.replace_by(signals, if program.is_empty() { usual() } else { program })
            }
            Role::Postgres => {
                let cluster = on_runtime(async {
                    self.gate(signals).await?;
                    let work = postgres::prepare(self.config, self.environment, self.user);
                    signals.or_stopped(work).await
                })?;
                self.drop_privileges()?;
                on_runtime(signals.or_stopped(cluster.mend()))?;
                let usual = || cluster.server();
                exec(signals, if program.is_empty() { usual() } else { program })
            }
            Role::ProxySetup => {
                on_runtime(self.gate(signals))?;
                self.drop_privileges()?;
                on_runtime(signals.or_stopped(child::run(&mut command_of(program)?)))?;
                // Only now: whoever waits for this port needs what the program has made.
                let gates = &self.config.gates;
                on_runtime(listen::run(signals, &gates.proxy_host, gates.proxy_port))
            }
        }
    }

    /// Waits for the gate of the role: by its evidence where an edgekeep runs on this machine, otherwise by its port.
    async fn gate(&self, signals: &mut Signals) -> Result<(), Failure> {
        let Some((port, gate)) = self.entry.role.gate(&self.config.gates) else { return Ok(()) };
        let gates = &self.config.gates;
        let run_dir = self.environment.value("EDGEKEEP_RUN_DIR").filter(|d| !d.is_empty());
        if let (Some(gate), Some(run_dir)) = (gate, run_dir) {
            let socket = PathBuf::from(run_dir).join("gate.sock");
            return signals.or_stopped(by_evidence(socket, gate, gates.timeout)).await;
        }
        crate::output::error(&format!("waiting for {port}"));
        let patience = Patience { timeout: gates.timeout, interval: gates.retry_interval };
        signals.or_stopped(all(vec![port], patience)).await
    }

    fn broker(&self) -> Result<Broker, Failure> {
        let name = self.environment.value("BROKER_TYPE").unwrap_or("mosquitto");
        Broker::from_str(name, true)
            .map_err(|_| Failure::usage(format!("BROKER_TYPE is {name:?}")).hint("set it to mosquitto or redis"))
    }

    fn drop_privileges(&self) -> Result<(), Failure> {
        let Some(user) = self.user else { return Ok(()) };
        become_user(user).map_err(|e| Failure::of(Code::Refused, &e).hint("start it as root, or as that very user"))
    }

    fn replace_by(&self, signals: &mut Signals, program: Vec<OsString>) -> Result<(), Failure> {
        self.drop_privileges()?;
        exec(signals, program)
    }
}

impl Role {
    /// The port of the role's gate, and edgekeep's own name for it.
    fn gate(self, gates: &StageGates) -> Option<(Condition, Option<GateName>)> {
        let (host, port, name) = match self {
            Self::Bootstrapper => return None,
            Self::SecretStore => (&gates.host, gates.start_port, None),
            Self::Redis | Self::Postgres | Self::MessageBus => {
                (&gates.tokens_host, gates.tokens_port, Some("tokens-ready"))
            }
            Self::ReadyToRun | Self::Kuiper | Self::ProxySetup => {
                (&gates.host, gates.to_run_port, Some("ready-to-run"))
            }
            Self::Nginx => (&gates.proxy_host, gates.proxy_port, None),
        };
        let condition = Condition::Port { host: host.clone(), port: port.get(), family: Family::Any };
        Some((condition, name.and_then(|n| n.parse().ok())))
    }
}

impl Entry {
    /// Whom to become: as told, or as EdgeX's script for the role does when it is root.
    fn user(&self, environment: &Environment) -> Result<Option<Owner>, Failure> {
        if self.user.is_some() || crate::process::uid() != 0 {
            return Ok(self.user);
        }
        let number = |name: &str, usual| -> Result<u32, Failure> {
            let Some(text) = environment.value(name).filter(|v| !v.is_empty()) else { return Ok(usual) };
            text.parse().ok().filter(|n| *n < u32::MAX).ok_or_else(|| {
                Failure::usage(format!("{name} is {text:?}"))
                    .hint("set it to the number of a user or group, such as 2002")
            })
        };
        Ok(match self.role {
            Role::Bootstrapper => Some(Owner { uid: number("EDGEX_USER", 2002)?, gid: number("EDGEX_GROUP", 2001)? }),
            Role::Redis => Some(Owner { uid: 999, gid: 1000 }),
            Role::Postgres => Some(user_of_passwd(&OsDisk, "postgres").ok_or_else(|| {
                Failure::usage("there is no user postgres in /etc/passwd").hint("name it by number with --user UID:GID")
            })?),
            _ => None,
        })
    }
}

async fn by_evidence(socket: PathBuf, gate: GateName, timeout: std::time::Duration) -> Result<(), Failure> {
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let trust = Trust { boot: clock.boot_id(), uid: crate::process::uid(), ca: None };
    crate::output::error(&format!("waiting for the gate {gate} at {}", socket.display()));
    wait_for(&socket, &gate, &trust, timeout).await.map(drop).map_err(|e| {
        let late = matches!(e, WaitError::Absent { .. } | WaitError::Busy { .. } | WaitError::TimedOut { .. });
        Failure::of(if late { Code::NotReady } else { Code::Refused }, &e).hint(e.hint())
    })
}

/// The program takes the place of this process: its number, its signals, its files.
fn exec(signals: &mut Signals, program: Vec<OsString>) -> Result<(), Failure> {
    let mut command = command_of(program)?;
    on_runtime(async {
        signals.none_yet().await?;
        // On the runtime still: whatever comes now is lost with our handler, and taking the runtime down would give it
        // time.
        let cause = command.exec();
        Err(child::not_run(command.get_program(), &cause))
    })
}

fn command_of(program: Vec<OsString>) -> Result<Command, Failure> {
    let mut words = program.into_iter();
    let name = words.next().ok_or_else(|| {
        Failure::usage("no program was given").hint("write it behind --: edgekeep entry ready-to-run -- /core-data")
    })?;
    let mut command = Command::new(name);
    command.args(words);
    Ok(command)
}

fn owner(text: &str) -> Result<Owner, &'static str> {
    let number = |t: &str| t.parse().ok().filter(|n| *n < u32::MAX && t.bytes().all(|b| b.is_ascii_digit()));
    let parsed = text.split_once(':').and_then(|(u, g)| Some(Owner { uid: number(u)?, gid: number(g)? }));
    parsed.ok_or("expected two numbers, as 2002:2001")
}
