//! The formats against bytes that another implementation computed from docs/formats.md (tests/golden/store/vectors.py),
//! and the table of labels against that document.

use host::{BootId, BootTime, Entropy};
use secret::{RootKey, Secret};

use crate::backend::NameRow;
use crate::entry;
use crate::head::{BootEpoch, Head, HeadRecord, Profile, SlotSet};
use crate::keyring::{Keyring, Keys};
use crate::labels;
use crate::root::Root;
use crate::time::TimeRecord;
use crate::{StorePath, StoreTime, Version};

const STORE_ID: [u8; 16] = [7; 16];

/// Nonces of one repeated byte.
struct Same(u8);

impl Entropy for Same {
    fn fill(&self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

fn golden(name: &str) -> Vec<u8> {
    let file = include_str!("../../../tests/golden/store/store.v1.txt");
    let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

fn root_key() -> RootKey {
    RootKey::new(Secret::init_with(|b| b.fill(1)))
}

fn keys() -> Keys {
    Keyring::unwrap(&golden("keyring"), &root_key(), &STORE_ID).unwrap().keys(STORE_ID)
}

#[test]
fn keyring() {
    let ring = Keyring::unwrap(&golden("keyring"), &root_key(), &STORE_ID).unwrap();
    assert_eq!(ring.wrap(&root_key(), &STORE_ID, &Same(0x31)), golden("keyring"));
    assert_eq!(keys().mac("token").sign(&[b"s.example"]).to_vec(), golden("mac"));
}

#[test]
fn names() {
    let hidden = keys().names().hide(&StorePath::new(["secret", "edgex", "redisdb"]).unwrap()).unwrap();
    assert_eq!(hidden.dirs[0].bytes.to_vec(), golden("secret/"));
    assert_eq!(hidden.dirs[1].bytes.to_vec(), golden("edgex/"));
    assert_eq!(hidden.entry.bytes.to_vec(), golden("redisdb"));
}

#[test]
fn an_entry() {
    let keys = keys();
    let name = keys.names().hide(&StorePath::new(["secret", "edgex", "redisdb"]).unwrap()).unwrap().entry;
    assert_eq!(entry::seal(&keys, &Same(0x32), &name, Version(3), b"value"), golden("entry"));
    assert_eq!(entry::open(&keys, &name, Version(3), &golden("entry")).unwrap().expose(), b"value");
}

#[test]
fn the_root_and_the_head() {
    let keys = keys();
    let hidden = keys.names().hide(&StorePath::new(["secret", "edgex", "redisdb"]).unwrap()).unwrap();
    let mut root = Root::default();
    for dir in &hidden.dirs {
        let row = NameRow { dir: dir.dir, name: dir.bytes.clone(), version: 0, tag: [0; 16], row: 0 };
        root.add(keys.root(), &row);
    }
    let (name, tag) = (&hidden.entry, entry::tag_of(&golden("entry")).unwrap());
    root.add(keys.root(), &NameRow { dir: name.dir, name: name.bytes.clone(), version: 3, tag, row: 1 });
    assert_eq!(root.to_bytes().to_vec(), golden("root"));
    let head = HeadRecord {
        public: Head {
            sequence: 3,
            boot: BootEpoch { boot_id: BootId([3; 16]), count: 2 },
            store_epoch: 1,
            profile: Profile::Demo,
            slots: SlotSet { generation: 4, digest: [9; 32] },
            sealed_values: 0,
        },
        time: TimeRecord { boot_id: BootId([3; 16]), boottime: BootTime(77), store_time: StoreTime(88) },
        keyring_digest: secret::crypto::sha256(&[&golden("keyring")]),
        rows: 3,
        root,
    };
    assert_eq!(head.seal(&keys, &Same(0x33)), golden("head"));
    assert_eq!(HeadRecord::open(&keys, &golden("head")), Some(head));
}

#[test]
fn the_documented_labels_are_these() {
    let docs = include_str!("../../../docs/formats.md");
    let section = docs.split("\n## HKDF labels").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut there: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("`store`"))
        .map(|line| line.split('`').nth(1).unwrap())
        .collect();
    let mut here = vec![labels::KEYRING, labels::HEAD_SEAL, labels::HEAD_ROOT, labels::MAC];
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there);
    for label in &here {
        assert!(here.iter().all(|other| other == label || !other.starts_with(label)), "{label} begins another");
    }
}
