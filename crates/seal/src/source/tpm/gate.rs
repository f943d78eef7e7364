//! The gate: a register that no software takes back. It says how far this boot has come with its releases, by itself or
//! with a counter in the TPM beside it.
//!
//! ```text
//! alone         base ─released─> 1 ─released─> 2 ... ─released─> limit      each state but the last allows one release
//! with counter  base ───armed──> armed      at base the counter may be written; when armed it may only be asked
//!                 └──closed─────────┴──> outside      from any state, out of all that are allowed
//! ```

use std::fmt;

use ::tpm::policy::PolicyDigest;
use ::tpm::{NvHandle, NvIndex, PcrSet, PcrValues, Tpm, TpmError, extended};
use secret::crypto::sha256;

use super::chip::Chip;
use crate::source::SourceError;

/// A register that is fit to be a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GateRegister(u8);

impl GateRegister {
    /// Registers 8 to 15 are reset by a restart alone, and are left to the system that runs (TCG PC Client Profile,
    /// 2.3.4); 10 is extended by the kernel at any time (IMA). 16 and 23 are reset by any software: they would open
    /// again at once.
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

    /// What it holds now. Not authenticated: the policy decides.
    pub(super) fn read(self, tpm: &mut Tpm) -> Result<[u8; 32], TpmError> {
        Ok(tpm.read_pcrs(self.set())?.value(self.0).copied().unwrap_or_default())
    }
}

impl fmt::Display for GateRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR {}", self.0)
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
    /// The index that counts them, where the TPM can; else the register does.
    pub(super) counter: Option<NvHandle>,
}

impl Gate {
    /// The values under which one more release is allowed, in their order.
    pub(super) fn allowed(&self) -> Vec<[u8; 32]> {
        match self.counter {
            Some(_) => vec![self.armed()],
            None => chain(self.base).take(usize::from(self.limit)).collect(),
        }
    }

    /// The value in which the counter counts, and can no longer be written. It tells how far the counter was let count,
    /// since the counter's content is in no policy: a slot whose limit was raised on the disk leads to another value,
    /// and to nothing.
    pub(super) fn armed(&self) -> [u8; 32] {
        extended(&self.base, &armed_event(self.limit))
    }

    /// The register alone, at its base.
    pub(super) fn at_base(&self) -> PcrValues {
        PcrValues::new([(self.register.number(), self.base)])
    }

    /// The counter: written only while the register is at its base. So who undefines it and defines it anew has one
    /// that cannot be written before the next start, and one that is not written releases nothing.
    pub(super) fn index(&self) -> Option<NvIndex> {
        self.counter.map(|handle| self.index_at(handle))
    }

    /// The counter as it would be under that number.
    pub(super) fn index_at(&self, handle: NvHandle) -> NvIndex {
        let write = match PolicyDigest::default().pcr(self.register.set(), &self.at_base()) {
            Some(digest) if host::in_force("tpm-counter-joined") => digest,
            _ => PolicyDigest::default(),
        };
        NvIndex::counter(handle, write)
    }

    /// Nothing more is released in this boot.
    pub(super) fn is_closed(&self, chip: &Chip) -> SourceError {
        chip.faults().exhausted(format!("{} is closed", self.register))
    }

    /// How many more releases than the next one `value` allows; `None` if not even that.
    pub(super) fn left_after_next(&self, value: &[u8; 32]) -> Option<u8> {
        let used = self.allowed().iter().position(|allowed| allowed == value)?;
        u8::try_from(used).ok().map(|used| self.limit.saturating_sub(used + 1))
    }
}

/// For people.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.counter {
            Some(handle) => write!(f, "NV index {handle}, behind {}", self.register),
            None => write!(f, "{} alone", self.register),
        }
    }
}

/// Whether the register shows that this boot's releases have begun: then the value at a start is not what it has now.
/// Only a register that began at zero can show it.
pub(super) fn begun(value: &[u8; 32]) -> bool {
    let armed = || (1..=MOST_RELEASES).map(|limit| extended(&[0; 32], &armed_event(limit)));
    let states = || chain([0; 32]).take(usize::from(MOST_RELEASES) + 1).chain(armed());
    let closings = |state| std::iter::successors(Some(closed(&state)), |v| Some(closed(v))).take(MOST_CLOSINGS);
    states().skip(1).any(|v| v == *value) || states().any(|v| closings(v).any(|c| c == *value))
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

/// What is extended when the counter was written with `limit`.
pub(super) fn armed_event(limit: u8) -> [u8; 32] {
    sha256(&[b"edgekeep/v1/ikm-armed", &[limit]])
}

/// What is extended to close.
pub(super) fn closed_event() -> [u8; 32] {
    sha256(&[b"edgekeep/v1/ikm-closed"])
}

/// Branches of one PolicyOR (TPM 2.0 Library, part 2, 10.9.3).
pub(super) const MOST_RELEASES: u8 = 8;
/// How many closings of one boot are looked for.
const MOST_CLOSINGS: usize = 8;

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
        let gate = |limit| Gate { register: GateRegister(13), base: [7; 32], limit, counter: None };
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
    fn a_counter_is_written_at_the_base_and_asked_when_armed() {
        let gate = |handle| Gate { register: GateRegister(13), base: [7; 32], limit: 3, counter: handle };
        let counted = gate(Some(NvHandle::drawn(1)));
        assert_eq!(counted.allowed(), [extended(&[7; 32], &armed_event(3))]);
        assert_ne!(Gate { limit: 2, ..counted }.armed(), counted.armed());
        assert!(!counted.allowed().contains(&counted.base));
        let other_base = Gate { base: [8; 32], ..counted };
        assert_ne!(counted.index(), other_base.index(), "what it may be written under is part of it");
        assert_eq!(gate(None).index(), None);
        assert!(begun(&Gate { base: [0; 32], ..counted }.armed()));
    }

    #[test]
    fn a_boot_whose_releases_have_begun_is_noticed() {
        assert!(!begun(&[0; 32]) && !begun(&[7; 32]));
        let mut value = [0; 32];
        for _ in 0..MOST_RELEASES {
            assert!(begun(&closed(&value)) && begun(&closed(&closed(&value))));
            value = extended(&value, &released_event());
            assert!(begun(&value));
        }
        assert!(begun(&closed(&value)));
    }
}
