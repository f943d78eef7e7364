//! The exchange: made once with a server's key, done again each time that the secret is needed.

use std::fmt;

use host::Entropy;
use secret::{Secret, crypto};

use crate::advertisement::ExchangeKey;
use crate::curve::{COMPRESSED_BYTES, Point, Scalar, SecretPoint};
use crate::jwk::{Jwk, Thumbprint, Written};

/// Most bytes of a server's answer to an exchange. An ordinary one has about 300.
pub const MAX_REPLY_BYTES: usize = 4096;
/// Bytes of a [`Binding`].
pub const BINDING_BYTES: usize = 2 * COMPRESSED_BYTES;
/// The HKDF label under which a shared point becomes a key; then the binding's bytes.
pub const SHARE_LABEL: &str = "edgekeep/v1/tang-share";
/// The media type of requests and answers (RFC 7517, 8.5).
pub const CONTENT_TYPE: &str = "application/jwk+json";

/// What is kept of a provisioning: the server's point S and the client's C. Public; whoever has it and reaches the
/// server can have the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    server: Point,
    client: Point,
}

impl Binding {
    /// Makes a secret with a server, which is not asked for it.
    pub fn provision(server: &ExchangeKey, entropy: &dyn Entropy) -> (Self, Shared) {
        let secret = Scalar::generate(entropy);
        let binding = Self { server: server.0, client: secret.public() };
        (binding, Shared { point: secret.times(&server.0), binding })
    }

    /// S and C, compressed (SEC 1, 2.3.3).
    pub fn to_bytes(&self) -> [u8; BINDING_BYTES] {
        let mut out = [0; BINDING_BYTES];
        out[..COMPRESSED_BYTES].copy_from_slice(&self.server.compressed());
        out[COMPRESSED_BYTES..].copy_from_slice(&self.client.compressed());
        out
    }

    /// Reads [`Binding::to_bytes`].
    ///
    /// # Errors
    /// [`NotABinding`], also where a point is not on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotABinding> {
        let (server, client) = bytes.split_at_checked(COMPRESSED_BYTES).ok_or(NotABinding)?;
        let point = |bytes| Point::from_compressed(bytes).ok_or(NotABinding);
        Ok(Self { server: point(server)?, client: point(client)? })
    }

    /// The name of the server's key.
    pub fn server(&self) -> Thumbprint {
        Thumbprint::of(&self.server)
    }

    /// Begins to recover the secret, under a new blinding.
    pub fn recover(&self, entropy: &dyn Entropy) -> Recovery {
        loop {
            let blinding = match host::in_force("tang-exchange-blinded") {
                true => Scalar::generate(entropy),
                false => Scalar::one(),
            };
            // Only the one number that undoes C itself cancels out.
            if let Some(request) = self.client.blinded_by(&blinding) {
                return Recovery { binding: *self, blinding, request };
            }
        }
    }
}

/// One exchange under way.
pub struct Recovery {
    binding: Binding,
    blinding: Scalar,
    request: Point,
}

impl Recovery {
    /// The path to `POST` to.
    pub fn path(&self) -> String {
        format!("/rec/{}", self.binding.server())
    }

    /// The body of the request, of media type [`CONTENT_TYPE`]: a point that says nothing.
    pub fn body(&self) -> String {
        let key = Written::new(&self.request, Some("ECMR"));
        serde_json::to_string(&key).expect("five short texts are JSON")
    }

    /// Takes the server's answer. Any point is an answer: whether it was the right one only shows where the secret is
    /// used.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn finish(self, reply: &[u8]) -> Result<Shared, ReplyError> {
        if reply.len() > MAX_REPLY_BYTES {
            return Err(ReplyError::TooLarge { bytes: reply.len() });
        }
        let key: Jwk<'_> = serde_json::from_slice(reply).map_err(|_| ReplyError::NotAKey)?;
        let answer = key.point().ok_or(ReplyError::NotAPoint)?;
        let point = answer.unblinded_by(&self.blinding, &self.binding.server).ok_or(ReplyError::Neutral)?;
        Ok(Shared { point, binding: self.binding })
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recovery({})", self.binding.server())
    }
}

/// What client and server make together, and only the client has.
pub struct Shared {
    point: SecretPoint,
    binding: Binding,
}

