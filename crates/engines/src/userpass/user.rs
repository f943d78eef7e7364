//! What is kept of a user.

use pipeline::{EngineError, Txn};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};

use super::password::Kept;
use crate::input::Input;
use crate::terms::Terms;

/// A user's entry.
#[derive(Debug, Default, Serialize)]
pub(super) struct User {
    /// `None` only while a user is being made.
    pub(super) password: Option<Kept>,
    #[serde(flatten)]
    pub(super) terms: Terms,
}

/// The part of an entry that is not [`Terms`]. The two are read one by one: through serde's `flatten` every field would
/// be copied first.
#[derive(Deserialize)]
struct Own {
    password: Option<Kept>,
}

impl User {
    pub(super) async fn load(name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(entry) = txn.get(&place(name)).await? else { return Ok(None) };
        // serde's message could repeat a hash.
        let unreadable = |_| EngineError::internal("a user's entry is unreadable");
        let Own { password } = serde_json::from_slice(entry.expose()).map_err(unreadable)?;
        Ok(Some(Self { password, terms: serde_json::from_slice(entry.expose()).map_err(unreadable)? }))
    }

    pub(super) fn save(&self, name: &str, txn: &mut Txn) -> Result<(), EngineError> {
        let bytes = serde_json::to_vec(self).map_err(|_| EngineError::internal("a user's entry cannot be written"))?;
        txn.put(&place(name), SecretBytes::new(bytes))
    }

    /// Takes over all fields of a body but the password.
    pub(super) fn update(&mut self, input: &Input<'_>) -> Result<(), EngineError> {
        self.terms.update(input)?;
        // Passed over, it would leave the old password in force behind a 204.
        if input.has("password_hash") {
            return Err(EngineError::bad_request("password_hash is not supported; send the password"));
        }
        Ok(())
    }
}

pub(super) fn place(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

pub(super) const FOLDER: &str = "user";

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on devices' disks.
    #[test]
    fn an_entry_is_one_object_of_its_fields() {
        let user = User { password: Some(Kept::Bcrypt("h".into())), terms: Terms::default() };
        let entry = r#"{"password":{"bcrypt":"h"},"policies":[],"ttl":0,"max_ttl":0,"period":0,"explicit_max_ttl":0,"num_uses":0,"no_default_policy":false,"token_type":"default","retired":{"policies":false,"ttl":false,"max_ttl":false}}"#;
        assert_eq!(serde_json::to_string(&user).unwrap(), entry);
        assert!(
            matches!(serde_json::from_str(entry).unwrap(), Own { password: Some(Kept::Bcrypt(hash)) } if hash == "h")
        );
        assert!(serde_json::from_str::<Terms>(entry).unwrap().policies.is_empty());
    }
}
