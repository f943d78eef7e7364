//! Finding the end of the ring again, and what is wrong with it.
//!
//! What a power cut can leave is mended without a word of alarm; everything else is an [`Alarm`], which is written into
//! the ring itself and handed to the caller. No alarm keeps the device from starting: a log that was tampered with is
//! worth going on with, as long as it says so.

use std::io;
use std::path::{Path, PathBuf};

use host::Disk;

use super::frame::{ALIGN, Kind, NewRecord};
use super::keys::{ChainKeys, Turned};
use super::parts::{Parts, Window};
use super::ring::{
    AppendError, Cursor, Leave, MAX_SEGMENT_BYTES, MAX_SEGMENTS, MIN_SEGMENT_BYTES, RESERVE_NAME, Ring, blank_file,
    closing_record, segment_name,
};
use super::segment::{HEADER_BYTES, Header, HeaderFound, RESERVE_SLOT, Tail, Walk, walk_parts};

/// A ring that goes on, and what was found at its opening.
#[derive(Debug)]
pub struct Opened {
    /// Ready for records.
    pub ring: Ring,
    /// Records that a power cut took, or half wrote, were wiped from the tail.
    pub torn: bool,
    /// What no power cut explains.
    pub alarms: Vec<Alarm>,
    /// Of an opening that was to end a turn: where the new key begins. `None` too if the disk did not let it end.
    pub turned: Option<Turned>,
}

/// A sign of tampering, of a lost file, or of a failing disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// A segment's file is not there, or not of its size.
    #[error("audit segment {slot} is missing or was cut")]
    SegmentMissing {
        /// Which.
        slot: u32,
    },
    /// A segment's header is not ours, or not the one that must be there.
    #[error("audit segment {slot} does not belong where it lies")]
    SegmentForeign {
        /// Which.
        slot: u32,
    },
    /// Records that were durable are changed or gone.
    #[error("the audit is broken at record {sequence} in segment {slot}")]
    ChainBroken {
        /// Where.
        slot: u32,
        /// The first record that cannot be proven.
        sequence: u64,
    },
    /// A segment does not go on where the one before it ends.
    #[error("the audit lacks records before {sequence}, where segment {slot} begins")]
    Gap {
        /// The segment that does not fit.
        slot: u32,
        /// Its first record.
        sequence: u64,
    },
    /// The audit tells of writes that the store does not have: an older store was put back.
    #[error("the store is at {store}, but the audit tells of {audit}: the store is older than its audit")]
    StoreOlderThanAudit {
        /// Where the store is.
        store: u64,
        /// Where it has been.
        audit: u64,
    },
}

impl Alarm {
    /// What the ring says of it.
    pub(crate) fn line(&self) -> String {
        serde_json::json!({ "type": "ring", "event": "alarm", "error": self.to_string() }).to_string()
    }
}

