//! The recovery key, used: what it opens, what becomes of it, and what a power cut or a kill leaves.

use api::PeerAddress;
use pipeline::audit::{Entry, Kind, verify};

use super::*;
use crate::driver::{Rotation, kept_keks};

/// Somebody's public key; nothing here is opened again.
const RECIPIENT: &str = "age1c334ulqmge6am09amvevmk3n8tg8r4wwn4hurp2x8w4wk7vsk95sz4z3s6";
const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

fn key(text: &str) -> RecoveryKey {
    RecoveryKey::parse(text).unwrap()
}

fn offered(rotation: Rotation) -> Zeroizing<String> {
    match rotation {
        Rotation::Offered(text) => text,
        other => panic!("{other:?}"),
    }
}

/// A directory that does not lie where the device's does (`scratch_dir` prefers memory).
fn other_file_system(device: &Path) -> TempDir {
    let elsewhere = [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].into_iter().flatten();
    let apart = |dir: &TempDir| OsDisk.device(dir.path()).unwrap() != OsDisk.device(device).unwrap();
    elsewhere.into_iter().find(apart).expect("this test needs /tmp or /dev/shm on a file system of its own")
}

impl Device {
    /// With a recovery key on a terminal; its text.
    async fn made_with_a_key(&mut self) -> (Running, Zeroizing<String>) {
        self.plan.recovery = Some(RecoverySpec::Terminal);
        let running = self.up().await;
        let text = self.ears.key.lock().unwrap().take().unwrap();
        (running, text)
    }

    fn warnings(&self) -> usize {
        self.ears.heard(|n| matches!(n, Note::Warning(t) if t.contains("the used recovery key stays valid")))
    }
}

#[tokio::test]
async fn a_recovery_key_is_spent_by_its_use_and_the_source_still_opens() {
    let mut device = Device::new();
    let (mut running, first) = device.made_with_a_key().await;
    let mut used = first;
    for round in 0..2 {
        running.seal().await;
        let new = offered(running.recover(&key(&used), ROOT).await.unwrap());
        running.confirm_recovery(&key(&used), ROOT).await.unwrap();
        running.confirm_recovery(&key(&used), ROOT).await.unwrap_err();
        running.seal().await;
        let halt = running.recover(&key(&used), ROOT).await.unwrap_err();
        assert!(halt.to_string().contains("is not the recovery key of this store"), "{halt}");
        assert!(open(&running).is_empty());
        running.recover(&key(&new), ROOT).await.unwrap();
        assert_eq!(open(&running), BOTH);
        running.seal().await;
        running.unseal().await;
        assert_eq!(open(&running), BOTH, "the slot of the source was wrapped anew");
        // Exactly the KEKs of the slots that are there.
        let kept = running.store().unwrap().list(&kept_keks::dir()).await.unwrap();
        assert_eq!(kept, ["1".to_owned(), (3 + round).to_string()]);
        used = new;
    }
    running.shutdown().await;
    let running = device.up().await;
    assert_eq!((open(&running), device.warnings()), (BOTH.map(String::from).to_vec(), 0));
}

