//! Slots that come and go while the store is open, and power that is cut at each step.

use std::collections::BTreeSet;

use api::PeerAddress;
use seal::{SlotFiles, SourceKind};

use super::*;
use crate::driver::{SlotChange, Verdict, kept_keks};
use crate::plan::SourceSpec;

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

fn file(plan: &Plan, name: &str) -> SourceSpec {
    SourceSpec::Software { file: plan.data_dir.join(name) }
}

fn files_of(plan: &Plan, names: &[&str]) -> Vec<SourceSpec> {
    names.iter().map(|name| file(plan, name)).collect()
}

/// The running device reads its configuration anew.
fn configure(running: &mut Running, names: &[&str]) {
    let mut plan = running.plan().clone();
    plan.sources = files_of(&plan, names);
    running.adopt_sources(&plan);
}

fn ids(plan: &Plan) -> Vec<u16> {
    SlotFiles::new(&OsDisk, plan.state_dir()).read().unwrap().set.slots().iter().map(|s| s.id().0).collect()
}

async fn keks(running: &Running) -> Vec<u16> {
    let kept = running.store().unwrap().list(&kept_keks::dir()).await.unwrap();
    kept.iter().map(|n| n.parse().unwrap()).collect()
}

/// A device by these sources alone, and what it says if it does not open.
async fn opens_by(device: &mut Device, names: &[&str]) -> Result<(), String> {
    device.plan.sources = files_of(&device.plan, names);
    let running = device.up().await;
    let outcome = match running.halted() {
        None if open(&running) == BOTH => Ok(()),
        None => Err("it waits".into()),
        Some(halt) => Err(halt.to_string()),
    };
    running.shutdown().await;
    outcome
}

impl Device {
    fn with_keys(names: &[&str]) -> Self {
        let mut device = Self::new();
        device.plan.sources = files_of(&device.plan, names);
        device.plan.recovery = Some(RecoverySpec::Terminal);
        device
    }
}

