//! The file `resp-init.json`, read as leniently as Go reads it where that does no harm, and written as EdgeX 4 writes
//! it.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use secret::crypto::{NONCE_BYTES, TAG_BYTES};
use secret::{SecretBytes, Token};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::share::{ClearShares, WrappedShare, WrappedShares};

/// Longest file that is read.
pub const MAX_INIT_FILE_BYTES: usize = 64 * 1024;
/// Shamir's scheme over one byte has no more.
const MAX_SHARES: usize = 255;
/// Longest share: real ones have 33 bytes.
const MAX_SHARE_BYTES: usize = 1024;

/// What a `resp-init.json` holds.
#[derive(Debug)]
pub enum Shares {
    /// Shares in clear: to be wrapped, or refused.
    Clear(ClearShares),
    /// Wrapped shares.
    Wrapped(WrappedShares),
}

impl Shares {
    /// Reads the first JSON value. Names of fields match in any case, unknown ones and whatever follows are ignored.
    ///
    /// # Errors
    /// [`SharesError`], which holds nothing of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, SharesError> {
        if bytes.len() > MAX_INIT_FILE_BYTES {
            return Err(SharesError::TooLong { bytes: bytes.len() });
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let file =
            File::deserialize(&mut json).map_err(|e| SharesError::NotJson { line: e.line(), column: e.column() })?;
        let root_token = match file.root_token {
            Some(text) if !text.0.is_empty() => {
                Some(Token::parse(&text.0).map_err(|_| SharesError::Field { field: "root_token", index: 0 })?)
            }
            _ => None,
        };
        let clear = !file.keys.is_empty() || !file.keys_base64.is_empty();
        let wrapped = !file.encrypted_keys.is_empty() || !file.nonces.is_empty();
        match (clear, wrapped) {
            (false, false) => Err(SharesError::Nothing),
            (true, true) => Err(SharesError::Both),
            (true, false) => {
                Ok(Self::Clear(ClearShares { shares: clear_shares(&file.keys, &file.keys_base64)?, root_token }))
            }
            (false, true) => {
                let shares = wrapped_shares(&file.encrypted_keys, &file.nonces)?;
                Ok(Self::Wrapped(WrappedShares { shares, root_token }))
            }
        }
    }
}

impl WrappedShares {
    /// The file as EdgeX 4 writes it: one line, and a line feed.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let hex = |bytes: &dyn Fn(&WrappedShare) -> String| self.shares.iter().map(bytes).collect::<Vec<String>>();
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_INIT_FILE_BYTES));
        let mut json = serde_json::Serializer::new(&mut *out);
        let mut write = || {
            let mut map = json.serialize_map(None)?;
            if !self.shares.is_empty() {
                map.serialize_entry("encrypted_keys", &hex(&|s| hex::encode(&s.sealed)))?;
                map.serialize_entry("nonces", &hex(&|s| hex::encode(s.nonce)))?;
            }
            if let Some(token) = &self.root_token {
                map.serialize_entry("root_token", token.expose())?;
            }
            map.end()
        };
        write().expect("strings and lists of strings can always be written to memory");
        out.push(b'\n');
        out
    }
}

fn clear_shares(keys: &[Text], keys_base64: &[Text]) -> Result<Vec<SecretBytes>, SharesError> {
    let from_hex = decode(keys, "keys", |t| hex::decode(t).ok())?;
    let from_base64 = decode(keys_base64, "keys_base64", |t| BASE64_STANDARD.decode(t).ok())?;
    match (from_hex.is_empty(), from_base64.is_empty()) {
        (false, false) => {
            let same = from_hex.len() == from_base64.len()
                && from_hex.iter().zip(&from_base64).all(|(a, b)| secret::crypto::ct_eq(a.expose(), b.expose()));
            if same { Ok(from_hex) } else { Err(SharesError::Disagree) }
        }
        (true, _) => Ok(from_base64),
        (false, true) => Ok(from_hex),
    }
}

