//! The HTTP paths of kv, token, userpass, identity, sys.
