//! The bootstrapper's own secrets: read from the store with the token that was delivered to it, as every EdgeX service
//! does.
//!
//! The token's file is read anew at each attempt, for it may be delivered while we wait. The store is trusted by its CA
//! alone: the one that is configured, or the `ca.pem` that lies beside the token.

use std::io;
use std::path::{Path, PathBuf};

use api::{ApiPath, Operation, Reply, Request, Status};
use boot::gate::{Pace, persist};
use client::{CallError, Deadlines, HttpsVault, PlainRefused, Remote, Trust, TrustError, Vault};
use config::Bootstrapper;
use delivery::peers::{Login, LoginError};
use delivery::{CA_FILE, TOKEN_FILE};
use host::{Disk, OsDisk};
use secret::Token;
use serde::Deserialize;

use crate::edgex::face;
use crate::failure::{Code, Failure};

/// One service's part of the store.
pub(super) struct Secrets<'c> {
    config: &'c Bootstrapper,
    service: &'static str,
}

impl<'c> Secrets<'c> {
    pub(super) fn new(config: &'c Bootstrapper, service: &'static str) -> Self {
        Self { config, service }
    }

    /// A credential, by the name of its secret.
    ///
    /// # Errors
    /// If it is not there within `EDGEX_STARTUP_DURATION`.
    pub(super) async fn login(&self, name: &str) -> Result<Login, Failure> {
        self.patiently(Operation::Read, name, |reply| {
            Ok(Login::of_json(reply.data_text().ok_or(SecretError::NoData)?)?)
        })
        .await
    }

    /// The names of the folders, sorted.
    ///
    /// # Errors
    /// As for [`Secrets::login`].
    pub(super) async fn folders(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<String>,
        }
        self.patiently(Operation::List, "", |reply| {
            let text = reply.data_text().ok_or(SecretError::NoData)?;
            let Keys { keys } = serde_json::from_slice(text).map_err(|_| SecretError::NoData)?;
            let mut folders: Vec<String> = keys.iter().filter_map(|k| k.strip_suffix('/')).map(str::to_owned).collect();
            folders.sort();
            Ok(folders)
        })
        .await
    }

    /// Asks until there is an answer; what cannot change by waiting ends it at once.
    async fn patiently<T>(
        &self,
        operation: Operation,
        name: &str,
        read: impl Fn(Reply) -> Result<T, SecretError>,
    ) -> Result<T, Failure> {
        let store = self.config.store.store_name.as_deref().unwrap_or(self.service);
        let path = format!("secret/edgex/{store}/{name}");
        let pace =
            Pace { attempt: ATTEMPT, pause: self.config.startup_interval, total: Some(self.config.startup_duration) };
        let attempt = || async {
            match self.ask(operation, &path).await.and_then(&read) {
                Err(e) if e.may_pass() => Err(e),
                settled => Ok(settled),
            }
        };
        let error = match persist(pace, attempt).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => e,
            Err(gave_up) => gave_up.last.unwrap_or(SecretError::NoAnswer),
        };
        let hint = error.hint();
        let failure = Failure::of(if error.may_pass() { Code::NotReady } else { Code::Refused }, &error);
        Err(Failure { fact: format!("{path}: {}", failure.fact), ..failure }.hint(hint))
    }

    async fn ask(&self, operation: Operation, path: &str) -> Result<Reply, SecretError> {
        let token = self.token()?;
        let parsed = ApiPath::parse(path).map_err(|_| SecretError::NoPath)?;
        let reply = self.vault()?.call(Request::new(operation, parsed).with_token(token)).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(SecretError::Refused { status: reply.status }) }
    }

    fn token_file(&self) -> PathBuf {
        let usual = || Path::new("/tmp/edgex/secrets").join(self.service).join(TOKEN_FILE);
        self.config.store.token_file.clone().unwrap_or_else(usual)
    }

    fn token(&self) -> Result<Token, SecretError> {
        let file = self.token_file();
        let text = OsDisk
            .read(&file, MAX_TOKEN_FILE_BYTES)
            .map_err(|cause| SecretError::TokenFile { file: file.clone(), cause })?;
        delivery::token_in(&text).ok_or(SecretError::NoToken { file })
    }

    fn vault(&self) -> Result<Remote, SecretError> {
        let (store, port) = (&self.config.store, self.config.store.port.get());
        if !store.tls {
            return Ok(Remote::DangerPlain(face::plain(&store.host, port, store.danger_plain_http)?));
        }
        let beside = || self.token_file().with_file_name(CA_FILE);
        let file = store.ca.clone().unwrap_or_else(beside);
        let pem = OsDisk.read(&file, MAX_CA_BYTES).map_err(|cause| SecretError::CaFile { file, cause })?;
        let mut trust = Trust::of_pem(&pem)?;
        if let Some(name) = &store.server_name {
            trust = trust.named(name)?;
        }
        Ok(Remote::Https(HttpsVault::new(&store.host, port, &trust, Deadlines::default())?))
    }
}

/// Why a secret was not read.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error("the token in {} cannot be read", file.display())]
    TokenFile {
        file: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} holds no token", file.display())]
    NoToken { file: PathBuf },
    #[error("the store's CA in {} cannot be read", file.display())]
    CaFile {
        file: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Plain(#[from] PlainRefused),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the store answers {}", status.0)]
    Refused { status: Status },
    #[error("the store's answer has no such data")]
    NoData,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("no path of the store")]
    NoPath,
    #[error("the store does not answer")]
    NoAnswer,
}

impl SecretError {
    /// Whether another attempt may end otherwise. A server that is not ours, or a malformed credential, stays what it
    /// is.
    fn may_pass(&self) -> bool {
        match self {
            Self::TokenFile { .. } | Self::NoToken { .. } | Self::CaFile { .. } | Self::NoAnswer => true,
            Self::Refused { .. } => true,
            Self::Call(e) => !matches!(e, CallError::Untrusted { .. }),
            Self::Trust(_) | Self::Plain(_) | Self::NoData | Self::Login(_) | Self::NoPath => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::TokenFile { .. } | Self::NoToken { .. } => {
                "see that the set-up has delivered this service's token, and that this user may read it; SECRETSTORE_TOKENFILE names \
                 another file"
            }
            Self::CaFile { .. } | Self::Trust(_) => {
                "put the CA of the store beside the token as ca.pem, or name it in SECRETSTORE_ROOTCACERTPATH"
            }
            Self::Plain(_) => {
                "set SECRETSTORE_PROTOCOL=https: in clear the token and every password would cross the network. On a private network \
                 of containers EDGEKEEP_DANGER_PLAIN_HTTP=true allows it"
            }
            Self::Call(CallError::Untrusted { .. }) => {
                "another machine answers for the store, or its CA was changed: find out which before anything is started"
            }
            Self::Call(_) | Self::NoAnswer => "see that the store runs, is unsealed, and can be reached from here",
            Self::Refused { .. } => {
                "see that the set-up has run: it makes this service's policy, token and credentials"
            }
            Self::NoData | Self::Login(_) | Self::NoPath => "look at the credential in the store; the set-up writes it",
        }
    }
}

/// A little more than the client's own deadline for a connection.
const ATTEMPT: std::time::Duration = std::time::Duration::from_secs(10);
const MAX_TOKEN_FILE_BYTES: usize = 64 * 1024;
const MAX_CA_BYTES: usize = 1024 * 1024;
