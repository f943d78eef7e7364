//! The TPM's commands as verbs. What is loaded is remembered, and flushed when the value is dropped: a path that returns early
//! leaves nothing behind (without a resource manager three leftovers fill a TPM, 0x902).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host::{BootTime, Clock, Entropy};
use secret::SecretBytes;
use zeroize::Zeroizing;

use crate::channel::{Channel, Transport, TransportError};
use crate::code::Refusal;
use crate::error::TpmError;
use crate::frame::{Answer, CommandCode, Shape, command, parse_response};
use crate::pcr::{PcrSet, PcrValues};
use crate::policy::{PolicyDigest, selection};
use crate::public::{AuthValue, Name, PinnedKey, SHA256, SealedObject, StorageKey, sealed_template, storage_template};
use crate::session::{Authorised, CheckError, NONCE_BYTES, Session, Use, no_password};
use crate::wire::{Malformed, Reader, Writer};

/// A TPM, for a few commands in a row that must all be done by one deadline.
pub struct Tpm {
    transport: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    deadline: BootTime,
    held: Vec<u32>,
    commands: u32,
}

/// An object that is loaded.
#[derive(Debug)]
pub struct Loaded {
    handle: u32,
    name: Name,
}

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
    /// Speaks over `transport`.
    pub fn new(
        transport: Box<dyn Transport>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        deadline: BootTime,
    ) -> Self {
        Self { transport, clock, entropy, deadline, held: Vec::new(), commands: 0 }
    }

    /// Opens the device or socket at `path`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        deadline: BootTime,
    ) -> Result<Self, TransportError> {
        let channel = Channel::open(path, deadline, &*clock)?;
        Ok(Self::new(Box::new(channel), clock, entropy, deadline))
    }

    /// How many commands were sent.
    pub fn commands(&self) -> u32 {
        self.commands
    }

    /// What registers hold, of the SHA-256 bank. Not authenticated: for people, and to choose what to ask; a policy decides.
    ///
    /// # Errors
    /// [`TpmError`]; malformed if the TPM has no such bank.
    pub fn read_pcrs(&mut self, set: PcrSet) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::default();
        let mut missing = set;
        // Eight registers fit an answer (part 2, 10.9.7).
        while !missing.is_empty() {
            let done = self.plain(PCR_READ, &[], &selection(missing))?;
            let read = pcr_answer(&done.parameters, missing).map_err(PCR_READ.malformed())?;
            let got = PcrSet::new(read.iter().map(|(pcr, _)| pcr)).unwrap_or_default();
            missing = missing.without(got);
            values = read.iter().fold(values, |all, (pcr, value)| all.with(pcr, *value));
        }
        Ok(values)
    }

    /// Extends a register of the SHA-256 bank, and ends the session ([`Tpm::hmac_session`]): its HMAC proves that the TPM has
    /// extended this register by this digest. Nobody on the bus can swallow the command and say that it was done.
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

    /// Makes the storage key from the owner's seed: the same each time, until the TPM is cleared.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn storage_key(&mut self) -> Result<StorageKey, TpmError> {
        // inSensitive with neither value nor data; outsideInfo empty; no registers noted in the creation data.
        let parameters = Writer::new().sized(&[0; 4]).sized(&storage_template()).sized(&[]).u32(0).done();
        let shape = Shape { handle: true, authorised: true };
        let done = self.with_password(CREATE_PRIMARY, &[RH_OWNER], shape, &parameters)?;
        let handle = self.hold(CREATE_PRIMARY, done.handle)?;
        Reader::new(&done.parameters)
            .sized()
            .and_then(|area| StorageKey::read(handle, area))
            .map_err(CREATE_PRIMARY.malformed())
    }

    /// The storage key, if it is the one of that name.
    ///
    /// # Errors
    /// [`TpmError::OtherKey`]: another TPM, one that was cleared, or somebody in between.
    pub fn pinned_storage_key(&mut self, expected: &Name) -> Result<PinnedKey, TpmError> {
        self.storage_key()?.pinned(expected).map_err(|found| TpmError::OtherKey { expected: *expected, found })
    }

    /// Lets the storage key go when nothing more is to be loaded under it: a TPM may have room for three objects.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn let_go(&mut self, key: PinnedKey) -> Result<(), TpmError> {
        self.release(key.handle())
    }

    /// Seals `secret` to `policy`, and to `pin` if there is one. Neither crosses the bus in clear.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(
        &mut self,
        key: &PinnedKey,
        policy: &PolicyDigest,
        pin: Option<&AuthValue>,
        secret: &[u8],
    ) -> Result<SealedObject, TpmError> {
        let mut session = self.hmac_session(key)?;
        let value = pin.map_or(&[][..], AuthValue::expose);
        let sensitive = Writer::new().sized(value).sized(secret).done();
        let mut parameters =
            Writer::new().sized(&sensitive).sized(&sealed_template(&policy.0, pin.is_some())).sized(&[]).u32(0).done();
        let how = Use { encrypt_command: true, ..Use::default() };
        let name = key.name();
        let parent = [Entity::Named(key.handle(), &name)];
        let done = self.in_session(CREATE, &parent, &mut session, &[], how, &mut parameters)?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || Ok(SealedObject { private: r.sized()?.to_vec(), public: r.sized()?.to_vec() });
        read().map_err(CREATE.malformed())
    }

    /// Loads a sealed object under the key that it was made under.
    ///
    /// # Errors
    /// [`TpmError`]; [`Refusal::Integrity`] if it was made by another TPM or changed.
    pub fn load(&mut self, key: &PinnedKey, object: &SealedObject) -> Result<Loaded, TpmError> {
        let parameters = Writer::new().sized(&object.private).sized(&object.public).done();
        let shape = Shape { handle: true, authorised: true };
        let done = self.with_password(LOAD, &[key.handle()], shape, &parameters)?;
        // The name is ours, by the public area that we sent: should another object have been loaded in its place, the session
        // of the next command does not fit it.
        let loaded = Loaded { handle: self.hold(LOAD, done.handle)?, name: object.name() };
        let named = Reader::new(&done.parameters).sized().map_err(LOAD.malformed())?;
        if named == loaded.name.as_bytes() { Ok(loaded) } else { Err(LOAD.malformed()(Malformed("another name"))) }
    }

    /// Gives back what was sealed, and ends the session. The secret crosses the bus encrypted; an answer that the TPM did not make
    /// is refused.
    ///
    /// # Errors
    /// [`Refusal::Policy`], [`Refusal::Condition`], [`Refusal::Auth`], [`Refusal::Lockout`]; [`TpmError::NotAuthentic`].
    pub fn unseal(
        &mut self,
        mut session: Session,
        object: &Loaded,
        pin: Option<&AuthValue>,
    ) -> Result<SecretBytes, TpmError> {
        let sealed = [Entity::Named(object.handle, &object.name)];
        let how = Use { encrypt_answer: true, ..Use::default() };
        let value = pin.map_or(&[][..], AuthValue::expose);
        let done = self.in_session(UNSEAL, &sealed, &mut session, value, how, &mut Zeroizing::default())?;
        let mut r = Reader::new(&done.parameters);
        let secret = r.sized().map_err(UNSEAL.malformed())?;
        r.end().map_err(UNSEAL.malformed())?;
        Ok(SecretBytes::new(secret.to_vec()))
    }

    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        nonce
    }

    /// Flushes one thing that is loaded. Behind a resource manager closing does it.
    pub(crate) fn release(&mut self, handle: u32) -> Result<(), TpmError> {
        if self.transport.flushes() {
            return Ok(());
        }
        self.held.retain(|h| *h != handle);
        self.plain(FLUSH_CONTEXT, &[], &handle.to_be_bytes()).map(|_| ())
    }

    /// A command without authorisation.
    pub(crate) fn plain(&mut self, code: CommandCode, handles: &[u32], parameters: &[u8]) -> Result<Done, TpmError> {
        self.exchange(code, handles, None, parameters, Shape::default())
    }

    /// A command whose first handle has no authorisation value.
    pub(crate) fn with_password(
        &mut self,
        code: CommandCode,
        handles: &[u32],
        shape: Shape,
        parameters: &[u8],
    ) -> Result<Done, TpmError> {
        let shape = Shape { authorised: true, ..shape };
        let done = self.exchange(code, handles, Some(&no_password()), parameters, shape)?;
        if done.authorisations == PASSWORD_ANSWER {
            return Ok(done);
        }
        // Loaded all the same; it is not to stay.
        self.held.extend(done.handle);
        Err(code.malformed()(Malformed("a password is answered with more than that it was taken")))
    }

    /// A command that a session authorises, and whose answer it proves.
    pub(crate) fn in_session(
        &mut self,
        code: CommandCode,
        entities: &[Entity<'_>],
        session: &mut Session,
        value: &[u8],
        how: Use,
        parameters: &mut Zeroizing<Vec<u8>>,
    ) -> Result<Done, TpmError> {
        let handle = session.handle();
        let handles: Vec<u32> = entities.iter().map(Entity::handle).collect();
        let numbers: Vec<[u8; 4]> = handles.iter().map(|h| h.to_be_bytes()).collect();
        let names: Vec<&[u8]> = entities.iter().zip(&numbers).map(|(entity, number)| entity.name(number)).collect();
        let authorised = Authorised::new(session, self.nonce(), value, how, code.number, &names, parameters)
            .map_err(code.malformed())?;
        let shape = Shape { handle: false, authorised: true };
        let mut done = self.exchange(code, &handles, Some(&authorised.area), parameters, shape)?;
        if !how.keep {
            // Done, and so the TPM has ended the session by itself (part 1, 19.6.3).
            self.held.retain(|h| *h != handle);
        }
        authorised.check(&mut done.parameters, &done.authorisations).map_err(|e| match e {
            CheckError::NotAuthentic => TpmError::NotAuthentic { command: code.name },
            CheckError::Malformed(e) => code.malformed()(e),
        })?;
        Ok(done)
    }

    /// Sends one command and takes its answer apart. Where the TPM says that it is busy the same command is sent again, until the
    /// deadline.
    pub(crate) fn exchange(
        &mut self,
        code: CommandCode,
        handles: &[u32],
        authorisations: Option<&[u8]>,
        parameters: &[u8],
        shape: Shape,
    ) -> Result<Done, TpmError> {
        let bytes = command(code.number, handles, authorisations, parameters);
        loop {
            self.commands = self.commands.saturating_add(1);
            let answer = self.transport.transmit(&bytes, self.deadline, &*self.clock).map_err(code.transport())?;
            match parse_response(&answer, shape).map_err(code.malformed())? {
                Answer::Done { handle, parameters, authorisations } => {
                    let (parameters, authorisations) = (Zeroizing::new(parameters.to_vec()), authorisations.to_vec());
                    return Ok(Done { handle, parameters, authorisations });
                }
                Answer::Refused(refused) if refused.refusal() == Refusal::Busy => {
                    let left = self.deadline.since(self.clock.boottime());
                    if left.is_zero() {
                        return Err(TpmError::Refused { command: code.name, code: refused });
                    }
                    pause(BUSY.min(left));
                }
                Answer::Refused(refused) => return Err(TpmError::Refused { command: code.name, code: refused }),
            }
        }
    }

    pub(crate) fn hold(&mut self, code: CommandCode, handle: Option<u32>) -> Result<u32, TpmError> {
        let handle = handle.ok_or_else(|| code.malformed()(Malformed("it names no handle")))?;
        self.held.push(handle);
        Ok(handle)
    }

    /// Flushes what is loaded, the newest first. Behind a resource manager closing does it.
    fn flush(&mut self) {
        if self.transport.flushes() {
            self.held.clear();
        }
        // Late, but not for long: what stays behind would be in the next one's way.
        self.deadline = self.deadline.max(self.clock.boottime().plus(FLUSHING));
        while let Some(handle) = self.held.pop() {
            match self.plain(FLUSH_CONTEXT, &[], &handle.to_be_bytes()) {
                Err(TpmError::Transport { .. }) => return,
                _ => continue,
            }
        }
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tpm({} commands, {} held)", self.commands, self.held.len())
    }
}