impl Shared {
    /// The key: HKDF-SHA-256 (RFC 5869) of K's x coordinate without salt, `info` being [`SHARE_LABEL`] and the
    /// binding's bytes, so that no two bindings share a key.
    pub fn into_key(self) -> Secret<32> {
        let info = [SHARE_LABEL.as_bytes(), &self.binding.to_bytes()].concat();
        Secret::init_with(|key| crypto::hkdf_sha256(&[], &self.point.x()[..], &info, key))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

/// Bytes that are no binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not two points of P-521")]
pub struct NotABinding;

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Over [`MAX_REPLY_BYTES`].
    #[error("an answer of {bytes} bytes; at most {MAX_REPLY_BYTES} are read")]
    TooLarge {
        /// How many came.
        bytes: usize,
    },
    /// Not JSON, or not that of a key.
    #[error("the answer is no JSON Web Key")]
    NotAKey,
    /// Another kind of key, another curve, or a point that is not on it.
    #[error("the answer is no point of P-521")]
    NotAPoint,
    /// The answer is the blinding itself: whoever sent it wants the secret to be a known one.
    #[error("the answer undoes the request instead of answering it")]
    Neutral,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advertisement::{Advertisement, AdvertisementError};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Mutex;

    /// Gives the bytes of a vector, and nothing more.
    struct Given(Mutex<Vec<u8>>);

    impl Entropy for Given {
        fn fill(&self, out: &mut [u8]) {
            let mut left = self.0.lock().unwrap();
            let n = out.len();
            out.copy_from_slice(&left[..n]);
            left.drain(..n);
        }
    }

    /// Vectors of `tests/golden/make.py`, which does its own arithmetic.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../tests/golden/exchange.json")).unwrap()
    }

    fn advertisement() -> Vec<u8> {
        include_bytes!("../tests/golden/advertisement.json").to_vec()
    }

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    fn pinned() -> Thumbprint {
        golden()["signing_thumbprint"].as_str().unwrap().parse().unwrap()
    }

    fn verified() -> ExchangeKey {
        *Advertisement::verify(&advertisement(), &pinned()).unwrap().exchange_key()
    }

    #[test]
    fn the_advertisement_is_read_as_another_implementation_wrote_it() {
        assert_eq!(verified().thumbprint().to_string(), golden()["exchange_thumbprint"].as_str().unwrap());
        let flattened = include_bytes!("../tests/golden/advertisement-flattened.json");
        assert_eq!(*Advertisement::verify(flattened, &pinned()).unwrap().exchange_key(), verified());
    }

    #[test]
    fn provisioning_and_recovery_agree_with_another_implementation() {
        let g = golden();
        let (binding, shared) = Binding::provision(&verified(), &Given(Mutex::new(bytes(&g["c"]))));
        assert_eq!(hex::encode(binding.to_bytes()), g["binding"].as_str().unwrap());
        assert_eq!(hex::encode(shared.into_key().expose()), g["key"].as_str().unwrap());

        let binding = Binding::from_bytes(&bytes(&g["binding"])).unwrap();
        let recovery = binding.recover(&Given(Mutex::new(bytes(&g["e"]))));
        assert_eq!(recovery.path(), g["path"].as_str().unwrap());
        assert_eq!(serde_json::from_str::<Value>(&recovery.body()).unwrap(), g["request"]);
        let shared = recovery.finish(g["reply"].to_string().as_bytes()).unwrap();
        assert_eq!(hex::encode(shared.into_key().expose()), g["key"].as_str().unwrap());
    }

    #[test]
    fn the_label_is_documented() {
        let row = format!(
            "| `{SHARE_LABEL}` | binding {BINDING_BYTES} | 32 | no salt; x coordinate of the shared point | `tang` |"
        );
        assert!(include_str!("../../../docs/formats.md").contains(&row));
    }

    #[test]
    fn another_pin_is_another_server() {
        let pin = Thumbprint([7; 32]);
        let found = vec![pinned()];
        assert_eq!(
            Advertisement::verify(&advertisement(), &pin),
            Err(AdvertisementError::OtherServer { pinned: pin, found })
        );
    }

    #[test]
    fn an_exchange_key_that_the_pinned_key_did_not_sign_is_refused() {
        // The right signing key beside a stranger's exchange key, signed by the stranger: made by make.py.
        let swapped = include_bytes!("../tests/golden/advertisement-swapped.json");
        assert_eq!(Advertisement::verify(swapped, &pinned()), Err(AdvertisementError::NotSigned { pinned: pinned() }));
    }

