//! From HTTP to [`api::Request`]: after this file nobody sees a header or a method again.

use api::{ApiPath, Body, Operation, PeerAddress, Request, Ttl};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use secret::Token;
use zeroize::Zeroizing;

use crate::target::{self, TargetError};

/// A request whose head is in order; its body, if it takes one, is still to be read.
#[derive(Debug)]
pub struct Head {
    operation: Operation,
    path: ApiPath,
    query: Vec<(String, String)>,
    token: Option<Token>,
    wrap_ttl: Option<Ttl>,
    takes_body: bool,
    form: bool,
}

impl Head {
    /// Reads method, target and headers.
    ///
    /// # Errors
    /// [`Malformed`]; nothing of the body has been read.
    pub fn parse(parts: &Parts) -> Result<Self, Malformed> {
        let path = target::path(parts.uri.path())?;
        let mut query = target::query(parts.uri.query())?;
        let operation = operation(&parts.method, &path, &mut query, &parts.headers)?;
        namespace(&parts.headers)?;
        if parts.headers.contains_key(CONTENT_ENCODING) {
            return Err(Malformed::ContentEncoding);
        }
        let path = match operation {
            Operation::List => path.into_folder(),
            Operation::Write | Operation::Patch if path.is_folder() => return Err(Malformed::WriteToFolder),
            _ => path,
        };
        Ok(Self {
            takes_body: matches!(operation, Operation::Write | Operation::Patch),
            form: content_type(&parts.headers) == Some("application/x-www-form-urlencoded"),
            token: token(&parts.headers)?,
            wrap_ttl: wrap_ttl(&parts.headers)?,
            operation,
            path,
            query,
        })
    }

    /// Whether the verb has a body; that of any other verb is not read, as in Vault.
    pub fn takes_body(&self) -> bool {
        self.takes_body
    }

    /// The path below `/v1/`.
    pub fn path(&self) -> &ApiPath {
        &self.path
    }

    /// The verb.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The whole request.
    ///
    /// # Errors
    /// [`Malformed::Form`] for a body that is a form.
    pub fn with_body(self, body: Zeroizing<Vec<u8>>, peer: PeerAddress) -> Result<Request, Malformed> {
        // Vault's clients send JSON under any content type, curl -d under that of forms: the first character decides.
        let first = body.iter().find(|b| !b.is_ascii_whitespace());
        if self.form && host::in_force("forms-refused") && first.is_some_and(|b| *b != b'{' && *b != b'[') {
            return Err(Malformed::Form);
        }
        Ok(Request {
            operation: self.operation,
            path: self.path,
            query: self.query,
            token: self.token,
            body: Body::new(body),
            wrap_ttl: self.wrap_ttl,
            peer,
            certificates: None,
        })
    }
}

fn operation(
    method: &Method,
    path: &ApiPath,
    query: &mut Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<Operation, Malformed> {
    match *method {
        Method::GET => {
            let list = match query.iter().position(|(name, _)| name == "list") {
                None => false,
                Some(at) => go_bool(&query.remove(at).1).ok_or(Malformed::ListNotBool)?,
            };
            Ok(if list { Operation::List } else { Operation::Read })
        }
        Method::POST | Method::PUT => Ok(Operation::Write),
        Method::DELETE => Ok(Operation::Delete),
        Method::PATCH if content_type(headers) == Some("application/merge-patch+json") => Ok(Operation::Patch),
        Method::PATCH => Err(Malformed::PatchType),
        Method::HEAD if path.as_str() == "sys/health" => Ok(Operation::Read),
        _ if method.as_str() == "LIST" => Ok(Operation::List),
        _ => Err(Malformed::Method),
    }
}

/// `X-Vault-Token`, or else `Authorization: Bearer`; an empty one is none, another scheme is not ours.
pub(crate) fn token(headers: &HeaderMap) -> Result<Option<Token>, Malformed> {
    let presented = match single(headers, "x-vault-token")? {
        Some(value) => Some(value.to_str().map_err(|_| Malformed::Token)?),
        None => match single(headers, AUTHORIZATION.as_str())? {
            Some(value) => value
                .to_str()
                .map_err(|_| Malformed::Token)?
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim()),
            None => None,
        },
    };
    match presented {
        None | Some("") => Ok(None),
        Some(text) => Token::parse(text).map(Some).map_err(|_| Malformed::Token),
    }
}