#[tokio::test]
async fn a_source_is_added_while_the_store_is_open_and_opens_it_alone() {
    let mut device = Device::with_keys(&["one.key"]);
    let mut running = device.up().await;
    assert!(running.add_slots(None, ROOT).await.unwrap_err().to_string().contains("has its slot"));
    configure(&mut running, &["one.key", "two.key", "three.key"]);
    let list = running.slots().await.unwrap();
    assert_eq!(
        list.slots.iter().map(|s| (s.id, s.kind.as_str(), s.opened)).collect::<Vec<_>>(),
        [(1, "software", true), (2, "recovery", false)]
    );
    assert_eq!(list.without_slot.len(), 2);
    for wrong in ["4", "tpm", "1", "software"] {
        running.add_slots(Some(wrong), ROOT).await.unwrap_err();
    }
    assert_eq!(running.add_slots(Some("3"), ROOT).await.unwrap().added, [3]);
    assert_eq!(running.add_slots(None, ROOT).await.unwrap().added, [4]);
    assert_eq!(keks(&running).await, [1, 2, 3, 4]);
    let list = running.slots().await.unwrap();
    assert!(list.slots[2].opened && list.slots[2].missing.is_none() && list.without_slot.is_empty());
    assert!(list.slots[2].source.as_ref().unwrap().ends_with("three.key"), "{list:?}");
    running.shutdown().await;
    for name in ["one.key", "two.key", "three.key"] {
        opens_by(&mut device, &[name]).await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_slot_opens_nothing_any_more_and_the_root_key_is_another() {
    let mut device = Device::with_keys(&["one.key", "two.key"]);
    device.up().await.shutdown().await;
    let before = files(&device.plan.data_dir);
    let slots = ["slots.a", "slots.b"].map(|n| (device.state(n), OsDisk.read(&device.state(n), 10_000).unwrap()));
    let mut running = device.up().await;
    let change = running.remove_slot(1, ROOT).await.unwrap();
    assert_eq!(change, SlotChange { removed: vec![1], ..SlotChange::default() });
    assert_eq!((ids(&device.plan), keks(&running).await), (vec![2, 3], vec![2, 3]));
    running.seal().await;
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
    assert!(opens_by(&mut device, &["one.key"]).await.unwrap_err().contains("is not the one"));
    opens_by(&mut device, &["two.key"]).await.unwrap();

    // Its slot put back, with the hardware that opened it: the root key in it opens this store no more.
    for (path, bytes) in &slots {
        OsDisk.replace(path, bytes, 0o600, None).unwrap();
    }
    let refused = opens_by(&mut device, &["one.key"]).await.unwrap_err();
    assert!(refused.contains("root key"), "{refused}");
    // A whole copy of before is readable as it was: the command says so.
    for (path, bytes) in &before {
        OsDisk.replace(path, bytes, 0o600, None).unwrap();
    }
    opens_by(&mut device, &["one.key"]).await.unwrap();
}

#[tokio::test]
async fn the_last_slot_that_opens_does_not_go() {
    let mut device = Device::with_keys(&["one.key", "two.key"]);
    device.up().await.shutdown().await;
    let (two, away) = (device.plan.data_dir.join("two.key"), device.plan.data_dir.join("away"));
    OsDisk.rename(&two, &away, true).unwrap();
    let mut running = device.up().await;
    let refused = |r: Result<SlotChange, Halt>| r.unwrap_err().to_string();
    let fact = refused(running.remove_slot(1, ROOT).await);
    assert!(
        fact.contains("no other slot than 1 is known to open the store: slot 2: ") && fact.contains("not there"),
        "{fact}"
    );
    assert!(refused(running.remove_slot(3, ROOT).await).contains("is the recovery key's"));
    assert!(refused(running.remove_slot(9, ROOT).await).contains("no slot 9"));
    // Slot 1 has opened the store: the one that cannot be tried may go, whatever became of its source.
    running.remove_slot(2, ROOT).await.unwrap();
    let fact = refused(running.remove_slot(1, ROOT).await);
    assert_eq!(fact, "slot 1 is the last that opens the store");
    assert_eq!((ids(&device.plan), open(&running)), (vec![1, 3], BOTH.map(String::from).to_vec()));
    running.seal().await;
    assert!(running.slots().await.unwrap_err().to_string().contains("sealed"));
    assert!(refused(running.remove_slot(1, ROOT).await).contains("sealed"));
}

#[tokio::test]
async fn slots_are_tried_and_the_audit_has_who_asked() {
    let mut device = Device::with_keys(&["one.key", "two.key"]);
    device.up().await.shutdown().await;
    OsDisk.replace(&device.plan.data_dir.join("two.key"), b"junk", 0o600, None).unwrap();
    let mut running = device.up().await;
    let tests = running.test_slots(None, ROOT).await.unwrap();
    let verdicts: Vec<_> = tests.iter().map(|t| (t.id, t.verdict)).collect();
    assert_eq!(verdicts, [(1, Verdict::Opens), (2, Verdict::Refuses)]);
    assert!(tests[1].told.contains("is not a key file"), "{tests:?}");
    assert_eq!(running.test_slots(Some(3), ROOT).await.unwrap()[0].verdict, Verdict::NoSource);
    running.remove_slot(9, ROOT).await.unwrap_err();
    running.remove_slot(1, ROOT).await.unwrap_err();
    let chain = chain(&running).await;
    running.shutdown().await;
    let mut told = Vec::new();
    let see = |entry: pipeline::audit::Entry<'_>| {
        let line: serde_json::Value = serde_json::from_str(entry.line).unwrap();
        if let Some(path) = line["request"]["path"].as_str().and_then(|p| p.strip_prefix("admin/slots/")) {
            let error = line["error"].as_str().map(|e| e.contains("is known to open"));
            told.push((path.to_owned(), line["request"]["remote_pid"].as_u64(), error));
        }
    };
    pipeline::audit::verify(&OsDisk, &device.state("audit"), &chain, see).unwrap();
    let line = |path: &str, error| (path.to_owned(), Some(77), error);
    let tried = [line("test", None), line("test", None)];
    let refused = [line("remove", None), line("remove", Some(true))];
    assert_eq!(told, [&tried[..], &tried, &refused].concat(), "what does not exist is not even asked for");
}

/// A hook's slot is made anew: another number, the same hook.
#[tokio::test]
async fn a_slot_is_made_anew_and_the_old_one_goes_when_the_new_one_has_opened() {
    let mut device = Device::with_keys(&[]);
    let hooks = testkit::scratch_dir();
    let hook = hooks.path().join("hook");
    let put = |text: &str| testkit::lay_program(&hook, text, 0o700);
    put("#!/bin/sh\nprintf %064d 7\n");
    device.plan.sources =
        vec![SourceSpec::Exec { path: hook.clone(), env: [].into(), deadline: Duration::from_secs(10) }];
    let mut running = device.up().await;
    let change = running.reseal_slots(None, ROOT).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![3], vec![1]));
    // The hardware behind the hook is another: what is made anew is made with it.
    put("#!/bin/sh\nprintf %064d 8\n");
    assert_eq!(running.test_slots(None, ROOT).await.unwrap()[0].verdict, Verdict::Refuses);
    let change = running.reseal_slots(Some(3), ROOT).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![4], vec![3]));
    running.reseal_slots(Some(2), ROOT).await.unwrap_err();
    put("#!/bin/sh\nprintf %064d 9\nexit 1\n");
    running.reseal_slots(None, ROOT).await.unwrap_err();
    assert_eq!((ids(&device.plan), keks(&running).await), (vec![2, 4], vec![2, 4]));
    put("#!/bin/sh\nprintf %064d 8\n");
    running.seal().await;
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
}

