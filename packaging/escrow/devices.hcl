# Policy at the holder of the keys (OpenBao, Vault) for all devices of a site, one role of the auth method `cert` for all of them.
# Each reaches its own key alone: its name is the common name of its certificate. Put the accessor of the auth method in place of
# ACCESSOR:
#
#   sed "s/ACCESSOR/$(bao read -field=accessor sys/auth/cert)/" devices.hcl | bao policy write edgekeep-devices -

# The first boot makes the key and encrypts once.
path "transit/encrypt/{{identity.entity.aliases.ACCESSOR.name}}" { capabilities = ["create", "update"] }
# Each boot.
path "transit/decrypt/{{identity.entity.aliases.ACCESSOR.name}}" { capabilities = ["update"] }
# The token is given back after each use.
path "auth/token/revoke-self" { capabilities = ["update"] }
