//! A TPM: how its commands are sent, authorised and proven; the modules below have them as verbs. What is loaded is
//! remembered, and flushed when the value is dropped: a path that returns early leaves nothing behind (without a
//! resource manager three leftovers fill a TPM, 0x902).
//!
//! The kernel's resource manager flushes at the close, and until then it evicts nothing: of each open file it keeps
//! three objects and three sessions, and at the fourth it fails the command and drops the sessions
//! (drivers/char/tpm/tpm2-space.c). So behind it what is done with is flushed when its room is wanted, and not before.

mod facts;
mod registers;
mod sealed;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host::{BootTime, Clock, Entropy};
use zeroize::Zeroizing;

use crate::assertions::START_AUTH_SESSION;
use crate::channel::{Channel, Transport, TransportError};
use crate::code::Refusal;
use crate::error::TpmError;
use crate::frame::{Answer, CommandCode, Shape, command, parse_response};
use crate::public::Name;
use crate::session::{Authorised, CheckError, NONCE_BYTES, Session, Use, no_password};
use crate::wire::Malformed;

pub use facts::{Clocks, Lockout};
pub use sealed::Loaded;

/// A TPM, for a few commands in a row that must all be done by one deadline.
pub struct Tpm {
    transport: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    deadline: BootTime,
    held: Vec<u32>,
    /// Of those, what is done with, the oldest first: behind a resource manager alone.
    spent: Vec<u32>,
    commands: u32,
}

impl Tpm {
    /// Speaks over `transport`.
    pub fn new(
        transport: Box<dyn Transport>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        deadline: BootTime,
    ) -> Self {
        Self { transport, clock, entropy, deadline, held: Vec::new(), spent: Vec::new(), commands: 0 }
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

    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        nonce
    }

    /// Flushes one thing that is loaded; behind a resource manager when its room is wanted, or the close does it.
    pub(crate) fn release(&mut self, handle: u32) -> Result<(), TpmError> {
        if !self.transport.flushes() {
            return self.flush_one(handle);
        }
        // What the TPM has ended by itself is not held any more.
        if self.held.contains(&handle) {
            self.spent.push(handle);
        }
        Ok(())
    }

    fn flush_one(&mut self, handle: u32) -> Result<(), TpmError> {
        self.held.retain(|h| *h != handle);
        self.plain(FLUSH_CONTEXT, &[], &handle.to_be_bytes()).map(|_| ())
    }

    /// Before a command that loads something: of what is done with, the oldest goes if a resource manager has no more
    /// room for its kind.
    fn make_room(&mut self, code: CommandCode) -> Result<(), TpmError> {
        let wants_session = code.number == START_AUTH_SESSION.number;
        let in_the_way = |handle: &u32| is_session(*handle) == wants_session;
        if self.held.iter().filter(|h| in_the_way(h)).count() < ROOM {
            return Ok(());
        }
        // Where nothing is done with the TPM will say so.
        let Some(oldest) = self.spent.iter().position(in_the_way) else { return Ok(()) };
        let handle = self.spent.remove(oldest);
        match self.flush_one(handle) {
            // Not there: then it is not in the way either.
            Err(e) if e.refusal().is_some() => Ok(()),
            flushed => flushed,
        }
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

    /// A command on an entity without an authorisation value, beside a session that hides its first parameter and
    /// proves its answer. The session stays as it is.
    fn beside_password(
        &mut self,
        code: CommandCode,
        entity: Entity<'_>,
        session: &mut Session,
        parameters: &mut Zeroizing<Vec<u8>>,
    ) -> Result<Done, TpmError> {
        let number = entity.handle().to_be_bytes();
        let how = Use { keep: true, encrypt_command: true, ..Use::default() };
        let names = [entity.name(&number)];
        let authorised = Authorised::new(session, self.nonce(), &[], how, code.number, &names, parameters)
            .map_err(code.malformed())?;
        let both = [&no_password()[..], &authorised.area[..]].concat();
        let shape = Shape { handle: true, authorised: true };
        let mut done = self.exchange(code, &[entity.handle()], Some(&both), parameters, shape)?;
        let proven = match done.authorisations.strip_prefix(&PASSWORD_ANSWER) {
            Some(proof) => authorised.check(&mut done.parameters, proof).map_err(code.unproven()),
            None => Err(code.malformed()(Malformed("a password is answered with more than that it was taken"))),
        };
        if proven.is_err() {
            // Loaded all the same; it is not to stay.
            self.held.extend(done.handle);
        }
        proven.map(|()| done)
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
        authorised.check(&mut done.parameters, &done.authorisations).map_err(code.unproven())?;
        Ok(done)
    }

    /// Sends one command and takes its answer apart. Where the TPM says that it is busy the same command is sent again,
    /// until the deadline.
    pub(crate) fn exchange(
        &mut self,
        code: CommandCode,
        handles: &[u32],
        authorisations: Option<&[u8]>,
        parameters: &[u8],
        shape: Shape,
    ) -> Result<Done, TpmError> {
        if shape.handle {
            self.make_room(code)?;
        }
        let bytes = command(code.number, handles, authorisations, parameters);
        let mut rest = SHORTEST_REST;
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
                    pause(rest.min(left));
                    rest = (rest * 2).min(LONGEST_REST);
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

impl CommandCode {
    pub(crate) fn malformed(self) -> impl Fn(Malformed) -> TpmError {
        move |source| TpmError::Malformed { command: self.name, source }
    }

    fn unproven(self) -> impl Fn(CheckError) -> TpmError {
        move |e| match e {
            CheckError::NotAuthentic => TpmError::NotAuthentic { command: self.name },
            CheckError::Malformed(e) => self.malformed()(e),
        }
    }

    fn transport(self) -> impl Fn(TransportError) -> TpmError {
        move |source| TpmError::Transport { command: self.name, source }
    }
}

pub(crate) const fn code(name: &'static str, number: u32) -> CommandCode {
    CommandCode { name, number }
}

/// By the handle's first octet (part 2, 7.2): of HMAC and of policy sessions.
fn is_session(handle: u32) -> bool {
    matches!(handle >> 24, 2 | 3)
}

const FLUSH_CONTEXT: CommandCode = code("FlushContext", 0x165);
/// Objects, and sessions, that the kernel keeps of one open file (include/linux/tpm.h, `struct tpm_space`).
const ROOM: usize = 3;

pub(crate) const RH_OWNER: u32 = 0x4000_0001;
pub(crate) const RH_NULL: u32 = 0x4000_0007;

/// No nonce, `continueSession`, no HMAC (part 1, 19.4).
const PASSWORD_ANSWER: [u8; 5] = [0, 0, 1, 0, 0];

/// How long to wait for a TPM that says it is busy, at first: one that asks for a command again has mostly done what
/// kept it from it (TPM_RC_RETRY, at the first PIN of a boot). Each wait is twice the one before, up to the longest.
const SHORTEST_REST: Duration = Duration::from_millis(1);
const LONGEST_REST: Duration = Duration::from_millis(20);
/// How long flushing may take after the deadline.
const FLUSHING: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
