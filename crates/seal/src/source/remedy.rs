//! Who must act on a source's failure: a wait, an operator, a reboot, or somebody who looks into an attack; and what to
//! do.

use super::{SourceError, Wanted};

/// Who must act on a source's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass: try again, with a pause.
    Retry,
    /// An operator must change something; trying again is useless.
    Operator,
    /// As agreed, it gives nothing more until the device is started anew.
    Reboot,
    /// Somebody seems to have interfered.
    Alarm,
}

impl SourceError {
    /// Who must act.
    pub fn remedy(&self) -> Remedy {
        match self {
            // A TPM or bus may be busy early in a boot, a device node or a network may come late.
            Self::NotPresent { .. }
            | Self::Unreachable { .. }
            | Self::TooFew { .. }
            | Self::TooFewParts { .. }
            | Self::Withheld { .. }
            | Self::TimedOut { .. }
            | Self::HookFailed { .. }
            | Self::Disturbed { .. }
            | Self::Os { .. } => Remedy::Retry,
            Self::Exhausted { .. } | Self::WindowClosed { .. } => Remedy::Reboot,
            // A wire that garbles and a hand that garbles look the same from here; neither is helped by asking again.
            Self::Tampered { .. } | Self::Protocol { .. } | Self::IndexChanged { .. } => Remedy::Alarm,
            Self::Part { source, .. } => source.remedy(),
            Self::AlreadyThere { .. }
            | Self::OtherKey { .. }
            | Self::TooLarge { .. }
            | Self::NotTrusted { .. }
            | Self::NotAKeyFile { .. }
            | Self::WrongDevice { .. }
            | Self::OtherSlot { .. }
            | Self::PolicyUnenforceable { .. }
            | Self::PolicyEmpty { .. }
            | Self::PolicyMismatch { .. }
            | Self::NotApproved { .. }
            | Self::NotSigned { .. }
            | Self::NoPin { .. }
            | Self::AuthFailed { .. }
            | Self::FewTries { .. }
            | Self::BadModule { .. }
            | Self::LockedOut { .. }
            | Self::Refused { .. }
            | Self::NoRoom { .. }
            | Self::BadOutput { .. }
            | Self::Ikm { .. }
            | Self::Drifts { .. } => Remedy::Operator,
        }
    }

