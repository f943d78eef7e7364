//! What a store does for its callers.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use common::{Bed, STORE_ID, commit, delete, get, list, new_store, path, put, put_op, root};
use secret::SecretBytes;
use store::{Batch, CommitError, Cond, CreateError, Op, OpenError, ReadError, SlotSet, Store, StorePath};
use testkit::block_on;

#[test]
fn what_was_committed_is_there_after_a_reopen() {
    let bed = Bed::new();
    let store = bed.create();
    put(&store, "secret/edgex/a", "one");
    put(&store, "secret/edgex/b", "two");
    assert_eq!(get(&store, "secret/edgex/a").as_deref(), Some("one"));
    assert_eq!(get(&store, "secret/edgex/c"), None);
    drop(store);
    let store = bed.open();
    assert_eq!(get(&store, "secret/edgex/a").as_deref(), Some("one"));
    assert_eq!(get(&store, "secret/edgex/b").as_deref(), Some("two"));
    assert_eq!(list(&store, "secret/edgex"), ["a", "b"]);
    assert_eq!(store.head().unwrap().sequence, 2);
}

#[test]
fn lists_show_entries_and_directories_and_empty_ones_vanish() {
    let bed = Bed::new();
    let store = bed.create();
    for at in ["b", "b/x", "b/y", "a/1/2/3"] {
        put(&store, at, at);
    }
    assert_eq!(list(&store, ""), ["a/", "b", "b/"]);
    assert_eq!(list(&store, "b"), ["x", "y"]);
    assert_eq!(list(&store, "a/1"), ["2/"]);
    assert_eq!(list(&store, "nowhere"), [""; 0]);
    delete(&store, "a/1/2/3");
    assert_eq!(list(&store, ""), ["b", "b/"]);
    delete(&store, "b/x");
    delete(&store, "b/y");
    delete(&store, "b/never");
    drop(store);
    assert_eq!(list(&bed.open(), ""), ["b"]);
}

#[test]
fn a_name_may_hold_what_a_path_may_not() {
    let bed = Bed::new();
    let store = bed.create();
    let odd = StorePath::new(["..", "a/b", "\u{0}\n", "caf\u{e9}/"]).unwrap();
    let value = SecretBytes::new(b"v".to_vec());
    block_on(store.commit(Batch { conds: vec![], ops: vec![Op::Put(odd.clone(), value)] })).unwrap();
    assert_eq!(block_on(store.get(&odd)).unwrap().unwrap().value.expose(), b"v");
    assert_eq!(list(&store, ""), ["../"]);
    assert_eq!(get(&store, "../a/b"), None);
}

#[test]
fn conditions_decide_and_a_batch_is_all_or_nothing() {
    let bed = Bed::new();
    let store = bed.create();
    let both = |conds| Batch { conds, ops: vec![put_op("a", "2"), put_op("z", "2")] };
    put(&store, "a", "1");
    let version = block_on(store.get(&path("a"))).unwrap().unwrap().version;

    let refused = block_on(store.commit(both(vec![Cond::VersionIs(path("a"), version), Cond::Absent(path("a"))])));
    assert!(matches!(refused, Err(CommitError::Conflict)));
    assert_eq!((get(&store, "a").as_deref(), get(&store, "z")), (Some("1"), None));

    block_on(store.commit(both(vec![Cond::VersionIs(path("a"), version), Cond::Absent(path("z"))]))).unwrap();
    assert_eq!((get(&store, "a").as_deref(), get(&store, "z").as_deref()), (Some("2"), Some("2")));

    let stale = block_on(store.commit(both(vec![Cond::VersionIs(path("a"), version)])));
    assert!(matches!(stale, Err(CommitError::Conflict)));
}

