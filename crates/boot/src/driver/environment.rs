//! What the driver is given: the machine it runs on, the engines, and somebody who listens.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use delivery::Medium;
use host::{Clock, Disk, Entropy, WallTime};
use pipeline::{Directory, Engine, Services};
use seal::{RecoveryKey, ReleaseLatch};

use super::closing::{KekKeeper, ReleaseGuard};
use super::making::StoreMaker;
use crate::machine::Halt;
use crate::plan::{GateName, ServiceName};

/// Puts the engines of a store together; the executable knows which there are.
pub type Assemble = Arc<dyn Fn(&Arc<Services>) -> (Vec<Arc<dyn Engine>>, Arc<dyn Directory>) + Send + Sync>;

/// The machine, as arguments.
#[derive(Clone)]
pub struct Environment {
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// What is behind a path.
    pub medium: Arc<dyn Medium>,
    /// The user that edgekeep runs as.
    pub us: u32,
    /// SQLite's VFS by name, for tests that cut the power.
    pub vfs: Option<String>,
    /// Who keeps the KEK over the life of this process, where the plan wants that.
    pub keeper: Option<Arc<dyn KekKeeper>>,
    /// Who closes the sources should this process not come to it, where the plan wants them closed.
    pub guard: Option<Arc<dyn ReleaseGuard>>,
    /// Says whether a key source may have released in this process.
    pub latch: ReleaseLatch,
    /// Who has another's store made, where the plan owns one; without, it is made in this process, and is lost if that
    /// ends meanwhile.
    pub maker: Option<Arc<dyn StoreMaker>>,
    /// How long a data key lasts.
    pub key_wear: store::KeyWear,
    /// Where the machine's own files are: `/`, but for tests.
    pub machine: PathBuf,
    /// When the program was built.
    pub build_date: WallTime,
    /// The engines.
    pub engines: Assemble,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment(..)")
    }
}

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A phase is over.
    Phase {
        /// Its name: `made`, `published`, `released`, `unlocked`, `opened`, `certified`, `provided`.
        name: &'static str,
        /// Milliseconds since the start.
        at_ms: u64,
    },
    /// The recovery key is in this file.
    RecoveryAt(PathBuf),
    /// A service has its token.
    Token {
        /// Which.
        service: ServiceName,
        /// Where it is.
        place: PathBuf,
        /// Issued now, or found good.
        issued: bool,
    },
    /// A gate has opened.
    GateOpen {
        /// Which.
        gate: GateName,
        /// Milliseconds since the start.
        at_ms: u64,
    },
    /// A gate was shut again.
    GateShut {
        /// Which.
        gate: GateName,
    },
    /// Something was put right, or will be tried again.
    Warning(String),
    /// Something that looks like an attack or a failing part; the device goes on.
    Alarm(String),
    /// The boot stops here.
    Halted(Halt),
}

/// Who listens.
pub trait Observer: Send {
    /// Takes note.
    fn note(&mut self, note: Note);

    /// Shows the recovery key to a person, once. Called only when the plan says "terminal".
    ///
    /// # Errors
    /// If there is nobody to show it to: then no store is made.
    fn show_recovery_key(&mut self, _key: &RecoveryKey) -> io::Result<()> {
        Err(io::Error::other("there is no terminal"))
    }
}

/// Nobody listens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Observer for Quiet {
    fn note(&mut self, _note: Note) {}
}
