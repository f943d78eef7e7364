//! Gates: what others wait for, and how they can know that it is true.
//!
//! ```text
//! Facts --open()--> which gates are open --> Board --> the Unix socket (authority), TCP ports (hints)
//! ```
//! A gate is open while its facts hold, and shut again when one lapses. The Unix socket tells who asks; the answer
//! carries the kernel's boot id, the CA's fingerprint and the digest of the receipts, so that a gate of yesterday, or
//! of another process, is not taken for ours. A TCP port can say none of that: it is opened for those who know nothing
//! else, and one that is taken raises an alarm and stops nobody.

mod answer;
mod board;
mod client;
mod database;
mod facts;
mod file;
mod hint;
#[cfg(test)]
mod orders;
mod pace;
mod places;
mod port;
mod probe;
mod server;
mod watch;

pub use answer::{Answer, AnswerError, GateState, MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Question, QuestionError, Verb};
pub use board::{Board, Evidence};
pub use client::{Trust, WaitError, ask, wait_for};
pub use database::{Database, NotReady, Verdict, postgres_verdict, redis_verdict};
pub use facts::Facts;
pub use file::{FileWatch, Incomplete};
pub use hint::{HintAlarm, Hints};
pub use pace::{GaveUp, Pace, persist};
pub use port::{OpenPort, PortError};
pub use probe::{ProbeFailure, lapse_of, probe_once, probe_until};
pub use server::{BindError, GateSocket};
pub use watch::{Standing, Watch, until_lapsed};
