//! Numbers and sized buffers as the TPM writes them (part 2, 4.5 and 10.4): big-endian, each buffer behind its length
//! in 16 bits.

use zeroize::Zeroizing;

/// What a command is built in. It is wiped when dropped, and has room from the start for the longest command that we
/// send: growing would leave a secret behind.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(ROOM)))
    }

    pub(crate) fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    pub(crate) fn u16(self, n: u16) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A TPM2B: its length, then the bytes.
    pub(crate) fn sized(self, bytes: &[u8]) -> Self {
        // All that we send was made or parsed by us and is far below 64 KiB; a longer one would be refused by the TPM.
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).bytes(bytes)
    }

    pub(crate) fn done(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// What is left of an answer. Every step either takes what is there or fails; nothing is assumed of the input.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("more follows than belongs to it")) }
    }
}

/// Bytes that are no answer; what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// More than the longest command that we send (VerifySignature and LoadExternal, some 400 bytes).
const ROOM: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Writer::new().u8(1).u16(2).u32(3).bytes(&4u64.to_be_bytes()).sized(b"five").bytes(b"six").done();
        let mut r = Reader::new(&bytes);
        assert_eq!((r.u8(), r.u16(), r.u32(), r.u64()), (Ok(1), Ok(2), Ok(3), Ok(4)));
        assert_eq!(r.sized(), Ok(&b"five"[..]));
        assert_eq!(r.end(), Err(Malformed("more follows than belongs to it")));
        assert_eq!(r.rest(), b"six");
        assert_eq!(r.end(), Ok(()));
        assert_eq!(r.u8(), Err(Malformed("it ends too early")));
    }

    #[test]
    fn a_length_beyond_the_end() {
        assert_eq!(Reader::new(&[0, 3, 1, 2]).sized(), Err(Malformed("it ends too early")));
        assert_eq!(Reader::new(&[0]).sized(), Err(Malformed("it ends too early")));
    }
}
