//! The store against a `BTreeMap` that is told the same.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Bed, root, try_get};
use proptest::prelude::*;
use secret::SecretBytes;
use store::{Batch, CommitError, Cond, Op, Store, StorePath, Version};
use testkit::block_on;

type Model = BTreeMap<Vec<String>, (String, Version)>;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(Vec<String>, Option<String>)>),
    /// Commits only if a path is absent, or at the version that the model knows (or, one too high, must not).
    Guarded {
        guard: Vec<String>,
        wrong: bool,
        put: (Vec<String>, String),
    },
    Reopen,
    Rotate,
}

fn a_path() -> impl Strategy<Value = Vec<String>> {
    let component = prop::sample::select(vec!["a", "b", "c", "a/b", "long-enough-to-need-a-second-block-of-32"]);
    prop::collection::vec(component.prop_map(str::to_owned), 1..4)
}

fn a_value() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{0,20}", 1 => (1000usize..6000).prop_map(|n| "x".repeat(n))]
}

fn a_step() -> impl Strategy<Value = Step> {
    let op = (a_path(), prop::option::weighted(0.7, a_value()));
    prop_oneof![
        6 => prop::collection::vec(op, 1..5).prop_map(Step::Commit),
        3 => (a_path(), any::<bool>(), (a_path(), a_value()))
            .prop_map(|(guard, wrong, put)| Step::Guarded { guard, wrong, put }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rotate),
    ]
}

fn path(components: &[String]) -> StorePath {
    StorePath::new(components.iter().cloned()).unwrap()
}

fn op(at: &[String], value: Option<&String>) -> Op {
    match value {
        Some(value) => Op::Put(path(at), SecretBytes::new(value.clone().into_bytes())),
        None => Op::Delete(path(at)),
    }
}

/// What lists of every directory must show.
fn lists(model: &Model) -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let mut out: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::from([(vec![], BTreeSet::new())]);
    for path in model.keys() {
        let (last, dirs) = path.split_last().unwrap();
        out.entry(dirs.to_vec()).or_default().insert(last.clone());
        for depth in 0..dirs.len() {
            out.entry(dirs[..depth].to_vec()).or_default().insert(format!("{}/", dirs[depth]));
        }
    }
    out
}

fn compare(store: &Store, model: &Model) {
    for (at, (value, version)) in model {
        let entry = block_on(store.get(&path(at))).unwrap().unwrap();
        assert_eq!((entry.value.expose(), entry.version), (value.as_bytes(), *version), "{at:?}");
    }
    let lists = lists(model);
    for (dir, names) in &lists {
        let expected: Vec<String> = names.iter().cloned().collect();
        assert_eq!(block_on(store.list(&path(dir))).unwrap(), expected, "{dir:?}");
    }
    for absent in ["z", "a/z"] {
        assert_eq!(try_get(store, absent).unwrap(), None);
    }
}

fn run(steps: Vec<Step>) {
    let bed = Bed::new();
    let mut store = bed.create();
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(changes) => {
                let ops = changes.iter().map(|(at, value)| op(at, value.as_ref())).collect();
                let done = block_on(store.commit(Batch { conds: vec![], ops })).unwrap();
                for (at, value) in changes {
                    match value {
                        Some(value) => drop(model.insert(at, (value, Version(done.sequence)))),
                        None => drop(model.remove(&at)),
                    }
                }
            }
            Step::Guarded { guard, wrong, put: (at, value) } => {
                let cond = match (model.get(&guard), wrong) {
                    (Some((_, version)), false) => Cond::VersionIs(path(&guard), *version),
                    (Some((_, version)), true) => Cond::VersionIs(path(&guard), Version(version.0 + 1)),
                    (None, false) => Cond::Absent(path(&guard)),
                    (None, true) => Cond::VersionIs(path(&guard), Version(1)),
                };
                match block_on(store.commit(Batch { conds: vec![cond], ops: vec![op(&at, Some(&value))] })) {
                    Ok(done) if !wrong => drop(model.insert(at, (value, Version(done.sequence)))),
                    Err(CommitError::Conflict) if wrong => {}
                    other => panic!("wrong guard: {wrong}, answer: {other:?}"),
                }
            }
            Step::Reopen => {
                drop(store);
                store = bed.open();
            }
            Step::Rotate => drop(block_on(store.rotate(&root(1))).unwrap()),
        }
        compare(&store, &model);
    }
    drop(store);
    compare(&bed.open(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_that_survives(steps in prop::collection::vec(a_step(), 1..25)) {
        run(steps);
    }
}
