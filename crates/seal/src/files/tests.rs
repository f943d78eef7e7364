//! Damage, power cuts and links: what is read back, and what is displaced.

use super::*;
use crate::slot::SourceKind;
use crate::slot_set::MAX_SLOT_SET_BYTES;
use crate::testing::{Counting, golden_set, ikm, root};
use host::OsDisk;
use testkit::{CrashDisk, Cut, Fault, NameRule, Unsynced};

/// A directory with generation 1 in `a` and generation 2 in `b`, as asked.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn files(&self) -> SlotFiles<'static> {
        SlotFiles::new(&OsDisk, self.0.path())
    }

    fn put(&self, copy: SlotCopy, bytes: &[u8]) {
        OsDisk.replace(&self.0.path().join(copy.file_name()), bytes, 0o600, None).unwrap();
    }

    fn bytes(&self, copy: SlotCopy) -> Vec<u8> {
        OsDisk.read(&self.0.path().join(copy.file_name()), MAX_SLOT_SET_BYTES).unwrap().to_vec()
    }
}

fn generations() -> (SlotSet, SlotSet) {
    let (first, keks) = golden_set();
    let second = first.rewrap_all(&root(), &keks, &Counting::from(100)).unwrap();
    (first, second)
}

#[test]
fn both_copies_are_written_and_closed_to_others() {
    let (place, (set, _)) = (Place::new(), generations());
    place.files().write(&set).unwrap();
    let found = place.files().read().unwrap();
    assert_eq!(found.set, set);
    assert!(found.heal.is_none());
    for copy in [SlotCopy::A, SlotCopy::B] {
        assert_eq!(OsDisk.meta(&place.0.path().join(copy.file_name())).unwrap().unwrap().mode, 0o600);
    }
}

#[test]
fn one_damaged_or_missing_copy_is_healed_from_the_other() {
    let (set, next) = generations();
    let mut rotten = next.encode();
    rotten[100] ^= 1;
    type Damage = Box<dyn Fn(&Place, SlotCopy)>;
    let damages: Vec<(&str, Damage)> = vec![
        ("is missing", Box::new(|p, c| std::fs::remove_file(p.0.path().join(c.file_name())).unwrap())),
        ("digest does not fit", Box::new(move |p, c| p.put(c, &rotten))),
        ("not a slot file", Box::new(|p, c| p.put(c, b""))),
        ("longer than any", Box::new(|p, c| p.put(c, &vec![0; MAX_SLOT_SET_BYTES + 1]))),
        ("has generation 1", Box::new(move |p, c| p.put(c, &set.encode()))),
    ];
    for (fault, damage) in damages {
        for copy in [SlotCopy::A, SlotCopy::B] {
            let place = Place::new();
            place.files().write(&next).unwrap();
            damage(&place, copy);
            let found = place.files().read().unwrap();
            assert_eq!(found.set, next);
            let (which, why) = found.heal.as_ref().unwrap();
            assert_eq!(*which, copy);
            assert!(why.to_string().contains(fault), "{why}");
            let unlocked = found.set.unlock(SourceKind::Exec, ikm()).unwrap();
            place.files().heal(&found, &unlocked).unwrap();
            assert_eq!(place.bytes(copy), next.encode());
            assert!(place.files().read().unwrap().heal.is_none());
        }
    }
}

