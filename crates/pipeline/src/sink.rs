//! Where the audit goes: the face of an audit device, and the records it gets. Never a value, never a token.

use api::Uuid;
use host::WallTime;

use crate::engine::BoxFuture;

/// An audit device. A record is accepted when the future is ready with `Ok`; otherwise the request is refused, for what
/// cannot be recorded does not happen.
pub trait AuditSink: Send + Sync {
    /// The request, before an engine that may change something sees it.
    ///
    /// # Errors
    /// [`AuditRefused`]: the engine is not called.
    fn announce<'a>(&'a self, request: &'a RequestRecord<'a>) -> BoxFuture<'a, Result<(), AuditRefused>>;

    /// The response to an announced request, before the caller gets it.
    ///
    /// # Errors
    /// [`AuditRefused`]: the caller gets 500 instead of the reply, though the change is made.
    fn conclude<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>>;

    /// Request and response in one, for what has no side effects and for what was refused before any.
    ///
    /// # Errors
    /// [`AuditRefused`]: the caller gets 500 instead of the reply.
    fn record<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>>;
}

/// The audit device did not take the record.
#[derive(Debug, thiserror::Error)]
#[error("the audit device refuses: {reason}")]
pub struct AuditRefused {
    /// For the log.
    pub reason: String,
}

/// The id of one request: a random UUID (RFC 9562, version 4), the same in the audit and in the reply's envelope.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_random(bytes))
    }

    /// The 36 characters.
    pub fn to_text(self) -> [u8; 36] {
        self.0.to_text()
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What is known of a request when it is recorded.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// Its id.
    pub id: RequestId,
    /// When it came, as the wall clock says.
    pub at: WallTime,
    /// `create`, `update`, `read`, `list`, `delete`, `patch`; `write` for a write that was refused before the store was
    /// asked.
    pub operation: &'static str,
    /// Below `/v1/`.
    pub path: &'a str,
    /// The mount's path and kind, where one is there.
    pub mount: Option<MountRecord<'a>>,
    /// Who asks.
    pub actor: ActorRecord<'a>,
    /// The policy rule that allowed it, as written in the policy; `None` for anonymous routes and refusals.
    pub rule: Option<&'a str>,
    /// Where from.
    pub peer: &'a api::PeerAddress,
    /// The certificate whose key the connection was opened with, whoever vouches for it.
    pub certificate: Option<&'a api::CertificateName>,
}

/// A mount in a record.
#[derive(Clone, Copy, Debug)]
pub struct MountRecord<'a> {
    /// `secret/`.
    pub path: &'a str,
    /// `kv`.
    pub kind: &'a str,
    /// `kv_7312e7eb`.
    pub accessor: &'a str,
}

/// Who asks. Codes are `hmac-sha256:` and 64 hexadecimal digits, computed once per cached token.
#[derive(Clone, Copy, Debug)]
pub enum ActorRecord<'a> {
    /// No token.
    Anonymous,
    /// A token that is not valid.
    Unknown {
        /// Its code.
        token_code: &'a str,
    },
    /// A valid token.
    Token {
        /// Its code.
        token_code: &'a str,
        /// The code of its accessor.
        accessor_code: &'a str,
        /// Its display name.
        display_name: &'a str,
        /// Its own policies.
        policies: &'a [String],
        /// Its entity, or empty.
        entity_id: &'a str,
    },
    /// The unattended start, within this process.
    Boot,
    /// Somebody at the admin socket.
    Local {
        /// `recovery-` and the public name of the recovery key that was used, or `admin`.
        name: &'a str,
    },
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct ResponseRecord<'a> {
    /// When, as the wall clock says.
    pub at: WallTime,
    /// The HTTP status.
    pub status: u16,
    /// Why it was refused, as the log may know it.
    pub error: Option<&'a str>,
    /// The token that the reply hands out.
    pub issued: Option<IssuedRecord>,
    /// The store's sequence number after the commit, if there was one.
    pub sequence: Option<u64>,
    /// Refused without a valid token: a stranger can cause any number of these, so they may be limited in rate and
    /// summed.
    pub stranger: bool,
}

/// A token that was handed out.
#[derive(Clone, Debug)]
pub struct IssuedRecord {
    /// Its code.
    pub token_code: String,
    /// The code of its accessor.
    pub accessor_code: String,
}

/// The device of `audit = "off"`: it takes everything and keeps nothing. Never the default.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn announce<'a>(&'a self, _: &'a RequestRecord<'a>) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn conclude<'a>(
        &'a self,
        _: &'a RequestRecord<'a>,
        _: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn record<'a>(
        &'a self,
        _: &'a RequestRecord<'a>,
        _: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        let id = RequestId::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(RequestId::from_random([0; 16]).to_string(), "00000000-0000-4000-8000-000000000000");
    }
}