#[test]
fn a_version_never_comes_twice() {
    let bed = Bed::new();
    let store = bed.create();
    let version = || block_on(store.get(&path("a"))).unwrap().unwrap().version;
    let mut seen = Vec::new();
    for round in 0..3 {
        put(&store, "a", "x");
        seen.push(version());
        put(&store, "a", "y");
        seen.push(version());
        put(&store, "b", &round.to_string());
        delete(&store, "a");
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn the_last_operation_on_a_path_decides() {
    let bed = Bed::new();
    let store = bed.create();
    commit(&store, vec![put_op("a", "1"), put_op("b", "1"), Op::Delete(path("a")), put_op("b", "2")]).unwrap();
    assert_eq!((get(&store, "a"), get(&store, "b").as_deref()), (None, Some("2")));
    commit(&store, vec![Op::Delete(path("b")), put_op("b", "3")]).unwrap();
    drop(store);
    assert_eq!(get(&bed.open(), "b").as_deref(), Some("3"));
}

#[test]
fn bounds_are_refused_before_anything_is_written() {
    let bed = Bed::new();
    let store = bed.create();
    let of = |bytes: usize| Op::Put(path("big"), SecretBytes::new(vec![1; bytes]));
    assert!(commit(&store, vec![of(1 << 20)]).is_ok());
    assert!(matches!(commit(&store, vec![of((1 << 20) + 1)]), Err(CommitError::TooLarge)));
    let many = |n| (0..n).map(|i| put_op(&format!("n/{i}"), "")).collect::<Vec<_>>();
    assert!(matches!(commit(&store, many(1025)), Err(CommitError::TooLarge)));
    assert!(commit(&store, many(1024)).is_ok());
    let five = (0..5).map(|i| Op::Put(path(&format!("b{i}")), SecretBytes::new(vec![1; 1 << 20]))).collect();
    assert!(matches!(commit(&store, five), Err(CommitError::TooLarge)));
    let root = vec![Op::Put(path(""), SecretBytes::new(vec![1]))];
    assert!(matches!(commit(&store, root), Err(CommitError::TooLarge)));
    assert_eq!(list(&store, "n").len(), 1024);
    drop(store);
    let store = bed.open();
    assert_eq!(block_on(store.get(&path("big"))).unwrap().unwrap().value.len(), 1 << 20);
}

#[test]
fn a_closed_store_answers_nothing() {
    let bed = Bed::new();
    let store = bed.create();
    put(&store, "a", "1");
    let other = store.clone();
    let code = store.mac("token", &[b"t"]);
    assert_eq!(code, other.mac("token", &[b"t"]));
    store.close();
    assert!(matches!(block_on(other.get(&path("a"))), Err(ReadError::Sealed)));
    assert!(matches!(block_on(other.list(&path(""))), Err(ReadError::Sealed)));
    assert!(matches!(commit(&other, vec![put_op("a", "2")]), Err(CommitError::Sealed)));
    assert!(other.head().is_err());
    assert_ne!(code, other.mac("token", &[b"t"]), "a code made without the key matches nothing");
    assert_ne!(other.mac("token", &[b"t"]), other.mac("token", &[b"t"]));
    assert_eq!(bed.open().mac("token", &[b"t"]), code);
}

#[test]
fn a_clean_stop_leaves_one_complete_file() {
    let bed = Bed::new();
    let store = bed.create();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(bed.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    put(&store, "a", "1");
    store.close();
    assert_eq!(names(), ["store.db", "store.lock"]);
    let elsewhere = Bed::new();
    std::fs::copy(bed.db(), elsewhere.db()).unwrap();
    assert_eq!(get(&elsewhere.open(), "a").as_deref(), Some("1"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(bed.db()).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn opening_tells_apart_what_is_wrong() {
    let bed = Bed::new();
    assert!(matches!(bed.try_open(), Err(OpenError::Missing { .. })));
    assert!(!bed.dir.path().join("store.lock").exists(), "looking for a store leaves nothing behind");
    let store = bed.create();
    assert!(matches!(bed.try_open(), Err(OpenError::Locked { .. })));
    drop(store);
    assert!(matches!(Store::open(&bed.config, &root(2), STORE_ID), Err(OpenError::WrongRoot)));
    assert!(matches!(Store::open(&bed.config, &root(1), [8; 16]), Err(OpenError::Foreign { .. })));
    let again = Store::create(&bed.config, &root(1), &new_store());
    assert!(matches!(again, Err(CreateError::Exists { .. })));
    assert!(bed.try_open().is_ok(), "a refused creation has changed nothing");
}

#[test]
fn a_boot_epoch_is_recorded_with_the_next_commit_and_not_before() {
    let bed = Bed::new();
    let store = bed.create();
    assert_eq!(store.begin_boot().unwrap().count, 1);
    put(&store, "a", "1");
    drop(store);

    bed.clock.reboot();
    let store = bed.open();
    assert_eq!(store.begin_boot().unwrap().count, 2);
    assert_eq!(store.head().unwrap().boot.count, 1, "nothing is written yet");
    drop(store);
    let store = bed.open();
    assert_eq!(store.begin_boot().unwrap().count, 2);
    put(&store, "a", "2");
    assert_eq!(store.head().unwrap().boot.count, 2);
    drop(store);
    let store = bed.open();
    assert_eq!(store.begin_boot().unwrap().count, 2, "a restart within the boot is no new epoch");
}

#[test]
fn the_slot_set_is_kept() {
    let bed = Bed::new();
    let store = bed.create();
    let slots = SlotSet { generation: 2, digest: [6; 32] };
    block_on(store.set_slot_set(slots)).unwrap();
    drop(store);
    let head = bed.open().head().unwrap();
    assert_eq!((head.slots, head.sequence), (slots, 1));
}

#[test]
fn store_time_goes_on_across_restarts_and_steps_of_the_wall_clock() {
    let bed = Bed::new();
    let store = bed.create();
    let start = store.now();
    bed.clock.advance(Duration::from_secs(100));
    bed.clock.step_wall(0);
    assert_eq!(start.until(store.now()), Duration::from_secs(100));
    put(&store, "a", "1");
    drop(store);
    bed.clock.advance(Duration::from_secs(7));
    let store = bed.open();
    assert_eq!(start.until(store.now()), Duration::from_secs(107), "exactly, within one boot");
    drop(store);
    bed.clock.reboot();
    let store = bed.open();
    assert_eq!(start.until(store.now()), Duration::from_secs(100), "in another boot: what was last stored");
}

#[test]
fn a_rotated_key_leaves_old_entries_readable() {
    let bed = Bed::new();
    let store = bed.create();
    put(&store, "old", "1");
    assert!(matches!(block_on(store.rotate(&root(2))), Err(store::RotateError::WrongRoot)));
    block_on(store.rotate(&root(1))).unwrap();
    put(&store, "new", "2");
    block_on(store.rotate(&root(1))).unwrap();
    drop(store);
    let store = bed.open();
    put(&store, "newest", "3");
    assert_eq!(["old", "new", "newest"].map(|at| get(&store, at).unwrap()), ["1", "2", "3"]);
}

#[test]
fn a_new_root_key_comes_with_its_slot_set_in_one_commit() {
    let bed = Bed::new();
    let store = bed.create();
    put(&store, "old", "1");
    let slots = store::SlotSet { generation: 2, digest: [9; 32] };
    let wrong = block_on(store.change_root(&root(2), &root(3), slots, Batch::default()));
    assert!(matches!(wrong, Err(store::RotateError::WrongRoot)));
    let before = store.head().unwrap().sequence;
    let with = |conds: &[&str]| Batch {
        conds: conds.iter().map(|at| Cond::Absent(path(at))).collect(),
        ops: vec![put_op("with", "3")],
    };
    let refused = block_on(store.change_root(&root(1), &root(2), slots, with(&["old"])));
    assert!(matches!(refused, Err(store::RotateError::Commit(CommitError::Conflict))), "{refused:?}");
    assert_eq!((store.head().unwrap().sequence, get(&store, "with")), (before, None), "all of it or nothing");
    block_on(store.change_root(&root(1), &root(2), slots, with(&[]))).unwrap();
    let head = store.head().unwrap();
    assert_eq!((head.slots, head.sequence, head.sealed_values), (slots, before + 1, 2), "both under the new data key");
    put(&store, "new", "2");
    drop(store);
    assert!(matches!(Store::open(&bed.config, &root(1), STORE_ID), Err(OpenError::WrongRoot)));
    let store = Store::open(&bed.config, &root(2), STORE_ID).unwrap();
    assert_eq!(["old", "new", "with"].map(|at| get(&store, at).unwrap()), ["1", "2", "3"]);
}

#[test]
fn reads_and_writes_beside_changes_of_the_root_key_see_nothing_of_them() {
    let bed = Bed::new();
    let store = bed.create();
    put(&store, "still", "here");
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) || n == 0 {
                n += 1;
                put(&store, "count", &n.to_string());
                put(&store, &format!("log/{}", n % 8), &n.to_string());
            }
            n
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(get(&store, "still").as_deref(), Some("here"));
                assert!(get(&store, "never").is_none());
                get(&store, "count");
            }
        });
        for fill in 1..30 {
            let slots = store::SlotSet { generation: 1 + u64::from(fill), digest: [fill; 32] };
            block_on(store.change_root(&root(fill), &root(fill + 1), slots, Batch::default())).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    drop(store);
    let store = Store::open(&bed.config, &root(30), STORE_ID).unwrap();
    assert_eq!(get(&store, "count"), Some(written.to_string()));
}

#[test]
fn many_writers_at_once_each_get_their_answer() {
    let bed = Bed::new();
    let store = bed.create();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0..20 {
                    put(&store, &format!("t{thread}/{i}"), &format!("{thread}.{i}"));
                    assert_eq!(get(&store, &format!("t{thread}/{i}")).unwrap(), format!("{thread}.{i}"));
                }
            });
        }
    });
    assert_eq!(store.head().unwrap().sequence, 160);
    drop(store);
    let store = bed.open();
    assert_eq!(list(&store, "").len(), 8);
    assert_eq!(get(&store, "t3/19").as_deref(), Some("3.19"));
}

