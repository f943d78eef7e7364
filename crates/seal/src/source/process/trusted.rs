//! An executable that nobody but root and ourselves could have put there.
//!
//! The path is walked one component at a time, each opened relative to the one before, and what is checked is what was
//! opened: there is no moment between check and use. Links are followed by hand, for the directory that holds a link
//! decides too. What is executed in the end is the descriptor, not the name.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

use crate::source::SourceError;

/// A hook that may be run: opened, checked, and its interpreter too.
pub(in crate::source) struct Trusted {
    file: File,
    path: PathBuf,
    script: bool,
}

impl Trusted {
    /// Opens the hook and checks it, every directory on the way, and the interpreter that a script names.
    pub(in crate::source) fn open(path: &Path) -> Result<Self, SourceError> {
        let file = walk(path, Use::Run)?;
        let start = beginning(&file, path)?;
        let script = start.starts_with(b"#!");
        if script && host::in_force("hook-interpreter-checked") {
            let interpreter = interpreter(&start)
                .ok_or_else(|| distrust(path, "its first line names no interpreter by an absolute path".into()))?;
            // `env` looks along a search path for the real interpreter, out of our sight.
            if interpreter.file_name().is_some_and(|name| name == "env") {
                return Err(distrust(path, "it leaves the choice of its interpreter to `env`".into()));
            }
            let start = beginning(&walk(&interpreter, Use::Run)?, &interpreter)?;
            if !start.starts_with(ELF) {
                return Err(distrust(&interpreter, "it is named as an interpreter and is no program".into()));
            }
        } else if !script && !start.starts_with(ELF) {
            // The C library would hand such a file to a shell.
            return Err(distrust(path, "it is neither a program nor a script that begins with `#!`".into()));
        }
        Ok(Self { file, path: path.to_owned(), script })
    }

    /// Checks a library, which another trusted program will load by its name: who could have written it, and every
    /// directory on the way. Nobody else can put another file there between this check and that use.
    pub(in crate::source) fn check_library(path: &Path) -> Result<(), SourceError> {
        let start = beginning(&walk(path, Use::Load)?, path)?;
        if start.starts_with(ELF) { Ok(()) } else { Err(distrust(path, "it is no library".into())) }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an interpreter will open the descriptor once more.
    pub(super) fn is_script(&self) -> bool {
        self.script
    }
}

/// What a file is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Run,
    Load,
}

/// Opens the regular file at `path`, fit for its use.
fn walk(path: &Path, wanted: Use) -> Result<File, SourceError> {
    let os = |at: &Path| {
        let what = at.display().to_string();
        move |e: rustix::io::Errno| match e {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => SourceError::NotPresent { what },
            e => SourceError::Os { what, source: e.into() },
        }
    };
    if !path.is_absolute() {
        return Err(distrust(path, "it is not an absolute path".into()));
    }
    let root = || openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(os(path));
    let mut dir: OwnedFd = root()?;
    let mut at = PathBuf::from("/");
    check_directory(&fstat(&dir).map_err(os(&at))?, &at)?;
    let mut left = components(path);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        at.push(&name);
        let found =
            openat(&dir, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(os(&at))?;
        let stat = fstat(&found).map_err(os(&at))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                check_directory(&stat, &at)?;
                dir = found;
            }
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(distrust(&at, format!("more than {MAX_LINKS} symbolic links lead on from it")));
                }
                // In a directory where all may write (sticky), the link's owner is who decides.
                check_owner(&stat, &at)?;
                let target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(os(&at))?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                at.pop();
                if target.is_absolute() {
                    (dir, at) = (root()?, PathBuf::from("/"));
                }
                for name in components(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            FileType::RegularFile if left.is_empty() => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(&dir, &name, flags, Mode::empty()).map_err(os(&at))?;
                // Not what was looked at a moment ago, but what is open now.
                check_file(&fstat(&file).map_err(os(&at))?, &at, wanted)?;
                return Ok(file.into());
            }
            FileType::RegularFile => return Err(SourceError::NotPresent { what: path.display().to_string() }),
            _ => return Err(distrust(&at, "it is not a regular file".into())),
        }
    }
    Err(distrust(path, "it is a directory".into()))
}

/// The names of a path; `..` is kept, for behind a link it means the directory that is then open.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

fn check_owner(stat: &Stat, at: &Path) -> Result<(), SourceError> {
    let ours = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == ours || !host::in_force("hook-owner") {
        return Ok(());
    }
    Err(distrust(at, format!("it belongs to user {}; root or user {ours} is expected", stat.st_uid)))
}

fn check_directory(stat: &Stat, at: &Path) -> Result<(), SourceError> {
    check_owner(stat, at)?;
    // With the sticky bit (as /tmp has it) only the owner of an entry can rename or remove it, and that owner is
    // checked.
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 && host::in_force("hook-directories-closed") {
        return Err(distrust(at, format!("others may write in it (mode {:03o})", stat.st_mode & 0o7777)));
    }
    Ok(())
}

fn check_file(stat: &Stat, at: &Path, wanted: Use) -> Result<(), SourceError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(distrust(at, "it is not a regular file".into()));
    }
    check_owner(stat, at)?;
    if stat.st_mode & 0o022 != 0 && host::in_force("hook-not-writable") {
        return Err(distrust(at, format!("others may write to it (mode {:03o})", stat.st_mode & 0o7777)));
    }
    if wanted == Use::Run && stat.st_mode & 0o111 == 0 {
        return Err(distrust(at, format!("it is not executable (mode {:03o})", stat.st_mode & 0o7777)));
    }
    Ok(())
}

/// The bytes that the kernel looks at to tell what a file is.
fn beginning(file: &File, path: &Path) -> Result<Vec<u8>, SourceError> {
    let mut start = vec![0; KERNEL_LOOKS_AT];
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SourceError::Os { what: path.display().to_string(), source }),
        }
    }
    start.truncate(filled);
    Ok(start)
}

/// The interpreter of a `#!` line, as the kernel reads it.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?;
    // A line that goes on beyond what the kernel reads could name another file to it than to us.
    let line = &line[..line.iter().position(|b| *b == b'\n')?];
    let name = line.split(|b| matches!(b, b' ' | b'\t')).find(|word| !word.is_empty())?;
    let path = PathBuf::from(OsString::from_vec(name.to_vec()));
    (path.is_absolute() && !path.as_os_str().as_bytes().contains(&0)).then_some(path)
}

fn distrust(path: &Path, defect: String) -> SourceError {
    SourceError::NotTrusted { path: path.display().to_string(), defect }
}

impl AsFd for Trusted {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const ELF: &[u8] = b"\x7fELF";
/// BINPRM_BUF_SIZE of Linux since 5.1; older kernels look at 128.
const KERNEL_LOOKS_AT: usize = 256;
/// As the kernel's own limit (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
