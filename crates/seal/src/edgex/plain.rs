//! Shares in clear on disk, as EdgeX writes them without a hook. Here somebody has to ask for it.

use serde::ser::{SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::share::ClearShares;

/// Says that shares may lie on disk in clear: whoever reads the file opens the store.
#[derive(Clone, Copy, Debug)]
pub struct PlainSharesAllowed(());

impl PlainSharesAllowed {
    /// For the configuration alone: there is no hook, and nobody required encryption.
    pub fn danger_plain_shares() -> Self {
        Self(())
    }
}

impl ClearShares {
    /// The file as EdgeX 4 writes it without a hook: one line, and a line feed. The root token is left out.
    pub fn plain_file(&self, _: PlainSharesAllowed) -> Zeroizing<Vec<u8>> {
        // The whole capacity at once: growth would leave copies behind.
        let longest = self.shares.iter().map(|s| s.len() * 4 + 16).sum::<usize>() + 64;
        let mut out = Zeroizing::new(Vec::with_capacity(longest));
        let mut json = serde_json::Serializer::new(&mut *out);
        let mut write = || {
            let mut map = json.serialize_map(None)?;
            map.serialize_entry("keys", &self.hex().map(Exposed).collect::<Vec<_>>())?;
            map.serialize_entry("keys_base64", &self.base64().map(Exposed).collect::<Vec<_>>())?;
            map.end()
        };
        write().expect("lists of strings can always be written to memory");
        out.push(b'\n');
        out
    }
}

/// A share's text on its way into the file; wiped after it.
struct Exposed(Zeroizing<String>);

impl serde::Serialize for Exposed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edgex::Shares;

    #[test]
    fn the_plain_file_reads_back_and_has_no_token() {
        let text = r#"{"keys":["aabbcc","ddeeff"],"keys_base64":["qrvM","3e7/"],"root_token":"s.example"}"#;
        let Shares::Clear(clear) = Shares::parse(text.as_bytes()).unwrap() else { panic!() };
        let file = clear.plain_file(PlainSharesAllowed::danger_plain_shares());
        assert_eq!(
            std::str::from_utf8(&file).unwrap(),
            "{\"keys\":[\"aabbcc\",\"ddeeff\"],\"keys_base64\":[\"qrvM\",\"3e7/\"]}\n"
        );
    }
}