#[test]
fn too_many_bytes_that_wait_are_refused_and_nothing_is_lost_by_it() {
    let bed = Bed::new();
    let store = bed.create();
    let four = |n: usize| {
        let of = |i| Op::Put(path(&format!("b{n}/{i}")), SecretBytes::new(vec![1; 1 << 20]));
        Batch { conds: vec![], ops: (0..4).map(of).collect() }
    };
    // Each is begun and not looked at again, so that all of them wait at once whatever the writer does meanwhile.
    let mut begun: Vec<_> = (0..16).map(|n| Box::pin(store.commit(four(n)))).collect();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut done, mut refused) = (0, 0);
    begun.retain_mut(|commit| match commit.as_mut().poll(&mut context) {
        std::task::Poll::Pending => true,
        std::task::Poll::Ready(Ok(_)) => {
            done += 1;
            false
        }
        std::task::Poll::Ready(Err(CommitError::Busy)) => {
            refused += 1;
            false
        }
        std::task::Poll::Ready(Err(other)) => panic!("{other:?}"),
    });
    assert!(refused >= 1, "64 MiB waited where 16 may");
    for commit in begun {
        block_on(commit).unwrap();
        done += 1;
    }
    assert!(done >= 4, "four batches fit: {done}");
    assert_eq!(list(&store, "").len(), done);
    block_on(store.commit(four(99))).unwrap();
}
