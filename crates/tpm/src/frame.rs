//! Commands and responses as a whole (part 1, 18): header, handles, authorisations, parameters.
//!
//! ```text
//! command   tag 2 | size 4 | command code 4 | handles 4 each | [size 4 | authorisations] | parameters
//! response  tag 2 | size 4 | response code 4 | [handle 4] | [size 4 |] parameters | [authorisations]
//! ```

use zeroize::Zeroizing;

use crate::channel::MAX_RESPONSE_BYTES;
use crate::code::ResponseCode;
use crate::wire::{Malformed, Reader, Writer};

/// A command's name and number (part 2, 6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandCode {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
}

/// What an answer must look like, by the command that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// A handle comes first.
    pub handle: bool,
    /// The command had authorisations, so the answer has them too.
    pub authorised: bool,
}

/// An answer, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It was done.
    Done {
        /// Where the shape has one.
        handle: Option<u32>,
        /// The parameters.
        parameters: &'a [u8],
        /// Nonce, attributes and HMAC of each session; empty without.
        authorisations: &'a [u8],
    },
    /// It was refused.
    Refused(ResponseCode),
}

/// The bytes of a command. `authorisations` is `None` where the command takes none.
pub(crate) fn command(
    code: u32,
    handles: &[u32],
    authorisations: Option<&[u8]>,
    parameters: &[u8],
) -> Zeroizing<Vec<u8>> {
    let authorised = authorisations.map_or(0, |a| 4 + a.len());
    let size = HEADER_BYTES + 4 * handles.len() + authorised + parameters.len();
    let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let tag = if authorisations.is_some() { TAG_SESSIONS } else { TAG_NO_SESSIONS };
    let mut w = Writer::new().u16(tag).u32(short(size)).u32(code);
    for handle in handles {
        w = w.u32(*handle);
    }
    if let Some(authorisations) = authorisations {
        w = w.u32(short(authorisations.len())).bytes(authorisations);
    }
    w.bytes(parameters).done()
}

/// Takes an answer apart. Total: any bytes give an answer or an error.
///
/// # Errors
/// [`Malformed`].
pub fn parse_response(bytes: &[u8], shape: Shape) -> Result<Answer<'_>, Malformed> {
    if bytes.len() > MAX_RESPONSE_BYTES {
        return Err(Malformed("it is longer than any answer"));
    }
    let mut r = Reader::new(bytes);
    let (tag, size, code) = (r.u16()?, r.u32()?, ResponseCode(r.u32()?));
    if usize::try_from(size) != Ok(bytes.len()) {
        return Err(Malformed("its size is not the one that it names"));
    }
    if code != ResponseCode::SUCCESS {
        // Part 1, 18.4: a refusal has a header and nothing else. A TPM 1.2 answers with a tag of its own.
        return match (tag, r.end()) {
            (TAG_NO_SESSIONS | TAG_1_2, Ok(())) => Ok(Answer::Refused(code)),
            _ => Err(Malformed("a refusal with more than a header")),
        };
    }
    if tag != if shape.authorised { TAG_SESSIONS } else { TAG_NO_SESSIONS } {
        return Err(Malformed("its tag does not fit the command"));
    }
    let handle = if shape.handle { Some(r.u32()?) } else { None };
    if !shape.authorised {
        return Ok(Answer::Done { handle, parameters: r.rest(), authorisations: &[] });
    }
    let size = r.u32()?;
    let parameters = r.take(usize::try_from(size).map_err(|_| Malformed("it ends too early"))?)?;
    Ok(Answer::Done { handle, parameters, authorisations: r.rest() })
}

pub(crate) const HEADER_BYTES: usize = 10;
const TAG_NO_SESSIONS: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
/// TPM_ST_RSP_COMMAND.
const TAG_1_2: u16 = 0x00C4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Shape = Shape { handle: false, authorised: false };
    const HANDLE: Shape = Shape { handle: true, authorised: false };
    const FULL: Shape = Shape { handle: true, authorised: true };

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn commands_by_the_byte() {
        // TPM2_Startup(CLEAR), and TPM2_Clear under the lockout hierarchy with an empty password.
        assert_eq!(*command(0x144, &[], None, &[0, 0]), hex("8001 0000000c 00000144 0000"));
        let password = hex("40000009 0000 00 0000");
        let expected = hex("8002 0000001b 00000126 4000000a 00000009 40000009 0000 00 0000");
        assert_eq!(*command(0x126, &[0x4000_000a], Some(&password), &[]), expected);
    }

    #[test]
    fn answers_by_the_byte() {
        let done = |handle, parameters, authorisations| Ok(Answer::Done { handle, parameters, authorisations });
        assert_eq!(parse_response(&hex("8001 0000000c 00000000 abcd"), PLAIN), done(None, &[0xab, 0xcd], &[]));
        assert_eq!(parse_response(&hex("8001 0000000e 00000000 80000001"), HANDLE), done(Some(0x8000_0001), &[], &[]));
        let full = hex("8002 00000015 00000000 80000001 00000002 abcd ff");
        assert_eq!(parse_response(&full, FULL), done(Some(0x8000_0001), &[0xab, 0xcd], &[0xff]));
        let refused = Ok(Answer::Refused(ResponseCode(0x99d)));
        assert_eq!(parse_response(&hex("8001 0000000a 0000099d"), FULL), refused);
        assert_eq!(parse_response(&hex("00c4 0000000a 0000099d"), PLAIN), refused);
    }

    #[test]
    fn refusals_by_name() {
        let defect = |text: &str, shape| parse_response(&hex(text), shape).unwrap_err().0;
        assert_eq!(defect("", PLAIN), "it ends too early");
        assert_eq!(defect("8001 0000000a 0000", PLAIN), "it ends too early");
        assert_eq!(defect("8001 0000000b 00000000", PLAIN), "its size is not the one that it names");
        assert_eq!(defect("8001 0000000a 00000000 00", PLAIN), "its size is not the one that it names");
        assert_eq!(defect("8001 0000000a 00000000", HANDLE), "it ends too early");
        // A session that was asked for and is not answered: the answer would not be authenticated.
        assert_eq!(defect("8001 0000000e 00000000 80000001", FULL), "its tag does not fit the command");
        assert_eq!(defect("8002 0000000a 00000000", PLAIN), "its tag does not fit the command");
        assert_eq!(defect("8001 0000000c 0000099d abcd", PLAIN), "a refusal with more than a header");
        assert_eq!(defect("8002 00000012 00000000 80000001 ffffffff", FULL), "it ends too early");
        let long = vec![0; MAX_RESPONSE_BYTES + 1];
        assert_eq!(parse_response(&long, PLAIN), Err(Malformed("it is longer than any answer")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes: Vec<u8>, handle: bool, authorised: bool) {
            let shape = Shape { handle, authorised };
            let mut framed = vec![0x80, if authorised { 2 } else { 1 }];
            framed.extend_from_slice(&(10 + bytes.len() as u32).to_be_bytes());
            framed.extend_from_slice(&[0; 4]);
            framed.extend_from_slice(&bytes);
            let _ = parse_response(&bytes, shape);
            if let Ok(Answer::Done { handle: h, parameters, authorisations }) = parse_response(&framed, shape) {
                let around = 10 + h.map_or(0, |_| 4) + if authorised { 4 } else { 0 };
                prop_assert_eq!(around + parameters.len() + authorisations.len(), framed.len());
            }
        }
    }
}