/// Another board: no source opens, the recovery key does, and from then on the board opens by itself.
#[tokio::test]
async fn a_recovery_that_reseals_makes_slots_for_the_hardware_that_is_there() {
    let mut device = Device::with_keys(&["one.key", "two.key"]);
    device.up().await.shutdown().await;
    let text = device.ears.key.lock().unwrap().take().unwrap();
    for name in ["one.key", "two.key"] {
        OsDisk.remove_file(&device.plan.data_dir.join(name)).unwrap();
    }
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&text).unwrap();
    let (rotation, change) = running.recover_and(&key, ROOT, true).await.unwrap();
    let change = change.unwrap();
    assert_eq!((change.added.len(), change.removed, change.told), (2, vec![1, 2], vec![]));
    let Rotation::Offered(new) = rotation else { panic!("{rotation:?}") };
    running.confirm_recovery(&key, ROOT).await.unwrap();
    running.shutdown().await;
    for name in ["one.key", "two.key"] {
        opens_by(&mut device, &[name]).await.unwrap();
    }
    let mut running = device.up().await;
    running.seal().await;
    running.recover(&key, ROOT).await.unwrap_err();
    // With everything in its place nothing is made anew.
    let (_, change) = running.recover_and(&RecoveryKey::parse(&new).unwrap(), ROOT, true).await.unwrap();
    assert_eq!(change.unwrap(), SlotChange::default());
}

/// Bytes that must never be on the disk: each root key and KEK that a device had.
#[derive(Default)]
struct Clear(BTreeSet<Vec<u8>>);

impl Clear {
    async fn learn(&mut self, plan: &Plan, running: &Running) {
        let store = running.store().unwrap();
        let found = SlotFiles::new(&OsDisk, plan.state_dir()).read().unwrap();
        for id in keks(running).await {
            let kek = store.get(&kept_keks::path(id)).await.unwrap().unwrap();
            self.0.insert(kek.value.expose().to_vec());
            let kek =
                secret::Kek::new(secret::Secret::init_with(|k: &mut [u8; 32]| k.copy_from_slice(kek.value.expose())));
            let unlocked = found.set.unlock_by(seal::SlotKek { slot: seal::SlotId(id), kek });
            self.0.insert(unlocked.unwrap().root.expose().to_vec());
        }
    }

    fn assert_never_written(&self, disk: &testkit::CrashDisk) {
        let mut kept = 0;
        for (path, bytes) in disk.written().into_iter().filter(|(p, _)| p.extension().is_none_or(|e| e != "key")) {
            kept += bytes.len();
            for secret in &self.0 {
                assert!(!bytes.windows(32).any(|w| w == secret), "a key in clear in {}", path.display());
            }
        }
        assert!(kept > 100_000 && self.0.len() > 3, "{kept} bytes, {} keys", self.0.len());
    }
}

