//! Both messages between edgekeep and ikm-pkcs11: any bytes are read or refused, and what is read is written the same
//! way.
#![no_main]

use ikm::{Reply, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(&request.to_bytes()[..], bytes);
    }
    if let Ok(reply) = Reply::parse(bytes) {
        let written = reply.to_bytes();
        assert_eq!(Reply::parse(&written).expect("what was read is a reply").to_bytes(), written);
    }
});
