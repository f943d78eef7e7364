//! A recovery that makes slots for the hardware that is there now: power that is cut at each step, and another TPM.

use api::PeerAddress;

use super::*;
use crate::driver::Rotation;
use crate::plan::SourceSpec;

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

/// A board whose two key files are lost is opened by the recovery key, gets new ones, and its key is replaced. Whatever
/// the moment of an end: it starts by itself, or one of the two recovery keys opens it and the same command ends what
/// was begun; from then on it starts by itself.
#[tokio::test]
async fn an_end_at_any_moment_of_a_recovery_that_reseals_leaves_a_way_in_and_a_command_that_ends_it() {
    let disk = testkit::CrashDisk::new();
    let clock = Arc::new(FakeClock::at(0));
    let files = |plan: &Plan| ["one.key", "two.key"].map(|name| plan.data_dir.join(name));
    let start = |seed| {
        let (mut plan, env) = recorded(&disk, &clock, seed);
        plan.recovery = Some(RecoverySpec::Terminal);
        plan.sources = files(&plan).map(|file| SourceSpec::Software { file }).into();
        (plan, env)
    };
    let (plan, env) = start(7);
    let ears = Ears::default();
    up(plan.clone(), env, Box::new(ears.clone())).await.unwrap().shutdown().await;
    let text = ears.key.lock().unwrap().take().unwrap();
    let old = || RecoveryKey::parse(&text).unwrap();
    for file in files(&plan) {
        disk.remove_file(&file).unwrap();
    }
    disk.sync_dir(&plan.data_dir).unwrap();
    let (_, env) = start(8);
    let mut running = up(plan.clone(), env, Box::new(Quiet)).await.unwrap();
    let begun = disk.events();
    let (rotation, change) = running.recover_and(&old(), ROOT, true).await.unwrap();
    assert_eq!((change.as_ref().unwrap().added.len(), change.unwrap().told), (2, vec![]));
    let Rotation::Offered(new) = rotation else { panic!("{rotation:?}") };
    let told = disk.events();
    running.confirm_recovery(&old(), ROOT).await.unwrap();
    let confirmed = disk.events();
    drop(running);

    let (mut by_itself, mut again, mut moved) = (0, 0, 0);
    for end in ends(&disk, begun..=disk.events()).filter(|end| !end.is_spare()) {
        let (at, when) = (end.at, format!("{end} of {begun}, {told}, {confirmed}"));
        end.restore(&disk, &plan);
        let up = |seed: usize| {
            let (plan, env) = start((seed + at) as u64);
            up(plan, unrecorded(env), Box::new(Quiet))
        };
        let mut running = up(1000).await.unwrap();
        if open(&running) == BOTH {
            by_itself += 1;
            running.seal().await;
        } else {
            assert!(at < told, "{when}: what was told to be there opens: {:?}", running.halted());
            again += 1;
        }
        let key = if running.recover(&old(), ROOT).await.is_ok() {
            assert!(at < confirmed, "{when}: the used key opens it still");
            old()
        } else {
            assert!(at > told, "{when}: the used key was replaced before the new one was shown");
            RecoveryKey::parse(&new).unwrap()
        };
        running.seal().await;
        let (_, change) = running.recover_and(&key, ROOT, true).await.unwrap_or_else(|e| panic!("{when}: {e}"));
        // A key file without its slot is never displaced: it could be another store's. What is said is done.
        for told in change.unwrap().told {
            assert!(told.contains("move the file away if no store needs it"), "{when}: {told}");
            let file = files(&plan).into_iter().find(|f| told.contains(f.to_str().unwrap())).unwrap();
            OsDisk.remove_file(&file).unwrap();
            moved += 1;
            running.seal().await;
            let (_, change) = running.recover_and(&key, ROOT, true).await.unwrap();
            assert_eq!(change.unwrap().told, [""; 0], "{when}");
        }
        running.shutdown().await;
        for file in files(&plan).into_iter().take(at % 3) {
            let aside = file.with_extension("aside");
            OsDisk.rename(&file, &aside, false).unwrap();
            assert_eq!(open(&up(2000).await.unwrap()), BOTH, "{when}: by the other alone");
            OsDisk.rename(&aside, &file, false).unwrap();
        }
    }
    assert!(by_itself > 20 && again > 20 && moved > 2, "{by_itself} {again} {moved}");
}

/// Another TPM behind the path, with the registers as they were. While the store is open its slot is not made anew with
/// it; whoever has the recovery key may say that it is to be so, and is told both names.
#[tokio::test]
async fn another_tpm_takes_the_place_of_the_slots_by_the_recovery_key_alone() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let (tpm, other) = (testkit::Swtpm::start(), testkit::Swtpm::start());
    for tpm in [&tpm, &other] {
        tpm.extend(7, 0x77);
    }
    let at = |tpm: &testkit::Swtpm| vec![crate::testing::counted_tpm(&tpm.socket(), 8)];
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.plan.sources = at(&tpm);
    let mut running = device.up().await;
    let key = device.ears.key.lock().unwrap().take().unwrap();
    let mut elsewhere = device.plan.clone();
    elsewhere.sources = at(&other);
    running.adopt_sources(&elsewhere);
    let refused = running.reseal_slots(Some(1), ROOT).await.unwrap_err().to_string();
    assert!(refused.contains("is not the one that the slot was made with"), "{refused}");
    assert_eq!(running.slots().await.unwrap().slots.iter().map(|s| s.id).collect::<Vec<_>>(), [1, 2]);
    running.shutdown().await;

    device.plan = elsewhere;
    let mut running = device.up().await;
    let (_, change) = running.recover_and(&RecoveryKey::parse(&key).unwrap(), ROOT, true).await.unwrap();
    let change = change.unwrap();
    let [moved] = &change.moved[..] else { panic!("{change:?}") };
    assert!(moved.starts_with("slot 3 hangs on the TPM with storage key ") && moved.contains("; before it was "));
    assert_eq!((change.added, change.removed, change.told), (vec![3], vec![1], vec![]));
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Alarm(t) if t == moved)), 1);
}

/// The key file of a store is lost, and the board has a TPM: the store that the recovery key has opened gets a slot of
/// the TPM, loses that of the file, and starts by itself from then on, as often in a boot as was agreed.
#[tokio::test]
async fn a_tpm_is_added_to_a_store_that_the_recovery_key_has_opened() {
    if testkit::is_skipped("swtpm") {
        return;
    }
    let mut tpm = testkit::Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    device.up().await.shutdown().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    OsDisk.remove_file(&device.plan.data_dir.join("software.key")).unwrap();
    let mut running = device.up().await;
    assert!(open(&running).is_empty());
    running.recover(&key, ROOT).await.unwrap();
    device.plan.sources = vec![crate::testing::counted_tpm(&tpm.socket(), 2)];
    running.adopt_sources(&device.plan);
    assert_eq!(running.add_slots(None, ROOT).await.unwrap().added, [3]);
    assert_eq!(running.remove_slot(1, ROOT).await.unwrap().removed, [1]);
    running.shutdown().await;

    for releases_left in [2, 1, 0] {
        let running = device.up().await;
        assert_eq!(open(&running) == BOTH, releases_left > 0, "{releases_left}: {:?}", running.halted());
        running.shutdown().await;
    }
    tpm.reboot();
    tpm.extend(7, 0x77);
    device.clock.reboot();
    assert_eq!(open(&device.up().await), BOTH);
}
