//! An update of the image, on a device whose key is in a TPM: predicted, booted, committed; and power that is cut at
//! each step.

use api::PeerAddress;
use seal::{Counting, PcrSet, PcrSigning, PcrValues, SlotFiles};
use testkit::Swtpm;

use super::*;
use crate::driver::SlotChange;
use crate::plan::{SourceSpec, TpmKeeping, TpmSpec};

pub(super) const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };
pub(super) const OLD: u8 = 0xbb;
pub(super) const NEW: u8 = 0xcc;
const NEITHER: u8 = 0xdd;

/// The device is started with an image that extends register 11 by `image`, 32 times.
pub(super) fn boot(tpm: &mut Swtpm, image: u8) {
    tpm.reboot();
    tpm.extend(11, image);
}

/// What register 11 will hold then, written down as an operator would.
pub(super) fn values(image: u8) -> PcrValues {
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

pub(super) fn ids(plan: &Plan) -> Vec<u16> {
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
    for (shape, releases) in [
        (Shape::Sealed, None),
        (Shape::Sealed, Some(2)),
        (Shape::Index, None),
        (Shape::Index, Some(1)),
        (Shape::All, None),
        (Shape::All, Some(1)),
    ] {
        let mut tpm = Swtpm::start();
        boot(&mut tpm, OLD);
        let mut device = Device::new();
        device.plan.sources = vec![shaped(shape, &tpm, releases, &device.plan.data_dir)];
        let mut running = device.up().await;
        let before = tpm.nv_indices().len();
        assert!(fact(running.commit_slots(ROOT).await).contains("is the only one"));
        let wrong: PcrValues = format!("sha256:7={}", "07".repeat(32)).parse().unwrap();
        assert!(fact(running.predict_slot(&wrong, ROOT).await).contains("PCR 11 has no known value"));
        assert_eq!(tpm.nv_indices().len(), before, "{shape:?}");
        let change = running.predict_slot(&values(NEW), ROOT).await.unwrap();
        assert_eq!(change, SlotChange { added: vec![2], ..SlotChange::default() });
        let waits = fact(running.commit_slots(ROOT).await);
        assert!(waits.contains("slot 2 was made for an image that has not opened the store yet"), "{waits}");
        running.shutdown().await;

        for (image, opens) in [(OLD, true), (NEITHER, false), (NEW, true)] {
            boot(&mut tpm, image);
            device.clock.reboot();
            let running = device.up().await;
            assert_eq!(open(&running) == BOTH, opens, "{shape:?}, {image:#x}: {:?}", running.halted());
            running.shutdown().await;
        }
        boot(&mut tpm, NEW);
        let mut running = device.up().await;
        assert_eq!(running.commit_slots(ROOT).await.unwrap().removed, [1]);
        assert_eq!((ids(&device.plan), tpm.nv_indices().len()), (vec![2], before), "{shape:?}");
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

/// A slot that waits for its image is neither overtaken by a newer one of the image that runs, nor are there so many of
/// them that a replaced board would find no place.
#[tokio::test]
async fn an_update_that_waits_is_not_overtaken_and_leaves_a_place() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let mut device = Device::new();
    device.plan.sources = vec![source(&tpm, None)];
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    assert_eq!(running.predict_slot(&values(NEW), ROOT).await.unwrap().added, [3]);
    for id in [None, Some(1)] {
        let waits = fact(running.reseal_slots(id, ROOT).await);
        assert!(waits.contains("slot 3 was made for an image that has not opened the store yet"), "{waits}");
    }
    for image in 1..=12 {
        running.predict_slot(&values(image), ROOT).await.unwrap();
    }
    assert_eq!(ids(&device.plan).len(), 15);
    let full = fact(running.predict_slot(&values(13), ROOT).await);
    assert!(full.contains("there are 15 key slots"), "{full}");
    running.shutdown().await;
    // The TPM of another board, after a recovery: its slot finds the place.
    let mut other = Swtpm::start();
    boot(&mut other, OLD);
    device.plan.sources = vec![source(&other, None)];
    let mut running = device.up().await;
    assert!(running.halted().is_some());
    let (_, change) = running.recover_and(&key, ROOT, true).await.unwrap();
    let change = change.unwrap();
    assert_eq!((change.added.len(), change.told), (1, vec![]));
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    boot(&mut other, OLD);
    device.clock.reboot();
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", running.halted());
    running.shutdown().await;
}

/// Another source opens the store at each start: the slot of the new image is tried at the commit, in the new image
/// alone, and never by the last release of a boot.
#[tokio::test]
async fn an_update_is_committed_where_another_source_has_opened_the_store() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    for releases in [None, Some(1), Some(2)] {
        let mut tpm = Swtpm::start();
        boot(&mut tpm, OLD);
        let mut device = Device::new();
        let by_file = SourceSpec::Software { file: device.plan.data_dir.join("other.key") };
        device.plan.sources = vec![source(&tpm, releases)];
        let mut running = device.up().await;
        assert!(running.predict_slot(&values(NEW), ROOT).await.is_ok());
        device.plan.sources = vec![by_file, source(&tpm, releases)];
        running.adopt_sources(&device.plan);
        assert_eq!(running.add_slots(None, ROOT).await.unwrap().added, [3]);
        running.shutdown().await;

        boot(&mut tpm, OLD);
        device.clock.reboot();
        let mut running = device.up().await;
        let old = fact(running.commit_slots(ROOT).await);
        assert!(old.starts_with("slot 2 has not opened in this boot: ") && old.contains("PCR 11 is"), "{old}");
        running.shutdown().await;

        boot(&mut tpm, NEW);
        device.clock.reboot();
        let mut running = device.up().await;
        if releases == Some(1) {
            let halt = running.commit_slots(ROOT).await.unwrap_err();
            assert!(halt.to_string().contains("would take the last release"), "{halt}");
            assert!(halt.hint().contains("as the only [[source]], so that slot 2 opens the store"), "{}", halt.hint());
            running.shutdown().await;
            device.plan.sources.remove(0);
            running = device.up().await;
            assert_eq!(open(&running), BOTH, "the last release is there still");
        }
        assert_eq!(running.commit_slots(ROOT).await.unwrap().removed, [1], "{releases:?}");
        assert_eq!(ids(&device.plan), [2, 3]);
        running.shutdown().await;
        device.plan.sources = vec![source(&tpm, releases)];
        for (image, opens) in [(OLD, false), (NEW, true)] {
            boot(&mut tpm, image);
            device.clock.reboot();
            let running = device.up().await;
            assert_eq!(open(&running) == BOTH, opens, "{image:#x}: {:?}", running.halted());
            running.shutdown().await;
        }
    }
}

/// A device that was updated without a word, and opened by its recovery key: its slot is made anew though it counts its
/// releases, and they have begun.
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

/// Whatever the moment of the cut: the old image opens the store until it is given up, the new one from when it was
/// told to be there; and never neither.
#[tokio::test]
async fn a_power_cut_at_any_step_of_an_update_leaves_an_image_that_opens() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    // With a count too: the slots of one device share it, and it outlives the first of them.
    for releases in [None, Some(2)] {
        update_with_cuts(Shape::Sealed, releases).await;
    }
    update_with_cuts(Shape::All, Some(1)).await;
}