impl Ring {
    /// Opens the ring in `dir`, at the size it was made with. `store_sequence` is the store's own, for comparison.
    ///
    /// # Errors
    /// [`OpenError::AuditMissing`] when there is none: the caller decides whether to begin a new one.
    pub fn open(disk: &dyn Disk, dir: &Path, keys: ChainKeys, store_sequence: u64) -> Result<Opened, OpenError> {
        let mut alarms = Vec::new();
        let found = survey(disk, dir, &keys)?;
        let newest = found.newest;
        // No power cut takes a segment away that was durable before its key was noted.
        if let Some(turned) = keys.latest()
            && newest.generation < turned.generation
            && host::in_force("ring-put-back-told")
        {
            return Self::begin_again(disk, dir, keys, turned, store_sequence);
        }
        let slots = u64::from(newest.segments);
        let mut files = Vec::with_capacity(found.slots.len());
        for (slot, segment) in found.slots.into_iter().enumerate() {
            let path = dir.join(segment_name(slot as u32));
            match segment {
                Some(s) => files.push(s.file),
                None => {
                    alarms.push(Alarm::SegmentMissing { slot: slot as u32 });
                    files.push(blank_file(disk, &path, found.segment_bytes).map_err(|e| OpenError::disk(&path, e))?);
                }
            }
        }
        let reserve_path = dir.join(RESERVE_NAME);
        let mut reserve = disk.open_rw(&reserve_path).map_err(|e| OpenError::disk(&reserve_path, e))?;
        // At its full length too: a copy that was put back may be sparse. Where nothing is missing it costs two
        // microseconds.
        reserve.allocate(found.segment_bytes).map_err(|e| OpenError::disk(&reserve_path, e))?;

        // Every generation back from the newest must lie in its slot; the oldest may be under an unfinished header.
        for back in 1..slots.min(newest.generation + 1) {
            let (generation, slot) = (newest.generation - back, ((newest.generation - back) % slots) as u32);
            let whole = matches!(found.headers.get(slot as usize), Some(Some(HeaderFound::Valid(h))) if h.generation == generation);
            let missing = matches!(found.headers.get(slot as usize), Some(None));
            if !whole && !missing && back + 1 < slots {
                alarms.push(Alarm::SegmentForeign { slot });
            }
        }

        let segment_bytes = found.segment_bytes;
        let slot = (newest.generation % slots) as usize;
        let path = dir.join(segment_name(slot as u32));
        let key = keys.of(slot as u32, newest.generation);
        let w = Window::new(&*files[slot], segment_bytes).and_then(|parts| walk_parts(parts, &newest, key, |_| {}));
        let w = w.map_err(|e| OpenError::disk(&path, e))?;
        let at = cursor(&newest, &w);
        let mut ring = Self::at(files, reserve, segment_bytes, keys, at);

        // An empty newest segment: the cut may have come before the closing record of the one before.
        if w.end == HEADER_BYTES && newest.generation > 0 {
            let before_slot = ((newest.generation - 1) % slots) as usize;
            let path = dir.join(segment_name(before_slot as u32));
            let disk = |e| OpenError::disk(&path, e);
            let mut parts = Window::new(&*ring.files[before_slot], segment_bytes).map_err(disk)?;
            let header = Header::parse(parts.from(0).map_err(disk)?, before_slot as u32, &ring.keys);
            if let HeaderFound::Valid(before) = header {
                let key = ring.keys.of(before.slot, before.generation);
                let b = walk_parts(parts, &before, key, |_| {}).map_err(disk)?;
                let (closing, link) = closing_record(key, &cursor(&before, &b));
                if !b.closed && link == newest.start {
                    ring.files[before_slot].write_at(&closing, b.end as u64).map_err(disk)?;
                    ring.files[before_slot].sync_data().map_err(disk)?;
                } else if b.link != newest.start || before.generation + 1 != newest.generation {
                    alarms.push(Alarm::Gap { slot: slot as u32, sequence: newest.first_sequence });
                }
            }
        }

        let mut torn = false;
        match w.tail {
            Tail::Clean => {}
            Tail::Torn { until } => {
                torn = true;
                // What survived behind the hole would be found again at every opening.
                let zeros = vec![0; (until + ALIGN).min(segment_bytes as usize).saturating_sub(w.end)];
                let disk = |e| OpenError::disk(&path, e);
                ring.files[slot].write_at(&zeros, w.end as u64).map_err(disk)?;
                ring.files[slot].sync_data().map_err(disk)?;
            }
            Tail::Broken => alarms.push(Alarm::ChainBroken { slot: slot as u32, sequence: w.next_sequence }),
        }
        if w.closed {
            // See `Ring::advance`: the next header was durable before this segment was closed.
            let next = (newest.generation + 1) % slots;
            alarms.push(Alarm::SegmentForeign { slot: next as u32 });
        }
        if store_sequence < w.store_sequence && host::in_force("older-store-told") {
            alarms.push(Alarm::StoreOlderThanAudit { store: store_sequence, audit: w.store_sequence });
        }
        ring.find_reserve();
        let appended = (|| {
            if w.closed || w.tail == Tail::Broken {
                ring.advance(Leave::Abandoned)?; // the damage stays as it is, for whoever looks into it
            }
            ring.append_alarms(&alarms)
        })();
        appended.map_err(|e| match e {
            AppendError::Disk(cause) => OpenError::disk(&path, cause),
            AppendError::TooLarge { .. } => OpenError::disk(&path, io::ErrorKind::InvalidData.into()),
        })?;
        Ok(Opened { ring, torn, alarms, turned: None })
    }

    /// Goes on behind what an earlier need left in the reserve.
    pub(super) fn find_reserve(&mut self) {
        let mut first = [0; HEADER_BYTES];
        let Ok(HEADER_BYTES) = self.reserve.read_at(&mut first, 0) else { return };
        let HeaderFound::Valid(header) = Header::parse(&first, RESERVE_SLOT, &self.keys) else { return };
        let parts = Window::new(&*self.reserve, self.segment_bytes);
        let w = parts.and_then(|parts| walk_parts(parts, &header, self.keys.newest(), |_| {}));
        if let Ok(w) = w {
            self.reserve_at = Some(cursor(&header, &w));
        }
    }

