//! A wrong PIN, on a device whose TPM is asked for more than one slot.

use std::os::unix::fs::PermissionsExt;

use api::PeerAddress;
use seal::PcrSet;
use testkit::Swtpm;

use super::*;
use crate::driver::tests::predict::source;
use crate::plan::{PinPlace, SourceSpec};

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

/// A directory that nobody else may write in, with the PIN's file.
struct Pin(tempfile::TempDir);

impl Pin {
    fn new() -> Self {
        let pin = Self(testkit::scratch_dir());
        std::fs::set_permissions(pin.0.path(), PermissionsExt::from_mode(0o700)).unwrap();
        pin.is(b"1234\n");
        pin
    }

    fn is(&self, digits: &[u8]) {
        OsDisk.replace(&self.0.path().join("pin"), digits, 0o600, None).unwrap();
    }

    /// A source that asks for it, and counts its releases.
    fn source(&self, tpm: &Swtpm, releases: u8, register: u8) -> SourceSpec {
        self.asked_by(source(tpm, Some(releases)), register)
    }

    fn asked_by(&self, mut spec: SourceSpec, register: u8) -> SourceSpec {
        if let SourceSpec::Tpm(tpm) = &mut spec {
            tpm.pcrs = PcrSet::new([register]).unwrap();
            tpm.gate_pcr = register + 1;
            tpm.pin = Some(PinPlace::File(self.0.path().join("pin")));
        }
        spec
    }
}

/// The device is started with the image whose state both sources measure.
fn start(tpm: &mut Swtpm) {
    tpm.reboot();
    tpm.extend(11, 0xbb);
    tpm.extend(8, 0xbb);
}

/// How often a device that does not start with a wrong PIN has said how many tries are left, and what it said last.
fn told(running: &Running) -> (usize, String) {
    let fact = running.halted().unwrap().to_string();
    (fact.matches("refuses the PIN").count(), fact)
}

/// By the count that the TPM keeps of wrong ones.
#[tokio::test]
async fn a_wrong_pin_is_tried_once_at_a_start_whatever_slots_ask_for_it() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (mut tpm, pin) = (Swtpm::start(), Pin::new());
    start(&mut tpm);
    let mut device = Device::new();
    device.plan.sources = vec![pin.source(&tpm, 1, 11), pin.source(&tpm, 1, 8)];
    let mut running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", running.halted());
    // Of the first source's slots no release is left to see the new one open: both stay.
    let change = running.reseal_slots(Some(1), ROOT).await.unwrap();
    assert_eq!((change.added, change.kept), (vec![3], vec![1]));
    running.shutdown().await;

    start(&mut tpm);
    pin.is(b"9999\n");
    let running = device.up().await;
    let (tries, fact) = told(&running);
    assert_eq!(tries, 1, "{fact}");
    assert!(fact.contains("2 tries are left"), "{fact}");
    assert_eq!(
        fact.matches("not asked: a PIN was refused by the same device").count(),
        5,
        "each source may open each of the three: {fact}"
    );
    let hint = running.halted().unwrap().hint().to_owned();
    assert!(hint.starts_with("put the right PIN into the file; it is tried once at each start"), "{hint}");
    running.shutdown().await;

    // The release that went with it is gone; another slot has its own.
    pin.is(b"1234\n");
    device.clock.advance(Duration::from_secs(600));
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?} {:?}", running.halted(), running.state());
}

/// A slot whose PIN was refused at the start is made anew by the recovery key without another try of it.
#[tokio::test]
async fn a_refused_pin_is_not_tried_again_by_a_recovery() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (mut tpm, pin) = (Swtpm::start(), Pin::new());
    start(&mut tpm);
    let mut device = Device::new();
    device.plan.sources = vec![pin.asked_by(source(&tpm, None), 11)];
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up().await.shutdown().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();

    pin.is(b"9999\n");
    let mut running = device.up().await;
    let fact = told(&running).1;
    assert!(fact.contains("2 tries are left"), "{fact}");
    let (_, change) = running.recover_and(&key, ROOT, true).await.unwrap();
    let change = change.unwrap();
    assert_eq!((change.added, change.removed, change.told), (vec![3], vec![1], vec![]));
    running.shutdown().await;

    // The file's PIN is the new slot's. With one try less the TPM would not be asked: its last one is kept.
    device.clock.advance(Duration::from_secs(600));
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", running.halted());
}
