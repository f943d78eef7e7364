//! A root token for a moment: made from the shares, held in memory, revoked on every way out.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use client::{AskError, Bearer, Calls, Vault};
use seal::edgex::ClearShares;
use secret::Token;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::custody::{Custody, CustodyError};
use crate::door::{Door, keep_login};
use crate::wiped::Wiped;

/// Why there is no root token, or why there still is one.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The store takes shares from nobody who is not logged in, and there is no login.
    #[error("the store gives no root token for key shares: {told}")]
    NoDoor {
        /// Its words.
        told: String,
    },
    /// The shares are another store's, or spent.
    #[error("the store does not take these key shares: {told}")]
    NotItsShares {
        /// Its words.
        told: String,
    },
    /// All were given.
    #[error("the store wants more than the {given} key shares there are")]
    TooFew {
        /// How many.
        given: usize,
    },
    /// What it gave cannot be decoded.
    #[error("the root token that the store gave cannot be decoded")]
    Undecodable,
    /// They are not to be had.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// It was not to be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It lives on.
    #[error("the root token of this run could not be revoked")]
    NotRevoked(#[source] AskError),
}

impl RootError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Custody(e) => return e.hint(),
            Self::NoDoor { .. } => {
                "OpenBao 2.5.3 and later need, for one run, `disable_unauthed_generate_root_endpoints = false` in \
                a listener that only this device reaches. From 2.6 on that run leaves a login behind, and the switch can go; \
                2.5.3 to 2.5.x need it at every run"
            }
            Self::NotItsShares { .. } => {
                "resp-init.json is older than the store's key shares, or another store's: put the right one back"
            }
            Self::TooFew { .. } => "resp-init.json has lost shares: put it back from a backup",
            Self::Undecodable => "see the store's own log",
            Self::Ask(_) => "see the cause",
            Self::NotRevoked(_) => {
                "run the set-up again as soon as the store answers: it ends every root token but its own"
            }
        };
        hint.into()
    }
}

/// The right to do anything. It is on no disk, but for the first one of a store that was made just now, wrapped
/// ([`RootToken::with_login`]).
#[must_use = "a root token that is dropped lives on in the store"]
pub struct RootToken {
    token: Token,
    revoked: bool,
}

impl RootToken {
    pub(crate) fn of_init(token: Token) -> Self {
        Self { token, revoked: false }
    }

    /// Has the store make one for the shares that were loaded, or for those of a rekey that was cut short, whichever it
    /// takes: from then on the disk has those alone. Where the store's door is shut, the root token that an older
    /// set-up left in the file serves, if it lives.
    ///
    /// # Errors
    /// [`RootError`].
    pub async fn for_custody<V: Vault>(
        vault: &V,
        custody: &Custody<'_>,
        shares: ClearShares,
    ) -> Result<(Self, ClearShares), RootError> {
        // Of a store that was made by another process, or by a run that was killed: it ends with this one.
        if let Some(root) = Self::first(vault, custody, &shares).await? {
            return Ok((root, shares));
        }
        match Self::generate(vault, &shares).await {
            Ok(root) => match custody.drop_next() {
                Ok(()) => Ok((root, shares)),
                Err(e) => root.revoke(vault).await.and(Err(e.into())),
            },
            Err(refused @ RootError::NotItsShares { .. }) => {
                let next = custody.next()?.ok_or(refused)?;
                let root = Self::generate(vault, &next).await?;
                tracing::info!("the store takes the key shares of a rekey that was cut short");
                match custody.take_next() {
                    Ok(()) => Ok((root, next)),
                    Err(e) => root.revoke(vault).await.and(Err(e.into())),
                }
            }
            Err(shut @ RootError::NoDoor { .. }) => match Self::left_behind(vault, &shares).await? {
                Some(root) => Ok((root, shares)),
                None => Err(shut),
            },
            Err(e) => Err(e),
        }
    }

    pub(crate) fn keep_first(&self, custody: &Custody<'_>, shares: &ClearShares) -> Result<(), CustodyError> {
        custody.keep_first_root(shares, &self.token)
    }

