//! EdgeX's hook: an executable that prints key material as hexadecimal octets. The contract is kept, the trust is not:
//! who could have written the hook is checked on the opened file, and nothing that it does can hang, flood or outlive
//! us.
//!
//! A hook that counts its releases is asked what it has [left](status) before it is asked for one: provisioning spends
//! one and not two, and the slot says that it is counted, so that nobody tries it for nothing.

pub(super) mod conformance;
pub(super) mod status;
#[cfg(test)]
pub(in crate::source) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::Clock;
use zeroize::Zeroizing;

use super::hex_line;
use super::process::{self, Asked, Trusted};
use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, KeySource, PolicyRequest, Provisioned, Released, SourceError,
    Wanted,
};
use crate::ikm::{Ikm, ShortIkmAllowed};
use crate::slot::{SlotPublic, SourceKind};
use status::{HOOK_QUESTION, HookStatus};

/// The longest that a hook may take, whatever the deadline: a TPM needs one second for what such hooks do.
pub const HOOK_LIMIT: Duration = Duration::from_secs(10);

/// The source `exec`.
pub struct ExecSource {
    path: PathBuf,
    env: Vec<(String, String)>,
    short: Option<ShortIkmAllowed>,
    clock: Arc<dyn Clock>,
}

/// What a hook has printed that was asked what it has left.
enum Said {
    Status(HookStatus),
    /// It does not know the question.
    Key(Ikm),
}

impl ExecSource {
    /// The hook at `path`, run with `env` for its whole environment.
    pub fn new(
        path: impl Into<PathBuf>,
        env: Vec<(String, String)>,
        short: Option<ShortIkmAllowed>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { path: path.into(), env, short, clock }
    }

    fn what(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs the hook once, for its key.
    fn ask(&self, deadline: Deadline) -> Result<Ikm, SourceError> {
        self.ikm(&self.run(&self.env, deadline)?)
    }

    /// Runs the hook once, for what it has left.
    fn ask_what_is_left(&self, deadline: Deadline) -> Result<Said, SourceError> {
        let printed = self.run(&with_question(&self.env), deadline)?;
        match HookStatus::parse(&printed) {
            Some(status) => Ok(Said::Status(status)),
            None => self.ikm(&printed).map(Said::Key),
        }
    }

    fn run(&self, env: &[(String, String)], deadline: Deadline) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let hook = Trusted::open(&self.path)?;
        let deadline = deadline.min(Deadline::after(&*self.clock, HOOK_LIMIT));
        process::run(&hook, Asked { env, input: None, deadline }, &*self.clock)
    }

    fn ikm(&self, printed: &[u8]) -> Result<Ikm, SourceError> {
        let octets =
            hex_line::octets(printed).map_err(|defect| SourceError::BadOutput { what: self.what(), defect })?;
        Ikm::new(octets, self.short).map_err(|source| SourceError::Ikm { what: self.what(), source })
    }

    fn evidence(&self) -> Evidence {
        Evidence(vec![("hook", self.what())])
    }

    fn exhausted(&self) -> SourceError {
        SourceError::Exhausted { what: self.what(), defect: "it has no release left".into() }
    }

    /// A hook that has nothing left can but fail: whether it was that.
    fn or_exhausted(&self, e: SourceError, slot: &SlotPublic, deadline: Deadline) -> SourceError {
        let failed = slot.release_limit().is_some() && matches!(e, SourceError::HookFailed { .. });
        if failed && matches!(self.left(deadline), Ok(0)) { self.exhausted() } else { e }
    }

    /// What is left of a boot's releases, for a slot whose hook counts them.
    fn left(&self, deadline: Deadline) -> Result<u8, SourceError> {
        match self.ask_what_is_left(deadline)? {
            Said::Status(HookStatus::Counted { left, .. }) => Ok(left),
            Said::Status(HookStatus::Uncounted) | Said::Key(_) => Err(SourceError::Refused {
                what: self.what(),
                defect: "it has counted its releases when the slot was made, and does not say what is left of them"
                    .into(),
            }),
        }
    }
}

/// The environment in which a hook is asked what it has left.
fn with_question(env: &[(String, String)]) -> Vec<(String, String)> {
    let (name, value) = HOOK_QUESTION;
    env.iter().cloned().chain([(name.to_owned(), value.to_owned())]).collect()
}

impl std::fmt::Debug for ExecSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExecSource({})", self.path.display())
    }
}

impl KeySource for ExecSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Exec
    }

    /// What the hook itself can do is not told to us: that it counts may be believed, and is nothing that we could
    /// enforce.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn look(&self, _wish: Wanted, _auth: &dyn Auth) -> Result<(), SourceError> {
        Trusted::open(&self.path).map(drop)
    }

    /// Checks who could have written the hook, and does not run it.
    fn probe(&mut self, _deadline: Deadline) -> Result<Evidence, SourceError> {
        Trusted::open(&self.path)?;
        Ok(self.evidence())
    }

    /// Runs a hook that counts its releases, for what it has left; no other.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        if slot.kind() != SourceKind::Exec {
            return Err(SourceError::OtherSlot { kind: SourceKind::Exec });
        }
        let mut evidence = self.probe(deadline)?;
        if slot.release_limit().is_some() {
            match self.left(deadline)? {
                0 => return Err(self.exhausted()),
                left => evidence.add_releases_left(left),
            }
        }
        Ok(evidence)
    }

    /// Asks twice and compares: a store made with octets that never come again is lost at its first restart. A hook
    /// that counts is asked once; it is for such a hook to see that it gives the same, as ours does.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Exec, &self.capabilities())?;
        // Half of the time for each: a hook that hangs is not given the other's as well.
        let first = match self.ask_what_is_left(deadline.half(&*self.clock))? {
            Said::Status(HookStatus::Counted { left: 0, .. }) => return Err(self.exhausted()),
            Said::Status(HookStatus::Counted { limit, .. }) if host::in_force("hook-count-respected") => {
                let public = SlotPublic::new(SourceKind::Exec, Some(limit), Vec::new());
                let public = public.expect("no items are in order, and short");
                return Ok(Provisioned { public, ikm: self.ask(deadline)? });
            }
            Said::Status(_) => self.ask(deadline.half(&*self.clock))?,
            Said::Key(ikm) => ikm,
        };
        let second = self.ask(deadline)?;
        if first.ct_eq(&second) || !host::in_force("hook-asked-twice") {
            Ok(Provisioned { public: SlotPublic::bare(SourceKind::Exec), ikm: first })
        } else {
            Err(SourceError::Drifts { what: self.what() })
        }
    }

    /// A hook that counts has counted it.
    fn released_when_made(&self, slot: &SlotPublic) -> bool {
        slot.release_limit().is_some()
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        if slot.kind() != SourceKind::Exec {
            return Err(SourceError::OtherSlot { kind: SourceKind::Exec });
        }
        let ikm = self.ask(deadline).map_err(|e| self.or_exhausted(e, slot, deadline))?;
        // A key in hand is not lost because the hook then fails to say how many are left.
        let left = slot.release_limit().and_then(|_| self.left(deadline).ok());
        let mut evidence = self.evidence();
        left.into_iter().for_each(|left| evidence.add_releases_left(left));
        Ok(Released { ikm, evidence, remaining_this_boot: left })
    }

    /// The contract of the hook has no way to say it.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }
}
