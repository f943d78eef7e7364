//! The ring: files of fixed size, reserved when it is made, written one after the other and then over the oldest. A
//! full disk cannot stop it, and it wears a bounded part of the flash.
//!
//! ```text
//! audit/ring-00 .. ring-07    generation g lies in slot g % 8
//! audit/reserve               for seal, revoke and repair, when the ring fails
//! ```
//! A group of records is accepted when its one write has returned. What a crash may leave, and why it can be read
//! again, is told where the order matters: [`Ring::append`] and `Ring::advance`.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, DiskFile, Entropy};

use super::chain::{ChainKey, Link};
use super::frame::{self, ALIGN, Kind, MAX_BODY_BYTES, NewRecord};
use super::keys::{ChainKeys, Turned};
use super::segment::{HEADER_BYTES, Header, RESERVE_SLOT};

/// How large a new ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize {
    /// Segments: 2 to 64.
    pub segments: u32,
    /// Bytes of each: 64 KiB to 64 MiB, a multiple of 4096. The reserve has one segment's size.
    pub segment_bytes: u32,
}

impl Default for RingSize {
    fn default() -> Self {
        Self { segments: 8, segment_bytes: 4 * 1024 * 1024 }
    }
}

/// Why a ring begins; its first record says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With a new store.
    NewStore,
    /// In place of one that was lost, because somebody asked for it.
    Lost,
}

/// The audit device's files, open for writing.
pub struct Ring {
    pub(crate) files: Vec<Box<dyn DiskFile>>,
    pub(crate) reserve: Box<dyn DiskFile>,
    pub(crate) segment_bytes: u64,
    pub(crate) keys: ChainKeys,
    pub(crate) at: Cursor,
    pub(crate) reserve_at: Option<Cursor>,
    /// A sync failed: pages of this segment may be lost although a later sync says otherwise, so it is left. Or writes
    /// failed one after the other.
    pub(crate) suspect: bool,
    /// Writes that failed since the last good one.
    pub(crate) failures: u32,
    /// The slot of a next segment that could not be begun: its header may be there, and this segment's closing record.
    pub(crate) unfinished: Option<usize>,
    pub(crate) buffer: Vec<u8>,
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub(crate) generation: u64,
    pub(crate) end: u64,
    pub(crate) next_sequence: u64,
    pub(crate) link: Link,
    pub(crate) store_sequence: u64,
    /// Highest sequence that a sync has made durable.
    pub(crate) durable: u64,
}