#[test]
fn a_set_that_was_not_opened_displaces_nothing() {
    let (place, (set, next)) = (Place::new(), generations());
    place.put(SlotCopy::A, &next.encode());
    place.put(SlotCopy::B, &set.encode());
    let found = place.files().read().unwrap();
    let of_another = set.unlock(SourceKind::Exec, ikm()).unwrap();
    assert_eq!(place.files().heal(&found, &of_another).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(place.bytes(SlotCopy::B), set.encode());
}

#[test]
fn refusals_by_name() {
    let (set, keks) = golden_set();
    let place = Place::new();
    assert!(matches!(place.files().read(), Err(ReadSlotsError::Absent { .. })));
    place.put(SlotCopy::A, b"junk");
    let corrupt = place.files().read().unwrap_err();
    assert_eq!(corrupt.to_string(), "both slot files are unusable: slots.a: not a slot file; slots.b: is missing");
    let (one, two) = (
        set.rewrap_all(&root(), &keks, &Counting::from(1)).unwrap(),
        set.rewrap_all(&root(), &keks, &Counting::from(2)).unwrap(),
    );
    place.put(SlotCopy::A, &one.encode());
    place.put(SlotCopy::B, &two.encode());
    assert!(matches!(place.files().read(), Err(ReadSlotsError::Disagree { generation: 2 })));
}

/// What a power cut during a change of generation may leave, at every write and sync, under every model: the
/// generations that can be read, and how often none could be.
fn cuts(lies: &[&str]) -> (std::collections::BTreeSet<u64>, usize) {
    let (old, new) = generations();
    let before = CrashDisk::new();
    SlotFiles::new(&before, before.root()).write(&old).unwrap();
    let disk = CrashDisk::holding(&before.everything());
    for lie in lies {
        disk.inject(Fault::SyncsLie((*lie).into()));
    }
    SlotFiles::new(&disk, disk.root()).write(&new).unwrap();
    let (mut read, mut unreadable) = (std::collections::BTreeSet::new(), 0);
    for at in 0..=disk.events() {
        for (unsynced, names) in Unsynced::ALL.iter().flat_map(|u| NameRule::ALL.iter().map(move |n| (*u, *n))) {
            let place = Place::new();
            disk.image(&Cut { at, unsynced, names, seed: 7 * at as u64 }).write_to(place.0.path());
            let Ok(found) = place.files().read() else {
                unreadable += 1;
                continue;
            };
            let unlocked = found.set.unlock(SourceKind::Exec, ikm()).unwrap();
            place.files().heal(&found, &unlocked).unwrap();
            assert!(place.files().read().unwrap().heal.is_none());
            // The head follows the files, so it says 1 until the write has returned: that is gone on with.
            assert!(unlocked.check_head(1, &old.digest()).is_ok());
            if at == disk.events() && lies.is_empty() {
                assert_eq!(found.set, new, "what has been acknowledged is there");
            }
            read.insert(found.set.generation());
        }
    }
    (read, unreadable)
}

#[test]
fn a_power_cut_at_any_write_or_sync_leaves_the_old_or_the_new_set() {
    assert_eq!(cuts(&[]), ([1, 2].into(), 0));
}

/// The same without one of its syncs: what the test above is there to notice.
#[test]
fn a_missing_fsync_is_noticed() {
    let (_, unreadable) = cuts(&[".slots.a.new", ".slots.b.new"]);
    assert!(unreadable > 0);
}

#[test]
fn a_new_root_key_asks_for_both_copies_of_before() {
    let (before, next) = generations();
    for copy in [SlotCopy::A, SlotCopy::B] {
        let place = Place::new();
        place.files().write(&before).unwrap();
        place.put(copy, b"rotten");
        assert!(place.files().write_first(&before, &next).is_err());
        assert_eq!(place.bytes(copy), b"rotten", "the one that is whole is not displaced, nor the other");
    }
    let place = Place::new();
    place.files().write(&before).unwrap();
    place.files().write_first(&before, &next).unwrap();
    let found = place.files().read().unwrap();
    assert_eq!((&found.set, found.older.as_ref()), (&next, Some(&before)));
    let back = found.step_back().unwrap();
    assert!(matches!(back.heal, Some((SlotCopy::A, CopyFault::Ahead { generation: 2 }))));
    let unlocked = back.set.unlock(SourceKind::Exec, ikm()).unwrap();
    place.files().heal(&back, &unlocked).unwrap();
    assert_eq!(place.files().read().unwrap().set, before);
    place.files().write_first(&before, &next).unwrap();
    place.files().take_back(&before).unwrap();
    assert_eq!(place.bytes(SlotCopy::A), before.encode());
    place.files().write_first(&before, &next).unwrap();
    place.files().write_second(&next).unwrap();
    assert!(place.files().read().unwrap().heal.is_none());
}

#[test]
fn a_link_in_place_of_a_copy_is_not_followed() {
    let (place, (set, _)) = (Place::new(), generations());
    place.files().write(&set).unwrap();
    let (a, elsewhere) = (place.0.path().join("slots.a"), place.0.path().join("elsewhere"));
    OsDisk.rename(&a, &elsewhere, false).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &a).unwrap();
    let found = place.files().read().unwrap();
    assert!(matches!(found.heal, Some((SlotCopy::A, CopyFault::Disk(_)))));
}
