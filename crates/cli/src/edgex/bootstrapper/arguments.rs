//! The command line of EdgeX's `security-bootstrapper`, as its scripts write it.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::wait_for::Condition;

/// Holds services back until what they need is there, and writes the configuration of databases and brokers.
///
/// Exit codes: 0 done; 1 wrong arguments or configuration, or a configure command failed; 2 any other command failed.
#[derive(Parser)]
#[command(name = "security-bootstrapper", version, max_term_width = 100)]
pub(super) struct Arguments {
    /// The directory of configuration.yaml [env: EDGEX_CONFIG_DIR] [default: res, where it exists].
    #[arg(long = "configDir", aliases = ["cd", "confdir"], value_name = "DIR")]
    pub(super) config_dir: Option<PathBuf>,
    /// Another name than configuration.yaml [env: EDGEX_CONFIG_FILE].
    #[arg(long = "configFile", alias = "cf", value_name = "FILE")]
    pub(super) config_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
#[command(rename_all = "camelCase")]
pub(super) enum Command {
    /// Open the start port; when the database takes queries, open the ready-to-run port, and close it when it no longer
    /// does.
    Gate,
    /// Keep a port open until told to stop.
    ListenTcp {
        /// The port.
        #[arg(long, value_name = "PORT")]
        port: NonZeroU16,
        /// The host whose addresses are opened; without it, all addresses of this machine.
        #[arg(long, value_name = "HOST", default_value = "")]
        host: String,
    },
    /// Wait until all of these are there: file:///path, tcp://host:port, unix:///path, http://... or https://... (any
    /// 2xx).
    WaitFor(WaitFor),
    /// Print a new random password.
    GenPassword,
    /// Print the HTTP status that an address answers with.
    GetHttpStatus {
        /// http://... or https://..., whose certificate is verified.
        #[arg(long, value_name = "URL", value_parser = client::WebUrl::parse)]
        url: client::WebUrl,
    },
    /// Write redis.conf and its access rules from the credential in the secret store.
    ConfigureRedis,
    /// Write PostgreSQL's superuser password and the script of its users from the credentials in the secret store.
    ConfigurePostgres,
    /// Write the broker's configuration and password file from the credential in the secret store.
    SetupMessageBusCreds {
        /// mosquitto, or redis, for which there is nothing to do.
        #[arg(value_name = "BROKER")]
        broker: super::message_bus::Broker,
    },
}

#[derive(clap::Args)]
pub(super) struct WaitFor {
    /// What to wait for; may be given several times.
    #[arg(long, value_name = "URI", required = true)]
    pub(super) uri: Vec<Condition>,
    /// How long at most: 60s, 1m30s [default: StageGate.WaitFor.Timeout].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Between two attempts: 1s, 500ms [default: StageGate.WaitFor.RetryInterval].
    #[arg(long = "retryInterval", value_name = "TIME", value_parser = duration)]
    pub(super) retry_interval: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    config::go_duration(text).ok_or("not a time above zero, such as 60s, 1m30s or 500ms")
}
