//! A device that keeps a store in another process: makes it, unseals it, and unseals it again.

use std::time::{Duration, Instant};

use api::Operation;
use boot::driver::Running;
use boot::machine::{Halt, State};
use boot::plan::{RecoverySpec, Reunseal};
use host::{Disk, OsDisk};
use serde_json::{Value, json};
use testkit::OpenBao;

use crate::device::{BOTH, Device, open};

/// Until the gates are open, or nothing can open them; OpenBao elects itself meanwhile, in time of its own.
async fn settled(device: &Device, running: &mut Running) {
    let began = Instant::now();
    while open(running) != BOTH && running.halted().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}: {:?}", running.state(), device.complaints());
        device.after(running, Duration::from_millis(40)).await;
    }
}

/// A store that was made and serves, and the device that keeps it; none where `clients` is skipped.
async fn served(reunseal: Reunseal) -> Option<(OpenBao, Device, Running)> {
    if testkit::is_skipped("clients") {
        return None;
    }
    let bao = OpenBao::start();
    let mut device = Device::keeping(&bao, reunseal);
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    Some((bao, device, running))
}

/// Killed and started again, as after a crash; on return it answers, and is sealed.
async fn crashed(bao: &mut OpenBao, device: &Device, running: &mut Running) {
    bao.kill();
    for _ in 0..2 {
        device.after(running, Duration::from_secs(1)).await;
    }
    assert_eq!(open(running), [""; 0]);
    bao.start_again();
    bao.until(&[503]).await;
}

#[tokio::test]
async fn a_store_is_made_unsealed_and_provisioned_by_nobody_else() {
    let Some((bao, device, running)) = served(Reunseal::Always).await else { return };
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    let token = device.token("sensor");
    assert!(bao.knows(&token).await);

    // Our own token has the policy and nothing more, and no root token is left: it may not even look for one.
    let ours = OsDisk.read(&device.plan.run_dir.join("store-token"), 4096).unwrap();
    let ours = std::str::from_utf8(&ours).unwrap();
    let (_, own) = bao.call(Operation::Read, "auth/token/lookup-self", Some(ours), Value::Null).await;
    assert_eq!(own["policies"], json!(["edgekeep"]));
    assert_eq!(bao.call(Operation::List, "auth/token/accessors", Some(ours), Value::Null).await.0, 403);

    let mut kept = OsDisk.list(&device.plan.state_dir()).unwrap();
    kept.sort();
    let files = [
        ".edgekeep-custody.lock",
        ".edgekeep-init.lock",
        ".edgekeep-unsealed",
        "kdf-salt.dat",
        "resp-init.json",
        "slots.a",
        "slots.b",
    ];
    assert_eq!(kept, files);
    let shares = OsDisk.read(&device.plan.state_dir().join("resp-init.json"), 1 << 20).unwrap();
    let shares: Value = serde_json::from_slice(&shares).unwrap();
    assert_eq!(shares["encrypted_keys"].as_array().map(Vec::len), Some(5));
    assert!(shares.get("keys").is_none() && shares.get("root_token").is_none(), "{shares}");
}

/// EdgeX issue 1944: a store that crashes is unsealed again, by itself; nobody's token changes.
#[tokio::test]
async fn a_store_that_crashes_or_is_sealed_is_unsealed_again() {
    let Some((mut bao, device, mut running)) = served(Reunseal::Always).await else { return };
    let token = device.token("sensor");
    for _ in 0..2 {
        crashed(&mut bao, &device, &mut running).await;
        settled(&device, &mut running).await;
        assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
        assert_eq!(device.token("sensor"), token);
        assert!(bao.knows(&token).await);
    }
}

#[tokio::test]
async fn once_per_boot_a_store_that_crashes_stays_sealed_until_the_next_boot() {
    let Some((mut bao, mut device, mut running)) = served(Reunseal::OncePerBoot).await else { return };
    crashed(&mut bao, &device, &mut running).await;
    settled(&device, &mut running).await;
    assert!(running.halted().is_some_and(|h| h.to_string().contains("once in this boot")), "{:?}", running.halted());
    assert_eq!(bao.health().await, Some(503));
    // A restart of edgekeep is no restart of the device.
    drop(running);
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    assert!(running.halted().is_some());
    assert_eq!(bao.health().await, Some(503));
    drop(running);
    device.clock.reboot();
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
}

/// Within a boot a restart needs neither shares nor the key source, which may count what it gives.
#[tokio::test]
async fn a_restart_beside_an_open_store_asks_for_no_key() {
    let Some((_bao, mut device, running)) = served(Reunseal::Always).await else { return };
    let token = device.token("sensor");
    drop(running);
    OsDisk.remove_file(&device.path("device.key")).unwrap();
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    assert_eq!(device.token("sensor"), token);
    drop(running);
    // In the next boot its token is gone with the tmpfs, and there is no way around the source.
    device.clock.reboot();
    OsDisk.remove_tree(&device.plan.run_dir).unwrap();
    let running = device.up().await;
    assert!(running.halted().is_some() || !matches!(running.state(), State::Serving(_)), "{:?}", running.state());
    assert_eq!(open(&running), [""; 0]);
}

#[tokio::test]
async fn shares_that_are_gone_and_a_store_that_was_replaced_are_refused() {
    let Some((mut bao, mut device, running)) = served(Reunseal::Always).await else { return };
    running.shutdown().await;
    OsDisk.remove_tree(&device.plan.run_dir).unwrap();

    // An empty store in the place of ours: it is not made anew, for it would be another's.
    bao.wipe();
    bao.start_again();
    bao.until(&[501]).await;
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    assert!(
        running.halted().is_some_and(|h| h.to_string().contains("the key shares of another")),
        "{:?}",
        running.halted()
    );
    assert_eq!(bao.health().await, Some(501), "it was not made");
    running.shutdown().await;

    OsDisk.remove_file(&device.plan.state_dir().join("resp-init.json")).unwrap();
    let running = device.up().await;
    assert_eq!(running.halted(), Some(&Halt::SharesMissing));
    assert_eq!(bao.health().await, Some(501));
}

/// The source is lost while the store is sealed: the recovery key opens the slots, and with them the shares.
#[tokio::test]
async fn the_recovery_key_opens_the_store_of_a_device_whose_source_is_lost() {
    if testkit::is_skipped("clients") {
        return;
    }
    let mut bao = OpenBao::start();
    let mut device = Device::keeping(&bao, Reunseal::Always);
    let stick = tempfile::tempdir_in("/tmp").unwrap();
    let file = stick.path().join("recovery.key");
    device.plan.recovery = Some(RecoverySpec::File(file.clone()));
    let mut running = device.up().await;
    settled(&device, &mut running).await;
    crashed(&mut bao, &device, &mut running).await;
    running.shutdown().await;
    OsDisk.remove_file(&device.path("device.key")).unwrap();
    OsDisk.remove_tree(&device.plan.run_dir).unwrap();

    let mut running = device.up().await;
    assert_eq!(open(&running), [""; 0]);
    let text = OsDisk.read(&file, 4096).unwrap();
    let key = seal::RecoveryKey::parse(std::str::from_utf8(&text).unwrap().trim()).unwrap();
    let rotation = running.recover(&key, api::PeerAddress::Internal).await.unwrap();
    assert!(
        matches!(rotation, boot::driver::Rotation::Kept(_)),
        "it opens slots; nothing of the store changes with it"
    );
    settled(&device, &mut running).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
}
