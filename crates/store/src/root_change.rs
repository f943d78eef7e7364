//! A change of the root key against whoever has the old one, an older copy of the store, and the disk of today.

use std::sync::Arc;

use host::{OsDisk, OsEntropy, WallTime};
use rusqlite::Connection;
use secret::crypto::sha256;
use secret::{RootKey, Secret, SecretBytes};
use testkit::{FakeClock, block_on};

use crate::backend::{Id, NameRow};
use crate::batch::{Batch, Op, ReadError};
use crate::entry::{self, Sealed};
use crate::head::{HeadRecord, Profile, SlotSet};
use crate::keyring::{Keyring, KeyringError, Keys};
use crate::names::HiddenName;
use crate::open::{NewStore, OpenError, StoreConfig};
use crate::root::Root;
use crate::{Store, StorePath, Version};

const STORE_ID: [u8; 16] = [7; 16];

struct Bed {
    config: StoreConfig,
    _dir: tempfile::TempDir,
}

impl Bed {
    /// A store under root key 1 with `dir/0` to `dir/9`, and its keyring and head as an older copy has them.
    /// Its rows lie in the order of hidden names, another one in each run.
    fn filled() -> (Self, Store, OldCopy) {
        let dir = testkit::scratch_dir();
        let clock = Arc::new(FakeClock::at(1_750_000_000));
        let at = dir.path().join("store.db");
        let config = StoreConfig::new(at, Arc::new(OsDisk), clock, Arc::new(OsEntropy), WallTime(0));
        let new = NewStore { store_id: STORE_ID, profile: Profile::Production, slots: SLOTS };
        let store = Store::create(&config, &root(1), &new).unwrap();
        let ops = (0..10).map(|i| put(&format!("{i}"), "on-")).collect();
        block_on(store.commit(Batch { conds: Vec::new(), ops })).unwrap();
        let bed = Self { config, _dir: dir };
        let keyring = Keyring::unwrap(&bed.record("keyring"), &root(1), &STORE_ID).unwrap();
        let old = OldCopy { keys: keyring.keys(STORE_ID), head: bed.record("head") };
        (bed, store, old)
    }

    fn sql(&self) -> Connection {
        Connection::open(&self.config.path).unwrap()
    }

