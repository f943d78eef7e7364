//! Where the input key material comes from, and what is asked of it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::Clock;
use seal::{
    Counting, CredentialForm, CredentialName, Escrow, HOOK_LIMIT, HandedPin, PcrSet, PcrSigning, Pkcs11Setup,
    PolicyRequest, SlotPublic, SourceKind, TangServers, counted_by_gate_alone, slot_and_parts,
};

/// A key source by its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A key file, made at the first boot. For demo and tests: whoever has the disk has the key.
    Software {
        /// The file; it should not lie in the state directory.
        file: PathBuf,
    },
    /// EdgeX's IKM hook: a program that prints the key material in hexadecimal.
    Exec {
        /// Absolute path.
        path: PathBuf,
        /// Its whole environment.
        env: BTreeMap<String, String>,
        /// After which it is killed with its children.
        deadline: Duration,
    },
    /// A TPM 2.0: sealed to the device's state.
    Tpm(TpmSpec),
    /// Tang servers, any of which as many as are needed.
    Tang {
        /// The servers, and how many of them are needed for a new slot.
        servers: TangServers,
        /// After which a round of asking them is given up; it is begun again.
        deadline: Duration,
    },
    /// A smart card or HSM behind a vendor's PKCS #11 module.
    Pkcs11 {
        /// The token, and what is needed to reach it.
        setup: Pkcs11Setup,
        /// Where the PIN is that it asks for.
        pin: Option<PinPlace>,
        /// After which the helper is killed with all that it started.
        deadline: Duration,
    },
    /// A systemd credential.
    Credential {
        /// What `$CREDENTIALS_DIRECTORY` names.
        directory: PathBuf,
        /// The credential.
        name: CredentialName,
        /// How the key material stands in it.
        form: CredentialForm,
    },
    /// A key that another machine keeps.
    Escrow {
        /// The holder, and how it knows this device.
        holder: Box<Escrow>,
        /// After which a round of asking it is given up; it is begun again.
        deadline: Duration,
    },
    /// Several sources as one.
    Combined {
        /// How many of the parts are needed; all of them without.
        threshold: Option<u8>,
        /// The parts; none is itself a combination.
        parts: Vec<SourceSpec>,
    },
}

/// In a few words, for people: its kind, and what tells it from another of that kind.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::Software { file: path } | Self::Exec { path, .. } => write!(f, " {}", path.display()),
            Self::Tpm(tpm) => write!(f, " {}", tpm.device.display()),
            Self::Tang { servers, .. } => {
                let names: Vec<String> = servers.all().iter().map(|s| s.origin.to_string()).collect();
                write!(f, " {} of {}", servers.threshold(), names.join(", "))
            }
            Self::Pkcs11 { setup, .. } => write!(f, " {} {}", setup.token.label, setup.token.serial),
            Self::Credential { name, .. } => write!(f, " {name}"),
            Self::Escrow { holder, .. } => write!(f, " {}", holder.address()),
            Self::Combined { threshold, parts } => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                threshold.map_or(Ok(()), |t| write!(f, " {t}"))?;
                write!(f, " of ({})", parts.join("; "))
            }
        }
    }
}

/// What a source loses by being asked in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// Nothing: a file is read.
    Nothing,
    /// The work of a device, a server or a vendor's program.
    Asking,
    /// One of few: a release of the boot, a try of a PIN.
    Counted,
}

/// A TPM, and the policy that the key is sealed to when the store is made. Afterwards the slot has the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSpec {
    /// `/dev/tpmrm0`, or the socket of swtpm.
    pub device: PathBuf,
    /// Where the key material is.
    pub keeping: TpmKeeping,
    /// Registers that must have the values that they have at the first boot.
    pub pcrs: PcrSet,
    /// Files that say which values a vendor approves of.
    pub signing: PcrSigning,
    /// The register that says how far a boot has come with its releases.
    pub gate_pcr: u8,
    /// Who counts them.
    pub counting: Counting,
    /// How often per boot it releases; `None` for no limit.
    pub releases_per_boot: Option<NonZeroU8>,
    /// Time after the device's start within which alone it releases.
    pub window: Option<Duration>,
    /// Where the PIN is that it asks for.
    pub pin: Option<PinPlace>,
    /// After which a release is given up; it is tried again.
    pub deadline: Duration,
}

