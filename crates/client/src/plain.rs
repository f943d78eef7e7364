//! One plain HTTP/1.1 exchange with a server that is no store, for protocols that protect themselves (Tang's does).
//!
//! Nothing secret goes over it and nothing that comes back is believed as such: the caller's protocol decides. So the
//! server may be any machine, and all that is kept here are bounds: of time, of head and body, and no redirection is
//! followed.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::CallError;
use crate::address::split_port;

/// Where a plain HTTP server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
}

impl Origin {
    /// Parses `http://host` or `http://host:port`; a slash at its end is ignored, anything more is refused.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let authority = text.strip_prefix("http://").ok_or(OriginError::Scheme)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = split_port(authority, DEFAULT_PORT).ok_or(OriginError::Malformed)?;
        // RFC 1035, 2.3.4, with room for the brackets of an IPv6 address.
        if host.len() > MAX_HOST_BYTES { Err(OriginError::Malformed) } else { Ok(Self { host, port }) }
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == DEFAULT_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// Not the address of a plain HTTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Another scheme, or none.
    #[error("it does not begin with http://")]
    Scheme,
    /// A path, a user, a bad port, or characters that no host has.
    #[error("more, or something else, than host and port")]
    Malformed,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum HttpRequest<'a> {
    /// `GET`.
    Get {
        /// With its slash.
        path: &'a str,
    },
    /// `POST`.
    Post {
        /// With its slash.
        path: &'a str,
        /// Media type.
        content_type: &'static str,
        /// What is sent: public.
        body: &'a str,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body, within the bound that was asked for.
    pub body: Vec<u8>,
}

/// Makes one exchange on a connection of its own, within `limit`; reads at most `max_body` bytes of body.
///
/// # Errors
/// [`CallError`]: unreachable, timed out, or an answer that is not HTTP/1.1 or too large.
pub async fn exchange(
    origin: &Origin,
    request: HttpRequest<'_>,
    max_body: usize,
    limit: Duration,
) -> Result<HttpReply, CallError> {
    match timeout(limit, whole(origin, request, max_body)).await {
        Ok(result) => result,
        Err(_) => Err(CallError::TimedOut { address: origin.to_string(), seconds: limit.as_secs() }),
    }
}

async fn whole(origin: &Origin, request: HttpRequest<'_>, max_body: usize) -> Result<HttpReply, CallError> {
    let malformed = |reason: &str| CallError::Malformed { address: origin.to_string(), reason: reason.to_owned() };
    let unreachable = |cause| CallError::Unreachable { address: origin.to_string(), cause };
    let broken = |e: hyper::Error| {
        if e.is_parse() {
            return malformed("it is not HTTP/1.1");
        }
        unreachable(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, e.to_string()))
    };
    let outgoing = encode(request, &origin.authority()).map_err(malformed)?;
    let tcp = TcpStream::connect((origin.host.as_str(), origin.port)).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(tcp)).await.map_err(broken)?;
    // The connection is driven here and not in a task of its own: when the caller gives up, it is gone.
    let exchange = async {
        let response = sender.send_request(outgoing).await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(chunk) = frame.map_err(broken)?.into_data() else { continue };
            if chunk.len() > max_body - body.len() {
                return Err(malformed("it is larger than any answer should be"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpReply { status, body })
    };
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut open = true;
    poll_fn(|cx| {
        // The peer may close as soon as it has answered; what it said is read to its end all the same.
        open = open && connection.as_mut().poll(cx).is_pending();
        exchange.as_mut().poll(cx)
    })
    .await
}

fn encode(request: HttpRequest<'_>, authority: &str) -> Result<http::Request<Full<Bytes>>, &'static str> {
    let (method, path, content_type, body) = match request {
        HttpRequest::Get { path } => (Method::GET, path, None, ""),
        HttpRequest::Post { path, content_type, body } => (Method::POST, path, Some(content_type), body),
    };
    let mut outgoing = http::Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *outgoing.method_mut() = method;
    *outgoing.uri_mut() = Uri::try_from(path).map_err(|_| "the path is none")?;
    let headers = outgoing.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| "the host is no header")?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    Ok(outgoing)
}

const DEFAULT_PORT: u16 = 80;
/// The least that hyper takes, and twice what a head needs.
const MAX_HEAD_BYTES: usize = 8192;
const MAX_HOST_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn origins_that_people_write() {
        for (text, shown) in [
            ("http://tang.site", "http://tang.site"),
            ("http://tang.site/", "http://tang.site"),
            ("http://10.0.0.1:7500", "http://10.0.0.1:7500"),
            ("http://[fe80::1]:7500", "http://[fe80::1]:7500"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(Origin::parse("https://a"), Err(OriginError::Scheme));
        assert_eq!(Origin::parse("a:80"), Err(OriginError::Scheme));
        let long = format!("http://{}", "a".repeat(256));
        for text in ["http://", "http://a/adv", "http://u@a", "http://a:0", "http://a b", "http://a\r\nX: y", &long] {
            assert_eq!(Origin::parse(text), Err(OriginError::Malformed), "{text:?}");
        }
    }

    /// A server that reads one head and answers with these bytes.
    fn answering(bytes: &'static [u8]) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            // The client may have had enough before the end.
            let _ = stream.write_all(bytes);
        });
        origin
    }

    fn ask(origin: &Origin, limit: Duration) -> Result<HttpReply, CallError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(exchange(origin, HttpRequest::Get { path: "/adv" }, 16, limit))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn any_status_is_an_answer() {
        let origin = answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(ask(&origin, LONG).unwrap(), HttpReply { status: 404, body: b"no".to_vec() });
        let until_the_end = answering(b"HTTP/1.1 200 OK\r\n\r\n0123456789abcdef");
        assert_eq!(ask(&until_the_end, LONG).unwrap().body, b"0123456789abcdef");
        let elsewhere = answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(ask(&elsewhere, LONG).unwrap().status, 302);
    }

    #[test]
    fn hostile_answers_by_name() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n\r\n0123456789abcdefg"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n0123456789abcdef0123456789abcdef\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(matches!(ask(&answering(bytes), LONG), Err(CallError::Malformed { .. })), "{bytes:?}");
        }
        let cut = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123");
        assert!(matches!(ask(&cut, LONG), Err(CallError::Unreachable { .. })));
        static FLOOD: [u8; 100_000] = [b'a'; 100_000];
        assert!(matches!(ask(&answering(&FLOOD), LONG), Err(CallError::Malformed { .. })));
    }

    #[test]
    fn nobody_and_somebody_who_says_nothing() {
        // An address of its own: on the usual one another test may be given the port as soon as it is free.
        let closed = TcpListener::bind("127.77.1.1:0").unwrap();
        let origin = Origin::parse(&format!("http://{}", closed.local_addr().unwrap())).unwrap();
        // It accepts in the kernel, and never reads.
        let limit = Duration::from_millis(50);
        assert!(matches!(ask(&origin, limit), Err(CallError::TimedOut { .. })));
        drop(closed);
        assert!(matches!(ask(&origin, LONG), Err(CallError::Unreachable { .. })));
    }
}
