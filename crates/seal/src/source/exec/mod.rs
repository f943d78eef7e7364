//! EdgeX's hook: an executable that prints key material as hexadecimal octets. The contract is kept, the trust is not: who
//! could have written the hook is checked on the opened file, and nothing that it does can hang, flood or outlive us.

pub(super) mod conformance;
#[cfg(test)]
pub(in crate::source) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::Clock;

use super::hex_line;
use super::process::{self, Asked, Trusted};
use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, KeySource, PolicyRequest, Provisioned, Released, SourceError,
};
use crate::ikm::{Ikm, ShortIkmAllowed};
use crate::slot::{SlotPublic, SourceKind};

/// The longest that a hook may take, whatever the deadline: a TPM needs one second for what such hooks do.
pub const HOOK_LIMIT: Duration = Duration::from_secs(10);

/// The source `exec`.
pub struct ExecSource {
    path: PathBuf,
    env: Vec<(String, String)>,
    short: Option<ShortIkmAllowed>,
    clock: Arc<dyn Clock>,
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

    /// Runs the hook once, for `limit` at most.
    fn ask(&self, limit: Duration) -> Result<Ikm, SourceError> {
        let what = || self.path.display().to_string();
        let hook = Trusted::open(&self.path)?;
        let limit = limit.min(HOOK_LIMIT);
        let asked = Asked { env: &self.env, input: None, limit };
        let octets = hex_line::octets(&process::run(&hook, asked, &*self.clock)?)
            .map_err(|defect| SourceError::BadOutput { what: what(), defect })?;
        Ikm::new(octets, self.short).map_err(|source| SourceError::Ikm { what: what(), source })
    }

    fn evidence(&self) -> Evidence {
        Evidence(vec![("hook", self.path.display().to_string())])
    }
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

    /// What the hook itself can do is not told to us.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Checks who could have written the hook, and does not run it.
    fn probe(&mut self, _deadline: Deadline) -> Result<Evidence, SourceError> {
        Trusted::open(&self.path)?;
        Ok(self.evidence())
    }

    /// Asks twice and compares: a store made with octets that never come again is lost at its first restart.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Exec, &self.capabilities())?;
        // Half of the time for each: a hook that hangs is not given the other's as well.
        let ikm = self.ask(deadline.left(&*self.clock) / 2)?;
        let second = self.ask(deadline.left(&*self.clock))?;
        if ikm.ct_eq(&second) || !host::in_force("hook-asked-twice") {
            Ok(Provisioned { public: SlotPublic::bare(SourceKind::Exec), ikm })
        } else {
            Err(SourceError::Drifts { what: self.path.display().to_string() })
        }
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        if slot.kind() != SourceKind::Exec {
            return Err(SourceError::OtherSlot { kind: SourceKind::Exec });
        }
        Ok(Released {
            ikm: self.ask(deadline.left(&*self.clock))?,
            evidence: self.evidence(),
            remaining_this_boot: None,
        })
    }

    /// The contract of the hook has no way to say it.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }
}
