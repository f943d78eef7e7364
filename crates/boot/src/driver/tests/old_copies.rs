//! Whoever could once open the store, and has a copy of its directory from then: what that opens of what came since.

use std::collections::BTreeMap;

use api::PeerAddress;
use pipeline::audit::{Alarm, ChainKeys, verify};
use seal::{SlotFiles, SlotId, SlotKek, SourceKind};

use super::*;
use crate::driver::{audit_keys, kept_keks};
use crate::plan::SourceSpec;

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

fn files_of(plan: &Plan, names: &[&str]) -> Vec<SourceSpec> {
    names.iter().map(|name| SourceSpec::Software { file: plan.data_dir.join(name) }).collect()
}

/// The KEKs of all slots, as whoever opens the store now reads them.
async fn known(running: &Running) -> BTreeMap<u16, Vec<u8>> {
    let store = running.store().unwrap();
    let mut known = BTreeMap::new();
    for name in store.list(&kept_keks::dir()).await.unwrap() {
        let slot = name.parse().unwrap();
        let entry = store.get(&kept_keks::path(slot)).await.unwrap().unwrap();
        known.insert(slot, entry.value.expose().to_vec());
    }
    known
}

/// Which of those KEKs open a slot of today.
fn opens_today(plan: &Plan, known: &BTreeMap<u16, Vec<u8>>) -> Vec<u16> {
    let set = SlotFiles::new(&OsDisk, plan.state_dir()).read().unwrap().set;
    let opens = |(slot, bytes): &(&u16, &Vec<u8>)| {
        let kek = secret::Kek::new(secret::Secret::init_with(|k: &mut [u8; 32]| k.copy_from_slice(bytes)));
        set.unlock_by(SlotKek { slot: SlotId(**slot), kek }).is_some()
    };
    known.iter().filter(opens).map(|(slot, _)| *slot).collect()
}

async fn due(running: &Running) -> Vec<u16> {
    kept_keks::due(running.store().unwrap()).await.unwrap().into_iter().map(|slot| slot.0).collect()
}

#[tokio::test]
async fn a_removed_source_and_an_old_copy_open_nothing_that_came_since() {
    let mut device = Device::new();
    device.plan.sources = files_of(&device.plan, &["one.key", "two.key", "three.key"]);
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let once = known(&running).await;
    assert_eq!(once.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);

    // While the first goes the third cannot be asked, as one that counts its releases is not.
    let (three, away) = (device.plan.data_dir.join("three.key"), device.plan.data_dir.join("three.away"));
    OsDisk.rename(&three, &away, false).unwrap();
    running.remove_slot(1, ROOT).await.unwrap();
    assert_eq!(opens_today(&device.plan, &once), [3, 4], "what could be asked has another KEK");
    assert_eq!(due(&running).await, [3, 4]);
    let list = running.slots().await.unwrap();
    let told: Vec<u16> =
        list.slots.iter().filter(|s| s.facts.iter().any(|(n, _)| n == "older copies")).map(|s| s.id).collect();
    assert_eq!(told, [3, 4]);
    running.shutdown().await;

    // A start by another slot changes nothing; one by that slot does.
    OsDisk.rename(&away, &three, false).unwrap();
    for (by, left) in [("two.key", vec![3, 4]), ("three.key", vec![4]), ("three.key", vec![4])] {
        device.plan.sources = files_of(&device.plan, &[by]);
        let running = device.up().await;
        assert_eq!((open(&running), due(&running).await), (BOTH.map(String::from).to_vec(), left.clone()), "{by}");
        assert_eq!(opens_today(&device.plan, &once), left);
        let now = known(&running).await;
        assert_eq!(opens_today(&device.plan, &now), [2, 3, 4], "and all KEKs that are kept open theirs");
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_used_recovery_key_and_an_old_copy_open_nothing_that_came_since() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let text = device.ears.key.lock().unwrap().take().unwrap();
    let key = RecoveryKey::parse(&text).unwrap();
    let (once, before) = (known(&running).await, SlotFiles::new(&OsDisk, device.plan.state_dir()).read().unwrap().set);
    running.rekey(&key, ROOT).await.unwrap();
    running.confirm_recovery(&key, ROOT).await.unwrap();
    assert_eq!(due(&running).await, [1]);
    running.shutdown().await;

    // What the used key opens there is not the root key of the store any more.
    let opened = before.unlock(SourceKind::Recovery, key.ikm().unwrap()).unwrap();
    let config = crate::driver::keys::store_config(&device.environment(), &device.plan.state_dir());
    let refused = store::Store::open(&config, &opened.root, opened.header().store.0).err();
    assert!(matches!(refused, Some(store::OpenError::WrongRoot)), "{refused:?}");

    // Nor, from the next start by the source on, is what it could read there.
    let running = device.up().await;
    assert_eq!((open(&running), due(&running).await), (BOTH.map(String::from).to_vec(), vec![]));
    assert_eq!(opens_today(&device.plan, &once), [0; 0]);
    running.shutdown().await;
}

/// The audit's key of then opens nothing that came since, and the ring of then is told where it is put back.
#[tokio::test]
async fn an_old_copy_has_no_key_of_the_audit_and_its_ring_is_told() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    let then = ChainKeys::new(audit_keys::today(running.store().unwrap()).unwrap());
    let ring = files(&device.state("audit"));
    running.rekey(&key, ROOT).await.unwrap();
    running.confirm_recovery(&key, ROOT).await.unwrap();
    let keys = chain(&running).await;
    running.shutdown().await;

    let proven = |keys: &ChainKeys| verify(&OsDisk, &device.state("audit"), keys, |_| {}).unwrap();
    let (now, by_the_old) = (proven(&keys), proven(&then));
    assert_eq!(now.alarms, []);
    assert!(keys.begins() > 0 && by_the_old.last_sequence < now.last_sequence);
    assert!(by_the_old.alarms.iter().any(|a| matches!(a, Alarm::SegmentForeign { .. })), "{by_the_old:?}");

    for (path, bytes) in &ring {
        OsDisk.replace(path, bytes, 0o600, None).unwrap();
    }
    let running = device.up().await;
    let told = device.ears.heard(|n| matches!(n, Note::Alarm(t) if t.contains("audit segment")));
    assert!(told > 0, "a ring from before its key was replaced");
    assert_eq!(open(&running), BOTH);
    running.shutdown().await;
}