#[tokio::test]
async fn a_root_token_and_another_recovery_key_are_for_whoever_has_the_one_in_force() {
    let mut device = Device::new();
    let (mut running, first) = device.made_with_a_key().await;
    let ttl = api::Ttl::seconds(600);
    let stranger = RecoveryKey::generate(&SeededEntropy::new(99));
    for halt in [
        running.generate_root(&stranger, ttl, ROOT).await.unwrap_err(),
        running.rekey(&stranger, ROOT).await.unwrap_err(),
    ] {
        assert!(halt.to_string().contains("is not the recovery key of this store"), "{halt}");
    }
    let (auth, rotation) = running.generate_root(&key(&first), ttl, ROOT).await.unwrap();
    let second = offered(rotation);
    running.confirm_recovery(&key(&first), ROOT).await.unwrap();
    assert!(lives(&running, &auth.client_token).await);
    let policies = "sys/policies/acl/root-only";
    let body = r#"{"policy":"path \"x\" {capabilities=[\"read\"]}"}"#;
    assert_eq!(ask(&running, &auth.client_token, Operation::Write, policies, body).await, Status::NO_CONTENT);
    device.clock.advance(Duration::from_secs(601));
    assert!(!lives(&running, &auth.client_token).await, "it ends by itself");

    assert!(running.generate_root(&key(&first), ttl, ROOT).await.is_err(), "the first key is spent");
    let third = offered(running.rekey(&key(&second), ROOT).await.unwrap());
    running.confirm_recovery(&key(&second), ROOT).await.unwrap();
    assert!(running.rekey(&key(&second), ROOT).await.is_err());
    running.seal().await;
    let halt = running.generate_root(&key(&third), ttl, ROOT).await.unwrap_err();
    assert!(halt.to_string().contains("sealed") || halt.to_string().contains("not open"), "{halt}");
    running.recover(&key(&third), ROOT).await.unwrap();
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn a_key_that_nobody_confirms_leaves_the_used_one_valid() {
    let mut device = Device::new();
    let (mut running, text) = device.made_with_a_key().await;
    running.seal().await;
    let new = offered(running.recover(&key(&text), ROOT).await.unwrap());
    // Confirmed by somebody who does not have the key.
    running.confirm_recovery(&key(&new), ROOT).await.unwrap_err();
    running.seal().await;
    running.recover(&key(&new), ROOT).await.unwrap_err();
    running.recover(&key(&text), ROOT).await.unwrap();
    assert_eq!(open(&running), BOTH);
}

#[tokio::test]
async fn a_recovery_file_is_replaced_and_where_it_cannot_be_the_store_opens_all_the_same() {
    let mut device = Device::new();
    let stick = other_file_system(device.dir.path());
    let (beside, file) = (device.dir.path().join("recovery.key"), stick.path().join("recovery.key"));
    device.plan.recovery = Some(RecoverySpec::File(file.clone()));
    let mut running = device.up().await;
    let text = |path: &Path| String::from_utf8(OsDisk.read(path, 100).unwrap().to_vec()).unwrap();
    let first = text(&file);
    running.seal().await;
    let rotation = running.recover(&key(&first), ROOT).await.unwrap();
    assert!(matches!(&rotation, Rotation::Replaced(path) if *path == file), "{rotation:?}");
    let second = text(&file);
    assert_ne!(first, second);
    assert_eq!(OsDisk.list(stick.path()).unwrap(), ["recovery.key"], "nothing waits");
    assert_eq!(OsDisk.meta(&file).unwrap().unwrap().mode, 0o600);
    running.seal().await;
    running.recover(&key(&first), ROOT).await.unwrap_err();
    running.shutdown().await;

    // The stick is gone, and the file would lie beside the store.
    device.plan.recovery = Some(RecoverySpec::File(beside.clone()));
    let mut running = device.up().await;
    running.seal().await;
    for _ in 0..2 {
        let rotation = running.recover(&key(&second), ROOT).await.unwrap();
        assert!(matches!(&rotation, Rotation::Kept(why) if why.contains("lies on the file system of")), "{rotation:?}");
        assert_eq!(open(&running), BOTH, "and the key is as good as before");
        running.seal().await;
    }
    assert_eq!(device.warnings(), 2);
    assert!(!beside.exists());
}

#[tokio::test]
async fn the_audit_has_who_used_the_recovery_key_and_what_came_of_it() {
    let mut device = Device::new();
    let (mut running, text) = device.made_with_a_key().await;
    running.seal().await;
    let new = offered(running.recover(&key(&text), ROOT).await.unwrap());
    running.confirm_recovery(&key(&text), ROOT).await.unwrap();
    let chain = chain(&running).await;
    let sequence = running.store().unwrap().head().unwrap().sequence;
    running.shutdown().await;
    let mut lines = Vec::new();
    let see = |entry: Entry<'_>| {
        let line: serde_json::Value = serde_json::from_str(entry.line).unwrap();
        if line["request"]["path"].as_str().is_some_and(|p| p.starts_with("admin/recover")) {
            lines.push((entry.kind, line));
        }
    };
    verify(&OsDisk, &device.state("audit"), &chain, see).unwrap();
    let name = format!("recovery-{}", key(&text).name());
    let told: Vec<_> = lines.iter().map(|(kind, l)| (*kind, l["request"]["path"].as_str().unwrap())).collect();
    let (recover, confirm) = ("admin/recover", "admin/recover/confirm");
    assert_eq!(
        told,
        [(Kind::Request, recover), (Kind::Response, recover), (Kind::Request, confirm), (Kind::Response, confirm)]
    );
    for (_, line) in &lines {
        assert_eq!(
            (&line["auth"]["display_name"], &line["request"]["remote_pid"]),
            (&name.as_str().into(), &77.into())
        );
        let line = line.to_string();
        assert!(!line.contains(&**text) && !line.contains(&**new), "a record holds no key");
    }
    let last = lines[3].1["response"]["store_sequence"].as_u64().unwrap();
    assert!(last > 0 && last <= sequence, "{last}");
}

