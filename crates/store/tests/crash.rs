//! Power cuts under the real store: real SQLite, real bytes, a recorded disk.
//!
//! A workload runs once and notes each acknowledgement. Then the power is cut after each write and sync of it, under
//! each model of what a disk may keep, and the store is opened from what is left: it must open, hold every batch that
//! was acknowledged, and none by half. `EDGEKEEP_CRASH_CUTS=10000` looks at so many cuts; the short form at a sample of
//! them.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{BUILT, STORE_ID, new_store, path, put_op, root, try_get};
use host::{Disk, OsDisk};
use store::{Batch, CommitError, Op, OpenError, RotateError, SlotSet, Store, StoreConfig};
use testkit::{CrashDisk, Cut, FakeClock, Fault, Image, NameRule, SeededEntropy, Unsynced, block_on, scratch_dir};

/// Batch `n` writes its number to these, adds one entry and removes another: any half of it shows.
const TOGETHER: [&str; 2] = ["state/left", "state/deep/down/right"];

fn batch(n: u64) -> Vec<Op> {
    // Values of many sizes, so that pages split, overflow and are freed.
    let size = usize::try_from(n * 701 % 9_000).unwrap();
    let mut ops: Vec<Op> = TOGETHER.iter().map(|at| put_op(at, &format!("{n}"))).collect();
    ops.push(put_op(&format!("log/{}", n % 16), &format!("{n}:{}", "x".repeat(size))));
    ops.push(Op::Delete(path(&format!("log/{}", (n + 5) % 16))));
    ops
}

/// Commits batch `n`; every fifteenth comes with another root key, for which all values are written anew.
fn carry_out(store: &Store, n: u64) -> Result<(), CommitError> {
    let (old, new) = (key_of(n - 1), key_of(n));
    let batch = Batch { conds: Vec::new(), ops: batch(n) };
    if old == new {
        return block_on(store.commit(batch)).map(drop);
    }
    let slots = SlotSet { generation: n, digest: [new; 32] };
    match block_on(store.change_root(&root(old), &root(new), slots, batch)) {
        Ok(_) => Ok(()),
        Err(RotateError::Commit(e)) => Err(e),
        Err(other) => panic!("{other:?}"),
    }
}

/// Which root key is in force after batch `n`.
fn key_of(n: u64) -> u8 {
    1 + u8::try_from(n / 15).unwrap()
}

/// Opens by the one root key that fits.
fn open_by_any(config: &StoreConfig) -> Result<Store, String> {
    let opened = (1..20).map(|fill| (fill, Store::open(config, &root(fill), STORE_ID)));
    let found = opened.into_iter().find(|(_, opened)| !matches!(opened, Err(OpenError::WrongRoot)));
    let (fill, store) = found.ok_or("no root key opens it")?;
    let store = store.map_err(|e| format!("does not open: {e:?}"))?;
    let n = store.head().map_err(|e| e.to_string())?.sequence;
    if key_of(n) != fill { Err(format!("after batch {n} it opens by root key {fill}")) } else { Ok(store) }
}

/// What the store must hold after batch `n`.
fn check(store: &Store, n: u64) -> Result<(), String> {
    let mut expected = std::collections::BTreeMap::new();
    for m in 1..=n {
        expected.insert(m % 16, m);
        expected.remove(&((m + 5) % 16));
    }
    let value = (n > 0).then(|| n.to_string());
    for at in TOGETHER {
        let found = try_get(store, at).map_err(|e| e.to_string())?;
        if found != value {
            return Err(format!("{at} is {found:?} after batch {n}"));
        }
    }
    let mut names: Vec<String> = expected.keys().map(u64::to_string).collect();
    names.sort();
    let listed = block_on(store.list(&path("log"))).map_err(|e| e.to_string())?;
    if listed != names {
        return Err(format!("log holds {listed:?} after batch {n}"));
    }
    for (slot, m) in expected {
        let found = try_get(store, &format!("log/{slot}")).map_err(|e| e.to_string())?.unwrap_or_default();
        if !found.starts_with(&format!("{m}:")) {
            return Err(format!("log/{slot} is not of batch {m}"));
        }
    }
    Ok(())
}

