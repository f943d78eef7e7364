//! `sys/`: the store itself: its state, its mounts, its policies.

mod capabilities;
mod mounts;
mod policies;
mod status;
mod ui;

use std::sync::Arc;

use api::{Reply, Status};
use pipeline::{Access, After, Authorized, BoxFuture, Engine, EngineError, Operation, Outcome, Services, Txn};

use crate::input::Input;

pub use status::{Facts, Phase, Shares};

/// The engine of `sys/`.
pub struct SysEngine {
    services: Arc<Services>,
    facts: Facts,
}

impl SysEngine {
    /// Over the mounts and policies of one store; `facts` is what it says about itself.
    pub fn new(services: Arc<Services>, facts: Facts) -> Self {
        Self { services, facts }
    }

    async fn route(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
        use Operation::{Create, Delete, List, Read, Update};
        let operation = request.operation();
        let write = matches!(operation, Create | Update);
        let (head, rest) = request.path().split_once('/').unwrap_or((request.path(), ""));
        match (head, rest, operation) {
            ("health" | "seal-status" | "leader" | "init" | "unseal" | "seal", "", _) => self.state(request, head),
            ("policy", "", Read | List) => policies::list(self, txn, policies::Family::Old).await,
            ("policies", "acl/", List) => policies::list(self, txn, policies::Family::Acl).await,
            ("policies", "acl" | "acl/", _) => Err(EngineError::unsupported_operation()),
            ("policy", name, _) if !name.is_empty() => {
                policies::one(self, request, name, policies::Family::Old, txn).await
            }
            ("policies", rest, _) => match rest.strip_prefix("acl/") {
                Some(name) => policies::one(self, request, name, policies::Family::Acl, txn).await,
                None => Err(EngineError::unsupported_path()),
            },
            ("capabilities-self", "", _) if write => capabilities::own(request),
            ("capabilities", "", _) if write => capabilities::of_token(self, request).await,
            ("capabilities-accessor", "", _) if write => capabilities::of_accessor(self, request, txn).await,
            ("mounts", "", Read) => Ok(mounts::list(self, mounts::Class::Secrets)),
            ("auth", "", Read) => Ok(mounts::list(self, mounts::Class::Auth)),
            ("mounts", path, Read | Create | Update | Delete) if !path.is_empty() => {
                mounts::one(self, request, mounts::Class::Secrets, path, txn).await
            }
            ("auth", path, Read | Create | Update | Delete) if !path.is_empty() => {
                mounts::one(self, request, mounts::Class::Auth, path, txn).await
            }
            ("internal", "ui/mounts", Read) => ui::mounts(self, request),
            ("internal", rest, Read) if rest.starts_with("ui/mounts/") => {
                ui::mount(self, request, &rest["ui/mounts/".len()..])
            }
            ("wrapping", _, _) => Err(EngineError::bad_request("response wrapping is not supported")),
            (head, "", _) if PATHS.contains(&head) => Err(EngineError::unsupported_operation()),
            _ => Err(EngineError::unsupported_path()),
        }
    }

    /// The paths without envelope, which answer while the store is sealed too: then the listener asks [`Facts`] for the
    /// same.
    fn state(&self, request: &Authorized<'_>, path: &str) -> Result<Outcome, EngineError> {
        let write = matches!(request.operation(), Operation::Create | Operation::Update);
        let reply = match (path, request.operation()) {
            ("health", Operation::Read) => {
                self.facts.health(Phase::Unsealed, &|name| request.query(name), request.at())?
            }
            ("seal-status", Operation::Read) => self.facts.seal_status(Phase::Unsealed),
            ("leader", Operation::Read) => self.facts.leader(),
            ("init", Operation::Read) => self.facts.init(Phase::Unsealed),
            ("init", _) if write => return Err(EngineError::bad_request("Vault is already initialized")),
            ("unseal", _) if write => {
                let input = Input::of(request.body())?;
                if input.flag("reset")?.unwrap_or(false) {
                    return Err(EngineError::bad_request("vault is unsealed"));
                }
                if input.secret("key")?.is_none_or(|key| key.is_empty()) {
                    let told = "'key' must be specified in request body as JSON, or 'reset' set to true";
                    return Err(EngineError::bad_request(told));
                }
                // The share is not looked at: an unsealed store takes none.
                self.facts.seal_status(Phase::Unsealed)
            }
            ("seal", _) if write => {
                return Ok(Outcome { after: Some(After::Seal), ..Outcome::from(Reply::no_content()) });
            }
            _ => return Err(EngineError::bare(Status::METHOD_NOT_ALLOWED)),
        };
        Ok(reply.into())
    }
}

impl Engine for SysEngine {
    fn kind(&self) -> &'static str {
        "system"
    }

    fn access(&self, operation: api::Operation, path: &str) -> Access {
        let is_read = operation == api::Operation::Read;
        match path {
            "init" | "seal-status" | "unseal" | "leader" | "health" => Access::Anonymous,
            "internal/ui/mounts" if is_read => Access::Anonymous,
            _ if is_read && path.starts_with("internal/ui/mounts/") => Access::Anonymous,
            "seal" => Access::Sudo,
            _ if path.starts_with("auth/") || path.starts_with("mounts/auth/") => Access::Sudo,
            _ => Access::Ordinary,
        }
    }

    fn kept_as(&self, path: &str) -> Option<String> {
        let policy = |folder| Some((folder, policies::kept_name(path.strip_prefix(folder)?)));
        let mount = |folder| Some((folder, path.strip_prefix(folder)?.trim_end_matches('/').to_owned()));
        let named = policy("policy/")
            .or_else(|| policy("policies/acl/"))
            .or_else(|| mount("mounts/auth/").map(|(_, name)| ("auth/", name)))
            .or_else(|| mount("mounts/"))
            .or_else(|| mount("auth/"));
        let (folder, name) = named.filter(|(_, name)| !name.is_empty())?;
        Some(format!("{folder}{name}")).filter(|kept| kept != path)
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(self.route(request, txn))
    }
}

impl std::fmt::Debug for SysEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SysEngine(..)")
    }
}

const PATHS: [&str; 6] = ["policy", "mounts", "auth", "capabilities", "capabilities-self", "capabilities-accessor"];
