//! A device that is a guest in a store: provisioned, restarted, booted, kept; and what it does when the store is not
//! there.

use std::time::Duration;

use api::Operation;
use boot::driver::Note;
use boot::machine::State;
use host::{Disk, OsDisk};
use serde_json::{Value, json};
use testkit::OpenBao;

use crate::device::{BOTH, Device, POLICY, let_in, open};

/// A store that was made, with a way in for this device; none where `clients` is skipped.
async fn made() -> Option<(OpenBao, Device)> {
    if testkit::is_skipped("clients") {
        return None;
    }
    let mut bao = OpenBao::start();
    bao.make().await;
    let (role_id, secret_id) = let_in(&bao, POLICY).await;
    let device = Device::of(&bao, &role_id, &secret_id);
    Some((bao, device))
}

#[tokio::test]
async fn the_same_plan_is_provisioned_in_openbao() {
    let Some((bao, mut device)) = made().await else { return };
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    assert_eq!(device.complaints(), [""; 0]);

    let (sensor, uploader) = (device.token("sensor"), device.token("uploader"));
    let ask =
        async |token: &str, operation, path: &str, body: Value| bao.call(operation, path, Some(token), body).await.0;
    let own = "secret/edgex/sensor/x";
    assert_eq!(ask(&sensor, Operation::Write, own, json!({ "a": "1" })).await, 204);
    assert_eq!(ask(&sensor, Operation::Read, own, Value::Null).await, 200);
    assert_eq!(ask(&uploader, Operation::Read, own, Value::Null).await, 403, "not its own");
    assert_eq!(ask(&sensor, Operation::Read, "secret/edgex/sensor/redisdb", Value::Null).await, 200);
    assert_eq!(ask(&sensor, Operation::Read, "identity/oidc/token/sensor", Value::Null).await, 200);
    let (_, own) = bao.call(Operation::Read, "auth/token/lookup-self", Some(&sensor), Value::Null).await;
    assert_eq!(own["orphan"], true, "it does not end with ours");
    assert_eq!(own["period"], 3600);

    // Nothing of ours but receipts is on the disk, and no listener but the gates' socket.
    let mut kept = OsDisk.list(&device.plan.data_dir).unwrap();
    kept.sort();
    assert_eq!(kept, ["lock", "receipts"]);
    assert!(running.core().is_none() && running.store().is_none());
}

#[tokio::test]
async fn a_restart_within_a_boot_keeps_every_token() {
    let Some((bao, mut device)) = made().await else { return };
    let running = device.up().await;
    let before = device.token("sensor");
    // As after a crash: dropped as it stands.
    drop(running);
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    assert_eq!(device.heard(|n| matches!(n, Note::Token { issued: true, .. })), 0);
    assert_eq!(device.token("sensor"), before);
    assert!(bao.knows(&before).await);
}

/// The store outlives the boot, and with it every token of before: each ends when the new one is receipted, none
/// before.
#[tokio::test]
async fn a_new_boot_issues_new_tokens_before_the_old_ones_end() {
    let Some((bao, mut device)) = made().await else { return };
    device.up().await.shutdown().await;
    let old = [device.token("sensor"), device.token("uploader")];
    device.clock.reboot();
    OsDisk.remove_tree(&device.plan.run_dir).unwrap();

    // No receipt can be kept: the services get nothing that would be forgotten, and keep what they have.
    let receipts = device.plan.data_dir.join("receipts");
    OsDisk.rename(&receipts, &device.path("aside"), false).unwrap();
    OsDisk.write_new(&receipts, b"", 0o600, None).unwrap();
    let running = device.up().await;
    assert_eq!(open(&running), [""; 0]);
    assert!(bao.knows(&old[0]).await && bao.knows(&old[1]).await);
    running.shutdown().await;
    OsDisk.remove_file(&receipts).unwrap();
    OsDisk.rename(&device.path("aside"), &receipts, false).unwrap();

    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    for (old, service) in old.iter().zip(["sensor", "uploader"]) {
        assert!(!bao.knows(old).await, "{service}: of the boot before");
        assert!(bao.knows(&device.token(service)).await, "{service}");
    }
}

#[tokio::test]
async fn a_service_that_was_off_for_200_hours_finds_a_live_token() {
    let Some((bao, mut device)) = made().await else { return };
    let mut running = device.up().await;
    let token = device.token("uploader");
    for _ in 0..200 * 3 {
        device.after(&mut running, Duration::from_secs(20 * 60)).await;
    }
    assert_eq!(device.token("uploader"), token);
    assert!(bao.knows(&token).await);
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    // Each turn renewed both services' tokens and ours, in the store and not in our books alone.
    let renewed = bao.call(Operation::Read, "auth/token/lookup-self", Some(&token), Value::Null).await.1;
    assert!(renewed["last_renewal_time"].as_u64().is_some_and(|at| at > 0), "{renewed}");
}