/// Where a PIN is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinPlace {
    /// In a file, read at each release.
    File(PathBuf),
    /// On a descriptor that edgekeep was started with.
    Descriptor(HandedPin),
}

impl fmt::Display for PinPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Descriptor(handed) => write!(f, "{handed}"),
        }
    }
}

/// Where the key material of a TPM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmKeeping {
    /// On the disk, sealed by the TPM.
    Sealed,
    /// In an index of the TPM.
    Index,
}

impl TpmSpec {
    /// The register that says how far a boot has come with the releases, where they are counted by one.
    fn gate(&self) -> Option<u8> {
        (self.keeping == TpmKeeping::Sealed && self.releases_per_boot.is_some()).then_some(self.gate_pcr)
    }
}

impl SourceSpec {
    /// What is asked of the source when the store is made.
    pub fn policy(&self) -> PolicyRequest {
        match self {
            // Each part of a combination has its own.
            Self::Combined { .. } => PolicyRequest::default(),
            Self::Software { .. }
            | Self::Exec { .. }
            | Self::Tang { .. }
            | Self::Credential { .. }
            | Self::Escrow { .. } => PolicyRequest::default(),
            Self::Pkcs11 { pin, .. } => PolicyRequest { pin: pin.is_some(), ..PolicyRequest::default() },
            Self::Tpm(tpm) => PolicyRequest {
                pcrs: tpm.pcrs,
                releases_per_boot: tpm.releases_per_boot,
                window: tpm.window,
                pin: tpm.pin.is_some(),
            },
        }
    }

    /// Whether it gives nothing more in a boot in which it was closed: it counts its releases, or too few of its parts
    /// are left without those that do.
    pub fn can_be_closed(&self) -> bool {
        match self {
            Self::Combined { threshold, parts } => {
                let open = parts.iter().filter(|part| !part.can_be_closed()).count();
                open < threshold.map_or(parts.len(), usize::from)
            }
            single => single.policy().releases_per_boot.is_some(),
        }
    }

    /// Where its PIN is, if it asks for one; that of a combination's part is the part's.
    pub fn pin(&self) -> Option<&PinPlace> {
        match self {
            Self::Tpm(tpm) => tpm.pin.as_ref(),
            Self::Pkcs11 { pin, .. } => pin.as_ref(),
            Self::Software { .. }
            | Self::Exec { .. }
            | Self::Tang { .. }
            | Self::Credential { .. }
            | Self::Escrow { .. }
            | Self::Combined { .. } => None,
        }
    }

    /// Takes what was handed over to the process for it: before anything is started that would inherit it.
    pub fn take_pins(&self, clock: &dyn Clock) {
        for part in self.parts() {
            if let Some(PinPlace::Descriptor(handed)) = part.pin() {
                handed.take(clock);
            }
        }
    }

