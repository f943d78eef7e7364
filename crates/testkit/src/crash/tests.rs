//! The models themselves: that they lose what may be lost, and keep what was synced.

use std::path::Path;

use host::{Disk, OsDisk};

use super::*;

fn images(disk: &CrashDisk, at: usize, unsynced: Unsynced, names: NameRule) -> Vec<Image> {
    (0..40).map(|seed| disk.image(&Cut { at, unsynced, names, seed })).collect()
}

/// A file replaced as `Disk::replace` does it is old or new at each moment, under each model.
#[test]
fn a_replaced_file_is_whole_at_every_cut() {
    let disk = CrashDisk::new();
    let path = disk.path("f");
    disk.replace(&path, &[1; 9000], 0o600, None).unwrap();
    let acknowledged = disk.events();
    disk.replace(&path, &[2; 9000], 0o600, None).unwrap();
    for at in 0..=disk.events() {
        for (unsynced, names) in Unsynced::ALL.into_iter().flat_map(|u| NameRule::ALL.map(|n| (u, n))) {
            for image in images(&disk, at, unsynced, names) {
                match image.file("f") {
                    Some(bytes) => {
                        assert!(bytes == [1; 9000] || bytes == [2; 9000], "torn at {at} {unsynced:?} {names:?}")
                    }
                    None => assert!(at < acknowledged, "lost at {at} {unsynced:?} {names:?}"),
                }
                if at == disk.events() {
                    assert_eq!(image.file("f"), Some([2; 9000].as_slice()));
                }
            }
        }
    }
}

#[test]
fn without_its_fsync_the_same_file_is_torn() {
    let disk = CrashDisk::new();
    disk.inject(Fault::SyncsLie(".new".into()));
    disk.replace(&disk.path("f"), &[1; 9000], 0o600, None).unwrap();
    let torn = images(&disk, disk.events(), Unsynced::Pages, NameRule::Ext4)
        .iter()
        .any(|image| image.file("f").is_some_and(|bytes| bytes != [1; 9000]));
    assert!(torn, "the model must show what a missing fsync costs");
}

#[test]
fn without_the_directorys_fsync_the_name_may_be_lost() {
    let disk = CrashDisk::new();
    disk.write_new(&disk.path("f"), b"x", 0o600, None).unwrap();
    disk.sync_file(&disk.path("f")).unwrap();
    let at = disk.events();
    assert!(images(&disk, at, Unsynced::Dropped, NameRule::Strict).iter().all(|image| !image.has("f")));
    assert!(images(&disk, at, Unsynced::Dropped, NameRule::Ext4).iter().all(|image| image.has("f")));
    disk.sync_dir(disk.root()).unwrap();
    assert!(images(&disk, disk.events(), Unsynced::Dropped, NameRule::Strict).iter().all(|image| image.has("f")));
}

#[test]
fn a_directory_is_there_with_what_was_synced_in_it() {
    let disk = CrashDisk::new();
    disk.create_dir(&disk.path("data.new"), 0o700).unwrap();
    disk.write_new(&disk.path("data.new/f"), b"x", 0o600, None).unwrap();
    disk.sync_file(&disk.path("data.new/f")).unwrap();
    disk.sync_dir(&disk.path("data.new")).unwrap();
    disk.rename(&disk.path("data.new"), &disk.path("data"), false).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    for names in NameRule::ALL {
        for image in images(&disk, disk.events(), Unsynced::Dropped, names) {
            assert_eq!(image.file("data/f"), Some(b"x".as_slice()));
            assert!(!image.has("data.new"));
        }
        for at in 0..disk.events() {
            for image in images(&disk, at, Unsynced::Sectors, names) {
                assert!(
                    !image.has("data") || image.file("data/f") == Some(b"x".as_slice()),
                    "half a directory at {at}"
                );
            }
        }
    }
}

#[test]
fn an_image_is_a_disk_to_go_on_with() {
    let disk = CrashDisk::new();
    disk.create_dir(&disk.path("d"), 0o755).unwrap();
    disk.write_new(&disk.path("d/f"), b"x", 0o640, None).unwrap();
    let next = CrashDisk::holding(&disk.everything());
    assert_eq!(next.events(), 0);
    assert_eq!(next.meta(&next.path("d/f")).unwrap().unwrap().mode, 0o640);
    next.replace(&next.path("d/f"), b"y", 0o640, None).unwrap();
    let cut = Cut { at: 0, unsynced: Unsynced::Dropped, names: NameRule::Strict, seed: 0 };
    assert_eq!(next.image(&cut).file("d/f"), Some(b"x".as_slice()));
    assert_eq!(next.everything().file("d/f"), Some(b"y".as_slice()));
}

