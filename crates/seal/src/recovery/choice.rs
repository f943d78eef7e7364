//! How the recovery key leaves the device. The choice is made before anything exists, and is checked before it is
//! relied on.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use host::Disk;

use super::RecoveryKey;

/// Most recipients of a recovery key.
pub const MAX_RECIPIENTS: usize = 20;

/// What becomes of the recovery key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryChoice {
    /// Sealed to these public keys, in `recovery.age` beside the store: safe to collect, useless to a thief.
    AgeRecipients(AgeRecipients),
    /// Written in clear to a new file (0600) on another file system: a stick that is taken away.
    File(PathBuf),
    /// Shown once on the terminal.
    Terminal,
    /// There is none: losing the source loses the secrets.
    None,
}

/// Public keys of the `age` tool: one at least, each once, and each of them can be sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct AgeRecipients(Vec<age::x25519::Recipient>);

impl AgeRecipients {
    /// Reads X25519 recipients (`age1...`).
    ///
    /// # Errors
    /// [`RecipientError`], for the first that will not do.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, RecipientError> {
        let mut recipients: Vec<age::x25519::Recipient> = Vec::new();
        for (index, text) in texts.into_iter().map(str::trim).enumerate() {
            let number = index + 1;
            if recipients.len() == MAX_RECIPIENTS {
                return Err(RecipientError::TooMany);
            }
            if text.get(..15).is_some_and(|t| t.eq_ignore_ascii_case("AGE-SECRET-KEY-")) {
                return Err(RecipientError::SecretKey { number });
            }
            let recipient = age::x25519::Recipient::from_str(text)
                .map_err(|reason| RecipientError::NotARecipient { number, reason })?;
            // Compared as points: each may be written in several ways.
            if LOW_ORDER.iter().any(|low| age::x25519::Recipient::from_str(low).is_ok_and(|low| low == recipient)) {
                return Err(RecipientError::LowOrder { number });
            }
            if recipients.contains(&recipient) {
                return Err(RecipientError::Twice { number });
            }
            recipients.push(recipient);
        }
        if recipients.is_empty() {
            return Err(RecipientError::NoneGiven);
        }
        Ok(Self(recipients))
    }
}

impl fmt::Display for AgeRecipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl fmt::Debug for AgeRecipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// Why recipients cannot be sealed to. Nothing of a pasted secret key is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// An empty list.
    #[error("no age recipient is given")]
    NoneGiven,
    /// Over [`MAX_RECIPIENTS`].
    #[error("more than {MAX_RECIPIENTS} age recipients are given")]
    TooMany,
    /// Half of a key pair that must not be here.
    #[error("age recipient {number} is a secret key: give the public one (`age-keygen -y`), and replace this one")]
    SecretKey {
        /// Counted from 1.
        number: usize,
    },
    /// Not an X25519 recipient.
    #[error("age recipient {number} is no X25519 recipient (`age1...`): {reason}")]
    NotARecipient {
        /// Counted from 1.
        number: usize,
        /// What the parser found.
        reason: &'static str,
    },
    /// A point of low order: the shared secret would be all zero, known to everybody (RFC 7748, 6.1), and `age` panics
    /// at it.
    #[error("age recipient {number} is a point of low order, to which nothing can be sealed")]
    LowOrder {
        /// Counted from 1.
        number: usize,
    },
    /// The same recipient again: perhaps another was meant.
    #[error("age recipient {number} is there twice")]
    Twice {
        /// Counted from 1.
        number: usize,
    },
}

impl RecipientError {
    /// Which recipient it is about, counted from 1; `None` for all of them.
    pub fn number(&self) -> Option<usize> {
        match self {
            Self::NoneGiven | Self::TooMany => None,
            Self::SecretKey { number }
            | Self::NotARecipient { number, .. }
            | Self::LowOrder { number }
            | Self::Twice { number } => Some(*number),
        }
    }
}