    #[test]
    fn advertisements_refused_by_name() {
        let good: Value = serde_json::from_slice(&advertisement()).unwrap();
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut value = good.clone();
            change(&mut value);
            Advertisement::verify(value.to_string().as_bytes(), &pinned()).unwrap_err()
        };
        let not_signed = AdvertisementError::NotSigned { pinned: pinned() };
        assert_eq!(refused(&|v| v["signatures"] = json!([])), not_signed);
        assert_eq!(refused(&|v| v["signatures"][0]["signature"] = json!("AAAA")), not_signed);
        // {"alg":"none"}, {"alg":"ES512","crit":["x"]}
        for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJFUzUxMiIsImNyaXQiOlsieCJdfQ"] {
            assert_eq!(refused(&|v| v["signatures"][0]["protected"] = json!(header)), not_signed, "{header}");
        }
        assert_eq!(refused(&|v| v["payload"] = json!("e30")), AdvertisementError::NoKeySet);
        assert_eq!(refused(&|v| v["payload"] = json!("*")), AdvertisementError::NotAJws);
        assert_eq!(refused(&|v| *v = json!([])), AdvertisementError::NotAJws);
        let large = vec![b' '; crate::MAX_ADVERTISEMENT_BYTES + 1];
        assert!(matches!(Advertisement::verify(&large, &pinned()), Err(AdvertisementError::TooLarge { .. })));
        let no_exchange = include_bytes!("../tests/golden/advertisement-no-exchange.json");
        assert_eq!(Advertisement::verify(no_exchange, &pinned()), Err(AdvertisementError::NoExchangeKey));
    }

    #[test]
    fn replies_refused_by_name() {
        let g = golden();
        let (binding, _) = Binding::provision(&verified(), &host::OsEntropy);
        let refused = |reply: &[u8]| binding.recover(&host::OsEntropy).finish(reply).unwrap_err();
        assert_eq!(refused(b"<html>"), ReplyError::NotAKey);
        assert_eq!(refused(b"[]"), ReplyError::NotAKey);
        assert_eq!(refused(b"{\"kty\":\"EC\"}"), ReplyError::NotAPoint);
        let mut off = g["reply"].clone();
        off["y"] = off["x"].clone();
        assert_eq!(refused(off.to_string().as_bytes()), ReplyError::NotAPoint);
        assert_eq!(refused(&[b' '; MAX_REPLY_BYTES + 1]), ReplyError::TooLarge { bytes: MAX_REPLY_BYTES + 1 });
        // A server that knows C and its own number can answer eS; the secret would be nobody's point.
        let recovery = binding_of_golden().recover(&Given(Mutex::new(bytes(&g["e"]))));
        assert_eq!(recovery.finish(g["undoing_reply"].to_string().as_bytes()).unwrap_err(), ReplyError::Neutral);
    }

    #[test]
    fn a_wrong_point_gives_another_key() {
        let g = golden();
        let recovery = binding_of_golden().recover(&host::OsEntropy);
        // The answer to another request.
        let shared = recovery.finish(g["reply"].to_string().as_bytes()).unwrap();
        assert_ne!(hex::encode(shared.into_key().expose()), g["key"].as_str().unwrap());
    }

    #[test]
    fn two_recoveries_show_nothing_in_common() {
        let binding = binding_of_golden();
        let (a, b) = (binding.recover(&host::OsEntropy).body(), binding.recover(&host::OsEntropy).body());
        assert_ne!(a, b);
    }

    fn binding_of_golden() -> Binding {
        Binding::from_bytes(&bytes(&golden()["binding"])).unwrap()
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(junk: Vec<u8>, at in 0..4000_usize, bit in 0..8_u8) {
            let _ = Advertisement::verify(&junk, &pinned());
            let _ = Binding::from_bytes(&junk);
            let mut near = advertisement();
            let at = at % near.len();
            near[at] ^= 1 << bit;
            // Spelling may differ where JSON lets it; what is accepted is what was signed.
            if let Ok(read) = Advertisement::verify(&near, &pinned()) {
                prop_assert_eq!(*read.exchange_key(), verified());
            }
        }
    }
}
