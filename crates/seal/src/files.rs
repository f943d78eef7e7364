//! The slot set on disk: two copies, written one after the other, so that one whole copy is there at any moment.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use host::Disk;

use crate::slot_set::{MAX_SLOT_SET_BYTES, ParseError, SlotSet, Unlocked};

/// Where the copies are.
pub struct SlotFiles<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
}

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotCopy {
    /// `slots.a`, written first.
    A,
    /// `slots.b`, written when the first is durable.
    B,
}

impl SlotCopy {
    /// Its file name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::A => "slots.a",
            Self::B => "slots.b",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The newest whole copy. Not authentic before it is unlocked.
#[derive(Debug)]
pub struct FoundSlots {
    /// The set.
    pub set: SlotSet,
    /// The copy that must be written anew once the set is unlocked, and why.
    pub heal: Option<(SlotCopy, CopyFault)>,
    /// What the other copy holds, where that is whole and of an earlier generation.
    pub older: Option<SlotSet>,
}

impl FoundSlots {
    /// The earlier set in the place of the newer one: the store has never taken the newer.
    pub fn step_back(self) -> Option<Self> {
        let (Some(older), Some((copy, CopyFault::Older { .. }))) = (self.older, self.heal) else { return None };
        let fault = CopyFault::Ahead { generation: self.set.generation() };
        Some(Self { set: older, heal: Some((copy.other(), fault)), older: None })
    }
}

/// What is wrong with one copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// Not there.
    #[error("is missing")]
    Missing,
    /// There, and no slot set.
    #[error("{0}")]
    Unreadable(#[from] ParseError),
    /// Longer than any slot set.
    #[error("is longer than any slot file")]
    TooLong,
    /// Whole, but of an earlier generation: a change was cut short between the copies.
    #[error("has generation {generation}, the other copy a newer one")]
    Older {
        /// Its generation.
        generation: u64,
    },
    /// Whole, but of a generation that the store has never taken: a change of the root key was cut short before its commit.
    #[error("has generation {generation}, which the store has never taken")]
    Ahead {
        /// Its generation.
        generation: u64,
    },
    /// The disk failed.
    #[error("cannot be read: {0}")]
    Disk(#[from] io::Error),
}

/// Why there is no slot set to try.
#[derive(Debug, thiserror::Error)]
pub enum ReadSlotsError {
    /// Neither copy is there.
    #[error("there are no slot files in {dir}")]
    Absent {
        /// Where they should be.
        dir: PathBuf,
    },
    /// Neither copy is whole.
    #[error("both slot files are unusable: slots.a: {a}; slots.b: {b}")]
    Corrupt {
        /// What is wrong with the first.
        a: CopyFault,
        /// What is wrong with the second.
        b: CopyFault,
    },
    /// Both are whole, claim the same generation, and differ: no crash does that.
    #[error("slots.a and slots.b both claim generation {generation}, and differ")]
    Disagree {
        /// The generation they claim.
        generation: u64,
    },
}

impl ReadSlotsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Absent { .. } => {
                "without slots.a and slots.b the store cannot be opened: put them back from a backup of this data directory"
            }
            Self::Corrupt { .. } => {
                "put back slots.a and slots.b from a backup of this data directory; then check the disk"
            }
            Self::Disagree { .. } => {
                "someone wrote to the slot files: keep a copy for investigation, then put back both from a backup"
            }
        }
    }
}

impl<'a> SlotFiles<'a> {
    /// The slot files of the data directory `dir`.
    pub fn new(disk: &'a dyn Disk, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into() }
    }

    /// Whether either file is there, whole or not. A first boot needs a clear "no".
    ///
    /// # Errors
    /// If the disk does not answer: that is not a "no".
    pub fn any_present(&self) -> io::Result<bool> {
        Ok(self.disk.meta(&self.path(SlotCopy::A))?.is_some() || self.disk.meta(&self.path(SlotCopy::B))?.is_some())
    }

    /// Reads both copies and takes the newest whole one. Writes nothing.
    ///
    /// # Errors
    /// [`ReadSlotsError`].
    pub fn read(&self) -> Result<FoundSlots, ReadSlotsError> {
        match (self.copy(SlotCopy::A), self.copy(SlotCopy::B)) {
            (Ok(a), Ok(b)) if a == b => Ok(FoundSlots { set: a, heal: None, older: None }),
            (Ok(a), Ok(b)) if a.generation() == b.generation() => {
                Err(ReadSlotsError::Disagree { generation: a.generation() })
            }
            (Ok(a), Ok(b)) => {
                let (set, older, copy) =
                    if a.generation() > b.generation() { (a, b, SlotCopy::B) } else { (b, a, SlotCopy::A) };
                let fault = CopyFault::Older { generation: older.generation() };
                Ok(FoundSlots { set, heal: Some((copy, fault)), older: Some(older) })
            }
            (Ok(set), Err(fault)) => Ok(FoundSlots { set, heal: Some((SlotCopy::B, fault)), older: None }),
            (Err(fault), Ok(set)) => Ok(FoundSlots { set, heal: Some((SlotCopy::A, fault)), older: None }),
            (Err(CopyFault::Missing), Err(CopyFault::Missing)) => Err(ReadSlotsError::Absent { dir: self.dir.clone() }),
            (Err(a), Err(b)) => Err(ReadSlotsError::Corrupt { a, b }),
        }
    }

