//! The record of tries: how often in a row the sources were asked, and the store was not served then.
//!
//! ```text
//! file      two records, at 0 and 512: each in a sector of its own
//! record    magic "EKTRIES\0" 8 | version u16, 1 | outcome u8 | zero u8 | starts u16 | rounds u16 | sequence u64
//!           boot id 16 | CLOCK_BOOTTIME in ms u64 | rest in ms u32 | SHA-256 of all before 32
//! ```
//! The record with the higher sequence counts, and the other one is written next: a cut in the midst of a write leaves
//! the one before, and what a write stands for was not begun then. Nothing can be authenticated here, for there is no
//! key yet: whoever writes to the file can make a device wait, for the longest rest and no longer, and whoever removes
//! it could as well ask the sources himself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::{BootId, BootTime, Disk};
use secret::crypto;

/// What was tried since the store was last served, and how that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tries {
    pub(super) starts: u16,
    /// Times that all sources were asked, over all these starts.
    pub(super) rounds: u16,
    pub(super) outcome: Outcome,
    pub(super) boot: BootId,
    pub(super) at: BootTime,
    /// To be waited after `at`.
    pub(super) rest: Duration,
}

/// What is known of the last try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: the process ended while it was under way, unless it goes on.
    Asked,
    /// A source gave key material.
    Given,
    /// None did, for a reason that may pass.
    Later,
    /// One refused, and only an operator can change that.
    Refused,
    /// None is left of what was agreed for the boot.
    Exhausted,
}

/// The file.
pub(super) struct TriesFile<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    newest: Newest,
}

/// What a reader makes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newest {
    /// Nothing was ever written, or somebody has removed it.
    Nothing,
    Record {
        tries: Tries,
        sequence: u64,
        place: Place,
    },
    /// Something was, and cannot be read.
    Damaged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Second,
}

/// What one of the two places holds.
enum Held {
    Nothing,
    Record(Tries, u64),
    Damaged,
}

impl Tries {
    /// Nothing was tried since the store was served.
    pub(super) fn none(boot: BootId, at: BootTime) -> Self {
        Self { starts: 0, rounds: 0, outcome: Outcome::Asked, boot, at, rest: Duration::ZERO }
    }

