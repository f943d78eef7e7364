//! The making of a store beside the set-up: the maker has the flags of the set-up, and `--makeStore`.

use std::process::Command;

use external::{BringUpError, Custody, Keeping, ShareCounts, make_and_keep};
use host::{OsDisk, OsEntropy};
use seal::edgex::PlainSharesAllowed;
use seal::{Ikm, ShortIkmAllowed};

use crate::edgex::face::{self, Ground, Where};
use crate::failure::{Code, Failure};
use crate::maker;

/// Starts it, and waits for its end.
pub(super) async fn start(at: &Where, custody: &Custody<'_>) -> Result<(), BringUpError> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(super::NAME).args(at.arguments()).arg("--makeStore");
    maker::start(command, custody).await
}

/// Is it.
pub(super) async fn run(ground: &Ground, at: &Where) -> Result<(), Failure> {
    maker::be(make(ground, at)).await
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