fn config(path: &Path, disk: Arc<dyn Disk>, vfs: Option<&str>) -> StoreConfig {
    let mut config = StoreConfig::new(path, disk, Arc::new(FakeClock::at(1)), Arc::new(SeededEntropy::new(9)), BUILT);
    config.vfs = vfs.map(str::to_owned);
    config.readers = 0;
    config
}

fn config_on(disk: &CrashDisk, at: &str) -> StoreConfig {
    config(&disk.path(at), Arc::new(disk.clone()), Some(disk.vfs()))
}

/// Creates a store in `data.new`, renames it to `data`, and commits `batches` to it; each acknowledgement is marked,
/// the creation as 0.
fn run(disk: &CrashDisk, batches: u64) {
    disk.create_dir(&disk.path("data.new"), 0o700).unwrap();
    let store = Store::create(&config_on(disk, "data.new/store.db"), &root(1), &new_store()).unwrap();
    store.close();
    disk.rename(&disk.path("data.new"), &disk.path("data"), false).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    disk.mark(0);
    go_on(disk, 1, batches);
}

fn go_on(disk: &CrashDisk, from: u64, to: u64) {
    let half = from + (to - from) / 2;
    for (from, to) in [(from, half), (half + 1, to)] {
        let store = open_by_any(&config_on(disk, "data/store.db")).unwrap();
        for n in from..=to {
            carry_out(&store, n).unwrap();
            disk.mark(n);
        }
        store.close(); // a checkpoint in the middle and one at the end
    }
}

/// Opens what a cut has left, and says what is wrong with it.
fn verify(image: &Image, acknowledged: Option<u64>) -> Result<(), String> {
    let dir = scratch_dir();
    image.write_to(dir.path());
    if !image.has("data") {
        return if acknowledged.is_none() { Ok(()) } else { Err("the store is gone".into()) };
    }
    let config = config(&dir.path().join("data/store.db"), Arc::new(OsDisk), None);
    let store = open_by_any(&config)?;
    let n = store.head().map_err(|e| e.to_string())?.sequence;
    if acknowledged.is_some_and(|a| n < a) {
        return Err(format!("batch {acknowledged:?} was acknowledged, the store is at {n}"));
    }
    check(&store, n)?;
    carry_out(&store, n + 1).map_err(|e| format!("does not go on: {e}"))?;
    check(&store, n + 1)
}

/// How many cuts to look at: all of the log under all models, or a sample of them.
fn cuts(disk: &CrashDisk, short: usize) -> Vec<Cut> {
    let wanted =
        std::env::var("EDGEKEEP_CRASH_CUTS").map_or(short, |n| n.parse().expect("EDGEKEEP_CRASH_CUTS is a number"));
    let chance = SeededEntropy::new(4);
    let mut all = Vec::new();
    let mut seed = 0;
    while all.len() < wanted.max(disk.events()) {
        for at in 0..=disk.events() {
            for unsynced in Unsynced::ALL {
                for names in NameRule::ALL {
                    all.push(Cut { at, unsynced, names, seed });
                }
            }
        }
        seed += 1;
    }
    let step = all.len() as f64 / wanted as f64;
    let offset = chance.below(1000) as f64 / 1000.0;
    (0..wanted).map(|i| all[(((i as f64) + offset) * step) as usize % all.len()]).collect()
}

fn failures(disk: &CrashDisk, cuts: Vec<Cut>) -> impl Iterator<Item = String> {
    cuts.into_iter().filter_map(|cut| {
        let wrong = verify(&disk.image(&cut), disk.marked_before(cut.at)).err()?;
        Some(format!("{cut:?}: {wrong}"))
    })
}

fn none_fails(disk: &CrashDisk, cuts: Vec<Cut>) {
    let wrong: Vec<String> = failures(disk, cuts).take(5).collect();
    assert!(wrong.is_empty(), "of {} events: {wrong:#?}", disk.events());
}

#[test]
fn no_cut_loses_or_tears_a_batch() {
    let disk = CrashDisk::new();
    run(&disk, 40);
    none_fails(&disk, cuts(&disk, 1000));
}

