# What edgekeep may do in a store that somebody else runs ([store] external in edgekeep.toml; docs/external.md).
#
#   bao policy write edgekeep external-policy.hcl
#
# A test takes away each capability of each path in turn, and each time something breaks; with all of them, nothing does.

# Mounts: KV version 1 at secret/, logins at userpass/. What is there already is left as it is.
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/secret" {
  capabilities = ["update"]
}
path "sys/auth" {
  capabilities = ["read"]
}
path "sys/auth/userpass" {
  capabilities = ["update", "sudo"]
}

# The key that signs the services' JSON Web Tokens.
path "identity/oidc/key/edgex-identity" {
  capabilities = ["create", "read"]
}

# Credentials: at their source, and copied to the services. A [[credential]] with another source needs a path of its own.
path "secret/edgex/*" {
  capabilities = ["create", "read", "update"]
}

# Each service: policy, entity, user, alias, role.
path "sys/policies/acl/edgex-service-*" {
  capabilities = ["read", "update"]
}
path "identity/entity/name/*" {
  capabilities = ["read", "update"]
}
path "identity/entity-alias" {
  capabilities = ["update"]
}
path "auth/userpass/users/*" {
  capabilities = ["create", "read", "update"]
}
path "identity/oidc/role/*" {
  capabilities = ["create", "read", "update"]
}

# The services' tokens, by their accessors: kept alive, and ended when another has taken their place.
path "auth/token/renew-accessor" {
  capabilities = ["update"]
}
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# Our own token, where it comes from a file: looked at when it is taken, so that a root token is refused, and renewed.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
