//! What every [`Backend`] must do: one body of tests for SQLite and for whatever comes later.

use store::backend::{Backend, BackendError, Change, NameRow, Record};

/// Runs the contract. `make` gives a new, empty backend each time; `again` gives it back after a restart of the
/// process.
///
/// # Panics
/// Where the backend breaks the contract.
pub fn backend_contract<B: Backend>(make: impl Fn() -> B, again: impl Fn(B) -> B) {
    what_is_committed_survives_a_restart(make(), &again);
    what_is_not_committed_does_not(make(), &again);
    a_stage_is_all_or_nothing(make());
    a_change_of_what_is_not_there_is_refused(make());
    limits_are_kept(make());
    bytes_are_bytes(make());
}

fn row(dir: u8, name: u8) -> NameRow {
    NameRow { dir: [dir; 16], name: [name; 48].into(), version: 1, tag: [name; 16], row: u64::from(name) }
}

fn add(name: u8) -> [Change; 2] {
    [Change::AddValue { row: u64::from(name), bytes: vec![name; 10] }, Change::AddName(row(1, name))]
}

fn commit(backend: &mut impl Backend, changes: &[Change]) {
    backend.begin().expect("begins");
    backend.stage(changes).map_err(|e| e.cause).expect("stages");
    backend.commit().expect("commits");
}

fn scanned(backend: &mut impl Backend) -> Vec<NameRow> {
    let mut rows = Vec::new();
    backend.scan(&mut |row| rows.push(row)).expect("scans");
    rows.sort_by(|a, b| (a.dir, &a.name).cmp(&(b.dir, &b.name)));
    rows
}

fn what_is_committed_survives_a_restart<B: Backend>(mut backend: B, again: &impl Fn(B) -> B) {
    commit(&mut backend, &add(3));
    commit(&mut backend, &add(2));
    let head = Change::SetRecord { record: Record::Head, bytes: b"head".to_vec() };
    commit(&mut backend, &[head]);
    let mut backend = again(backend);
    assert_eq!(scanned(&mut backend), [row(1, 2), row(1, 3)]);
    assert_eq!(backend.value(3, 100).expect("reads"), Some(vec![3; 10]));
    assert_eq!(backend.value(4, 100).expect("reads"), None);
    assert_eq!(backend.record(Record::Head, 100).expect("reads").as_deref(), Some(b"head".as_slice()));
    commit(
        &mut backend,
        &[Change::SetValue { row: 3, bytes: vec![9] }, Change::SetName(NameRow { version: 2, ..row(1, 3) })],
    );
    commit(&mut backend, &[Change::RemoveName { dir: [1; 16], name: [2; 48].into() }, Change::RemoveValue { row: 2 }]);
    backend.reopen().expect("reopens");
    backend.checkpoint().expect("checkpoints");
    let mut backend = again(backend);
    assert_eq!(scanned(&mut backend), [NameRow { version: 2, ..row(1, 3) }]);
    assert_eq!((backend.value(3, 100).expect("reads"), backend.value(2, 100).expect("reads")), (Some(vec![9]), None));
}

fn what_is_not_committed_does_not<B: Backend>(mut backend: B, again: &impl Fn(B) -> B) {
    backend.begin().expect("begins");
    backend.stage(&add(1)).map_err(|e| e.cause).expect("stages");
    backend.rollback();
    backend.rollback(); // where nothing is open, nothing happens
    assert_eq!(scanned(&mut backend), []);
    backend.begin().expect("begins again");
    backend.stage(&add(1)).map_err(|e| e.cause).expect("stages");
    let mut backend = again(backend);
    assert_eq!(scanned(&mut backend), []);
    assert_eq!(backend.value(1, 100).expect("reads"), None);
}

fn a_stage_is_all_or_nothing<B: Backend>(mut backend: B) {
    backend.begin().expect("begins");
    backend.stage(&add(1)).map_err(|e| e.cause).expect("stages");
    let [value, name] = add(2);
    let failed =
        backend.stage(&[value, name, Change::RemoveValue { row: 77 }]).expect_err("the last change is refused");
    assert!(failed.open, "what was staged before stays");
    backend.stage(&add(3)).map_err(|e| e.cause).expect("goes on");
    backend.commit().expect("commits");
    assert_eq!(scanned(&mut backend), [row(1, 1), row(1, 3)]);
    assert_eq!(backend.value(2, 100).expect("reads"), None);
}

fn a_change_of_what_is_not_there_is_refused<B: Backend>(mut backend: B) {
    commit(&mut backend, &add(1));
    for change in [
        Change::AddName(row(1, 1)),
        Change::SetName(row(1, 2)),
        Change::RemoveName { dir: [2; 16], name: [1; 48].into() },
        Change::AddValue { row: 1, bytes: vec![] },
        Change::SetValue { row: 2, bytes: vec![] },
        Change::RemoveValue { row: 2 },
    ] {
        backend.begin().expect("begins");
        let failed = backend.stage(std::slice::from_ref(&change)).expect_err("is refused");
        assert!(matches!(failed.cause, BackendError::Damaged { .. }), "{change:?}: {failed:?}");
        backend.rollback();
    }
    assert_eq!(scanned(&mut backend), [row(1, 1)]);
}

fn limits_are_kept<B: Backend>(mut backend: B) {
    for name in 1..=9 {
        commit(&mut backend, &add(name));
    }
    commit(&mut backend, &[Change::AddName(NameRow { row: 50, ..row(2, 1) })]);
    assert_eq!(backend.names(&[1; 16], 100).expect("lists").len(), 9);
    assert_eq!(backend.names(&[1; 16], 4).expect("lists").len(), 4);
    assert_eq!(backend.names(&[2; 16], 4).expect("lists").len(), 1);
    assert_eq!(backend.names(&[3; 16], 4).expect("lists"), []);
    assert!(matches!(backend.value(1, 9), Err(BackendError::Damaged { .. })), "10 bytes where 9 are allowed");
    commit(&mut backend, &[Change::SetRecord { record: Record::Keyring, bytes: vec![1; 5] }]);
    assert!(matches!(backend.record(Record::Keyring, 4), Err(BackendError::Damaged { .. })));
}

fn bytes_are_bytes<B: Backend>(mut backend: B) {
    // Wildcards, quotes, zeros and bytes that are no UTF-8 stand for themselves.
    let names: [&[u8]; 4] = [b"%_%_%_%_%_%_%_%_%_%_", b"'\";--\0\0\0\0\0\0\0\0\0\0\0\0", &[0xff; 48], &[0; 48]];
    for (at, name) in (1..).zip(names) {
        commit(&mut backend, &[Change::AddName(NameRow { name: name.into(), row: at, ..row(0, 0) })]);
    }
    commit(&mut backend, &[Change::RemoveName { dir: [0; 16], name: names[0].into() }]);
    let mut left: Vec<Vec<u8>> = scanned(&mut backend).into_iter().map(|row| row.name.to_vec()).collect();
    left.sort();
    let mut expected: Vec<Vec<u8>> = names[1..].iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(left, expected);
}
