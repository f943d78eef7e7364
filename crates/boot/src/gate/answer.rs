//! The words on the gates' socket: one question, one answer, lines of ASCII.
//!
//! ```text
//! > edgekeep-gate/1 wait tokens-ready          or "ask": answer at once, open or not
//! < edgekeep-gate/1
//! < gate tokens-ready
//! < state open                                 or "shut", "unknown"; then without the two digests
//! < boot 0e8623e9-7d1a-55fc-7aba-6980ef0d7f93
//! < profile production                         or "demo"
//! < ca <64 hexadecimal digits>
//! < receipts <64 hexadecimal digits>
//! < end
//! ```
//! Where the asker's user has its share of places already there is one line instead, which nothing is read of or
//! believed on: `edgekeep-gate/1 busy`.
//!
//! Both readers are total: they take these bytes and no others. The order is fixed and nothing may be left out, so that
//! two readers cannot understand one text in two ways.

use host::BootId;

use crate::gate::Evidence;
use crate::plan::{GateName, Profile};

/// Longest question in bytes, with its newline.
pub const MAX_QUESTION_BYTES: usize = 128;
/// Longest answer in bytes.
pub const MAX_ANSWER_BYTES: usize = 512;

const MAGIC: &str = "edgekeep-gate/1";
/// In the place of an answer: no place is free for this user.
pub(super) const BUSY: &str = "edgekeep-gate/1 busy\n";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whether to wait.
    pub verb: Verb,
    /// About which gate.
    pub gate: GateName,
}

/// When to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// At once.
    Ask,
    /// When the gate is open; at once if there is no such gate.
    Wait,
}

impl Question {
    /// The line.
    pub fn encode(&self) -> String {
        let verb = if self.verb == Verb::Ask { "ask" } else { "wait" };
        format!("{MAGIC} {verb} {}\n", self.gate)
    }

    /// Reads a line with its newline.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, QuestionError> {
        let text = std::str::from_utf8(bytes).map_err(|_| QuestionError)?;
        let line = text.strip_suffix('\n').filter(|_| bytes.len() <= MAX_QUESTION_BYTES).ok_or(QuestionError)?;
        let mut words = line.split(' ');
        let (Some(MAGIC), Some(verb), Some(gate), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(QuestionError);
        };
        let verb = match verb {
            "ask" => Verb::Ask,
            "wait" => Verb::Wait,
            _ => return Err(QuestionError),
        };
        Ok(Self { verb, gate: gate.parse().map_err(|_| QuestionError)? })
    }
}

/// Not a question. The asker is told no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a question about a gate")]
pub struct QuestionError;

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// About which gate.
    pub gate: GateName,
    /// The kernel's boot id, as the answering process sees it.
    pub boot: BootId,
    /// The profile.
    pub profile: Profile,
    /// Open or not.
    pub state: GateState,
}

/// Whether a gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateState {
    /// Open, by this evidence.
    Open(Evidence),
    /// Not yet, or not any more.
    Shut,
    /// No such gate in the plan.
    Unknown,
}

impl Answer {
    /// The lines.
    pub fn encode(&self) -> String {
        let (state, digests) = match &self.state {
            GateState::Shut => ("shut", String::new()),
            GateState::Unknown => ("unknown", String::new()),
            GateState::Open(e) => ("open", format!("ca {}\nreceipts {}\n", hex::encode(e.ca), hex::encode(e.receipts))),
        };
        let (gate, boot, profile) = (&self.gate, self.boot, self.profile.as_str());
        format!("{MAGIC}\ngate {gate}\nstate {state}\nboot {boot}\nprofile {profile}\n{digests}end\n")
    }