    /// Takes over the PINs that `before` has taken, for a configuration that was read anew: a descriptor is read once.
    pub fn keep_pins_of(&mut self, before: &[Self]) {
        let parts = match self {
            Self::Combined { parts, .. } => parts.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        for part in parts {
            let (Self::Tpm(TpmSpec { pin, .. }) | Self::Pkcs11 { pin, .. }) = part else { continue };
            // Two are equal that have the same number.
            let mut taken = before.iter().flat_map(Self::parts).filter_map(Self::pin);
            if let Some(had) = taken.find(|had| pin.as_ref() == Some(had)) {
                *pin = Some(had.clone());
            }
        }
    }

    /// What a try costs.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Software { .. } | Self::Credential { .. } => Cost::Nothing,
            Self::Combined { parts, .. } => parts.iter().map(Self::cost).max().unwrap_or(Cost::Nothing),
            one => match one.policy() {
                PolicyRequest { pin: true, .. } | PolicyRequest { releases_per_boot: Some(_), .. } => Cost::Counted,
                _ => Cost::Asking,
            },
        }
    }

    /// How long one call of it may take.
    pub fn deadline(&self) -> Duration {
        match self {
            Self::Software { .. } | Self::Credential { .. } => HOOK_LIMIT,
            Self::Exec { deadline, .. } => (*deadline).min(HOOK_LIMIT),
            Self::Tang { deadline, .. } | Self::Pkcs11 { deadline, .. } | Self::Escrow { deadline, .. } => *deadline,
            Self::Tpm(tpm) => tpm.deadline,
            // Those that count are asked one after the other, and all are when the store is made.
            Self::Combined { parts, .. } => parts.iter().map(Self::deadline).sum(),
        }
    }

    /// The pause after a release that may go better the next time, and the longest that it grows to: hardware is busy
    /// for moments; servers are away for hours, and have other devices to answer.
    pub fn pauses(&self) -> (Duration, Duration) {
        match self {
            Self::Software { .. }
            | Self::Exec { .. }
            | Self::Tpm(_)
            | Self::Pkcs11 { .. }
            | Self::Credential { .. } => (Duration::from_millis(100), Duration::from_secs(10)),
            Self::Tang { .. } | Self::Escrow { .. } => (Duration::from_secs(1), Duration::from_secs(60)),
            // The most patient part's.
            Self::Combined { parts, .. } => parts.iter().map(Self::pauses).max().unwrap_or_default(),
        }
    }

    /// The kind of slot that it makes and opens.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Software { .. } => SourceKind::Software,
            Self::Exec { .. } => SourceKind::Exec,
            Self::Tpm(tpm) => match tpm.keeping {
                TpmKeeping::Sealed => SourceKind::Tpm,
                TpmKeeping::Index => SourceKind::TpmNv,
            },
            Self::Tang { .. } => SourceKind::Tang,
            Self::Pkcs11 { .. } => SourceKind::Pkcs11,
            Self::Credential { .. } => SourceKind::Credential,
            Self::Escrow { .. } => SourceKind::Escrow,
            Self::Combined { threshold: None, .. } => SourceKind::All,
            Self::Combined { threshold: Some(_), .. } => SourceKind::Threshold,
        }
    }

    /// Whether two settings lead to one and the same thing, however it is to be asked: the loss of it would be the loss
    /// of both. One TPM may be there twice, with another policy each.
    pub fn is_same_device(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Software { file: a }, Self::Software { file: b }) => a == b,
            (Self::Exec { path: a, env: x, .. }, Self::Exec { path: b, env: y, .. }) => a == b && x == y,
            (Self::Tpm(a), Self::Tpm(b)) => {
                a.device == b.device && a.keeping == b.keeping && self.policy() == other.policy()
            }
            (Self::Tang { servers: a, .. }, Self::Tang { servers: b, .. }) => a == b,
            (Self::Pkcs11 { setup: a, .. }, Self::Pkcs11 { setup: b, .. }) => {
                a.token == b.token && a.module == b.module
            }
            (Self::Credential { name: a, .. }, Self::Credential { name: b, .. }) => a == b,
            (Self::Escrow { holder: a, .. }, Self::Escrow { holder: b, .. }) => {
                (&a.host, a.port, &a.hold) == (&b.host, b.port, &b.hold)
            }
            (Self::Combined { threshold: a, parts: x }, Self::Combined { threshold: b, parts: y }) => {
                a == b && x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.is_same_device(y))
            }
            _ => false,
        }
    }

    /// Whether a wrong PIN of one is counted against the other: both are tried by one TPM, or by one token.
    pub fn shares_tries(&self, other: &Self) -> bool {
        let mut pairs = self.parts().iter().flat_map(|a| other.parts().iter().map(move |b| (a, b)));
        pairs.any(|pair| match pair {
            (Self::Tpm(a), Self::Tpm(b)) => a.pin.is_some() && b.pin.is_some() && a.device == b.device,
            (Self::Pkcs11 { setup: a, pin: Some(_), .. }, Self::Pkcs11 { setup: b, pin: Some(_), .. }) => {
                a.token == b.token
            }
            _ => false,
        })
    }

    /// The register by which both count their releases, of one TPM. What one of them extends shuts the other out until
    /// the next boot of the kernel.
    pub fn shared_gate(&self, other: &Self) -> Option<u8> {
        let mut pairs = self.parts().iter().flat_map(|a| other.parts().iter().map(move |b| (a, b)));
        pairs.find_map(|(a, b)| match (a, b) {
            (Self::Tpm(a), Self::Tpm(b)) if a.device == b.device && a.gate() == b.gate() => a.gate(),
            _ => None,
        })
    }

    /// What is to be said of a slot that it has made, whose releases a TPM counts in a weaker way than was possible with
    /// another: nobody has asked for that by name.
    pub fn counts_weakly(&self, made: &SlotPublic) -> Option<String> {
        let parts = slot_and_parts(made);
        let weak = |(spec, made): (&Self, &SlotPublic)| match spec {
            Self::Tpm(tpm) if tpm.counting == Counting::Best && counted_by_gate_alone(made) => Some(tpm.gate_pcr),
            _ => None,
        };
        // The combination itself stands before its parts.
        let gate = self.parts().iter().rev().zip(parts.iter().rev()).find_map(weak)?;
        Some(format!(
            "{self}: this TPM has no index that counts, so that PCR {gate} alone counts the releases: whoever asks the TPM by another \
             tool is not counted; count_in = \"index\" refuses such a TPM, count_in = \"gate\" says that it is meant"
        ))
    }

    /// The source itself, or the parts of a combination.
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Combined { parts, .. } => parts,
            one => std::slice::from_ref(one),
        }
    }

    /// The files that it makes at the first boot, outside of the state directory.
    pub fn makes_files(&self) -> impl Iterator<Item = &Path> {
        self.parts()
            .iter()
            .filter_map(|part| if let Self::Software { file } = part { Some(file.as_path()) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use seal::{Auth as _, AuthRequest};

    use super::*;

    fn combined(pin: u16) -> SourceSpec {
        let mut tpm = crate::testing::counted_tpm("/dev/tpmrm0".as_ref(), 1);
        if let SourceSpec::Tpm(spec) = &mut tpm {
            spec.pin = Some(PinPlace::Descriptor(HandedPin::new(pin)));
        }
        let file = SourceSpec::Software { file: "/key".into() };
        SourceSpec::Combined { threshold: None, parts: vec![file, tpm] }
    }

    /// What is said of the PIN, of which nothing was handed over to this process.
    fn told(spec: &SourceSpec) -> String {
        let Some(PinPlace::Descriptor(pin)) = spec.parts()[1].pin() else { panic!("{spec:?}") };
        pin.pin(&AuthRequest { what: "a TPM", tries_left: None }).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_pin_that_was_taken_at_the_start_is_not_lost_when_the_configuration_is_read_anew() {
        let before = combined(999);
        before.take_pins(&testkit::FakeClock::at(0));
        let (mut same, mut another) = (combined(999), combined(998));
        for newer in [&mut same, &mut another] {
            assert!(told(newer).contains("was not named then"), "{}", told(newer));
            newer.keep_pins_of(std::slice::from_ref(&before));
        }
        assert!(told(&same).contains("nothing was handed over under this number"), "{}", told(&same));
        assert!(told(&another).contains("was not named then"), "a number that the start did not know");
    }
}
