//! A cluster is there whole or not at all, though initdb makes a thousand files and the power may go at any of them.
//!
//! ```text
//! .edgekeep-new: initdb, others let in, synced -> renamed .edgekeep-made -> its parts moved up, PG_VERSION last -> removed
//! ```
//! PGDATA itself is mostly a mount, which no rename replaces. How far a start has come is told by names alone: a
//! cluster without `PG_VERSION` is none, for PostgreSQL too.

use std::io;
use std::path::Path;

use host::Disk;

use crate::failure::{Code, Failure};

/// Sees that `data` holds a cluster; where it holds none, `initdb` makes one in the directory that it is given.
///
/// # Errors
/// What `initdb` or the disk refuses, and if something else lies in `data`. The next call goes on.
pub(super) async fn ensure(
    disk: &dyn Disk,
    data: &Path,
    initdb: impl AsyncFnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::fault(format!("the cluster in {} cannot be made: {e}", data.display()));
    let (new, made) = (data.join(NEW), data.join(MADE));
    let there = |path: &Path| disk.meta(path).map(|m| m.is_some());
    if !there(&data.join(VERSION)).map_err(failed)? && !there(&made).map_err(failed)? {
        let found = disk.list(data).map_err(failed)?;
        if let Some(strange) = found.iter().find(|name| ![NEW, LOST_AND_FOUND].contains(&name.as_str())) {
            let what = format!("{} holds {strange:?} and no cluster", data.display());
            return Err(Failure::new(Code::Refused, what)
                .hint("an initdb that was killed leaves that: look what it is, empty the directory, and start again"));
        }
        // What a cut left of an earlier attempt: nobody has used it.
        disk.remove_tree(&new).map_err(failed)?;
        initdb(&new).await?;
        let_others_in(disk, &new).map_err(failed)?;
        disk.sync_dir(&new).map_err(failed)?;
        disk.rename(&new, &made, false).map_err(failed)?;
        disk.sync_dir(data).map_err(failed)?;
    }
    if there(&made).map_err(failed)? { move_up(disk, data).map_err(failed) } else { Ok(()) }
}

fn move_up(disk: &dyn Disk, data: &Path) -> io::Result<()> {
    let made = data.join(MADE);
    let parts = disk.list(&made)?;
    let up = |name: &str| disk.rename(&made.join(name), &data.join(name), false);
    for name in parts.iter().filter(|name| *name != VERSION) {
        up(name)?;
    }
    // Cut before this, PG_VERSION is not there, and the rest is moved by the next start.
    disk.sync_dir(data)?;
    if parts.iter().any(|name| name == VERSION) {
        up(VERSION)?;
        disk.sync_dir(data)?;
    }
    disk.remove_dir(&made)?;
    disk.sync_dir(data)
}

/// initdb lets in this machine alone; services come over the containers' network, and with a password.
fn let_others_in(disk: &dyn Disk, cluster: &Path) -> io::Result<()> {
    let file = cluster.join("pg_hba.conf");
    let mut text = disk.read(&file, MAX_HBA_BYTES)?.to_vec();
    text.extend_from_slice(b"\nhost all all all scram-sha-256\n");
    disk.replace(&file, &text, 0o600, None)
}

const VERSION: &str = "PG_VERSION";
const NEW: &str = ".edgekeep-new";
const MADE: &str = ".edgekeep-made";
const LOST_AND_FOUND: &str = "lost+found";
const MAX_HBA_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use host::OsDisk;
    use testkit::{CrashDisk, Cut, NameRule, Unsynced};

    use super::*;

    /// What initdb does, in small: as it, all synced at its end.
    fn initdb(disk: &dyn Disk, at: &Path) -> Result<(), Failure> {
        let made = || -> io::Result<()> {
            disk.create_dir(at, 0o700)?;
            disk.create_dir(&at.join("base"), 0o700)?;
            for (name, text) in FILES {
                disk.write_new(&at.join(name), text.as_bytes(), 0o600, None)?;
                disk.sync_file(&at.join(name))?;
            }
            disk.sync_dir(&at.join("base"))?;
            disk.sync_dir(at)?;
            disk.sync_dir(at.parent().unwrap())
        };
        made().map_err(|e| Failure::fault(e.to_string()))
    }

    const FILES: [(&str, &str); 4] =
        [("base/1", "rows"), ("pg_hba.conf", "local all\n"), (VERSION, "15\n"), ("postgresql.conf", "port")];

    fn assert_whole(data: &Path, when: &str) {
        let mut names = OsDisk.list(data).unwrap();
        names.sort();
        assert_eq!(names, [VERSION, "base", "pg_hba.conf", "postgresql.conf"], "{when}");
        assert_eq!(&OsDisk.read(&data.join("base/1"), 9).unwrap()[..], b"rows", "{when}");
        let hba = OsDisk.read(&data.join("pg_hba.conf"), 99).unwrap();
        assert_eq!(&hba[..], b"local all\n\nhost all all all scram-sha-256\n", "{when}");
    }

    #[tokio::test]
    async fn a_power_cut_at_any_moment_leaves_a_cluster_that_the_next_start_completes() {
        let disk = CrashDisk::new();
        let data = disk.path("pg");
        disk.create_dir(&data, 0o700).unwrap();
        disk.sync_dir(disk.root()).unwrap();
        let begun = disk.events();
        ensure(&disk, &data, async |at: &Path| initdb(&disk, at)).await.unwrap();
        assert_whole(&data, "uncut");
        for at in begun..=disk.events() {
            for kill in [false, true] {
                let (unsynced, names) = (Unsynced::ALL[at % 4], NameRule::ALL[at / 4 % 2]);
                let cut = Cut { at, unsynced, names, seed: at as u64 };
                disk.restore(&if kill { disk.killed(at) } else { disk.image(&cut) });
                let when = format!("kill {kill}, event {at}, {unsynced:?}, {names:?}");
                if OsDisk.meta(&data.join(VERSION)).unwrap().is_some() {
                    assert!(OsDisk.meta(&data.join("base/1")).unwrap().is_some(), "half a cluster: {when}");
                }
                let ended = ensure(&OsDisk, &data, async |at: &Path| initdb(&OsDisk, at)).await;
                ended.unwrap_or_else(|e| panic!("{when}: {}", e.fact));
                assert_whole(&data, &when);
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_cluster_is_left_alone_and_what_is_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let (data, ran) = (dir.path(), Cell::new(false));
        let makes = async |at: &Path| {
            ran.set(true);
            initdb(&OsDisk, at)
        };
        let ensure = || ensure(&OsDisk, data, makes);
        OsDisk.write_new(&data.join("base"), b"", 0o600, None).unwrap();
        assert!(ensure().await.unwrap_err().fact.contains("holds \"base\" and no cluster"));
        OsDisk.write_new(&data.join(VERSION), b"15\n", 0o600, None).unwrap();
        ensure().await.unwrap();
        assert!(!ran.get());
    }
}