/// The key lies in a file on a stick, a file system of its own. The device is ended after every event of the key's use:
/// its source opens it afterwards, and so does the key in the file; once that is the new one, the old one does not.
#[tokio::test]
async fn an_end_while_the_recovery_file_is_replaced_leaves_the_key_in_it_good() {
    let disk = testkit::CrashDisk::new();
    let file = disk.mount("stick").join("recovery.key");
    let clock = Arc::new(FakeClock::at(0));
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.recovery = Some(RecoverySpec::File(file.clone()));
        (plan, env)
    };
    let text = || String::from_utf8(OsDisk.read(&file, 100).unwrap().to_vec()).unwrap();
    let (plan, env) = start(7);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let old = text();
    running.seal().await;
    let begun = disk.events();
    let rotation = running.recover(&key(&old), ROOT).await.unwrap();
    assert!(matches!(rotation, Rotation::Replaced(_)), "{rotation:?}");
    drop(running);
    let new = text();

    let mut found = [0, 0];
    for end in ends(&disk, begun..=disk.events()) {
        let when = end.to_string();
        end.restore(&disk, &plan);
        let clock = Arc::new(FakeClock::clone(&clock));
        if end.by == By::PowerCut {
            clock.reboot();
        }
        // Not recorded, so the stick is no file system of its own here: a key opens, and is not replaced again.
        let (_, env) = start(8);
        let env = Environment { clock, ..unrecorded(env) };
        let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        let there = text();
        assert!(there == old || there == new, "{when}: half a key");
        running.seal().await;
        if there == new {
            assert!(running.recover(&key(&old), ROOT).await.is_err(), "{when}: the used key opens it still");
        }
        let opened = running.recover(&key(&there), ROOT).await;
        assert!(opened.is_ok(), "{when}: the key in the file opens nothing: {opened:?}");
        assert_eq!(open(&running), BOTH, "{when}");
        found[usize::from(there == new)] += 1;
    }
    assert!(found.iter().all(|n| *n > 3), "ends on both sides of the change were played: {found:?}");
}

/// The device on a disk that a cut has left, in the kernel's next boot.
fn next_boot(disk: &testkit::CrashDisk) -> (Plan, Environment) {
    OsDisk.remove_tree(&disk.path("run")).unwrap();
    let clock = Arc::new(FakeClock::at(0));
    clock.reboot();
    recorded(disk, &clock, 8)
}

/// Power is cut after every event of a use of the recovery key whose successor goes to `recovery.age`. Whatever the
/// moment, the device's own source opens it afterwards, its slots can be changed, one of the two keys opens it, and the
/// blob holds the one that does; what the used one opens in an older copy is the root key no more.
#[tokio::test]
async fn a_power_cut_while_the_recovery_key_is_replaced_leaves_one_that_opens() {
    let first = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let (mut plan, env) = recorded(&first, &clock, 7);
    plan.recovery = Some(RecoverySpec::Terminal);
    let ears = Ears::default();
    up(plan.clone(), env, Box::new(ears.clone())).await.unwrap().shutdown().await;
    let old = ears.key.lock().unwrap().take().unwrap();
    let (_, env) = recorded(&first, &clock, 7);
    plan.recovery = Some(RecoverySpec::Age(seal::AgeRecipients::parse([RECIPIENT]).unwrap()));
    let mut running = up(plan, env, Box::new(Quiet)).await.unwrap();
    running.seal().await;
    let begun = first.events();
    let before = seal::SlotFiles::new(&OsDisk, running.plan().state_dir()).read().unwrap().set;
    let rotation = running.recover(&key(&old), ROOT).await.unwrap();
    assert!(matches!(rotation, Rotation::Replaced(_)), "{rotation:?}");
    drop(running);
    let once = before.unlock(seal::SourceKind::Recovery, key(&old).ikm().unwrap()).unwrap();

    let mut spent = [0, 0];
    for cut in cuts(&first, begun..=first.events()) {
        let when = cut.to_string();
        let second = testkit::CrashDisk::holding(&cut.image);
        let (mut plan, env) = next_boot(&second);
        plan.recovery = Some(RecoverySpec::Age(seal::AgeRecipients::parse([RECIPIENT]).unwrap()));
        let mut running = up(plan.clone(), env.clone(), Box::new(Quiet)).await.unwrap();
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        let blob = plan.state_dir().join("recovery.age");
        let replaced = OsDisk.meta(&blob).unwrap().is_some();
        let waiting = |n: &String| n.contains("recovery.age.");
        assert!(!OsDisk.list(&plan.state_dir()).unwrap().iter().any(waiting), "{when}: nothing waits any more");
        plan.sources.push(crate::plan::SourceSpec::Software { file: plan.data_dir.join("second.key") });
        running.adopt_sources(&plan);
        let change = running.add_slots(None, ROOT).await.unwrap_or_else(|e| panic!("{when}: {e}"));
        assert_eq!(change.added.len(), 1, "{when}");
        running.seal().await;
        if replaced {
            let config = keys::store_config(&env, &plan.state_dir());
            let refused = store::Store::open(&config, &once.root, once.header().store.0).err();
            assert!(matches!(refused, Some(store::OpenError::WrongRoot)), "{when}: {refused:?}");
        }
        let outcome = running.recover(&key(&old), ROOT).await;
        assert_eq!(outcome.is_err(), replaced, "{when}: the blob is there, so the old key is spent");
        spent[usize::from(replaced)] += 1;
        drop(running);
    }
    assert!(spent.iter().all(|n| *n > 3), "cuts on both sides of the change were played: {spent:?}");
}

