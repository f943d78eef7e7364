//! Why a command gave no result.

use crate::channel::TransportError;
use crate::code::{Refusal, ResponseCode};
use crate::public::Name;
use crate::wire::Malformed;

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The way to the TPM failed.
    #[error("TPM2_{command}")]
    Transport {
        /// The command.
        command: &'static str,
        /// The failure.
        #[source]
        source: TransportError,
    },
    /// The TPM refused.
    #[error("TPM2_{command} was refused: {code}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its answer.
        code: ResponseCode,
    },
    /// The answer is none.
    #[error("the answer to TPM2_{command} is malformed: {source}")]
    Malformed {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The answer was not made by whoever holds the session's key: somebody sits in between.
    #[error("the answer to TPM2_{command} is not authentic")]
    NotAuthentic {
        /// The command.
        command: &'static str,
    },
    /// Another storage key than the one that was named.
    #[error("the TPM's storage key is {found}, not {expected}")]
    OtherKey {
        /// The one that was named.
        expected: Name,
        /// The one that is there.
        found: Name,
    },
}

impl TpmError {
    /// What the TPM's own refusal means, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { code, .. } => Some(code.refusal()),
            _ => None,
        }
    }
}