    fn append_alarms(&mut self, alarms: &[Alarm]) -> Result<(), AppendError> {
        let bodies: Vec<String> = alarms.iter().map(Alarm::line).collect();
        let records: Vec<_> =
            bodies.iter().map(|b| NewRecord { kind: Kind::Alarm, store_sequence: 0, body: b.as_bytes() }).collect();
        if records.is_empty() {
            return Ok(());
        }
        self.append(&records)?;
        self.sync()
    }
}

/// The files and headers of a ring.
struct Survey {
    newest: Header,
    segment_bytes: u64,
    /// A file for each slot; `None` where it is missing or not of its size.
    slots: Vec<Option<Segment>>,
    headers: Vec<Option<HeaderFound>>,
}

struct Segment {
    file: Box<dyn host::DiskFile>,
}

/// Looks at every segment's header; the newest tells how many segments there are.
fn survey(disk: &dyn Disk, dir: &Path, keys: &ChainKeys) -> Result<Survey, OpenError> {
    let mut newest: Option<Header> = None;
    let mut found = Vec::new();
    for slot in 0..MAX_SEGMENTS {
        let path = dir.join(segment_name(slot));
        let Some(meta) = disk.meta(&path).map_err(|e| OpenError::disk(&path, e))? else {
            found.push(None);
            continue;
        };
        let file = disk.open_rw(&path).map_err(|e| OpenError::disk(&path, e))?;
        let mut bytes = [0; HEADER_BYTES];
        let n = file.read_at(&mut bytes, 0).map_err(|e| OpenError::disk(&path, e))?;
        let header = Header::parse(bytes.get(..n).unwrap_or_default(), slot, keys);
        if let HeaderFound::Valid(h) = &header
            && (2..=MAX_SEGMENTS).contains(&h.segments)
            && h.generation % u64::from(h.segments) == u64::from(slot)
            && newest.is_none_or(|n| n.generation < h.generation)
        {
            newest = Some(*h);
        }
        found.push(Some((file, header, meta.len)));
    }
    if found.iter().all(Option::is_none) {
        return Err(OpenError::AuditMissing { dir: dir.to_owned() });
    }
    let newest = newest.ok_or_else(|| OpenError::AuditUnreadable { dir: dir.to_owned() })?;
    found.truncate(newest.segments as usize);
    let newest_slot = (newest.generation % u64::from(newest.segments)) as usize;
    let segment_bytes = found.get(newest_slot).and_then(Option::as_ref).map_or(0, |(_, _, len)| *len);
    if !(u64::from(MIN_SEGMENT_BYTES)..=u64::from(MAX_SEGMENT_BYTES)).contains(&segment_bytes) {
        return Err(OpenError::AuditUnreadable { dir: dir.to_owned() });
    }
    let (mut slots, mut headers) = (Vec::new(), Vec::new());
    for segment in found {
        let (file, header) = match segment {
            Some((file, header, len)) if len == segment_bytes => (Some(Segment { file }), Some(header)),
            _ => (None, None),
        };
        slots.push(file);
        headers.push(header);
    }
    Ok(Survey { newest, segment_bytes, slots, headers })
}

pub(crate) fn cursor(header: &Header, w: &Walk) -> Cursor {
    Cursor {
        generation: header.generation,
        end: w.end as u64,
        next_sequence: w.next_sequence,
        link: w.link,
        store_sequence: w.store_sequence,
        durable: w.next_sequence.saturating_sub(1),
    }
}

/// Why there is no ring to go on with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No file of a ring is there, although a store is: the whole history was removed.
    #[error("the audit ring is gone from {}", dir.display())]
    AuditMissing {
        /// Where it should be.
        dir: PathBuf,
    },
    /// Files are there, but none of them is this store's.
    #[error("no segment of the audit ring in {} belongs to this store", dir.display())]
    AuditUnreadable {
        /// Where they lie.
        dir: PathBuf,
    },
    /// The disk failed.
    #[error("the audit ring cannot be read: {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl OpenError {
    pub(super) fn disk(path: &Path, cause: io::Error) -> Self {
        Self::Disk { path: path.to_owned(), cause }
    }
}
