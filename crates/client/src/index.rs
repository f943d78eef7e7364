//! What was written is there when it is read: a cluster of OpenBao (2.5 and later) answers reads at every node, and one
//! that lags behind does not have yet what its caller has just written through it.
//!
//! Each answer tells how far the store had written. That goes back with the next request, and a node that is not as far
//! passes it on to the leader. A store that tells nothing is sent nothing.

use std::sync::{Mutex, PoisonError};

use api::ApiPath;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// How far the store had written when it answered last.
#[derive(Default)]
pub(crate) struct Index(Mutex<Option<HeaderValue>>);

impl Index {
    /// Notes what an answer says of it. The text is the store's own, and means nothing here.
    pub(crate) fn note(&self, answer: &HeaderMap) {
        let told = answer.get(INDEX).filter(|value| value.len() <= MAX_INDEX_BYTES);
        if let Some(told) = told {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.clone());
        }
    }

    /// Asks for an answer that is no older. What is asked about the node itself stays with that node.
    pub(crate) fn demand(&self, path: &ApiPath, request: &mut HeaderMap) {
        if OF_THE_NODE.contains(&path.as_str().trim_end_matches('/')) {
            return;
        }
        if let Some(seen) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            request.insert(INDEX, seen);
            request.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
    }
}

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
/// It passes these on like all others: the leader's health would be told as a standby's.
const OF_THE_NODE: [&str; 5] = ["sys/health", "sys/seal-status", "sys/leader", "sys/init", "sys/unseal"];
/// OpenBao's has some 90.
const MAX_INDEX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(index: &Index, path: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        index.demand(&ApiPath::parse(path).unwrap(), &mut headers);
        let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
        text(&INDEX).zip(text(&INCONSISTENT))
    }

    fn told(index: &Index, value: &str) {
        index.note(&HeaderMap::from_iter([(INDEX, HeaderValue::from_str(value).unwrap())]));
    }

    #[test]
    fn what_the_store_told_last_goes_back_to_it() {
        let index = Index::default();
        assert_eq!(sent(&index, "secret/a"), None, "a store that tells nothing is sent nothing");
        told(&index, "one");
        told(&index, "two");
        index.note(&HeaderMap::new());
        assert_eq!(sent(&index, "secret/a"), Some(("two".into(), "forward-active-node".into())));
    }

    #[test]
    fn what_is_asked_about_a_node_is_passed_on_to_no_other() {
        let index = Index::default();
        told(&index, "one");
        for path in OF_THE_NODE {
            assert_eq!(sent(&index, path), None, "{path}");
        }
        assert!(sent(&index, "sys/auth").is_some());
    }

    #[test]
    fn a_store_that_tells_too_much_is_told_nothing_back() {
        let index = Index::default();
        told(&index, &"x".repeat(MAX_INDEX_BYTES + 1));
        assert_eq!(sent(&index, "secret/a"), None);
    }
}
