//! A record as one line of JSON, in Vault's field names.
//!
//! Vault writes every string of a body as an HMAC. We leave bodies out altogether: a code of a short secret can be
//! guessed by whoever has the device, and no question that an audit answers needs it. Tokens and accessors stand as
//! codes.

use host::WallTime;
use serde::Serialize;

use super::flood::{Sum, SumOf};
use super::frame::MAX_BODY_BYTES;
use super::limit::Counted;
use crate::sink::{ActorRecord, RequestRecord, ResponseRecord};

/// The line of a request.
pub(crate) fn request(out: &mut Vec<u8>, request: &RequestRecord<'_>) {
    write(out, &Line { kind: "request", at: request.at, request, response: None });
}

/// The line of a response, with its request.
pub(crate) fn response(out: &mut Vec<u8>, request: &RequestRecord<'_>, response: &ResponseRecord<'_>) {
    write(out, &Line { kind: "response", at: response.at, request, response: Some(response) });
}

/// The line of requests that were counted.
pub(crate) fn counted(out: &mut Vec<u8>, at: WallTime, sum: &Sum) {
    #[derive(Serialize)]
    struct Line<'a> {
        time: &'a str,
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        auth: Option<Auth<'a>>,
        count: u64,
        first: &'a str,
        last: &'a str,
        error: &'static str,
    }
    let refusals = ("refusals", "requests that a token may not make, counted instead of written");
    let ((r#type, error), auth) = match &sum.of {
        SumOf::Strangers => (("strangers", "requests without a valid token, counted instead of written"), None),
        SumOf::Tokens => (refusals, None),
        SumOf::Token { token_code, accessor_code } => {
            let of = Auth { client_token: Some(token_code), accessor: Some(accessor_code), ..Auth::default() };
            (refusals, Some(of))
        }
    };
    let Counted { count, first, last, .. } = sum.counted;
    let (time, first, last) = (&*at.to_rfc3339(), &*first.to_rfc3339(), &*last.to_rfc3339());
    write(out, &Line { time, r#type, auth, count, first, last, error });
}

fn write(out: &mut Vec<u8>, line: &impl Serialize) {
    // Into memory, and the types have string keys only: neither of the two ways to fail exists.
    serde_json::to_writer(out, line).expect("a line of strings and numbers serialises");
}

#[derive(Serialize)]
struct Shape<'a> {
    time: String,
    r#type: &'static str,
    auth: Auth<'a>,
    request: Request<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Default, Serialize)]
struct Auth<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accessor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policies: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    policies_left_out: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_results: Option<PolicyResults<'a>>,
}

#[derive(Serialize)]
struct PolicyResults<'a> {
    allowed: bool,
    granting_rule: &'a str,
}

#[derive(Serialize)]
struct Request<'a> {
    id: &'a str,
    operation: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_accessor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_common_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_serial_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_sha256: Option<&'a str>,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Issued<'a>>,
}

#[derive(Serialize)]
struct Issued<'a> {
    client_token: &'a str,
    accessor: &'a str,
}

/// A request or response; becomes its [`Shape`] while it is written.
struct Line<'a> {
    kind: &'static str,
    at: WallTime,
    request: &'a RequestRecord<'a>,
    response: Option<&'a ResponseRecord<'a>>,
}

impl Serialize for Line<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (request, response) = (self.request, self.response);
        let id = request.id.to_text();
        let (ip, uid) = match request.peer {
            api::PeerAddress::Tcp(address) => (Some(address), None),
            api::PeerAddress::Unix { uid, pid } => (None, Some((*uid, *pid))),
            api::PeerAddress::Internal => (None, None),
        };
        let mut auth = auth(&request.actor);
        auth.policy_results = request.rule.map(|rule| PolicyResults { allowed: true, granting_rule: cut(rule) });
        Shape {
            time: self.at.to_rfc3339(),
            r#type: self.kind,
            auth,
            request: Request {
                id: std::str::from_utf8(&id).unwrap_or_default(),
                operation: request.operation,
                path: cut(request.path),
                mount_point: request.mount.map(|m| cut(m.path)),
                mount_type: request.mount.map(|m| m.kind),
                mount_accessor: request.mount.map(|m| m.accessor),
                remote_address: ip.map(|a| a.ip()),
                remote_port: ip.map(|a| a.port()),
                remote_uid: uid.map(|u| u.0),
                remote_pid: uid.map(|u| u.1),
                client_certificate_common_name: request.certificate.map(|c| printable(&c.common_name)),
                client_certificate_serial_number: request
                    .certificate
                    .map(|c| cut_to(&c.serial_number, MOST_NAME_BYTES)),
                client_certificate_sha256: request.certificate.map(|c| cut_to(&c.sha256, MOST_NAME_BYTES)),
            },
            response: response.map(|r| Response {
                status: r.status,
                store_sequence: r.sequence,
                auth: r.issued.as_ref().map(|i| Issued { client_token: &i.token_code, accessor: &i.accessor_code }),
            }),
            error: response.and_then(|r| r.error).map(cut),
        }
        .serialize(serializer)
    }
}

