//! `setupMessageBusCreds`: the broker's configuration and password file.

use config::Bootstrapper;
use delivery::peers::{MosquittoSalt, mosquitto_conf, mosquitto_password};
use host::{Entropy, OsEntropy, Owner};

use super::files::put;
use super::secrets::Secrets;
use crate::failure::Failure;

/// The broker of EdgeX's message bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Broker {
    /// Mosquitto.
    Mosquitto,
    /// Redis, whose credential configureRedis has written.
    Redis,
}

/// The service whose part of the store holds the credential.
const SERVICE: &str = "security-bootstrapper-messagebus";

/// Writes both files, for `owner`.
///
/// # Errors
/// If the credential cannot be had or written.
pub(super) async fn configure(config: &Bootstrapper, broker: Broker, owner: Option<Owner>) -> Result<(), Failure> {
    if broker == Broker::Redis {
        return Ok(());
    }
    let login = Secrets::new(config, SERVICE).login(&config.mosquitto.secret).await?;
    let mut salt = MosquittoSalt::default();
    OsEntropy.fill(&mut salt);
    let files = &config.mosquitto;
    let users = mosquitto_password(&login, &salt).map_err(super::files::unwritable)?;
    let conf = mosquitto_conf(files.port, &files.password_file).map_err(super::files::unwritable)?;
    // The configuration last: a broker that finds it finds the passwords too.
    put(&files.password_file, users.as_bytes(), owner)?;
    put(&files.broker_file, conf.as_bytes(), owner)
}
