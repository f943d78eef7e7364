//! Sequences of operations on a real store against a `BTreeMap`, with reopening, and with the database damaged in
//! between: after damage each answer is the right one or an error.
#![no_main]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use host::{OsDisk, WallTime};
use libfuzzer_sys::fuzz_target;
use secret::{RootKey, Secret, SecretBytes};
use store::{Batch, NewStore, Op, Profile, SlotSet, Store, StoreConfig, StorePath};
use testkit::{FakeClock, SeededEntropy, block_on, scratch_dir};

fuzz_target!(|steps: Vec<(u8, u8, u16)>| {
    let dir = scratch_dir();
    let config = StoreConfig::new(
        dir.path().join("store.db"),
        Arc::new(OsDisk),
        Arc::new(FakeClock::at(1)),
        Arc::new(SeededEntropy::new(1)),
        WallTime(0),
    );
    let root = RootKey::new(Secret::init_with(|b| b.fill(1)));
    let slots = SlotSet { generation: 1, digest: [0; 32] };
    let new = NewStore { store_id: [7; 16], profile: Profile::Demo, slots };
    let mut store = Store::create(&config, &root, &new).expect("a new store is made");
    let mut model = BTreeMap::new();
    let path = |n: u8| StorePath::new([["a", "b", "c", "a/"][usize::from(n % 4)].to_owned(), (n / 4 % 8).to_string()]);
    for (verb, name, more) in steps.into_iter().take(64) {
        let at = path(name).expect("a sound path");
        match verb % 8 {
            0..4 => {
                let value = vec![name; usize::from(more % 6000)];
                let ops = vec![Op::Put(at.clone(), SecretBytes::new(value.clone()))];
                block_on(store.commit(Batch { conds: vec![], ops })).expect("commits");
                model.insert(at, value);
            }
            4 => {
                block_on(store.commit(Batch { conds: vec![], ops: vec![Op::Delete(at.clone())] })).expect("commits");
                model.remove(&at);
            }
            5 => {
                drop(store);
                store = Store::open(&config, &root, [7; 16]).expect("reopens");
            }
            6 => {
                drop(store);
                let file = std::fs::OpenOptions::new().write(true).read(true).open(&config.path).expect("is there");
                let length = file.metadata().expect("has a length").len();
                let place = (u64::from(more) * 37 + u64::from(name)) % length;
                let mut byte = [0];
                file.read_exact_at(&mut byte, place).expect("reads");
                file.write_all_at(&[byte[0] ^ (1 << (name % 8))], place).expect("writes");
                drop(file);
                let Ok(damaged) = Store::open(&config, &root, [7; 16]) else { return };
                for n in 0..32 {
                    let at = path(n).expect("a sound path");
                    if let Ok(found) = block_on(damaged.get(&at)) {
                        assert_eq!(found.map(|e| e.value.expose().to_vec()), model.get(&at).cloned());
                    }
                }
                return;
            }
            _ => {
                let found = block_on(store.get(&at)).expect("answers");
                assert_eq!(found.map(|e| e.value.expose().to_vec()), model.get(&at).cloned());
            }
        }
    }
});