    /// Whether it is about a PIN that was tried, or would be in vain: to ask once more for another slot of the same
    /// device spends another try of it, and may spend a release.
    pub fn is_of_pin(&self) -> bool {
        match self {
            Self::AuthFailed { .. } | Self::LockedOut { .. } | Self::FewTries { .. } => true,
            Self::Part { source, .. } => source.is_of_pin(),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPresent { .. } => {
                "check `source` in edgekeep.toml, and that the file or device is there at this point of the boot"
            }
            Self::Unreachable { .. } => "nothing is lost: it is asked again until it answers",
            Self::Disturbed { .. } => {
                "it is asked again; start edgekeep after what measures into the TPM, or let there be one release more in a boot"
            }
            Self::TooFew { .. } => {
                "nothing is lost: they are asked again until enough of them help; a device that was shut out on purpose needs \
                 its recovery key: `edgekeep recover`"
            }
            Self::TooFewParts { .. } => {
                "nothing is lost: the parts are asked again until enough of them give theirs; without them the recovery key \
                 opens: `edgekeep recover`"
            }
            Self::Part { source, .. } => source.hint(),
            Self::OtherKey { .. } => {
                "put back the key that the slot was made with, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::TooLarge { .. } => "take fewer parts, fewer servers, or fewer registers",
            Self::Withheld { .. } => {
                "nothing is lost: it is asked again; where the device was shut out by mistake, let it in there; where on \
                 purpose, only its recovery key opens: `edgekeep recover`"
            }
            Self::FewTries { .. } => {
                "find out who tried wrong PINs; log in once with the right one by another tool, or set danger_last_pin_try = true"
            }
            Self::BadModule { .. } => "name the vendor's own library for this architecture in [source] module",
            Self::AlreadyThere { .. } => "move the file away if no store needs it, or name another path",
            Self::NotTrusted { .. } => {
                "it and every directory above it must belong to root or to edgekeep's user, and be writable for nobody else"
            }
            Self::NotAKeyFile { .. } => {
                "name the key file that edgekeep made for this store; it makes no use of any other file"
            }
            Self::WrongDevice { .. } => {
                "put back the device or key file that this store was made with; if it was exchanged on purpose: \
                 `edgekeep recover --reseal`, with the recovery key"
            }
            Self::OtherSlot { .. } => "set `source` to the kind that the store was made with",
            Self::PolicyUnenforceable { .. } => "take the policy away, or use a source that can enforce it",
            Self::PolicyEmpty { .. } => "see docs/hardware.md for registers that say something about this device",
            Self::PolicyMismatch { .. } => {
                "after a firmware or kernel update this is expected: unseal with the recovery key, `edgekeep recover`; \
                 without one, find out who changed the device"
            }
            Self::NotApproved { .. } => {
                "an image must come with its vendor's signatures, at [source] pcr_signature; one that has none is not to be \
                 trusted with the key: find out who has installed it, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::NotSigned { .. } => {
                "if the image is good its vendor signs these values, and the image brings the signature; if nobody knows it find \
                 out who has installed it, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::IndexChanged { .. } => {
                "whoever has the TPM's owner authorisation did this: find out who; the recovery key opens the store, \
                 `edgekeep recover`, and a new slot takes the place of this one"
            }
            Self::Exhausted { .. } | Self::WindowClosed { .. } => {
                "restart the device, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::NoPin { .. } => "name a file of mode 0600 in [source] pin_file, or a descriptor in pin_fd",
            Self::AuthFailed { .. } => "put the right PIN into the file; it is tried once at each start, and no more",
            Self::LockedOut { .. } => {
                "wait until it takes PINs again, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::Refused { .. } => {
                "see docs/hardware.md for how the device must be set up; the answer says what it lacks"
            }
            Self::NoRoom { .. } => {
                "remove an index that nobody needs (tpm2_getcap handles-nv-index, tpm2_nvundefine), or have releases counted by a \
                 register alone: count_in = \"gate\""
            }
            Self::Tampered { .. } => {
                "look for a foreign device on the bus, or a foreign process between; the log has the details"
            }
            Self::Protocol { .. } => "start again; should it last, the device is broken or somebody sits in between",
            Self::TimedOut { .. } => {
                "run the hook, or ask the device, by hand as edgekeep's user; it must answer by itself"
            }
            Self::HookFailed { .. } => "the hook's own message is in the log; run it by hand as edgekeep's user",
            Self::BadOutput { .. } => "the hook must print lower-case hexadecimal digits, one line, and nothing else",
            Self::Ikm { .. } => "the hook must give 32 octets or more; 16 to 31 only with `danger_short_ikm = true`",
            Self::Drifts { .. } => "the hook must give the same octets each time it is run on this device",
            Self::Os { .. } => "see the cause",
        }
    }
}

impl SourceError {
    /// What to do about it where the source was asked for this. Key material for a new slot is asked for once.
    pub fn hint_for(&self, wish: Wanted) -> &'static str {
        match (wish, self) {
            (Wanted::Provision, Self::Part { source, .. }) => source.hint_for(wish),
            (
                Wanted::Provision,
                Self::Unreachable { .. } | Self::TooFew { .. } | Self::TooFewParts { .. } | Self::Withheld { .. },
            ) => {
                "no slot was made, and nobody is asked again by itself: see that what is needed answers, and give the command \
                 again; a first boot is begun anew by the next start of edgekeep"
            }
            _ => self.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_must_act() {
        let what = || "/dev/tpmrm0".to_owned();
        let defect = || "used up".to_owned();
        let window = Duration::from_secs(60);
        for (error, remedy) in [
            (SourceError::Unreachable { what: what(), defect: defect() }, Remedy::Retry),
            (SourceError::TimedOut { what: what(), limit: window }, Remedy::Retry),
            (SourceError::Exhausted { what: what(), defect: defect() }, Remedy::Reboot),
            (SourceError::WindowClosed { what: what(), window }, Remedy::Reboot),
            (SourceError::Tampered { what: what(), defect: defect() }, Remedy::Alarm),
            (SourceError::AuthFailed { what: what(), tries_left: Some(2) }, Remedy::Operator),
            (SourceError::LockedOut { what: what() }, Remedy::Operator),
        ] {
            assert_eq!(error.remedy(), remedy, "{error}");
            assert!(!error.hint().is_empty());
        }
        let failed = SourceError::AuthFailed { what: what(), tries_left: Some(2) };
        assert_eq!(failed.to_string(), "/dev/tpmrm0 refuses the PIN; 2 tries are left");
    }
}