/// The same with the new key on a terminal, where the test has both: exactly one of them opens.
#[tokio::test]
async fn a_power_cut_at_a_confirmation_leaves_exactly_one_key() {
    let first = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let (mut plan, env) = recorded(&first, &clock, 7);
    plan.recovery = Some(RecoverySpec::Terminal);
    let ears = Ears::default();
    let mut running = up(plan, env, Box::new(ears.clone())).await.unwrap();
    let old = ears.key.lock().unwrap().take().unwrap();
    running.seal().await;
    let new = offered(running.recover(&key(&old), ROOT).await.unwrap());
    let begun = first.events();
    running.confirm_recovery(&key(&old), ROOT).await.unwrap();
    drop(running);
    let mut too_early = 0;
    for cut in cuts(&first, begun..=first.events()) {
        let second = testkit::CrashDisk::holding(&cut.image);
        let (mut plan, env) = next_boot(&second);
        plan.recovery = Some(RecoverySpec::Terminal);
        // Opened by the key alone: the source is not asked.
        OsDisk.remove_file(&plan.data_dir.join("software.key")).unwrap();
        let mut running = up(plan, env, Box::new(Quiet)).await.unwrap();
        let by_new = running.recover(&key(&new), ROOT).await;
        if let Err(halt) = &by_new {
            too_early += usize::from(halt.to_string().contains("was cut short before this key was in force"));
        }
        let by_new = by_new.is_ok();
        running.seal().await;
        let by_old = running.recover(&key(&old), ROOT).await.is_ok();
        assert!(by_new != by_old, "{cut}: new {by_new}, old {by_old}");
    }
    assert!(too_early > 0, "cuts between the slots and the store were played");
}

#[tokio::test]
async fn a_wrong_recovery_key_leaves_a_device_that_waits_for_its_source_as_it_was() {
    let mut device = Device::new();
    let (running, text) = device.made_with_a_key().await;
    running.shutdown().await;
    let source = device.plan.data_dir.join("software.key");
    let away = source.with_extension("away");
    OsDisk.rename(&source, &away, false).unwrap();
    let mut running = device.up().await;
    let stranger = RecoveryKey::generate(&SeededEntropy::new(99));
    for _ in 0..2 {
        let halt = running.recover(&stranger, ROOT).await.unwrap_err();
        assert!(halt.to_string().contains("is not the recovery key of this store"), "{halt}");
        assert!(matches!(running.state(), State::Releasing(_)), "{:?}", running.state());
    }
    OsDisk.rename(&away, &source, false).unwrap();
    device.clock.advance(Duration::from_secs(60));
    running.tick().await;
    assert_eq!(open(&running), BOTH, "with nobody there");
    running.seal().await;
    running.recover(&stranger, ROOT).await.unwrap_err();
    assert!(matches!(running.state(), State::Sealed), "{:?}", running.state());
    running.recover(&key(&text), ROOT).await.unwrap();
    assert_eq!(open(&running), BOTH);
}

/// A newer slot copy beside an older one is no sign by itself: the store says whether the new key came too early.
#[tokio::test]
async fn a_store_that_is_damaged_is_told_so_to_whoever_has_the_newest_recovery_key() {
    let mut device = Device::new();
    let (mut running, first) = device.made_with_a_key().await;
    running.seal().await;
    let new = offered(running.recover(&key(&first), ROOT).await.unwrap());
    let before = OsDisk.read(&device.state("slots.b"), 100_000).unwrap().to_vec();
    running.confirm_recovery(&key(&first), ROOT).await.unwrap();
    running.shutdown().await;
    OsDisk.replace(&device.state("slots.b"), &before, 0o600, None).unwrap();
    OsDisk.replace(&device.state("store.db"), b"junk", 0o600, None).unwrap();
    OsDisk.remove_file(&device.plan.data_dir.join("software.key")).unwrap();
    let mut running = device.up().await;
    let halt = running.recover(&key(&new), ROOT).await.unwrap_err();
    assert!(!halt.to_string().contains("before this key was in force"), "{halt}");
    assert!(!halt.hint().contains("take the key that it was to replace"), "{}", halt.hint());
}