/// The only namespace is the root; its other names are OpenBao's.
fn namespace(headers: &HeaderMap) -> Result<(), Malformed> {
    match single(headers, "x-vault-namespace")? {
        None => Ok(()),
        Some(value) => match value.as_bytes() {
            b"" | b"root" | b"/" | b"root/" => Ok(()),
            _ => Err(Malformed::Namespace),
        },
    }
}

fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Ttl>, Malformed> {
    let Some(value) = single(headers, "x-vault-wrap-ttl")? else { return Ok(None) };
    let text = value.to_str().map_err(|_| Malformed::WrapTtl)?;
    if text.is_empty() {
        return Ok(None);
    }
    Ttl::parse(text).map(|ttl| (!ttl.is_zero()).then_some(ttl)).map_err(|_| Malformed::WrapTtl)
}

/// A header that decides something stands once: of two, a proxy and we might each believe another.
fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h HeaderValue>, Malformed> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Malformed::Twice { name }) } else { Ok(first) }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// The words that Go's `strconv.ParseBool` takes, for Vault takes them.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A request that is refused before anybody asks who sent it. The texts hold nothing of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The address.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A method that the API has not, or not there.
    #[error("unsupported method")]
    Method,
    /// `list` is no boolean.
    #[error("the query parameter 'list' is not a boolean")]
    ListNotBool,
    /// A write to a folder.
    #[error("cannot write to a path ending in '/'")]
    WriteToFolder,
    /// PATCH of another type.
    #[error("PATCH takes Content-Type application/merge-patch+json")]
    PatchType,
    /// A compressed body.
    #[error("Content-Encoding is not supported: send the body as it is")]
    ContentEncoding,
    /// A token that no store can have made.
    #[error("the token is longer than 4096 characters, or has characters other than visible ASCII")]
    Token,
    /// A header stands twice.
    #[error("the header {name} stands twice")]
    Twice {
        /// Which one.
        name: &'static str,
    },
    /// A namespace other than the root.
    #[error("namespace not found")]
    Namespace,
    /// A wrapping time that is none.
    #[error("X-Vault-Wrap-TTL is not a duration; write seconds (3600) or units (1h)")]
    WrapTtl,
    /// A form.
    #[error("form bodies are not supported: send a JSON object")]
    Form,
    /// The body is larger than [`api::MAX_BODY_BYTES`].
    #[error("the body is larger than 1048576 bytes")]
    BodyTooLarge,
    /// The body ended early or broke its own framing.
    #[error("the body ended before its length")]
    BodyBroken,
    /// The body did not come within the time for a request.
    #[error("the body did not arrive in time")]
    BodyLate,
    /// Too many large bodies are being read at once.
    #[error("too many large bodies at once; try again")]
    Crowded,
}

