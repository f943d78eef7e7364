//! An attacker who can write the database file: what he changes is refused, never answered.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // an attacker writes files as he likes

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bed, STORE_ID, commit, delete, get, list, path, put, put_op, root, try_get};
use rusqlite::{Connection, params};
use store::{CommitError, OpenError, ReadError, SlotSet, Store};
use testkit::{SeededEntropy, block_on};

/// Entries `dir/0` .. `dir/9` with values that one recognises.
fn filled() -> Bed {
    let bed = Bed::new();
    let store = bed.create();
    for i in 0..10 {
        put(&store, &format!("dir/{i}"), &value(i));
    }
    put(&store, "plain-name", "plain-value");
    store.close();
    bed
}

fn value(i: usize) -> String {
    format!("value-{i}-{}", "v".repeat(i * 300))
}

fn sql(db: &Path) -> Connection {
    Connection::open(db).unwrap()
}

/// Carries out one statement on the closed database; it must change something.
fn change(bed: &Bed, statement: &str) {
    let changed = sql(&bed.db()).execute(statement, []).unwrap();
    assert!(changed > 0, "the attack changed nothing: {statement}");
}

fn tampered_at_open(bed: &Bed) -> &'static str {
    match bed.try_open() {
        Err(OpenError::Tampered { what }) => what,
        Err(other) => panic!("refused, but as {other:?}"),
        Ok(_) => panic!("opened"),
    }
}

fn tampered_at_get(store: &Store, at: &str) {
    assert!(matches!(try_get(store, at), Err(ReadError::Tampered { .. })), "{at} is answered");
}

/// The rows of `value` that `dir/0` and `dir/1` are at: rows are given in the order of first writing.
const ROWS: (i64, i64) = (1, 2);

#[test]
fn swapped_values() {
    let bed = filled();
    let db = sql(&bed.db());
    let of =
        |row: i64| db.query_row("SELECT bytes FROM value WHERE row = ?1", [row], |r| r.get::<_, Vec<u8>>(0)).unwrap();
    let (a, b) = (of(ROWS.0), of(ROWS.1));
    db.execute("UPDATE value SET bytes = ?1 WHERE row = ?2", params![b, ROWS.0]).unwrap();
    db.execute("UPDATE value SET bytes = ?1 WHERE row = ?2", params![a, ROWS.1]).unwrap();
    drop(db);
    let store = bed.open();
    tampered_at_get(&store, "dir/0");
    tampered_at_get(&store, "dir/1");
    assert_eq!(get(&store, "dir/2").unwrap(), value(2));
}

#[test]
fn swapped_names() {
    let bed = filled();
    change(&bed, "UPDATE name SET row = 3 - row WHERE row IN (1, 2)");
    assert!(tampered_at_open(&bed).contains("root"));
}

#[test]
fn a_changed_value() {
    let bed = filled();
    change(&bed, "UPDATE value SET bytes = zeroblob(length(bytes)) WHERE row = 1");
    tampered_at_get(&bed.open(), "dir/0");
    change(&bed, "UPDATE value SET bytes = x'01' WHERE row = 2");
    tampered_at_get(&bed.open(), "dir/1");
}

#[test]
fn a_value_longer_than_any_that_is_written() {
    let bed = filled();
    change(&bed, "UPDATE value SET bytes = zeroblob(1500000) WHERE row = 1");
    tampered_at_get(&bed.open(), "dir/0");
    change(&bed, "UPDATE value SET bytes = zeroblob(50000000) WHERE row = 1");
    tampered_at_get(&bed.open(), "dir/0");
}

#[test]
fn an_old_value_put_back() {
    let bed = filled();
    let old: Vec<u8> = sql(&bed.db()).query_row("SELECT bytes FROM value WHERE row = 1", [], |row| row.get(0)).unwrap();
    let store = bed.open();
    put(&store, "dir/0", "revoked");
    store.close();
    sql(&bed.db()).execute("UPDATE value SET bytes = ?1 WHERE row = 1", [old]).unwrap();
    tampered_at_get(&bed.open(), "dir/0");
}

