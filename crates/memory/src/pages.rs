//! Pages from the kernel, between two that nobody may touch.

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// How a region keeps its secrets, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// `memfd_secret(2)`: out of swap, of core dumps, and of the kernel's own map. Nobody reads them by `/proc/PID/mem`
    /// or ptrace.
    Secret,
    /// `mlock(2)`: out of swap, of core dumps and of children. Root reads them.
    Locked,
    /// Neither was allowed (RLIMIT_MEMLOCK): perhaps in swap, and out of core dumps and of children only where the
    /// kernel takes such advice.
    Swappable,
}

/// `len` bytes that can be read and written, for as long as the process lives. Never unmapped: what was handed out
/// stays valid.
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
    pub(crate) protection: Protection,
}

// SAFETY: the pages belong to the process and not to a thread; who may touch which byte is the region's to say.
unsafe impl Send for Pages {}

impl Pages {
    /// `count` pages of the strongest kind that the kernel gives, up to `best`.
    pub(crate) fn new(count: usize, best: Protection) -> io::Result<Self> {
        let page = page_size();
        let len = count * page;
        // All of it untouchable first: what stays so at both ends are the guards.
        // SAFETY: the kernel chooses the place, so nothing that is mapped is touched.
        let outer = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), len + 2 * page, ProtFlags::empty(), MapFlags::PRIVATE)
        }?;
        // SAFETY: within the mapping just made.
        let inner = unsafe { outer.byte_add(page) };
        let protection = match best {
            Protection::Secret if secret_pages(inner, len).is_ok() => Protection::Secret,
            _ => locked_pages(inner, len, best)?,
        };
        // In a child there is nothing at all: what a hook or helper inherits before it becomes another program. Best
        // effort for the second kind, whose pages are wiped there in any case. SAFETY: advice about our own pages,
        // which changes no byte of them here.
        let _ = unsafe { rustix::mm::madvise(inner, len, Advice::LinuxDontFork) };
        let start = NonNull::new(inner.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, protection })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where byte `at` is.
    pub(crate) fn address(&self, at: usize) -> NonNull<u8> {
        assert!(at < self.len, "within the pages");
        // SAFETY: less than `len` from the start of a mapping of `len` bytes.
        unsafe { self.start.add(at) }
    }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: a question of one integer argument.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("Linux knows its page size")
}

/// Puts pages at `at` that the kernel itself does not map. What is beyond RLIMIT_MEMLOCK it refuses here, before any is
/// touched; no advice or flag could have it make them now, for it cannot reach them itself (MAP_POPULATE has no effect,
/// MADV_POPULATE_WRITE fails).
fn secret_pages(at: *mut c_void, len: usize) -> io::Result<()> {
    let fd = secret_file(len)?;
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: `at` is `len` bytes of our own untouchable mapping, which this replaces.
    unsafe { rustix::mm::mmap(at, len, ProtFlags::READ | ProtFlags::WRITE, flags, &fd, 0) }?;
    Ok(())
}

/// A file of such pages, which can only be mapped.
pub(crate) fn secret_file(len: usize) -> io::Result<OwnedFd> {
    // SAFETY: a system call of one integer argument that makes a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&fd, len as u64)?;
    Ok(fd)
}

