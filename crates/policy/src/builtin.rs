//! The two policies that every store has.

/// The name of the policy that allows everything. It has no text and stands alone.
pub const ROOT_NAME: &str = "root";

/// The name of the policy that every token has unless it was made without.
pub const DEFAULT_NAME: &str = "default";

/// What a new store's `default` policy says; an operator may write another. It lets a token look after itself, and no
/// more.
pub const DEFAULT_TEXT: &str = r#"# A token may look at itself, renew itself and give itself up.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# It may ask what it may do.
path "sys/capabilities-self"           { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl"   { capabilities = ["read"] }

# It may read the entity that it belongs to.
path "identity/entity/id/{{identity.entity.id}}"     { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }

# It may renew what it has leased, if it knows the lease.
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew"  { capabilities = ["update"] }
path "sys/renew"         { capabilities = ["update"] }

# It has a store of its own that ends with it.
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }

# It may wrap a reply, and open what was wrapped for it.
path "sys/wrapping/wrap"   { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }

# It may have things hashed.
path "sys/tools/hash"   { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compiled, Identity, Policy};

    #[test]
    fn the_default_policy_reaches_no_secret_of_others() {
        let policy = Policy::parse(DEFAULT_NAME, DEFAULT_TEXT).unwrap();
        let compiled = Compiled::merge([&policy], &Identity::default()).unwrap();
        assert_eq!(compiled.capabilities("auth/token/lookup-self"), ["read"]);
        for path in ["secret/edgex/a/b", "sys/policies/acl/x", "auth/token/create", "auth/token/lookup", "sys/seal"] {
            assert_eq!(compiled.capabilities(path), ["deny"], "{path}");
        }
    }
}
