//! The unattended start as a caller: what it may do, and the door through which it comes.
//!
//! Boot has no token and no form on any wire: its requests come through [`InProcess`], which only an unsealed core
//! makes. It is bound by a policy like everybody else, and is never root. When the gates are open it gives up the
//! larger of its two roles for good.

use std::sync::Arc;

use api::{Reply, Request};
use client::{CallError, Vault};
use policy::{Compiled, Identity, Policy};

use crate::Core;
use crate::authn::BootRole;

/// The unattended start as the caller of a request: its role and the policy of that role.
#[derive(Clone)]
pub(crate) struct Boot {
    pub(crate) role: BootRole,
    pub(crate) acl: Arc<Compiled>,
}

/// Where boot's work is: the mounts that the plan names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMounts {
    /// Mounts of secrets, as `secret/`.
    pub secrets: Vec<String>,
    /// Mounts of users, as `auth/userpass/`.
    pub logins: Vec<String>,
}

impl Default for BootMounts {
    fn default() -> Self {
        Self { secrets: vec!["secret/".to_owned()], logins: vec!["auth/userpass/".to_owned()] }
    }
}

/// The store as boot sees it: `client::Vault` without a wire. A request that carries a token is that token's, with no
/// more power than it has; one without is boot's own.
pub struct InProcess {
    core: Arc<Core>,
    provision: Arc<Compiled>,
    keep: Arc<Compiled>,
}

impl InProcess {
    /// # Errors
    /// [`PathNotPlain`] for a mount whose path could say more in a policy than its own name.
    pub(crate) fn new(core: Arc<Core>, mounts: &BootMounts) -> Result<Self, PathNotPlain> {
        let mut provision = PROVISION.to_owned();
        for path in &mounts.secrets {
            provision.push_str(&of_mount(SECRETS, path)?);
        }
        for path in &mounts.logins {
            provision.push_str(&of_mount(LOGINS, path)?);
        }
        Ok(Self { core, provision: compile(&provision), keep: compile(KEEP) })
    }

    /// Gives up provisioning: what remains may renew, look up and issue anew. It holds for every door of this core,
    /// those that are made later too.
    #[must_use]
    pub fn reduce(self) -> Self {
        self.core.reduce();
        self
    }

    /// What it may do.
    pub fn role(&self) -> BootRole {
        if self.core.is_reduced() && host::in_force("boot-is-reduced") { BootRole::Keep } else { BootRole::Provision }
    }

    fn caller(&self) -> Boot {
        match self.role() {
            BootRole::Provision => Boot { role: BootRole::Provision, acl: Arc::clone(&self.provision) },
            BootRole::Keep => Boot { role: BootRole::Keep, acl: Arc::clone(&self.keep) },
        }
    }
}

impl Vault for InProcess {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        Ok(self.core.handle_as(request, Some(self.caller())).await.into_reply())
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InProcess({:?})", self.role())
    }
}

/// The path of a mount cannot stand in a policy.
#[derive(Debug, thiserror::Error)]
#[error("the mount {path:?} is not plain: letters, digits, `_`, `-`, `.` and `/` may be in it, and a `/` at its end")]
pub struct PathNotPlain {
    /// The path.
    pub path: String,
}

/// A block of policy for one mount, whose path must not be able to end the text or widen the rule.
fn of_mount(template: &str, path: &str) -> Result<String, PathNotPlain> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let reserved = ["sys/", "identity/", "auth/token/", "cubbyhole/"].iter().any(|r| path.starts_with(r));
    if path.len() < 2 || !path.ends_with('/') || !path.chars().all(plain) || reserved || path == "auth/" {
        return Err(PathNotPlain { path: path.to_owned() });
    }
    Ok(template.replace("{mount}", path))
}

fn compile(text: &str) -> Arc<Compiled> {
    // Constant texts and plain paths; a test parses them.
    let policy = Policy::parse("boot", text).expect("the built-in policies are sound");
    Arc::new(Compiled::merge([&policy], &Identity::default()).expect("one policy stands alone"))
}

