//! Several key sources: each opens the store alone, and what one of them says is told whoever opens it.

use seal::{NewSlot, SealMode, SetHeader, SlotFiles, SlotId, SlotPublic, SlotSet, SourceKind, StoreId};

use super::*;
use crate::driver::asking;
use crate::driver::keys;
use crate::plan::{SourceSpec, TpmKeeping, TpmSpec};

impl Device {
    /// With two key files, which stand for two parts of hardware.
    fn with_two_keys() -> Self {
        let mut device = Self::new();
        device.plan.sources = ["one.key", "two.key"].map(|name| device.key(name)).into();
        device
    }

    fn key(&self, name: &str) -> SourceSpec {
        SourceSpec::Software { file: self.plan.data_dir.join(name) }
    }

    fn hide(&self, name: &str) {
        let path = self.plan.data_dir.join(name);
        OsDisk.rename(&path, &path.with_extension("away"), true).unwrap();
    }

    fn put_back(&self, name: &str) {
        let path = self.plan.data_dir.join(name);
        OsDisk.rename(&path.with_extension("away"), &path, true).unwrap();
    }

    fn kinds(&self) -> Vec<SourceKind> {
        let found = SlotFiles::new(&OsDisk, self.plan.state_dir()).read().unwrap();
        found.set.slots().iter().map(|s| s.public().kind()).collect()
    }
}

#[tokio::test]
async fn each_source_has_its_slot_and_opens_the_store_alone() {
    let mut device = Device::with_two_keys();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up().await.shutdown().await;
    assert_eq!(device.kinds(), [SourceKind::Software, SourceKind::Software, SourceKind::Recovery]);
    for (gone, warnings) in [("one.key", 1), ("two.key", 0)] {
        device.hide(gone);
        let running = device.up().await;
        assert_eq!(open(&running), BOTH, "{gone} is away");
        let told =
            device.ears.heard(|n| matches!(n, Note::Warning(t) if t.contains(gone) && t.contains("is not there")));
        assert_eq!(told, warnings, "what is asked first is told although another opens");
        running.shutdown().await;
        device.put_back(gone);
    }
    for gone in ["one.key", "two.key"] {
        device.hide(gone);
    }
    let mut running = device.up().await;
    assert!(matches!(running.state(), State::Releasing(_)) && running.halted().is_none(), "either may come late");
    device.put_back("two.key");
    device.clock.advance(Duration::from_secs(1));
    running.tick().await;
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn all_refusals_are_told_and_each_source_by_its_name() {
    let mut device = Device::with_two_keys();
    device.up().await.shutdown().await;
    for name in ["one.key", "two.key"] {
        OsDisk.replace(&device.plan.data_dir.join(name), b"junk", 0o600, None).unwrap();
    }
    let running = device.up().await;
    let fact = running.halted().unwrap().to_string();
    for name in ["one.key (slot 1): ", "two.key (slot 2): "] {
        assert!(fact.contains(name), "{fact}");
    }
    assert!(fact.starts_with("no key source opens the store: ") && fact.contains("is not a key file"), "{fact}");
}

#[tokio::test]
async fn a_slot_whose_source_is_not_configured_is_left_alone_and_opens_when_it_is_again() {
    let mut device = Device::with_two_keys();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up().await.shutdown().await;
    let text = device.ears.key.lock().unwrap().take().unwrap();
    device.plan.sources = vec![device.key("two.key")];
    let mut running = device.up().await;
    assert_eq!(open(&running), BOTH);
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Warning(_))), 0);
    // A change of the slots wraps it anew by the KEK under the barrier.
    running.seal().await;
    let key = RecoveryKey::parse(&text).unwrap();
    running.recover(&key, api::PeerAddress::Internal).await.unwrap();
    running.confirm_recovery(&key, api::PeerAddress::Internal).await.unwrap();
    running.shutdown().await;
    device.plan.sources = vec![device.key("one.key")];
    let running = device.up().await;
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;

    device.plan.sources =
        vec![SourceSpec::Exec { path: "/none".into(), env: [].into(), deadline: Duration::from_secs(1) }];
    let running = device.up().await;
    let fact = running.halted().unwrap().to_string();
    assert_eq!(fact, "the store has no key slot for a source of kind `exec`");
}

/// A hook that says each time that it was run, and gives key material until it is told to break.
pub(super) fn hook(dir: &Path) -> (SourceSpec, impl Fn() -> usize + use<>, impl Fn(bool) + use<>) {
    let (path, runs, broken) = (dir.join("hook"), dir.join("runs"), dir.join("broken"));
    let text = format!("#!/bin/sh\necho run >> {runs:?}\n[ -e {broken:?} ] && echo junk && exit\nprintf %064d 7\n");
    testkit::lay_program(&path, &text, 0o700);
    let spec = SourceSpec::Exec { path, env: [].into(), deadline: Duration::from_secs(10) };
    let count = move || OsDisk.read(&runs, 10_000).map_or(0, |text| text.iter().filter(|b| **b == b'\n').count());
    let set = move |on: bool| {
        let done = if on { OsDisk.write_new(&broken, b"", 0o600, None) } else { OsDisk.remove_file(&broken) };
        done.unwrap();
    };
    (spec, count, set)
}

