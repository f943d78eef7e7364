//! The gate: a register that counts the releases of a boot, because extending it is the one thing that nobody can take back.
//!
//! ```text
//! base ─released─> 1 ─released─> 2 ... ─released─> limit      each state but the last allows one release
//!   └───────────closed──────────┴──> outside                  from any state, out of all that are allowed
//! ```

use ::tpm::{PcrSet, extended};
use secret::crypto::sha256;

use crate::source::SourceError;

/// A register that is fit to be a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GateRegister(u8);

impl GateRegister {
    /// Registers 8 to 15 are reset by a restart alone, and are left to the system that runs (TCG PC Client Profile, 2.3.4); 10 is
    /// extended by the kernel at any time (IMA). 16 and 23 are reset by any software: they would open again at once.
    pub(super) fn new(pcr: u8) -> Result<Self, SourceError> {
        let defect = match pcr {
            _ if !host::in_force("tpm-gate-static") => return Ok(Self(pcr)),
            10 => "PCR 10 is extended by the kernel (IMA) at any time",
            8..=15 => return Ok(Self(pcr)),
            16 | 23 => "it can be reset by software without a restart",
            _ => "only PCRs 8 to 15, without 10, are both free and reset by a restart alone",
        };
        Err(SourceError::PolicyEmpty { defect: format!("PCR {pcr} is no gate: {defect}") })
    }

    pub(super) fn number(self) -> u8 {
        self.0
    }

    pub(super) fn set(self) -> PcrSet {
        PcrSet::new([self.0]).unwrap_or_default()
    }
}

/// The states of a gate that allow a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) register: GateRegister,
    /// Its value when a boot has come as far as provisioning had.
    pub(super) base: [u8; 32],
    /// Releases per boot, from 1.
    pub(super) limit: u8,
}

impl Gate {
    /// The values under which one more release is allowed, in their order.
    pub(super) fn allowed(&self) -> Vec<[u8; 32]> {
        chain(self.base).take(usize::from(self.limit)).collect()
    }

    /// How many more releases than the next one `value` allows; `None` if not even that.
    pub(super) fn left_after_next(&self, value: &[u8; 32]) -> Option<u8> {
        let used = self.allowed().iter().position(|allowed| allowed == value)?;
        u8::try_from(used).ok().map(|used| self.limit.saturating_sub(used + 1))
    }
}

/// Whether the register shows that this boot's releases have begun: then the value at a start is not what it has now.
pub(super) fn begun(value: &[u8; 32]) -> bool {
    let used = chain([0; 32]).take(usize::from(MOST_RELEASES) + 1);
    used.skip(1).any(|v| v == *value)
        || chain([0; 32]).take(usize::from(MOST_RELEASES) + 1).any(|v| closed(&v) == *value)
}

fn chain(base: [u8; 32]) -> impl Iterator<Item = [u8; 32]> {
    std::iter::successors(Some(base), |value| Some(extended(value, &released_event())))
}

fn closed(value: &[u8; 32]) -> [u8; 32] {
    extended(value, &closed_event())
}

/// What is extended at each release.
pub(super) fn released_event() -> [u8; 32] {
    sha256(&[b"edgekeep/v1/ikm-released"])
}

/// What is extended to close.
pub(super) fn closed_event() -> [u8; 32] {
    sha256(&[b"edgekeep/v1/ikm-closed"])
}

/// Branches of one PolicyOR (TPM 2.0 Library, part 2, 10.9.3).
pub(super) const MOST_RELEASES: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_no_gate() {
        let refused = |pcr| match GateRegister::new(pcr) {
            Err(SourceError::PolicyEmpty { defect }) => Some(defect),
            other => other.map(|_| None).unwrap(),
        };
        for pcr in [8, 9, 11, 12, 13, 14, 15] {
            assert_eq!(refused(pcr), None, "{pcr}");
        }
        for pcr in [16, 23] {
            let text = format!("PCR {pcr} is no gate: it can be reset by software without a restart");
            assert_eq!(refused(pcr), Some(text));
        }
        for pcr in [0, 7, 10, 17, 22, 24, 255] {
            assert!(refused(pcr).is_some(), "{pcr}");
        }
    }

    #[test]
    fn each_state_allows_one_release() {
        let gate = |limit| Gate { register: GateRegister(13), base: [7; 32], limit };
        let e = released_event();
        let (one, two) = (extended(&[7; 32], &e), extended(&extended(&[7; 32], &e), &e));
        assert_eq!(gate(3).allowed(), [[7; 32], one, two]);
        assert_eq!(gate(3).left_after_next(&[7; 32]), Some(2));
        assert_eq!(gate(3).left_after_next(&two), Some(0));
        assert_eq!(gate(3).left_after_next(&extended(&two, &e)), None);
        assert_eq!(gate(1).left_after_next(&[7; 32]), Some(0));
        assert_eq!(gate(1).left_after_next(&one), None);
        for state in gate(3).allowed() {
            assert_eq!(gate(3).left_after_next(&closed(&state)), None, "closing leads out of every state");
        }
    }

    #[test]
    fn a_boot_whose_releases_have_begun_is_noticed() {
        assert!(!begun(&[0; 32]) && !begun(&[7; 32]));
        let mut value = [0; 32];
        for _ in 0..MOST_RELEASES {
            assert!(begun(&closed(&value)));
            value = extended(&value, &released_event());
            assert!(begun(&value));
        }
        assert!(begun(&closed(&value)));
    }
}
