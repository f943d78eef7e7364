//! A request as every stage after the listener sees it: no HTTP, no headers.

use std::sync::Arc;

use secret::Token;

use crate::{ApiPath, Body, Operation, PeerCertificates, Ttl};

/// Where a request came from, for the audit and for bound addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A Unix socket, with the credentials that the kernel vouches for.
    Unix {
        /// The peer's user id.
        uid: u32,
        /// The peer's process id.
        pid: u32,
    },
    /// Within the process (`boot`).
    Internal,
}

/// One call of the API.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Where, below `/v1/`. For [`Operation::List`] it ends in a slash.
    pub path: ApiPath,
    /// Query parameters, decoded, in order (`version`, `standbyok` ...).
    pub query: Vec<(String, String)>,
    /// The token that was presented, if any.
    pub token: Option<Token>,
    /// The JSON body, if any.
    pub body: Body,
    /// `X-Vault-Wrap-TTL`, if any.
    pub wrap_ttl: Option<Ttl>,
    /// Who is at the other end.
    pub peer: PeerAddress,
    /// What the connection's TLS handshake proved of it, if it was asked and showed something.
    pub certificates: Option<Arc<PeerCertificates>>,
}

impl Request {
    /// A request without token, body or query, from within the process.
    pub fn new(operation: Operation, path: ApiPath) -> Self {
        let path = if operation == Operation::List { path.into_folder() } else { path };
        Self {
            operation,
            path,
            query: Vec::new(),
            token: None,
            body: Body::empty(),
            wrap_ttl: None,
            peer: PeerAddress::Internal,
            certificates: None,
        }
    }

    /// The same with a body.
    #[must_use]
    pub fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}
