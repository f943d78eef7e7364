//! From what a TPM answers to what it means for a source of keys.

use ::tpm::{Refusal, TpmError, TransportError};

use crate::source::SourceError;

/// A device by its path, for messages.
pub(super) struct Faults {
    pub(super) what: String,
}

impl Faults {
    pub(super) fn exhausted(&self, defect: String) -> SourceError {
        SourceError::Exhausted { what: self.what.clone(), defect }
    }

    pub(super) fn transport(&self, error: TransportError) -> SourceError {
        let what = self.what.clone();
        match error {
            TransportError::NotPresent => SourceError::NotPresent { what },
            TransportError::NoTpm => {
                SourceError::NotTrusted { path: what, defect: "it is neither a character device nor a socket".into() }
            }
            TransportError::TimedOut | TransportError::Closed => {
                SourceError::Unreachable { what, defect: error.to_string() }
            }
            TransportError::Os { doing, source } => SourceError::Os { what: format!("{what}: {doing}"), source },
        }
    }

    pub(super) fn tpm(&self, error: TpmError) -> SourceError {
        let (what, defect) = (self.what.clone(), error.to_string());
        match error {
            TpmError::Transport { source, .. } => self.transport(source),
            TpmError::OtherKey { expected, found } => {
                SourceError::WrongDevice { what, found: found.to_string(), expected: expected.to_string() }
            }
            TpmError::NotAuthentic { .. } => SourceError::Tampered { what, defect },
            TpmError::Malformed { .. } => SourceError::Protocol { what, defect },
            TpmError::Refused { code, .. } => match code.refusal() {
                Refusal::Lockout => SourceError::LockedOut { what },
                Refusal::PcrChanged => SourceError::Disturbed { what, counted: false },
                Refusal::NvSpace => SourceError::NoRoom { what },
                Refusal::Integrity => SourceError::Tampered { what, defect },
                // Somebody else's leftovers, or a self-test: they pass.
                Refusal::Memory | Refusal::Busy | Refusal::NotStarted => SourceError::Unreachable { what, defect },
                _ => SourceError::Refused { what, defect },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Remedy;
    use ::tpm::ResponseCode;

    #[test]
    fn who_must_act_on_what() {
        let faults = Faults { what: "/dev/tpmrm0".into() };
        let refused = |code| faults.tpm(TpmError::Refused { command: "Load", code: ResponseCode(code) });
        assert!(matches!(refused(0x921), SourceError::LockedOut { .. }));
        assert!(matches!(refused(0x1df), SourceError::Tampered { .. }));
        assert!(matches!(refused(0x14b), SourceError::NoRoom { .. }));
        assert_eq!(refused(0x902).remedy(), Remedy::Retry);
        assert_eq!(refused(0x128).remedy(), Remedy::Retry);
        assert_eq!(refused(0x100).remedy(), Remedy::Retry);
        assert_eq!(refused(0x9a2).remedy(), Remedy::Operator);
        let text = "/dev/tpmrm0 refuses: TPM2_Load was refused: 0x9a2, wrong authorisation value";
        assert_eq!(refused(0x9a2).to_string(), text);
        let hung = faults.tpm(TpmError::Transport { command: "Load", source: TransportError::TimedOut });
        assert_eq!(
            (hung.remedy(), hung.to_string()),
            (Remedy::Retry, "/dev/tpmrm0 cannot be reached: no answer came in time".into())
        );
    }
}
