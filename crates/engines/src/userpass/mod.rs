//! Users with passwords.
//!
//! ```text
//! users/:u  users/:u/password  users/:u/policies   for whoever has a policy
//! login/:u                                         for everyone
//! ```
//! A name is kept in lower case. Entries: `user/<name>`.

mod lockout;
mod login;
mod password;
mod pool;
mod user;

use std::sync::Arc;

use api::{PeerCertificates, Reply};
use pipeline::{Access, Authorized, BoxFuture, Engine, EngineError, Operation, Outcome, TokenEntry, TtlRules, Txn};

pub use pool::{HashPool, PoolFull, ThreadPool};

use crate::input::{Input, is_write, name};
use crate::listing::listed;
use lockout::Lockout;
use user::User;

/// The engine `userpass`.
pub struct Userpass {
    pool: Arc<dyn HashPool>,
    lockout: Lockout,
}

impl Userpass {
    /// `pool` carries the slow hashes: some 50 ms of a core each.
    pub fn new(pool: Arc<dyn HashPool>) -> Self {
        Self { pool, lockout: Lockout::new() }
    }

    async fn users(&self, name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        match request.operation() {
            Operation::Read => {
                let user = User::load(name, txn).await?.ok_or_else(EngineError::absent)?;
                Ok(Reply::data(&user.terms.to_data()))
            }
            Operation::Create | Operation::Update => {
                let input = Input::of(request.body())?;
                let found = User::load(name, txn).await?;
                if found.is_none() && !input.has("password") {
                    return Err(no_password());
                }
                let mut user = found.unwrap_or_default();
                user.update(&input)?;
                if let Some(chosen) = input.secret("password")? {
                    user.password = Some(self.hash(name, &chosen, &input, request, txn).await?);
                }
                user.save(name, txn)?;
                Ok(Reply::no_content())
            }
            Operation::Delete => {
                txn.delete(&user::place(name))?;
                Ok(Reply::no_content())
            }
            Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
        }
    }

    async fn password(&self, name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        if !is_write(request) {
            return Err(EngineError::unsupported_operation());
        }
        let input = Input::of(request.body())?;
        let mut user = User::load(name, txn).await?.ok_or_else(no_user)?;
        let chosen = input.secret("password")?.ok_or_else(no_password)?;
        user.password = Some(self.hash(name, &chosen, &input, request, txn).await?);
        user.save(name, txn)?;
        Ok(Reply::no_content())
    }
}

impl Engine for Userpass {
    fn kind(&self) -> &'static str {
        "userpass"
    }

    fn access(&self, operation: api::Operation, path: &str) -> Access {
        match (operation, route(path)) {
            (api::Operation::Write, Some(Route::Login(_))) => Access::Anonymous,
            _ => Access::Ordinary,
        }
    }

    fn kept_as(&self, path: &str) -> Option<String> {
        let kept = match route(path)? {
            Route::Users | Route::Login(_) => return None,
            Route::User(name) => format!("users/{name}"),
            Route::Password(name) => format!("users/{name}/password"),
            Route::Policies(name) => format!("users/{name}/policies"),
        };
        Some(kept).filter(|kept| kept != path)
    }

    fn exists<'a>(&'a self, path: &'a str, txn: &'a mut Txn) -> BoxFuture<'a, Result<bool, EngineError>> {
        Box::pin(async move {
            match route(path) {
                Some(Route::User(name)) => Ok(User::load(&name, txn).await?.is_some()),
                _ => Ok(true),
            }
        })
    }

    fn renewal<'a>(
        &'a self,
        token: &'a TokenEntry,
        _by: Option<&'a PeerCertificates>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<TtlRules, EngineError>> {
        Box::pin(login::renewal(token, txn))
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(async move {
            let reply = match route(request.path()).ok_or_else(EngineError::unsupported_path)? {
                Route::Login(name) if is_write(request) => return self.login(&name, request, txn).await,
                Route::Login(_) => return Err(EngineError::unsupported_operation()),
                Route::Users if request.operation() == Operation::List => listed(txn.list(user::FOLDER).await?)?,
                Route::Users => return Err(EngineError::unsupported_operation()),
                Route::User(name) => self.users(&name, request, txn).await?,
                Route::Password(name) => self.password(&name, request, txn).await?,
                Route::Policies(name) => policies(&name, request, txn).await?,
            };
            Ok(reply.into())
        })
    }
}

impl std::fmt::Debug for Userpass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Userpass(..)")
    }
}

async fn policies(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if !is_write(request) {
        return Err(EngineError::unsupported_operation());
    }
    let mut user = User::load(name, txn).await?.ok_or_else(no_user)?;
    user.terms.update_policies(&Input::of(request.body())?)?;
    user.save(name, txn)?;
    Ok(Reply::no_content())
}

/// The paths of the engine; names in lower case.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Users,
    User(String),
    Password(String),
    Policies(String),
    Login(String),
}

fn route(path: &str) -> Option<Route> {
    match path.split_once('/') {
        None if path == "users" => Some(Route::Users),
        Some(("users", "")) => Some(Route::Users),
        Some(("login", rest)) => name(rest).map(Route::Login),
        Some(("users", rest)) => match rest.split_once('/') {
            None => name(rest).map(Route::User),
            Some((user, "password")) => name(user).map(Route::Password),
            Some((user, "policies")) => name(user).map(Route::Policies),
            Some(_) => None,
        },
        _ => None,
    }
}

fn no_password() -> EngineError {
    EngineError::bad_request("must provide either password or password_hash")
}

/// OpenBao answers 500 here, and its clients know it.
fn no_user() -> EngineError {
    EngineError::told(api::Status::INTERNAL, "1 error occurred:\n\t* username does not exist\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_names_are_routed() {
        assert_eq!(route("users/A.b-_1"), Some(Route::User("a.b-_1".into())));
        assert_eq!(route("users/"), Some(Route::Users));
        assert_eq!(route("users/u/password"), Some(Route::Password("u".into())));
        assert_eq!(route("login/U"), Some(Route::Login("u".into())));
        for bad in ["users/a@b", "users/u/x", "users/u/password/", "login/", "login/a/b", "nosuch", "", "users/é"] {
            assert_eq!(route(bad), None, "{bad}");
        }
    }
}
