//! The client commands, in the habit of `vault` and `bao`: a file each.
//!
//! ```text
//! arguments --normalise--> clap --> Connection::open --> Session { vault, token } --command--> Answer --print--> stdout
//! ```
//!
//! A command takes any [`Vault`], so that a test can give it one that remembers what it was asked. It prints nothing
//! itself: it returns an [`Answer`].

mod answer;
mod connection;
mod delete;
mod json;
mod kv;
mod list;
mod login;
mod normalise;
mod pairs;
mod policy;
mod read;
mod session;
mod status;
mod token;
#[cfg(test)]
mod transcripts;
mod typed;
mod write;

use clap::Subcommand;
use client::Vault;

use crate::failure::{Code, Failure};
use answer::Answer;
use connection::{Common, Connection};
use session::Session;

pub(crate) use normalise::normalise;

#[derive(Subcommand)]
pub(crate) enum ClientCommand {
    /// Tell whether the store is sealed.
    Status(WithConnection<status::Status>),
    /// Read what is at a path.
    Read(WithConnection<read::Read>),
    /// Write to a path.
    Write(WithConnection<write::Write>),
    /// List the names below a path.
    List(WithConnection<list::List>),
    /// Delete what is at a path.
    Delete(WithConnection<delete::Delete>),
    /// Work with secrets of a key-value mount, of either version.
    Kv(WithConnection<kv::Kv>),
    /// Work with tokens.
    Token(WithConnection<token::Token>),
    /// Log in, and keep the token in ~/.vault-token.
    Login(WithConnection<login::Login>),
    /// Work with policies.
    Policy(WithConnection<policy::Policy>),
}

/// A command with the flags that all of them have.
#[derive(clap::Args)]
pub(crate) struct WithConnection<C: clap::Args> {
    #[command(flatten)]
    command: C,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    connection: Connection,
}

impl ClientCommand {
    fn common(&self) -> (&Common, &Connection) {
        match self {
            Self::Status(c) => (&c.common, &c.connection),
            Self::Read(c) => (&c.common, &c.connection),
            Self::Write(c) => (&c.common, &c.connection),
            Self::List(c) => (&c.common, &c.connection),
            Self::Delete(c) => (&c.common, &c.connection),
            Self::Kv(c) => (&c.common, &c.connection),
            Self::Token(c) => (&c.common, &c.connection),
            Self::Login(c) => (&c.common, &c.connection),
            Self::Policy(c) => (&c.common, &c.connection),
        }
    }
}

pub(crate) async fn run(command: ClientCommand) -> Result<(), Failure> {
    let environment = crate::locate::environment();
    let (common, connection) = command.common();
    let style = common.style(&environment)?;
    let (is_status, here) = (matches!(command, ClientCommand::Status(_)), connection.here(&environment));
    let session = connection.open(&environment)?;
    let stdin = std::io::stdin().lock();
    let answer = match &command {
        ClientCommand::Login(c) => {
            let mut typed = typed::Typed::new(stdin, c.command.secret());
            perform(command, &session, &mut typed).await
        }
        _ => perform(command, &session, &mut { stdin }).await,
    };
    let answer = match answer {
        // A sealed edgekeep has no listener but that of the admin socket.
        Err(e) if e.code == Code::NotReady && is_status => Err(match here {
            Some(run_dir) => status::by_the_admin_socket(run_dir).await.unwrap_or(e),
            None => e,
        }),
        answer => answer,
    };
    let (text, failure) = answer?.render(&style)?;
    answer::print(&text);
    failure.map_or(Ok(()), Err)
}

/// Performs a command on whatever store there is.
async fn perform<V: Vault>(
    command: ClientCommand,
    session: &Session<V>,
    stdin: &mut dyn std::io::Read,
) -> Result<Answer, Failure> {
    match command {
        ClientCommand::Status(_) => status::run(session).await,
        ClientCommand::Read(c) => read::run(&c.command, session).await,
        ClientCommand::Write(c) => write::run(&c.command, session, stdin).await,
        ClientCommand::List(c) => list::run(&c.command, session).await,
        ClientCommand::Delete(c) => delete::run(&c.command, session).await,
        ClientCommand::Kv(c) => kv::run(&c.command, session, stdin).await,
        ClientCommand::Token(c) => token::run(&c.command, session, stdin).await,
        ClientCommand::Login(c) => login::run(&c.command, session, stdin).await,
        ClientCommand::Policy(c) => policy::run(&c.command, session, stdin).await,
    }
}
