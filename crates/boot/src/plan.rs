//! What a device should look like when the boot is done: values, already checked, from whatever file they came.
//!
//! Whoever reads a configuration makes a [`Plan`]; the boot compares it with what it finds and does the difference.
//! Nothing here touches a disk. [`Plan::faults`] tells what is wrong between parts that are each right by themselves.

mod credential;
mod faults;
mod gate;
mod names;
mod release;
mod service;
mod source;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use seal::AgeRecipients;

pub use credential::{CredentialKind, CredentialPlan, CredentialPlanError};
pub use faults::PlanFault;
pub use gate::{GatePlan, HttpUrl, Need, Probe, ProbeError};
pub use names::{GateName, MAX_NAME_BYTES, NameError, ServiceName};
pub use release::{AfterClose, ReleasePlan};
pub use service::{FileMode, FileModeError, JwtPlan, PathRule, PathRuleError, PolicyPlan, ServicePlan, TokenPlan};
pub use source::{Cost, PinPlace, SourceSpec, TpmKeeping, TpmSpec};
pub use store::{Access, ExternalStore, Reunseal, ShareCounts, StoreSpec, Terms};

/// The whole wish.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Demo is asked for, never fallen into; the two never open each other's stores.
    pub profile: Profile,
    /// Where the state lives: `<data_dir>/data` and `<data_dir>/lock`.
    pub data_dir: PathBuf,
    /// Where tokens and sockets live; a tmpfs.
    pub run_dir: PathBuf,
    /// Which store is kept.
    pub store: StoreSpec,
    /// Where the input key material comes from: each source has a slot of its own, and each alone opens the store. In
    /// the order in which they are asked. None where no slots are ours ([`StoreSpec::has_slots`]).
    pub sources: Vec<SourceSpec>,
    /// What becomes of the sources when they have done their work.
    pub release: ReleasePlan,
    /// Who holds the recovery key; `None` when nobody has chosen, and then no slots are made.
    pub recovery: Option<RecoverySpec>,
    /// Mounts that must be there.
    pub mounts: Vec<MountPlan>,
    /// Services, each with its policy and token.
    pub services: Vec<ServicePlan>,
    /// Passwords that the boot makes.
    pub credentials: Vec<CredentialPlan>,
    /// What others wait for. A gate may need only gates that stand before it.
    pub gates: Vec<GatePlan>,
    /// Where the server listens and under which names it is known.
    pub listen: ListenPlan,
    /// The audit ring.
    pub audit: AuditPlan,
    /// What the operator gave up on purpose.
    pub dangers: Dangers,
}

impl Plan {
    /// The directory that holds slots, store and audit ring.
    pub fn state_dir(&self) -> PathBuf {
        self.data_dir.join("data")
    }

    /// The mounts of a device that runs EdgeX's services: KV version 1 at `secret/`, userpass at `userpass/`.
    pub fn default_mounts() -> Vec<MountPlan> {
        vec![
            MountPlan { path: "secret".into(), kind: MountKind::KvV1 },
            MountPlan { path: "userpass".into(), kind: MountKind::Userpass },
        ]
    }

    /// The service of that name.
    pub fn service(&self, name: &ServiceName) -> Option<&ServicePlan> {
        self.services.iter().find(|s| s.name == *name)
    }
}

/// Stands in slots, head and evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For devices.
    Production,
    /// To look at; protects nothing that matters.
    Demo,
}

impl Profile {
    /// `production` or `demo`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Demo => "demo",
        }
    }
}

/// Who can open the store when every source is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverySpec {
    /// Sealed to these recipients, at `recovery.age` beside the store.
    Age(AgeRecipients),
    /// Written to this file, 0600, on another file system than the data directory's.
    File(PathBuf),
    /// Shown once on the terminal.
    Terminal,
    /// Nobody: losing the source loses the data.
    None,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// Without slashes at its ends.
    pub path: String,
    /// What is mounted there.
    pub kind: MountKind,
}

/// What the boot can mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Secrets without versions.
    KvV1,
    /// Logins with a name and a password.
    Userpass,
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenPlan {
    /// `host:port` of the TLS listener; `None` for Unix sockets alone.
    pub tcp: Option<String>,
    /// Names and addresses that the server certificate is for. The first is the one that clients are told.
    pub names: Vec<String>,
    /// The API's socket, for services.
    pub api_socket: PathBuf,
    /// The admin socket, in a directory of mode 0700.
    pub admin_socket: PathBuf,
    /// The gates' socket.
    pub gate_socket: PathBuf,
    /// Certificate chain and key given by the operator, PEM; without them the device's own CA issues.
    pub operator_tls: Option<OperatorTls>,
}

impl ListenPlan {
    /// The usual places below `run_dir`, TLS on `127.0.0.1:8200` as `localhost`.
    pub fn usual(run_dir: &Path) -> Self {
        Self {
            tcp: Some("127.0.0.1:8200".into()),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            api_socket: run_dir.join("api.sock"),
            admin_socket: run_dir.join("admin/admin.sock"),
            gate_socket: run_dir.join("gate.sock"),
            operator_tls: None,
        }
    }

    /// Has the certificate name the host that is listened at, too. An address that stands for all of the machine's is
    /// no name.
    pub fn add_name(&mut self, host: &str) {
        let all = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
        if !all && !self.names.iter().any(|name| name == host) {
            self.names.push(host.to_owned());
        }
    }
}

/// TLS files of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorTls {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// The audit ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlan {
    /// When records reach the disk.
    pub sync: AuditSync,
    /// How many segments.
    pub segments: u32,
    /// Bytes of each.
    pub segment_bytes: u64,
}

impl Default for AuditPlan {
    fn default() -> Self {
        Self { sync: AuditSync::Interval(Duration::from_secs(1)), segments: 8, segment_bytes: 4 * 1024 * 1024 }
    }
}

/// When audit records reach the disk; with a commit they always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditSync {
    /// When the system likes.
    Never,
    /// At most this much later.
    Interval(Duration),
    /// Before each reply.
    Each,
}

/// What weakens the device, each asked for by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dangers {
    /// Key material of 16 to 31 octets.
    pub short_ikm: bool,
    /// Token files on something other than a tmpfs.
    pub tokens_on_disk: bool,
    /// Token files that others may read.
    pub readable_tokens: bool,
    /// HTTP without TLS, on loopback only.
    pub plain_http: bool,
    /// A store that was made on another machine, without a word of the recovery key.
    pub any_machine: bool,
    /// A key file under the production profile, for tests of devices.
    pub software_key: bool,
}
