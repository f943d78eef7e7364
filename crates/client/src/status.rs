//! The status of a web address, and nothing else of its answer: whether somebody is there and well.

use std::io;
use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Address, Trust, TrustError};

/// `http://host:port/path` or `https://...`, without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    tls: bool,
    host: String,
    port: u16,
    /// As in the `Host` field (RFC 9110, 7.2).
    authority: String,
    target: String,
}

impl WebUrl {
    /// Parses an address of visible ASCII.
    ///
    /// # Errors
    /// [`WebUrlError`].
    pub fn parse(text: &str) -> Result<Self, WebUrlError> {
        let bad = |problem| WebUrlError { url: text.chars().take(256).collect(), problem };
        if text.len() > MAX_URL_BYTES
            || !text.bytes().all(|b| b.is_ascii_graphic())
            || text.contains(['#', '"', '<', '>'])
        {
            return Err(bad("it is too long or holds characters that no address has"));
        }
        let (scheme, rest) = text.split_once("://").ok_or(bad("it has no scheme"))?;
        let (tls, usual) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(bad("its scheme is neither http nor https")),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(']').map_or(authority, |(_, after)| after).contains(':');
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{usual}") };
        let (host, port) = match Address::parse(&format!("https://{authority}")) {
            Ok(Address::Https { host, port }) => (host, port),
            _ => return Err(bad("host or port is malformed")),
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { tls, host, port, authority, target })
    }

    /// Whether the server has to show a certificate.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Asks once, with GET, and gives the status. A redirect is a status like any other: it would lead to who knows
    /// where. The caller sets a deadline.
    ///
    /// # Errors
    /// [`StatusError`]; over TLS also if the server does not show that `trust` trusts it.
    pub async fn status(&self, trust: Option<&Trust>) -> Result<u16, StatusError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        if !self.tls {
            return self.ask(tcp).await;
        }
        let trust = trust.ok_or(StatusError::NoTrust)?;
        let connector = TlsConnector::from(Arc::new(trust.client_config()?));
        self.ask(connector.connect(trust.name_for(&self.host)?, tcp).await?).await
    }

    async fn ask<S>(&self, stream: S) -> Result<u16, StatusError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = http::Request::get(&self.target)
            .header(http::header::HOST, &self.authority)
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|_| StatusError::Malformed)?;
        let asked = sender.send_request(request);
        // Whichever ends first; the connection with its socket is dropped with this future, whatever the peer still
        // sends.
        tokio::pin!(asked, connection);
        let response = tokio::select! {
            biased;
            response = &mut asked => response?,
            ended = &mut connection => {
                ended?;
                asked.await?
            }
        };
        Ok(response.status().as_u16())
    }
}

impl std::fmt::Display for WebUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http{}://{}{}", if self.tls { "s" } else { "" }, self.authority, self.target)
    }
}

/// Not a web address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no web address: {problem}")]
pub struct WebUrlError {
    /// What was written, at most 256 characters.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// No status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No connection, or a server that does not show the certificate that is trusted.
    #[error("no connection")]
    Io(#[from] io::Error),
    /// An answer that is no HTTP/1.1.
    #[error("no answer in HTTP")]
    Http(#[from] hyper::Error),
    /// Nobody said which authorities are trusted.
    #[error("nobody is trusted for https")]
    NoTrust,
    /// The trust does not fit.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A target that HTTP cannot carry.
    #[error("the address cannot be asked for")]
    Malformed,
}

/// Longer than any address of a health check.
const MAX_URL_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, shown) in [
            ("http://a", "http://a:80/"),
            ("https://a.b:8443/x?y=1", "https://a.b:8443/x?y=1"),
            ("https://[::1]/v1", "https://[::1]:443/v1"),
            ("http://[::1]:8?x", "http://[::1]:8/?x"),
        ] {
            assert_eq!(WebUrl::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http:///x",
            "http://u@a/",
            "http://a/\r\nX: y",
            "http://a b",
            "http://a/#x",
            "http://a:0",
            "https://a:x/",
        ] {
            assert!(WebUrl::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_status_alone_is_read_and_no_redirect_is_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = WebUrl::parse(&format!("http://{}/health?x=1", listener.local_addr().unwrap())).unwrap();
        let replies = [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 9999999\r\n\r\n",
            "SSH-2.0-x\r\n",
        ];
        tokio::spawn(async move {
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let n = stream.read(&mut request).await.unwrap();
                assert!(request[..n].starts_with(b"GET /health?x=1 HTTP/1.1\r\n"));
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(url.status(None).await.unwrap(), 200);
        assert_eq!(url.status(None).await.unwrap(), 302);
        assert!(matches!(url.status(None).await, Err(StatusError::Http(_))));
    }

    #[tokio::test]
    async fn https_without_anybody_to_trust_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = WebUrl::parse(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
        assert!(matches!(url.status(None).await, Err(StatusError::NoTrust)));
    }
}