    fn encode(&self, sequence: u64) -> [u8; RECORD_BYTES] {
        let mut body = Vec::with_capacity(RECORD_BYTES);
        body.extend_from_slice(MAGIC);
        body.extend_from_slice(&VERSION.to_be_bytes());
        body.extend_from_slice(&[self.outcome.number(), 0]);
        body.extend_from_slice(&self.starts.to_be_bytes());
        body.extend_from_slice(&self.rounds.to_be_bytes());
        body.extend_from_slice(&sequence.to_be_bytes());
        body.extend_from_slice(&self.boot.0);
        body.extend_from_slice(&self.at.0.to_be_bytes());
        body.extend_from_slice(&u32::try_from(self.rest.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(&crypto::sha256(&[&body]));
        body.try_into().expect("the fields of a record have fixed lengths")
    }

    /// A record, and its sequence number; `None` if it is none that we would have written.
    fn parse(bytes: &[u8; RECORD_BYTES]) -> Option<(Self, u64)> {
        let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
        if crypto::sha256(&[body]) != *digest {
            return None;
        }
        let rest = body.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk()?;
        let (&[outcome, zero], rest) = rest.split_first_chunk()?;
        let (starts, rest) = rest.split_first_chunk()?;
        let (rounds, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (pause, []) = rest.split_first_chunk()? else { return None };
        let sequence = u64::from_be_bytes(*sequence);
        let tries = Self {
            starts: u16::from_be_bytes(*starts),
            rounds: u16::from_be_bytes(*rounds),
            outcome: Outcome::from_number(outcome)?,
            boot: BootId(*boot),
            at: BootTime(u64::from_be_bytes(*at)),
            rest: Duration::from_millis(u32::from_be_bytes(*pause).into()),
        };
        // After the last number no record could be newer.
        let ours = u16::from_be_bytes(*version) == VERSION && zero == 0 && sequence != u64::MAX;
        ours.then_some((tries, sequence))
    }
}

impl<'a> TriesFile<'a> {
    /// Reads the file of a state directory, changing nothing.
    pub(super) fn read(disk: &'a dyn Disk, state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let newest = match disk.meta(&path) {
            Ok(None) => Newest::Nothing,
            Ok(Some(_)) => disk.read(&path, FILE_BYTES).map_or(Newest::Damaged, |bytes| newest(&bytes)),
            Err(_) => Newest::Damaged,
        };
        Self { disk, path, newest }
    }

    /// What it says; where it can not be read, that the longest rest begins now.
    pub(super) fn tries(&self, boot: BootId, now: BootTime, longest: Duration) -> Tries {
        match self.newest {
            Newest::Record { tries, .. } => tries,
            Newest::Nothing => Tries::none(boot, now),
            Newest::Damaged => Tries { starts: u16::MAX, rounds: u16::MAX, rest: longest, ..Tries::none(boot, now) },
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.newest == Newest::Damaged
    }

    /// Seen by the next process; durable on return if `durable`.
    pub(super) fn write(&mut self, tries: Tries, durable: bool) -> io::Result<()> {
        let (place, sequence) = match self.newest {
            Newest::Record { sequence, place: Place::First, .. } => (Place::Second, sequence + 1),
            Newest::Record { sequence, place: Place::Second, .. } => (Place::First, sequence + 1),
            Newest::Nothing | Newest::Damaged => (Place::First, 1),
        };
        let new = self.disk.meta(&self.path)?.is_none();
        let mut file = self.disk.open_rw(&self.path)?;
        if self.newest == Newest::Damaged {
            // Else a record of before would stand beside the first new one, and might be the higher.
            file.write_at(&[0; RECORD_BYTES], Place::Second.offset())?;
        }
        file.write_at(&tries.encode(sequence), place.offset())?;
        if durable {
            file.sync_data()?;
            if let Some(dir) = self.path.parent().filter(|_| new) {
                self.disk.sync_dir(dir)?;
            }
        }
        self.newest = Newest::Record { tries, sequence, place };
        Ok(())
    }
}

/// Makes the file in a state directory that is being made, so that its name is durable with the rest.
pub(super) fn prepare(disk: &dyn Disk, state_dir: &Path) -> io::Result<()> {
    disk.open_rw(&state_dir.join(NAME)).map(drop)
}

fn newest(bytes: &[u8]) -> Newest {
    let [first, second] = [Place::First, Place::Second].map(|place| (held(bytes, place), place));
    match (first, second) {
        ((Held::Record(a, m), _), (Held::Record(_, n), _)) if m > n => Newest::of(a, m, Place::First),
        (_, (Held::Record(b, n), place)) => Newest::of(b, n, place),
        ((Held::Record(a, m), place), _) => Newest::of(a, m, place),
        ((Held::Nothing, _), (Held::Nothing, _)) => Newest::Nothing,
        _ => Newest::Damaged,
    }
}

fn held(bytes: &[u8], place: Place) -> Held {
    let from = usize::try_from(place.offset()).unwrap_or(usize::MAX);
    let there = bytes.get(from..).unwrap_or_default();
    let there = &there[..there.len().min(RECORD_BYTES)];
    if there.iter().all(|b| *b == 0) {
        return Held::Nothing;
    }
    there.try_into().ok().and_then(Tries::parse).map_or(Held::Damaged, |(tries, n)| Held::Record(tries, n))
}

impl Newest {
    fn of(tries: Tries, sequence: u64, place: Place) -> Self {
        Self::Record { tries, sequence, place }
    }
}

impl Place {
    fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => SECTOR_BYTES,
        }
    }
}

impl Outcome {
    fn number(self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Given => 1,
            Self::Later => 2,
            Self::Refused => 3,
            Self::Exhausted => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Asked, Self::Given, Self::Later, Self::Refused, Self::Exhausted]
            .into_iter()
            .find(|outcome| outcome.number() == number)
    }
}

/// For fuzzers: any bytes are a record, damage, or nothing; a record has one form only.
pub(super) fn fuzz(bytes: &[u8]) {
    if let Newest::Record { tries, sequence, place } = newest(bytes) {
        let from = usize::try_from(place.offset()).unwrap_or(usize::MAX);
        assert_eq!(bytes.get(from..from + RECORD_BYTES), Some(&tries.encode(sequence)[..]));
    }
}

/// How many starts are counted in these bytes of the file.
#[cfg(test)]
pub(super) fn starts_in(bytes: &[u8]) -> Option<u16> {
    if let Newest::Record { tries, .. } = newest(bytes) { Some(tries.starts) } else { None }
}

