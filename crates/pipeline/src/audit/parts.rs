//! The bytes of a segment, a part at a time: opening a ring of 64 MiB segments takes 128 KiB of memory, not 64 MiB.

use std::io;

use host::DiskFile;

use super::chain::LINK_BYTES;
use super::frame::{MAX_BODY_BYTES, span};

/// A segment that can be looked at from any offset.
pub(crate) trait Parts {
    /// Bytes of the segment; what was cut off does not count.
    fn len(&self) -> usize;

    /// What lies at `at`: [`MIN_PART`] bytes or more, fewer only at the segment's end.
    ///
    /// # Errors
    /// The disk's.
    fn from(&mut self, at: usize) -> io::Result<&[u8]>;
}

/// A whole segment in memory.
impl Parts for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn from(&mut self, at: usize) -> io::Result<&[u8]> {
        Ok(self.get(at..).unwrap_or_default())
    }
}

/// A segment on the disk, behind a window that moves.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    len: usize,
    start: usize,
    part: Vec<u8>,
}

impl<'a> Window<'a> {
    /// At most `limit` bytes of `file`.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn new(file: &'a dyn DiskFile, limit: u64) -> io::Result<Self> {
        let len = file.len()?.min(limit) as usize;
        Ok(Self { file, len, start: 0, part: Vec::new() })
    }
}

impl Parts for Window<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn from(&mut self, at: usize) -> io::Result<&[u8]> {
        let at = at.min(self.len);
        let end = self.start + self.part.len();
        let held = at >= self.start && (end == self.len || at + MIN_PART <= end);
        if !held {
            self.part.resize((self.len - at).min(WINDOW_BYTES), 0);
            let n = self.file.read_at(&mut self.part, at as u64)?;
            if n < self.part.len() {
                self.len = at + n; // cut since it was opened
                self.part.truncate(n);
            }
            self.start = at;
        }
        Ok(&self.part[at - self.start..])
    }
}

/// The largest record, with the link in front of it.
pub(crate) const MIN_PART: usize = LINK_BYTES + span(MAX_BODY_BYTES);
/// Several of the largest records; below what an allocator takes straight from the kernel.
const WINDOW_BYTES: usize = 96 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of which every read is counted.
    struct Counted(Vec<u8>, std::cell::Cell<usize>);

    // The trait asks for Send, and one test is one thread.
    struct File(std::sync::Mutex<Counted>);

    impl DiskFile for File {
        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            let f = self.0.lock().unwrap();
            let n = out.len().min(f.0.len().saturating_sub(offset as usize));
            out[..n].copy_from_slice(&f.0[offset as usize..offset as usize + n]);
            f.1.set(f.1.get() + n);
            Ok(n)
        }

        fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("only read")
        }

        fn sync_data(&mut self) -> io::Result<()> {
            unreachable!("only read")
        }

        fn allocate(&mut self, _: u64) -> io::Result<()> {
            unreachable!("only read")
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }
    }

    fn file(bytes: usize) -> (File, Vec<u8>) {
        let image: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
        (File(std::sync::Mutex::new(Counted(image.clone(), std::cell::Cell::new(0)))), image)
    }

    #[test]
    fn every_offset_shows_what_the_whole_image_shows() {
        let (file, image) = file(3 * WINDOW_BYTES + 1000);
        let mut window = Window::new(&file, u64::MAX).unwrap();
        for at in (0..image.len() + 64).step_by(32) {
            let want = image.get(at..).unwrap_or_default();
            let seen = window.from(at).unwrap();
            assert!(seen.len() >= want.len().min(MIN_PART), "{at}");
            assert_eq!(seen, &want[..seen.len()], "{at}");
        }
    }

    #[test]
    fn a_walk_from_front_to_back_reads_little_more_than_the_file() {
        let (file, image) = file(20 * WINDOW_BYTES);
        let mut window = Window::new(&file, u64::MAX).unwrap();
        for at in (0..image.len()).step_by(32) {
            window.from(at).unwrap();
            assert!(window.part.capacity() <= WINDOW_BYTES);
        }
        assert!(file.0.lock().unwrap().1.get() < image.len() * 5 / 4);
    }

    #[test]
    fn a_limit_is_kept_and_a_file_that_was_cut_ends() {
        let (file, image) = file(5000);
        let mut window = Window::new(&file, 4096).unwrap();
        assert_eq!(window.from(4000).unwrap(), &image[4000..4096]);
        file.0.lock().unwrap().0.truncate(1000);
        let mut late = Window { file: &file, len: 4096, start: 0, part: Vec::new() };
        assert_eq!(late.from(900).unwrap(), &image[900..1000]);
        assert_eq!(late.len(), 1000);
        assert!(late.from(2000).unwrap().is_empty());
    }
}
