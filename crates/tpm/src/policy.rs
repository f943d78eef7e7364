//! Policies, computed as the TPM will compute them (part 3, 23): what a session's digest is after each assertion.

use secret::crypto::sha256;

use crate::assertions::{
    POLICY_AUTH_VALUE, POLICY_AUTHORIZE, POLICY_COMMAND_CODE, POLICY_COUNTER_TIMER, POLICY_OR, POLICY_PCR,
    POLICY_SECRET,
};
use crate::frame::CommandCode;
use crate::nv::NV_READ_LOCK;
use crate::pcr::{PcrSet, PcrValues};
use crate::public::Name;
use crate::wire::Writer;

/// A policy session's digest; of a new session, zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyDigest(pub [u8; 32]);

/// Most branches of one OR (part 2, 10.9.3: TPML_DIGEST holds eight).
pub const MAX_BRANCHES: usize = 8;

impl PolicyDigest {
    /// These registers have these values (TPM2_PolicyPCR).
    ///
    /// # Errors
    /// `None` if a register of the set has no value.
    #[must_use]
    pub fn pcr(self, set: PcrSet, values: &PcrValues) -> Option<Self> {
        let digest = values.digest(set)?;
        Some(self.after(POLICY_PCR, &[&selection(set), &digest]))
    }

    /// One of these digests was reached (TPM2_PolicyOR): what came before is forgotten.
    #[must_use]
    pub fn any_of(branches: &[Self]) -> Self {
        let parts: Vec<&[u8]> = branches.iter().map(|b| b.0.as_slice()).collect();
        Self::default().after(POLICY_OR, &parts)
    }

    /// A condition on the TPM's clocks (TPM2_PolicyCounterTimer).
    #[must_use]
    pub fn clock(self, condition: ClockCondition) -> Self {
        let (operand, offset, operation) = condition.operands();
        let arguments = sha256(&[&operand, &offset.to_be_bytes(), &operation.to_be_bytes()]);
        self.after(POLICY_COUNTER_TIMER, &[&arguments])
    }

    /// The object's authorisation value is known (TPM2_PolicyAuthValue).
    #[must_use]
    pub fn auth_value(self) -> Self {
        self.after(POLICY_AUTH_VALUE, &[])
    }

    /// Whoever holds this key has approved of what came before, which is forgotten (TPM2_PolicyAuthorize, without
    /// policyRef).
    #[must_use]
    pub fn authorized_by(key: &Name) -> Self {
        Self::default().after(POLICY_AUTHORIZE, &[key.as_bytes()]).with_reference()
    }

    /// The authorisation value of an entity was shown (TPM2_PolicySecret, without policyRef).
    #[must_use]
    pub fn secret(self, of: &Name) -> Self {
        self.after(POLICY_SECRET, &[of.as_bytes()]).with_reference()
    }

    /// For this command alone (TPM2_PolicyCommandCode).
    #[must_use]
    pub fn command(self, command: PolicyCommand) -> Self {
        self.after(POLICY_COMMAND_CODE, &[&command.number().to_be_bytes()])
    }

    /// The second half of the assertions that name an entity (part 3, 23.2.3): over policyRef, which is empty here.
    fn with_reference(self) -> Self {
        Self(sha256(&[&self.0]))
    }

    fn after(self, assertion: CommandCode, arguments: &[&[u8]]) -> Self {
        let number = assertion.number.to_be_bytes();
        let parts: Vec<&[u8]> = [&self.0[..], &number].into_iter().chain(arguments.iter().copied()).collect();
        Self(sha256(&parts))
    }
}

/// Commands that a policy can be narrowed down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyCommand {
    /// TPM2_NV_ReadLock.
    NvReadLock,
}

impl PolicyCommand {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::NvReadLock => NV_READ_LOCK.number,
        }
    }
}

/// What the TPM's clocks must say (part 2, 10.11.1, TPMS_TIME_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockCondition {
    /// Fewer milliseconds have passed since it was started.
    TimeBelow(u64),
    /// It was not resumed since it was started: a resume begins the time anew.
    NeverResumed,
}

impl ClockCondition {
    /// Operand, where in TPMS_TIME_INFO, and how to compare (part 2, 6.8, TPM_EO).
    pub(crate) fn operands(self) -> (Vec<u8>, u16, u16) {
        const EQUAL: u16 = 0;
        const UNSIGNED_LESS: u16 = 5;
        match self {
            Self::TimeBelow(ms) => (ms.to_be_bytes().to_vec(), 0, UNSIGNED_LESS),
            // time 8, clock 8, resetCount 4, then restartCount.
            Self::NeverResumed => (vec![0; 4], 20, EQUAL),
        }
    }
}

/// A selection of the SHA-256 bank (TPML_PCR_SELECTION).
pub(crate) fn selection(set: PcrSet) -> Vec<u8> {
    let [_, high, middle, low] = set.bits().to_be_bytes();
    Writer::new().u32(1).u16(crate::public::SHA256).u8(3).bytes(&[low, middle, high]).done().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_by_the_byte() {
        assert_eq!(hex::encode(selection(PcrSet::new([0, 7, 11, 23]).unwrap())), "00000001000b03810880");
    }

    #[test]
    fn digests_by_their_definition() {
        let set = PcrSet::new([7]).unwrap();
        let values = PcrValues::new([(7, [1; 32])]);
        let pcr = PolicyDigest::default().pcr(set, &values).unwrap();
        let inner = sha256(&[&[1; 32]]);
        assert_eq!(pcr.0, sha256(&[&[0; 32], &[0, 0, 1, 0x7f], &selection(set), &inner]));
        let or = PolicyDigest::any_of(&[pcr, PolicyDigest([2; 32])]);
        assert_eq!(or.0, sha256(&[&[0; 32], &[0, 0, 1, 0x71], &pcr.0, &[2; 32]]));
        assert_eq!(or.auth_value().0, sha256(&[&or.0, &[0, 0, 1, 0x6b]]));
        let arguments = sha256(&[&3000u64.to_be_bytes(), &[0, 0], &[0, 5]]);
        assert_eq!(or.clock(ClockCondition::TimeBelow(3000)).0, sha256(&[&or.0, &[0, 0, 1, 0x6d], &arguments]));
        let arguments = sha256(&[&[0; 4], &[0, 20], &[0, 0]]);
        assert_eq!(or.clock(ClockCondition::NeverResumed).0, sha256(&[&or.0, &[0, 0, 1, 0x6d], &arguments]));
        let name = Name::from_bytes(&[&[0, 0x0b][..], &[5; 32]].concat()).unwrap();
        let once = sha256(&[&or.0, &[0, 0, 1, 0x51], name.as_bytes()]);
        assert_eq!(or.secret(&name).0, sha256(&[&once]), "over the empty policyRef too");
        let once = sha256(&[&[0; 32], &[0, 0, 1, 0x6a], name.as_bytes()]);
        assert_eq!(PolicyDigest::authorized_by(&name).0, sha256(&[&once]));
        let command = or.command(PolicyCommand::NvReadLock);
        assert_eq!(command.0, sha256(&[&or.0, &[0, 0, 1, 0x6c], &[0, 0, 1, 0x4f]]));
        assert_eq!(PolicyDigest::default().pcr(PcrSet::new([8]).unwrap(), &values), None);
    }
}