/// The bytes of `recovery.age`: the key's text and a line feed, in the format of the `age` tool. `age` draws its own
/// file key and ephemeral keys from the kernel.
///
/// # Errors
/// [`io::Error`] if `age` refuses; to recipients that were read it does not.
pub fn seal_to_recipients(key: &RecoveryKey, recipients: &AgeRecipients) -> io::Result<Vec<u8>> {
    let recipients = recipients.0.iter().map(|r| r as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
    let mut writer = encryptor.wrap_output(Vec::new())?;
    writer.write_all(key.format().as_bytes())?;
    writer.write_all(b"\n")?;
    writer.finish()
}

/// Writes the key in clear to a new file, durably. Whoever takes the disk of the store must not get this too: the file
/// must lie on another file system than `data_dir`.
///
/// # Errors
/// [`RecoveryFileError`]; then nothing was written, or an unreadable part of it was removed again.
pub fn write_file(disk: &dyn Disk, path: &Path, data_dir: &Path, key: &RecoveryKey) -> Result<(), RecoveryFileError> {
    let os = |source: io::Error| RecoveryFileError::Disk { path: path.into(), source };
    let dir = check_file(disk, path, data_dir)?;
    let mut text = key.format();
    text.push('\n');
    let written = disk
        .write_new(path, text.as_bytes(), 0o600, None)
        .and_then(|()| disk.sync_file(path))
        .and_then(|()| disk.sync_dir(dir));
    written.map_err(|e| {
        // What came there since the look is somebody's key, and not ours to remove.
        if e.kind() != io::ErrorKind::AlreadyExists {
            let _ = disk.remove_file(path);
        }
        os(e)
    })
}

/// Whether [`write_file`] would take this place: its directory. Writes nothing.
///
/// # Errors
/// As [`write_file`].
pub fn check_file<'p>(disk: &dyn Disk, path: &'p Path, data_dir: &Path) -> Result<&'p Path, RecoveryFileError> {
    let os = |source: io::Error| RecoveryFileError::Disk { path: path.into(), source };
    let dir = match path.parent() {
        Some(dir) if path.is_absolute() => dir,
        _ => return Err(RecoveryFileError::NotAbsolute { path: path.into() }),
    };
    // Before a first boot the data directory does not exist: the nearest directory that does will hold it.
    let mut home = data_dir;
    while disk.meta(home).map_err(os)?.is_none() {
        home = home.parent().unwrap_or(Path::new("/"));
    }
    if disk.device(dir).map_err(os)? == disk.device(home).map_err(os)? && host::in_force("recovery-file-elsewhere") {
        return Err(RecoveryFileError::SameFileSystem { path: path.into(), data_dir: data_dir.into() });
    }
    if disk.meta(path).map_err(os)?.is_some() {
        return Err(RecoveryFileError::Exists { path: path.into() });
    }
    disk.check_writable(dir).map_err(os)?;
    Ok(dir)
}

/// Why a recovery key was not written to a file.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryFileError {
    /// A relative path means another place in each start.
    #[error("the recovery file {} is not an absolute path", path.display())]
    NotAbsolute {
        /// As given.
        path: PathBuf,
    },
    /// It would be stolen together with the store.
    #[error("the recovery file {} lies on the file system of {}", path.display(), data_dir.display())]
    SameFileSystem {
        /// As given.
        path: PathBuf,
        /// Where the store is.
        data_dir: PathBuf,
    },
    /// Perhaps another store's recovery key.
    #[error("the recovery file {} exists already", path.display())]
    Exists {
        /// As given.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("the recovery file {} cannot be written", path.display())]
    Disk {
        /// As given.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl RecoveryFileError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAbsolute { .. } => "write the path from the root on",
            Self::SameFileSystem { .. } => "name a file on a stick or another disk, or use `age` in [recovery]",
            Self::Exists { .. } => "move it away if it is no longer needed, or name another file",
            Self::Disk { .. } => "see the cause; nothing of the recovery key was left there",
        }
    }
}

