//! How a command fails: what happened, what to do, and a code for scripts.

use std::process::ExitCode;

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened, with values; causes appended.
    pub(crate) fact: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    pub(crate) code: Code,
}

/// Exit codes; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The store, or a gate, said no.
    Refused = 1,
    /// Sealed, or not ready within the time given.
    NotReady = 2,
    /// Wrong arguments, wrong configuration.
    Usage = 64,
    /// The machine or edgekeep itself failed.
    Fault = 70,
}

impl Failure {
    pub(crate) fn new(code: Code, fact: impl Into<String>) -> Self {
        Self { fact: fact.into(), hint: None, code }
    }

    pub(crate) fn usage(fact: impl Into<String>) -> Self {
        Self::new(Code::Usage, fact)
    }

    pub(crate) fn fault(fact: impl Into<String>) -> Self {
        Self::new(Code::Fault, fact)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with all its causes, in one line.
    pub(crate) fn of(code: Code, error: &dyn std::error::Error) -> Self {
        Self::new(code, host::with_causes(error))
    }
}

/// Shows a failure on standard error, and gives its code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    crate::output::error(&format!("error: {}", failure.fact));
    if let Some(hint) = &failure.hint {
        crate::output::error(&format!(" hint: {hint}"));
    }
    ExitCode::from(failure.code as u8)
}