    /// Sees before all else that the login of the shares is there: without it this may be the last root token that
    /// anybody gets. Only then is a first root token forgotten; if there can be no login now, it lives on for the next
    /// run.
    ///
    /// # Errors
    /// [`RootError`]; the token has ended then, or is kept.
    pub async fn with_login<V: Vault>(
        self,
        vault: &V,
        custody: &Custody<'_>,
        shares: &ClearShares,
    ) -> Result<Self, RootError> {
        match keep_login(&self.over(vault), shares).await {
            Ok(_) => match custody.forget_first_root() {
                Ok(()) => Ok(self),
                Err(e) => self.revoke(vault).await.and(Err(e.into())),
            },
            Err(e) if custody.first_root(shares).is_ok_and(|kept| kept.is_some()) => {
                self.leave();
                Err(e.into())
            }
            Err(e) => self.revoke(vault).await.and(Err(e.into())),
        }
    }

    /// It lies on the disk, wrapped, and is wanted there.
    pub(crate) fn leave(mut self) {
        self.revoked = true;
    }

    /// The first root token of a store whose login is not there yet, if it lives.
    async fn first<V: Vault>(
        vault: &V,
        custody: &Custody<'_>,
        shares: &ClearShares,
    ) -> Result<Option<Self>, RootError> {
        match custody.first_root(shares)? {
            Some(token) => Self::if_alive(vault, &token).await,
            None => Ok(None),
        }
    }

    /// The root token of the file, if it lives.
    async fn left_behind<V: Vault>(vault: &V, shares: &ClearShares) -> Result<Option<Self>, RootError> {
        match &shares.root_token {
            Some(token) => Self::if_alive(vault, token).await,
            None => Ok(None),
        }
    }