fn decode(
    texts: &[Text],
    field: &'static str,
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<SecretBytes>, SharesError> {
    if texts.len() > MAX_SHARES {
        return Err(SharesError::TooMany { field, count: texts.len() });
    }
    let one = |(index, text): (usize, &Text)| {
        let share = read(&text.0).map(SecretBytes::new).filter(|s| (1..=MAX_SHARE_BYTES).contains(&s.len()));
        share.ok_or(SharesError::Field { field, index })
    };
    texts.iter().enumerate().map(one).collect()
}

fn wrapped_shares(keys: &[Text], nonces: &[Text]) -> Result<Vec<WrappedShare>, SharesError> {
    if keys.len() != nonces.len() {
        return Err(SharesError::Counts { encrypted_keys: keys.len(), nonces: nonces.len() });
    }
    if keys.len() > MAX_SHARES {
        return Err(SharesError::TooMany { field: "encrypted_keys", count: keys.len() });
    }
    let one = |(index, (key, nonce)): (usize, (&Text, &Text))| {
        let wrong = |field| SharesError::Field { field, index };
        let sealed = hex::decode(&*key.0)
            .ok()
            .filter(|k| (TAG_BYTES + 1..=TAG_BYTES + MAX_SHARE_BYTES).contains(&k.len()))
            .ok_or(wrong("encrypted_keys"))?;
        let mut bytes = [0; NONCE_BYTES];
        hex::decode_to_slice(&*nonce.0, &mut bytes).map_err(|_| wrong("nonces"))?;
        Ok(WrappedShare { sealed, nonce: bytes })
    };
    keys.iter().zip(nonces).enumerate().map(one).collect()
}

/// Why a file is no `resp-init.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    /// Over [`MAX_INIT_FILE_BYTES`].
    #[error("resp-init.json has {bytes} bytes; at most {MAX_INIT_FILE_BYTES} are read")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Not an object of the known fields.
    #[error("resp-init.json is not what EdgeX writes: line {line}, column {column}")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// No share in any form.
    #[error("resp-init.json holds no key shares")]
    Nothing,
    /// Clear and wrapped shares side by side: which are meant cannot be told.
    #[error("resp-init.json holds key shares in clear and wrapped")]
    Both,
    /// `keys` and `keys_base64` are not the same shares.
    #[error("`keys` and `keys_base64` of resp-init.json differ")]
    Disagree,
    /// A nonce for each share is needed.
    #[error("resp-init.json holds {encrypted_keys} wrapped key shares and {nonces} nonces")]
    Counts {
        /// Shares.
        encrypted_keys: usize,
        /// Nonces.
        nonces: usize,
    },
    /// More than 255 shares.
    #[error("resp-init.json holds {count} entries of `{field}`; at most {MAX_SHARES} are read")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Not hexadecimal or base 64, too short, too long, or a nonce that has not 12 bytes.
    #[error("entry {index} of `{field}` in resp-init.json is malformed")]
    Field {
        /// The field.
        field: &'static str,
        /// Counted from 0, as EdgeX does.
        index: usize,
    },
}

/// The object as it stands there.
#[derive(Default)]
struct File {
    keys: Vec<Text>,
    keys_base64: Vec<Text>,
    encrypted_keys: Vec<Text>,
    nonces: Vec<Text>,
    root_token: Option<Text>,
}

