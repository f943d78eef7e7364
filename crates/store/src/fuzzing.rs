//! The parsers of bytes from disk, as fuzz targets call them: any bytes give a value or a refusal, and a value has one
//! form.

use host::Entropy;
use secret::{RootKey, Secret};

use crate::Version;
use crate::entry;
use crate::head::HeadRecord;
use crate::keyring::{Keyring, Keys};
use crate::names::{Kind, ROOT};

const STORE_ID: [u8; 16] = [7; 16];

struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, out: &mut [u8]) {
        out.fill(0);
    }
}

fn keys() -> Keys {
    Keyring::generate(&Zeros).keys(STORE_ID)
}

fn root() -> RootKey {
    RootKey::new(Secret::init_with(|_| {}))
}

/// A stored value: parsed, and never opened without authentication.
pub fn entry(bytes: &[u8]) {
    let keys = keys();
    let path = crate::StorePath::new(["fuzz"]).expect("a sound path");
    let name = keys.names().hide(&path).expect("not the root").entry;
    assert!(entry::open(&keys, &name, Version(1), bytes).is_err(), "bytes of a fuzzer are not authentic");
    let sealed = entry::seal(&keys, &Zeros, &name, Version(1), bytes.get(..1000).unwrap_or(bytes));
    assert!(entry::open(&keys, &name, Version(1), &sealed).is_ok());
}

/// A head: as a record, and its clear text behind the encryption.
pub fn head(bytes: &[u8]) {
    let keys = keys();
    assert_eq!(HeadRecord::open(&keys, bytes), None);
    if let Some(head) = HeadRecord::parse(bytes) {
        assert_eq!(HeadRecord::open(&keys, &head.seal(&keys, &Zeros)), Some(head));
        assert_eq!(head.clear(), bytes, "a head has one form");
    }
}

/// A keyring: as a record, and its clear text behind the encryption.
pub fn keyring(bytes: &[u8]) {
    assert!(Keyring::unwrap(bytes, &root(), &STORE_ID).is_err());
    if let Some(ring) = Keyring::parse(bytes) {
        let record = ring.wrap(&root(), &STORE_ID, &Zeros);
        assert!(Keyring::unwrap(&record, &root(), &STORE_ID).is_ok());
    }
}

/// A hidden name.
pub fn name(bytes: &[u8]) {
    let keys = keys();
    assert_eq!(keys.names().show(&ROOT, bytes, Kind::Entry), None);
    assert_eq!(keys.names().show(&ROOT, bytes, Kind::Dir), None);
}
