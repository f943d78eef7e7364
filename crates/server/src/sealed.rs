//! What the listeners answer while there are no keys: health and seal-status, and nothing else.

use api::Operation;
use host::Clock;
use http::{Response, StatusCode};
use serde_json::json;

use crate::head::Head;
use crate::reply::{self, ReplyBody};

/// A store without its keys, as far as strangers may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Whether there is a store.
    pub initialized: bool,
    /// `type` in seal-status: `slots` or `shamir`.
    pub seal_type: &'static str,
    /// Whether the store unseals itself and shares are for recovery.
    pub recovery_seal: bool,
    /// The version to show, as in the unsealed health.
    pub version: &'static str,
}

pub(crate) fn answer(sealed: &Sealed, head: &Head, clock: &dyn Clock, tls: bool) -> Response<ReplyBody> {
    match (head.operation(), head.path().as_str()) {
        (Operation::Read, "sys/health") => health(sealed, head, clock, tls),
        (Operation::Read, "sys/seal-status") => reply::json(StatusCode::OK, &seal_status(sealed), tls),
        _ => reply::sealed(tls),
    }
}

/// 501 without a store, 503 with one, unless the query asks for other codes (`uninitcode`, `sealedcode`).
fn health(sealed: &Sealed, head: &Head, clock: &dyn Clock, tls: bool) -> Response<ReplyBody> {
    let (parameter, usual) = if sealed.initialized { ("sealedcode", 503) } else { ("uninitcode", 501) };
    let code = match head.query(parameter) {
        None => Some(usual),
        Some(text) => text.parse::<u16>().ok().filter(|c| (200..600).contains(c)),
    };
    let Some(status) = code.and_then(|c| StatusCode::from_u16(c).ok()) else {
        let text = format!("the query parameter '{parameter}' is not a status from 200 to 599");
        return reply::errors(StatusCode::BAD_REQUEST, &[text], tls);
    };
    let body = json!({
        "initialized": sealed.initialized,
        "sealed": true,
        "standby": true,
        "performance_standby": false,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": clock.wall().unix_seconds(),
        "version": sealed.version,
        "enterprise": false,
    });
    reply::json(status, &body, tls)
}

fn seal_status(sealed: &Sealed) -> serde_json::Value {
    json!({
        "type": sealed.seal_type,
        "initialized": sealed.initialized,
        "sealed": true,
        "t": 0,
        "n": 0,
        "progress": 0,
        "nonce": "",
        "version": sealed.version,
        "build_date": "",
        "migration": false,
        "recovery_seal": sealed.recovery_seal,
        "storage_type": "sqlite",
    })
}
