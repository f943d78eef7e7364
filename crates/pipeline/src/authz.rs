//! Authenticated -> authorised: whether this caller may do this here. [`Authorized`] is made by [`authorize`] alone.

use std::sync::Arc;

use api::{Body, PeerAddress, PeerCertificates, Status};
use host::WallTime;
use policy::{Action, Compiled, Granted, Query};
use secret::Token;
use serde::de::DeserializeOwned;
use store::StoreTime;

use crate::authn::{Actor, Authenticated};
use crate::engine::{Access, Engine};
use crate::error::EngineError;
use crate::mounts::{MountEntry, Mounted};
use crate::received::{Refused, Trace};
use crate::txn::Txn;

/// A request that may be carried out: the only thing that an engine takes.
pub struct Authorized<'r> {
    pub(crate) trace: Trace<'r>,
    mounted: Arc<Mounted>,
    engine: Arc<dyn Engine>,
    path: &'r str,
    action: Action,
    acl: Option<Arc<Compiled>>,
}

impl Authorized<'_> {
    /// What to do; create and update are told apart.
    pub fn operation(&self) -> Action {
        self.action
    }

    /// The path below the mount, without leading slash. For a list it is empty or ends in `/`.
    pub fn path(&self) -> &str {
        self.path
    }

    /// The whole path below `/v1/`.
    pub fn full_path(&self) -> &str {
        self.trace.received.request.path.as_str()
    }

    /// The mount.
    pub fn mount(&self) -> &MountEntry {
        self.mounted.entry()
    }

    /// Who asks.
    pub fn actor(&self) -> &Actor {
        &self.trace.actor
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.trace.received.request.body
    }

    /// The body as a type of the endpoint; an empty body reads as `{}`.
    ///
    /// # Errors
    /// 400, which names no value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, EngineError> {
        Ok(self.body().parse()?)
    }

    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.trace.received.request.query(name)
    }

    /// Where the request came from.
    pub fn peer(&self) -> &PeerAddress {
        &self.trace.received.request.peer
    }

    /// What the caller has proven to be his in the handshake of the connection.
    pub fn certificates(&self) -> Option<&PeerCertificates> {
        self.trace.received.request.certificates.as_deref()
    }

    /// The pattern of the policy rule that allowed it; `None` on anonymous routes.
    pub fn rule(&self) -> Option<&str> {
        self.trace.granted.as_ref().map(Granted::rule_path)
    }

    /// Whether that rule also grants `sudo`, or the root policy allowed it.
    pub fn has_sudo(&self) -> bool {
        self.trace.granted.as_ref().is_some_and(Granted::has_sudo)
    }

    /// Whether the root policy allowed it.
    pub fn is_root(&self) -> bool {
        self.trace.granted.as_ref().is_some_and(Granted::is_root)
    }

    /// What the caller may do at `path`, as `sys/capabilities-self` says it; `["deny"]` for a stranger.
    pub fn capabilities(&self, path: &str) -> Vec<&'static str> {
        self.acl.as_ref().map_or_else(|| vec!["deny"], |acl| acl.capabilities(path))
    }

    /// Whether the caller has any right at or below `folder`, so that he may know that it is there.
    pub fn reaches(&self, folder: &str) -> bool {
        self.acl.as_ref().is_some_and(|acl| acl.reaches(folder))
    }

    /// Whether a token was presented that is not valid: a path open to all lets its bearer pass as nobody.
    pub fn has_bad_token(&self) -> bool {
        self.trace.unknown_token.is_some()
    }

    /// The moment of the request, in the store's time.
    pub fn now(&self) -> StoreTime {
        self.trace.received.now
    }

    /// The same moment by the wall clock, for what people read.
    pub fn at(&self) -> WallTime {
        self.trace.received.at
    }

    pub(crate) fn token(&self) -> Option<&Token> {
        self.trace.received.request.token.as_ref()
    }

    pub(crate) fn mounted(&self) -> &Arc<Mounted> {
        &self.mounted
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }
}

impl std::fmt::Debug for Authorized<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authorized({} {})", self.action.capability(), self.full_path())
    }
}

/// Lets the request through if the caller's policies, or the route's being anonymous, allow it.
///
/// A write is a create or an update, as the engine answers from `txn`: what it read there becomes a condition of the
/// commit, so that a create which became an update meanwhile is decided again.
pub(crate) async fn authorize<'r>(
    authenticated: Authenticated<'r>,
    txn: &mut Txn,
) -> Result<Authorized<'r>, Refused<'r>> {
    let Authenticated { routed, access, acl } = authenticated;
    let (mut trace, path) = (routed.trace, routed.path);
    let request = trace.received.request;
    let engine = trace.mounted.as_ref().and_then(|m| m.engine().cloned());
    let action = match (request.operation, &engine, &trace.mounted) {
        (api::Operation::Read, ..) => Action::Read,
        (api::Operation::List, ..) => Action::List,
        (api::Operation::Delete, ..) => Action::Delete,
        (api::Operation::Patch, ..) => Action::Patch,
        (api::Operation::Write, Some(engine), Some(mounted)) => {
            let outer = txn.enter(mounted.base().clone());
            let exists = engine.exists(path, txn).await;
            txn.leave(outer);
            match exists {
                Ok(true) => Action::Update,
                Ok(false) => Action::Create,
                // A path that no entry can have is nobody's entry; the engine says so to those who may ask.
                Err(e) if e.status() == Status::BAD_REQUEST => Action::Create,
                Err(e) => return Err(trace.refuse(e)),
            }
        }
        (api::Operation::Write, ..) => Action::Create,
    };
    trace.action = Some(action);
    if access != Access::Anonymous {
        let query = Query {
            path: request.path.as_str(),
            action,
            body: &request.body,
            query: &request.query,
            sudo_needed: access == Access::Sudo,
            wrap_ttl: request.wrap_ttl,
        };
        let (mount, _) = query.path.split_at(query.path.len() - path.len());
        let kept_as = engine.as_ref().and_then(|e| e.kept_as(path)).filter(|_| host::in_force("entry-decides"));
        let kept_as = kept_as.map(|kept| format!("{mount}{kept}"));
        let decided = acl.as_ref().map(|acl| match (acl.decide(&query)?, &kept_as) {
            (granted, None) => Ok(granted),
            (_, Some(path)) => acl.decide(&Query { path, ..query }),
        });
        match decided {
            Some(Ok(granted)) => trace.granted = Some(granted),
            Some(Err(_)) if !host::in_force("policies-decide") => {}
            Some(Err(denied)) => return Err(trace.refuse(EngineError::denied().because(denied))),
            None if !host::in_force("routes-need-a-token") => {}
            None => return Err(trace.refuse(EngineError::no_token())),
        }
    }
    // Only who may come here learns whether anything is mounted here.
    let (Some(mounted), Some(engine)) = (trace.mounted.clone(), engine) else {
        let full = request.path.as_str();
        let told = format!("no handler for route \"{full}\". route entry not found.");
        return Err(trace.refuse(EngineError::told(Status::NOT_FOUND, told)));
    };
    if request.wrap_ttl.is_some() && host::in_force("wrapping-refused") {
        // Handing the data out bare would betray whoever asked for it to be wrapped.
        return Err(
            trace.refuse(EngineError::bad_request("response wrapping is not supported; ask without X-Vault-Wrap-TTL"))
        );
    }
    Ok(Authorized { trace, mounted, engine, path, action, acl })
}
