//! The lines of a message.

use secret::SecretBytes;
use zeroize::Zeroizing;

/// Most bytes of a message: what a pipe takes in one piece (PIPE_BUF), so that neither side can block the other.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Over [`MAX_MESSAGE_BYTES`].
    #[error("it has more than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// It does not begin as messages do.
    #[error("it does not begin with `edgekeep-pkcs11`")]
    NotOurs,
    /// Another version of the protocol.
    #[error("it is of another version of the protocol; update edgekeep and ikm-pkcs11 together")]
    OtherVersion,
    /// No such request, or no such reply.
    #[error("its verb is unknown")]
    Verb,
    /// A line is missing, stands elsewhere, or is too many.
    #[error("where the line `{0}` is expected there is another")]
    Line(&'static str),
    /// A value is not what its line holds.
    #[error("the value of `{0}` is malformed")]
    Value(&'static str),
    /// It does not end with the line `end`, or goes on after it.
    #[error("it does not end with the line `end`")]
    End,
}

/// Reads a message line by line.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// Reads the first line; gives the verb.
    pub(crate) fn begin(message: &'a [u8]) -> Result<(&'a str, Self), MessageError> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        let mut lines = Self { rest: message };
        let first = lines.next().ok_or(MessageError::NotOurs)?;
        let first = first.strip_prefix("edgekeep-pkcs11 ").ok_or(MessageError::NotOurs)?;
        match first.split_once(' ') {
            Some(("1", verb)) => Ok((verb, lines)),
            _ => Err(MessageError::OtherVersion),
        }
    }

    /// The next whole line, printable ASCII without its line feed.
    fn next(&mut self) -> Option<&'a str> {
        let at = self.rest.iter().position(|b| *b == b'\n')?;
        let (line, rest) = self.rest.split_at_checked(at)?;
        if !line.iter().all(|b| matches!(b, b' '..=b'~')) {
            return None;
        }
        self.rest = rest.get(1..)?;
        std::str::from_utf8(line).ok()
    }

    /// The value of the line `name`, if that line is next.
    pub(crate) fn optional(&mut self, name: &'static str) -> Option<&'a str> {
        let before = self.rest;
        let value = self.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        if value.is_none() {
            self.rest = before;
        }
        value
    }

    /// The value of the line `name`, which must be next.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<&'a str, MessageError> {
        self.optional(name).ok_or(MessageError::Line(name))
    }

    /// A binary value of at most `max` bytes.
    pub(crate) fn bytes(&mut self, name: &'static str, max: usize) -> Result<Vec<u8>, MessageError> {
        decode(self.text(name)?, name, max)
    }

    /// A secret binary value of 1 to `max` bytes.
    pub(crate) fn secret(&mut self, name: &'static str, max: usize) -> Result<Option<SecretBytes>, MessageError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let bytes = SecretBytes::new(decode(text, name, max)?);
        if bytes.is_empty() { Err(MessageError::Value(name)) } else { Ok(Some(bytes)) }
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, MessageError> {
        match self.text(name)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(MessageError::Value(name)),
        }
    }

    /// The line `end`, and nothing after it.
    pub(crate) fn end(mut self) -> Result<(), MessageError> {
        let ended = self.next() == Some("end") && self.rest.is_empty();
        if ended { Ok(()) } else { Err(MessageError::End) }
    }
}

fn decode(text: &str, name: &'static str, max: usize) -> Result<Vec<u8>, MessageError> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || text.len() > 2 * max {
        return Err(MessageError::Value(name));
    }
    hex::decode(text).map_err(|_| MessageError::Value(name))
}

/// Writes a message. It never grows, so that no copy of a secret stays behind.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(crate) fn begin(verb: &str) -> Self {
        let mut out = Self(Zeroizing::new(Vec::with_capacity(MAX_MESSAGE_BYTES)));
        out.raw(&["edgekeep-pkcs11 1 ", verb, "\n"]);
        out
    }

    fn raw(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.push(part.as_bytes()));
    }

    /// What does not fit is left out, and the message is then none: [`Writer::end`] tells.
    fn push(&mut self, bytes: &[u8]) {
        let room = MAX_MESSAGE_BYTES - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(&[name, " ", value, "\n"]);
        self
    }

    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.raw(&[name, " "]);
        for byte in value {
            let digit = |d: u8| DIGITS[usize::from(d & 15)];
            self.push(&[digit(byte >> 4), digit(*byte)]);
        }
        self.raw(&["\n"]);
        self
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.text(name, if value { "yes" } else { "no" })
    }

    /// The message; one that did not fit ends in the middle, and every reader refuses it.
    pub(crate) fn end(mut self) -> Zeroizing<Vec<u8>> {
        self.raw(&["end\n"]);
        self.0
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
