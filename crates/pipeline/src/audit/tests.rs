//! The ring and the device on a disk that can lose its power, fill up, fail and lie.

mod device;
mod disk;
mod ring;
mod turn;

use std::path::Path;

use host::Entropy;

use self::disk::FakeDisk;
use super::frame::NewRecord;
use super::*;

/// xorshift: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

const SMALL: RingSize = RingSize { segments: 3, segment_bytes: 64 * 1024 };

fn key() -> ChainKey {
    ChainKey::new(&[3; 32])
}

fn keys() -> ChainKeys {
    ChainKeys::new(key())
}

fn dir() -> &'static Path {
    Path::new("audit")
}

fn create(disk: &FakeDisk) -> Ring {
    Ring::create(disk, dir(), SMALL, key(), &Sevens, Beginning::NewStore, 0).unwrap()
}

fn open(disk: &FakeDisk) -> Opened {
    Ring::open(disk, dir(), keys(), u64::MAX).unwrap()
}

fn body(n: u64, bytes: usize) -> String {
    format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(bytes))
}

fn append(ring: &mut Ring, n: u64, bytes: usize) -> bool {
    let body = body(n, bytes);
    ring.append(&[NewRecord { kind: Kind::Request, store_sequence: n, body: body.as_bytes() }]).is_ok()
}

/// The numbers of the request records, in order.
fn numbers(disk: &FakeDisk) -> (Vec<u64>, Verification) {
    numbers_under(disk, &keys())
}

fn numbers_under(disk: &FakeDisk, keys: &ChainKeys) -> (Vec<u64>, Verification) {
    let mut seen = Vec::new();
    let verification = verify(disk, dir(), keys, |e| {
        if e.kind == Kind::Request {
            seen.push(serde_json::from_str::<serde_json::Value>(e.line).unwrap()["n"].as_u64().unwrap());
        }
    });
    (seen, verification.unwrap())
}