fn auth<'a>(actor: &ActorRecord<'a>) -> Auth<'a> {
    match *actor {
        ActorRecord::Anonymous => Auth::default(),
        ActorRecord::Unknown { token_code } => Auth { client_token: Some(token_code), ..Auth::default() },
        ActorRecord::Token { token_code, accessor_code, display_name, policies, entity_id } => {
            let mut room = MOST_POLICY_BYTES;
            let kept = policies
                .iter()
                .take_while(|p| {
                    let bytes = p.len() * WORST_ESCAPE + 3;
                    let fits = bytes <= room;
                    room = room.saturating_sub(bytes);
                    fits
                })
                .count();
            Auth {
                client_token: Some(token_code),
                accessor: Some(accessor_code),
                display_name: Some(cut(display_name)),
                policies: &policies[..kept],
                policies_left_out: policies.len() - kept,
                entity_id: Some(entity_id).filter(|e| !e.is_empty()),
                token_type: Some("service"),
                policy_results: None,
            }
        }
        ActorRecord::Boot => Auth { display_name: Some("boot"), token_type: Some("internal"), ..Auth::default() },
        ActorRecord::Local { name } => {
            Auth { display_name: Some(cut(name)), token_type: Some("internal"), ..Auth::default() }
        }
    }
}

/// The beginning of a text that somebody else chose: at most 1024 bytes of it.
fn cut(text: &str) -> &str {
    cut_to(text, MOST_TEXT_BYTES)
}

