# As devices.hcl, for an edgekeep that keeps the keys of its neighbours: they lie in its kv engine of version 1, below
# `secret/escrow/`.
#
#   sed "s/ACCESSOR/$(edgekeep read -field=accessor sys/auth/cert)/" devices-edgekeep.hcl | edgekeep policy write edgekeep-devices -

# The first boot keeps the key where none is, each boot reads it.
path "secret/escrow/{{identity.entity.aliases.ACCESSOR.name}}" { capabilities = ["create", "read"] }
# The token is given back after each use.
path "auth/token/revoke-self" { capabilities = ["update"] }
