//! EdgeX's hook: whether the shares are kept wrapped, and under what.

use std::sync::Arc;

use config::SetupFace;
use external::Keeping;
use host::{Clock, Disk, OsClock, OsDisk};
use seal::edgex::PlainSharesAllowed;
use seal::{
    Deadline, ExecSource, HOOK_LIMIT, Ikm, KeySource, NoAuth, PolicyRequest, ShortIkmAllowed, SlotPublic, SourceError,
    SourceKind,
};

use crate::edgex::child;
use crate::edgex::face::Ground;
use crate::failure::{Code, Failure};

/// How shares are kept, by the environment. `wrap`: shares that are there are to be wrapped anew.
pub(super) fn keeping(face: &SetupFace, ground: &Ground, wrap: bool) -> Result<Keeping, Failure> {
    let Some(hook) = &face.hook else {
        return plain(face);
    };
    let new = matches!(OsDisk.meta(&face.shares_dir.join(&face.shares_file)), Ok(None));
    material(hook, "EDGEX_IKM_HOOK", face, ground, new || wrap).map(Keeping::Wrapped)
}

/// What a hook gives; `named` says where it was named. `new`: something will be wrapped under it.
pub(super) fn material(hook: &str, named: &str, face: &SetupFace, ground: &Ground, new: bool) -> Result<Ikm, Failure> {
    let path = child::find_path(hook, ground.environment().value("PATH"))
        .map_err(|e| Failure::of(Code::Refused, &e).hint(format!("see {named}")))?;
    let clock: Arc<dyn Clock> =
        Arc::new(OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?);
    let short = face.danger_short_ikm.then(ShortIkmAllowed::danger_short_ikm);
    let source = ExecSource::new(path, variables(), short, Arc::clone(&clock));
    ask(source, new, &*clock).map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))
}

/// Shares are wrapped under what the hook gives twice alike; those that are wrapped are opened with what it gives now.
fn ask(mut source: ExecSource, new: bool, clock: &dyn Clock) -> Result<Ikm, SourceError> {
    if new {
        let deadline = Deadline::after_each(clock, HOOK_LIMIT / 2, 2);
        Ok(source.provision(&PolicyRequest::default(), &NoAuth, deadline)?.ikm)
    } else {
        let nothing = SlotPublic::new(SourceKind::Exec, None, Vec::new()).expect("no items are in order, and short");
        Ok(source.release(&nothing, &NoAuth, Deadline::after(clock, HOOK_LIMIT))?.ikm)
    }
}

fn plain(face: &SetupFace) -> Result<Keeping, Failure> {
    if face.require_encryption {
        return Err(Failure::new(Code::Refused, "EDGEKEEP_REQUIRE_ENCRYPTION is set, and there is no hook")
            .hint("set EDGEX_IKM_HOOK to the program that reads this device's key material"));
    }
    tracing::warn!(
        file = %face.shares_dir.join(&face.shares_file).display(),
        "no EDGEX_IKM_HOOK: whoever reads this file, or a copy of this disk, opens the store and every secret in it"
    );
    Ok(Keeping::Plain(PlainSharesAllowed::danger_plain_shares()))
}

/// EdgeX's hooks run in the environment of the set-up, and some need it. What would have another program loaded into
/// theirs is left out.
fn variables() -> Vec<(String, String)> {
    let harmless =
        |name: &str| !name.starts_with("LD_") && !["BASH_ENV", "ENV", "GCONV_PATH", "SHELLOPTS"].contains(&name);
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| harmless(name))
        .collect()
}
