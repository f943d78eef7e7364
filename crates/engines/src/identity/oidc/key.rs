//! Named signing keys and their rotation.
//!
//! ```text
//! oidc/key/<name>      parameters and public keys, as JSON
//! oidc/private/<name>  the one private key that signs, as PKCS #8
//! ```
//! Rotation throws the old private key away at once and publishes its public key until every token that it signed has
//! run out. It happens when it is due at the next signature, so that a device that sleeps through it misses nothing.

use api::{Reply, Ttl};
use pipeline::{Authorized, EngineError, Operation, Txn};
use secret::SecretBytes;
use secret::crypto::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::StoreTime;

use super::jws::Algorithm;
use super::{list_of, role};
use crate::identity::new_id;
use crate::input::{Input, is_write};

/// A named key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    rotation_period: u64,
    pub(super) verification_ttl: u64,
    allowed_client_ids: Vec<String>,
    /// When the next rotation is due, in milliseconds of the store's time.
    rotate_at: u64,
    /// Newest first; the first one signs.
    public: Vec<PublicKey>,
}

/// A public key that verifiers may need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublicKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    point: String,
    /// Milliseconds of the store's time; `None` while it signs.
    until: Option<u64>,
}

impl PublicKey {
    /// The uncompressed point.
    pub(super) fn point(&self) -> Vec<u8> {
        // Our own digits; were they not, no signature would hold under the empty point.
        hex::decode(&self.point).unwrap_or_default()
    }
}

impl Key {
    pub(super) async fn load(name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(entry) = txn.get(&place(name)).await? else { return Ok(None) };
        let key = serde_json::from_slice(entry.expose());
        key.map(Some).map_err(|e| EngineError::internal(format!("signing key {name} is unreadable: {e}")))
    }

    /// All names.
    pub(super) async fn names(txn: &mut Txn) -> Result<Vec<String>, EngineError> {
        txn.list(FOLDER).await
    }

    /// Public keys that are still published.
    pub(super) fn published(&self, now: StoreTime) -> impl Iterator<Item = &PublicKey> {
        self.public.iter().filter(move |p| p.until.is_none_or(|until| StoreTime(until) > now))
    }

    pub(super) fn allows(&self, client_id: &str) -> bool {
        self.allowed_client_ids.iter().any(|c| c == "*" || c == client_id)
    }

    /// The private key that signs now, and its id; rotates first if that is due.
    pub(super) async fn signer(&mut self, name: &str, txn: &mut Txn) -> Result<(SigningKey, String), EngineError> {
        if StoreTime(self.rotate_at) <= txn.now() {
            self.rotate(name, self.verification_ttl, txn)?;
            self.save(name, txn)?;
        }
        let sealed = txn.get(&private_place(name)).await?;
        let (Some(sealed), Some(current)) = (sealed, self.public.first()) else {
            return Err(EngineError::internal(format!("signing key {name} has no private key")));
        };
        let key = SigningKey::from_pkcs8(current.algorithm.curve(), sealed.expose()).map_err(EngineError::internal)?;
        Ok((key, current.kid.clone()))
    }

    fn save(&self, name: &str, txn: &mut Txn) -> Result<(), EngineError> {
        txn.put(&place(name), SecretBytes::new(serde_json::to_vec(self).map_err(EngineError::internal)?))
    }

    /// A new private key; the public key before it stays for `verification_ttl` seconds.
    fn rotate(&mut self, name: &str, verification_ttl: u64, txn: &mut Txn) -> Result<(), EngineError> {
        let now = txn.now();
        let key = SigningKey::generate(self.algorithm.curve()).map_err(EngineError::internal)?;
        let until = now.plus(Ttl::seconds(verification_ttl).as_duration()).0;
        if let Some(former) = self.public.first_mut() {
            former.until = Some(until);
        }
        self.public.retain(|p| p.until.is_none_or(|until| StoreTime(until) > now));
        // Whoever may rotate cannot grow the entry without bound; the oldest goes first.
        self.public.truncate(MOST_PUBLIC - 1);
        let public =
            PublicKey { kid: new_id(txn), algorithm: self.algorithm, point: hex::encode(key.public()), until: None };
        self.public.insert(0, public);
        self.rotate_at = now.plus(Ttl::seconds(self.rotation_period).as_duration()).0;
        // In the same commit as the public key: no token is ever signed by a key that verifiers cannot find.
        txn.put(&private_place(name), key.to_pkcs8().map_err(EngineError::internal)?)
    }

