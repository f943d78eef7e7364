//! Generated credentials: one password, at its source first and at its copies after.
//!
//! The seam has no transaction over several paths. So the order makes a cut harmless: the source is written before any
//! copy, and each run compares the copies with it. A password that is there is never changed: the database behind it
//! knows it by now.

use client::{Calls, Vault};
use host::Entropy;
use secret::Password;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::join::join_all;
use crate::plan::{CredentialPlan, Plan};
use crate::provision::{Ground, ProvisionError};

/// As EdgeX's services read it. Never printed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Pair {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Pair {
    /// EdgeX's own rule: both are there and not empty.
    fn is_set(&self) -> bool {
        !self.username.is_empty() && !self.password.is_empty()
    }

    fn same(&self, other: &Self) -> bool {
        let equal = |a: &str, b: &str| secret::crypto::ct_eq(a.as_bytes(), b.as_bytes());
        equal(&self.username, &other.username) && equal(&self.password, &other.password)
    }

    /// A byte becomes six at most (`\u001f`), so the capacity holds and nothing is left behind by growing.
    fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(64 + 6 * (self.username.len() + self.password.len())));
        serde_json::to_writer(&mut *text, self).expect("two strings are JSON");
        text
    }
}

/// Where new passwords come from.
pub trait Passwords: Sync {
    /// Another password.
    ///
    /// # Errors
    /// Why there is none, in words: then no credential is made.
    fn make(&self) -> Result<Password, String>;
}

impl Passwords for &dyn Entropy {
    fn make(&self) -> Result<Password, String> {
        Ok(Password::generate(&mut |out| self.fill(out)))
    }
}

/// Sees that every credential of the plan stands at its source and at all its copies. Returns how many paths were
/// written.
///
/// # Errors
/// [`ProvisionError`]; what was written until then stays, and the next run goes on from there.
pub async fn keep_credentials<V: Vault>(
    vault: &V,
    plan: &Plan,
    ground: &Ground,
    entropy: &dyn Entropy,
) -> Result<usize, ProvisionError> {
    keep_credentials_from(vault, &plan.credentials, &ground.kv, &entropy).await
}

/// The same below the KV mount `kv`, with passwords from wherever they are to come.
///
/// # Errors
/// As [`keep_credentials`], and [`ProvisionError::Password`].
pub async fn keep_credentials_from<V: Vault>(
    vault: &V,
    credentials: &[CredentialPlan],
    kv: &str,
    passwords: &dyn Passwords,
) -> Result<usize, ProvisionError> {
    let calls = Calls::over(vault);
    let mut written = 0;
    for credential in credentials {
        written += keep(&calls, credential, kv, passwords).await?;
    }
    Ok(written)
}

async fn keep<V: Vault>(
    calls: &Calls<'_, V>,
    credential: &CredentialPlan,
    kv: &str,
    passwords: &dyn Passwords,
) -> Result<usize, ProvisionError> {
    let at = |path: &str| format!("{kv}/{path}");
    let mut written = 0;
    let source_path = at(&credential.source);
    let source = match calls.read::<Pair>(&source_path).await? {
        Some(pair) if pair.is_set() => pair,
        _ => {
            let password = passwords.make().map_err(|reason| ProvisionError::Password { reason })?;
            let pair = Pair { username: credential.user.clone(), password: password.expose().to_owned() };
            calls.write_secret(&source_path, pair.to_json()).await?;
            written += 1;
            pair
        }
    };
    // A cut here leaves copies that are missing or old: the next run finds them so (`a_cut_between_copies_is_mended`).
    // Among themselves they have no order, and together they share the store's turns.
    let (source, at) = (&source, &at);
    let copies = join_all(credential.copies.iter().map(|service| async move {
        let path = at(&credential.copy_path(service));
        let there = calls.read::<Pair>(&path).await?;
        if there.is_some_and(|copy| copy.same(source)) {
            return Ok(0);
        }
        calls.write_secret(&path, source.to_json()).await.map(|_| 1).map_err(ProvisionError::from)
    }))
    .await;
    for copied in copies {
        written += copied?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::ServiceName;
    use crate::provision::fake::FakeVault;
    use crate::testing::{Counting, demo_ground, demo_plan};

    fn plan() -> Plan {
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let all: Vec<ServiceName> = plan.services.iter().map(|s| s.name.clone()).collect();
        plan.credentials = vec![CredentialPlan::redis(all.clone()), CredentialPlan::postgres(all[0].clone(), "core")];
        plan
    }

    #[tokio::test]
    async fn one_password_for_source_and_copies_and_nothing_the_second_time() {
        let vault = FakeVault::default();
        let entropy = Counting::default();
        assert_eq!(keep_credentials(&vault, &plan(), &demo_ground(), &entropy).await.unwrap(), 5);
        let source = vault.stored("secret/edgex/security-bootstrapper-redis/redisdb").unwrap();
        assert_eq!(source["username"], "default");
        assert_eq!(source["password"].as_str().unwrap().len(), 44);
        for service in ["sensor", "uploader"] {
            assert_eq!(vault.stored(&format!("secret/edgex/{service}/redisdb")).unwrap(), source);
        }
        let postgres = vault.stored("secret/edgex/sensor/postgres").unwrap();
        assert_ne!(postgres["password"], source["password"]);
        assert_eq!(keep_credentials(&vault, &plan(), &demo_ground(), &entropy).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cut_between_copies_is_mended() {
        for cut in 0..5 {
            let vault = FakeVault::default();
            vault.fail_after_writes(cut);
            let entropy = Counting::default();
            keep_credentials(&vault, &plan(), &demo_ground(), &entropy).await.unwrap_err();
            let before = vault.stored("secret/edgex/security-bootstrapper-redis/redisdb");
            vault.heal();
            keep_credentials(&vault, &plan(), &demo_ground(), &entropy).await.unwrap();
            let source = vault.stored("secret/edgex/security-bootstrapper-redis/redisdb").unwrap();
            assert!(before.is_none_or(|b| b == source), "a password that was there is not changed");
            assert_eq!(vault.stored("secret/edgex/sensor/redisdb").unwrap(), source);
            assert_eq!(vault.stored("secret/edgex/uploader/redisdb").unwrap(), source);
        }
    }

    #[tokio::test]
    async fn a_copy_that_was_changed_follows_the_source_and_an_empty_source_is_filled() {
        let vault = FakeVault::default();
        let entropy = Counting::default();
        vault.put("secret/edgex/security-bootstrapper-redis/redisdb", json!({"username": "u", "password": "known"}));
        vault.put("secret/edgex/sensor/redisdb", json!({"username": "u", "password": "other"}));
        vault.put(
            "secret/edgex/security-bootstrapper-postgres/sensor/postgres",
            json!({"username": "u", "password": ""}),
        );
        keep_credentials(&vault, &plan(), &demo_ground(), &entropy).await.unwrap();
        assert_eq!(vault.stored("secret/edgex/sensor/redisdb").unwrap()["password"], "known");
        assert_ne!(vault.stored("secret/edgex/sensor/postgres").unwrap()["password"], "");
    }
}