/// A fault of a disk between the turn and its note: the former key counts until it works again, and not until a start.
#[tokio::test]
async fn a_turn_of_the_audit_that_was_not_noted_is_noted_by_upkeep() {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    let former = audit_keys::Former::of(running.store().unwrap()).await.unwrap();
    let open_question = former.ending(running.store().unwrap()).unwrap();
    running.rekey(&key, ROOT).await.unwrap();
    running.confirm_recovery(&key, ROOT).await.unwrap();
    let store = running.store().unwrap().clone();
    store.commit(store::Batch { conds: Vec::new(), ops: vec![open_question] }).await.unwrap();
    assert!(audit_keys::Former::of(&store).await.unwrap().is_turning());
    running.hands.audit_turns = true;
    running.upkeep(device.clock.boottime()).await;
    assert!(!running.hands.audit_turns);
    let keys = chain(&running).await;
    drop(store);
    running.shutdown().await;
    assert_eq!(verify(&OsDisk, &device.state("audit"), &keys, |_| {}).unwrap().alarms, []);
}

/// Power is cut after every event of a start that gives its slot another KEK: whatever the moment, the next one opens,
/// and the slot has another KEK after it.
#[tokio::test]
async fn a_power_cut_while_a_slot_gets_another_kek_leaves_one_that_opens() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let start = |disk: &testkit::CrashDisk, seed| {
        let (mut plan, env) = recorded(disk, &clock, seed);
        plan.recovery = Some(RecoverySpec::Terminal);
        (plan, env)
    };
    let (plan, env) = start(&disk, 7);
    let ears = Ears::default();
    let mut running = up(plan.clone(), env, Box::new(ears.clone())).await.unwrap();
    let key = RecoveryKey::parse(&ears.key.lock().unwrap().take().unwrap()).unwrap();
    let once = known(&running).await;
    running.rekey(&key, ROOT).await.unwrap();
    running.confirm_recovery(&key, ROOT).await.unwrap();
    assert_eq!(due(&running).await, [1]);
    running.shutdown().await;
    let begun = disk.events();
    let (plan, env) = start(&disk, 8);
    let running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    assert!(due(&running).await.is_empty());
    drop(running);

    let (mut still_due, mut stepped_back) = (0, 0);
    for end in ends(&disk, begun..=disk.events()) {
        let (at, when) = (end.at, format!("{end} of {begun}"));
        disk.restore(&end.image);
        OsDisk.remove_tree(&plan.run_dir).unwrap();
        still_due += usize::from(!opens_today(&plan, &once).is_empty());
        let (plan, env) = start(&disk, 1000 + at as u64);
        let env = unrecorded(env);
        let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
        if !due(&running).await.is_empty() {
            // It has stepped back to the slots of before, which the files have again only now.
            stepped_back += 1;
            running.shutdown().await;
            let (plan, env) = start(&disk, 5000 + at as u64);
            running = up(plan, unrecorded(env), Box::new(Quiet)).await.unwrap();
        }
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()), "{when}");
        assert_eq!((due(&running).await, opens_today(&plan, &once)), (vec![], vec![]), "{when}");
        let now = known(&running).await;
        assert_eq!(opens_today(&plan, &now), [1, 3], "{when}: all KEKs that are kept open theirs");
        running.shutdown().await;
    }
    assert!(
        still_due > 2 && stepped_back > 0,
        "cuts before and within the change were played: {still_due}, {stepped_back}"
    );
}
