//! A request as HTTP.

use api::{Operation, Request};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use zeroize::Zeroizing;

/// What goes over the wire.
pub(crate) type Outgoing = http::Request<Full<Bytes>>;

/// Encodes a request for the server that calls itself `host`.
///
/// # Errors
/// Where a part of the request cannot be a header or an address; the text says which.
pub(crate) fn encode(request: &Request, host: &str) -> Result<Outgoing, &'static str> {
    let mut target = String::from("/v1/");
    // A list goes as GET, for proxies between us and a store may refuse LIST.
    escape(request.path.as_str().trim_end_matches('/'), true, &mut target);
    let list = (request.operation == Operation::List).then_some(("list", "true"));
    let pairs = list.into_iter().chain(request.query.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    for (i, (name, value)) in pairs.enumerate() {
        target.push(if i == 0 { '?' } else { '&' });
        escape(name, false, &mut target);
        target.push('=');
        escape(value, false, &mut target);
    }
    let (method, content_type) = match request.operation {
        Operation::Read | Operation::List => (Method::GET, None),
        Operation::Write => (Method::POST, Some("application/json")),
        Operation::Delete => (Method::DELETE, None),
        Operation::Patch => (Method::PATCH, Some("application/merge-patch+json")),
    };
    // The copy is wiped when hyper lets go of it.
    let body = Bytes::from_owner(Zeroizing::new(request.body.expose().to_vec()));
    let mut outgoing = http::Request::new(Full::new(body));
    *outgoing.method_mut() = method;
    *outgoing.uri_mut() = Uri::try_from(target).map_err(|_| "the path is too long for a request")?;
    let headers = outgoing.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| "the host is no header")?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // A listener may demand it, so that no other server can be talked into calling the store.
    headers.insert("x-vault-request", HeaderValue::from_static("true"));
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(token) = &request.token {
        let mut value = HeaderValue::from_str(token.expose()).map_err(|_| "the token is no header")?;
        value.set_sensitive(true);
        headers.insert("x-vault-token", value);
    }
    if let Some(ttl) = request.wrap_ttl {
        headers.insert("x-vault-wrap-ttl", HeaderValue::from(ttl.as_seconds()));
    }
    Ok(outgoing)
}

/// Percent-encodes all but RFC 3986's unreserved characters and, in a path, the slash.
fn escape(text: &str, path: bool, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') || (path && b == b'/') {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{ApiPath, Ttl};
    use secret::Token;

    use super::*;

    fn request(operation: Operation, path: &str) -> Request {
        Request::new(operation, ApiPath::parse(path).unwrap())
    }

    #[test]
    fn methods_paths_and_queries() {
        for (operation, path, method, uri) in [
            (Operation::Read, "secret/a b/c?d", "GET", "/v1/secret/a%20b/c%3Fd"),
            (Operation::List, "secret/caf\u{e9}", "GET", "/v1/secret/caf%C3%A9?list=true"),
            (Operation::Write, "sys/init", "POST", "/v1/sys/init"),
            (Operation::Delete, "secret/%2e%2e", "DELETE", "/v1/secret/%252e%252e"),
            (Operation::Patch, "kv/data/x", "PATCH", "/v1/kv/data/x"),
        ] {
            let out = encode(&request(operation, path), "h").unwrap();
            assert_eq!((out.method().as_str(), out.uri().to_string().as_str()), (method, uri));
        }
        let mut list = request(Operation::List, "a");
        list.query.push(("x&y".into(), "1=2".into()));
        assert_eq!(encode(&list, "h").unwrap().uri(), "/v1/a?list=true&x%26y=1%3D2");
    }

    #[test]
    fn the_token_is_a_header_that_is_not_printed() {
        let mut r = request(Operation::Read, "a").with_token(Token::parse("s.secret").unwrap());
        r.wrap_ttl = Some(Ttl::seconds(60));
        let out = encode(&r, "h").unwrap();
        assert_eq!(out.headers()["x-vault-token"], "s.secret");
        assert_eq!(out.headers()["x-vault-wrap-ttl"], "60");
        assert!(!format!("{:?}", out.headers()).contains("s.secret"));
    }
}
