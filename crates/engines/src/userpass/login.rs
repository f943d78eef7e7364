//! `login/:u`: a password for a token.

use std::collections::BTreeMap;

use api::Status;
use pipeline::{Authorized, EngineError, Outcome, TokenEntry, TtlRules, Txn};

use super::Userpass;
use super::lockout::NotNow;
use super::password::is_generated;
use super::user::User;
use crate::input::Input;

impl Userpass {
    pub(super) async fn login(
        &self,
        name: &str,
        request: &Authorized<'_>,
        txn: &mut Txn,
    ) -> Result<Outcome, EngineError> {
        let input = Input::of(request.body())?;
        let Some(password) = input.secret("password")? else {
            // OpenBao's status for it.
            return Err(EngineError::told(Status::INTERNAL, "missing password"));
        };
        let mut user = User::load(name, txn).await?;
        let kept = user.as_mut().and_then(|u| u.password.take());
        let key = format!("{}/{name}", request.mount().uuid);
        // A drawn password cannot have been guessed, so no lock stands in a service's way.
        if !is_generated(kept.as_ref(), name, &password, request, txn) {
            let guess = self.lockout.guess(&key, txn.now()).map_err(|not| match not {
                NotNow::Locked => refused("the name is locked after too many failures"),
                NotNow::Busy => EngineError::busy("as many passwords of this name are looked at as may fail"),
            })?;
            if self.is_chosen(kept, &password).await? {
                guess.succeeded();
            } else {
                guess.failed(txn.now());
                return Err(refused("no such user, or another password"));
            }
        }
        let user = user.ok_or_else(|| refused("no such user"))?;
        let metadata = BTreeMap::from([(USERNAME.to_owned(), name.to_owned())]);
        Ok(Outcome::login(user.terms.into_grant(name.to_owned(), name.to_owned(), metadata)))
    }
}

/// The rules of today for the token of a login, if the user is there and a login would give the same policies.
pub(super) async fn renewal(token: &TokenEntry, txn: &mut Txn) -> Result<TtlRules, EngineError> {
    let name = token.meta.as_ref().and_then(|m| m.get(USERNAME));
    let user = match name {
        Some(name) => User::load(name, txn).await?,
        None => None,
    };
    user.ok_or_else(|| EngineError::bad_request("the user is gone, not renewing"))?.terms.renewal(token)
}

/// One answer for every reason; the log knows more.
fn refused(logged: &str) -> EngineError {
    EngineError::bad_request("invalid username or password").because(logged)
}

/// Where the metadata of a token, which nobody can change, have the user's name.
const USERNAME: &str = "username";