impl Ring {
    /// Makes the files in `dir`, which exists, and the first record. Durable on return. Files of an older ring are
    /// written over: ask only where none is wanted any more.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(
        disk: &dyn Disk,
        dir: &Path,
        size: RingSize,
        key: ChainKey,
        entropy: &dyn Entropy,
        beginning: Beginning,
        store_sequence: u64,
    ) -> Result<Self, CreateError> {
        let fits = (2..=MAX_SEGMENTS).contains(&size.segments)
            && (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&size.segment_bytes)
            && size.segment_bytes.is_multiple_of(4096);
        if !fits {
            return Err(CreateError::Size { segments: size.segments, segment_bytes: size.segment_bytes });
        }
        let segment_bytes = u64::from(size.segment_bytes);
        let failed = |name: &str| {
            let path = dir.join(name);
            |cause| CreateError::Disk { path, cause }
        };
        // All are reserved before the first is synced: a journal then takes them in one commit, not one a file.
        let mut files = Vec::new();
        for name in (0..size.segments).map(segment_name).chain([RESERVE_NAME.to_owned()]) {
            let file = reserved_file(disk, &dir.join(&name), segment_bytes).map_err(failed(&name))?;
            files.push((name, file));
        }
        for (name, file) in &mut files {
            file.sync_data().map_err(failed(name))?;
        }
        let mut files: Vec<_> = files.into_iter().map(|(_, file)| file).collect();
        let reserve = files.pop().expect("the reserve is the last that was made");
        disk.sync_dir(dir).map_err(|cause| CreateError::Disk { path: dir.to_owned(), cause })?;

        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let at = Cursor {
            generation: 0,
            end: HEADER_BYTES as u64,
            next_sequence: 1,
            link: key.start(&nonce),
            store_sequence,
            durable: 0,
        };
        let mut ring = Self::at(files, reserve, segment_bytes, ChainKeys::new(key), at);
        let first = |cause| CreateError::Disk { path: dir.join(segment_name(0)), cause };
        ring.write_header().map_err(first)?;
        let body = match beginning {
            Beginning::NewStore => r#"{"type":"ring","event":"began","why":"new store"}"#,
            Beginning::Lost => r#"{"type":"ring","event":"began","why":"the former ring was lost"}"#,
        };
        let record = NewRecord { kind: Kind::Began, store_sequence, body: body.as_bytes() };
        ring.append(&[record]).and_then(|()| ring.sync()).map_err(|e| match e {
            AppendError::Disk(cause) => first(cause),
            AppendError::TooLarge { .. } => first(io::ErrorKind::InvalidInput.into()),
        })?;
        Ok(ring)
    }

    /// The files, and where the next record goes.
    pub(super) fn at(
        files: Vec<Box<dyn DiskFile>>,
        reserve: Box<dyn DiskFile>,
        segment_bytes: u64,
        keys: ChainKeys,
        at: Cursor,
    ) -> Self {
        Self {
            files,
            reserve,
            segment_bytes,
            keys,
            at,
            reserve_at: None,
            suspect: false,
            failures: 0,
            unfinished: None,
            buffer: Vec::new(),
        }
    }

    /// Writes the records behind one another: all are accepted on `Ok`, none may be relied on after an error.
    ///
    /// One write for the group, with an end mark behind it. A failed or cut write leaves the cursor where it was, so
    /// that the next group is written over its remains.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(crate) fn append(&mut self, records: &[NewRecord<'_>]) -> Result<(), AppendError> {
        if let Some(r) = records.iter().find(|r| r.body.is_empty() || r.body.len() > MAX_BODY_BYTES) {
            return Err(AppendError::TooLarge { bytes: r.body.len() });
        }
        if let Err(e) = self.take_back_unfinished() {
            self.has_failed();
            return Err(e);
        }
        if self.suspect {
            self.advance(Leave::Abandoned)?;
            self.append_fitting(&[NewRecord {
                kind: Kind::Repaired,
                store_sequence: 0,
                body: br#"{"type":"ring","event":"repaired","why":"the disk had failed; the segment before may lack its end"}"#,
            }])?;
        }
        let mut rest = records;
        while !rest.is_empty() {
            let room = self.segment_bytes - self.at.end - CLOSED_SPAN;
            let mut used = 0;
            let fitting = rest
                .iter()
                .take_while(|r| {
                    used += frame::span(r.body.len()) as u64;
                    used <= room
                })
                .count();
            if fitting == 0 {
                self.advance(Leave::Closed)?;
                continue;
            }
            let (now, later) = rest.split_at(fitting);
            self.append_fitting(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes every accepted record durable.
    ///
    /// # Errors
    /// [`AppendError::Disk`]; the segment is then left at the next append, for after a failed sync the kernel may have
    /// dropped the pages and call them clean.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        let slot = self.slot();
        match self.files[slot].sync_data() {
            Ok(()) => {
                self.at.durable = self.at.next_sequence - 1;
                Ok(())
            }
            Err(cause) => {
                self.suspect = true;
                Err(AppendError::Disk(cause))
            }
        }
    }

    /// Writes to the reserve and makes it durable: for what must work when [`Ring::append`] does not.
    ///
    /// # Errors
    /// [`AppendError`], when the reserve fails too.
    pub(crate) fn append_reserved(&mut self, record: &NewRecord<'_>) -> Result<(), AppendError> {
        if record.body.is_empty() || record.body.len() > MAX_BODY_BYTES {
            return Err(AppendError::TooLarge { bytes: record.body.len() });
        }
        let span = frame::span(record.body.len()) as u64;
        let at = match self.reserve_at {
            Some(at) if at.end + span + ALIGN as u64 <= self.segment_bytes => at,
            used => {
                // Full, or not used yet: begin it anew, tied to where the ring stands.
                let generation = used.map_or(0, |at| at.generation + 1);
                let at = Cursor { generation, end: HEADER_BYTES as u64, ..self.at };
                let header = header_of(&at, RESERVE_SLOT, self.files.len());
                let mut bytes = header.encode(self.keys.newest()).to_vec();
                bytes.resize(HEADER_BYTES + ALIGN, 0);
                self.reserve.write_at(&bytes, 0)?;
                at
            }
        };
        let mut bytes = Vec::with_capacity(frame::span(record.body.len()) + ALIGN);
        let link = frame::encode(&mut bytes, self.keys.newest(), &at.link, at.next_sequence, at.durable, record);
        bytes.resize(bytes.len() + ALIGN, 0);
        self.reserve.write_at(&bytes, at.end)?;
        self.reserve.sync_data()?;
        self.reserve_at = Some(Cursor {
            end: at.end + span,
            next_sequence: at.next_sequence + 1,
            link,
            durable: at.next_sequence,
            ..at
        });
        Ok(())
    }

    /// The highest store sequence that a record tells of.
    pub fn store_sequence(&self) -> u64 {
        self.at.store_sequence
    }

    pub(crate) fn slot(&self) -> usize {
        (self.at.generation % self.files.len() as u64) as usize
    }

    /// One write of records that fit into the segment.
    fn append_fitting(&mut self, records: &[NewRecord<'_>]) -> Result<(), AppendError> {
        let mut at = self.at;
        self.buffer.clear();
        for r in records {
            at.link = frame::encode(&mut self.buffer, self.keys.newest(), &at.link, at.next_sequence, at.durable, r);
            at.next_sequence += 1;
            at.store_sequence = at.store_sequence.max(r.store_sequence);
        }
        at.end += self.buffer.len() as u64;
        // The end mark: older records behind it belong to another generation. There is always room, for the frame that
        // closes the segment is longer.
        self.buffer.resize(self.buffer.len() + ALIGN, 0);
        let slot = self.slot();
        if let Err(cause) = self.files[slot].write_at(&self.buffer, self.at.end) {
            self.has_failed();
            return Err(cause.into());
        }
        self.failures = 0;
        self.at = at;
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        Ok(())
    }

    /// Goes on to the next segment, over the oldest.
    ///
    /// The order: what is in this segment, synced; the next header, synced; the closing record, synced; only then
    /// records in the next. A cut after the header finds an empty segment whose start is the link of the closing
    /// record, which can be made again (`tests::a_power_cut_at_any_write_or_sync_is_mended`). A closed segment without
    /// a next header is therefore never the work of a power cut.
    pub(crate) fn advance(&mut self, leave: Leave) -> Result<(), AppendError> {
        self.advance_under(leave, None).map(drop)
    }

    /// The same, with another key from the next segment on. Says what that begins with.
    pub(crate) fn advance_under(&mut self, leave: Leave, key: Option<ChainKey>) -> Result<Turned, AppendError> {
        let mut next = Cursor { generation: self.at.generation + 1, end: HEADER_BYTES as u64, ..self.at };
        let mut closing = Vec::new();
        if leave == Leave::Closed {
            self.sync()?;
            (closing, next.link) = closing_record(self.keys.newest(), &self.at);
            next.next_sequence += 1;
            next.durable = self.at.next_sequence;
        }
        let (slot, end) = (self.slot(), self.at.end);
        let slots = self.files.len();
        let next_slot = (next.generation % slots as u64) as usize;
        let header = header_of(&next, next_slot as u32, slots);
        let mut bytes = header.encode(key.as_ref().unwrap_or(self.keys.newest())).to_vec();
        bytes.resize(HEADER_BYTES + ALIGN, 0);
        self.unfinished = Some(next_slot);
        self.files[next_slot].write_at(&bytes, 0)?;
        self.files[next_slot].sync_data()?;
        if leave == Leave::Closed {
            self.files[slot].write_at(&closing, end)?;
            self.files[slot].sync_data()?;
        }
        self.at = next;
        (self.suspect, self.unfinished) = (false, None);
        let turned = Turned {
            generation: next.generation,
            first_sequence: next.next_sequence,
            start: next.link,
            segments: slots as u32,
            segment_bytes: self.segment_bytes as u32,
        };
        if let Some(key) = key {
            self.keys.turn(key, turned);
        }
        Ok(turned)
    }

    /// Before anything else is written behind a segment whose end could not be made: a closing record that is there, and
    /// a next header, would say that it ends before what follows.
    fn take_back_unfinished(&mut self) -> Result<(), AppendError> {
        let Some(next_slot) = self.unfinished else { return Ok(()) };
        let (slot, end) = (self.slot(), self.at.end);
        self.files[slot].write_at(&[0; ALIGN], end)?;
        self.files[slot].sync_data()?;
        self.unfinished = None;
        // A header that never got there is not taken back: what it would have been written over is whole. And a bad slot
        // is no reason to leave a good one; if its header comes back with the next start, that start is alarmed.
        let mut there = [0; HEADER_BYTES];
        let next_generation = (self.at.generation + 1).to_be_bytes();
        let read = self.files[next_slot].read_at(&mut there, 0);
        let is_old = matches!(read, Ok(HEADER_BYTES)) && there[16..24] != next_generation;
        if !is_old {
            let next = &mut self.files[next_slot];
            let wiped = next.write_at(&[0; HEADER_BYTES + ALIGN], 0).and_then(|()| next.sync_data());
            if let Err(error) = wiped {
                tracing::warn!(%error, "the header of the audit's next segment cannot be taken back");
            }
        }
        Ok(())
    }

    /// A slip is tried again at the same place; what stays bad is left, but not so soon that a flickering disk would cost
    /// a segment of history each time.
    fn has_failed(&mut self) {
        self.failures += 1;
        if self.failures.is_multiple_of(FAILURES_BEFORE_LEAVING) {
            (self.suspect, self.unfinished) = (true, None);
        }
    }

    fn write_header(&mut self) -> io::Result<()> {
        let slot = self.slot();
        let header = header_of(&self.at, slot as u32, self.files.len());
        self.files[slot].write_at(&header.encode(self.keys.newest()), 0)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} segments, next record {})", self.files.len(), self.at.next_sequence)
    }
}

