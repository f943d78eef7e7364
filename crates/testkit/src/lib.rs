//! Fakes and contract suites, for tests alone.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(clippy::disallowed_methods)] // what tests write is thrown away: it need not be durable

mod address;
mod backend;
mod bao;
mod bao_server;
mod block_on;
mod clock;
mod crash;
mod entropy;
mod longest_wait;
mod openbao;
mod program;
mod service_manager;
mod site_ca;
mod skip;
mod softhsm;
mod swtpm;
mod tangd;
mod tpm2_tools;

pub use address::{loopback, port};
pub use backend::backend_contract;
pub use bao::Bao;
pub use bao_server::BaoServer;
pub use block_on::block_on;
pub use clock::FakeClock;
pub use crash::{CrashDisk, Cut, Fault, Image, NameRule, Unsynced};
pub use entropy::SeededEntropy;
pub use longest_wait::LongestWait;
pub use openbao::OpenBao;
pub use program::{copy_program, lay_program};
pub use service_manager::ServiceManager;
pub use site_ca::{Pair, SiteCa};
pub use skip::{are_figures_held, is_root_skipped, is_skipped};
pub use softhsm::SoftHsm;
pub use swtpm::{Swtpm, ask_tpm};
pub use tangd::{Tangd, Tanging};
pub use tpm2_tools::Tpm2Tools;

/// A new directory for one test, in memory where the machine has such a place: most of what tests write is thrown away.
///
/// Nobody else may write to it, whatever the umask: much of what is tested refuses a place that a group may change.
///
/// # Panics
/// If none can be made.
pub fn scratch_dir() -> tempfile::TempDir {
    let mut dir = tempfile::Builder::new();
    dir.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    dir.tempdir_in("/dev/shm").or_else(|_| dir.tempdir()).expect("a test needs a directory to write to")
}
