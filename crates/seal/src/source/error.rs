//! Why a source gives nothing, and who must act: a wait, an operator, a reboot, or somebody who looks into an attack.

use std::fmt;
use std::time::Duration;

use super::auth::AuthError;
use crate::ikm::IkmError;
use crate::slot::SourceKind;

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

/// A register whose value is not the one that the slot was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrDiff {
    /// Its number.
    pub pcr: u8,
    /// Its value when the slot was made.
    pub expected: [u8; 32],
    /// Its value now.
    pub found: [u8; 32],
}

impl fmt::Display for PcrDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell values apart for a person; the log line stays readable with many registers.
        let short = |value: &[u8; 32]| hex::encode(&value[..4]);
        write!(f, "PCR {} is {}.., was {}..", self.pcr, short(&self.found), short(&self.expected))
    }
}

fn list(differs: &[PcrDiff]) -> String {
    let texts: Vec<String> = differs.iter().map(PcrDiff::to_string).collect();
    if texts.is_empty() { "no register differs that can be named".into() } else { texts.join("; ") }
}

fn tries(left: &Option<u32>) -> String {
    left.map_or_else(String::new, |n| format!("; {n} tries are left"))
}

/// Why a source gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What the source is made of is missing.
    #[error("{what} is not there")]
    NotPresent {
        /// Path or device.
        what: String,
    },
    /// It may be there, and does not answer.
    #[error("{what} cannot be reached: {defect}")]
    Unreachable {
        /// Address or device.
        what: String,
        /// What happened.
        defect: String,
    },
    /// Several others are asked, and too few of them helped.
    #[error("{answered} of the {needed} servers that are needed have helped: {faults}")]
    TooFew {
        /// How many are needed.
        needed: usize,
        /// How many helped.
        answered: usize,
        /// What happened with each of the others.
        faults: String,
    },
    /// A combination of sources, too few of which gave their part. It may pass: those that failed may do so later.
    #[error("{answered} of the {needed} parts that are needed have given key material: {faults}")]
    TooFewParts {
        /// How many are needed.
        needed: usize,
        /// How many gave theirs.
        answered: usize,
        /// What happened with the others.
        faults: String,
    },
    /// A part of a combination, without which it cannot do.
    #[error("part {number} of the combination, `{kind}`")]
    Part {
        /// Which, from 1.
        number: usize,
        /// Its kind.
        kind: SourceKind,
        /// What is wrong with it.
        #[source]
        source: Box<SourceError>,
    },
    /// Key material came, and it is not the slot's.
    #[error("{what} gives other key material than the slot was made with")]
    OtherKey {
        /// The source.
        what: String,
    },
    /// What would have to be remembered does not fit a slot.
    #[error("a source of kind `{kind}` needs more than a slot has room for: {defect}")]
    TooLarge {
        /// The source.
        kind: SourceKind,
        /// How much.
        defect: String,
    },
    /// Another machine keeps the key, has been reached, and does not give it.
    #[error("{what} does not give this device its key: {defect}")]
    Withheld {
        /// Its address.
        what: String,
        /// Its answer.
        defect: String,
    },
    /// Provisioning would displace key material that something may still hang on.
    #[error("{what} is there already, and may be what another store opens with")]
    AlreadyThere {
        /// Path or device.
        what: String,
    },
    /// Somebody else could have written what is about to be trusted.
    #[error("{path} is not trusted: {defect}")]
    NotTrusted {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        defect: String,
    },
    /// It is not what it should be.
    #[error("{what} is not a key file of edgekeep")]
    NotAKeyFile {
        /// The file.
        what: String,
    },
    /// Another device, token or key file than the slot was made with, and it can be told.
    #[error("{what} is not the one that the slot was made with: it names {found}, the slot {expected}")]
    WrongDevice {
        /// The file or device.
        what: String,
        /// Its public name.
        found: String,
        /// The public name in the slot.
        expected: String,
    },
    /// The slot names another kind, or lacks what this kind needs.
    #[error("the slot was not made by a source of kind `{kind}`")]
    OtherSlot {
        /// The source that was asked.
        kind: SourceKind,
    },
    /// A policy was asked for that this source cannot hold to.
    #[error("a source of kind `{kind}` cannot enforce `{what}`")]
    PolicyUnenforceable {
        /// The source.
        kind: SourceKind,
        /// The policy.
        what: &'static str,
    },
    /// A policy that the source could hold to, and that would protect nothing.
    #[error("the policy would protect nothing: {defect}")]
    PolicyEmpty {
        /// Why.
        defect: String,
    },
    /// The device is not in the state that was agreed.
    #[error("the device is not in the state that the slot was made in: {}", list(.differs))]
    PolicyMismatch {
        /// Registers that differ.
        differs: Vec<PcrDiff>,
    },
    /// Nobody has signed the state that the device is in, of those whose signature the slot asks for.
    #[error("the device's state is not approved of: {file}: {defect}")]
    NotApproved {
        /// The key or the signatures.
        file: String,
        /// What is missing.
        defect: String,
    },
    /// What a TPM keeps for us in an index was taken away or replaced.
    #[error("{what} was tampered with: {defect}")]
    IndexChanged {
        /// The device.
        what: String,
        /// Which index, and how.
        defect: String,
    },
    /// The releases of this boot are used up, or were closed.
    #[error("{what} gives nothing more in this boot: {defect}")]
    Exhausted {
        /// The device.
        what: String,
        /// Used up, or closed.
        defect: String,
    },
    /// The time after the start in which it releases is over.
    #[error("{what} releases only within {window:?} of the device's start, and without a resume from suspend before")]
    WindowClosed {
        /// The device.
        what: String,
        /// The time.
        window: Duration,
    },
    /// There is no PIN to give.
    #[error("{what} asks for a PIN")]
    NoPin {
        /// The device.
        what: String,
        /// Why there is none.
        #[source]
        source: AuthError,
    },
    /// The PIN is wrong.
    #[error("{what} refuses the PIN{}", tries(.tries_left))]
    AuthFailed {
        /// The device.
        what: String,
        /// How many wrong ones it still takes, where it says so.
        tries_left: Option<u32>,
    },
    /// Few tries are left for a PIN, and none is spent.
    #[error("{what} says that few tries are left for its PIN; none was spent")]
    FewTries {
        /// The device.
        what: String,
    },
    /// A vendor's module cannot be loaded.
    #[error("{path} cannot be used as a PKCS #11 module: {defect}")]
    BadModule {
        /// The module.
        path: String,
        /// What the loader said.
        defect: String,
    },
    /// Too many wrong PINs.
    #[error("{what} is locked after too many wrong PINs")]
    LockedOut {
        /// The device.
        what: String,
    },
    /// The device refuses, and not for a policy or a PIN.
    #[error("{what} refuses: {defect}")]
    Refused {
        /// The device.
        what: String,
        /// Its answer.
        defect: String,
    },
    /// An answer that is provably not from the device that was asked.
    #[error("{what} was interfered with: {defect}")]
    Tampered {
        /// The device.
        what: String,
        /// What gave it away.
        defect: String,
    },
    /// An answer that its protocol does not know.
    #[error("{what} gave an answer that cannot be understood: {defect}")]
    Protocol {
        /// The device.
        what: String,
        /// What is wrong with it.
        defect: String,
    },
    /// The deadline passed; everything that the source had started was killed.
    #[error("{what} did not finish within {limit:?}")]
    TimedOut {
        /// Path or device.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// The hook ended with something else than status 0.
    #[error("{what} failed: {status}")]
    HookFailed {
        /// The hook.
        what: String,
        /// Exit status or signal.
        status: String,
    },
    /// The hook's output is not one line of lower-case hexadecimal octets.
    #[error("the output of {what} is not key material: {defect}")]
    BadOutput {
        /// The hook.
        what: String,
        /// What is wrong with it; never the output itself.
        defect: &'static str,
    },
    /// The octets are too few, too many or all the same.
    #[error("{what} gave no usable key material")]
    Ikm {
        /// Path or device.
        what: String,
        /// Which.
        #[source]
        source: IkmError,
    },
    /// Asked twice, it gave two answers: a store made with the first would never open again.
    #[error("{what} gave different key material when asked twice")]
    Drifts {
        /// Path or device.
        what: String,
    },
    /// A system call failed.
    #[error("{what} cannot be used")]
    Os {
        /// What was being done, and with what.
        what: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
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
            | Self::NoPin { .. }
            | Self::AuthFailed { .. }
            | Self::FewTries { .. }
            | Self::BadModule { .. }
            | Self::LockedOut { .. }
            | Self::Refused { .. }
            | Self::BadOutput { .. }
            | Self::Ikm { .. }
            | Self::Drifts { .. } => Remedy::Operator,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPresent { .. } => {
                "check `source` in edgekeep.toml, and that the file or device is there at this point of the boot"
            }
            Self::Unreachable { .. } => "nothing is lost: it is asked again until it answers",
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
                "put back the device or key file that this store was made with, or unseal with the recovery key: \
                 `edgekeep recover`"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_its_registers() {
        let diff = |pcr, expected, found| PcrDiff { pcr, expected: [expected; 32], found: [found; 32] };
        let e = SourceError::PolicyMismatch { differs: vec![diff(7, 1, 2), diff(11, 3, 0xff)] };
        let text = "the device is not in the state that the slot was made in: \
                    PCR 7 is 02020202.., was 01010101..; PCR 11 is ffffffff.., was 03030303..";
        assert_eq!(e.to_string(), text);
        assert_eq!(e.remedy(), Remedy::Operator);
    }

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
