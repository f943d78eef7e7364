//! What a TPM says of its clocks and its lockout. Not authenticated.

use std::time::Duration;

use super::{Tpm, code};
use crate::error::TpmError;
use crate::frame::CommandCode;
use crate::wire::{Malformed, Reader, Writer};

/// The TPM's own counters (part 2, 10.11). Not authenticated: for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Time since it was started or resumed.
    pub since_start: Duration,
    /// How often it was reset.
    pub resets: u32,
    /// How often it was resumed since the last reset.
    pub resumes: u32,
}

/// What stands between wrong authorisation values and the lockout. Not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Wrong ones so far.
    pub failed: u32,
    /// How many lock it.
    pub limit: u32,
}

impl Tpm {
    /// The time since its start, and how often it was started.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn read_clock(&mut self) -> Result<Clocks, TpmError> {
        let done = self.plain(READ_CLOCK, &[], &[])?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || {
            let (time, _clock, resets, resumes, _safe) = (r.u64()?, r.u64()?, r.u32()?, r.u32()?, r.u8()?);
            r.end()?;
            Ok(Clocks { since_start: Duration::from_millis(time), resets, resumes })
        };
        read().map_err(READ_CLOCK.malformed())
    }

    /// How near the lockout is.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn read_lockout(&mut self) -> Result<Lockout, TpmError> {
        // TPM_PT_LOCKOUT_COUNTER and, next to it, TPM_PT_MAX_AUTH_FAIL (part 2, 6.13).
        const COUNTER: u32 = 0x20E;
        let parameters = Writer::new().u32(CAP_TPM_PROPERTIES).u32(COUNTER).u32(2).done();
        let done = self.plain(GET_CAPABILITY, &[], &parameters)?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || {
            let (_more, capability, count) = (r.u8()?, r.u32()?, r.u32()?);
            let (counter, failed, maximum, limit) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            r.end()?;
            if (capability, count, counter, maximum) != (CAP_TPM_PROPERTIES, 2, COUNTER, COUNTER + 1) {
                return Err(Malformed("other properties than were asked for"));
            }
            Ok(Lockout { failed, limit })
        };
        read().map_err(GET_CAPABILITY.malformed())
    }
}

const READ_CLOCK: CommandCode = code("ReadClock", 0x181);
const GET_CAPABILITY: CommandCode = code("GetCapability", 0x17A);
const CAP_TPM_PROPERTIES: u32 = 6;
