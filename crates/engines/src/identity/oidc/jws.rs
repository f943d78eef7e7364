//! JWS in compact form (RFC 7515, 3.1) with ES256 and ES384 (RFC 7518, 3.4), and public keys as JWK (RFC 7517; RFC
//! 7518, 6.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret::crypto::{Curve, NotAuthentic, SignError, SigningKey, verify};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What signs: a curve with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
}

impl Algorithm {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    pub(super) fn curve(self) -> Curve {
        match self {
            Self::Es256 => Curve::P256,
            Self::Es384 => Curve::P384,
        }
    }
}

/// `header.claims.signature`.
pub(super) fn sign(
    algorithm: Algorithm,
    kid: &str,
    key: &SigningKey,
    claims: &Map<String, Value>,
) -> Result<String, SignError> {
    let header = json!({ "alg": algorithm.as_str(), "kid": kid });
    let mut text = URL_SAFE_NO_PAD.encode(header.to_string());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(json!(claims).to_string(), &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

/// A token that has its form; nothing of it is believed before [`Unproven::prove`].
pub(super) struct Unproven<'a> {
    algorithm: String,
    kid: String,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

/// Claims that were signed by one of our keys.
#[derive(Debug)]
pub(super) struct Proven(Map<String, Value>);

impl<'a> Unproven<'a> {
    /// Takes a token apart; total on any text.
    pub(super) fn parse(token: &'a str) -> Result<Self, JwsError> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: String,
            /// RFC 7515, 4.1.11: what is critical and not understood must be refused.
            crit: Option<Value>,
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsError::TooLong);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else { return Err(JwsError::Parts) };
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| JwsError::Encoding)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Header)?;
        if header.crit.is_some() {
            return Err(JwsError::Header);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwsError::Encoding)?;
        let signed = &token[..token.len() - parts[2].len() - 1];
        Ok(Self { algorithm: header.alg, kid: header.kid, signed, claims, signature })
    }

    /// The key that it names.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// Checks the signature. The key decides the algorithm; the header has only to agree (RFC 8725, 3.1).
    pub(super) fn prove(self, algorithm: Algorithm, public: &[u8]) -> Result<Proven, JwsError> {
        if self.algorithm != algorithm.as_str() {
            return Err(JwsError::Algorithm);
        }
        verify(algorithm.curve(), public, self.signed.as_bytes(), &self.signature)?;
        let claims = URL_SAFE_NO_PAD.decode(self.claims).map_err(|_| JwsError::Encoding)?;
        Ok(Proven(serde_json::from_slice(&claims).map_err(|_| JwsError::Claims)?))
    }
}

impl Proven {
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim)?.as_str()
    }

    pub(super) fn number(&self, claim: &str) -> Option<u64> {
        self.0.get(claim)?.as_u64()
    }
}

/// A public key for `.well-known/keys`; `None` if the point is not one of the curve's.
pub(super) fn jwk(algorithm: Algorithm, kid: &str, public: &[u8]) -> Option<Value> {
    let bytes = algorithm.curve().bytes();
    let ([4], point) = public.split_first_chunk::<1>()? else { return None };
    let (x, y) = point.split_at_checked(bytes).filter(|(_, y)| y.len() == bytes)?;
    Some(json!({
        "use": "sig",
        "kty": "EC",
        "kid": kid,
        "crv": match algorithm { Algorithm::Es256 => "P-256", Algorithm::Es384 => "P-384" },
        "alg": algorithm.as_str(),
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    }))
}

/// Why a token is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwsError {
    #[error("error parsing token: longer than 16384 bytes")]
    TooLong,
    #[error("error parsing token: compact JWS format must have three parts")]
    Parts,
    #[error("error parsing token: illegal base64 data")]
    Encoding,
    #[error("error parsing token: not a header that this issuer writes")]
    Header,
    #[error("error verifying token: another algorithm than its key's")]
    Algorithm,
    #[error("error verifying token: the claims are no JSON object")]
    Claims,
    #[error("unable to validate the token signature")]
    Signature(#[from] NotAuthentic),
}

const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map<String, Value> {
        json!({"sub": "e", "exp": 7}).as_object().unwrap().clone()
    }

    #[test]
    fn what_was_signed_is_proven() {
        for algorithm in [Algorithm::Es256, Algorithm::Es384] {
            let key = SigningKey::generate(algorithm.curve()).unwrap();
            let token = sign(algorithm, "k", &key, &claims()).unwrap();
            let unproven = Unproven::parse(&token).unwrap();
            assert_eq!(unproven.kid(), "k");
            let proven = unproven.prove(algorithm, key.public()).unwrap();
            assert_eq!((proven.text("sub"), proven.number("exp")), (Some("e"), Some(7)));
        }
    }

    #[test]
    fn refusals_named_for_their_defect() {
        let key = SigningKey::generate(Curve::P384).unwrap();
        let other = SigningKey::generate(Curve::P384).unwrap();
        let token = sign(Algorithm::Es384, "k", &key, &claims()).unwrap();
        let prove = |token: &str, public: &[u8]| Unproven::parse(token)?.prove(Algorithm::Es384, public).map(drop);
        assert_eq!(prove(&token, other.public()), Err(JwsError::Signature(NotAuthentic)));
        let parts: Vec<&str> = token.split('.').collect();
        let with_header = |header: &str| [&URL_SAFE_NO_PAD.encode(header), parts[1], parts[2]].join(".");
        let changed = [parts[0], &URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#), parts[2]].join(".");
        for (token, error) in [
            (changed, JwsError::Signature(NotAuthentic)),
            (with_header(r#"{"alg":"none","kid":"k"}"#), JwsError::Algorithm),
            (with_header(r#"{"alg":"HS256","kid":"k"}"#), JwsError::Algorithm),
            (with_header(r#"{"alg":"ES256","kid":"k"}"#), JwsError::Algorithm),
            (with_header(r#"{"alg":"ES384"}"#), JwsError::Header),
            (with_header(r#"{"alg":"ES384","kid":"k","crit":["x"]}"#), JwsError::Header),
            (with_header(r#"{"alg":"ES384","kid":"k","x":1}"#), JwsError::Signature(NotAuthentic)),
            ([parts[0], parts[1], ""].join("."), JwsError::Signature(NotAuthentic)),
            (format!("{token}x"), JwsError::Encoding),
            (format!("{token}."), JwsError::Parts),
            ("garbage".into(), JwsError::Parts),
            (String::new(), JwsError::Parts),
            ("x".repeat(MAX_TOKEN_BYTES + 1), JwsError::TooLong),
        ] {
            assert_eq!(prove(&token, key.public()), Err(error), "{token:.80}");
        }
    }

    #[test]
    fn a_public_key_as_jwk() {
        let key = SigningKey::generate(Curve::P384).unwrap();
        let jwk = jwk(Algorithm::Es384, "k", key.public()).unwrap();
        assert_eq!((jwk["crv"].as_str(), jwk["x"].as_str().unwrap().len()), (Some("P-384"), 64));
        assert!(super::jwk(Algorithm::Es256, "k", key.public()).is_none());
        assert!(super::jwk(Algorithm::Es384, "k", &[]).is_none());
    }
}
