//! A new key for a ring.
//!
//! ```text
//! the store's commit: the new key, and the former with "nobody knows yet where the new one begins"
//!     -> what lay in the reserve, in the ring; a segment under the new key        Ring::turn
//!     -> the store's note of where it began                                       then the former key is over
//! ```
//! Each is durable before the next. Cut anywhere in between, the next opening has both keys and an open question, which
//! [`Ring::open_turning`] answers: a segment under the new key is there, or it is made now.
//!
//! Once that is noted, a ring whose segments under the new key are all gone is not gone on from: whoever has the former
//! key would have the end of his own records signed. It begins again where the note says ([`Ring::begin_again`]).

use std::path::Path;

use host::Disk;

use super::chain::ChainKey;
use super::frame::{self, ALIGN, Kind, NewRecord};
use super::keys::{ChainKeys, Turned};
use super::open::{Alarm, OpenError, Opened};
use super::parts::Window;
use super::ring::{
    AppendError, Cursor, Leave, MAX_SEGMENT_BYTES, MAX_SEGMENTS, MIN_SEGMENT_BYTES, RESERVE_NAME, Ring, blank_file,
    header_of, segment_name,
};
use super::segment::{HEADER_BYTES, Header, HeaderFound, RESERVE_SLOT, walk_parts};