#[test]
fn writes_in_place_are_torn_by_sectors_and_kept_by_sync() {
    let disk = CrashDisk::new();
    let mut file = disk.open_rw(&disk.path("f")).unwrap();
    file.write_at(&[1; 2048], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new(disk.root())).unwrap();
    file.write_at(&[2; 2048], 0).unwrap();
    let mixed = images(&disk, disk.events(), Unsynced::Sectors, NameRule::Strict);
    assert!(mixed.iter().any(|i| i.file("f").is_some_and(|b| b.contains(&1) && b.contains(&2))));
    file.sync_data().unwrap();
    for image in images(&disk, disk.events(), Unsynced::Sectors, NameRule::Strict) {
        assert_eq!(image.file("f"), Some([2; 2048].as_slice()));
    }
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    let disk = CrashDisk::new();
    disk.write_new(&disk.path("f"), b"one", 0o600, None).unwrap();
    let at = disk.events();
    disk.remove_file(&disk.path("f")).unwrap();
    assert_eq!(disk.killed(at).file("f"), Some(b"one".as_slice()));
    assert!(!disk.killed(disk.events()).has("f"));
    disk.restore(&disk.killed(at));
    assert_eq!(&OsDisk.read(&disk.path("f"), 10).unwrap()[..], b"one");
    assert_eq!(disk.events(), at + 1, "a restored image is no event");
    assert_eq!(disk.written(), [("f".into(), b"one".to_vec())]);
}

/// A sync of one file system's file makes no name of another durable, and nothing is renamed from one to the other.
#[test]
fn a_stick_is_a_file_system_of_its_own() {
    let disk = CrashDisk::new();
    let stick = disk.mount("stick");
    assert_ne!(disk.device(&stick).unwrap(), disk.device(disk.root()).unwrap());
    disk.write_new(&stick.join("f"), b"x", 0o600, None).unwrap();
    disk.sync_file(&stick.join("f")).unwrap();
    disk.write_new(&stick.join("g"), b"x", 0o600, None).unwrap();
    disk.write_new(&disk.path("h"), b"x", 0o600, None).unwrap();
    disk.sync_file(&disk.path("h")).unwrap();
    for image in images(&disk, disk.events(), Unsynced::Dropped, NameRule::Ext4) {
        assert!(image.has("stick/f") && image.has("h") && !image.has("stick/g"));
    }
    let lost_one = |image: &Image| image.has("stick/g");
    assert!(images(&disk, disk.events(), Unsynced::Pages, NameRule::Ext4).iter().any(lost_one));
    let crossed = disk.rename(&stick.join("f"), &disk.path("f"), false).unwrap_err();
    assert_eq!(crossed.kind(), std::io::ErrorKind::CrossesDevices);
}

#[test]
fn a_file_that_was_cut_short_is_whole_or_short() {
    let disk = CrashDisk::new();
    disk.write_new(&disk.path("f"), &[1; 9000], 0o600, None).unwrap();
    disk.sync_file(&disk.path("f")).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    disk.lock().log.events.push(Event::Truncate { ino: 1, length: 0 });
    let mut seen = [false; 2];
    for image in images(&disk, disk.events(), Unsynced::Sectors, NameRule::Strict) {
        let bytes = image.file("f").unwrap();
        assert!(bytes.is_empty() || bytes == [1; 9000], "{} bytes, some of them erased", bytes.len());
        seen[usize::from(bytes.is_empty())] = true;
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn faults_are_met_and_healed() {
    let disk = CrashDisk::new();
    disk.inject(Fault::FullAfterWrites(1));
    disk.write_new(&disk.path("a"), b"x", 0o600, None).unwrap();
    let refused = disk.write_new(&disk.path("b"), b"x", 0o600, None).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    disk.inject(Fault::OneSyncFailsAfter(0));
    assert!(disk.sync_file(&disk.path("a")).is_err());
    disk.heal();
    disk.write_new(&disk.path("b"), b"x", 0o600, None).unwrap();
    disk.sync_file(&disk.path("a")).unwrap();
}