    fn update(&mut self, input: &Input<'_>) -> Result<(), EngineError> {
        let seconds = |name: &str| input.ttl(name).map(|t| t.map(Ttl::as_seconds));
        self.rotation_period = seconds("rotation_period")?.unwrap_or(self.rotation_period);
        self.verification_ttl = seconds("verification_ttl")?.unwrap_or(self.verification_ttl);
        if self.rotation_period < MIN_ROTATION_SECONDS {
            return Err(EngineError::bad_request("rotation_period must be at least one minute"));
        }
        if self.verification_ttl > 10 * self.rotation_period {
            return Err(EngineError::bad_request("verification_ttl cannot be longer than 10x rotation_period"));
        }
        if let Some(ids) = input.list("allowed_client_ids")? {
            self.allowed_client_ids = ids;
        }
        if let Some(wanted) = input.text("algorithm")? {
            self.algorithm = match wanted.as_str() {
                "ES256" => Algorithm::Es256,
                "ES384" => Algorithm::Es384,
                "RS256" | "RS384" | "RS512" | "ES512" | "EdDSA" => {
                    let told = format!("signing algorithm {wanted:?} is not supported; use \"ES256\" or \"ES384\"");
                    return Err(EngineError::bad_request(told).recorded_as(NO_ALGORITHM));
                }
                _ => {
                    let told = format!("unknown signing algorithm {wanted:?}");
                    return Err(EngineError::bad_request(told).recorded_as(NO_ALGORITHM));
                }
            };
        }
        Ok(())
    }
}

/// `oidc/key`.
pub(super) async fn all(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    list_of(FOLDER, request, txn).await
}

/// `oidc/key/:name`.
pub(super) async fn one(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    match request.operation() {
        Operation::Read => {
            let key = Key::load(name, txn).await?.ok_or_else(EngineError::absent)?;
            Ok(Reply::data(&json!({
                "algorithm": key.algorithm,
                "allowed_client_ids": key.allowed_client_ids,
                "rotation_period": key.rotation_period,
                "verification_ttl": key.verification_ttl,
            })))
        }
        Operation::Create | Operation::Update => {
            let found = Key::load(name, txn).await?;
            let mut key = found.clone().unwrap_or(Key {
                // What EdgeX asks for; Vault's own default, RS256, is not offered.
                algorithm: Algorithm::Es384,
                rotation_period: DAY_SECONDS,
                verification_ttl: DAY_SECONDS,
                allowed_client_ids: Vec::new(),
                rotate_at: 0,
                public: Vec::new(),
            });
            key.update(&Input::of(request.body())?)?;
            let signs_so = key.public.first().is_some_and(|p| p.algorithm == key.algorithm);
            if !signs_so {
                key.rotate(name, key.verification_ttl, txn)?;
            }
            if let Some(before) = &found
                && before.rotation_period != key.rotation_period
            {
                key.rotate_at = txn.now().plus(Ttl::seconds(key.rotation_period).as_duration()).0;
            }
            if found.as_ref() != Some(&key) {
                key.save(name, txn)?;
            }
            Ok(Reply::no_content())
        }
        Operation::Delete => {
            let users = role::roles_of(name, txn).await?;
            if !users.is_empty() {
                let told = format!(
                    "unable to delete key {name:?} because it is currently referenced by these roles: {}",
                    users.join(", ")
                );
                return Err(EngineError::bad_request(told));
            }
            txn.delete(&place(name))?;
            txn.delete(&private_place(name))?;
            Ok(Reply::no_content())
        }
        Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

/// `oidc/key/:name/rotate`.
pub(super) async fn rotate(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if !is_write(request) {
        return Err(EngineError::unsupported_operation());
    }
    let missing = || EngineError::bad_request(format!("no named key found at {name:?}"));
    let mut key = Key::load(name, txn).await?.ok_or_else(missing)?;
    let verification_ttl =
        Input::of(request.body())?.ttl("verification_ttl")?.map_or(key.verification_ttl, Ttl::as_seconds);
    key.rotate(name, verification_ttl, txn)?;
    key.save(name, txn)?;
    Ok(Reply::no_content())
}

fn place(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

fn private_place(name: &str) -> String {
    format!("oidc/private/{name}")
}

const NO_ALGORITHM: &str = "the signing algorithm is not supported";
const FOLDER: &str = "oidc/key";
pub(super) const DAY_SECONDS: u64 = 86_400;
const MIN_ROTATION_SECONDS: u64 = 60;
/// 64 keys of a P-384 point are some 16 KB.
const MOST_PUBLIC: usize = 64;
