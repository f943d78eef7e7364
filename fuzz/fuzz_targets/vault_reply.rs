//! The body of a reply of a Vault or OpenBao of somebody else's: any bytes give a reply or an error, and what was
//! understood is in bounds.
#![no_main]

use api::Payload;
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

fuzz_target!(|input: &[u8]| {
    let [status, body @ ..] = input else { return };
    let Ok(reply) = client::parse_reply(200 + u16::from(*status), Zeroizing::new(body.to_vec())) else { return };
    let text = client::text_of(&reply);
    assert!(text.is_none_or(|t| t.len() <= body.len()));
    if let Payload::Logical(logical) = &reply.payload
        && let Some(auth) = &logical.auth
    {
        assert!(!auth.client_token.expose().is_empty());
    }
});