#[test]
fn a_second_cut_in_the_middle_of_recovery_loses_nothing_either() {
    let first = CrashDisk::new();
    run(&first, 20);
    let events = first.events();
    for at in [events / 3, events / 2, events * 3 / 4, events - 2] {
        let cut = Cut { at, unsynced: Unsynced::Sectors, names: NameRule::Strict, seed: 3 };
        let acknowledged = first.marked_before(at).unwrap();
        let second = CrashDisk::holding(&first.image(&cut));
        second.mark(acknowledged);
        let store = open_by_any(&config_on(&second, "data/store.db")).unwrap();
        let found = store.head().unwrap().sequence;
        assert!(found >= acknowledged);
        second.mark(found);
        drop(store);
        go_on(&second, found + 1, found + 6);
        none_fails(&second, cuts(&second, 100));
    }
}

/// Kept mutants: each must be caught by the same check that the store passes, or the check proves nothing. (The
/// directory is synced twice over, by SQLite for its journal and by `Store::create`; the mutant drops both.)
#[test]
fn a_missing_fsync_is_caught() {
    let mutants: [(&str, &[&str]); 3] =
        [("the WAL", &["store.db-wal"]), ("the database", &["store.db"]), ("the directory", &["/data.new", "/data"])];
    for (what, lies) in mutants {
        let disk = CrashDisk::new();
        lies.iter().for_each(|end| disk.inject(Fault::SyncsLie((*end).into())));
        run(&disk, 40);
        let caught = failures(&disk, cuts(&disk, 600)).next();
        assert!(caught.is_some(), "without the fsync of {what} nothing was lost");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let disk = CrashDisk::new();
    run(&disk, 10);
    let store = open_by_any(&config_on(&disk, "data/store.db")).unwrap();
    let mut n = 10;
    for writes in 0..40 {
        disk.inject(Fault::FullAfterWrites(writes));
        match carry_out(&store, n + 1) {
            Ok(()) => n += 1,
            Err(CommitError::DiskFull) => {}
            Err(other) => panic!("after {writes} writes: {other:?}"),
        }
        disk.heal();
        check(&store, n).unwrap_or_else(|wrong| panic!("after {writes} writes: {wrong}"));
        n += 1;
        carry_out(&store, n).unwrap();
    }
    store.close();
    verify(&disk.everything(), Some(n)).unwrap();
}

#[test]
fn a_failed_fsync_is_an_unknown_outcome_and_loses_nothing_later() {
    let disk = CrashDisk::new();
    run(&disk, 10);
    let store = open_by_any(&config_on(&disk, "data/store.db")).unwrap();
    let mut unknown = 0;
    for _ in 0..5 {
        disk.inject(Fault::OneSyncFailsAfter(0));
        let n = store.head().unwrap().sequence + 1;
        match carry_out(&store, n) {
            Ok(()) => {}
            Err(CommitError::OutcomeUnknown(_)) => unknown += 1,
            Err(other) => panic!("{other:?}"),
        }
        disk.heal();
        // Read again, as the error asks: it is the one or the other, whole.
        let n = store.head().unwrap().sequence;
        check(&store, n).unwrap();
        carry_out(&store, n + 1).unwrap();
        disk.mark(n + 1);
    }
    assert!(unknown > 0, "no commit has met the failing fsync");
    let last = disk.events();
    let at_end = [Unsynced::Dropped, Unsynced::Pages, Unsynced::Sectors, Unsynced::Torn].map(|unsynced| Cut {
        at: last,
        unsynced,
        names: NameRule::Strict,
        seed: 1,
    });
    none_fails(&disk, at_end.to_vec());
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    for writes in 0..200 {
        let disk = CrashDisk::new();
        disk.inject(Fault::FullAfterWrites(writes));
        match Store::create(&config_on(&disk, "store.db"), &root(1), &new_store()) {
            Ok(_) => return assert!(writes > 5, "the disk was never full"),
            Err(_) => {
                let left: Vec<_> = disk.everything().files().map(|(path, _)| path.to_owned()).collect();
                assert_eq!(left, [Path::new("store.lock")], "after {writes} writes");
            }
        }
    }
    panic!("a creation takes more writes than this test expects");
}

#[test]
fn a_store_whose_file_is_gone_is_missing() {
    let disk = CrashDisk::new();
    run(&disk, 2);
    disk.remove_file(&disk.path("data/store.db")).unwrap();
    let opened = Store::open(&config_on(&disk, "data/store.db"), &root(1), STORE_ID);
    assert!(matches!(opened, Err(OpenError::Missing { .. })));
}
