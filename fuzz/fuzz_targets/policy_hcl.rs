//! The text of a policy, HCL 1 or JSON: any text is read or refused, and what is read decides about any path.
#![no_main]

use api::Body;
use libfuzzer_sys::fuzz_target;
use policy::{Action, Compiled, Identity, Policy, Query};

fuzz_target!(|input: (&str, &str)| {
    let (text, path) = input;
    let Ok(parsed) = Policy::parse("fuzzed", text) else { return };
    let compiled = Compiled::merge([&parsed], &Identity::default()).expect("a parsed policy is never root");
    assert!(!compiled.is_root());
    let capabilities = compiled.capabilities(path);
    let body = Body::new(text.as_bytes().to_vec().into());
    for action in [Action::Create, Action::Read, Action::Update, Action::Patch, Action::Delete, Action::List] {
        let query = Query { path, action, body: &body, query: &[], sudo_needed: false, wrap_ttl: None };
        if let Ok(granted) = compiled.decide(&query) {
            let word = granted.action().capability().as_str();
            // `capabilities` looks a path up as for a list; with a slash at its end another rule may decide the rest.
            assert!(path.ends_with('/') || capabilities.contains(&word), "{word} on {path:?}: {capabilities:?}");
            assert_eq!(granted.policies().next(), Some("fuzzed"));
        }
    }
});
