//! Secret values as types, and the one module over the cryptographic library.
//!
//! A secret is a noun of its own ([`RootKey`], [`Kek`], [`Token`] ...): it cannot be printed, cloned, compared with
//! `==` or serialised, and it is wiped when it is dropped. Leaving the type is the verb `expose`, which one can grep.
//!
//! None of these compile:
//!
//! ```compile_fail,E0277
//! # let key = secret::RootKey::new(secret::Secret::init_with(|k| k.fill(1)));
//! println!("{key}"); // no Display; Debug prints the name of the type alone
//! ```
//! ```compile_fail,E0599
//! # let key = secret::RootKey::new(secret::Secret::init_with(|k| k.fill(1)));
//! let copy = key.clone();
//! ```
//! ```compile_fail,E0369
//! # let key = || secret::Secret::<32>::init_with(|k| k.fill(1));
//! let same = key() == key(); // ct_eq, in constant time
//! ```
//! ```compile_fail,E0277
//! # let key = secret::SecretBytes::new(vec![1; 32]);
//! let text = serde_json::to_string(&key);
//! ```
//! ```compile_fail,E0308
//! # let key = || secret::Secret::<32>::init_with(|k| k.fill(1));
//! let kek: secret::Kek = secret::RootKey::new(key()); // one kind of key does not stand in for another
//! ```
//! And this does:
//!
//! ```
//! let key = || secret::Secret::<32>::init_with(|k| k.fill(1));
//! assert!(key().ct_eq(&key()));
//! assert_eq!(format!("{:?}", secret::RootKey::new(key())), "RootKey(..)");
//! # assert!(serde_json::to_string("serde_json is there").is_ok());
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crypto;
mod password;
mod token;
mod value;

pub use memory::{LockedBytes, Protection, protection};
pub use password::{Password, PasswordError};
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails to compile if the type has one of the traits: then two impls of `Has` fit, and `_` is ambiguous.
    macro_rules! has_none_of {
        ($type:ty: $($trait:path),+ $(,)?) => {
            const _: () = {
                #[allow(dead_code)]
                trait Has<Which> {
                    fn has() {}
                }
                impl<T: ?Sized> Has<()> for T {}
                $({
                    #[allow(dead_code)]
                    struct Which;
                    impl<T: ?Sized + $trait> Has<Which> for T {}
                })+
                let _ = <$type as Has<_>>::has;
            };
        };
    }

    macro_rules! secrets {
        ($($type:ty),+) => {
            $(has_none_of!($type: Clone, Copy, PartialEq, Default, std::fmt::Display, serde::Serialize,
                std::ops::Deref, AsRef<[u8]>, std::borrow::Borrow<[u8]>, Into<Vec<u8>>, Into<String>);)+
        };
    }

    secrets!(Secret<32>, SecretBytes, RootKey, Kek, DataKey, Token, Password, crypto::SigningKey);

    /// What the compiler refused above, it refused for the traits' sake: dropping is the one that each must have.
    #[test]
    fn every_secret_has_something_to_wipe() {
        assert!(std::mem::needs_drop::<Secret<32>>() && std::mem::needs_drop::<SecretBytes>());
        assert!(
            std::mem::needs_drop::<RootKey>() && std::mem::needs_drop::<Kek>() && std::mem::needs_drop::<DataKey>()
        );
        assert!(std::mem::needs_drop::<Token>() && std::mem::needs_drop::<Password>());
    }
}