    /// Reads an answer, all of it.
    ///
    /// # Errors
    /// [`AnswerError`] with the line at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswerError> {
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(AnswerError { line: 0 });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| AnswerError { line: 0 })?;
        let mut lines = Lines { rest: text, line: 0 };
        lines.exact(MAGIC)?;
        let gate = lines.field("gate ")?.parse().map_err(|_| lines.fault())?;
        let state = lines.field("state ")?;
        let boot_text = lines.field("boot ")?;
        let boot: BootId = boot_text.parse().map_err(|_| lines.fault())?;
        if boot.to_string() != boot_text {
            return Err(lines.fault()); // one spelling
        }
        let profile = match lines.field("profile ")? {
            "production" => Profile::Production,
            "demo" => Profile::Demo,
            _ => return Err(lines.fault()),
        };
        let state = match state {
            "shut" => GateState::Shut,
            "unknown" => GateState::Unknown,
            "open" => GateState::Open(Evidence { ca: lines.digest("ca ")?, receipts: lines.digest("receipts ")? }),
            _ => return Err(AnswerError { line: 3 }),
        };
        lines.exact("end")?;
        if lines.rest.is_empty() { Ok(Self { gate, boot, profile, state }) } else { Err(lines.fault()) }
    }
}

/// Not an answer about a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer about a gate (line {line})")]
pub struct AnswerError {
    /// The line at fault, from 1; 0 for the whole.
    pub line: usize,
}

struct Lines<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lines<'a> {
    fn fault(&self) -> AnswerError {
        AnswerError { line: self.line }
    }

    fn next(&mut self) -> Result<&'a str, AnswerError> {
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').ok_or(self.fault())?;
        self.rest = rest;
        Ok(line)
    }

    fn exact(&mut self, wanted: &str) -> Result<(), AnswerError> {
        if self.next()? == wanted { Ok(()) } else { Err(self.fault()) }
    }

    fn field(&mut self, key: &str) -> Result<&'a str, AnswerError> {
        self.next()?.strip_prefix(key).ok_or(self.fault())
    }

    fn digest(&mut self, key: &str) -> Result<[u8; 32], AnswerError> {
        let text = self.field(key)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| self.fault())?;
        if text.bytes().any(|b| b.is_ascii_uppercase()) { Err(self.fault()) } else { Ok(digest) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open() -> Answer {
        Answer {
            gate: "tokens-ready".parse().unwrap(),
            boot: BootId([7; 16]),
            profile: Profile::Demo,
            state: GateState::Open(Evidence { ca: [0xab; 32], receipts: [1; 32] }),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for state in [open().state, GateState::Shut, GateState::Unknown] {
            let answer = Answer { state, ..open() };
            assert!(answer.encode().len() <= MAX_ANSWER_BYTES);
            assert_eq!(Answer::parse(answer.encode().as_bytes()), Ok(answer));
        }
        let q = Question { verb: Verb::Wait, gate: "x".repeat(64).parse().unwrap() };
        assert!(q.encode().len() <= MAX_QUESTION_BYTES);
        assert_eq!(Question::parse(q.encode().as_bytes()), Ok(q));
    }

    #[test]
    fn an_open_gate_without_evidence_is_no_answer() {
        let text = open().encode();
        let without =
            |key: &str| text.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect::<String>();
        for key in ["edgekeep", "gate", "state", "boot", "profile", "ca", "receipts", "end"] {
            assert!(Answer::parse(without(key).as_bytes()).is_err(), "without {key}");
        }
        assert!(Answer::parse(format!("{text}x").as_bytes()).is_err(), "something after the end");
        assert!(Answer::parse(text.replace("gate/1", "gate/2").as_bytes()).is_err(), "another version");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert_eq!(answer.encode().into_bytes(), bytes.clone());
            }
            if let Ok(question) = Question::parse(&bytes) {
                prop_assert_eq!(question.encode().into_bytes(), bytes);
            }
        }

        #[test]
        fn a_changed_answer_reads_as_what_it_says(at in 0usize..400, bit in 0u8..8) {
            let mut bytes = open().encode().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert_ne!(&answer, &open());
                prop_assert_eq!(answer.encode().into_bytes(), bytes);
            }
        }
    }
}
