//! The one place where an answer becomes HTTP, whatever it came from: a recorded reply, a malformed request, a sealed
//! store.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::{Payload, Reply, Status};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body, Buf, Frame, SizeHint};
use zeroize::Zeroizing;

use crate::envelope::{self, RequestId};
use crate::head::Malformed;

/// What a [`Handler`](crate::Handler) gives back.
#[derive(Debug)]
pub struct Answer {
    /// Of the request, as the audit knows it.
    pub request_id: RequestId,
    /// The reply.
    pub reply: Reply,
}

/// The answer as HTTP. `tls` adds what is meant for browsers.
pub(crate) fn answer(answer: Answer, tls: bool) -> Response<ReplyBody> {
    let Answer { request_id, reply } = answer;
    let status = status(reply.status);
    match reply.payload {
        Payload::Empty => response(status, None, ReplyBody(None), tls),
        Payload::Logical(logical) => {
            response(status, Some(JSON), ReplyBody::new(envelope::write(&request_id, &logical)), tls)
        }
        Payload::Raw { content_type, bytes } => {
            response(status, Some(HeaderValue::from_static(content_type)), ReplyBody::new(bytes), tls)
        }
        Payload::Errors(texts) => errors(status, &texts, tls),
    }
}

/// The refusal of a request that nobody has been asked about.
pub(crate) fn malformed(fault: Malformed, tls: bool) -> Response<ReplyBody> {
    errors(fault.status(), fault.told().as_slice(), tls)
}

/// 503 for every logical path while there are no keys, before any token is looked at. Clients match this text.
pub(crate) fn sealed(tls: bool) -> Response<ReplyBody> {
    errors(StatusCode::SERVICE_UNAVAILABLE, &["Vault is sealed".to_owned()], tls)
}

/// 503: the answer did not come in time; the work goes on, and is recorded when it ends.
pub(crate) fn late(tls: bool) -> Response<ReplyBody> {
    let text = "the request takes too long; read again to learn whether it took effect".to_owned();
    errors(StatusCode::SERVICE_UNAVAILABLE, &[text], tls)
}

/// 500, where the work came to no end that we know.
pub(crate) fn broken(tls: bool) -> Response<ReplyBody> {
    errors(StatusCode::INTERNAL_SERVER_ERROR, &["internal error".to_owned()], tls)
}

/// `{"errors": [...]}`.
pub(crate) fn errors(status: StatusCode, texts: &[String], tls: bool) -> Response<ReplyBody> {
    #[derive(serde::Serialize)]
    struct Errors<'a> {
        errors: &'a [String],
    }
    let mut text = serde_json::to_vec(&Errors { errors: texts }).expect("a list of strings always serialises");
    text.push(b'\n');
    response(status, Some(JSON), ReplyBody::new(Zeroizing::new(text)), tls)
}

/// JSON without an envelope.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize, tls: bool) -> Response<ReplyBody> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            response(status, Some(JSON), ReplyBody::new(Zeroizing::new(text)), tls)
        }
        Err(_) => broken(tls),
    }
}

pub(crate) fn empty(status: StatusCode) -> Response<ReplyBody> {
    response(status, None, ReplyBody(None), false)
}

fn response(status: StatusCode, content_type: Option<HeaderValue>, body: ReplyBody, tls: bool) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(3 + usize::from(tls));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if tls {
        // Without includeSubDomains: a device may be reached as `localhost`, whose other ports are not ours.
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// A status that HTTP does not know is a defect of ours, and is told as one.
fn status(status: Status) -> StatusCode {
    StatusCode::from_u16(status.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A reply's bytes, wiped when they have been handed to the connection. hyper's own write buffer and the TLS layer copy
/// them on their way out; those copies are overwritten by later replies, not wiped.
#[derive(Debug, Default)]
pub(crate) struct ReplyBody(Option<Wiped>);

impl ReplyBody {
    fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self((!bytes.is_empty()).then_some(Wiped { bytes, sent: 0 }))
    }
}

impl Body for ReplyBody {
    type Data = Wiped;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Wiped>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.remaining() as u64))
    }
}

/// Bytes and how many of them are sent.
pub(crate) struct Wiped {
    bytes: Zeroizing<Vec<u8>>,
    sent: usize,
}

impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wiped({} bytes)", self.bytes.len())
    }
}

impl Buf for Wiped {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "hyper sends no more than there is");
        self.sent += count;
    }
}
