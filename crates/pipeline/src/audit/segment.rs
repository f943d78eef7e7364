//! A segment: a header and the records behind it.
//!
//! ```text
//!   0  8  "EKAUDIT" 0x01
//!   8  4  slot in the ring; 0xffffffff for the reserve
//!  12  4  how many segments the ring has
//!  16  8  generation, one more than that of the segment before
//!  24  8  sequence of the first record
//!  32  8  highest store sequence told of before
//!  40 32  link of the chain at the start
//!  72 24  zero
//!  96 32  code of bytes 0 to 95
//! 128     records
//! ```
//! A reused segment still has older records behind its end. Their sequences are lower, which tells them from records
//! that belong to this generation and lie behind a damaged place.

use std::io;

use super::chain::{ChainKey, LINK_BYTES, Link};
use super::frame::{self, ALIGN, Frame, Kind, Parsed};
use super::keys::ChainKeys;
use super::parts::Parts;

/// What a segment says of itself; made only by checking or by beginning one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) slot: u32,
    pub(crate) segments: u32,
    pub(crate) generation: u64,
    pub(crate) first_sequence: u64,
    pub(crate) store_sequence: u64,
    pub(crate) start: Link,
}

/// What lies where a header should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Valid(Header),
    /// Never used.
    Blank,
    /// Neither blank nor ours.
    Forged,
}

impl Header {
    pub(crate) fn encode(&self, key: &ChainKey) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&self.slot.to_be_bytes());
        out[12..16].copy_from_slice(&self.segments.to_be_bytes());
        out[16..24].copy_from_slice(&self.generation.to_be_bytes());
        out[24..32].copy_from_slice(&self.first_sequence.to_be_bytes());
        out[32..40].copy_from_slice(&self.store_sequence.to_be_bytes());
        out[40..72].copy_from_slice(&self.start);
        let code = key.header(&out[..96]);
        out[96..].copy_from_slice(&code);
        out
    }

    /// Checks the header of the segment in `slot` under the one key that it may be under; total on any bytes.
    pub(crate) fn parse(bytes: &[u8], slot: u32, keys: &ChainKeys) -> HeaderFound {
        let Some(h) = bytes.first_chunk::<HEADER_BYTES>() else { return HeaderFound::Forged };
        Self::parse_under(h, slot, keys.of(slot, number(h, 16)))
    }

    /// The same under a given key.
    pub(crate) fn parse_under(h: &[u8; HEADER_BYTES], slot: u32, key: &ChainKey) -> HeaderFound {
        if h.iter().all(|b| *b == 0) {
            return HeaderFound::Blank;
        }
        if h[..8] != *MAGIC || h[8..12] != slot.to_be_bytes() || !secret::crypto::ct_eq(&key.header(&h[..96]), &h[96..])
        {
            return HeaderFound::Forged;
        }
        let mut start = [0; LINK_BYTES];
        start.copy_from_slice(&h[40..72]);
        HeaderFound::Valid(Self {
            slot,
            segments: u32::from_be_bytes([h[12], h[13], h[14], h[15]]),
            generation: number(h, 16),
            first_sequence: number(h, 24),
            store_sequence: number(h, 32),
            start,
        })
    }
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    header[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Where a segment's proven records end, and how.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Offset behind the last proven record.
    pub(crate) end: usize,
    /// The sequence that the next record must have.
    pub(crate) next_sequence: u64,
    /// The link of the last proven record.
    pub(crate) link: Link,
    /// Highest store sequence told of.
    pub(crate) store_sequence: u64,
    /// The last proven record closes the segment.
    pub(crate) closed: bool,
    pub(crate) tail: Tail,
}

/// What lies behind the last proven record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The end mark, or the end of the segment.
    Clean,
    /// A write that the power cut; bytes up to `until` are to be wiped.
    Torn { until: usize },
    /// Records that were once durable are gone or changed.
    Broken,
}

