//! What `up` would refuse, in its own words and by its own checks, before it does anything.

use boot::plan::Plan;

use super::{front, run};
use crate::failure::{Failure, report};

/// What was found.
pub(super) struct Preflight {
    refusals: Vec<Failure>,
    /// What `up` would wait for, or go on without.
    pub(super) awaited: Vec<String>,
}

/// Looks at files, and asks nobody.
pub(super) fn preflight(plan: &Plan) -> Result<Preflight, Failure> {
    let found = boot::driver::preflight(plan, &run::environment(None)?);
    let front = front::preflight(plan).err();
    let refused = found.refused.iter().map(run::not_up).chain(front).chain(found.halted.iter().map(run::stopped));
    Ok(Preflight { refusals: refused.collect(), awaited: found.awaited })
}

impl Preflight {
    /// Shows every refusal.
    ///
    /// # Errors
    /// The last of them, with the code by which `up` would end: that of the first.
    pub(super) fn end(self) -> Result<(), Failure> {
        let mut refusals = self.refusals;
        let Some(code) = refusals.first().map(|first| first.code) else { return Ok(()) };
        let Some(last) = refusals.pop() else { return Ok(()) };
        for refusal in &refusals {
            report(refusal);
        }
        Err(Failure { code, ..last })
    }
}
