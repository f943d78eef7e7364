//! Secret values as types, and the one module over the cryptographic library.
//!
//! A secret is a noun of its own ([`RootKey`], [`Kek`], [`Token`] ...): it cannot be printed, cloned, compared with `==` or
//! serialised, and it is wiped when it is dropped. Leaving the type is the verb `expose`, which one can grep.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crypto;
mod token;
mod value;

pub use token::{Accessor, Token, TokenError};
pub use value::{Secret, SecretBytes};

/// Declares a 32-byte key with a name of its own, so that one kind of key cannot stand in for another.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Secret<32>);

        impl $name {
            /// Takes over the bytes of a secret.
            pub fn new(bytes: Secret<32>) -> Self {
                Self(bytes)
            }

            /// The key's bytes, for the cryptographic call that needs them.
            pub fn expose(&self) -> &[u8; 32] {
                self.0.expose()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

key! {
    /// Key-encryption key of one slot: derived from the IKM and the slot's salt, wraps the root key.
    Kek
}
key! {
    /// The store's root key: wraps the keyring. Known to the slots alone.
    RootKey
}
key! {
    /// A data key of the keyring, or one of its own-purpose keys (names, head, audit, snapshots).
    DataKey
}