#[tokio::test]
async fn a_source_that_refuses_is_not_asked_again_while_another_is_waited_for() {
    let mut device = Device::new();
    let hooks = testkit::scratch_dir();
    let (exec, runs, broken) = hook(hooks.path());
    device.plan.sources = vec![exec, device.key("one.key")];
    device.up().await.shutdown().await;
    broken(true);
    device.hide("one.key");
    let before = runs();
    let mut running = device.up().await;
    for _ in 0..5 {
        device.clock.advance(Duration::from_secs(100));
        running.tick().await;
    }
    assert!(matches!(running.state(), State::Releasing(_)), "{:?}", running.state());
    assert_eq!(runs() - before, 1, "junk is junk; the missing file alone is asked for again");
    device.put_back("one.key");
    device.clock.advance(Duration::from_secs(100));
    running.tick().await;
    assert_eq!(open(&running), BOTH);
    // After a seal it is a new start.
    broken(false);
    device.hide("one.key");
    running.seal().await;
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
    assert_eq!(runs() - before, 2);
}

/// A TPM is asked after everything that counts nothing, wherever it stands in the plan; a slot that another device of
/// its kind has made comes last of all.
#[tokio::test]
async fn sources_that_count_their_releases_are_asked_last() {
    let mut device = Device::with_two_keys();
    device.up().await.shutdown().await;
    let tpm = |device: &str| {
        SourceSpec::Tpm(TpmSpec {
            device: device.into(),
            keeping: TpmKeeping::Sealed,
            pcrs: seal::PcrSet::default(),
            signing: seal::PcrSigning::default(),
            gate_pcr: 13,
            counting: seal::Counting::default(),
            releases_per_boot: std::num::NonZeroU8::new(1),
            window: None,
            pin: None,
            deadline: Duration::from_secs(1),
        })
    };
    device.plan.sources.insert(0, tpm("/dev/tpmrm0"));
    let counted = |limit| SlotPublic::new(SourceKind::Tpm, std::num::NonZeroU8::new(limit), Vec::new()).unwrap();
    let of_file = |name: &str| {
        let bytes = OsDisk.read(&device.plan.data_dir.join(name), 100).unwrap();
        SlotPublic::new(SourceKind::Software, None, vec![(1, bytes[8..24].to_vec())]).unwrap()
    };
    let slots = [counted(1), counted(0), of_file("two.key"), of_file("one.key")];
    let entropy = &*device.entropy;
    let new = |public: SlotPublic| NewSlot { public, ikm: RecoveryKey::generate(entropy).ikm().unwrap() };
    let header =
        SetHeader { store: StoreId([1; 16]), profile: keys::seal_profile(device.plan.profile), mode: SealMode::Slots };
    let root = seal::new_root_key(entropy);
    let (set, _) = SlotSet::create(header, &root, slots.map(new).into(), entropy).unwrap();
    let order: Vec<(usize, u16)> =
        asking::pairs(&device.plan, &device.environment(), &set).iter().map(|p| (p.source, p.slot.0)).collect();
    // The TPM's slot without a limit, both files with the slots of their own, and then the one that is counted.
    assert_eq!(order, [(0, 2), (1, 4), (2, 3), (0, 1)]);
    assert_eq!(set.slots()[0].id(), SlotId(1));
}

/// Two of a TPM that counts, a hook and a file. The file is away, so that the TPM gives its part.
#[tokio::test]
async fn a_test_spends_no_release_of_a_combination_that_may_count() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (mut tpm, hooks) = (testkit::Swtpm::start(), testkit::scratch_dir());
    super::predict::boot(&mut tpm, 0xbb);
    let (exec, ..) = hook(hooks.path());
    let mut device = Device::new();
    let parts = vec![super::predict::source(&tpm, Some(2)), exec, device.key("one.key")];
    device.plan.sources = vec![SourceSpec::Combined { threshold: Some(2), parts }];
    device.up().await.shutdown().await;
    device.hide("one.key");
    let last = "the source gives nothing more in this boot";
    let is_last = |device: &Device| device.ears.heard(|n| matches!(n, Note::Warning(t) if t.starts_with(last)));
    let mut running = device.up().await;
    assert_eq!((open(&running), is_last(&device)), (BOTH.map(String::from).to_vec(), 0), "{:?}", running.halted());
    for _ in 0..2 {
        let tests = running.test_slots(None, api::PeerAddress::Internal).await.unwrap();
        assert_eq!(tests[0].verdict, crate::driver::Verdict::NotAsked, "{}", tests[0].told);
    }
    running.shutdown().await;
    let running = device.up().await;
    assert_eq!((open(&running), is_last(&device)), (BOTH.map(String::from).to_vec(), 1), "{:?}", running.halted());
}
