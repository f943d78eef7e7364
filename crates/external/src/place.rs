//! What the tests of this crate keep shares in: a directory, the shares of a store, and a hook's key material.

use std::path::PathBuf;

use host::{Disk, OsDisk};
use seal::Ikm;
use seal::edgex::{ClearShares, PlainSharesAllowed};
use secret::SecretBytes;
use testkit::SeededEntropy;

use crate::custody::{Custody, Keeping};
use crate::fake::clear_shares;

pub(crate) const FILE: &str = "resp-init.json";
/// Of the usual store, in hexadecimal; two of them open it.
pub(crate) const SHARES: [&str; 3] = ["aa01", "bb02", "cc03"];

/// Another for each first octet.
pub(crate) fn ikm(first: u8) -> Ikm {
    Ikm::new(SecretBytes::new((first..first + 32).collect()), None).unwrap()
}

pub(crate) fn hooked() -> Keeping {
    Keeping::Wrapped(ikm(1))
}

pub(crate) fn plain() -> Keeping {
    Keeping::Plain(PlainSharesAllowed::danger_plain_shares())
}

/// The user that runs the tests.
pub(crate) fn us() -> u32 {
    OsDisk.meta(testkit::scratch_dir().path()).unwrap().unwrap().owner.uid
}

pub(crate) fn hex_of(shares: &ClearShares) -> Vec<String> {
    shares.hex().map(|h| h.to_string()).collect()
}

/// A file of shares as EdgeX writes it without a hook.
pub(crate) fn plain_text(shares: &[&str]) -> String {
    serde_json::json!({ "keys": shares }).to_string()
}

pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) entropy: SeededEntropy,
    _scratch: tempfile::TempDir,
}

impl Place {
    /// Where nothing is yet.
    pub(crate) fn new() -> Self {
        let scratch = testkit::scratch_dir();
        let dir = scratch.path().join("assets");
        Self { dir, entropy: SeededEntropy::new(7), _scratch: scratch }
    }

    /// With a file as an older set-up would have left it.
    pub(crate) fn holding(text: &str) -> Self {
        let place = Self::empty();
        place.write(FILE, text.as_bytes());
        place
    }

    /// With the shares of the usual store, kept so.
    pub(crate) fn keeping(keeping: Keeping) -> Self {
        let place = Self::empty();
        place.custody(keeping).save(&clear_shares(&SHARES)).unwrap();
        place
    }

    fn empty() -> Self {
        let place = Self::new();
        OsDisk.create_dir(&place.dir, 0o700).unwrap();
        place
    }

    pub(crate) fn custody(&self, keeping: Keeping) -> Custody<'_> {
        Custody::new(&OsDisk, &self.entropy, &self.dir, FILE, us(), keeping)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        OsDisk.replace(&self.dir.join(name), bytes, 0o600, None).unwrap();
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(OsDisk.read(&self.dir.join(FILE), 65536).unwrap().to_vec()).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = OsDisk.list(&self.dir).unwrap();
        names.sort();
        names
    }
}
