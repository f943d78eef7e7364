//! Registers: what they hold, with or without proof, and extending them.

use zeroize::Zeroizing;

use super::{Done, Entity, Tpm, code};
use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::pcr::{PcrSet, PcrValues};
use crate::policy::selection;
use crate::public::{PinnedKey, SHA256};
use crate::session::{Session, Use};
use crate::wire::{Malformed, Reader, Writer};

impl Tpm {
    /// What registers hold, of the SHA-256 bank. Not authenticated: for people, and to choose what to ask; a policy
    /// decides.
    ///
    /// # Errors
    /// [`TpmError`]; malformed if the TPM has no such bank.
    pub fn read_pcrs(&mut self, set: PcrSet) -> Result<PcrValues, TpmError> {
        self.read_each(set, |tpm, selected| tpm.plain(PCR_READ, &[], selected))
    }

    /// As [`Tpm::read_pcrs`], with proof that the TPM which has `key` says so: for values that a policy is made of.
    /// Nobody on the bus chooses what a slot opens for.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::NotAuthentic`].
    pub fn read_pcrs_proven(&mut self, key: &PinnedKey, set: PcrSet) -> Result<PcrValues, TpmError> {
        if set.is_empty() || !host::in_force("tpm-registers-proven") {
            return self.read_pcrs(set);
        }
        let mut session = self.hmac_session(key)?;
        // Its first parameter in either direction is no TPM2B, and so cannot be encrypted: audited, each is covered by
        // the HMAC.
        let how = Use { keep: true, audit: true, ..Use::default() };
        let values =
            self.read_each(set, |tpm, selected| tpm.in_session(PCR_READ, &[], &mut session, &[], how, selected))?;
        self.end(session)?;
        Ok(values)
    }

    fn read_each(
        &mut self,
        set: PcrSet,
        mut ask: impl FnMut(&mut Self, &mut Zeroizing<Vec<u8>>) -> Result<Done, TpmError>,
    ) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::default();
        let mut missing = set;
        // Eight registers fit an answer (part 2, 10.9.7).
        while !missing.is_empty() {
            let done = ask(self, &mut Zeroizing::new(selection(missing)))?;
            let read = pcr_answer(&done.parameters, missing).map_err(PCR_READ.malformed())?;
            let got = PcrSet::new(read.iter().map(|(pcr, _)| pcr)).unwrap_or_default();
            missing = missing.without(got);
            values = read.iter().fold(values, |all, (pcr, value)| all.with(pcr, *value));
        }
        Ok(values)
    }

    /// Extends a register of the SHA-256 bank, and ends the session ([`Tpm::hmac_session`]): its HMAC proves that the
    /// TPM has extended this register by this digest. Nobody on the bus can swallow the command and say that it was
    /// done.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::NotAuthentic`].
    pub fn extend_pcr(&mut self, mut session: Session, pcr: u8, digest: &[u8; 32]) -> Result<(), TpmError> {
        let mut parameters = Writer::new().u32(1).u16(SHA256).bytes(digest).done();
        let register = [Entity::Handle(u32::from(pcr))];
        self.in_session(PCR_EXTEND, &register, &mut session, &[], Use::default(), &mut parameters).map(|_| ())
    }

    /// As [`Tpm::extend_pcr`], without proof: for where a policy will show whether it was done.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn extend_pcr_unproven(&mut self, pcr: u8, digest: &[u8; 32]) -> Result<(), TpmError> {
        let parameters = Writer::new().u32(1).u16(SHA256).bytes(digest).done();
        self.with_password(PCR_EXTEND, &[u32::from(pcr)], Shape::default(), &parameters).map(|_| ())
    }
}

/// The answer to PCR_Read: a counter, which registers these are, their values. At least one of those that were asked
/// for, and no other.
pub(super) fn pcr_answer(parameters: &[u8], asked: PcrSet) -> Result<PcrValues, Malformed> {
    let mut r = Reader::new(parameters);
    let (_updates, banks, bank, size) = (r.u32()?, r.u32()?, r.u16()?, r.u8()?);
    let bits = r.array::<3>()?;
    if (banks, bank, size) != (1, SHA256, 3) {
        return Err(Malformed("another bank than SHA-256"));
    }
    let got = PcrSet::from_bits(u32::from_le_bytes([bits[0], bits[1], bits[2], 0])).unwrap_or_default();
    if got.is_empty() || !got.without(asked).is_empty() {
        return Err(Malformed("other registers than were asked for"));
    }
    if r.u32()? as usize != got.len() {
        return Err(Malformed("another number of values than of registers"));
    }
    let mut values = PcrValues::default();
    for pcr in got.iter() {
        let value = r.sized()?.try_into().map_err(|_| Malformed("a value of the wrong length"))?;
        values = values.with(pcr, value);
    }
    r.end()?;
    Ok(values)
}

const PCR_EXTEND: CommandCode = code("PCR_Extend", 0x182);
const PCR_READ: CommandCode = code("PCR_Read", 0x17E);