#[test]
fn an_old_value_put_back_with_its_name() {
    let bed = filled();
    let db = sql(&bed.db());
    let (old, version, tag): (Vec<u8>, i64, Vec<u8>) = db
        .query_row("SELECT bytes, version, tag FROM value JOIN name USING (row) WHERE row = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    drop(db);
    let store = bed.open();
    put(&store, "dir/0", "revoked");
    store.close();
    let db = sql(&bed.db());
    db.execute("UPDATE value SET bytes = ?1 WHERE row = 1", [old]).unwrap();
    db.execute("UPDATE name SET version = ?1, tag = ?2 WHERE row = 1", params![version, tag]).unwrap();
    drop(db);
    assert!(tampered_at_open(&bed).contains("root"));
}

#[test]
fn a_deleted_name() {
    let bed = filled();
    change(&bed, "DELETE FROM name WHERE row = 1");
    assert!(tampered_at_open(&bed).contains("number"));
}

#[test]
fn a_deleted_value() {
    let bed = filled();
    change(&bed, "DELETE FROM value WHERE row = 1");
    tampered_at_get(&bed.open(), "dir/0");
}

#[test]
fn a_deleted_entry_put_back() {
    let bed = filled();
    let old = bed.dir.path().join("old.db").display().to_string();
    let with_old = |statement: &str| {
        let db = sql(&bed.db());
        db.execute("ATTACH ?1 AS old", [&old]).unwrap();
        db.execute_batch(statement).unwrap();
    };
    with_old(
        "CREATE TABLE old.name AS SELECT * FROM name WHERE row = 1; CREATE TABLE old.value AS SELECT * FROM value",
    );
    let store = bed.open();
    delete(&store, "dir/0");
    store.close();
    with_old("INSERT INTO name SELECT * FROM old.name; INSERT INTO value SELECT * FROM old.value WHERE row = 1");
    assert!(tampered_at_open(&bed).contains("number"));
}

#[test]
fn an_inserted_row() {
    let bed = filled();
    change(&bed, "INSERT INTO name SELECT dir, randomblob(48), 99, randomblob(16), 99 FROM name LIMIT 1");
    tampered_at_open(&bed);
}

#[test]
fn an_old_head_put_back_over_new_rows() {
    let bed = filled();
    let old: Vec<u8> = sql(&bed.db()).query_row("SELECT bytes FROM head", [], |row| row.get(0)).unwrap();
    let store = bed.open();
    put(&store, "dir/0", "new");
    store.close();
    sql(&bed.db()).execute("UPDATE head SET bytes = ?1", [old]).unwrap();
    assert!(tampered_at_open(&bed).contains("root"));
}

#[test]
fn a_head_of_zeros_or_none() {
    let bed = filled();
    change(&bed, "UPDATE head SET bytes = zeroblob(length(bytes))");
    assert!(tampered_at_open(&bed).contains("head"));
    change(&bed, "DELETE FROM head");
    assert!(tampered_at_open(&bed).contains("head"));
}

#[test]
fn an_old_keyring_put_back() {
    let bed = filled();
    let old: Vec<u8> = sql(&bed.db()).query_row("SELECT bytes FROM keyring", [], |row| row.get(0)).unwrap();
    let store = bed.open();
    block_on(store.rotate(&root(1))).unwrap();
    store.close();
    sql(&bed.db()).execute("UPDATE keyring SET bytes = ?1", [old]).unwrap();
    assert!(tampered_at_open(&bed).contains("keyring"));
}

/// An old store put back whole is not told by the store itself; the slots tell it, by the generation that the head
/// repeats.
#[test]
fn an_old_store_put_back_whole_shows_its_slot_set() {
    let bed = filled();
    let old = std::fs::read(bed.db()).unwrap();
    let store = bed.open();
    let now = SlotSet { generation: 2, digest: [2; 32] };
    block_on(store.set_slot_set(now)).unwrap();
    store.close();
    std::fs::write(bed.db(), old).unwrap();
    assert_ne!(bed.open().head().unwrap().slots, now);
}

#[test]
fn a_further_table_trigger_view_or_index() {
    for extra in [
        "CREATE TABLE extra (x)",
        "CREATE TRIGGER t AFTER UPDATE ON head BEGIN UPDATE name SET version = 1; END",
        "CREATE VIEW v AS SELECT * FROM name",
        "CREATE INDEX i ON value (bytes)",
        "DROP TABLE value; CREATE VIEW value AS SELECT 1 AS row, x'00' AS bytes",
        "DROP TABLE value; CREATE TABLE value (row INTEGER PRIMARY KEY, bytes)",
    ] {
        let bed = filled();
        sql(&bed.db()).execute_batch(extra).unwrap();
        assert!(matches!(bed.try_open(), Err(OpenError::Corrupt { .. })), "{extra}");
    }
}

#[test]
fn another_format_or_another_program() {
    for pragma in ["PRAGMA user_version = 2", "PRAGMA application_id = 0"] {
        let bed = filled();
        sql(&bed.db()).execute_batch(pragma).unwrap();
        assert!(matches!(bed.try_open(), Err(OpenError::Corrupt { .. })), "{pragma}");
    }
    let bed = Bed::new();
    std::fs::write(bed.db(), b"not a database, but long enough to be looked at").unwrap();
    assert!(matches!(bed.try_open(), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_foreign_store_and_a_foreign_root() {
    let (bed, other) = (filled(), Bed::new());
    std::fs::copy(bed.db(), other.db()).unwrap();
    assert!(matches!(Store::open(&other.config, &root(1), [9; 16]), Err(OpenError::Foreign { .. })));
    assert!(matches!(Store::open(&other.config, &root(9), STORE_ID), Err(OpenError::WrongRoot)));
}

#[test]
fn a_link_in_place_of_the_file() {
    let (bed, other) = (filled(), Bed::new());
    std::os::unix::fs::symlink(bed.db(), other.db()).unwrap();
    assert!(matches!(other.try_open(), Err(OpenError::Missing { .. })));
}

#[test]
fn a_rollback_journal_laid_beside_the_file() {
    let bed = filled();
    let mut journal = bed.db().into_os_string();
    journal.push("-journal");
    std::fs::write(&journal, [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 1]).unwrap();
    assert!(matches!(bed.try_open(), Err(OpenError::Corrupt { .. })));
    assert!(Path::new(&journal).exists(), "SQLite has not acted on it");
}

#[test]
fn a_file_cut_short_anywhere() {
    let bed = filled();
    let whole = std::fs::read(bed.db()).unwrap();
    for length in (0..whole.len()).step_by(1021) {
        std::fs::write(bed.db(), &whole[..length]).unwrap();
        nothing_wrong_is_answered(&bed, &format!("cut to {length} bytes"));
    }
}

#[test]
fn a_bit_flipped_anywhere() {
    let bed = filled();
    let whole = std::fs::read(bed.db()).unwrap();
    let chance = SeededEntropy::new(11);
    for round in 0..500 {
        // Half of them where SQLite keeps its own structures: at the head of a page.
        let at = match round % 2 {
            0 => chance.below(whole.len()),
            _ => chance.below(whole.len() / 4096) * 4096 + chance.below(120),
        };
        let bit = 1u8 << chance.below(8);
        std::fs::write(bed.db(), &whole).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(bed.db()).unwrap();
        file.write_all_at(&[whole[at] ^ bit], at as u64).unwrap();
        drop(file);
        nothing_wrong_is_answered(&bed, &format!("bit {bit:#x} of byte {at}"));
        for suffix in ["db-wal", "db-shm", "db-journal"] {
            let _ = std::fs::remove_file(bed.db().with_extension(suffix));
        }
    }
}

/// Each answer is the right one, or an error.
fn nothing_wrong_is_answered(bed: &Bed, what: &str) {
    let Ok(store) = bed.try_open() else { return };
    for i in 0..10 {
        match try_get(&store, &format!("dir/{i}")) {
            Ok(found) => assert_eq!(found, Some(value(i)), "{what}"),
            Err(ReadError::Tampered { .. } | ReadError::Disk(_)) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
    if let Ok(names) = block_on(store.list(&path("dir"))) {
        assert_eq!(names.len(), 10, "{what}");
    }
    if let Ok(absent) = try_get(&store, "dir/10") {
        assert_eq!(absent, None, "{what}");
    }
}

/// The store as it lies on disk while it runs, in another directory: the database and, if wanted, its WAL.
fn copied(bed: &Bed, with_wal: bool) -> Bed {
    let copy = Bed::new();
    std::fs::copy(bed.db(), copy.db()).unwrap();
    if with_wal {
        std::fs::copy(bed.db().with_extension("db-wal"), copy.db().with_extension("db-wal")).unwrap();
    }
    copy
}

#[test]
fn a_deleted_or_damaged_wal_gives_an_earlier_whole_store_and_no_mixture() {
    let bed = filled();
    let store = bed.open();
    for n in 12..=20 {
        commit(&store, vec![put_op("left", &n.to_string()), put_op("right", &n.to_string())]).unwrap();
    }
    let whole = |bed: &Bed| {
        let store = bed.open();
        let (left, right) = (get(&store, "left"), get(&store, "right"));
        assert_eq!(left, right);
        assert_eq!(left.map_or(11, |n| n.parse().unwrap()), store.head().unwrap().sequence);
        store.head().unwrap().sequence
    };
    assert_eq!(whole(&copied(&bed, true)), 20);
    assert_eq!(whole(&copied(&bed, false)), 11, "what the last clean stop left");
    let wal = std::fs::read(bed.db().with_extension("db-wal")).unwrap();
    let chance = SeededEntropy::new(3);
    for _ in 0..40 {
        let copy = copied(&bed, true);
        let mut changed = wal.clone();
        changed[chance.below(wal.len())] ^= 1 << chance.below(8);
        std::fs::write(copy.db().with_extension("db-wal"), changed).unwrap();
        assert!((11..=20).contains(&whole(&copy)));
    }
}

/// A store whose answers come from the disk each time.
fn running_cold() -> (Bed, Store) {
    let mut bed = filled();
    bed.config.cache_bytes = 0;
    let store = bed.open();
    (bed, store)
}

#[test]
fn a_value_changed_while_the_store_runs() {
    let (bed, store) = running_cold();
    assert_eq!(get(&store, "dir/0").unwrap(), value(0));
    change(&bed, "UPDATE value SET bytes = zeroblob(length(bytes)) WHERE row = 1");
    tampered_at_get(&store, "dir/0");
    change(&bed, "DELETE FROM value WHERE row = 2");
    tampered_at_get(&store, "dir/1");
    assert_eq!(get(&store, "dir/2").unwrap(), value(2));
}

#[test]
fn a_name_removed_or_added_while_the_store_runs() {
    let (bed, store) = running_cold();
    assert_eq!(list(&store, "dir").len(), 10);
    let tampered = |store: &Store| matches!(block_on(store.list(&path("dir"))), Err(ReadError::Tampered { .. }));
    change(&bed, "INSERT INTO name SELECT dir, randomblob(48), 99, randomblob(16), 99 FROM name WHERE row = 1");
    assert!(tampered(&store), "one too many");
    change(&bed, "DELETE FROM name WHERE row = 1");
    assert!(tampered(&store), "one exchanged for another");
    change(&bed, "DELETE FROM name WHERE row = 99");
    assert!(tampered(&store), "one too few");
    assert_eq!(get(&store, "dir/0").unwrap(), value(0), "the entry itself is still proven");
}

#[test]
fn a_head_changed_while_the_store_runs_is_not_written_over() {
    let (bed, store) = running_cold();
    let old: Vec<u8> = sql(&bed.db()).query_row("SELECT bytes FROM head", [], |row| row.get(0)).unwrap();
    put(&store, "a", "1");
    sql(&bed.db()).execute("UPDATE head SET bytes = ?1", [old]).unwrap();
    assert!(matches!(commit(&store, vec![put_op("a", "2")]), Err(CommitError::Tampered { .. })));
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
}

#[test]
fn a_row_taken_away_under_a_write_is_not_papered_over() {
    let (bed, store) = running_cold();
    change(&bed, "DELETE FROM name WHERE row = 1");
    assert!(matches!(commit(&store, vec![put_op("dir/0", "x")]), Err(CommitError::Tampered { .. })));
    assert_eq!(get(&store, "dir/0").unwrap(), value(0));
    put(&store, "dir/1", "others go on");
}

#[test]
fn a_read_that_races_a_commit_is_never_called_tampering() {
    let (_bed, store) = running_cold();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..300 {
                put(&store, "dir/0", &format!("{n:04}"));
                if n % 3 == 0 {
                    delete(&store, "dir/1");
                } else {
                    put(&store, "dir/1", &format!("{n:04}"));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = String::new();
                while !done.load(Ordering::Relaxed) {
                    match try_get(&store, "dir/0") {
                        Ok(Some(found)) if found.len() == 4 => {
                            assert!(found >= last, "time went back from {last} to {found}");
                            last = found;
                        }
                        Ok(Some(_)) | Err(ReadError::Busy) => {}
                        other => panic!("{other:?}"),
                    }
                    match block_on(store.list(&path("dir"))) {
                        Ok(names) => assert!(names.len() >= 9),
                        Err(ReadError::Busy) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                    try_get(&store, "dir/1").map_or_else(|e| assert!(matches!(e, ReadError::Busy), "{e:?}"), drop);
                }
            });
        }
    });
}

#[test]
fn the_file_holds_neither_names_nor_values() {
    let bed = filled();
    let store = bed.open();
    put(&store, "dir/in-the-wal", "value-in-the-wal");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(bed.dir.path()).unwrap() {
        all.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(all.len() > 10_000);
    let holds = |needle: &[u8]| all.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"SQLite format 3"), "the search itself works");
    for needle in ["plain-name", "plain-value", "value-3", "in-the-wal", "vvvvvvvv"] {
        assert!(!holds(needle.as_bytes()), "{needle}");
    }
}
