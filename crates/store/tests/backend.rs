//! The contract of backends, with SQLite as the machine runs it and over the recorded disk.

#![allow(clippy::unwrap_used)]

use host::{Disk, OsDisk};
use store::sqlite::{Location, Sqlite};
use testkit::{CrashDisk, backend_contract, scratch_dir};

#[test]
fn sqlite_keeps_the_contract() {
    let dir = scratch_dir();
    let count = std::cell::Cell::new(0);
    let location = |n: i32| Location { path: dir.path().join(format!("{n}.db")), vfs: None };
    backend_contract(
        || {
            count.set(count.get() + 1);
            OsDisk.write_new(&location(count.get()).path, &[], 0o600, None).unwrap();
            Sqlite::create(location(count.get()), &[]).unwrap()
        },
        |backend| {
            drop(backend);
            Sqlite::open(location(count.get())).unwrap()
        },
    );
}

#[test]
fn sqlite_over_the_recorded_disk_keeps_the_contract() {
    let disk = CrashDisk::new();
    let count = std::cell::Cell::new(0);
    let location = |n: i32| Location { path: disk.path(&format!("{n}.db")), vfs: Some(disk.vfs().to_owned()) };
    backend_contract(
        || {
            count.set(count.get() + 1);
            disk.write_new(&location(count.get()).path, &[], 0o600, None).unwrap();
            Sqlite::create(location(count.get()), &[]).unwrap()
        },
        |backend| {
            drop(backend);
            Sqlite::open(location(count.get())).unwrap()
        },
    );
}