    async fn if_alive<V: Vault>(vault: &V, token: &Token) -> Result<Option<Self>, RootError> {
        match Calls::with(vault, token).read::<serde_json::Value>("auth/token/lookup-self").await {
            Ok(Some(_)) => Ok(Token::parse(token.expose()).ok().map(Self::of_init)),
            Ok(None) | Err(AskError::Refused { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Has the store make one for the shares.
    ///
    /// # Errors
    /// [`RootError`]; an attempt that was begun is cancelled.
    pub async fn generate<V: Vault>(vault: &V, shares: &ClearShares) -> Result<Self, RootError> {
        let door = Door::find(vault, shares).await?;
        let calls = door.calls(vault);
        let made = attempt(&calls, door.path(), shares).await;
        match (made, &door) {
            // The login is there, and the store (a Vault) has no such path.
            (Err(RootError::NoDoor { .. }), Door::LoggedIn(_)) => {
                end_login(&calls).await;
                let calls = Door::Open.path();
                attempt(&Calls::over(vault), calls, shares).await
            }
            (made, Door::LoggedIn(_)) => {
                end_login(&calls).await;
                made
            }
            (made, Door::Open) => made,
        }
    }

    /// The store as root sees it.
    pub fn over<'v, V: Vault>(&'v self, vault: &'v V) -> Bearer<'v, V> {
        Bearer::new(vault, &self.token)
    }

    /// Ends it. Tried again for some seconds: the store may be restarting.
    ///
    /// # Errors
    /// [`RootError::NotRevoked`].
    pub async fn revoke<V: Vault>(mut self, vault: &V) -> Result<(), RootError> {
        let mut pause = FIRST_PAUSE;
        for last in [false, false, false, false, true] {
            let calls = Calls::with(vault, &self.token);
            match calls.write("auth/token/revoke-self", &serde_json::json!({})).await {
                Ok(_) => break,
                // It is dead: a run before or beside this one ended it.
                Err(AskError::Refused { status: 403, .. }) => break,
                Err(e) if last => {
                    self.revoked = true; // Said by the error.
                    return Err(RootError::NotRevoked(e));
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        self.revoked = true;
        Ok(())
    }
}

impl Drop for RootToken {
    fn drop(&mut self) {
        if !self.revoked {
            tracing::error!("a root token was not revoked; the next run ends it");
        }
    }
}

impl std::fmt::Debug for RootToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootToken(..)")
    }
}

/// Does `work` as root, and revokes the token whatever comes of it. Work that is to end by a signal ends by itself
/// ([`Stop::or`](crate::Stop::or)); it is never dropped from outside, and so the token is never left behind.
///
/// # Errors
/// What the work says; otherwise that the token could not be revoked.
pub async fn with_root<V: Vault, T, E: From<RootError>>(
    vault: &V,
    root: RootToken,
    work: impl AsyncFnOnce(Bearer<'_, V>) -> Result<T, E>,
) -> Result<T, E> {
    let outcome = work(root.over(vault)).await;
    if !host::in_force("root-token-ends") {
        return outcome;
    }
    match (outcome, root.revoke(vault).await) {
        (Ok(done), Ok(())) => Ok(done),
        (Ok(_), Err(e)) => Err(e.into()),
        (Err(e), Ok(())) => Err(e),
        (Err(e), Err(also)) => {
            tracing::error!(error = %host::with_causes(&also), "besides");
            Err(e)
        }
    }
}

#[derive(Deserialize)]
struct Progress {
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    otp: Wiped,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    encoded_token: Wiped,
}

async fn attempt<V: Vault>(calls: &Calls<'_, V>, path: &str, shares: &ClearShares) -> Result<RootToken, RootError> {
    let (attempt, update) = (format!("{path}/attempt"), format!("{path}/update"));
    // There is one attempt at a time; what a run that died left behind would be in the way.
    if let Err(e) = calls.delete(&attempt).await {
        return Err(shut(e));
    }
    let begun: Progress = calls.exchange(&attempt, Zeroizing::new(b"{}".to_vec())).await.map_err(shut)?;
    let handed_in = hand_in(calls, &update, &begun, shares).await;
    if handed_in.is_err() {
        calls.delete(&attempt).await.ok();
    }
    let encoded = handed_in?;
    decode(&encoded, &begun.otp.0).map(RootToken::of_init).ok_or(RootError::Undecodable)
}

async fn hand_in<V: Vault>(
    calls: &Calls<'_, V>,
    update: &str,
    begun: &Progress,
    shares: &ClearShares,
) -> Result<Zeroizing<String>, RootError> {
    // It goes into a body between quotes.
    if begun.nonce.is_empty() || !begun.nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(AskError::answer(update, "its nonce is no nonce").into());
    }
    for share in shares.hex() {
        let body = Zeroizing::new(format!(r#"{{"key":"{}","nonce":"{}"}}"#, *share, begun.nonce).into_bytes());
        match calls.exchange::<Progress>(update, body).await {
            Ok(progress) if progress.complete => return Ok(progress.encoded_token.0),
            Ok(_) => {}
            Err(AskError::Refused { status: 400 | 500, told, .. }) => return Err(RootError::NotItsShares { told }),
            Err(e) => return Err(e.into()),
        }
    }
    Err(RootError::TooFew { given: shares.len() })
}

/// 403, 404 and 405 are how the versions say that nobody gets in here.
fn shut(error: AskError) -> RootError {
    match error {
        AskError::Refused { status: status @ (403..=405), told, path, .. } => {
            RootError::NoDoor { told: format!("{status} at {path}, {told}") }
        }
        e => e.into(),
    }
}

/// The login has done its one thing.
async fn end_login<V: Vault>(calls: &Calls<'_, V>) {
    // If it cannot be ended it ends by itself, within minutes.
    calls.write("auth/token/revoke-self", &serde_json::json!({})).await.ok();
}

/// Unpadded base 64 of the token XOR the password that the store gave at the beginning.
pub(crate) fn decode(encoded: &str, otp: &str) -> Option<Token> {
    let mut bytes = Zeroizing::new(STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?);
    if bytes.is_empty() || bytes.len() != otp.len() {
        return None;
    }
    bytes.iter_mut().zip(otp.bytes()).for_each(|(b, o)| *b ^= o);
    Token::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::fake::{FakeStore, clear_shares};
    use crate::place::SHARES;
    use crate::stop::stop;

    fn roots(store: &FakeStore) -> usize {
        store.state().alive.values().filter(|p| p.contains(&"root".to_owned())).count()
    }

    #[tokio::test]
    async fn f1_a_root_token_ends_whatever_comes_of_the_work() {
        let store = FakeStore::made(&SHARES, false);
        let done = with_root(&store, RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap(), async |_| {
            Ok::<_, RootError>(1)
        });
        assert_eq!(done.await.unwrap(), 1);
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        let failed = with_root(&store, root, async |_| Err::<(), _>(RootError::Undecodable)).await;
        assert!(matches!(failed, Err(RootError::Undecodable)));
        let (halt, stop) = stop();
        halt.say();
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        let stopped = with_root(&store, root, async |_| {
            let work = stop.or(async { std::future::pending::<Result<(), crate::Stopped>>().await }).await;
            work.map_err(|_| RootError::Undecodable)
        });
        assert!(stopped.await.is_err());
        assert_eq!(roots(&store), 0, "no root token is left");
    }

    #[tokio::test]
    async fn the_login_of_the_shares_opens_a_store_whose_door_of_old_is_shut() {
        let store = FakeStore::made(&SHARES, false);
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        assert!(keep_login(&root.over(&store), &clear_shares(&SHARES)).await.unwrap());
        root.revoke(&store).await.unwrap();
        store.state().open_door = false;
        store.state().asked.clear();
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        assert!(!store.was_asked("sys/generate-root/attempt"));
        root.revoke(&store).await.unwrap();
        assert!(store.state().alive.is_empty(), "the login's own token has ended too");
        let other = RootToken::generate(&store, &clear_shares(&["aa01", "bb02", "cc04"])).await;
        assert!(matches!(other, Err(RootError::NoDoor { .. })), "other shares have no login");
    }

    #[tokio::test]
    async fn other_shares_take_the_login_of_earlier_ones_away() {
        let store = FakeStore::made(&SHARES, false);
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        keep_login(&root.over(&store), &clear_shares(&["11", "22"])).await.unwrap();
        keep_login(&root.over(&store), &clear_shares(&SHARES)).await.unwrap();
        let users = store.state().objects.keys().filter(|k| k.contains("/users/")).count();
        assert_eq!(users, 1);
        root.revoke(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_vault_needs_no_login_and_gets_none() {
        let store = FakeStore::made(&SHARES, false);
        store.state().no_login_door = true;
        let root = RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap();
        assert!(!keep_login(&root.over(&store), &clear_shares(&SHARES)).await.unwrap());
        assert!(store.state().objects.is_empty());
        root.revoke(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_with_no_door_says_what_to_switch_on() {
        let store = FakeStore::made(&SHARES, false);
        store.state().open_door = false;
        let error = RootToken::generate(&store, &clear_shares(&SHARES)).await.err().unwrap();
        assert!(
            matches!(error, RootError::NoDoor { .. })
                && error.hint().contains("disable_unauthed_generate_root_endpoints")
        );
    }

    #[tokio::test]
    async fn an_attempt_that_another_left_behind_is_in_nobodys_way() {
        let store = FakeStore::made(&SHARES, false);
        for _ in 0..2 {
            let short = RootToken::generate(&store, &clear_shares(&["aa01"])).await;
            assert!(matches!(short, Err(RootError::TooFew { given: 1 })));
        }
        RootToken::generate(&store, &clear_shares(&SHARES)).await.unwrap().revoke(&store).await.unwrap();
    }

    #[test]
    fn edgexs_example_decodes() {
        let token = decode("Qx9AXFtBYlhTXC8HOyUoNisteHh4eHh4eGg", "0123456789ABCDEFGHIJKLMNOP").unwrap();
        assert_eq!(token.expose(), "s.rootTokenExample12345678");
    }

    #[test]
    fn lengths_must_agree_and_the_result_be_a_token() {
        for (encoded, otp) in [("", ""), ("Qx9A", "01"), ("Qx9A", "0123"), ("Q!", "0"), ("AAAA", "\0\0\0")] {
            assert!(decode(encoded, otp).is_none(), "{encoded:?} {otp:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(token in "[!-~]{1,60}", seed: u64) {
            let otp: String = (0..token.len()).map(|i| char::from(b'a' + ((seed >> (i % 60)) % 26) as u8)).collect();
            let bytes: Vec<u8> = token.bytes().zip(otp.bytes()).map(|(t, o)| t ^ o).collect();
            let decoded = decode(&STANDARD_NO_PAD.encode(bytes), &otp).unwrap();
            prop_assert_eq!(decoded.expose(), token);
        }
    }
}