/// Power is cut after every event of a slot that comes, of one that goes, and of a source that is changed for another.
/// Whatever the moment: the source that stays opens the store alone, the recovery key does, and what has come opens
/// once it was told.
#[tokio::test]
async fn a_power_cut_at_any_step_of_a_change_leaves_slots_that_open() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let start = |disk: &testkit::CrashDisk, seed| {
        let (mut plan, env) = recorded(disk, &clock, seed);
        plan.recovery = Some(RecoverySpec::Terminal);
        plan.sources = files_of(&plan, &["one.key", "two.key"]);
        (plan, env)
    };
    let (plan, env) = start(&disk, 7);
    let ears = Ears::default();
    let mut running = up(plan.clone(), env, Box::new(ears.clone())).await.unwrap();
    let key = RecoveryKey::parse(&ears.key.lock().unwrap().take().unwrap()).unwrap();
    let mut clear = Clear::default();
    clear.learn(&plan, &running).await;
    let begun = disk.events();
    configure(&mut running, &["one.key", "two.key", "three.key"]);
    running.add_slots(None, ROOT).await.unwrap();
    let added = disk.events();
    clear.learn(&plan, &running).await;
    running.remove_slot(1, ROOT).await.unwrap();
    let removed = disk.events();
    clear.learn(&plan, &running).await;
    drop(running);
    clear.assert_never_written(&disk);

    let mut stepped_back = 0;
    for end in ends(&disk, begun..=disk.events()) {
        let (at, when) = (end.at, format!("{end} of {begun}, {added}, {removed}"));
        disk.restore(&end.image);
        OsDisk.remove_tree(&plan.run_dir).unwrap();
        let by = |names: &[&str]| {
            let (mut plan, env) = start(&disk, 1000 + at as u64);
            plan.sources = files_of(&plan, names);
            (plan, unrecorded(env))
        };
        let ears = Ears::default();
        let (plan, env) = by(&["two.key"]);
        let mut running = up(plan.clone(), env, Box::new(ears.clone())).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        _ = chain(&running).await;
        assert_eq!(ears.heard(|n| matches!(n, Note::Alarm(t) if t.contains("audit"))), 0, "{when}");
        stepped_back += ears.heard(|n| matches!(n, Note::Warning(t) if t.contains("slots of before are in force")));
        let (a, b) = (plan.state_dir().join("slots.a"), plan.state_dir().join("slots.b"));
        assert_eq!(OsDisk.read(&a, 10_000).unwrap(), OsDisk.read(&b, 10_000).unwrap(), "{when}: healed");
        let there = ids(&plan);
        for (name, slot) in [("one.key", 1), ("three.key", 4)] {
            running.shutdown().await;
            let (one, env) = by(&[name]);
            running = up(one, env, Box::new(Quiet)).await.unwrap();
            let opened = open(&running) == BOTH;
            assert_eq!(opened, there.contains(&slot), "{when}: {name}");
        }
        assert!(at < added || there.contains(&4), "{when}: a slot that was told is there");
        assert!(at < removed || !there.contains(&1), "{when}: a slot that was told to be gone is gone");
        if at % 5 == 0 {
            running.shutdown().await;
            let (plan, env) = by(&["two.key"]);
            running = up(plan, env, Box::new(Quiet)).await.unwrap();
            running.seal().await;
            running.recover(&key, ROOT).await.unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(open(&running), BOTH, "{when}");
        }
        drop(running);
    }
    assert!(stepped_back > 2, "cuts between slots.a and the store's commit were played: {stepped_back}");
}

/// Both copies of one generation are asked for before a root key is changed: with one damaged, it is healed first.
#[tokio::test]
async fn a_damaged_copy_is_healed_before_a_slot_goes() {
    let mut device = Device::with_keys(&["one.key", "two.key"]);
    let mut running = device.up().await;
    for copy in ["slots.a", "slots.b"] {
        OsDisk.replace(&device.state(copy), b"damaged", 0o600, None).unwrap();
        running.test_slots(None, ROOT).await.unwrap();
        let id = ids(&device.plan)[0];
        let change = running.remove_slot(id, ROOT).await;
        if copy == "slots.a" {
            change.unwrap();
            let read = |n: &str| OsDisk.read(&device.state(n), 10_000).unwrap();
            assert_eq!(read("slots.a"), read("slots.b"));
            configure(&mut running, &["two.key", "three.key"]);
            running.add_slots(None, ROOT).await.unwrap();
        } else {
            change.unwrap();
        }
    }
    running.shutdown().await;
    opens_by(&mut device, &["three.key"]).await.unwrap();
    let found = SlotFiles::new(&OsDisk, device.plan.state_dir()).read().unwrap();
    assert_eq!(found.set.slots_of(SourceKind::Software).count(), 1);
}
