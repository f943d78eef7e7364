//! NV indices (part 1, 37): memory of the TPM's own, with a policy of its own.
//!
//! ```text
//! secret    written once and locked for good; read under a policy; locked against reading until the TPM is started anew
//! counter   how often something was asked for since the TPM was started, and how often it may be (TPM_NT_PIN_PASS)
//! ```
//! The name of an index is made of its number, its kind, its policy and the bits that tell its state. So who undefines
//! it and defines another in its place has another name, or has to begin with one that is not written.

use std::fmt;

use secret::SecretBytes;
use zeroize::Zeroizing;

use crate::assertions::POLICY_SECRET;
use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::policy::PolicyDigest;
use crate::public::{AuthValue, Name, PinnedKey, SHA256};
use crate::session::{Session, Use};
use crate::tpm::{Entity, RH_OWNER, Tpm, code};
use crate::wire::{Malformed, Reader, Writer};

/// The number of an index of ours. The TCG leaves 0x01800000 to 0x01BFFFFF to the owner (Registry of Reserved TPM 2.0
/// Handles and Localities, 2.2.2); ours lie together there, so that people recognise them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NvHandle(u32);

impl NvHandle {
    /// One of 256, by a number that was drawn.
    pub fn drawn(byte: u8) -> Self {
        Self(OURS | u32::from(byte))
    }

    /// One that was kept.
    ///
    /// # Errors
    /// `None` if it is not one of ours.
    pub fn from_number(number: u32) -> Option<Self> {
        (number & !0xFF == OURS).then_some(Self(number))
    }

    /// As it is kept.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NvHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for NvHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NvHandle({self})")
    }
}

/// An index as it is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvIndex {
    handle: NvHandle,
    kind: u32,
    policy: PolicyDigest,
    bytes: u16,
}

/// What an index has been through. It is part of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvState {
    /// Something is in it. A counter loses this when the TPM is started anew.
    pub written: bool,
    /// Nothing more can be written.
    pub write_locked: bool,
    /// Nothing can be read until the TPM is started anew.
    pub read_locked: bool,
}

impl NvState {
    /// A counter in use.
    pub const COUNTING: Self = Self { written: true, write_locked: false, read_locked: false };
    /// A secret that can be read.
    pub const READABLE: Self = Self { written: true, write_locked: true, read_locked: false };

    fn bits(self) -> u32 {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        bit(self.written, WRITTEN) | bit(self.write_locked, WRITE_LOCKED) | bit(self.read_locked, READ_LOCKED)
    }
}

/// A counter's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinCounter {
    /// How often it was asked.
    pub count: u32,
    /// How often it lets itself be asked.
    pub limit: u32,
}

impl NvIndex {
    /// For a secret of 32 octets, read under `policy`; with `lockable` it can be locked against reading, under the same
    /// policy. With a `pin` as its authorisation value wrong ones count towards the lockout.
    pub fn secret(handle: NvHandle, policy: PolicyDigest, pin: bool, lockable: bool) -> Self {
        // Written under its authorisation value, before that matters: WRITEDEFINE and a lock end all writing.
        let lock = if lockable { READ_STCLEAR } else { 0 };
        let kind = AUTH_WRITE | WRITE_DEFINE | POLICY_READ | lock | if pin { 0 } else { NO_DA };
        Self { handle, kind, policy, bytes: SECRET_BYTES }
    }

    /// A counter: written under `policy`, read by the owner, and without content after each start of the TPM. NO_DA:
    /// else each power cut would count as a wrong value towards the lockout (part 1, 19.8.6). ORDERLY: what ends with
    /// the start need not wear the memory.
    pub fn counter(handle: NvHandle, policy: PolicyDigest) -> Self {
        let kind = PIN_PASS | POLICY_WRITE | OWNER_READ | NO_DA | ORDERLY | CLEAR_STCLEAR;
        Self { handle, kind, policy, bytes: COUNTER_BYTES }
    }

    /// Its number.
    pub fn handle(&self) -> NvHandle {
        self.handle
    }

    /// Its name in a state (part 1, 16: over TPMS_NV_PUBLIC).
    pub fn name(&self, state: NvState) -> Name {
        Name::of(&self.public(state))
    }

