//! The request target: percent-decoding, done once and strictly, and the split of the query.

use api::{ApiPath, PathError};

/// Most query parameters that are looked at; `sys/health` has eight.
const MAX_PARAMETERS: usize = 32;
/// Longest query, in bytes as sent.
const MAX_QUERY_BYTES: usize = 4096;

/// A target that names nothing of ours. Says which rule is broken and none of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not below `/v1/`.
    #[error("outside /v1/")]
    Outside,
    /// A percent sign without two hexadecimal digits (RFC 3986, 2.1).
    #[error("the address has a '%' that is not followed by two hexadecimal digits")]
    Percent,
    /// Decodes to something other than UTF-8.
    #[error("the address is not UTF-8")]
    NotUtf8,
    /// The decoded path breaks a rule of paths.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A query too long, or of too many parts.
    #[error("the query is longer than 4096 bytes or has more than 32 parameters")]
    QueryTooLong,
    /// A control character in the query.
    #[error("the query has a control character")]
    QueryControl,
}

/// The path below `/v1/`.
pub(crate) fn path(raw: &str) -> Result<ApiPath, TargetError> {
    let below = raw.strip_prefix("/v1/").ok_or(TargetError::Outside)?;
    if below.contains('%') {
        Ok(ApiPath::parse(&decode(below, false)?)?)
    } else if below.is_ascii() {
        Ok(ApiPath::parse(below)?)
    } else {
        // RFC 3986 has no octet above 0x7f; who sends one has encoded nothing, and two readers may differ on it.
        Err(TargetError::NotUtf8)
    }
}

/// The parameters in order. A name without `=` has an empty value.
pub(crate) fn query(raw: Option<&str>) -> Result<Vec<(String, String)>, TargetError> {
    let Some(raw) = raw.filter(|q| !q.is_empty()) else { return Ok(Vec::new()) };
    if raw.len() > MAX_QUERY_BYTES {
        return Err(TargetError::QueryTooLong);
    }
    let mut parameters = Vec::new();
    for part in raw.split('&').filter(|p| !p.is_empty()) {
        if parameters.len() == MAX_PARAMETERS {
            return Err(TargetError::QueryTooLong);
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        if name.chars().chain(value.chars()).any(char::is_control) {
            return Err(TargetError::QueryControl);
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

/// Decodes once: `%2541` is the text `%41`, and nobody decodes it again. `plus` reads `+` as a space, in queries alone.
fn decode(raw: &str, plus: bool) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'%' => match (rest.next().and_then(digit), rest.next().and_then(digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(TargetError::Percent),
            },
            b'+' if plus => b' ',
            0x80.. => return Err(TargetError::NotUtf8),
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| TargetError::NotUtf8)
}

fn digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, clean) in [
            ("/v1/secret/a", "secret/a"),
            ("/v1/secret/a%20b", "secret/a b"),
            ("/v1/secret/%2541", "secret/%41"),
            ("/v1/secret/caf%C3%A9", "secret/caf\u{e9}"),
            ("/v1//secret///a/", "secret/a/"),
            ("/v1/secret%2Fa", "secret/a"),
            ("/v1/a+b", "a+b"),
        ] {
            assert_eq!(path(raw).unwrap().as_str(), clean, "{raw}");
        }
    }

    #[test]
    fn refusals_of_paths() {
        for (raw, error) in [
            ("/", TargetError::Outside),
            ("/v1", TargetError::Outside),
            ("/ui/", TargetError::Outside),
            ("/v1/%", TargetError::Percent),
            ("/v1/%4", TargetError::Percent),
            ("/v1/%zz", TargetError::Percent),
            ("/v1/%+1", TargetError::Percent),
            ("/v1/%ff", TargetError::NotUtf8),
            ("/v1/%c0%ae%c0%ae/", TargetError::NotUtf8),
            ("/v1/caf\u{e9}", TargetError::NotUtf8),
            ("/v1/a/../sys", TargetError::Path(PathError::Relative)),
            ("/v1/a/%2e%2e/sys", TargetError::Path(PathError::Relative)),
            ("/v1/a%2f..%2fsys", TargetError::Path(PathError::Relative)),
            ("/v1/./a", TargetError::Path(PathError::Relative)),
            ("/v1/a%00", TargetError::Path(PathError::Control)),
            ("/v1/a%0d%0aX-Vault-Token:b", TargetError::Path(PathError::Control)),
            ("/v1/a%c2%85", TargetError::Path(PathError::Control)),
        ] {
            assert_eq!(path(raw).unwrap_err(), error, "{raw}");
        }
        assert_eq!(path(&format!("/v1/{}", "a".repeat(1025))).unwrap_err(), TargetError::Path(PathError::TooLong));
    }

    #[test]
    fn queries() {
        let read = |q| query(Some(q)).unwrap();
        assert_eq!(
            read("list=true&x=a+b%26c&y"),
            [("list".into(), "true".into()), ("x".into(), "a b&c".into()), ("y".into(), String::new())]
        );
        assert!(read("&&").is_empty());
        assert_eq!(query(Some("a=%0a")), Err(TargetError::QueryControl));
        assert_eq!(query(Some("a=%g0")), Err(TargetError::Percent));
        assert_eq!(query(Some(&"a&".repeat(33))), Err(TargetError::QueryTooLong));
        assert_eq!(query(Some(&"a".repeat(4097))), Err(TargetError::QueryTooLong));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_safe_to_route(raw in "/v1/[ -~\u{80}-\u{ff}]{0,60}") {
            if let Ok(p) = path(&raw) {
                prop_assert!(!p.as_str().chars().any(char::is_control));
                prop_assert!(p.as_str().split('/').all(|s| s != ".." && s != "."));
                prop_assert!(!p.as_str().starts_with('/') && !p.as_str().contains("//"));
            }
        }

        #[test]
        fn what_is_encoded_is_read_back(text in "[a-z~%./ \u{e9}\u{4e00}]{1,30}") {
            let raw: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(decode(&raw, false).unwrap(), text);
        }
    }
}
