//! Response codes (part 2, 6.6): a number, and what it means for whoever asked.

use std::fmt;

/// What a TPM answers instead of a result.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub u32);

/// What the codes that we act upon mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy was not met: a register has another value (TPM_RC_POLICY_FAIL), or no branch of an OR fits
    /// (TPM_RC_VALUE).
    Policy,
    /// A condition on time or counters is false (TPM_RC_POLICY).
    Condition,
    /// A register, whichever, was extended since the session has looked at registers (TPM_RC_PCR_CHANGED).
    PcrChanged,
    /// The authorisation value is wrong (TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH).
    Auth,
    /// Too many wrong ones (TPM_RC_LOCKOUT).
    Lockout,
    /// The object was made under another key, or changed (TPM_RC_INTEGRITY).
    Integrity,
    /// The signature is not the key's (TPM_RC_SIGNATURE).
    Signature,
    /// An NV index that is read-locked (TPM_RC_NV_LOCKED).
    NvLocked,
    /// An NV index that was not written since it was defined or cleared (TPM_RC_NV_UNINITIALIZED).
    NvUnwritten,
    /// The TPM's memory has no room for another NV index (TPM_RC_NV_SPACE).
    NvSpace,
    /// There is such an NV index already (TPM_RC_NV_DEFINED).
    NvDefined,
    /// The authorisation value cannot be used: a PIN index is used up, or not written (TPM_RC_AUTH_UNAVAILABLE).
    Unavailable,
    /// There is no such object or index (TPM_RC_HANDLE).
    Handle,
    /// Somebody left objects or sessions behind (TPM_RC_OBJECT_MEMORY, SESSION_MEMORY, SESSION_HANDLES ...).
    Memory,
    /// Busy; the same command may be sent again (TPM_RC_RETRY, YIELDED, TESTING, NV_RATE, NV_UNAVAILABLE).
    Busy,
    /// It was not started (TPM_RC_INITIALIZE).
    NotStarted,
    /// It failed its own tests (TPM_RC_FAILURE).
    Failure,
    /// A command that it does not have (TPM_RC_COMMAND_CODE).
    Unknown,
    /// Something else.
    Other,
}

impl ResponseCode {
    /// All went well.
    pub const SUCCESS: Self = Self(0);

    /// What it means.
    pub fn refusal(self) -> Refusal {
        // Format one (bit 7): an error about a parameter (bit 6), session (bit 11) or handle, whose number stands in
        // bits 8 to 11.
        let format_one = self.0 & 0x80 != 0 && self.0 <= 0xFFF;
        match self.0 {
            n if format_one => match n & 0x3F {
                0x1D => Refusal::Policy,
                0x04 if n & 0x40 != 0 => Refusal::Policy,
                0x0E | 0x22 => Refusal::Auth,
                0x1B => Refusal::Signature,
                0x1F => Refusal::Integrity,
                0x0B => Refusal::Handle,
                _ => Refusal::Other,
            },
            0x126 => Refusal::Condition,
            0x128 => Refusal::PcrChanged,
            0x100 => Refusal::NotStarted,
            0x101 => Refusal::Failure,
            0x143 => Refusal::Unknown,
            0x12F => Refusal::Unavailable,
            0x148 => Refusal::NvLocked,
            0x14A => Refusal::NvUnwritten,
            0x14B => Refusal::NvSpace,
            0x14C => Refusal::NvDefined,
            0x901..=0x906 => Refusal::Memory,
            0x921 => Refusal::Lockout,
            0x908 | 0x90A | 0x920 | 0x922 | 0x923 => Refusal::Busy,
            _ => Refusal::Other,
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.refusal() {
            Refusal::Policy => "the policy is not met",
            Refusal::Condition => "a condition on time or counters is not met",
            Refusal::PcrChanged => "a register was extended meanwhile",
            Refusal::Auth => "wrong authorisation value",
            Refusal::Lockout => "locked after wrong authorisation values",
            Refusal::Integrity => "the object is another TPM's, or was changed",
            Refusal::Signature => "the signature is not the key's",
            Refusal::NvLocked => "the index is locked",
            Refusal::NvUnwritten => "the index is not written",
            Refusal::NvSpace => "no room for another index",
            Refusal::NvDefined => "the index is there already",
            Refusal::Unavailable => "its authorisation value is used up, or not there yet",
            Refusal::Handle => "no such object",
            Refusal::Memory => "no room for objects or sessions",
            Refusal::Busy => "busy",
            Refusal::NotStarted => "not started",
            Refusal::Failure => "in failure mode",
            Refusal::Unknown => "no such command",
            Refusal::Other => "see the TPM 2.0 Library, part 2, 6.6",
        };
        write!(f, "{:#05x}, {meaning}", self.0)
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseCode({:#05x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_were_seen() {
        for (code, refusal) in [
            (0x99d, Refusal::Policy),
            (0x1c4, Refusal::Policy),
            (0x126, Refusal::Condition),
            (0x128, Refusal::PcrChanged),
            (0x14b, Refusal::NvSpace),
            (0x98e, Refusal::Auth),
            (0x9a2, Refusal::Auth),
            (0x921, Refusal::Lockout),
            (0x1df, Refusal::Integrity),
            (0x148, Refusal::NvLocked),
            (0x14a, Refusal::NvUnwritten),
            (0x14c, Refusal::NvDefined),
            (0x2db, Refusal::Signature),
            (0x12f, Refusal::Unavailable),
            (0x18b, Refusal::Handle),
            (0x902, Refusal::Memory),
            (0x903, Refusal::Memory),
            (0x922, Refusal::Busy),
            (0x100, Refusal::NotStarted),
            (0x084, Refusal::Other),
            (0xffff_ffff, Refusal::Other),
            (0x8000_009d, Refusal::Other),
        ] {
            assert_eq!(ResponseCode(code).refusal(), refusal, "{code:#x}");
        }
        assert_eq!(ResponseCode(0x99d).to_string(), "0x99d, the policy is not met");
    }
}