#[tokio::test]
async fn a_token_that_was_revoked_or_whose_file_is_gone_is_issued_anew() {
    let Some((bao, mut device)) = made().await else { return };
    let mut running = device.up().await;
    let revoked = device.token("sensor");
    bao.as_root(Operation::Write, "auth/token/revoke", json!({ "token": revoked })).await;
    device.after(&mut running, Duration::from_secs(20 * 60)).await;
    assert_ne!(device.token("sensor"), revoked);
    assert!(bao.knows(&device.token("sensor")).await);
    assert_eq!(device.heard(|n| matches!(n, Note::GateShut { .. })), 2);

    let lost = device.token("uploader");
    OsDisk.remove_tree(&running.token_directory(&"uploader".parse().unwrap())).unwrap();
    device.after(&mut running, Duration::from_secs(1)).await;
    assert!(!bao.knows(&lost).await, "the lost one ends when the new one is receipted");
    assert!(bao.knows(&device.token("uploader")).await);
    assert_eq!(open(&running), BOTH);
}

/// What a root token may do cannot be written down: it is not taken, and the device waits for a better one.
#[tokio::test]
async fn a_root_token_is_not_taken() {
    let Some((bao, mut device)) = made().await else { return };
    device.comes_by(bao.root());
    let running = device.up().await;
    assert_eq!(open(&running), [""; 0]);
    assert!(running.away().is_some_and(|why| why.contains("is a root token")), "{:?}", running.away());
    let mounts = bao.as_root(Operation::Read, "sys/mounts", Value::Null).await;
    assert!(mounts.get("secret/").is_none(), "nothing was made with it");
}

/// Our own token ends: a login gives another, and no service's token is taken for dead meanwhile.
#[tokio::test]
async fn when_our_token_is_revoked_we_log_in_again_and_no_service_notices() {
    let Some((bao, mut device)) = made().await else { return };
    let mut running = device.up().await;
    let before = [device.token("sensor"), device.token("uploader")];
    let ours = bao.as_root(Operation::List, "auth/token/accessors", Value::Null).await;
    for accessor in ours["keys"].as_array().unwrap() {
        let body = json!({ "accessor": accessor });
        let looked = bao.as_root(Operation::Write, "auth/token/lookup-accessor", body.clone()).await;
        if looked["path"] == "auth/approle/login" {
            bao.as_root(Operation::Write, "auth/token/revoke-accessor", body).await;
        }
    }
    device.after(&mut running, Duration::from_secs(20 * 60)).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    assert_eq!([device.token("sensor"), device.token("uploader")], before);
    assert_eq!(device.heard(|n| matches!(n, Note::Token { issued: true, .. })), 2, "those of the start alone");
}

/// EdgeX issue 1944: the store is sealed, or dies and comes back sealed. The gates say so, and open again by what is
/// found there.
#[tokio::test]
async fn gates_shut_while_the_store_is_sealed_or_away_and_open_again() {
    let Some((mut bao, mut device)) = made().await else { return };
    let mut running = device.up().await;
    let before = device.token("sensor");
    bao.as_root(Operation::Write, "sys/seal", Value::Null).await;
    device.after(&mut running, Duration::from_secs(1)).await;
    assert_eq!(open(&running), [""; 0]);
    assert!(matches!(running.state(), State::Reaching(_)));
    device.after(&mut running, Duration::from_secs(5)).await;
    assert_eq!(open(&running), [""; 0], "a guest unseals nothing");
    bao.unseal().await;
    device.after(&mut running, Duration::from_secs(5)).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());

    bao.kill();
    device.after(&mut running, Duration::from_secs(1)).await;
    device.after(&mut running, Duration::from_secs(1)).await;
    assert_eq!(open(&running), [""; 0]);
    bao.start_again();
    bao.until(&[503]).await;
    bao.unseal().await;
    device.after(&mut running, Duration::from_secs(5)).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
    assert_eq!(device.token("sensor"), before, "nobody has to read anything again");
    assert!(bao.knows(&before).await);
}

/// The store is there before us, after us, or not yet unsealed: the device waits, and says for what.
#[tokio::test]
async fn a_store_that_comes_later_is_waited_for() {
    let Some((mut bao, mut device)) = made().await else { return };
    bao.kill();
    let mut running = device.up().await;
    assert!(matches!(running.state(), State::Reaching(_)));
    assert!(running.away().is_some_and(|why| why.contains("does not answer")), "{:?}", running.away());
    assert_eq!(device.complaints().len(), 1, "{:?}", device.complaints());
    device.after(&mut running, Duration::from_secs(5)).await;
    assert_eq!(device.complaints().len(), 1, "told when it changes, not at each look");
    bao.start_again();
    bao.until(&[503]).await;
    device.after(&mut running, Duration::from_secs(5)).await;
    assert!(running.away().is_some_and(|why| why.contains("it is sealed")), "{:?}", running.away());
    bao.unseal().await;
    device.after(&mut running, Duration::from_secs(5)).await;
    assert_eq!(open(&running), BOTH, "{:?}", device.complaints());
}