/// The points of order 1, 2, 4 and 8 on the curve and its twist (<https://cr.yp.to/ecdh.html#validate>).
const LOW_ORDER: [&str; 5] = [
    "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z",
    "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya",
    "age1anlllllllllllllllllllllllllllllllllllllllllllllllals4n2t7m",
    "age1ur4h5lpmgxu2u9jku0a0r87ydtdqnr0tnsetrlvxvgz3vh6fhqqqzyt4v9",
    "age1t7wft09r2zxzfvwsk92eeql0tvzyghxytqwgapkcyf8dm5ylz9ts6wm9s8",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::recovery;
    use host::OsDisk;
    use std::io::Read;

    fn identity() -> age::x25519::Identity {
        age::x25519::Identity::generate()
    }

    #[test]
    fn each_recipient_opens_it_and_nobody_else() {
        let (one, two, stranger) = (identity(), identity(), identity());
        let texts = [one.to_public().to_string(), two.to_public().to_string()];
        let recipients = AgeRecipients::parse(texts.iter().map(String::as_str)).unwrap();
        let sealed = seal_to_recipients(&recovery(), &recipients).unwrap();
        let open = |identity: &age::x25519::Identity| {
            let decryptor = age::Decryptor::new(&sealed[..]).unwrap();
            let mut text = String::new();
            decryptor.decrypt(std::iter::once(identity as _)).ok()?.read_to_string(&mut text).ok()?;
            Some(text)
        };
        for identity in [&one, &two] {
            assert_eq!(open(identity).unwrap(), format!("{}\n", &*recovery().format()));
        }
        assert!(open(&stranger).is_none());
    }

    #[test]
    fn recipients_are_refused_before_they_are_needed() {
        let good = identity().to_public().to_string();
        let refused = |texts: &[&str]| AgeRecipients::parse(texts.iter().copied()).unwrap_err();
        assert_eq!(refused(&[]), RecipientError::NoneGiven);
        assert_eq!(refused(&[&good, &good]), RecipientError::Twice { number: 2 });
        assert_eq!(refused(&[&good, " AGE-SECRET-KEY-1QQQ"]), RecipientError::SecretKey { number: 2 });
        let mut mistyped = good.clone();
        mistyped.replace_range(10..11, if &good[10..11] == "q" { "p" } else { "q" });
        for bad in ["", "age1", "ssh-ed25519 AAAA", &mistyped, &good.to_uppercase()[..20]] {
            assert!(matches!(refused(&[bad]), RecipientError::NotARecipient { number: 1, .. }), "{bad}");
        }
        // Zero and one in other words: p, p + 1, and with the bit that X25519 masks off.
        let other_words = [
            "age1ahlllllllllllllllllllllllllllllllllllllllllllllllalsn46ayy",
            "age1amlllllllllllllllllllllllllllllllllllllllllllllllalselrwrv",
            "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqzqqsuwj9m",
        ];
        for low in LOW_ORDER.into_iter().chain(other_words) {
            assert_eq!(refused(&[&good, low]), RecipientError::LowOrder { number: 2 }, "{low}");
        }
        let many: Vec<String> = (0..=MAX_RECIPIENTS).map(|_| identity().to_public().to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(refused(&many), RecipientError::TooMany);
        assert!(AgeRecipients::parse(many[1..].iter().copied()).is_ok());
    }

    #[test]
    fn the_file_goes_to_another_file_system_or_nowhere() {
        let (data, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let data_dir = data.path().join("not/made/yet");
        let beside = data.path().join("recovery.txt");
        let same = write_file(&OsDisk, &beside, &data_dir, &recovery());
        assert!(matches!(same, Err(RecoveryFileError::SameFileSystem { .. })), "{same:?}");
        assert!(!beside.exists());

        let path = stick.path().join("recovery.txt");
        assert_ne!(OsDisk.device(data.path()).unwrap(), OsDisk.device(stick.path()).unwrap(), "/dev/shm is a tmpfs");
        write_file(&OsDisk, &path, &data_dir, &recovery()).unwrap();
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o600);
        assert_eq!(&OsDisk.read(&path, 100).unwrap()[..], format!("{}\n", &*recovery().format()).as_bytes());
        assert!(matches!(write_file(&OsDisk, &path, &data_dir, &recovery()), Err(RecoveryFileError::Exists { .. })));
        assert!(matches!(
            write_file(&OsDisk, Path::new("recovery.txt"), &data_dir, &recovery()),
            Err(RecoveryFileError::NotAbsolute { .. })
        ));
    }

    /// Somebody writes `theirs` there as soon as the place was looked at.
    struct Raced<'a> {
        place: &'a Path,
        theirs: &'a [u8],
    }

    impl Disk for Raced<'_> {
        fn meta(&self, path: &Path) -> io::Result<Option<host::Meta>> {
            OsDisk.meta(path)
        }

        fn check_writable(&self, _: &Path) -> io::Result<()> {
            OsDisk.write_new(self.place, self.theirs, 0o600, None)
        }

        fn write_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<host::Owner>) -> io::Result<()> {
            OsDisk.write_new(path, bytes, mode, owner)
        }

        fn remove_file(&self, path: &Path) -> io::Result<()> {
            OsDisk.remove_file(path)
        }

        fn read(&self, path: &Path, max: usize) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
            OsDisk.read(path, max)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            OsDisk.list(dir)
        }

        fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
            OsDisk.create_dir(path, mode)
        }

        fn open_rw(&self, path: &Path) -> io::Result<Box<dyn host::DiskFile>> {
            OsDisk.open_rw(path)
        }

        fn sync_file(&self, path: &Path) -> io::Result<()> {
            OsDisk.sync_file(path)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            OsDisk.sync_dir(path)
        }

        fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
            OsDisk.rename(from, to, replace)
        }

        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            OsDisk.remove_dir(path)
        }

        fn chown(&self, path: &Path, owner: host::Owner) -> io::Result<()> {
            OsDisk.chown(path, owner)
        }

        fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
            OsDisk.lock(path)
        }
    }

    #[test]
    fn a_file_that_came_there_since_the_look_is_neither_written_over_nor_removed() {
        let (data, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let path = stick.path().join("recovery.txt");
        let disk = Raced { place: &path, theirs: b"another's key\n" };
        match write_file(&disk, &path, data.path(), &recovery()) {
            Err(RecoveryFileError::Disk { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::AlreadyExists),
            other => panic!("{other:?}"),
        }
        assert_eq!(&OsDisk.read(&path, 100).unwrap()[..], disk.theirs);
    }
}
