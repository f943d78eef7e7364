//! The configuration of what our credentials log in to: Redis, PostgreSQL, Mosquitto, eKuiper. A value in, escaped text
//! out.
//!
//! Each writer knows the one grammar that will read its text, and writes every value by its rules. What a grammar
//! cannot hold is [`Unwritable`], never bent until it fits: a user name that ends its line would be a directive of
//! whoever chose it. Passwords are written as verifiers where the server takes one, so that the file alone lets nobody
//! in. Nothing here touches a disk but [`install`].

mod ekuiper;
mod install;
mod login;
mod mosquitto;
mod postgres;
mod redis;

pub use ekuiper::{KuiperBus, kuiper_connection, kuiper_source};
pub use install::{InstallError, install};
pub use login::{Login, LoginError};
pub use mosquitto::{MosquittoSalt, mosquitto_conf, mosquitto_password};
pub use postgres::{PostgresRoles, ScramSalt, postgres_script, postgres_sql};
pub use redis::{redis_acl, redis_conf};

/// A value that the grammar of its file cannot hold. The value itself is not told: it may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}, which {file} cannot hold")]
pub struct Unwritable {
    /// What is written, as "the user name".
    pub field: &'static str,
    /// What is wrong with it, as "has white space".
    pub reason: &'static str,
    /// For whom.
    pub file: &'static str,
}

impl Unwritable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "change the value in the store or in the configuration; it is never shortened or altered on the way"
    }
}

/// Refuses a value that `fits` does not hold for.
fn fitting(value: &str, fits: impl FnOnce(&str) -> bool, unfit: Unwritable) -> Result<&str, Unwritable> {
    if fits(value) || !host::in_force("peer-values-fit") { Ok(value) } else { Err(unfit) }
}

/// A path as text for a file that has lines and no quotes.
fn plain_path<'p>(path: &'p std::path::Path, file: &'static str) -> Result<&'p str, Unwritable> {
    let unfit = |reason| Unwritable { field: "a path", reason, file };
    let text = path.to_str().ok_or(unfit("is not UTF-8"))?;
    let one_line = |t: &str| !t.chars().any(char::is_control) && t.trim() == t;
    fitting(text, one_line, unfit("has control characters, or white space at an end"))
}
