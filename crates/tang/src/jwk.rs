//! P-521 points as JSON Web Keys (RFC 7517, RFC 7518 section 6.2), and their thumbprints (RFC 7638).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use secret::crypto;
use serde::{Deserialize, Serialize};

use crate::curve::{FIELD_BYTES, Point};

/// The name of a key that does not depend on who writes it down: SHA-256 of its canonical JSON (RFC 7638).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    pub(crate) fn of(point: &Point) -> Self {
        let key = Written::new(point, None);
        // The members that RFC 7638 names, in its order; what they hold needs no escaping.
        let (x, y) = (&key.x, &key.y);
        let canonical = format!(r#"{{"crv":"P-521","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Self(crypto::sha256(&[canonical.as_bytes()]))
    }
}

/// As `tang-show-keys` prints it: base 64 for addresses, without padding.
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = NotAThumbprint;

    fn from_str(text: &str) -> Result<Self, NotAThumbprint> {
        // A SHA-1 thumbprint, which servers before version 8 showed, names no key for certain any more.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAThumbprint)?;
        bytes.try_into().map(Self).map_err(|_| NotAThumbprint)
    }
}

/// Text that is no thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a thumbprint: 43 characters of base64url are expected, a SHA-256 as `tang-show-keys` prints it")]
pub struct NotAThumbprint;

/// A JSON Web Key as it comes: of any type, with members that are not ours.
#[derive(Deserialize)]
pub(crate) struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key_ops: Vec<Cow<'a, str>>,
}

impl Jwk<'_> {
    /// The point, if this is an EC key on P-521 with coordinates of full length (RFC 7518, 6.2.1.2) that is on the
    /// curve.
    pub(crate) fn point(&self) -> Option<Point> {
        if self.kty != "EC" || self.crv.as_deref() != Some("P-521") {
            return None;
        }
        Point::from_coordinates(&coordinate(self.x.as_deref()?)?, &coordinate(self.y.as_deref()?)?)
    }

    /// Whether it is meant for `alg` and for nothing but `operation` (RFC 7517, 4.3 and 4.4).
    pub(crate) fn is_for(&self, alg: &str, operation: &str) -> bool {
        self.alg.as_deref() == Some(alg) && self.key_ops.len() == 1 && self.key_ops[0] == operation
    }
}

fn coordinate(text: &str) -> Option<[u8; FIELD_BYTES]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A point as a JSON Web Key for a server.
#[derive(Serialize)]
pub(crate) struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    crv: &'static str,
    kty: &'static str,
    x: String,
    y: String,
}

impl Written {
    pub(crate) fn new(point: &Point, alg: Option<&'static str>) -> Self {
        let (x, y) = point.coordinates();
        let text = |coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate);
        Self { alg, crv: "P-521", kty: "EC", x: text(x), y: text(y) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Scalar;
    use host::OsEntropy;

    #[test]
    fn a_key_reads_what_it_writes() {
        let point = Scalar::generate(&OsEntropy).public();
        let text = serde_json::to_string(&Written::new(&point, Some("ECMR"))).unwrap();
        let read: Jwk<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(read.point(), Some(point));
        assert!(!read.is_for("ECMR", "deriveKey"), "a key without operations is for nothing");
    }

    #[test]
    fn refusals_by_name() {
        let point = Scalar::generate(&OsEntropy).public();
        let good = serde_json::to_value(Written::new(&point, None)).unwrap();
        let read = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = good.clone();
            change(&mut value);
            let text = value.to_string();
            serde_json::from_str::<Jwk<'_>>(&text).ok().and_then(|key| key.point())
        };
        assert_eq!(read(&|_| ()), Some(point));
        let short = BASE64_URL_SAFE_NO_PAD.encode([7; 65]);
        let padded = format!("{}==", good["x"].as_str().unwrap());
        for (name, value) in [
            ("kty", "RSA".into()),
            ("crv", "P-256".into()),
            ("x", short.clone().into()),
            ("y", short.into()),
            ("x", padded.into()),
            ("x", "*".into()),
            ("y", good["x"].clone()),
            ("x", serde_json::Value::Null),
            ("x", 3.into()),
        ] {
            assert_eq!(read(&|key| key[name] = value.clone()), None, "{name}: {value}");
        }
    }

    #[test]
    fn a_thumbprint_reads_what_it_prints_and_nothing_shorter() {
        let thumbprint = Thumbprint::of(&Scalar::generate(&OsEntropy).public());
        assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
        let sha1 = BASE64_URL_SAFE_NO_PAD.encode([1; 20]);
        let padded = format!("{thumbprint}=");
        for bad in ["", "x", sha1.as_str(), padded.as_str()] {
            assert_eq!(bad.parse::<Thumbprint>(), Err(NotAThumbprint), "{bad}");
        }
    }
}
