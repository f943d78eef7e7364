//! A recovery that makes slots for the hardware that is there now: power that is cut at each step.

use api::PeerAddress;

use super::*;
use crate::driver::Rotation;
use crate::plan::SourceSpec;

const ROOT: PeerAddress = PeerAddress::Unix { uid: 0, pid: 77 };

/// A board whose two key files are lost is opened by the recovery key, gets new ones, and its key is replaced. Whatever the moment of an
/// end: it starts by itself, or one of the two recovery keys opens it and the same command ends what was begun; from then on it starts by
/// itself.
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
    for at in begun..=disk.events() {
        for (kill, image) in ends(&disk, at) {
            // A sync changes nothing that a kill leaves: some of them are enough.
            if kill && at % 4 != 0 {
                continue;
            }
            let when = format!("kill {kill}, event {at} of {begun}, {told}, {confirmed}");
            disk.restore(&image);
            if !kill {
                OsDisk.remove_tree(&plan.run_dir).unwrap();
            }
            let up = |seed: usize| {
                let (plan, env) = start((seed + at) as u64);
                up(plan, Environment { disk: Arc::new(OsDisk), vfs: None, ..env }, Box::new(Quiet))
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
    }
    assert!(by_itself > 20 && again > 20 && moved > 2, "{by_itself} {again} {moved}");
}
