//! `login/:u`: a password for a token.

use std::collections::BTreeMap;

use api::{Status, Ttl};
use pipeline::{Authorized, EngineError, Grant, Outcome, Txn};

use super::Userpass;
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
        let is_password = if is_generated(kept.as_ref(), name, &password, request, txn) {
            true // cannot have been guessed, so no lock stands in a service's way
        } else if self.lockout.is_locked(&key, txn.now()) {
            return Err(refused("the name is locked after too many failures"));
        } else {
            self.is_chosen(kept, &password).await?
        };
        let Some(user) = user.filter(|_| is_password) else {
            self.lockout.failed(&key, txn.now());
            return Err(refused("no such user, or another password"));
        };
        self.lockout.succeeded(&key);
        Ok(Outcome::login(Grant {
            display_name: name.to_owned(),
            policies: user.policies,
            no_default_policy: user.no_default_policy,
            ttl: Ttl::seconds(user.ttl),
            max_ttl: Ttl::seconds(user.max_ttl),
            period: Ttl::seconds(user.period),
            explicit_max_ttl: Ttl::seconds(user.explicit_max_ttl),
            num_uses: user.num_uses,
            metadata: BTreeMap::from([("username".to_owned(), name.to_owned())]),
            alias: Some(name.to_owned()),
        }))
    }
}

/// One answer for every reason; the log knows more.
fn refused(logged: &str) -> EngineError {
    EngineError::bad_request("invalid username or password").because(logged)
}
