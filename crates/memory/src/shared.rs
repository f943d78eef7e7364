//! Secret bytes behind a descriptor: another process can hold them for the next start of this one, without a look at
//! them.
//!
//! Of the kernel's secret pages where it has them (`memfd_secret(2)`): whoever holds the descriptor can map them, and
//! nobody reads them from outside, swaps or dumps them. Otherwise of a file in memory (`memfd_create(2)`) whose length
//! is sealed, and which may be swapped. Either way they can be wiped by whoever has the descriptor, also where copies
//! of it are held elsewhere.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, FdFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::LockedBytes;
use crate::pages::{page_size, secret_file};

/// Bytes behind a descriptor; a page at most.
#[derive(Debug)]
pub struct SharedBytes {
    fd: OwnedFd,
}

impl SharedBytes {
    /// A copy of `bytes`.
    ///
    /// # Errors
    /// What the kernel refused, or [`io::ErrorKind::InvalidInput`] for more than a page.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        if bytes.len() > page_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shared = match secret_file(page_size()) {
            Ok(fd) => Self { fd },
            Err(_) => Self { fd: sealed_file(page_size())? },
        };
        shared.write(bytes)?;
        Ok(shared)
    }

    /// What somebody hands back.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The first `len` bytes.
    ///
    /// # Errors
    /// If there are fewer, or it is nothing that holds bytes.
    pub fn read(&self, len: usize) -> io::Result<LockedBytes> {
        self.holds(len)?;
        let mut bytes = LockedBytes::zeroed(len);
        match rustix::io::pread(&self.fd, bytes.expose_mut(), 0) {
            Ok(read) if read == len => Ok(bytes),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            // Secret pages cannot be read, only mapped.
            Err(Errno::SPIPE | Errno::INVAL) => {
                let out = bytes.expose_mut();
                self.mapped(ProtFlags::READ, |at| {
                    // SAFETY: a page is mapped there, `len` is at most a page, and `out` is not in it.
                    unsafe { ptr::copy_nonoverlapping(at.cast_const(), out.as_mut_ptr(), len) }
                })?;
                Ok(bytes)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Puts zeros in the place of everything: whoever else holds it has zeros.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn wipe(&self) -> io::Result<()> {
        self.write(&vec![0; page_size()])
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.holds(bytes.len())?;
        match rustix::io::pwrite(&self.fd, bytes, 0) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::SPIPE | Errno::INVAL) => self.mapped(ProtFlags::READ | ProtFlags::WRITE, |at| {
                // SAFETY: a page is mapped there for writing, and `bytes`, which are not in it, are a page at most.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) }
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether it is a file of at least `len` bytes, and those within a page.
    fn holds(&self, len: usize) -> io::Result<()> {
        let size = usize::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or_default();
        if len <= size && len <= page_size() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Maps its page for as long as `work` takes. Secret pages alone come here: their length never changes once it was
    /// set.
    fn mapped(&self, rights: ProtFlags, work: impl FnOnce(*mut u8)) -> io::Result<()> {
        let page = page_size();
        // SAFETY: the kernel chooses the place, so nothing that is mapped is touched.
        let at = unsafe { rustix::mm::mmap(ptr::null_mut(), page, rights, MapFlags::SHARED, &self.fd, 0) }?;
        work(at.cast());
        // SAFETY: the mapping just made, which nobody has but `work`, and that is over.
        unsafe { rustix::mm::munmap(at.cast::<c_void>(), page) }?;
        Ok(())
    }
}

/// A descriptor of our own for one that this process was started with; both are closed in whatever it starts. `None` if
/// nothing is open under that number.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: not negative; it is borrowed for two calls, which answer EBADF if nothing is open there, and change
    // nothing of a descriptor's owner but that children do not inherit it.
    let theirs = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(theirs, FdFlags::CLOEXEC).ok()?;
    rustix::io::fcntl_dupfd_cloexec(theirs, number).ok()
}

/// A file in memory of a length that nobody changes any more.
fn sealed_file(len: usize) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("edgekeep", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_read_by_whoever_has_the_descriptor_until_it_is_wiped() {
        for shared in [SharedBytes::new(b"hush").unwrap(), SharedBytes { fd: sealed_file(page_size()).unwrap() }] {
            shared.write(b"hush").unwrap();
            let other = SharedBytes::from_fd(shared.as_fd().try_clone_to_owned().unwrap());
            assert_eq!(other.read(4).unwrap().expose(), b"hush");
            assert!(other.read(page_size() + 1).is_err());
            shared.wipe().unwrap();
            assert_eq!(other.read(page_size()).unwrap().expose(), vec![0; page_size()]);
        }
        assert!(SharedBytes::new(&vec![1; page_size() + 1]).is_err());
    }

    #[test]
    fn the_kernel_here_has_secret_pages_which_nobody_reads_but_by_mapping() {
        let shared = SharedBytes::new(b"hush").unwrap();
        assert_eq!(rustix::io::pread(&shared.fd, &mut [0; 4], 0), Err(Errno::SPIPE));
        let sealed = sealed_file(page_size()).unwrap();
        assert!(rustix::fs::ftruncate(&sealed, 0).is_err() && rustix::fs::ftruncate(&shared.fd, 0).is_err());
    }

    #[test]
    fn what_holds_nothing_is_refused() {
        let directory = std::fs::File::open("/").unwrap();
        assert!(SharedBytes::from_fd(directory.into()).read(4).is_err());
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(SharedBytes::from_fd(reader.into()).read(4).is_err());
        assert!(inherited(-1).is_none() && inherited(1_000_000).is_none());
    }
}