fn cut_to(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The name in a certificate that nobody has vouched for: a stranger may put anything there.
fn printable(name: &str) -> String {
    cut_to(name, MOST_NAME_BYTES).replace(char::is_control, "?")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over by reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Of any one text that a caller or an operator chose (`api::MAX_PATH_BYTES` is as long).
const MOST_TEXT_BYTES: usize = 1024;
/// Of each of the words that name a certificate: a common name has at most 64 characters (RFC 5280, appendix A.1).
const MOST_NAME_BYTES: usize = 128;
/// Of the policies' names together.
const MOST_POLICY_BYTES: usize = 4 * 1024;
/// A control character becomes `\u0000`. Paths have none, quotes and backslashes double.
const WORST_ESCAPE: usize = 2;
// Path, mount, display name, rule and error, and what names a certificate, doubled by escapes; policies; the rest is of
// fixed size.
const _: () =
    assert!(WORST_ESCAPE * (5 * MOST_TEXT_BYTES + 3 * MOST_NAME_BYTES) + MOST_POLICY_BYTES + 1024 <= MAX_BODY_BYTES);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sink::{IssuedRecord, MountRecord, RequestId};
    use api::CertificateName;

    pub(crate) const CODE_A: &str = "hmac-sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    pub(crate) const CODE_B: &str = "hmac-sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    const AT: WallTime = WallTime(1_795_316_206_635_386_107);

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap() + "\n"
    }

    /// Every kind of line, against `tests/golden/audit.jsonl`. `EDGEKEEP_BLESS=1` writes the file anew.
    #[test]
    fn golden_lines() {
        let policies = ["default".to_owned(), "edgex-service-core-data".to_owned()];
        let tcp = api::PeerAddress::Tcp("127.0.0.1:40000".parse().unwrap());
        let unix = api::PeerAddress::Unix { uid: 2002, pid: 17 };
        let read = RequestRecord {
            id: RequestId::from_random([7; 16]),
            at: AT,
            operation: "read",
            path: "secret/edgex/core-data/redisdb",
            mount: Some(MountRecord { path: "secret/", kind: "kv", accessor: "kv_7312e7eb" }),
            actor: ActorRecord::Token {
                token_code: CODE_A,
                accessor_code: CODE_B,
                display_name: "userpass-core-data",
                policies: &policies,
                entity_id: "b7fa86cc-562b-aaf0-037b-4b45319add69",
            },
            rule: Some("secret/edgex/core-data/*"),
            peer: &tcp,
            certificate: None,
        };
        let ok = ResponseRecord { at: AT, status: 200, error: None, issued: None, sequence: None, stranger: false };
        let write = RequestRecord { operation: "create", peer: &unix, ..read.clone() };
        let refused = RequestRecord {
            operation: "write",
            path: "secret/\"quoted\"",
            mount: None,
            actor: ActorRecord::Unknown { token_code: CODE_A },
            rule: None,
            ..read.clone()
        };
        let denial = ResponseRecord { status: 403, error: Some("no such token"), stranger: true, ..ok.clone() };
        let login = RequestRecord {
            operation: "update",
            path: "auth/userpass/login/core-data",
            mount: Some(MountRecord { path: "auth/userpass/", kind: "userpass", accessor: "auth_userpass_26d8b498" }),
            actor: ActorRecord::Anonymous,
            rule: None,
            ..read.clone()
        };
        let issued = IssuedRecord { token_code: CODE_A.into(), accessor_code: CODE_B.into() };
        let logged_in = ResponseRecord { issued: Some(issued), sequence: Some(41), ..ok.clone() };
        let boot =
            RequestRecord { actor: ActorRecord::Boot, peer: &api::PeerAddress::Internal, rule: None, ..write.clone() };
        let shown = CertificateName {
            common_name: "device-07".into(),
            serial_number: "403270167673544563408561353332365855293673838196".into(),
            sha256: "ab".repeat(32),
        };
        let by_certificate = RequestRecord {
            path: "auth/cert/login",
            mount: Some(MountRecord { path: "auth/cert/", kind: "cert", accessor: "auth_cert_e56cbc4d" }),
            certificate: Some(&shown),
            ..login.clone()
        };
        let sum = match crate::audit::limit::tests::a_sum(12, AT) {
            Some(sum) => sum,
            None => panic!("what is beyond the burst are counted"),
        };
        let of_a_token = SumOf::Token { token_code: CODE_A.into(), accessor_code: CODE_B.into() };
        let lines = [
            text(|o| request(o, &read)),
            text(|o| response(o, &read, &ok)),
            text(|o| request(o, &write)),
            text(|o| response(o, &write, &ResponseRecord { status: 204, sequence: Some(40), ..ok.clone() })),
            text(|o| response(o, &refused, &denial)),
            text(|o| response(o, &login, &logged_in)),
            text(|o| response(o, &by_certificate, &logged_in)),
            text(|o| request(o, &boot)),
            text(|o| counted(o, AT, &Sum { counted: sum, of: SumOf::Strangers })),
            text(|o| counted(o, AT, &Sum { counted: sum, of: of_a_token })),
            text(|o| counted(o, AT, &Sum { counted: sum, of: SumOf::Tokens })),
        ]
        .concat();
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit.jsonl");
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            host::Disk::replace(&host::OsDisk, &golden, lines.as_bytes(), 0o644, None).unwrap();
        }
        assert_eq!(lines, std::fs::read_to_string(&golden).unwrap());
    }

    #[test]
    fn no_record_outgrows_its_frame() {
        let long = "\"".repeat(4096);
        let policies: Vec<String> = (0..500).map(|i| format!("{i}-{}", "\\".repeat(100))).collect();
        let name = CertificateName { common_name: long.clone(), serial_number: long.clone(), sha256: long.clone() };
        let record = RequestRecord {
            id: RequestId::from_random([7; 16]),
            at: AT,
            operation: "update",
            path: &long,
            mount: Some(MountRecord { path: &long, kind: "kv", accessor: "kv_7312e7eb" }),
            actor: ActorRecord::Token {
                token_code: CODE_A,
                accessor_code: CODE_B,
                display_name: &long,
                policies: &policies,
                entity_id: "b7fa86cc-562b-aaf0-037b-4b45319add69",
            },
            rule: Some(&long),
            peer: &api::PeerAddress::Internal,
            certificate: Some(&name),
        };
        let end =
            ResponseRecord { at: AT, status: 500, error: Some(&long), issued: None, sequence: None, stranger: false };
        let line = text(|o| response(o, &record, &end));
        assert!(line.len() <= MAX_BODY_BYTES + 1, "{}", line.len());
        let left_out = serde_json::from_str::<serde_json::Value>(&line).unwrap()["auth"]["policies_left_out"].as_u64();
        assert!(left_out.unwrap() > 400);
    }
}
