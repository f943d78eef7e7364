//! A store seen with a token of our own that may do what we do there and nothing else: by a file, by an AppRole, or
//! handed over.
//!
//! ```text
//! file     read anew at each turn, so that whoever rotates it needs to tell nobody
//! AppRole  role id from the configuration, secret id from a file; a login when there is no token, or when it grows old
//! ```
//! The token is in memory alone. Root tokens are refused: what they may do cannot be written down.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::{Reply, Request};
use client::{AskError, CallError, Calls, Vault};
use host::{Disk, FileKind};
use secret::Token;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

/// Where our own token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The text of this file.
    TokenFile(PathBuf),
    /// A login as this role.
    AppRole {
        /// The mount below `auth/`.
        mount: String,
        /// The role's id; no secret by itself.
        role_id: String,
        /// The file with the secret id.
        secret_id_file: PathBuf,
    },
}

/// A store with our token on each request that has none.
pub struct Scoped<V> {
    vault: V,
    token: Mutex<Option<Token>>,
}

/// How long our token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From now; `None` for a token without an end.
    pub ttl: Option<Duration>,
    /// Whether asking makes it longer.
    pub renewable: bool,
}

impl Life {
    /// When to see to it again: two tries are left before the end.
    pub fn see_to_it_after(self) -> Duration {
        self.ttl.map_or(WITHOUT_END, |ttl| ttl / 3)
    }
}

#[derive(Deserialize)]
struct Own {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    policies: Vec<String>,
}

impl<V: Vault> Scoped<V> {
    /// The store, without a token so far.
    pub fn new(vault: V) -> Self {
        Self { vault, token: Mutex::new(None) }
    }

    /// The store as anybody sees it.
    pub fn anonymous(&self) -> &V {
        &self.vault
    }

    /// Goes on with this token, if it is alive and no root.
    ///
    /// # Errors
    /// [`AccessError`]; the token of before is kept then.
    pub async fn take(&self, token: Token) -> Result<Life, AccessError> {
        let own: Option<Own> = Calls::with(&self.vault, &token).read("auth/token/lookup-self").await?;
        let own = own.ok_or_else(|| AskError::answer("auth/token/lookup-self", "it is not there"))?;
        if own.policies.iter().any(|p| p == "root") && host::in_force("no-root-token-kept") {
            return Err(AccessError::Root);
        }
        self.hold(token);
        Ok(life(own.ttl, own.renewable))
    }