/// What making the services' world takes, and nothing else: no sealing, no audit, no generate-root, no reading of
/// secrets but to compare what is there with what is wanted.
const PROVISION: &str = r#"
path "sys/mounts"                        { capabilities = ["read"] }
path "sys/mounts/*"                      { capabilities = ["create", "read", "update"] }
path "sys/auth"                          { capabilities = ["read"] }
path "sys/auth/*"                        { capabilities = ["create", "read", "update", "sudo"] }
path "sys/policies/acl"                  { capabilities = ["list"] }
path "sys/policies/acl/*"                { capabilities = ["create", "read", "update", "delete"] }
path "identity/*"                        { capabilities = ["create", "read", "update", "delete", "list"] }
path "auth/token/create"                 { capabilities = ["create", "update", "sudo"] }
path "auth/token/create-orphan"          { capabilities = ["create", "update"] }
path "auth/token/create/*"               { capabilities = ["create", "update", "sudo"] }
path "auth/token/roles"                  { capabilities = ["list"] }
path "auth/token/roles/*"                { capabilities = ["create", "read", "update", "delete"] }
path "auth/token/accessors"              { capabilities = ["list", "sudo"] }
path "auth/token/lookup-accessor"        { capabilities = ["create", "update"] }
path "auth/token/renew-accessor"         { capabilities = ["create", "update"] }
path "auth/token/revoke-accessor"        { capabilities = ["create", "update"] }
"#;

/// On a mount of secrets.
const SECRETS: &str = r#"
path "{mount}*" { capabilities = ["create", "read", "update", "list"] }
"#;

/// On a mount of users.
const LOGINS: &str = r#"
path "{mount}users"   { capabilities = ["list"] }
path "{mount}users/*" { capabilities = ["create", "read", "update", "delete"] }
"#;

/// What keeping the services alive takes.
const KEEP: &str = r#"
path "identity/entity/name/*"            { capabilities = ["read"] }
path "auth/token/create"                 { capabilities = ["create", "update", "sudo"] }
path "auth/token/create-orphan"          { capabilities = ["create", "update"] }
path "auth/token/create/*"               { capabilities = ["create", "update", "sudo"] }
path "auth/token/lookup-accessor"        { capabilities = ["create", "update"] }
path "auth/token/renew-accessor"         { capabilities = ["create", "update"] }
path "auth/token/revoke-accessor"        { capabilities = ["create", "update"] }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn provision() -> Compiled {
        let text =
            [PROVISION, &of_mount(SECRETS, "secret/").unwrap(), &of_mount(LOGINS, "auth/userpass/").unwrap()].concat();
        let policy = Policy::parse("boot", &text).unwrap();
        Compiled::merge([&policy], &Identity::default()).unwrap()
    }

    #[test]
    fn boot_is_bound_and_never_root() {
        let acl = provision();
        assert!(!acl.is_root());
        for path in ["sys/seal", "sys/audit/x", "auth/token/revoke", "auth/approle/role/x", "kv/x"] {
            assert_eq!(acl.capabilities(path), ["deny"], "{path}");
        }
    }

    #[test]
    fn what_is_kept_after_the_gates_reads_no_secret_and_writes_no_policy() {
        let acl = compile(KEEP);
        for path in
            ["secret/edgex/a/b", "sys/policies/acl/x", "sys/auth/x", "auth/userpass/users/a", "identity/entity-alias"]
        {
            assert_eq!(acl.capabilities(path), ["deny"], "{path}");
        }
        assert!(acl.capabilities("auth/token/renew-accessor").contains(&"update"));
    }

    #[test]
    fn a_mounts_path_cannot_widen_the_policy() {
        for bad in ["", "/", "auth/", "sys/", "sys/x/", "a\" {}/", "a*/", "+/", "identity/", "auth/token/", "secret"] {
            assert!(of_mount(SECRETS, bad).is_err(), "{bad:?}");
        }
    }
}