impl Ring {
    /// Opens a ring whose last turn was cut short: `keys` are those of before it, `next` is the one after it. The ring is
    /// under `next` then, and says since when; or the disk does not let it, and it goes on under the former key.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn open_turning(
        disk: &dyn Disk,
        dir: &Path,
        keys: ChainKeys,
        next: ChainKey,
        store_sequence: u64,
    ) -> Result<Opened, OpenError> {
        if let Some(turned) = first_under(disk, dir, &next)? {
            let opened = Self::open(disk, dir, keys.turned(next, turned), store_sequence)?;
            return Ok(Opened { turned: Some(turned), ..opened });
        }
        let mut opened = Self::open(disk, dir, keys, store_sequence)?;
        match opened.ring.turn(next) {
            Ok(turned) => opened.turned = Some(turned),
            Err(error) => tracing::warn!(error = %host::with_causes(&error), "the audit does not take its new key"),
        }
        Ok(opened)
    }

    /// Goes on in a new segment under `next`, and says where. Durable on return. What lies in the reserve comes into the
    /// ring first, under the key that it was written under. Nothing happens where `next` is today's key.
    ///
    /// # Errors
    /// [`AppendError`]; the ring goes on under the former key.
    pub(crate) fn turn(&mut self, next: ChainKey) -> Result<Turned, AppendError> {
        if let Some(turned) = self.keys.latest()
            && self.keys.newest().is(&next)
        {
            return Ok(turned);
        }
        self.append(&[])?; // leaves a segment that cannot be closed, and takes back what a failure has begun
        self.empty_reserve()?;
        self.advance_under(Leave::Closed, Some(next))
    }

    /// In the ring before it is wiped: cut in between, it is there twice. A reserve that cannot be read has nothing to
    /// save, and one that cannot be wiped counts nowhere once the key is another.
    fn empty_reserve(&mut self) -> Result<(), AppendError> {
        if self.reserve_at.is_none() {
            return Ok(());
        }
        let mut rescued = Vec::new();
        if let Err(error) = self.rescue(&mut rescued) {
            tracing::warn!(%error, "the audit's reserve cannot be read to its end");
        }
        let records: Vec<_> = rescued
            .iter()
            .map(|(kind, store_sequence, body)| NewRecord { kind: *kind, store_sequence: *store_sequence, body })
            .collect();
        for group in records.chunks(GROUP) {
            self.append(group)?;
            self.sync()?;
        }
        self.reserve_at = None;
        let wiped = self.reserve.write_at(&[0; HEADER_BYTES], 0).and_then(|()| self.reserve.sync_data());
        if let Err(error) = wiped {
            tracing::warn!(%error, "the audit's reserve cannot be wiped");
        }
        Ok(())
    }

    fn rescue(&self, rescued: &mut Vec<(Kind, u64, Vec<u8>)>) -> std::io::Result<()> {
        let mut first = [0; HEADER_BYTES];
        if self.reserve.read_at(&mut first, 0)? == HEADER_BYTES
            && let HeaderFound::Valid(header) = Header::parse_under(&first, RESERVE_SLOT, self.keys.newest())
        {
            let parts = Window::new(&*self.reserve, self.segment_bytes)?;
            let see = |f: &frame::Frame<'_>| rescued.push((f.kind, f.store_sequence, f.body.to_vec()));
            walk_parts(parts, &header, self.keys.newest(), see)?;
        }
        Ok(())
    }

    /// Makes the first segment under the newest key again, where none under it is there any more. Nothing that lies on
    /// the disk has a part in it, or a former key would. Header and alarm are one write within one sector: no cut takes
    /// the one and leaves the other.
    pub(super) fn begin_again(
        disk: &dyn Disk,
        dir: &Path,
        keys: ChainKeys,
        at: Turned,
        store_sequence: u64,
    ) -> Result<Opened, OpenError> {
        let segments = at.segments.clamp(2, MAX_SEGMENTS);
        let segment_bytes = u64::from(at.segment_bytes.clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES));
        let whole = |name: &str| {
            let path = dir.join(name);
            let failed = |e| OpenError::disk(&path, e);
            match disk.meta(&path).map_err(failed)? {
                Some(meta) if meta.len == segment_bytes => disk.open_rw(&path).map_err(failed),
                _ => blank_file(disk, &path, segment_bytes).map_err(failed),
            }
        };
        let files = (0..segments).map(|slot| whole(&segment_name(slot))).collect::<Result<Vec<_>, _>>()?;
        let start = Cursor {
            generation: at.generation,
            end: HEADER_BYTES as u64,
            next_sequence: at.first_sequence,
            link: at.start,
            store_sequence,
            durable: at.first_sequence.saturating_sub(1),
        };
        let mut ring = Self::at(files, whole(RESERVE_NAME)?, segment_bytes, keys, start);
        let slot = ring.slot();
        let alarm = Alarm::SegmentMissing { slot: slot as u32 };
        let key = ring.keys.newest();
        let mut bytes = header_of(&start, slot as u32, ring.files.len()).encode(key).to_vec();
        let body = alarm.line();
        let record = NewRecord { kind: Kind::Alarm, store_sequence: 0, body: body.as_bytes() };
        ring.at.link = frame::encode(&mut bytes, key, &start.link, start.next_sequence, start.durable, &record);
        ring.at.end = bytes.len() as u64;
        ring.at.next_sequence += 1;
        bytes.resize(bytes.len() + ALIGN, 0);
        let failed = |e| OpenError::disk(&dir.join(segment_name(slot as u32)), e);
        ring.files[slot].write_at(&bytes, 0).map_err(failed)?;
        ring.files[slot].sync_data().map_err(failed)?;
        ring.at.durable = ring.at.next_sequence - 1;
        ring.find_reserve();
        Ok(Opened { ring, torn: false, alarms: vec![alarm], turned: None })
    }
}

/// The segment of lowest generation under `key`.
fn first_under(disk: &dyn Disk, dir: &Path, key: &ChainKey) -> Result<Option<Turned>, OpenError> {
    let mut first: Option<Turned> = None;
    for slot in 0..MAX_SEGMENTS {
        let path = dir.join(segment_name(slot));
        let failed = |e| OpenError::disk(&path, e);
        let Some(meta) = disk.meta(&path).map_err(failed)? else { continue };
        let mut bytes = [0; HEADER_BYTES];
        let n = disk.open_rw(&path).map_err(failed)?.read_at(&mut bytes, 0).map_err(failed)?;
        if n == HEADER_BYTES
            && let HeaderFound::Valid(h) = Header::parse_under(&bytes, slot, key)
            && first.is_none_or(|first| h.generation < first.generation)
        {
            first = Some(Turned {
                generation: h.generation,
                first_sequence: h.first_sequence,
                start: h.start,
                segments: h.segments,
                segment_bytes: u32::try_from(meta.len).unwrap_or(u32::MAX),
            });
        }
    }
    Ok(first)
}

/// Records between two syncs, well below what a torn tail is searched for.
const GROUP: usize = 1024;