/// Makes the untouchable pages at `at` usable, and keeps them out of swap if the kernel allows.
fn locked_pages(at: *mut c_void, len: usize, best: Protection) -> io::Result<Protection> {
    // A mapping of secret pages that came half-way is replaced as well.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: as in `secret_pages`.
    unsafe { rustix::mm::mmap_anonymous(at, len, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
    // A kernel that takes no such advice (before 4.14, or a sandbox) is told of as one that locks nothing.
    let mut advised = true;
    for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
        // SAFETY: our own pages, with nothing in them yet.
        advised &= unsafe { rustix::mm::madvise(at, len, advice) }.is_ok();
    }
    if best == Protection::Swappable {
        return Ok(Protection::Swappable);
    }
    // SAFETY: our own pages.
    let locked = unsafe { rustix::mm::mlock(at, len) };
    Ok(if locked.is_ok() && advised { Protection::Locked } else { Protection::Swappable })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `/proc/self/smaps` of the mapping that begins at `pages`.
    fn smaps(pages: &Pages) -> String {
        let begin = format!("{:x}-", pages.start.as_ptr() as usize);
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = text.lines().skip_while(|l| !l.starts_with(&begin));
        let head = lines.next().expect("the mapping is listed").to_owned();
        let rest: Vec<&str> = lines.take_while(|l| l.split(' ').next().is_some_and(|w| w.ends_with(':'))).collect();
        head + "\n" + &rest.join("\n")
    }

    fn flags(pages: &Pages) -> Vec<String> {
        let text = smaps(pages);
        let line = text.lines().find_map(|l| l.strip_prefix("VmFlags:")).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn has(pages: &Pages, wanted: &[&str]) -> bool {
        let flags = flags(pages);
        wanted.iter().all(|w| flags.iter().any(|f| f == w))
    }

    /// What `/proc/self/mem`, and so a debugger or a dump of root's, reads there.
    fn read_from_outside(pages: &Pages) -> io::Result<[u8; 16]> {
        use std::os::unix::fs::FileExt;
        let mut seen = [0; 16];
        std::fs::File::open("/proc/self/mem")?.read_exact_at(&mut seen, pages.start.as_ptr() as u64)?;
        Ok(seen)
    }

    fn write(pages: &Pages) {
        // SAFETY: the first 16 bytes of pages that this test alone has.
        unsafe { ptr::write_bytes(pages.start.as_ptr(), 0x5a, 16) };
    }

    #[test]
    fn secret_pages_are_read_by_nobody_else() {
        if testkit::is_skipped("memfd-secret") {
            return;
        }
        let pages = Pages::new(4, Protection::Secret).unwrap();
        assert_eq!(
            pages.protection,
            Protection::Secret,
            "no memfd_secret(2) (before Linux 6.5 secretmem.enable=1): EDGEKEEP_TEST_SKIP=memfd-secret"
        );
        write(&pages);
        assert!(has(&pages, &["dd", "dc", "lo"]), "{}", smaps(&pages));
        assert!(read_from_outside(&pages).is_err());
    }

    #[test]
    fn locked_pages_are_out_of_swap_and_dumps_and_wiped_in_a_child() {
        let pages = Pages::new(4, Protection::Locked).unwrap();
        assert_eq!(pages.protection, Protection::Locked);
        write(&pages);
        assert!(has(&pages, &["dd", "dc", "lo", "wf"]), "{}", smaps(&pages));
        let locked = smaps(&pages).lines().find_map(|l| l.strip_prefix("Locked:").map(|kb| kb.trim().to_owned()));
        assert_eq!(locked.as_deref(), Some("16 kB"));
        assert_eq!(read_from_outside(&pages).unwrap(), [0x5a; 16], "root does read these");
    }

    #[test]
    fn without_the_right_to_lock_they_are_still_out_of_dumps() {
        let pages = Pages::new(4, Protection::Swappable).unwrap();
        assert_eq!(pages.protection, Protection::Swappable);
        assert!(has(&pages, &["dd", "dc", "wf"]) && !has(&pages, &["lo"]), "{}", smaps(&pages));
    }

    #[test]
    fn before_and_behind_lie_pages_that_nobody_may_touch() {
        let pages = Pages::new(4, Protection::Secret).unwrap();
        let (start, page) = (pages.start.as_ptr() as usize, page_size());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let untouchable = |at: usize| {
            maps.lines().any(|l| {
                let (range, rest) = l.split_once(' ').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let of = |t| usize::from_str_radix(t, 16).unwrap();
                (of(from)..of(to)).contains(&at) && rest.starts_with("---p")
            })
        };
        assert!(untouchable(start - 1) && untouchable(start - page), "{maps}");
        assert!(untouchable(start + 4 * page) && untouchable(start + 5 * page - 1), "{maps}");
    }
}