    fn public(&self, state: NvState) -> Zeroizing<Vec<u8>> {
        Writer::new()
            .u32(self.handle.0)
            .u16(SHA256)
            .u32(self.kind | state.bits())
            .sized(&self.policy.0)
            .u16(self.bytes)
            .done()
    }
}

impl Tpm {
    /// Defines an index, with an authorisation value or none. The value does not cross the bus in clear, and the answer
    /// proves that this index was defined and no other.
    ///
    /// # Errors
    /// [`crate::Refusal::NvDefined`] if there is one of that number.
    pub fn nv_define(&mut self, key: &PinnedKey, index: &NvIndex, value: Option<&AuthValue>) -> Result<(), TpmError> {
        let mut session = self.hmac_session(key)?;
        let value = value.map_or(&[][..], AuthValue::expose);
        let mut parameters = Writer::new().sized(value).sized(&index.public(NvState::default())).done();
        let how = Use { encrypt_command: true, ..Use::default() };
        let done =
            self.in_session(NV_DEFINE_SPACE, &[Entity::Handle(RH_OWNER)], &mut session, &[], how, &mut parameters);
        if done.is_err() {
            // A command that is refused does not end its session.
            self.drop_session(session);
        }
        done.map(|_| ())
    }

    /// Removes an index, and what is in it.
    ///
    /// # Errors
    /// [`crate::Refusal::Handle`] if there is none.
    pub fn nv_undefine(&mut self, handle: NvHandle) -> Result<(), TpmError> {
        self.with_password(NV_UNDEFINE_SPACE, &[RH_OWNER, handle.0], Shape::default(), &[]).map(|_| ())
    }

    /// The name of the index that has this number, whatever it is. Not authenticated: for people.
    ///
    /// # Errors
    /// [`crate::Refusal::Handle`] if there is none.
    pub fn nv_name(&mut self, handle: NvHandle) -> Result<Name, TpmError> {
        let done = self.plain(NV_READ_PUBLIC, &[handle.0], &[])?;
        name_in(&done.parameters).map_err(NV_READ_PUBLIC.malformed())
    }

    /// Sees that an index is in a state, and that the session was salted to a key which this TPM has: the command's
    /// HMAC covers the name, and the answer's proves who took it. The session stays as it is, and no authorisation
    /// value is in it yet.
    ///
    /// # Errors
    /// [`crate::Refusal::Handle`] if there is none; [`crate::Refusal::Auth`] for another one, another state, or another
    /// key.
    pub fn nv_shown(&mut self, session: &mut Session, index: &NvIndex, state: NvState) -> Result<(), TpmError> {
        let name = index.name(state);
        let entity = [Entity::Named(index.handle.0, &name)];
        let how = Use { keep: true, encrypt_answer: true, ..Use::default() };
        self.in_session(NV_READ_PUBLIC, &entity, session, &[], how, &mut Zeroizing::default()).map(|_| ())
    }

