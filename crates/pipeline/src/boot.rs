//! The unattended start as a caller: what it may do, and the door through which it comes.
//!
//! Boot has no token and no form on any wire: its requests come through [`InProcess`], which only an unsealed core makes.
//! It is bound by a policy like everybody else, and is never root. When the gates are open it gives up the larger of its two
//! roles for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Reply, Request};
use client::{CallError, Vault};
use policy::{Compiled, Identity, Policy};

use crate::Core;
use crate::authn::BootRole;

/// The two policies of boot, compiled.
pub(crate) struct BootPolicies {
    provision: Arc<Compiled>,
    keep: Arc<Compiled>,
}

impl BootPolicies {
    pub(crate) fn new() -> Self {
        Self { provision: compile(PROVISION), keep: compile(KEEP) }
    }

    pub(crate) fn of(&self, role: BootRole) -> Arc<Compiled> {
        match role {
            BootRole::Provision => Arc::clone(&self.provision),
            BootRole::Keep => Arc::clone(&self.keep),
        }
    }
}

fn compile(text: &str) -> Arc<Compiled> {
    // Constant texts; a test parses them.
    let policy = Policy::parse("boot", text).expect("the built-in policies are sound");
    Arc::new(Compiled::merge([&policy], &Identity::default()).expect("one policy stands alone"))
}

/// The store as boot sees it: `client::Vault` without a wire. A request that carries a token is that token's, with no more
/// power than it has; one without is boot's own.
#[derive(Debug)]
pub struct InProcess {
    core: Arc<Core>,
    role: BootRole,
}

impl InProcess {
    pub(crate) fn new(core: Arc<Core>, reduced: &AtomicBool) -> Self {
        let role = if reduced.load(Ordering::Acquire) { BootRole::Keep } else { BootRole::Provision };
        Self { core, role }
    }

    /// Gives up provisioning: what remains may renew, look up and issue anew. It holds for all doors of this core, and for
    /// every one that is made later.
    #[must_use]
    pub fn reduce(self) -> Self {
        self.core.reduce();
        Self { role: BootRole::Keep, core: self.core }
    }

    /// What it may do.
    pub fn role(&self) -> BootRole {
        self.role
    }
}

impl Vault for InProcess {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        Ok(self.core.handle_as(request, Some(self.role)).await.into_reply())
    }
}

/// What making the services' world takes, and nothing else: no sealing, no audit, no generate-root, no reading of secrets but
/// to compare what is there with what is wanted.
const PROVISION: &str = r#"
path "sys/mounts"                        { capabilities = ["read"] }
path "sys/mounts/*"                      { capabilities = ["create", "read", "update"] }
path "sys/auth"                          { capabilities = ["read"] }
path "sys/auth/*"                        { capabilities = ["create", "read", "update", "sudo"] }
path "sys/policies/acl"                  { capabilities = ["list"] }
path "sys/policies/acl/*"                { capabilities = ["create", "read", "update", "delete"] }
path "secret/*"                          { capabilities = ["create", "read", "update", "list"] }
path "auth/userpass/users"               { capabilities = ["list"] }
path "auth/userpass/users/*"             { capabilities = ["create", "read", "update", "delete"] }
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
