//! Callers with certificates, of authorities that a role trusts.
//!
//! ```text
//! certs/:role   whom to trust, under which names, and what for   for whoever has a policy
//! crls/:list    serial numbers that nobody is let in with        for whoever has a policy
//! config        whether renewals are bound to the certificate    for whoever has a policy
//! login         the certificate of the connection for a token    for everyone
//! ```
//! The handshake has proven that the caller has the key (`api::PeerCertificates`); everything else is judged here, at
//! each login and at each renewal, so that a role, a list or an entity that is changed counts at once. Names are kept
//! in lower case. Entries: `role/<name>`, `crl/<name>`, `config`.

mod admission;
mod config;
mod crl;
mod login;
mod role;

use api::{PeerCertificates, Reply};
use pipeline::{Access, Authorized, BoxFuture, Engine, EngineError, Operation, Outcome, TokenEntry, TtlRules, Txn};

use crate::input::{is_write, name};
use crate::listing::listed;

/// The engine `cert`.
#[derive(Clone, Copy, Debug)]
pub struct Cert;

impl Engine for Cert {
    fn kind(&self) -> &'static str {
        "cert"
    }

    fn access(&self, operation: api::Operation, path: &str) -> Access {
        match (operation, route(path)) {
            (api::Operation::Write, Some(Route::Login)) => Access::Anonymous,
            _ => Access::Ordinary,
        }
    }

    fn kept_as(&self, path: &str) -> Option<String> {
        let kept = match route(path)? {
            Route::Role(name) => format!("certs/{name}"),
            Route::Crl(name) => format!("crls/{name}"),
            Route::Login | Route::Roles | Route::Crls | Route::Config => return None,
        };
        Some(kept).filter(|kept| kept != path)
    }

    fn reads_certificates(&self) -> bool {
        true
    }

    fn renewal<'a>(
        &'a self,
        token: &'a TokenEntry,
        by: Option<&'a PeerCertificates>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<TtlRules, EngineError>> {
        Box::pin(login::renewal(token, by, txn))
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(async move {
            let reply: Reply = match route(request.path()).ok_or_else(EngineError::unsupported_path)? {
                Route::Login if is_write(request) => return login::login(request, txn).await,
                Route::Login => return Err(EngineError::unsupported_operation()),
                Route::Roles if request.operation() == Operation::List => listed(txn.list(role::FOLDER).await?)?,
                Route::Crls if request.operation() == Operation::List => listed(txn.list(crl::FOLDER).await?)?,
                Route::Roles | Route::Crls => return Err(EngineError::unsupported_operation()),
                Route::Role(name) => role::answer(&name, request, txn).await?,
                Route::Crl(name) => crl::answer(&name, request, txn).await?,
                Route::Config => config::answer(request, txn).await?,
            };
            Ok(reply.into())
        })
    }
}

/// The paths of the engine.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Login,
    Roles,
    Role(String),
    Crls,
    Crl(String),
    Config,
}

fn route(path: &str) -> Option<Route> {
    match path.split_once('/').unwrap_or((path, "")) {
        ("login", "") => Some(Route::Login),
        ("config", "") => Some(Route::Config),
        ("certs", "") => Some(Route::Roles),
        ("crls", "") => Some(Route::Crls),
        ("certs", role) => name(role).map(Route::Role),
        ("crls", list) => name(list).map(Route::Crl),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_names_are_routed() {
        assert_eq!(route("login"), Some(Route::Login));
        assert_eq!(route("certs/A.b-_1"), Some(Route::Role("a.b-_1".into())));
        assert_eq!(route("crls/L"), Some(Route::Crl("l".into())));
        assert_eq!((route("certs/"), route("crls")), (Some(Route::Roles), Some(Route::Crls)));
        for bad in ["certs/a@b", "certs/a/b", "login/x", "config/x", "nosuch", "", "crls/é"] {
            assert_eq!(route(bad), None, "{bad}");
        }
    }
}
