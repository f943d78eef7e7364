//! A vendor's approval of the registers as they are: chosen from those that the image brings, and shown to the TPM.
//!
//! ```text
//! [PCR_Read, to choose one of several] ─ PolicyPCR ─ LoadExternal ─ VerifySignature ─ PolicyAuthorize
//! ```

use ::tpm::policy::PolicyDigest;
use ::tpm::{PcrSet, PcrValues, PinnedKey, Refusal, Session, Tpm, TpmError};

use super::chip::Chip;
use super::signed::{Approval, SignatureFile};
use super::state::State;
use crate::source::SourceError;

impl State {
    /// Shows the vendor's approval of the registers as they are, where the state asks for one.
    pub(super) fn show_approval(
        &self,
        chip: &Chip,
        tpm: &mut Tpm,
        session: &Session,
        signatures: &SignatureFile,
    ) -> Result<(), SourceError> {
        let Some(key) = self.signer() else { return Ok(()) };
        let approvals = signatures.read(&*chip.disk)?.of(key);
        let registers = looked_at(&approvals);
        let approval = match &approvals[..] {
            // There is nothing to choose, and whether it fits the TPM finds out.
            [only] => only,
            several => {
                let values = tpm.read_pcrs(registers).map_err(|e| chip.faults().tpm(e))?;
                fitting(several, &values).ok_or_else(|| signatures.none_fits(several.len(), &values))?
            }
        };
        let shown = tpm
            .policy_pcr(session, approval.pcrs, None)
            .and_then(|()| tpm.policy_authorize(session, &approval.policy, key, &approval.signature));
        shown.map_err(|e| match e.refusal() {
            Some(Refusal::Policy) => match tpm.read_pcrs(registers) {
                Ok(values) if fitting(&approvals, &values).is_none() => signatures.none_fits(approvals.len(), &values),
                Ok(_) => signatures.not_the_keys(&e),
                Err(e) => chip.faults().tpm(e),
            },
            Some(Refusal::Signature) => signatures.not_the_keys(&e),
            _ => chip.faults().tpm(e),
        })
    }

    /// Sees, before a slot is made, that the vendor has approved of what the registers hold, by the TPM's proof, and
    /// that they say something of the device: a slot that opens for unmeasured registers would open for every image
    /// that measures nothing.
    pub(super) fn try_approved(
        &self,
        chip: &Chip,
        tpm: &mut Tpm,
        key: &PinnedKey,
        signatures: &SignatureFile,
    ) -> Result<(), SourceError> {
        let faults = chip.faults();
        let Some(signer) = self.signer() else { return Ok(()) };
        let approvals = signatures.read(&*chip.disk)?.of(signer);
        let values = tpm.read_pcrs_proven(key, looked_at(&approvals)).map_err(|e| faults.tpm(e))?;
        let approval = fitting(&approvals, &values).ok_or_else(|| signatures.none_fits(approvals.len(), &values))?;
        approval.pcrs.iter().try_for_each(|pcr| Self::measured(pcr, &values).map(|_| ()))?;
        let session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
        self.show_approval(chip, tpm, &session, signatures)?;
        tpm.end(session).map_err(|e| faults.tpm(e))
    }

    /// In a trial session: the approval, taken for given.
    pub(super) fn try_approval(&self, tpm: &mut Tpm, session: &Session) -> Result<(), TpmError> {
        self.signer().map_or(Ok(()), |key| tpm.trial_authorize(session, key))
    }
}

/// The registers that any of them is for.
fn looked_at(approvals: &[Approval]) -> PcrSet {
    approvals.iter().fold(PcrSet::default(), |all, approval| all.union(approval.pcrs))
}

/// The one that is for these values.
fn fitting<'a>(approvals: &'a [Approval], values: &PcrValues) -> Option<&'a Approval> {
    approvals.iter().find(|a| PolicyDigest::default().pcr(a.pcrs, values) == Some(a.policy))
}
