//! A reply as every stage before the listener makes it.

use std::collections::BTreeMap;
use std::fmt;

use secret::{Accessor, Token};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::Ttl;

/// An HTTP status that we answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// 200.
    pub const OK: Self = Self(200);
    /// 204, without a body.
    pub const NO_CONTENT: Self = Self(204);
    /// 400.
    pub const BAD_REQUEST: Self = Self(400);
    /// 403.
    pub const FORBIDDEN: Self = Self(403);
    /// 404.
    pub const NOT_FOUND: Self = Self(404);
    /// 405.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 500.
    pub const INTERNAL: Self = Self(500);
    /// 501: not initialised.
    pub const NOT_INITIALIZED: Self = Self(501);
    /// 503: sealed, or too busy.
    pub const UNAVAILABLE: Self = Self(503);

    /// 200 to 299.
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }
}

/// What goes back: a status and a payload. Printing it shows the status alone.
pub struct Reply {
    /// The HTTP status.
    pub status: Status,
    /// The body.
    pub payload: Payload,
}

/// The four kinds of body.
pub enum Payload {
    /// None.
    Empty,
    /// The envelope of every logical reply.
    Logical(Box<Logical>),
    /// JSON without an envelope (health, seal-status, init, OIDC documents), or other text, as it is.
    Raw {
        /// `application/json` mostly.
        content_type: &'static str,
        /// The text.
        bytes: Zeroizing<Vec<u8>>,
    },
    /// `{"errors": [...]}`.
    Errors(Vec<String>),
}

/// The contents of the envelope `{request_id, lease_id, renewable, lease_duration, data, wrap_info, warnings, auth}`.
#[derive(Default)]
pub struct Logical {
    /// JSON text of `data`; `None` is `null`. Text, so that a secret passes as it was stored and is wiped here.
    pub data: Option<Zeroizing<Vec<u8>>>,
    /// Repeat the keys of `data` at top level, as `sys/mounts`, `sys/auth` and `sys/policy` do.
    pub data_at_top: bool,
    /// `lease_id`, empty for none.
    pub lease_id: String,
    /// `renewable` of the lease.
    pub renewable: bool,
    /// `lease_duration`.
    pub lease_duration: Ttl,
    /// `warnings`; empty is `null`.
    pub warnings: Vec<String>,
    /// `auth`, when the reply hands out a token.
    pub auth: Option<Auth>,
}

/// The `auth` block: a token and what it may do.
#[derive(Debug)]
pub struct Auth {
    /// The token itself.
    pub client_token: Token,
    /// Its accessor.
    pub accessor: Accessor,
    /// Token and identity policies together, sorted.
    pub policies: Vec<String>,
    /// Policies of the token, sorted.
    pub token_policies: Vec<String>,
    /// Policies of its entity, sorted; left out of the reply when empty.
    pub identity_policies: Vec<String>,
    /// Metadata; `None` is `null`.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds left.
    pub lease_duration: Ttl,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The entity, or empty.
    pub entity_id: String,
    /// `service`.
    pub token_type: &'static str,
    /// Whether it has no parent.
    pub orphan: bool,
    /// Uses left; zero is no limit.
    pub num_uses: u64,
}

impl Reply {
    /// 204.
    pub fn no_content() -> Self {
        Self { status: Status::NO_CONTENT, payload: Payload::Empty }
    }

    /// 200 with `data`.
    pub fn data(data: &Value) -> Self {
        Self::logical(Logical { data: Some(Zeroizing::new(data.to_string().into_bytes())), ..Logical::default() })
    }

    /// 200 with an envelope.
    pub fn logical(logical: Logical) -> Self {
        Self { status: Status::OK, payload: Payload::Logical(Box::new(logical)) }
    }

    /// JSON without an envelope.
    pub fn raw(status: Status, json: &Value) -> Self {
        let bytes = Zeroizing::new(json.to_string().into_bytes());
        Self { status, payload: Payload::Raw { content_type: "application/json", bytes } }
    }

    /// `{"errors": [text]}`.
    pub fn error(status: Status, text: impl Into<String>) -> Self {
        Self { status, payload: Payload::Errors(vec![text.into()]) }
    }

    /// 404 with no text, as for an absent object or an empty list.
    pub fn absent() -> Self {
        Self { status: Status::NOT_FOUND, payload: Payload::Errors(Vec::new()) }
    }

    /// JSON text of `data`, where there is an envelope with data.
    pub fn data_text(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Logical(l) => l.data.as_ref().map(|d| d.as_slice()),
            _ => None,
        }
    }

    /// The `auth` block, if there is one.
    pub fn auth(&self) -> Option<&Auth> {
        match &self.payload {
            Payload::Logical(l) => l.auth.as_ref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.status.0)
    }
}