    /// Writes a secret, once, and locks it against being written again. It does not cross the bus in clear.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_write_once(
        &mut self,
        key: &PinnedKey,
        index: &NvIndex,
        value: Option<&AuthValue>,
        secret: &[u8; SECRET_BYTES as usize],
    ) -> Result<(), TpmError> {
        let mut session = self.hmac_session(key)?;
        let value = value.map_or(&[][..], AuthValue::expose);
        let how = Use { keep: true, encrypt_command: true, ..Use::default() };
        let mut parameters = Writer::new().sized(secret).u16(0).done();
        let fresh = index.name(NvState::default());
        let entities = [Entity::Named(index.handle.0, &fresh), Entity::Named(index.handle.0, &fresh)];
        self.in_session(NV_WRITE, &entities, &mut session, value, how, &mut parameters)?;
        let written = index.name(NvState { written: true, ..NvState::default() });
        let entities = [Entity::Named(index.handle.0, &written), Entity::Named(index.handle.0, &written)];
        self.in_session(NV_WRITE_LOCK, &entities, &mut session, value, Use::default(), &mut Zeroizing::default())?;
        Ok(())
    }

    /// Reads a secret under a policy; the session begins anew. The secret crosses the bus encrypted; an answer that the
    /// TPM did not make is refused, and so is another index in the place of this one: its name is in the session's
    /// HMAC.
    ///
    /// # Errors
    /// [`crate::Refusal::Policy`]; [`crate::Refusal::Auth`] for another index, a wrong value, or one that is locked.
    pub fn nv_read_secret(
        &mut self,
        session: &mut Session,
        index: &NvIndex,
        value: Option<&AuthValue>,
    ) -> Result<SecretBytes, TpmError> {
        let name = index.name(NvState::READABLE);
        let entities = [Entity::Named(index.handle.0, &name), Entity::Named(index.handle.0, &name)];
        let how = Use { keep: true, encrypt_answer: true, ..Use::default() };
        let mut parameters = Writer::new().u16(SECRET_BYTES).u16(0).done();
        let value = value.map_or(&[][..], AuthValue::expose);
        let done = self.in_session(NV_READ, &entities, session, value, how, &mut parameters)?;
        let mut r = Reader::new(&done.parameters);
        let secret = r.sized().map_err(NV_READ.malformed())?;
        r.end().map_err(NV_READ.malformed())?;
        Ok(SecretBytes::new(secret.to_vec()))
    }

    /// Locks a secret against being read until the TPM is started anew, under its policy, and ends the session: its
    /// HMAC proves that the TPM has done so.
    ///
    /// # Errors
    /// [`crate::Refusal::Auth`] for another index, or one that is locked.
    pub fn nv_read_lock(&mut self, mut session: Session, index: &NvIndex) -> Result<(), TpmError> {
        let name = index.name(NvState::READABLE);
        let entities = [Entity::Named(index.handle.0, &name), Entity::Named(index.handle.0, &name)];
        let how = Use::default();
        let done = self.in_session(NV_READ_LOCK, &entities, &mut session, &[], how, &mut Zeroizing::default());
        if done.is_err() {
            self.drop_session(session);
        }
        done.map(|_| ())
    }

    /// Writes a counter under its policy; the session begins anew. What is written is in the session's HMAC.
    ///
    /// # Errors
    /// [`crate::Refusal::Policy`]; [`crate::Refusal::Auth`] if the counter is not in `state`, or another index.
    pub fn nv_write_counter(
        &mut self,
        session: &mut Session,
        index: &NvIndex,
        state: NvState,
        counter: PinCounter,
    ) -> Result<(), TpmError> {
        let name = index.name(state);
        let entities = [Entity::Named(index.handle.0, &name), Entity::Named(index.handle.0, &name)];
        let data = Writer::new().u32(counter.count).u32(counter.limit).done();
        let mut parameters = Writer::new().sized(&data).u16(0).done();
        let how = Use { keep: true, ..Use::default() };
        self.in_session(NV_WRITE, &entities, session, &[], how, &mut parameters).map(|_| ())
    }

    /// What a counter says; nothing is counted by asking. Not authenticated: the policy decides.
    ///
    /// # Errors
    /// [`crate::Refusal::NvUnwritten`], [`crate::Refusal::Handle`].
    pub fn nv_read_counter(&mut self, handle: NvHandle) -> Result<PinCounter, TpmError> {
        let parameters = Writer::new().u16(COUNTER_BYTES).u16(0).done();
        let done = self.with_password(NV_READ, &[RH_OWNER, handle.0], Shape::default(), &parameters)?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || {
            let mut content = Reader::new(r.sized()?);
            r.end()?;
            let counter = PinCounter { count: content.u32()?, limit: content.u32()? };
            content.end()?;
            Ok(counter)
        };
        read().map_err(NV_READ.malformed())
    }

    /// Shows an index's empty authorisation value to a policy session: a counter counts that, and refuses when it is
    /// used up.
    ///
    /// # Errors
    /// [`crate::Refusal::Unavailable`] when it is used up, or not written since the start.
    pub fn policy_secret(&mut self, session: &Session, handle: NvHandle) -> Result<(), TpmError> {
        // nonceTPM, cpHashA and policyRef empty; no expiration.
        let parameters = Writer::new().sized(&[]).sized(&[]).sized(&[]).u32(0).done();
        self.with_password(POLICY_SECRET, &[handle.0, session.handle()], Shape::default(), &parameters).map(|_| ())
    }

    /// Ends a session on a path that has failed already: what failed before is what is told.
    fn drop_session(&mut self, session: Session) {
        let _ = self.end(session);
    }
}

/// The answer to NV_ReadPublic.
fn name_in(parameters: &[u8]) -> Result<Name, Malformed> {
    let mut r = Reader::new(parameters);
    let name = Name::of(r.sized()?);
    let _claimed = r.sized()?;
    r.end()?;
    Ok(name)
}

