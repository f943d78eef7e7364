//! The hands of the machine: does what an [`Action`](crate::machine::Action) says with the real disk, source, store and
//! sockets, and tells the machine what came of it.
//!
//! ```text
//! claim(plan, environment, observer) -> Claimed       the locks, the place for tokens, the gates' socket
//! claimed.start(front) -> Running                     everything that can be done at once
//! running.wait() ; running.tick()                     what comes later: retries, probes, renewals, sealing
//! ```
//! The driver decides nothing about order. It sends an event that proves something only when that is durable.

mod asking;
mod audit_keys;
mod backoff;
mod certificates;
mod claim;
mod closing;
mod destroy;
mod door;
mod environment;
mod erase;
mod factory;
mod front;
mod identity;
mod kept_keks;
mod keys;
mod making;
mod opening;
mod owner;
mod preflight;
mod providing;
mod reach;
mod recovery;
mod releasing;
mod running;
mod seam;
mod slots;
mod source;
mod state_dir;
mod steps;
#[cfg(test)]
mod tests;
mod upkeep;
mod work;

pub use backoff::{fuzz_tries, tries_before};
pub use claim::{Claimed, UpError, claim, up};
pub use closing::{KekKeeper, OnGuard, ReleaseGuard, Watch, close_sources};
pub use destroy::{DestroyError, destroy_state, generalize};
pub use environment::{Assemble, Environment, Note, Observer, Quiet};
pub use erase::{Beginning, ErasedDevice, Receipt, SignedBeginning, SignedReceipt};
pub use factory::{ProvisionFault, Record, provision, record_kept};
pub use front::{Front, Serving};
pub use identity::MachineId;
pub use making::{StoreMaker, make_store};
pub use preflight::{Preflight, preflight};
pub use recovery::Rotation;
pub use running::Running;
pub use slots::{SlotChange, SlotList, SlotReport, SlotTest, Verdict};
pub use source::SourceGround;
