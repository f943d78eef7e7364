//! A refusal: what the caller is told, and what log and audit are told, as two texts.
//!
//! What the caller is told may repeat what he sent. Log and audit get only texts that stand in this program, and what
//! [`EngineError::because`] says of the store: no value of a body reaches them through a refusal.

use std::borrow::Cow;

use api::{BodyError, DurationError, Payload, Reply, Status};
use store::{CommitError, ReadError, StorePathError};

/// Why a request was not carried out. Nothing of it was: the buffered writes of the request are thrown away.
#[derive(Debug)]
pub struct EngineError {
    status: Status,
    told: Option<Cow<'static, str>>,
    logged: Option<Cow<'static, str>>,
    conflict: bool,
}

impl EngineError {
    /// 400 with a text for the caller, who has the right to know what was wrong with the request.
    pub fn bad_request(told: impl Into<Cow<'static, str>>) -> Self {
        Self::told(Status::BAD_REQUEST, told)
    }

    // "1 error occurred:" is the layout of Go's multi-error, which Vault's clients show to people and search for
    // substrings.

    /// 403 as every refused caller sees it, whatever the reason.
    pub fn denied() -> Self {
        Self::told(Status::FORBIDDEN, "1 error occurred:\n\t* permission denied\n\n")
    }

    /// 403 for a missing, unknown, expired or exhausted token.
    pub fn no_token() -> Self {
        Self::told(Status::FORBIDDEN, "permission denied")
    }

    /// 404 with no text: nothing is there, or the folder is empty.
    pub fn absent() -> Self {
        Self::bare(Status::NOT_FOUND)
    }

    /// Any status without a text: `{"errors":[]}`.
    pub fn bare(status: Status) -> Self {
        Self { status, told: None, logged: None, conflict: false }
    }

    /// 404: the engine has no such path.
    pub fn unsupported_path() -> Self {
        Self::told(Status::NOT_FOUND, "1 error occurred:\n\t* unsupported path\n\n")
    }

    /// 405: the path is there, but not for this operation.
    pub fn unsupported_operation() -> Self {
        Self::told(Status::METHOD_NOT_ALLOWED, "1 error occurred:\n\t* unsupported operation\n\n")
    }

    /// 500. The caller learns nothing; `logged` says what happened.
    pub fn internal(logged: impl std::fmt::Display) -> Self {
        Self::told(Status::INTERNAL, "internal error").because(logged)
    }

    /// 503: too much is being asked at the moment; the same request may succeed later.
    pub fn busy(logged: impl std::fmt::Display) -> Self {
        Self::told(Status::UNAVAILABLE, "too busy; try again").because(logged)
    }

    /// 503 as for every logical path of a sealed store. hvac and node-vault look for this text.
    pub fn sealed() -> Self {
        Self::told(Status::UNAVAILABLE, "Vault is sealed")
    }

    /// Any other status with a text for the caller.
    pub fn told(status: Status, told: impl Into<Cow<'static, str>>) -> Self {
        Self { status, told: Some(told.into()), logged: None, conflict: false }
    }

    /// Says for log and audit what the caller is told with values of his own.
    #[must_use]
    pub fn recorded_as(mut self, fixed: &'static str) -> Self {
        if host::in_force("audit-without-values") {
            self.logged = Some(Cow::Borrowed(fixed));
        }
        self
    }

    /// Adds what only the log may know. Never a value of the body.
    #[must_use]
    pub fn because(mut self, logged: impl std::fmt::Display) -> Self {
        self.logged = Some(Cow::Owned(logged.to_string()));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What the log and the audit say: the inner reason if there is one, else the outer text, unless it was put
    /// together at the moment and so may repeat a body.
    pub fn logged(&self) -> &str {
        match (&self.logged, &self.told) {
            (Some(logged), _) => logged,
            (None, Some(Cow::Borrowed(told))) => told,
            (None, Some(Cow::Owned(told))) if !host::in_force("audit-without-values") => told,
            (None, Some(Cow::Owned(_))) => "refused for what the request says; its sender was told",
            (None, None) => "nothing there",
        }
    }

    /// Whether another commit was first, so that the request is worth running again.
    pub(crate) fn is_conflict(&self) -> bool {
        self.conflict
    }

    /// What the caller gets.
    pub(crate) fn into_reply(self) -> Reply {
        Reply { status: self.status, payload: Payload::Errors(self.told.map(Cow::into_owned).into_iter().collect()) }
    }
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status.0, self.logged())
    }
}

impl std::error::Error for EngineError {}

impl From<ReadError> for EngineError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Sealed => Self::sealed(),
            ReadError::Busy => Self::busy(e),
            ReadError::Tampered { .. } | ReadError::Disk(_) => Self::internal(host::with_causes(&e)),
        }
    }
}

impl From<CommitError> for EngineError {
    fn from(e: CommitError) -> Self {
        match e {
            CommitError::Conflict => Self { conflict: true, ..Self::busy(e) },
            CommitError::TooLarge => Self::told(Status(413), "the change is too large"),
            CommitError::Sealed => Self::sealed(),
            CommitError::Busy => Self::busy(e),
            // The operator can make room; nothing else can. 507 is not in Vault's table, 500 is what its clients know.
            CommitError::DiskFull => Self::told(Status::INTERNAL, "the disk is full").because(e),
            CommitError::KeyWornOut => Self::told(Status::INTERNAL, "the data key is worn out").because(e),
            // The caller must know that reading again is the only way to learn whether it was written.
            CommitError::OutcomeUnknown(_) => {
                Self::told(Status::INTERNAL, "the disk failed; read again to learn whether this was written")
                    .because(host::with_causes(&e))
            }
            CommitError::Tampered { .. } => Self::internal(host::with_causes(&e)),
        }
    }
}

impl From<BodyError> for EngineError {
    fn from(e: BodyError) -> Self {
        Self::bad_request(e.to_string()).recorded_as("the body cannot be read")
    }
}

impl From<DurationError> for EngineError {
    fn from(e: DurationError) -> Self {
        Self::bad_request(e.to_string()).recorded_as("a time cannot be read")
    }
}

impl From<StorePathError> for EngineError {
    fn from(e: StorePathError) -> Self {
        Self::bad_request(e.to_string()).recorded_as("a name cannot be kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_less_than_the_log() {
        let e = EngineError::from(ReadError::Disk(std::io::Error::other("sector 7")));
        assert_eq!(e.logged(), "the store cannot be read: sector 7");
        let Payload::Errors(told) = e.into_reply().payload else { panic!("an error has an error body") };
        assert_eq!(told, ["internal error"]);
    }

    #[test]
    fn what_was_put_together_for_the_caller_is_not_logged() {
        let e = EngineError::bad_request(format!("no mount {:?}", "hunter2"));
        assert!(!e.logged().contains("hunter2") && !e.to_string().contains("hunter2"));
        assert_eq!(e.recorded_as("no such mount").logged(), "no such mount");
        assert_eq!(EngineError::bad_request("missing data").logged(), "missing data");
    }

    #[test]
    fn only_a_lost_race_is_run_again() {
        assert!(EngineError::from(CommitError::Conflict).is_conflict());
        assert!(!EngineError::from(CommitError::Busy).is_conflict());
    }
}