const OURS: u32 = 0x0180_ED00;
const SECRET_BYTES: u16 = 32;
const COUNTER_BYTES: u16 = 8;

// Attributes of indices (part 2, 13.4, TPMA_NV).
const AUTH_WRITE: u32 = 1 << 2;
const POLICY_WRITE: u32 = 1 << 3;
/// TPM_NT_PIN_PASS (13.2), in bits 4 to 7.
const PIN_PASS: u32 = 9 << 4;
const WRITE_LOCKED: u32 = 1 << 11;
const WRITE_DEFINE: u32 = 1 << 13;
const OWNER_READ: u32 = 1 << 17;
const POLICY_READ: u32 = 1 << 19;
const NO_DA: u32 = 1 << 25;
const ORDERLY: u32 = 1 << 26;
const CLEAR_STCLEAR: u32 = 1 << 27;
const READ_LOCKED: u32 = 1 << 28;
const WRITTEN: u32 = 1 << 29;
const READ_STCLEAR: u32 = 1 << 31;

const NV_DEFINE_SPACE: CommandCode = code("NV_DefineSpace", 0x12A);
const NV_UNDEFINE_SPACE: CommandCode = code("NV_UndefineSpace", 0x122);
const NV_READ_PUBLIC: CommandCode = code("NV_ReadPublic", 0x169);
const NV_WRITE: CommandCode = code("NV_Write", 0x137);
const NV_WRITE_LOCK: CommandCode = code("NV_WriteLock", 0x138);
const NV_READ: CommandCode = code("NV_Read", 0x14E);
pub(crate) const NV_READ_LOCK: CommandCode = code("NV_ReadLock", 0x14F);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_areas_by_the_byte() {
        let (handle, policy) = (NvHandle::drawn(7), PolicyDigest([0xab; 32]));
        let area = |index: NvIndex, state| hex::encode(&*index.public(state));
        let policy_hex = "ab".repeat(32);
        let counter = NvIndex::counter(handle, policy);
        let written = NvState::COUNTING;
        assert_eq!(area(counter, NvState::default()), format!("0180ed07000b0e0200980020{policy_hex}0008"));
        assert_eq!(area(counter, written), format!("0180ed07000b2e0200980020{policy_hex}0008"));
        let secret = NvIndex::secret(handle, policy, false, true);
        assert_eq!(area(NvIndex::secret(handle, policy, true, true), NvState::default())[12..20], *"80082004");
        assert_eq!(area(NvIndex::secret(handle, policy, false, false), NvState::default())[12..20], *"02082004");
        assert_eq!(area(secret, NvState::default()), format!("0180ed07000b820820040020{policy_hex}0020"));
        assert_eq!(area(secret, NvState::READABLE), format!("0180ed07000ba20828040020{policy_hex}0020"));
        let locked = NvState { read_locked: true, ..NvState::READABLE };
        assert_eq!(area(secret, locked), format!("0180ed07000bb20828040020{policy_hex}0020"));
    }

    #[test]
    fn every_part_of_an_index_is_in_its_name() {
        let (handle, policy) = (NvHandle::drawn(7), PolicyDigest([1; 32]));
        let name = NvIndex::counter(handle, policy).name(NvState::COUNTING);
        assert_ne!(NvIndex::counter(NvHandle::drawn(8), policy).name(NvState::COUNTING), name);
        assert_ne!(NvIndex::counter(handle, PolicyDigest([2; 32])).name(NvState::COUNTING), name);
        assert_ne!(NvIndex::secret(handle, policy, false, true).name(NvState::COUNTING), name);
        assert_ne!(NvIndex::counter(handle, policy).name(NvState::default()), name);
    }

    #[test]
    fn numbers_that_are_not_ours() {
        for byte in [0, 1, 255] {
            let handle = NvHandle::drawn(byte);
            assert_eq!(NvHandle::from_number(handle.number()), Some(handle));
        }
        for number in [0, 0x0180_EC00, 0x0180_EE00, 0x0181_ED00, 0x0280_ED00, u32::MAX] {
            assert_eq!(NvHandle::from_number(number), None, "{number:#x}");
        }
        assert_eq!(NvHandle::drawn(7).to_string(), "0x0180ed07");
    }
}
