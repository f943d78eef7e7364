//! Sessions and their assertions as verbs (part 3, 11 and 23): what a policy is made of, said to the TPM.

use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::pcr::{PcrSet, PcrValues};
use crate::policy::{ClockCondition, MAX_BRANCHES, PolicyCommand, PolicyDigest, selection};
use crate::public::PinnedKey;
use crate::session::{Purpose, Session, Starting};
use crate::tpm::{RH_NULL, Tpm, code};
use crate::wire::{Malformed, Reader, Writer};

impl Tpm {
    /// Starts a policy session, salted to `key`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn policy_session(&mut self, key: &PinnedKey) -> Result<Session, TpmError> {
        self.start_session(key, Purpose::Policy)
    }

    /// Starts a session in which assertions are taken without being true: to see what digest they come to.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn trial_session(&mut self, key: &PinnedKey) -> Result<Session, TpmError> {
        self.start_session(key, Purpose::Trial)
    }

    /// Starts a session that authorises by a value, salted to `key`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn hmac_session(&mut self, key: &PinnedKey) -> Result<Session, TpmError> {
        self.start_session(key, Purpose::Hmac)
    }

    /// Ends a session that no command has ended.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn end(&mut self, session: Session) -> Result<(), TpmError> {
        self.release(session.handle())
    }

    /// What a session's assertions have come to. Not authenticated.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn policy_digest(&mut self, session: &Session) -> Result<PolicyDigest, TpmError> {
        let done = self.plain(POLICY_GET_DIGEST, &[session.handle()], &[])?;
        let mut r = Reader::new(&done.parameters);
        let read = r.sized().and_then(|digest| r.end().map(|()| digest)).map_err(POLICY_GET_DIGEST.malformed())?;
        let digest = read.try_into().map_err(|_| Malformed("a digest of the wrong length"));
        digest.map(PolicyDigest).map_err(POLICY_GET_DIGEST.malformed())
    }

    /// Asserts that the registers are as they are now; with `expected`, that they have these values.
    ///
    /// # Errors
    /// [`Refusal::Policy`] if they have not; without `expected`, a later assertion or the object finds out.
    pub fn policy_pcr(&mut self, session: &Session, set: PcrSet, expected: Option<&PcrValues>) -> Result<(), TpmError> {
        let digest = expected.and_then(|values| values.digest(set));
        let digest = digest.as_ref().map_or(&[][..], |digest| digest);
        let parameters = Writer::new().sized(digest).bytes(&selection(set)).done();
        self.plain(POLICY_PCR, &[session.handle()], &parameters).map(|_| ())
    }

    /// Asserts that the session is for one command.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn policy_command(&mut self, session: &Session, command: PolicyCommand) -> Result<(), TpmError> {
        self.plain(POLICY_COMMAND_CODE, &[session.handle()], &command.number().to_be_bytes()).map(|_| ())
    }

    /// Asserts that the session's digest is one of these.
    ///
    /// # Errors
    /// [`Refusal::Policy`] if it is none.
    pub fn policy_or(&mut self, session: &Session, branches: &[PolicyDigest]) -> Result<(), TpmError> {
        let count = u32::try_from(branches.len().min(MAX_BRANCHES + 1)).unwrap_or(u32::MAX);
        let list = branches.iter().fold(Writer::new().u32(count), |w, digest| w.sized(&digest.0));
        self.plain(POLICY_OR, &[session.handle()], &list.done()).map(|_| ())
    }

    /// Asserts a condition on the TPM's clocks.
    ///
    /// # Errors
    /// [`Refusal::Condition`] if it does not hold.
    pub fn policy_clock(&mut self, session: &Session, condition: ClockCondition) -> Result<(), TpmError> {
        let (operand, offset, operation) = condition.operands();
        let parameters = Writer::new().sized(&operand).u16(offset).u16(operation).done();
        self.plain(POLICY_COUNTER_TIMER, &[session.handle()], &parameters).map(|_| ())
    }

    /// Says that the object's authorisation value will be proven.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn policy_auth_value(&mut self, session: &Session) -> Result<(), TpmError> {
        self.plain(POLICY_AUTH_VALUE, &[session.handle()], &[]).map(|_| ())
    }

    fn start_session(&mut self, key: &PinnedKey, purpose: Purpose) -> Result<Session, TpmError> {
        let starting = Starting::salted(key, self.nonce()).map_err(START_AUTH_SESSION.malformed())?;
        let parameters = starting.parameters(purpose);
        let shape = Shape { handle: true, authorised: false };
        let done = self.exchange(START_AUTH_SESSION, &[key.handle(), RH_NULL], None, &parameters, shape)?;
        let handle = self.hold(START_AUTH_SESSION, done.handle)?;
        starting.started(handle, &done.parameters).map_err(START_AUTH_SESSION.malformed())
    }
}

pub(crate) const START_AUTH_SESSION: CommandCode = code("StartAuthSession", 0x176);
pub(crate) const POLICY_PCR: CommandCode = code("PolicyPCR", 0x17F);
pub(crate) const POLICY_OR: CommandCode = code("PolicyOR", 0x171);
pub(crate) const POLICY_COUNTER_TIMER: CommandCode = code("PolicyCounterTimer", 0x16D);
pub(crate) const POLICY_AUTH_VALUE: CommandCode = code("PolicyAuthValue", 0x16B);
pub(crate) const POLICY_AUTHORIZE: CommandCode = code("PolicyAuthorize", 0x16A);
pub(crate) const POLICY_COMMAND_CODE: CommandCode = code("PolicyCommandCode", 0x16C);
pub(crate) const POLICY_SECRET: CommandCode = code("PolicySecret", 0x151);
const POLICY_GET_DIGEST: CommandCode = code("PolicyGetDigest", 0x189);
