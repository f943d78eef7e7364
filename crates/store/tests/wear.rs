//! A data key encrypts so many values, and no more.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bed, commit, delete, get, put, put_op, root};
use store::{CommitError, KeyWear, Store};
use testkit::block_on;

fn bed(wear: KeyWear) -> Bed {
    let mut bed = Bed::new();
    bed.config.wear = wear;
    bed
}

fn used(store: &Store) -> u64 {
    store.head().unwrap().sealed_values
}

#[test]
fn a_worn_data_key_is_replaced_where_the_root_key_is_at_hand() {
    let bed = bed(KeyWear { replace: 3, end: 100 });
    let store = bed.create();
    put(&store, "a", "1");
    delete(&store, "a");
    put(&store, "b", "2");
    assert_eq!(used(&store), 2, "a deletion encrypts no value");
    drop(store);
    let store = bed.open();
    assert!(!block_on(store.rotate_if_worn(&root(1))).unwrap());
    commit(&store, vec![put_op("c", "3"), put_op("d", "4")]).unwrap();
    assert_eq!(used(&store), 4, "counted on over a restart, each value of a batch");
    assert!(matches!(block_on(store.rotate_if_worn(&root(2))), Err(store::RotateError::WrongRoot)));
    assert!(block_on(store.rotate_if_worn(&root(1))).unwrap());
    assert_eq!(used(&store), 0);
    assert!(!block_on(store.rotate_if_worn(&root(1))).unwrap());
    put(&store, "e", "5");
    drop(store);
    let store = bed.open();
    assert_eq!(used(&store), 1);
    assert_eq!(["b", "c", "d", "e"].map(|at| get(&store, at).unwrap()), ["2", "3", "4", "5"]);
}

#[test]
fn a_data_key_that_is_worn_out_encrypts_nothing_more() {
    let bed = bed(KeyWear { replace: 2, end: 3 });
    let store = bed.create();
    put(&store, "a", "1");
    put(&store, "b", "2");
    let refused = commit(&store, vec![put_op("c", "3"), put_op("d", "4")]);
    assert!(matches!(refused, Err(CommitError::KeyWornOut)), "{refused:?}");
    put(&store, "c", "3");
    assert!(matches!(commit(&store, vec![put_op("d", "4")]), Err(CommitError::KeyWornOut)));
    // What encrypts nothing goes on: a token can be revoked.
    delete(&store, "a");
    assert_eq!((get(&store, "a"), get(&store, "b").as_deref(), get(&store, "d")), (None, Some("2"), None));
    drop(store);
    let store = bed.open();
    assert!(matches!(commit(&store, vec![put_op("d", "4")]), Err(CommitError::KeyWornOut)), "the count is kept");
    assert!(block_on(store.rotate_if_worn(&root(1))).unwrap());
    put(&store, "d", "4");
    assert_eq!(get(&store, "d").as_deref(), Some("4"));
}

#[test]
fn a_refused_value_counts_too() {
    let bed = bed(KeyWear::default());
    let store = bed.create();
    put(&store, "a", "1");
    let absent = store::Batch { conds: vec![store::Cond::Absent(common::path("a"))], ops: vec![put_op("a", "2")] };
    assert!(matches!(block_on(store.commit(absent)), Err(CommitError::Conflict)));
    put(&store, "b", "2");
    assert_eq!(used(&store), 3, "too many is safe, too few is not");
}
