//! What a server says of its keys: a set of keys (RFC 7517), signed with ES512 as a JWS (RFC 7515, 7.2).
//!
//! A stranger's advertisement is as well signed as the right one's. So trust comes from the pin alone: the set must
//! hold the key whose thumbprint was pinned, and that key must have signed the set.

use std::borrow::Cow;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use secret::crypto::{self, Curve};
use serde::Deserialize;

use crate::curve::Point;
use crate::jwk::{Jwk, Thumbprint};

/// Most bytes of an advertisement. That of a server with one pair of keys has about 1300.
pub const MAX_ADVERTISEMENT_BYTES: usize = 64 * 1024;

/// A key for the exchange, vouched for by the pinned key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeKey(pub(crate) Point);

impl ExchangeKey {
    /// Its name, under which the server is asked for it.
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::of(&self.0)
    }
}

/// An advertisement whose pinned key was seen and has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    exchange: ExchangeKey,
}

impl Advertisement {
    /// Reads the bytes of `GET /adv`, and proves them against the pinned signing key.
    ///
    /// # Errors
    /// [`AdvertisementError`].
    pub fn verify(bytes: &[u8], pinned: &Thumbprint) -> Result<Self, AdvertisementError> {
        if bytes.len() > MAX_ADVERTISEMENT_BYTES {
            return Err(AdvertisementError::TooLarge { bytes: bytes.len() });
        }
        let jws: Jws<'_> = serde_json::from_slice(bytes).map_err(|_| AdvertisementError::NotAJws)?;
        let payload = decode(&jws.payload)?;
        let set: KeySet<'_> = serde_json::from_slice(&payload).map_err(|_| AdvertisementError::NoKeySet)?;
        let signer = set.signing_key(pinned)?;
        if !jws.signed_by(&signer) && host::in_force("tang-advertisement-signed") {
            return Err(AdvertisementError::NotSigned { pinned: *pinned });
        }
        let exchange = set.exchange_key().ok_or(AdvertisementError::NoExchangeKey)?;
        Ok(Self { exchange })
    }

    /// The key to provision with: the first that the server offers.
    pub fn exchange_key(&self) -> &ExchangeKey {
        &self.exchange
    }
}

/// Both serialisations of RFC 7515, 7.2: many signatures in a list, or one beside the payload.
#[derive(Deserialize)]
struct Jws<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow, default)]
    signatures: Vec<Signature<'a>>,
    #[serde(borrow)]
    protected: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signature: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Signature<'a> {
    #[serde(borrow)]
    protected: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// What must be understood of a protected header. `crit` names what a reader must know (RFC 7515, 4.1.11), and we know
/// none.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    crit: Option<serde::de::IgnoredAny>,
}

impl Jws<'_> {
    /// Whether one of the signatures is `signer`'s. Only the first sixteen are looked at: each costs a millisecond.
    fn signed_by(&self, signer: &Point) -> bool {
        let lone = self.protected.as_deref().zip(self.signature.as_deref());
        let listed = self.signatures.iter().map(|s| (&*s.protected, &*s.signature));
        let public = signer.uncompressed();
        lone.into_iter().chain(listed).take(MAX_SIGNATURES).any(|(protected, signature)| {
            let Ok(header) = decode(protected) else { return false };
            let Ok(header) = serde_json::from_slice::<Header<'_>>(&header) else { return false };
            let Ok(signature) = decode(signature) else { return false };
            let signed = [protected, ".", &self.payload].concat();
            header.alg == "ES512"
                && header.crit.is_none()
                && crypto::verify(Curve::P521, &public, signed.as_bytes(), &signature).is_ok()
        })
    }
}

/// A set of keys. One that cannot be read as a key at all spoils the set; one of another kind is passed over.
#[derive(Deserialize)]
struct KeySet<'a> {
    #[serde(borrow)]
    keys: Vec<Jwk<'a>>,
}

impl KeySet<'_> {
    fn signing_key(&self, pinned: &Thumbprint) -> Result<Point, AdvertisementError> {
        let signing = || self.keys.iter().filter(|k| k.is_for("ES512", "verify")).filter_map(Jwk::point);
        let pinned_one = |p: &Point| Thumbprint::of(p) == *pinned || !host::in_force("tang-thumbprint-pinned");
        signing().find(pinned_one).ok_or_else(|| AdvertisementError::OtherServer {
            pinned: *pinned,
            found: signing().take(MAX_SIGNATURES).map(|p| Thumbprint::of(&p)).collect(),
        })
    }

    fn exchange_key(&self) -> Option<ExchangeKey> {
        self.keys.iter().filter(|k| k.is_for("ECMR", "deriveKey")).find_map(Jwk::point).map(ExchangeKey)
    }
}

/// Why an advertisement proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvertisementError {
    /// Over [`MAX_ADVERTISEMENT_BYTES`].
    #[error("an advertisement of {bytes} bytes; at most {MAX_ADVERTISEMENT_BYTES} are read")]
    TooLarge {
        /// How many came.
        bytes: usize,
    },
    /// Not the JSON of a JWS.
    #[error("the answer is no advertisement: it is no JSON Web Signature")]
    NotAJws,
    /// The signed content is no set of keys.
    #[error("the advertisement holds no set of keys")]
    NoKeySet,
    /// The pinned key is not among the keys: another server, or one whose keys were rotated.
    #[error("the server does not have the pinned signing key {pinned}; its signing keys are {}", names(found))]
    OtherServer {
        /// The thumbprint that was pinned.
        pinned: Thumbprint,
        /// The thumbprints that are there.
        found: Vec<Thumbprint>,
    },
    /// The pinned key is there, and it has not signed: the set was put together by somebody else.
    #[error("the advertisement is not signed by the pinned key {pinned}")]
    NotSigned {
        /// The thumbprint that was pinned.
        pinned: Thumbprint,
    },
    /// Nothing to make an exchange with.
    #[error("the server offers no key for the exchange (ECMR on P-521)")]
    NoExchangeKey,
}

fn names(found: &[Thumbprint]) -> String {
    if found.is_empty() {
        return "none".into();
    }
    found.iter().map(Thumbprint::to_string).collect::<Vec<_>>().join(", ")
}

fn decode(text: &str) -> Result<Vec<u8>, AdvertisementError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| AdvertisementError::NotAJws)
}

const MAX_SIGNATURES: usize = 16;
