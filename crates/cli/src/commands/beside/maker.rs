//! The maker: has the store of another program made that `up` owns, and keeps its shares.

use std::process::Command;

use boot::driver::{StoreMaker, make_store};
use clap::Args;
use external::{BringUpError, Custody};
use seal::Ikm;

use super::CalledAs;
use crate::commands::up;
use crate::failure::{Code, Failure};
use crate::maker::{self, Making};

/// Started by `up`.
#[derive(Args)]
pub(crate) struct MakeStore {
    #[command(flatten)]
    up: CalledAs,
}

/// The maker as `up` starts it.
pub(crate) struct MakerProcess(pub(crate) CalledAs);

impl StoreMaker for MakerProcess {
    fn make<'a>(&'a self, custody: &'a Custody<'_>) -> Making<'a> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("make-store").args(self.0.arguments());
        Box::pin(maker::start(command, custody))
    }
}

/// Is it.
pub(in crate::commands) async fn run(make: MakeStore) -> Result<(), Failure> {
    crate::process::log("warn");
    crate::process::lock_memory();
    maker::be(async {
        let config = make.up.config()?;
        let environment = up::environment(None)?;
        let key = Ikm::take_over(&mut std::io::stdin().lock(), None)
            .map_err(|e| Failure::fault(format!("no key material was handed over: {e}")))?;
        let made = make_store(&config.plan, &environment, key).await;
        made.map_err(|e: BringUpError| Failure::of(Code::Refused, &e).hint(e.hint()))
    })
    .await
}
