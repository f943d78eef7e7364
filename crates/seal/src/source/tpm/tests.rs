//! Against a real TPM 2.0 in software, and against everything that can stand between it and us.

mod between;
mod commands;
mod counter;
mod disturbed;
mod hanging_up;
mod kept;
mod limits;
mod nv;
mod nv_images;
mod predict;
mod signed;
mod state;
mod tools;

use std::num::NonZeroU8;
use std::time::Duration;

use ::tpm::{PcrValues, extended};
use host::{OsClock, OsDisk, OsEntropy};
use testkit::Swtpm;

use super::super::contract::key_source_contract;
use super::super::{NoAuth, PinFile};
use super::*;

/// A TPM with something measured into 7 and 11, a place for the lock, and who counts its releases.
struct Device {
    tpm: Swtpm,
    dir: tempfile::TempDir,
    counting: Counting,
}

const BOTH: [Counting; 2] = [Counting::Index, Counting::Gate];

impl Device {
    /// `None` where swtpm is skipped.
    fn new() -> Option<Self> {
        Self::counting(Counting::Index)
    }

    fn counting(counting: Counting) -> Option<Self> {
        if testkit::is_skipped("swtpm") {
            return None;
        }
        let device = Self { tpm: Swtpm::start(), dir: testkit::scratch_dir(), counting };
        device.measure();
        Some(device)
    }

    /// What firmware and boot loader do.
    fn measure(&self) {
        self.tpm.extend(7, 0x77);
        self.tpm.extend(11, 0xbb);
    }

    fn reboot(&mut self) {
        self.tpm.reboot();
        self.measure();
    }

    fn source(&self) -> TpmSource {
        self.source_at(self.tpm.socket(), Some(13))
    }

    fn source_at(&self, socket: PathBuf, gate: Option<u8>) -> TpmSource {
        self.source_with_lock(socket, gate, "tpm.lock")
    }

    fn source_with_lock(&self, socket: PathBuf, gate: Option<u8>, lock: &str) -> TpmSource {
        let clock = Arc::new(OsClock::new().unwrap());
        TpmSource::new(socket, gate, self.dir.path().join(lock), Arc::new(OsDisk), clock, Arc::new(OsEntropy))
            .counting(self.counting)
    }

    fn provision(&self, policy: &PolicyRequest) -> Result<Provisioned, SourceError> {
        self.source().provision(policy, &NoAuth, soon())
    }

    fn release(&self, slot: &SlotPublic) -> Result<Released, SourceError> {
        self.source().release(slot, &NoAuth, soon())
    }

    fn pin_file(&self, pin: &str) -> PinFile {
        let path = self.dir.path().join(format!("pin-{pin}"));
        if !path.exists() {
            OsDisk.write_new(&path, pin.as_bytes(), 0o600, None).unwrap();
        }
        PinFile::new(path, Arc::new(OsDisk))
    }
}

type Source = fn(&Device, PathBuf) -> Box<dyn KeySource>;

/// Both that a TPM has: at a socket, of a device.
const SOURCES: [Source; 2] =
    [|device, at| Box::new(device.source_at(at, Some(13))), |device, at| Box::new(nv::source_at(device, at))];

fn soon() -> Deadline {
    within(Duration::from_secs(20))
}

fn within(limit: Duration) -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), limit)
}

/// What a register of zeros holds after `byte`, 32 times, was extended into it.
fn after(byte: u8) -> [u8; 32] {
    extended(&[0; 32], &[byte; 32])
}

fn measured() -> PolicyRequest {
    PolicyRequest { pcrs: PcrSet::new([7, 11]).unwrap(), ..Default::default() }
}

fn limited(releases: u8) -> PolicyRequest {
    PolicyRequest { releases_per_boot: NonZeroU8::new(releases), ..measured() }
}

#[test]
fn keeps_to_the_contract() {
    for counting in BOTH {
        let Some(device) = Device::counting(counting) else { return };
        key_source_contract(&|| Box::new(device.source()), &measured(), &NoAuth);
        key_source_contract(&|| Box::new(device.source()), &PolicyRequest::default(), &NoAuth);
        key_source_contract(&|| Box::new(device.source()), &limited(4), &NoAuth);
    }
}

#[test]
fn with_everything_at_once_it_keeps_to_the_contract() {
    for counting in BOTH {
        let Some(device) = Device::counting(counting) else { return };
        let policy = PolicyRequest { window: Some(Duration::from_secs(600)), pin: true, ..limited(8) };
        key_source_contract(&|| Box::new(device.source()), &policy, &device.pin_file("1234"));
    }
}