    /// Gets a token.
    ///
    /// # Errors
    /// [`AccessError`]; the token of before is kept then.
    pub async fn log_in(&self, access: &Access, disk: &dyn Disk, us: u32) -> Result<Life, AccessError> {
        match access {
            Access::TokenFile(path) => {
                let text = secret_in(disk, path, us)?;
                let token = Token::parse(&text).map_err(|_| unfit(path, "its text is no token"))?;
                self.take(token).await
            }
            Access::AppRole { mount, role_id, secret_id_file } => {
                let secret_id = secret_in(disk, secret_id_file, us)?;
                let body = json!({ "role_id": role_id }).to_string();
                // The secret id is graphic ASCII without quote and backslash, so that it needs no escapes.
                let body = Zeroizing::new(format!(r#"{},"secret_id":"{}"}}"#, &body[..body.len() - 1], *secret_id));
                let path = format!("auth/{mount}/login");
                let reply =
                    Calls::over(&self.vault).write_secret(&path, Zeroizing::new(body.as_bytes().to_vec())).await?;
                let auth = reply.auth().ok_or_else(|| AskError::answer(&path, "it has no token"))?;
                self.hold(copy(&auth.client_token));
                Ok(life(auth.lease_duration.as_seconds(), auth.renewable))
            }
        }
    }

    /// Lets our token live longer, or gets another.
    ///
    /// # Errors
    /// [`AccessError`]; the token of before is kept then.
    pub async fn freshen(&self, life: Life, access: &Access, disk: &dyn Disk, us: u32) -> Result<Life, AccessError> {
        if let Access::TokenFile(_) = access {
            let taken = self.log_in(access, disk, us).await?;
            return if taken.renewable { self.renew().await } else { Ok(taken) };
        }
        if life.renewable {
            match self.renew().await {
                // A role with a longest life gives less and less: better a login now than a token that ends between two
                // looks.
                Ok(renewed) if renewed.ttl >= life.ttl.map(|ttl| ttl / 2) => return Ok(renewed),
                Ok(_) | Err(AccessError::Ask(AskError::Refused { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        self.log_in(access, disk, us).await
    }

    /// Lets our token live longer.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn renew(&self) -> Result<Life, AccessError> {
        let path = "auth/token/renew-self";
        let reply = Calls::over(self).write(path, &json!({})).await?;
        let auth = reply.auth().ok_or_else(|| AskError::answer(path, "it has no token"))?;
        Ok(life(auth.lease_duration.as_seconds(), auth.renewable))
    }

    /// Whether our token is alive: a refusal may be about it, or about what was asked with it.
    ///
    /// # Errors
    /// [`AskError`] when that cannot be said.
    pub async fn is_alive(&self) -> Result<bool, AskError> {
        match Calls::over(self).read::<Own>("auth/token/lookup-self").await {
            Ok(own) => Ok(own.is_some()),
            Err(AskError::Refused { status: 403, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn hold(&self, token: Token) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

impl<V: Vault> Vault for Scoped<V> {
    async fn call(&self, mut request: Request) -> Result<Reply, CallError> {
        if request.token.is_none() {
            request.token = self.token.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(copy);
        }
        self.vault.call(request).await
    }
}

impl<V> std::fmt::Debug for Scoped<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scoped(..)")
    }
}

/// The same token once more, for the request that carries it away.
fn copy(token: &Token) -> Token {
    Token::parse(token.expose()).expect("a token's text is a token")
}

fn life(ttl: u64, renewable: bool) -> Life {
    Life { ttl: (ttl > 0).then(|| Duration::from_secs(ttl)), renewable }
}

/// A secret of one line, in a file that nobody else can read or replace by another.
fn secret_in(disk: &dyn Disk, path: &Path, us: u32) -> Result<Zeroizing<String>, AccessError> {
    let io = |cause| AccessError::Io { path: path.to_owned(), cause };
    let meta = disk.meta(path).map_err(io)?.ok_or_else(|| unfit(path, "it is not there"))?;
    if meta.kind != FileKind::File {
        return Err(unfit(path, "it is not a regular file"));
    }
    if (meta.mode & 0o077 != 0 || !(meta.owner.uid == us || meta.owner.uid == 0))
        && host::in_force("access-files-closed")
    {
        return Err(unfit(path, "others can read it, or it belongs to another user: root or edgekeep's, 0600 or 0400"));
    }
    let bytes = disk.read(path, MAX_SECRET_BYTES).map_err(io)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let sound = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    match std::str::from_utf8(line) {
        Ok(text) if !text.is_empty() && line.iter().all(sound) => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(unfit(path, "it does not hold one line of plain characters")),
    }
}

fn unfit(path: &Path, defect: &'static str) -> AccessError {
    AccessError::Unfit { path: path.to_owned(), defect }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file is no place for a secret, or has none.
    #[error("{} is not taken: {defect}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        defect: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// It may do everything.
    #[error("the token is a root token")]
    Root,
    /// The store gave none.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl AccessError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unfit { .. } | Self::Io { .. } => "see token_file or secret_id_file in [store]",
            Self::Root => "make a token with the policy of docs/external-policy.hcl, and end the root token",
            Self::Ask(AskError::Refused { .. }) => {
                "the token, or the role's secret id, is not valid there any more: make another"
            }
            Self::Ask(_) => "see the cause",
        }
    }
}

/// Some hundred times a token.
const MAX_SECRET_BYTES: usize = 16 * 1024;
/// How often a token without an end is looked at.
const WITHOUT_END: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;
    use crate::fake::FakeStore;

    fn us() -> u32 {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.meta(dir.path()).unwrap().unwrap().owner.uid
    }

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, Access) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        OsDisk.write_new(&path, text.as_bytes(), mode, None).unwrap();
        (dir, Access::TokenFile(path))
    }

    async fn taken(text: &str, mode: u32, policies: &[&str]) -> Result<Life, AccessError> {
        let store = FakeStore::made(&["aa"], false);
        let token = store.state().token(policies);
        let (_dir, access) = file(&text.replace("TOKEN", &token), mode);
        Scoped::new(store).log_in(&access, &OsDisk, us()).await
    }

    #[tokio::test]
    async fn a_token_of_a_closed_file_is_taken() {
        assert!(taken("TOKEN\n", 0o600, &["edgekeep"]).await.is_ok());
        assert!(taken("TOKEN", 0o400, &["edgekeep"]).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        let refused = taken("TOKEN\n", 0o640, &["edgekeep"]).await.unwrap_err();
        assert!(matches!(refused, AccessError::Unfit { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_root_token_is_refused() {
        assert!(matches!(taken("TOKEN", 0o600, &["root"]).await, Err(AccessError::Root)));
    }

    #[tokio::test]
    async fn what_is_no_single_line_is_refused() {
        for text in ["", "\n", "TOKEN\nTOKEN", "a b", "a\"b", "a\\b", "\u{e9}"] {
            assert!(matches!(taken(text, 0o600, &["edgekeep"]).await, Err(AccessError::Unfit { .. })), "{text:?}");
        }
    }
}
