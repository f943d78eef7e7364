//! The pages of the executable that only a start needs: readers of configuration, certificates, the first provisioning.
//!
//! `mlockall(2)` keeps every page that was touched, those of the executable too, though they hold nothing that must not
//! be in a swap: they are read from the file again. Unlocked, they are the kernel's to take when memory is short; given
//! back after a start, those that serve come back one by one as they are used.

use std::ffi::c_void;
use std::io;

use rustix::mm::Advice;

/// Unlocks the clean pages of the executable's file and gives them back; how many bytes were mapped there. The pages
/// stay in the kernel's cache of the file: what is used again costs a minor fault.
///
/// # Errors
/// What `/proc/self/smaps` or the kernel refused; nothing is lost by it.
pub fn give_back_start() -> io::Result<usize> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let executable = std::fs::read_link("/proc/self/exe")?;
    let mut bytes = 0;
    for (start, len) in clean(&smaps, &executable.to_string_lossy()) {
        let start = start as *mut c_void;
        // SAFETY: unlocking changes no byte.
        unsafe { rustix::mm::munlock(start, len) }?;
        // SAFETY: pages of a file that is being executed, which nobody can write (ETXTBSY), mapped without the right to
        // write and never written to: what is read there again is what was there.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontNeed) }?;
        bytes += len;
    }
    Ok(bytes)
}

/// The mappings of `executable` that nobody may write and nobody has written: relocated pages, which have only become
/// read-only, are private copies (anonymous, in memory or in swap) and are left alone.
fn clean(smaps: &str, executable: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = None;
    let mut copies = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Anonymous:" | "Swap:") => copies.push(words.next() == Some("0")),
            // The last line of a mapping.
            Some("VmFlags:") => found.extend(at.take().filter(|_| copies == [true, true])),
            Some(range) if range.contains('-') => {
                copies.clear();
                let mine = matches!(words.next(), Some("r-xp" | "r--p")) && line.ends_with(executable);
                at = bounds(range).filter(|_| mine);
            }
            _ => {}
        }
    }
    found
}

/// Start and length of a range as the kernel writes it.
fn bounds(range: &str) -> Option<(usize, usize)> {
    let (from, to) = range.split_once('-')?;
    let of = |t| usize::from_str_radix(t, 16).ok();
    let (from, to) = (of(from)?, of(to)?);
    to.checked_sub(from).filter(|len| *len > 0).map(|len| (from, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_nobody_wrote_to() {
        let mapping = |head: &str, anonymous: u32, swap: u32| {
            format!("{head}\nRss: 8 kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nSwapPss: 0 kB\nVmFlags: rd mr\n")
        };
        let smaps = [
            mapping("10000-20000 r--p 00000000 fe:01 7 /usr/bin/edgekeep", 0, 0),
            mapping("20000-50000 r-xp 00010000 fe:01 7 /usr/bin/edgekeep", 0, 0),
            mapping("50000-60000 r--p 00040000 fe:01 7 /usr/bin/edgekeep", 4, 0),
            mapping("60000-70000 r--p 00050000 fe:01 7 /usr/bin/edgekeep", 0, 4),
            mapping("70000-80000 r-xp 00040000 fe:01 7 /usr/lib/other", 0, 0),
            mapping("80000-90000 rw-p 00040000 fe:01 7 /usr/bin/edgekeep", 0, 0),
            mapping("90000-90000 r-xp 00040000 fe:01 7 /usr/bin/edgekeep", 0, 0),
            mapping("zz-yy r-xp 00040000 fe:01 7 /usr/bin/edgekeep", 0, 0),
            "a0000-b0000 r-xp 00040000 fe:01 7 /usr/bin/edgekeep\nVmFlags: rd\n".to_owned(),
        ]
        .concat();
        assert_eq!(clean(&smaps, "/usr/bin/edgekeep"), [(0x10000, 0x10000), (0x20000, 0x30000)]);
    }

    #[test]
    fn the_program_goes_on_and_fetches_what_it_needs() {
        let given = give_back_start().unwrap();
        assert!(given > 100_000, "{given} bytes");
        assert_eq!(give_back_start().unwrap(), given, "and again");
    }
}