/// A string that is wiped; what the JSON reader copied on its way is not.
struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(String::deserialize(d)?)))
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                // Go: null leaves a field empty, and of two fields with one name the later counts.
                let mut file = File::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.to_ascii_lowercase().as_str() {
                        "keys" => file.keys = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        "keys_base64" => file.keys_base64 = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        "encrypted_keys" => file.encrypted_keys = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        "nonces" => file.nonces = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        "root_token" => file.root_token = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(file)
            }
        }
        d.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "000000000000000000000000";

    fn refused(text: &str) -> SharesError {
        Shares::parse(text.as_bytes()).map(|_| ()).unwrap_err()
    }

    fn clear(text: &str) -> ClearShares {
        match Shares::parse(text.as_bytes()).unwrap() {
            Shares::Clear(c) => c,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clear_shares_with_and_without_a_token() {
        let plain = clear(r#"{"keys":["aabbcc","ddeeff"],"keys_base64":["qrvM","3e7/"]}"#);
        assert_eq!(plain.hex().map(|h| h.to_string()).collect::<Vec<_>>(), ["aabbcc", "ddeeff"]);
        assert!(plain.root_token.is_none());
        let with_token = clear(r#"{"keys_base64":["qrvM"],"root_token":"s.example"}"#);
        assert_eq!(with_token.root_token.unwrap().expose(), "s.example");
    }

    #[test]
    fn as_lenient_as_go() {
        let text = r#"
  { "Keys": ["AABBcc"], "recovery_keys": {"x": [1]}, "KEYS_base64": null,
"keys":["AABBdd"] } trailing {"#;
        assert_eq!(clear(text).hex().next().unwrap().as_str(), "aabbdd", "the later of two counts");
        assert!(matches!(
            Shares::parse(format!(r#"{{"encrypted_keys":["{}"],"nonces":["{NONCE}"]}}"#, "AB".repeat(49)).as_bytes()),
            Ok(Shares::Wrapped(_))
        ));
    }

    #[test]
    fn refusals_by_name() {
        for text in ["", "{}", "{\"root_token\":\"s.x\"}", "{\"keys\":[]}", "{\"keys\":null}"] {
            let error = refused(text);
            assert!(error == SharesError::Nothing || text.is_empty(), "{text}: {error}");
        }
        assert_eq!(refused("{\n\"keys\": 7}"), SharesError::NotJson { line: 2, column: 9 });
        for text in ["", "null", "[]", "{\"keys\":[1]}", "{\"keys\":[\"aa\"]", "{\"nonces\":{}}"] {
            assert!(matches!(refused(text), SharesError::NotJson { .. }), "{text}");
        }
        let sealed = "ab".repeat(49);
        let wrapped =
            |keys: &str, nonces: &str| refused(&format!(r#"{{"encrypted_keys":[{keys}],"nonces":[{nonces}]}}"#));
        assert_eq!(
            wrapped(&format!("\"{sealed}\",\"{sealed}\""), &format!("\"{NONCE}\"")),
            SharesError::Counts { encrypted_keys: 2, nonces: 1 },
            "nonces missing"
        );
        assert_eq!(wrapped("", &format!("\"{NONCE}\"")), SharesError::Counts { encrypted_keys: 0, nonces: 1 });
        for nonce in ["", "00", "0000000000000000000000000000", "zz0000000000000000000000"] {
            let error = wrapped(&format!("\"{sealed}\""), &format!("\"{nonce}\""));
            assert_eq!(error, SharesError::Field { field: "nonces", index: 0 }, "{nonce}");
        }
        for key in ["", "abc", &"ab".repeat(16), &"ab".repeat(16 + 1025)] {
            let error = wrapped(&format!("\"{key}\""), &format!("\"{NONCE}\""));
            assert_eq!(error, SharesError::Field { field: "encrypted_keys", index: 0 }, "{key}");
        }
        assert_eq!(refused(r#"{"keys":["aa","test-keys"]}"#), SharesError::Field { field: "keys", index: 1 });
        assert_eq!(refused(r#"{"keys":["aa"],"keys_base64":["qrvM"]}"#), SharesError::Disagree);
        assert_eq!(refused(r#"{"keys":["aa"],"nonces":["00"]}"#), SharesError::Both);
        assert_eq!(
            refused(r#"{"keys":["aa"],"root_token":"a b"}"#),
            SharesError::Field { field: "root_token", index: 0 }
        );
        let many = format!(r#"{{"keys":[{}]}}"#, vec!["\"aa\""; 256].join(","));
        assert_eq!(refused(&many), SharesError::TooMany { field: "keys", count: 256 });
        let long = " ".repeat(MAX_INIT_FILE_BYTES + 1);
        assert_eq!(refused(&long), SharesError::TooLong { bytes: long.len() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text in "\\{(\"(keys|nonces|Encrypted_keys)\":\\[?(\"[0-9a-f]{0,30}\",?){0,3}\\]?,?){0,3}\\}?") {
            let _ = Shares::parse(&bytes);
            if let Ok(Shares::Wrapped(wrapped)) = Shares::parse(text.as_bytes()) {
                let again = Shares::parse(&wrapped.encode());
                prop_assert!(matches!(again, Ok(Shares::Wrapped(w)) if w.encode() == wrapped.encode()));
            }
        }
    }
}
