//! Reading the ring, for `edgekeep audit` and for whoever must prove what it says.

use std::io;
use std::path::{Path, PathBuf};

use host::Disk;

use super::frame::Kind;
use super::keys::ChainKeys;
use super::open::Alarm;
use super::ring::{MAX_SEGMENT_BYTES, MAX_SEGMENTS, RESERVE_NAME, segment_name};
use super::segment::{Header, HeaderFound, RESERVE_SLOT, Tail, walk};

/// A proven record.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number; the reserve counts on from where the ring stood, beside the ring.
    pub sequence: u64,
    /// What it is.
    pub kind: Kind,
    /// The store's sequence after the write that it tells of; 0 for none.
    pub store_sequence: u64,
    /// It lies in the reserve: the ring had failed.
    pub reserve: bool,
    /// One line of JSON, without its end.
    pub line: &'a str,
}

/// What a ring holds, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Proven records, those of the reserve too.
    pub records: u64,
    /// Number of the oldest proven record; 0 for none.
    pub first_sequence: u64,
    /// Number of the newest proven record of the ring.
    pub last_sequence: u64,
    /// Highest store sequence that a record tells of.
    pub store_sequence: u64,
    /// The tail ends in a write that a power cut tore.
    pub torn: bool,
    /// What no power cut explains, from the oldest to the newest.
    pub alarms: Vec<Alarm>,
}

/// Proves the whole ring in `dir`, oldest first, and shows each proven record to `see`. Reads only; may run beside the
/// device, and then may find the record that is just being written torn.
///
/// # Errors
/// [`ReadRingError`] when the disk fails; damage is no error but an [`Alarm`].
pub fn verify(
    disk: &dyn Disk,
    dir: &Path,
    keys: &ChainKeys,
    mut see: impl FnMut(Entry<'_>),
) -> Result<Verification, ReadRingError> {
    let mut found = Verification::default();
    let (mut headers, mut damaged): (Vec<Header>, Vec<Alarm>) = (Vec::new(), Vec::new());
    for slot in 0..MAX_SEGMENTS {
        let Some(image) = image(disk, dir, &segment_name(slot))? else { continue };
        match Header::parse(&image, slot, keys) {
            // A generation has one place; whoever has a former key might show records elsewhere.
            HeaderFound::Valid(h) if h.generation % u64::from(h.segments.max(1)) == u64::from(slot) => headers.push(h),
            HeaderFound::Valid(_) => damaged.push(Alarm::SegmentForeign { slot }),
            HeaderFound::Blank => {}
            HeaderFound::Forged => damaged.push(Alarm::SegmentForeign { slot }),
        }
    }
    headers.sort_by_key(|h| h.generation);
    let Some(newest) = headers.last().copied() else {
        found.alarms = damaged;
        return Ok(found);
    };
    found.alarms.append(&mut damaged);
    let slots = u64::from(newest.segments.max(1));
    if newest.generation < keys.begins() {
        found.alarms.push(Alarm::SegmentMissing { slot: (keys.begins() % slots) as u32 });
    }
    // Every generation that the ring can hold must be there.
    for generation in (newest.generation + 1).saturating_sub(slots)..newest.generation {
        if !headers.iter().any(|h| h.generation == generation) && generation + slots > newest.generation + 1 {
            found.alarms.push(Alarm::SegmentMissing { slot: (generation % slots) as u32 });
        }
    }

    let mut before: Option<(u64, u64, [u8; 32], bool)> = None;
    for header in headers {
        let Some(image) = image(disk, dir, &segment_name(header.slot))? else { continue };
        // A ring begins with record 1; a later one is where somebody with its key has cut the front off.
        if header.generation == 0 && header.first_sequence != 1 {
            found.alarms.push(Alarm::Gap { slot: header.slot, sequence: header.first_sequence });
        }
        if let Some((generation, next, link, closed)) = before
            && (generation + 1 != header.generation
                || next != header.first_sequence
                || link != header.start
                || !(closed || left_on_purpose(&image, &header, keys)))
        {
            found.alarms.push(Alarm::Gap { slot: header.slot, sequence: header.first_sequence });
        }
        let w = walk(&image, &header, keys.of(header.slot, header.generation), |f| {
            if found.first_sequence == 0 {
                found.first_sequence = f.sequence;
            }
            found.records += 1;
            found.last_sequence = f.sequence;
            show(f, false, &mut see);
        });
        found.store_sequence = found.store_sequence.max(w.store_sequence);
        match w.tail {
            Tail::Clean => {}
            Tail::Torn { .. } => found.torn = true,
            Tail::Broken => {
                found.alarms.push(Alarm::ChainBroken { slot: header.slot, sequence: w.next_sequence });
            }
        }
        before = Some((header.generation, w.next_sequence, w.link, w.closed));
    }

    if let Some(image) = image(disk, dir, RESERVE_NAME)?
        && let HeaderFound::Valid(header) = Header::parse(&image, RESERVE_SLOT, keys)
    {
        walk(&image, &header, keys.newest(), |f| {
            found.records += 1;
            show(f, true, &mut see);
        });
    }
    Ok(found)
}

/// Proves one segment by itself, as from a copy: `None` if its header is not this store's. Total on any bytes.
pub fn verify_segment(
    image: &[u8],
    slot: u32,
    keys: &ChainKeys,
    mut see: impl FnMut(Entry<'_>),
) -> Option<Verification> {
    let HeaderFound::Valid(header) = Header::parse(image, slot, keys) else { return None };
    let mut found = Verification { first_sequence: header.first_sequence, ..Verification::default() };
    let w = walk(image, &header, keys.of(slot, header.generation), |f| {
        found.records += 1;
        found.last_sequence = f.sequence;
        show(f, slot == RESERVE_SLOT, &mut see);
    });
    found.store_sequence = w.store_sequence;
    found.torn = matches!(w.tail, Tail::Torn { .. });
    if w.tail == Tail::Broken {
        found.alarms.push(Alarm::ChainBroken { slot, sequence: w.next_sequence });
    }
    Some(found)
}

/// A segment that was left without a closing record is followed by one that says why.
fn left_on_purpose(image: &[u8], header: &Header, keys: &ChainKeys) -> bool {
    let mut first = None;
    walk(image, header, keys.of(header.slot, header.generation), |f| {
        first.get_or_insert(f.kind);
    });
    matches!(first, Some(Kind::Alarm | Kind::Repaired))
}

fn show(f: &super::frame::Frame<'_>, reserve: bool, see: &mut impl FnMut(Entry<'_>)) {
    // Proven bytes are what we wrote, and we write UTF-8.
    let line = std::str::from_utf8(f.body).unwrap_or("");
    see(Entry { sequence: f.sequence, kind: f.kind, store_sequence: f.store_sequence, reserve, line });
}

fn image(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Vec<u8>>, ReadRingError> {
    let path = dir.join(name);
    let fail = |cause| ReadRingError { path: path.clone(), cause };
    if disk.meta(&path).map_err(fail)?.is_none() {
        return Ok(None);
    }
    let mut bytes = disk.read(&path, MAX_SEGMENT_BYTES as usize).map_err(fail)?;
    Ok(Some(std::mem::take(&mut *bytes)))
}

/// The ring cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the audit ring cannot be read: {}", path.display())]
pub struct ReadRingError {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}