/// How a segment is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Full: its last record says so.
    Closed,
    /// As it is, because it cannot be trusted or must stay as evidence.
    Abandoned,
}

/// The record that closes a segment, and its link. The same state gives the same bytes.
pub(crate) fn closing_record(key: &ChainKey, at: &Cursor) -> (Vec<u8>, Link) {
    let mut bytes = Vec::new();
    let record = NewRecord { kind: Kind::Closed, store_sequence: 0, body: CLOSED_BODY };
    let link = frame::encode(&mut bytes, key, &at.link, at.next_sequence, at.next_sequence.saturating_sub(1), &record);
    (bytes, link)
}

pub(crate) fn header_of(at: &Cursor, slot: u32, segments: usize) -> Header {
    Header {
        slot,
        segments: segments as u32,
        generation: at.generation,
        first_sequence: at.next_sequence,
        store_sequence: at.store_sequence,
        start: at.link,
    }
}

/// A file of `bytes` zeros whose space is reserved: an old one is wiped.
pub(crate) fn blank_file(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
    let mut file = reserved_file(disk, path, bytes)?;
    file.sync_data()?;
    Ok(file)
}

/// The same, not yet durable.
fn reserved_file(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
    if disk.meta(path)?.is_some() {
        disk.remove_file(path)?;
    }
    let mut file = disk.open_rw(path)?;
    file.allocate(bytes)?;
    Ok(file)
}