    /// Writes a new generation; durable on return.
    ///
    /// A power cut between the two leaves the first copy new and the second old (or, in a new directory, missing): `read`
    /// takes the new one and asks for healing. The head of the store is committed after this, never before: see
    /// [`Unlocked::check_head`].
    ///
    /// # Errors
    /// If the disk fails. Then at least one copy, old or new, is whole.
    pub fn write(&self, set: &SlotSet) -> io::Result<()> {
        let bytes = set.encode();
        let copies: &[SlotCopy] =
            if host::in_force("second-slot-copy") { &[SlotCopy::A, SlotCopy::B] } else { &[SlotCopy::A] };
        for &copy in copies {
            self.disk.replace(&self.path(copy), &bytes, 0o600, None)?;
        }
        Ok(())
    }

    /// Writes the first copy of a set with a new root key, for [`Store::change_root`] to be told of; durable on return. The other
    /// copy keeps the set of before until [`SlotFiles::write_second`]: a power cut before the store's commit steps back to it.
    ///
    /// # Errors
    /// If the disk fails, or the copies do not both hold `before`: then the one that the store knows might be the one displaced.
    ///
    /// [`Store::change_root`]: ../store/struct.Store.html#method.change_root
    pub fn write_first(&self, before: &SlotSet, set: &SlotSet) -> io::Result<()> {
        let whole = |copy| self.copy(copy).is_ok_and(|found| found == *before);
        if host::in_force("both-copies-before-a-new-root") && !(whole(SlotCopy::A) && whole(SlotCopy::B)) {
            return Err(io::Error::other("slots.a and slots.b are not both as the store knows them; restart edgekeep"));
        }
        self.disk.replace(&self.path(SlotCopy::A), &set.encode(), 0o600, None)?;
        match self.copy(SlotCopy::A) {
            Ok(back) if back == *set => Ok(()),
            Ok(_) => Err(io::Error::other("slots.a does not read back as it was written")),
            Err(fault) => Err(io::Error::other(format!("slots.a {fault}"))),
        }
    }

    /// Writes the other copy, once the store has taken the set.
    ///
    /// # Errors
    /// If the disk fails; the next start heals it.
    pub fn write_second(&self, set: &SlotSet) -> io::Result<()> {
        self.disk.replace(&self.path(SlotCopy::B), &set.encode(), 0o600, None)
    }

    /// Puts back what [`SlotFiles::write_first`] displaced, where the store did not take the new set.
    ///
    /// # Errors
    /// If the disk fails; the next start steps back.
    pub fn take_back(&self, before: &SlotSet) -> io::Result<()> {
        self.disk.replace(&self.path(SlotCopy::A), &before.encode(), 0o600, None)
    }

    /// Writes the copy that [`SlotFiles::read`] found wanting. It takes the opened set: a set that does not open must never
    /// displace one that may.
    ///
    /// # Errors
    /// If the disk fails, or `proof` is of another set.
    pub fn heal(&self, found: &FoundSlots, proof: &Unlocked) -> io::Result<()> {
        if proof.digest() != found.set.digest() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the opened slot set is not the one that was read",
            ));
        }
        match &found.heal {
            Some((copy, _)) => self.disk.replace(&self.path(*copy), &found.set.encode(), 0o600, None),
            None => Ok(()),
        }
    }

    fn path(&self, copy: SlotCopy) -> PathBuf {
        self.dir.join(copy.file_name())
    }

    fn copy(&self, copy: SlotCopy) -> Result<SlotSet, CopyFault> {
        let path: &Path = &self.path(copy);
        if self.disk.meta(path)?.is_none() {
            return Err(CopyFault::Missing);
        }
        match self.disk.read(path, MAX_SLOT_SET_BYTES) {
            Ok(bytes) => Ok(SlotSet::parse(&bytes)?),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Err(CopyFault::TooLong),
            Err(e) => Err(e.into()),
        }
    }
}

impl fmt::Debug for SlotFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotFiles({})", self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::SourceKind;
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
        assert!(!place.files().any_present().unwrap());
        place.files().write(&set).unwrap();
        assert!(place.files().any_present().unwrap());
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
}
