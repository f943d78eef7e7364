//! An update of the image, on a device whose key is in a TPM: predicted, booted, committed; and power that is cut at each step.

use api::PeerAddress;
use seal::{Counting, PcrSet, PcrSigning, PcrValues, SlotFiles};
use testkit::Swtpm;

use super::*;
use crate::driver::SlotChange;
use crate::plan::{SourceSpec, TpmKeeping, TpmSpec};

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };
const OLD: u8 = 0xbb;
const NEW: u8 = 0xcc;
const NEITHER: u8 = 0xdd;

/// The device is started with an image that extends register 11 by `image`, 32 times.
pub(super) fn boot(tpm: &mut Swtpm, image: u8) {
    tpm.reboot();
    tpm.extend(11, image);
}

/// What register 11 will hold then, written down as an operator would.
fn values(image: u8) -> PcrValues {
    let value = secret::crypto::sha256(&[&[0; 32], &[image; 32]]);
    format!("sha256:11={}", hex::encode(value)).parse().unwrap()
}

pub(super) fn source(tpm: &Swtpm, releases: Option<u8>) -> SourceSpec {
    SourceSpec::Tpm(TpmSpec {
        device: tpm.socket(),
        keeping: TpmKeeping::Sealed,
        pcrs: PcrSet::new([11]).unwrap(),
        signing: PcrSigning::default(),
        gate_pcr: 13,
        counting: Counting::Index,
        releases_per_boot: releases.and_then(std::num::NonZeroU8::new),
        window: None,
        pin: None,
        deadline: Duration::from_secs(20),
    })
}

fn ids(plan: &Plan) -> Vec<u16> {
    SlotFiles::new(&OsDisk, plan.state_dir()).read().unwrap().set.slots().iter().map(|s| s.id().0).collect()
}

fn fact(outcome: Result<SlotChange, Halt>) -> String {
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn an_update_is_predicted_booted_and_committed() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    for releases in [None, Some(2)] {
        let mut tpm = Swtpm::start();
        boot(&mut tpm, OLD);
        let mut device = Device::new();
        device.plan.sources = vec![source(&tpm, releases)];
        let mut running = device.up().await;
        assert!(fact(running.commit_slots(ROOT).await).contains("is the only one"));
        let wrong: PcrValues = format!("sha256:7={}", "07".repeat(32)).parse().unwrap();
        assert!(fact(running.predict_slot(&wrong, ROOT).await).contains("PCR 11 has no known value"));
        let change = running.predict_slot(&values(NEW), ROOT).await.unwrap();
        assert_eq!(change, SlotChange { added: vec![2], ..SlotChange::default() });
        let waits = fact(running.commit_slots(ROOT).await);
        assert!(waits.contains("slot 2 was made for an image that has not opened the store yet"), "{waits}");
        running.shutdown().await;

        for (image, opens) in [(OLD, true), (NEITHER, false), (NEW, true)] {
            boot(&mut tpm, image);
            device.clock.reboot();
            let running = device.up().await;
            assert_eq!(open(&running) == BOTH, opens, "{image:#x}: {:?}", running.halted());
            running.shutdown().await;
        }
        boot(&mut tpm, NEW);
        let mut running = device.up().await;
        assert_eq!(running.commit_slots(ROOT).await.unwrap().removed, [1]);
        assert_eq!(ids(&device.plan), [2]);
        running.shutdown().await;
        for (image, opens) in [(OLD, false), (NEW, true)] {
            boot(&mut tpm, image);
            device.clock.reboot();
            let running = device.up().await;
            assert_eq!(open(&running) == BOTH, opens, "{image:#x}: {:?}", running.halted());
            running.shutdown().await;
        }
    }
}

/// A device that was updated without a word, and opened by its recovery key: its slot is made anew though it counts its releases, and
/// they have begun.
#[tokio::test]
async fn a_slot_that_counts_is_made_anew_in_the_boot_that_needs_it() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let mut device = Device::new();
    device.plan.sources = vec![source(&tpm, Some(3))];
    let mut running = device.up().await;
    let change = running.reseal_slots(None, ROOT).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![2], vec![1]));
    running.shutdown().await;
    assert_eq!(open(&device.up().await), BOTH, "the second release of this boot, by the new slot");
    boot(&mut tpm, OLD);
    assert_eq!(open(&device.up().await), BOTH);
}

/// Whatever the moment of the cut: the old image opens the store until it is given up, the new one from when it was told to be there;
/// and never neither.
#[tokio::test]
async fn a_power_cut_at_any_step_of_an_update_leaves_an_image_that_opens() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let start = |disk: &testkit::CrashDisk, tpm: &Swtpm, seed| {
        let (mut plan, env) = recorded(disk, &clock, seed);
        plan.sources = vec![source(tpm, None)];
        (plan, env)
    };
    let (plan, env) = start(&disk, &tpm, 7);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let begun = disk.events();
    running.predict_slot(&values(NEW), ROOT).await.unwrap();
    let predicted = disk.events();
    running.shutdown().await;
    boot(&mut tpm, NEW);
    let (_, env) = start(&disk, &tpm, 8);
    running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let updated = disk.events();
    running.commit_slots(ROOT).await.unwrap();
    let committed = disk.events();
    drop(running);

    let (mut early, mut late) = (0, 0);
    for at in (begun..=predicted).chain(updated..=committed) {
        let (unsynced, names) = (testkit::Unsynced::ALL[at % 4], testkit::NameRule::ALL[at / 4 % 2]);
        let image = disk.image(&testkit::Cut { at, unsynced, names, seed: at as u64 });
        let when = format!("event {at} of {begun}, {predicted}, {updated}, {committed}; {unsynced:?}, {names:?}");
        let mut opens = [false; 2];
        for (image_of, opened) in [OLD, NEW].into_iter().zip(&mut opens) {
            boot(&mut tpm, image_of);
            clock.reboot();
            disk.restore(&image);
            OsDisk.remove_tree(&plan.run_dir).unwrap();
            let (plan, env) = start(&disk, &tpm, 1000 + at as u64);
            let env = Environment { disk: Arc::new(OsDisk), vfs: None, ..env };
            let running = up(plan, env, Box::new(Quiet)).await.unwrap();
            *opened = open(&running) == BOTH;
            running.shutdown().await;
        }
        let [old, new] = opens;
        assert!(if at < updated { old } else { new }, "{when}: {opens:?}");
        assert!(at < predicted || new, "{when}: what was told is there");
        assert!(at < committed || !old, "{when}: what was told to be gone is gone");
        early += usize::from(!new);
        late += usize::from(!old);
    }
    assert!(early > 0 && late > 0, "cuts before and after each change were played");
}
