//! One record in a segment.
//!
//! ```text
//!  0  4  length of the body, 1 to 16384; 0 ends the segment's records
//!  4  1  kind
//!  5  3  zero
//!  8  8  sequence, one more than the record before
//! 16  8  store sequence after the write that this record tells of; 0 for none
//! 24  8  durable: the highest sequence that was known to be on the disk when this record was written
//! 32  n  body (a JSON object), zeros up to a multiple of 32
//!    32  link of the chain
//! ```
//! Integers are big-endian. Every frame begins at a multiple of 32, so that what survives behind a damaged place can be
//! found.

use super::chain::{ChainKey, LINK_BYTES, Link};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request is about to be carried out.
    Request,
    /// A request was answered or refused.
    Response,
    /// A ring begins; its body says why.
    Began,
    /// The segment is full; the next one goes on.
    Closed,
    /// What was found wrong with the ring at an open.
    Alarm,
    /// The device failed and works again.
    Repaired,
    /// Requests that were counted instead of written one by one.
    Counted,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Began => 3,
            Self::Closed => 4,
            Self::Alarm => 5,
            Self::Repaired => 6,
            Self::Counted => 7,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Began,
            4 => Self::Closed,
            5 => Self::Alarm,
            6 => Self::Repaired,
            7 => Self::Counted,
            _ => return None,
        })
    }
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) kind: Kind,
    pub(crate) store_sequence: u64,
    pub(crate) body: &'a [u8],
}

/// A record as it lies in a segment; nothing of it is trusted before the chain has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) store_sequence: u64,
    pub(crate) durable: u64,
    head: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) link: Link,
    /// Bytes from here to the next frame.
    pub(crate) span: usize,
}

impl Frame<'_> {
    /// Whether this record follows the one whose link is `previous`.
    pub(crate) fn follows(&self, key: &ChainKey, previous: &Link) -> bool {
        key.holds(previous, self.head, self.body, &self.link)
    }
}

/// What lies at a place.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// The form of a record.
    Frame(Frame<'a>),
    /// The end mark, or no room for a record.
    End,
    /// Neither.
    Malformed,
}

/// Reads one frame; total on any bytes.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Parsed::End };
    let length = number(head, 0, 4);
    if length == 0 {
        return if head.iter().all(|b| *b == 0) { Parsed::End } else { Parsed::Malformed };
    }
    let Some(kind) = head.get(4).copied().and_then(Kind::from_code) else { return Parsed::Malformed };
    if head[5..8] != [0; 3] || length > MAX_BODY_BYTES as u64 {
        return Parsed::Malformed;
    }
    let padded = padded(length as usize);
    let Some((body, rest)) = rest.split_at_checked(padded) else { return Parsed::Malformed };
    let Some(link) = rest.first_chunk::<LINK_BYTES>() else { return Parsed::Malformed };
    let (body, padding) = body.split_at(length as usize);
    if padding.iter().any(|b| *b != 0) {
        return Parsed::Malformed;
    }
    Parsed::Frame(Frame {
        kind,
        sequence: number(head, 8, 8),
        store_sequence: number(head, 16, 8),
        durable: number(head, 24, 8),
        head,
        body,
        link: *link,
        span: HEAD_BYTES + padded + LINK_BYTES,
    })
}

/// Appends one frame to `out` and gives its link.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    key: &ChainKey,
    previous: &Link,
    sequence: u64,
    durable: u64,
    record: &NewRecord<'_>,
) -> Link {
    debug_assert!((1..=MAX_BODY_BYTES).contains(&record.body.len()));
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(record.body.len() as u32).to_be_bytes());
    head[4] = record.kind.code();
    head[8..16].copy_from_slice(&sequence.to_be_bytes());
    head[16..24].copy_from_slice(&record.store_sequence.to_be_bytes());
    head[24..].copy_from_slice(&durable.to_be_bytes());
    let link = key.next(previous, &head, record.body);
    out.extend_from_slice(&head);
    out.extend_from_slice(record.body);
    out.resize(out.len() + padded(record.body.len()) - record.body.len(), 0);
    out.extend_from_slice(&link);
    link
}

/// Bytes that a record of this body takes.
pub(crate) const fn span(body_bytes: usize) -> usize {
    HEAD_BYTES + padded(body_bytes) + LINK_BYTES
}

const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// A big-endian number of `width` bytes; the caller's slice is long enough.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Largest body. The writer keeps below it; a reader believes no more.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// Frames begin at multiples of this.
pub(crate) const ALIGN: usize = 32;
/// Bytes before the body.
pub(crate) const HEAD_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Link = [9; LINK_BYTES];

    fn key() -> ChainKey {
        ChainKey::new(&[1; 32])
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, &key(), &START, 7, 3, &NewRecord { kind: Kind::Response, store_sequence: 5, body });
        out
    }

    #[test]
    fn reads_what_it_wrote() {
        for length in [1, 31, 32, 33, MAX_BODY_BYTES] {
            let body = vec![b'x'; length];
            let bytes = frame(&body);
            assert_eq!(bytes.len(), span(length));
            let Parsed::Frame(f) = parse(&bytes) else { panic!("{length}") };
            assert_eq!((f.kind, f.sequence, f.store_sequence, f.durable), (Kind::Response, 7, 5, 3));
            assert_eq!((f.body, f.span), (&body[..], bytes.len()));
            assert!(f.follows(&key(), &START));
            assert!(!f.follows(&key(), &[8; LINK_BYTES]), "another predecessor");
            assert!(!f.follows(&ChainKey::new(&[2; 32]), &START), "another key");
        }
    }

    #[test]
    fn every_bit_counts() {
        let bytes = frame(br#"{"a":1}"#);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Parsed::Frame(f) = parse(&changed) {
                assert!(!f.follows(&key(), &START), "bit {bit}");
            }
        }
    }

    #[test]
    fn hostile_lengths_are_malformed() {
        let mut bytes = frame(b"{}");
        for length in [33u32, MAX_BODY_BYTES as u32 + 1, u32::MAX] {
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            assert!(matches!(parse(&bytes), Parsed::Malformed), "{length}");
        }
        assert!(matches!(parse(&[0; 64]), Parsed::End));
        assert!(matches!(parse(&[]), Parsed::End));
        let mut not_quite_the_end = [0; 64];
        not_quite_the_end[20] = 1;
        assert!(matches!(parse(&not_quite_the_end), Parsed::Malformed));
    }
}
