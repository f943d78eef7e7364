//! What a database, or whoever holds its port, answers to a gate: judged from the first bytes that decide, and for
//! good. And the addresses that a gate may be told to ask.
#![no_main]

use boot::gate::{Verdict, postgres_verdict, redis_verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for judge in [postgres_verdict, redis_verdict] as [fn(&[u8]) -> Option<Verdict>; 2] {
        let first = (0..=bytes.len().min(256)).find_map(|n| judge(&bytes[..n]).map(|v| v.is_ok()));
        if first.is_some() {
            assert_eq!(judge(bytes).map(|v| v.is_ok()), first);
        }
    }
    if let Some(url) = std::str::from_utf8(bytes).ok().and_then(|text| client::WebUrl::parse(text).ok()) {
        assert_eq!(client::WebUrl::parse(&url.to_string()).as_ref(), Ok(&url));
    }
});
