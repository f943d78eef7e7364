//! No cut can have a key in clear on its disk that was never written there: all bytes of all writes are searched.

use std::collections::HashSet;

use super::model::Story;
use crate::driver::{Running, kept_keks};

/// Bytes of a secret that must not be found: fewer could be chance, more could miss a part at a page's end.
const WINDOW: usize = 16;

/// Secrets to look for.
#[derive(Default)]
pub(super) struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Adds what a running device holds: its keys, and what its services were given.
    pub(super) async fn learn(&mut self, story: &Story, running: &Running) {
        let mut add = |what: &str, bytes: &[u8]| self.0.push((what.to_owned(), bytes.to_vec()));
        add("root key", story.unlocked().await.unwrap().root.expose());
        add("CA key", running.ca().unwrap().key().expose_pkcs8());
        add("server key", running.server_certificate().unwrap().key().expose_pkcs8());
        for service in ["sensor", "uploader"] {
            add("token", story.token(service).expose().as_bytes());
        }
        let store = running.store().unwrap();
        for slot in store.list(&kept_keks::dir()).await.unwrap() {
            let kek = store.get(&kept_keks::path(slot.parse().unwrap())).await.unwrap().unwrap();
            add("KEK", kek.value.expose());
        }
    }

    /// Looks for each, as it is, in hexadecimal and in base64, in all that was ever written below the data directory.
    /// The key file of the software source is a key in clear: that is what it is.
    pub(super) fn assert_never_written(&self, story: &Story) {
        let mut windows = HashSet::new();
        for (_, secret) in &self.0 {
            for form in forms(secret) {
                windows.extend(form.windows(WINDOW).map(word));
            }
        }
        let (mut kept, mut handed_out) = (0, 0);
        for (path, bytes) in story.disk.written() {
            let found = bytes.windows(WINDOW).find(|w| windows.contains(&word(w)));
            if path.starts_with("run") {
                handed_out += usize::from(found.is_some());
            } else if !path.to_string_lossy().contains("software.key") {
                kept += bytes.len();
                let whose = |w: &[u8]| self.0.iter().find(|(_, s)| forms(s).iter().any(|f| contains(f, w)));
                let what = found.and_then(whose).map(|(what, _)| what);
                assert_eq!(what, None, "in clear in {}", path.display());
            }
        }
        assert!(kept > 100_000, "only {kept} bytes were searched");
        assert!(handed_out >= 2, "the search finds what is there: the tokens, in their files");
    }
}

fn contains(form: &[u8], window: &[u8]) -> bool {
    form.windows(WINDOW).any(|w| w == window)
}

fn word(window: &[u8]) -> u128 {
    u128::from_be_bytes(window.try_into().expect("a window has 16 bytes"))
}

fn forms(secret: &[u8]) -> [Vec<u8>; 3] {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    [secret.to_vec(), hex::encode(secret).into_bytes(), base64.into_bytes()]
}