impl Malformed {
    /// The status of the refusal.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Target(TargetError::Outside) | Self::Namespace => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::PatchType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyLate => StatusCode::REQUEST_TIMEOUT,
            Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The text for the caller; Vault has none for these two.
    pub(crate) fn told(self) -> Option<String> {
        match self {
            Self::Target(TargetError::Outside) | Self::Method => None,
            other => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Head, Malformed> {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Head::parse(&builder.body(()).unwrap().into_parts().0)
    }

    fn refusal(method: &str, uri: &str, headers: &[(&str, &str)]) -> Malformed {
        parse(method, uri, headers).unwrap_err()
    }

    #[test]
    fn verbs() {
        for (method, uri, operation, path) in [
            ("GET", "/v1/secret/a", Operation::Read, "secret/a"),
            ("GET", "/v1/secret/a?list=true", Operation::List, "secret/a/"),
            ("GET", "/v1/secret/a?list=f", Operation::Read, "secret/a"),
            ("LIST", "/v1/secret", Operation::List, "secret/"),
            ("POST", "/v1/secret/a", Operation::Write, "secret/a"),
            ("PUT", "/v1/secret/a", Operation::Write, "secret/a"),
            ("DELETE", "/v1/secret/a", Operation::Delete, "secret/a"),
            ("HEAD", "/v1/sys/health", Operation::Read, "sys/health"),
        ] {
            let head = parse(method, uri, &[]).unwrap();
            assert_eq!((head.operation(), head.path().as_str()), (operation, path), "{method} {uri}");
        }
        let patch = parse("PATCH", "/v1/a", &[("content-type", "application/merge-patch+json; charset=utf-8")]);
        assert_eq!(patch.unwrap().operation(), Operation::Patch);
    }

    #[test]
    fn refusals() {
        for (method, uri, headers, error) in [
            ("OPTIONS", "/v1/a", &[][..], Malformed::Method),
            ("CONNECT", "http://h/v1/a", &[], Malformed::Method),
            ("TRACE", "/v1/a", &[], Malformed::Method),
            ("HEAD", "/v1/secret/a", &[], Malformed::Method),
            ("get", "/v1/a", &[], Malformed::Method),
            ("GET", "/v1/a?list=maybe", &[], Malformed::ListNotBool),
            ("POST", "/v1/a/", &[], Malformed::WriteToFolder),
            ("PATCH", "/v1/a", &[("content-type", "application/json")], Malformed::PatchType),
            ("POST", "/v1/a", &[("content-encoding", "gzip")], Malformed::ContentEncoding),
            ("GET", "/v1/a", &[("x-vault-namespace", "team")], Malformed::Namespace),
            ("GET", "/v1/a", &[("x-vault-wrap-ttl", "soon")], Malformed::WrapTtl),
            ("GET", "/v1/a", &[("x-vault-token", "a b")], Malformed::Token),
            ("GET", "/v1/a", &[("x-vault-token", "\u{e9}")], Malformed::Token),
            ("GET", "/v1/a", &[("authorization", "Bearer a b")], Malformed::Token),
            (
                "GET",
                "/v1/a",
                &[("x-vault-token", "a"), ("x-vault-token", "b")],
                Malformed::Twice { name: "x-vault-token" },
            ),
            ("GET", "/v1/..%2fsys", &[], Malformed::Target(TargetError::Path(api::PathError::Relative))),
        ] {
            assert_eq!(refusal(method, uri, headers), error, "{method} {uri} {headers:?}");
        }
        assert_eq!(refusal("GET", "/v1/a", &[("x-vault-token", &"x".repeat(4097))]), Malformed::Token);
    }

    #[test]
    fn tokens() {
        let token =
            |headers: &[(&str, &str)]| parse("GET", "/v1/a", headers).unwrap().token.map(|t| t.expose().to_owned());
        assert_eq!(token(&[("x-vault-token", "s.abc")]).as_deref(), Some("s.abc"));
        assert_eq!(token(&[("authorization", "bearer  s.abc")]).as_deref(), Some("s.abc"));
        assert_eq!(token(&[("x-vault-token", "one"), ("authorization", "Bearer two")]).as_deref(), Some("one"));
        for none in [&[][..], &[("x-vault-token", "")], &[("authorization", "Basic YTpi")], &[("authorization", "x")]] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    #[test]
    fn forms_are_refused_and_json_under_a_forms_name_is_not() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = |text: &str| {
            let head = parse("POST", "/v1/a", &form).unwrap();
            head.with_body(Zeroizing::new(text.as_bytes().to_vec()), PeerAddress::Internal).map(|_| ())
        };
        assert_eq!(body("a=b"), Err(Malformed::Form));
        assert_eq!(body(" {\"a\":1}"), Ok(()));
        assert_eq!(body(""), Ok(()));
    }
}
