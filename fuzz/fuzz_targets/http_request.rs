//! Method, target, headers and body of a request: any bytes give a request that is safe to route, or a refusal with a
//! status that tells the sender off. Lines: method, target, headers `name: value`, an empty line, the body.
#![no_main]

use api::{MAX_PATH_BYTES, PeerAddress};
use http::Request;
use libfuzzer_sys::fuzz_target;
use server::Head;

fuzz_target!(|bytes: &[u8]| {
    let split = bytes.windows(2).position(|w| w == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = (&bytes[..split], bytes.get(split + 2..).unwrap_or_default());
    let mut lines = head.split(|b| *b == b'\n');
    let (method, target) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut builder = Request::builder().method(method).uri(target);
    for line in lines {
        if let Some(colon) = line.iter().position(|b| *b == b':') {
            builder = builder.header(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    // What the http crate refuses, hyper has refused before us.
    let Ok(request) = builder.body(()) else { return };
    match Head::parse(&request.into_parts().0) {
        Err(fault) => assert!(fault.status().is_client_error()),
        Ok(head) => {
            if let Ok(request) = head.with_body(body.to_vec().into(), PeerAddress::Internal) {
                let path = request.path.as_str();
                assert!(path.len() <= MAX_PATH_BYTES + 1 && !path.starts_with('/') && !path.contains("//"));
                assert!(!path.chars().any(char::is_control));
                assert!(path.split('/').all(|s| s != "." && s != ".."));
                assert!(!request.query.iter().any(|(n, v)| n.chars().chain(v.chars()).any(char::is_control)));
            }
        }
    }
});