/// Until a TPM that says it is busy may be asked again; it has no event to wait for.
#[expect(clippy::disallowed_methods, reason = "callers have a thread of their own, and a deadline ends it")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub(crate) struct Done {
    pub(crate) handle: Option<u32>,
    pub(crate) parameters: Zeroizing<Vec<u8>>,
    authorisations: Vec<u8>,
}

/// What a command works on, by handle and name (part 1, 16): the name is what its session's HMAC covers.
pub(crate) enum Entity<'a> {
    /// A register or a hierarchy: its handle is its name.
    Handle(u32),
    /// An object or an index.
    Named(u32, &'a Name),
}

impl Entity<'_> {
    fn handle(&self) -> u32 {
        match self {
            Self::Handle(handle) | Self::Named(handle, _) => *handle,
        }
    }

    fn name<'b>(&'b self, number: &'b [u8; 4]) -> &'b [u8] {
        match self {
            Self::Handle(_) => number,
            Self::Named(_, name) => name.as_bytes(),
        }
    }
}

/// The answer to PCR_Read: a counter, which registers these are, their values. At least one of those that were asked for, and no
/// other.
fn pcr_answer(parameters: &[u8], asked: PcrSet) -> Result<PcrValues, Malformed> {
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

impl CommandCode {
    pub(crate) fn malformed(self) -> impl Fn(Malformed) -> TpmError {
        move |source| TpmError::Malformed { command: self.name, source }
    }

    fn transport(self) -> impl Fn(TransportError) -> TpmError {
        move |source| TpmError::Transport { command: self.name, source }
    }
}

pub(crate) const fn code(name: &'static str, number: u32) -> CommandCode {
    CommandCode { name, number }
}

const PCR_EXTEND: CommandCode = code("PCR_Extend", 0x182);
const PCR_READ: CommandCode = code("PCR_Read", 0x17E);
const READ_CLOCK: CommandCode = code("ReadClock", 0x181);
const GET_CAPABILITY: CommandCode = code("GetCapability", 0x17A);
const CREATE_PRIMARY: CommandCode = code("CreatePrimary", 0x131);
const CREATE: CommandCode = code("Create", 0x153);
const LOAD: CommandCode = code("Load", 0x157);
const UNSEAL: CommandCode = code("Unseal", 0x15E);
const FLUSH_CONTEXT: CommandCode = code("FlushContext", 0x165);

pub(crate) const RH_OWNER: u32 = 0x4000_0001;
pub(crate) const RH_NULL: u32 = 0x4000_0007;
const CAP_TPM_PROPERTIES: u32 = 6;

/// No nonce, `continueSession`, no HMAC (part 1, 19.4).
const PASSWORD_ANSWER: [u8; 5] = [0, 0, 1, 0, 0];

/// How long to wait for a TPM that says it is busy.
const BUSY: Duration = Duration::from_millis(20);
/// How long flushing may take after the deadline.
const FLUSHING: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