    fn record(&self, table: &str) -> Vec<u8> {
        self.sql().query_row(&format!("SELECT bytes FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn rows(&self) -> Vec<NameRow> {
        let sql = self.sql();
        let mut statement = sql.prepare("SELECT dir, name, version, tag, row FROM name").unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let (dir, name, tag): (Id, Vec<u8>, [u8; 16]) = (row.get(0)?, row.get(1)?, row.get(3)?);
            let (version, at): (i64, i64) = (row.get(2)?, row.get(4)?);
            Ok(NameRow { dir, name: name.into(), version: version as u64, tag, row: at as u64 })
        };
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    fn value(&self, row: u64) -> Vec<u8> {
        self.sql().query_row("SELECT bytes FROM value WHERE row = ?1", [row as i64], |row| row.get(0)).unwrap()
    }

    fn set_value(&self, row: u64, bytes: &[u8]) {
        self.sql().execute("UPDATE value SET bytes = ?2 WHERE row = ?1", (row as i64, bytes)).unwrap();
    }
}

/// What somebody else has kept.
struct OldCopy {
    keys: Keys,
    head: Vec<u8>,
}

fn put(name: &str, value: &str) -> Op {
    Op::Put(at(name), SecretBytes::new(value.as_bytes().to_vec()))
}

fn at(name: &str) -> StorePath {
    StorePath::new(["dir", name]).unwrap()
}

fn root(fill: u8) -> RootKey {
    RootKey::new(Secret::init_with(|b| b.fill(fill)))
}

fn changed(store: &Store) {
    let with = Batch { conds: Vec::new(), ops: vec![put("with", "it")] };
    block_on(store.change_root(&root(1), &root(2), SlotSet { generation: 2, ..SLOTS }, with)).unwrap();
}

/// All names that a changed store holds.
fn names_after() -> impl Iterator<Item = String> {
    (0..10).map(|i| i.to_string()).chain(["with".to_owned()])
}

fn read(store: &Store, name: &str) -> Result<String, ReadError> {
    let entry = block_on(store.get(&at(name)))?.unwrap();
    Ok(String::from_utf8(entry.value.expose().to_vec()).unwrap())
}

#[test]
fn the_old_root_key_opens_neither_the_keyring_nor_the_head_nor_any_value() {
    let (bed, store, old) = Bed::filled();
    changed(&store);
    store.close();
    assert_eq!(Keyring::unwrap(&bed.record("keyring"), &root(1), &STORE_ID).err(), Some(KeyringError::WrongRoot));
    assert_eq!(HeadRecord::open(&old.keys, &bed.record("head")), None, "the head, by the old keyring");
    for row in bed.rows().iter().filter(|row| row.version > 0) {
        let name = HiddenName { dir: row.dir, bytes: row.name.clone() };
        let opened = entry::open(&old.keys, &name, Version(row.version), &bed.value(row.row));
        assert!(opened.is_err(), "a value, by the old keyring");
    }
    let store = Store::open(&bed.config, &root(2), STORE_ID).unwrap();
    assert_eq!((read(&store, "0").unwrap(), read(&store, "with").unwrap()), ("on-".into(), "it".into()));
}

/// As it was done to a device: a value under the old data key, a sum and a head under the old head key.
#[test]
fn a_store_forged_with_the_old_keys_is_refused() {
    let (bed, store, old) = Bed::filled();
    changed(&store);
    store.close();
    let mut rows = bed.rows();
    let forged = rows.iter_mut().find(|row| row.version > 0).unwrap();
    let name = HiddenName { dir: forged.dir, bytes: forged.name.clone() };
    let bytes = entry::seal(&old.keys, &OsEntropy, &name, Version(forged.version), b"OFF");
    forged.tag = entry::tag_of(&bytes).unwrap();
    bed.set_value(forged.row, &bytes);
    let set_tag = "UPDATE name SET tag = ?2 WHERE row = ?1";
    bed.sql().execute(set_tag, (forged.row as i64, forged.tag)).unwrap();
    // Today's head if the old key opens it, as it did; else yesterday's, brought up to what is public.
    let today = HeadRecord::open(&old.keys, &bed.record("head"));
    let mut head = today.or_else(|| HeadRecord::open(&old.keys, &old.head)).unwrap();
    head.public.slots.generation = 2;
    head.keyring_digest = sha256(&[&bed.record("keyring")]);
    head.rows = rows.len() as u64;
    head.root = Root::default();
    rows.iter().for_each(|row| head.root.add(old.keys.root(), row));
    let head = head.seal(&old.keys, &OsEntropy);
    bed.sql().execute("UPDATE head SET bytes = ?1", [head]).unwrap();
    let opened = Store::open(&bed.config, &root(2), STORE_ID);
    assert!(matches!(opened, Err(OpenError::Tampered { what: "the head fails its authentication" })), "{opened:?}");
}

/// Whoever has a data key finds other texts for a tag that stands, since GHASH is linear. That no term of his is left
/// is what refuses them, and not the tag.
#[test]
fn a_value_under_an_old_term_is_refused_whatever_its_tag() {
    let (bed, store, old) = Bed::filled();
    changed(&store);
    store.close();
    let row = bed.rows().into_iter().find(|row| row.version > 0).unwrap();
    let name = HiddenName { dir: row.dir, bytes: row.name.clone() };
    let mut bytes = entry::seal(&old.keys, &OsEntropy, &name, Version(row.version), b"OFF");
    let text = bytes.len() - row.tag.len();
    bytes[text..].copy_from_slice(&row.tag);
    assert!(Sealed::parse(&bytes).is_ok());
    bed.set_value(row.row, &bytes);
    let store = Store::open(&bed.config, &root(2), STORE_ID).unwrap();
    let refusals: Vec<_> = names_after().filter_map(|name| read(&store, &name).err()).collect();
    let [ReadError::Tampered { what }] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert_eq!(*what, "an entry names a term that the keyring does not hold");
}

#[test]
fn a_bad_value_does_not_keep_the_old_root_key_in_force_and_stays_refused() {
    let (bed, store, _) = Bed::filled();
    let row = bed.rows().into_iter().find(|row| row.version > 0).unwrap();
    let good = bed.value(row.row);
    let mut bad = good.clone();
    bad[20] ^= 1;
    bed.set_value(row.row, &bad);
    changed(&store);
    drop(store);
    // Put right again by whoever spoilt it: he may have the key that it was under.
    bed.set_value(row.row, &good);
    let store = Store::open(&bed.config, &root(2), STORE_ID).unwrap();
    let refused = names_after().filter(|name| matches!(read(&store, name), Err(ReadError::Tampered { .. }))).count();
    assert_eq!(refused, 1);
}

/// `cargo test -p edgekeep-store root_change -- --nocapture` tells what it takes beside the commits that made it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a duration for people, of nothing that is decided")]
fn ten_thousand_values_go_over_in_one_commit() {
    let (bed, store, _) = Bed::filled();
    let begun = std::time::Instant::now();
    for part in 0..10 {
        let value = "x".repeat(900);
        let ops = (0..1000).map(|i| put(&format!("{part}/{i}").replace('/', "-"), &value)).collect();
        block_on(store.commit(Batch { conds: Vec::new(), ops })).unwrap();
    }
    let written = begun.elapsed();
    let sequence = store.head().unwrap().sequence;
    let begun = std::time::Instant::now();
    changed(&store);
    println!("10,000 values of 900 bytes: {:?}, and {written:?} to write them in ten commits", begun.elapsed());
    assert_eq!((store.head().unwrap().sequence, store.head().unwrap().sealed_values), (sequence + 1, 10_011));
    drop(store);
    let store = Store::open(&bed.config, &root(2), STORE_ID).unwrap();
    assert_eq!(read(&store, "9-999").unwrap().len(), 900);
}

const SLOTS: SlotSet = SlotSet { generation: 1, digest: [5; 32] };