/// In the state directory.
pub(super) const NAME: &str = "tries";
const MAGIC: &[u8; 8] = b"EKTRIES\0";
const VERSION: u16 = 1;
const DIGEST_BYTES: usize = 32;
const RECORD_BYTES: usize = 8 + 2 + 2 + 2 + 2 + 8 + 16 + 8 + 4 + DIGEST_BYTES;
const SECTOR_BYTES: u64 = 512;
const FILE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use testkit::{CrashDisk, Cut, NameRule, Unsynced};

    use super::*;

    const BOOT: BootId = BootId([7; 16]);

    fn tries(starts: u16) -> Tries {
        let outcome = Outcome::Refused;
        Tries { starts, rounds: 9, outcome, boot: BOOT, at: BootTime(123_456), rest: Duration::from_secs(30) }
    }

    fn found(disk: &dyn Disk, dir: &Path) -> Tries {
        TriesFile::read(disk, dir).tries(BOOT, BootTime(5), LONGEST)
    }

    const LONGEST: Duration = Duration::from_secs(600);

    /// The digest was computed by another program (`sha256sum`).
    #[test]
    fn the_record_is_known() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/boot/tries.hex");
        let text = hex::encode(tries(3).encode(5));
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            host::OsDisk.replace(&golden, format!("{text}\n").as_bytes(), 0o644, None).unwrap();
        }
        assert_eq!(format!("{text}\n"), std::fs::read_to_string(golden).unwrap());
        assert_eq!(Tries::parse(&tries(3).encode(5)), Some((tries(3), 5)));
    }

    #[test]
    fn records_that_are_none() {
        let good = tries(3).encode(5);
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Tries::parse(&bad), None, "byte {at}");
        }
        // With a digest that fits again.
        let again = |at: usize, byte: u8| {
            let mut bad = good;
            bad[at] = byte;
            let digest = crypto::sha256(&[&bad[..RECORD_BYTES - DIGEST_BYTES]]);
            bad[RECORD_BYTES - DIGEST_BYTES..].copy_from_slice(&digest);
            Tries::parse(&bad)
        };
        assert_eq!(again(0, b'e'), None, "magic");
        assert_eq!(again(9, 2), None, "version");
        assert_eq!(again(10, 5), None, "outcome");
        assert_eq!(again(11, 1), None, "reserved");
        assert_eq!(Tries::parse(&tries(3).encode(u64::MAX)), None, "the last number");
    }

    #[test]
    fn the_newer_of_two_counts_and_the_older_is_written_next() {
        let disk = CrashDisk::new();
        assert_eq!(found(&disk, disk.root()), Tries::none(BOOT, BootTime(5)));
        for n in 1..6 {
            TriesFile::read(&disk, disk.root()).write(tries(n), true).unwrap();
            assert_eq!(found(&disk, disk.root()), tries(n));
        }
        // Bit rot of one leaves the other.
        disk.open_rw(&disk.path(NAME)).unwrap().write_at(&[0xff; 9], 3).unwrap();
        assert_eq!(found(&disk, disk.root()), tries(4));
    }

    /// Whatever is no record of ours is the longest rest, never none, and the next record takes its place.
    #[test]
    fn damage_is_the_longest_rest() {
        let mut long = vec![0; FILE_BYTES];
        long.push(0);
        let cut = &tries(3).encode(1)[..RECORD_BYTES - 1];
        for bytes in [&b"x"[..], cut, &[0xff; FILE_BYTES], &long] {
            let disk = CrashDisk::new();
            disk.write_new(&disk.path(NAME), bytes, 0o600, None).unwrap();
            let mut file = TriesFile::read(&disk, disk.root());
            assert!(file.is_damaged());
            let found_now = file.tries(BOOT, BootTime(5), LONGEST);
            assert_eq!((found_now.rest, found_now.starts), (LONGEST, u16::MAX));
            if bytes.len() <= FILE_BYTES {
                file.write(found_now, true).unwrap();
                assert_eq!(found(&disk, disk.root()), found_now);
            }
        }
    }

    /// A cut at each event, in each way of losing what was not synced: once a write was durable it is there; before,
    /// the one before it or the new one is.
    #[test]
    fn a_cut_at_any_moment_leaves_the_try_before_or_the_new_one() {
        let disk = CrashDisk::new();
        prepare(&disk, disk.root()).unwrap();
        disk.sync_dir(disk.root()).unwrap();
        let mut durable = vec![(disk.events(), 0)];
        let mut written = 0;
        for n in 1..5 {
            // A try, its outcome, and that it was forgotten: the first alone is synced.
            TriesFile::read(&disk, disk.root()).write(tries(n), true).unwrap();
            durable.push((disk.events(), n));
            TriesFile::read(&disk, disk.root()).write(tries(n + 100), false).unwrap();
            written = disk.events();
        }
        let begun = durable[0].0;
        for at in begun..=written {
            for (unsynced, names) in Unsynced::ALL.into_iter().flat_map(|u| NameRule::ALL.map(|n| (u, n))) {
                let cut = Cut { at, unsynced, names, seed: at as u64 };
                let after = CrashDisk::holding(&disk.image(&cut));
                let file = TriesFile::read(&after, after.root());
                let last = durable.iter().rev().find(|(event, _)| *event <= at).unwrap().1;
                if file.is_damaged() {
                    // Only the very first record has none beside it.
                    assert!(last == 0 || at < durable[1].0, "{cut:?}");
                    continue;
                }
                let starts = file.tries(BOOT, BootTime(5), LONGEST).starts;
                assert!([last, last + 1, last + 100].contains(&starts), "{cut:?}: {starts} after {last}");
            }
        }
    }
}