pub(crate) fn segment_name(slot: u32) -> String {
    format!("ring-{slot:02}")
}

/// Why there is no new ring.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Out of the bounds of [`RingSize`].
    #[error(
        "an audit ring has 2 to 64 segments of 64 KiB to 64 MiB, a multiple of 4096; asked for {segments} of {segment_bytes}"
    )]
    Size {
        /// How many.
        segments: u32,
        /// How large.
        segment_bytes: u32,
    },
    /// A file could not be made.
    #[error("the audit ring cannot be made: {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// Why records were not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("an audit record of {bytes} bytes; 1 to 16384 are possible")]
    TooLarge { bytes: usize },
    #[error("the audit device failed")]
    Disk(#[from] io::Error),
}

pub(crate) const RESERVE_NAME: &str = "reserve";
pub(crate) const MAX_SEGMENTS: u32 = 64;
/// Room for the largest record, a group beside it, and the closing one.
pub(crate) const MIN_SEGMENT_BYTES: u32 = 64 * 1024;
pub(crate) const MAX_SEGMENT_BYTES: u32 = 64 * 1024 * 1024;
const CLOSED_BODY: &[u8] = br#"{"type":"ring","event":"closed"}"#;
/// Kept free at the end of every segment: the closing record (one block of body).
const CLOSED_SPAN: u64 = 32 + 32 + 32;
/// A burst may need more; it is given back.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;
/// At the third failure in a row.
const FAILURES_BEFORE_LEAVING: u32 = 3;
const _: () = assert!(CLOSED_BODY.len() <= 32);