async fn update_with_cuts(shape: Shape, releases: Option<u8>) {
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let start = |disk: &testkit::CrashDisk, tpm: &Swtpm, seed| {
        let (mut plan, env) = recorded(disk, &clock, seed);
        plan.sources = vec![shaped(shape, tpm, releases, &plan.data_dir)];
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
    for cut in cuts(&disk, (begun..=predicted).chain(updated..=committed)) {
        let (at, when) =
            (cut.at, format!("{shape:?}, {releases:?}: {cut} of {begun}, {predicted}, {updated}, {committed}"));
        let mut opens = [false; 2];
        for (image_of, opened) in [OLD, NEW].into_iter().zip(&mut opens) {
            boot(&mut tpm, image_of);
            clock.reboot();
            cut.restore(&disk, &plan);
            let (plan, env) = start(&disk, &tpm, 1000 + at as u64);
            let env = unrecorded(env);
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

/// What a device hangs on: its TPM by an object, or by an index, or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Sealed,
    Index,
    /// With a key file, both needed.
    All,
    /// An index and a key file and a hook, of which two are enough.
    Two,
}

const HOOK: &str = "#!/bin/sh\nprintf 64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80\n";

fn shaped(shape: Shape, tpm: &Swtpm, releases: Option<u8>, dir: &Path) -> SourceSpec {
    let SourceSpec::Tpm(spec) = source(tpm, releases) else { unreachable!("it is a TPM") };
    let index = || SourceSpec::Tpm(TpmSpec { keeping: TpmKeeping::Index, ..spec.clone() });
    let file = || SourceSpec::Software { file: dir.join("part.key") };
    match shape {
        Shape::Sealed => SourceSpec::Tpm(spec),
        Shape::Index => index(),
        Shape::All => SourceSpec::Combined { threshold: None, parts: vec![SourceSpec::Tpm(spec), file()] },
        Shape::Two => {
            let hook = dir.join("hook");
            if OsDisk.meta(&hook).unwrap().is_none() {
                testkit::lay_program(&hook, HOOK, 0o700);
            }
            let exec = SourceSpec::Exec { path: hook, env: BTreeMap::new(), deadline: Duration::from_secs(10) };
            SourceSpec::Combined { threshold: Some(2), parts: vec![index(), file(), exec] }
        }
    }
}

/// The file and the hook open a slot for an image that does not run: it does not count as one that has proven itself.
#[tokio::test]
async fn an_image_is_not_committed_by_the_parts_that_open_in_every_image() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let mut device = Device::new();
    let hooks = testkit::scratch_dir();
    device.plan.sources = vec![shaped(Shape::Two, &tpm, Some(1), hooks.path())];
    let mut running = device.up().await;
    assert_eq!(running.predict_slot(&values(NEW), ROOT).await.unwrap().added, [2]);
    running.shutdown().await;
    for (image, commits) in [(OLD, false), (NEITHER, false), (NEW, true)] {
        boot(&mut tpm, image);
        device.clock.reboot();
        let mut running = device.up().await;
        assert_eq!(open(&running), BOTH, "two others are enough in {image:#x}");
        let outcome = running.commit_slots(ROOT).await;
        if commits {
            assert_eq!(outcome.unwrap().removed, [1]);
            assert_eq!((ids(&device.plan), tpm.nv_indices().len()), (vec![2], 1));
        } else {
            let told = fact(outcome);
            assert!(told.starts_with("slot 2 has opened without its part 1 (tpm-nv): "), "{image:#x}: {told}");
            assert!(told.contains("PCR 11 is"), "{told}");
        }
        running.shutdown().await;
    }
}

/// A TPM with one hook, and the same TPM with another: by their slots nobody can tell which is whose, so that none is
/// made for another image and none goes.
#[tokio::test]
async fn slots_that_may_be_of_several_sources_are_left_alone() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let (mut device, hooks) = (Device::new(), testkit::scratch_dir());
    let with_hook = |name: &str| {
        let path = hooks.path().join(name);
        testkit::lay_program(&path, HOOK, 0o700);
        let exec = SourceSpec::Exec { path, env: BTreeMap::new(), deadline: Duration::from_secs(10) };
        SourceSpec::Combined { threshold: None, parts: vec![source(&tpm, None), exec] }
    };
    let [one, other] = ["one", "other"].map(with_hook);
    device.plan.sources = vec![one.clone()];
    let mut running = device.up().await;
    running.predict_slot(&values(NEW), ROOT).await.unwrap();
    running.shutdown().await;
    boot(&mut tpm, NEW);
    device.clock.reboot();
    device.plan.sources = vec![one, other];
    let mut running = device.up().await;
    let told = "slots 1 and 2 cannot be told apart: they may be those of [[source]] 1 and 2";
    assert_eq!(fact(running.predict_slot(&values(NEITHER), ROOT).await), told);
    assert_eq!(fact(running.commit_slots(ROOT).await), told);
    assert_eq!(ids(&device.plan), [1, 2]);
}

/// What nothing is predicted for, and what helps instead.
#[tokio::test]
async fn slots_that_open_in_every_image_are_named() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    boot(&mut tpm, OLD);
    let SourceSpec::Tpm(spec) = source(&tpm, None) else { unreachable!("it is a TPM") };
    let unbound = SourceSpec::Tpm(TpmSpec { pcrs: PcrSet::default(), ..spec });
    for unbound in [None, Some(unbound)] {
        let mut device = Device::new();
        device.plan.sources = unbound.map_or(device.plan.sources, |unbound| vec![unbound]);
        let mut running = device.up().await;
        let halt = running.predict_slot(&values(NEW), ROOT).await.unwrap_err();
        assert_eq!(halt.to_string(), "no slot is bound to registers of a TPM");
        assert!(halt.hint().contains("open in every image"), "{}", halt.hint());
        assert!(fact(running.commit_slots(ROOT).await).contains("no slot of a TPM was made for another image"));
        running.shutdown().await;
    }
}