/// Proves the records of a segment in memory.
pub(crate) fn walk(image: &[u8], header: &Header, key: &ChainKey, see: impl FnMut(&Frame<'_>)) -> Walk {
    walk_parts(image, header, key, see).expect("memory is read without errors")
}

/// Proves the records of a segment one after the other and shows each to `see`; total on any bytes.
///
/// # Errors
/// The disk's.
pub(crate) fn walk_parts(
    mut image: impl Parts,
    header: &Header,
    key: &ChainKey,
    mut see: impl FnMut(&Frame<'_>),
) -> io::Result<Walk> {
    let mut w = Walk {
        end: HEADER_BYTES,
        next_sequence: header.first_sequence,
        link: header.start,
        store_sequence: header.store_sequence,
        closed: false,
        tail: Tail::Clean,
    };
    while let Parsed::Frame(f) = frame::parse(image.from(w.end)?) {
        if f.sequence != w.next_sequence || !f.follows(key, &w.link) {
            break;
        }
        see(&f);
        w.end += f.span;
        w.next_sequence = w.next_sequence.saturating_add(1);
        w.link = f.link;
        w.store_sequence = w.store_sequence.max(f.store_sequence);
        if f.kind == Kind::Closed {
            w.closed = true;
            return Ok(w);
        }
    }
    w.tail = tail(&mut image, &w, key)?;
    Ok(w)
}

/// Judges what lies behind the last proven record.
///
/// A power cut may lose any of the pages written since the last sync, in any order, so records may survive behind a
/// hole. Each of them tells what was durable when it was written: if the hole was, no power cut made it.
fn tail(image: &mut impl Parts, proven: &Walk, key: &ChainKey) -> io::Result<Tail> {
    let mut until = None;
    let mut tried = 0;
    let mut at = proven.end + ALIGN;
    while at < image.len() {
        // The stored link of the record before it lies just in front.
        let part = image.from(at - LINK_BYTES)?;
        let Some((before, here)) = part.split_first_chunk::<LINK_BYTES>() else { break };
        // Most of a segment is blank, and no record begins with a length of zero.
        let blank = here.chunks_exact(ALIGN).take_while(|block| block[..4] == [0; 4]).count() * ALIGN;
        if blank > 0 {
            at += blank;
            continue;
        }
        let here_at = at;
        at += ALIGN;
        let Parsed::Frame(f) = frame::parse(here) else { continue };
        if f.sequence < proven.next_sequence || f.sequence - proven.next_sequence > MOST_SURVIVORS {
            continue;
        }
        tried += 1;
        if tried > MOST_SURVIVORS {
            return Ok(Tail::Broken); // no power cut leaves so many: somebody planted them to keep us busy
        }
        if f.follows(key, before) {
            if f.durable >= proven.next_sequence {
                return Ok(Tail::Broken);
            }
            until = Some(here_at + f.span);
        }
    }
    Ok(match (until, frame::parse(image.from(proven.end)?)) {
        (None, Parsed::End) => Tail::Clean,
        (None, _) => Tail::Torn { until: proven.end },
        (Some(until), _) => Tail::Torn { until },
    })
}

const MAGIC: &[u8; 8] = b"EKAUDIT\x01";
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 128;
/// The slot number of the reserve.
pub(crate) const RESERVE_SLOT: u32 = u32::MAX;
/// More records than any group of unsynced writes holds: bounds the work on a hostile segment.
const MOST_SURVIVORS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::super::frame::NewRecord;
    use super::*;

    fn key() -> ChainKey {
        ChainKey::new(&[1; 32])
    }

    fn keys(n: u8) -> ChainKeys {
        ChainKeys::new(ChainKey::new(&[n; 32]))
    }

    /// A segment of `count` records, the last `unsynced` of them not known to be durable by any other.
    fn segment(count: u64, unsynced: u64) -> (Header, Vec<u8>, Vec<usize>) {
        let header =
            Header { slot: 2, segments: 4, generation: 6, first_sequence: 100, store_sequence: 40, start: [7; 32] };
        let mut image = header.encode(&key()).to_vec();
        let (mut link, mut starts) = (header.start, Vec::new());
        for i in 0..count {
            starts.push(image.len());
            let body = format!("{{\"n\":{i}}}");
            let durable = (99 + i).min(99 + count - unsynced);
            let record = NewRecord { kind: Kind::Request, store_sequence: 41 + i, body: body.as_bytes() };
            link = frame::encode(&mut image, &key(), &link, 100 + i, durable, &record);
        }
        image.resize(4096, 0);
        (header, image, starts)
    }

    fn walked(image: &[u8], header: &Header) -> (Walk, usize) {
        let mut seen = 0;
        let w = walk(image, header, &key(), |_| seen += 1);
        (w, seen)
    }

    #[test]
    fn a_header_belongs_to_its_slot_and_key() {
        let (header, image, _) = segment(0, 0);
        assert_eq!(Header::parse(&image, 2, &keys(1)), HeaderFound::Valid(header));
        assert_eq!(Header::parse(&image, 3, &keys(1)), HeaderFound::Forged);
        assert_eq!(Header::parse(&image, 2, &keys(2)), HeaderFound::Forged);
        assert_eq!(Header::parse(&[0; 4096], 2, &keys(1)), HeaderFound::Blank);
        for byte in 0..HEADER_BYTES {
            let mut changed = image.clone();
            changed[byte] ^= 4;
            assert_eq!(Header::parse(&changed, 2, &keys(1)), HeaderFound::Forged, "byte {byte}");
        }
    }

    #[test]
    fn a_whole_segment_is_clean() {
        let (header, image, _) = segment(5, 1);
        let (w, seen) = walked(&image, &header);
        assert_eq!((seen, w.next_sequence, w.store_sequence, w.tail), (5, 105, 45, Tail::Clean));
    }

    #[test]
    fn one_torn_tail_record_is_tolerated() {
        let (header, mut image, starts) = segment(5, 1);
        image[starts[4] + 40] ^= 1;
        let (w, seen) = walked(&image, &header);
        assert_eq!((seen, w.end), (4, starts[4]));
        assert_eq!(w.tail, Tail::Torn { until: starts[4] });
    }

    #[test]
    fn a_hole_in_what_was_never_synced_is_a_power_cut() {
        let (header, mut image, starts) = segment(6, 4);
        image[starts[3]..starts[4]].fill(0);
        let (w, seen) = walked(&image, &header);
        assert_eq!(seen, 3);
        assert_eq!(w.tail, Tail::Torn { until: starts[5] + (starts[5] - starts[4]) });
    }

    #[test]
    fn a_durable_record_changed_is_a_break() {
        for damage in 0..3 {
            let (header, mut image, starts) = segment(6, 1);
            match damage {
                0 => image[starts[2] + 33] ^= 1,
                1 => image[starts[2]..starts[3]].fill(0), // looks like an end mark
                _ => image.copy_within(starts[3]..starts[4], starts[2]),
            }
            let (w, seen) = walked(&image, &header);
            assert_eq!((seen, w.tail), (2, Tail::Broken), "damage {damage}");
        }
    }

    #[test]
    fn planted_frames_cannot_keep_us_busy() {
        let (header, image, starts) = segment(2, 1);
        let mut hostile = image[..starts[1]].to_vec();
        // Every 32 bytes the head of a plausible record with a body of one block.
        let mut head = [0u8; 32];
        head[3] = 1;
        head[4] = 1;
        head[8..16].copy_from_slice(&102u64.to_be_bytes());
        hostile.extend(std::iter::repeat_n(head, 1).flatten());
        for _ in 0..3 * MOST_SURVIVORS {
            let mut block = [0u8; 32];
            block[..1].copy_from_slice(b"x");
            hostile.extend(head);
            hostile.extend(block);
            hostile.extend([0; 32]);
        }
        assert_eq!(walked(&hostile, &header).0.tail, Tail::Broken);
    }
}
