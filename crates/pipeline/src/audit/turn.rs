//! A new key for a ring.
//!
//! ```text
//! the store's commit: the new key, and the former with "until when is not known yet"
//!     -> a segment under the new key; what lay in the reserve, in it; the reserve empty      Ring::turn
//!     -> the store's note of the generation that began                                       then the former key is over
//! ```
//! Each is durable before the next. Cut anywhere in between, the next opening has both keys and an open question, which
//! [`Ring::open_turning`] answers: a segment under the new key is there, or it is made now.

use std::path::Path;

use host::Disk;

use super::chain::ChainKey;
use super::frame::{Kind, NewRecord};
use super::keys::ChainKeys;
use super::open::{OpenError, Opened};
use super::parts::Window;
use super::ring::{AppendError, Leave, MAX_SEGMENTS, Ring, segment_name};
use super::segment::{HEADER_BYTES, Header, HeaderFound, RESERVE_SLOT, walk_parts};

impl Ring {
    /// Opens a ring whose last turn was cut short: `keys` are those of before it, `next` is the one after it. The ring is
    /// under `next` then, and tells from which generation on ([`Ring::begins`]).
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
        let failed = |e| match e {
            AppendError::Disk(cause) => OpenError::disk(dir, cause),
            AppendError::TooLarge { .. } => OpenError::disk(dir, std::io::ErrorKind::InvalidData.into()),
        };
        let begun = first_under(disk, dir, &next)?;
        let mut opened = match begun {
            Some(begins) => Self::open(disk, dir, keys.turned(next, begins), store_sequence)?,
            None => {
                let mut opened = Self::open(disk, dir, keys, store_sequence)?;
                opened.ring.turn(next).map_err(failed)?;
                opened
            }
        };
        if begun.is_some() {
            opened.ring.empty_reserve().map_err(failed)?;
        }
        Ok(opened)
    }

    /// Goes on in a new segment under `next`, with what lay in the reserve. Durable on return.
    ///
    /// # Errors
    /// [`AppendError`]; which of the keys the ring is under is then known at the next opening only, and until then the
    /// former is used.
    pub(crate) fn turn(&mut self, next: ChainKey) -> Result<(), AppendError> {
        // Turned already, where what came after it has failed.
        if !self.keys.newest().is(&next) {
            if self.suspect {
                self.append(&[])?; // leaves a segment that cannot be closed
            }
            self.advance_under(Leave::Closed, Some(next))?;
        }
        self.empty_reserve()
    }

    /// The first generation under the newest key.
    pub fn begins(&self) -> u64 {
        self.keys.begins()
    }

    /// Brings what lies in the reserve under the former key into the ring. In the ring before it is wiped: cut in between,
    /// it is there twice.
    fn empty_reserve(&mut self) -> Result<(), AppendError> {
        let rescued = self.rescued()?;
        if rescued.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = rescued
            .iter()
            .map(|(kind, store_sequence, body)| NewRecord { kind: *kind, store_sequence: *store_sequence, body })
            .collect();
        self.append(&records)?;
        self.sync()?;
        self.reserve.write_at(&[0; HEADER_BYTES], 0)?;
        self.reserve.sync_data()?;
        self.reserve_at = None;
        Ok(())
    }

    fn rescued(&self) -> Result<Vec<(Kind, u64, Vec<u8>)>, AppendError> {
        let mut rescued = Vec::new();
        let mut first = [0; HEADER_BYTES];
        if let Some(key) = self.keys.latest_former()
            && self.reserve.read_at(&mut first, 0)? == HEADER_BYTES
            && let HeaderFound::Valid(header) = Header::parse_under(&first, RESERVE_SLOT, key)
        {
            let parts = Window::new(&*self.reserve, self.segment_bytes)?;
            walk_parts(parts, &header, key, |f| rescued.push((f.kind, f.store_sequence, f.body.to_vec())))?;
        }
        Ok(rescued)
    }
}

/// The lowest generation of a segment under `key`.
fn first_under(disk: &dyn Disk, dir: &Path, key: &ChainKey) -> Result<Option<u64>, OpenError> {
    let mut first = None;
    for slot in 0..MAX_SEGMENTS {
        let path = dir.join(segment_name(slot));
        let failed = |e| OpenError::disk(&path, e);
        if disk.meta(&path).map_err(failed)?.is_none() {
            continue;
        }
        let mut bytes = [0; HEADER_BYTES];
        let n = disk.open_rw(&path).map_err(failed)?.read_at(&mut bytes, 0).map_err(failed)?;
        if n == HEADER_BYTES
            && let HeaderFound::Valid(h) = Header::parse_under(&bytes, slot, key)
        {
            first = Some(first.map_or(h.generation, |first: u64| first.min(h.generation)));
        }
    }
    Ok(first)
}
