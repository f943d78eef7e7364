//! The making of a store in a process of its own: this executable, in a session of its own, so that what ends the set-up does not end it.
//!
//! ```text
//! set-up --key material, by a pipe--> maker (flags of the set-up, and --makeStore) --nothing, or what went wrong--> set-up
//! ```
//! It hears no signal: between the store's answer and the disk there is nothing to be stopped.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use external::{BringUpError, Custody, Keeping, ShareCounts, make_and_keep};
use host::{OsDisk, OsEntropy};
use seal::edgex::PlainSharesAllowed;
use seal::{Ikm, ShortIkmAllowed};

use crate::edgex::face::{self, Ground, Where};
use crate::failure::{Code, Failure};

/// Starts it, and waits for its end.
pub(super) async fn start(at: &Where, custody: &Custody<'_>) -> Result<(), BringUpError> {
    let fault = |e: std::io::Error| BringUpError::Beside {
        fact: format!("the process that makes the store does not run: {e}"),
        hint: "see that /proc is mounted, and that processes can be started".into(),
    };
    let mut child = Command::new("/proc/self/exe")
        .arg0(super::NAME)
        .args(at.arguments())
        .arg("--makeStore")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fault)?;
    let stdin = child.stdin.take();
    // If it has ended already, it has said why.
    let handed = stdin.map_or(Ok(()), |mut pipe| custody.hand_over(&mut pipe));
    let waiting = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_SAID_BYTES).read_to_string(&mut said)?;
        }
        child.wait().map(|status| (status, said))
    });
    let (status, said) = waiting.await.map_err(|e| fault(std::io::Error::other(e)))?.map_err(fault)?;
    if status.success() {
        return handed.map_err(fault);
    }
    let mut lines = said.lines().map(str::to_owned);
    Err(BringUpError::Beside {
        fact: lines.next().unwrap_or_else(|| format!("the process that makes the store has ended: {status}")),
        hint: lines.next().unwrap_or_else(|| "see the log above".into()),
    })
}

/// Is it: what it says, in two lines, is for whoever started it.
pub(super) async fn run(ground: &Ground, at: &Where) -> Result<(), Failure> {
    // Refused only to the leader of a group of its own, who already has what he would get.
    let _ = rustix::process::setsid();
    let outcome = make(ground, at).await;
    if let Err(failure) = &outcome {
        let line = |text: &str| crate::output::line(&text.replace('\n', " "));
        line(&failure.fact);
        line(failure.hint.as_deref().unwrap_or_default());
    }
    outcome
}

async fn make(ground: &Ground, at: &Where) -> Result<(), Failure> {
    let face = ground.read(at, "res", |face| face.setup())?;
    let keeping = match &face.hook {
        None if face.require_encryption => return Err(Failure::fault("there is no hook, and encryption is required")),
        None => Keeping::Plain(PlainSharesAllowed::danger_plain_shares()),
        Some(_) => {
            let short = face.danger_short_ikm.then(ShortIkmAllowed::danger_short_ikm);
            let ikm = Ikm::take_over(&mut std::io::stdin().lock(), short);
            ikm.map(Keeping::Wrapped).map_err(|e| Failure::fault(format!("no key material was handed over: {e}")))?
        }
    };
    let custody = Custody::new(&OsDisk, &OsEntropy, &face.shares_dir, &face.shares_file, ground.uid(), keeping);
    let vault = face::connect(&face.store)?;
    let counts = ShareCounts { shares: face.shares, threshold: face.threshold };
    make_and_keep(&vault, &custody, counts).await.map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))
}

const MAX_SAID_BYTES: u64 = 8192;
