# As devices.hcl, for holders without a transit engine: the keys lie in a kv engine of version 2, mounted at `escrow`.
#
#   sed "s/ACCESSOR/$(bao read -field=accessor sys/auth/cert)/" devices-kv.hcl | bao policy write edgekeep-devices-kv -

# The first boot keeps the key where none is, each boot reads it.
path "escrow/data/{{identity.entity.aliases.ACCESSOR.name}}" { capabilities = ["create", "read"] }
# The token is given back after each use.
path "auth/token/revoke-self" { capabilities = ["update"] }
