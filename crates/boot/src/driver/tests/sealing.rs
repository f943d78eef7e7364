//! A seal that a request asks for: what is shut when its reply goes, and what follows.

use std::collections::BTreeSet;

use super::*;
use crate::gate::Evidence;

/// A device that serves, and a root token of its store.
async fn with_root() -> (Device, Running, Token) {
    let mut device = Device::new();
    device.plan.recovery = Some(RecoverySpec::Terminal);
    let mut running = device.up().await;
    let key = RecoveryKey::parse(&device.ears.key.lock().unwrap().take().unwrap()).unwrap();
    let made = running.generate_root(&key, api::Ttl::seconds(600), api::PeerAddress::Internal).await;
    let root = made.unwrap().0.client_token;
    assert_eq!(open(&running), BOTH);
    (device, running, root)
}

#[tokio::test(start_paused = true)]
async fn the_gates_are_shut_when_the_reply_to_a_seal_goes() {
    let (device, mut running, root) = with_root().await;
    assert_eq!(ask(&running, &root, Operation::Write, "sys/seal", "").await, Status::NO_CONTENT);
    assert!(open(&running).is_empty(), "before the device itself has done anything");
    // The rest at once: no time passes until then.
    let before = tokio::time::Instant::now();
    running.wait().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    running.tick().await;
    assert!(matches!(running.state(), State::Sealed) && running.core().is_none());
    assert_eq!(device.ears.heard(|n| matches!(n, Note::GateShut { .. })), 2, "and said so");
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
}

/// What had begun before the seal ends after it, and would open a gate.
#[tokio::test]
async fn a_gate_that_a_seal_has_shut_is_not_opened_by_what_was_under_way() {
    let (_device, mut running, root) = with_root().await;
    assert_eq!(ask(&running, &root, Operation::Write, "sys/seal", "").await, Status::NO_CONTENT);
    let all: BTreeSet<_> = running.plan().gates.iter().map(|gate| gate.name.clone()).collect();
    running.set_gates(&all, Some(Evidence { ca: [1; 32], receipts: [2; 32] })).await;
    assert!(open(&running).is_empty());
}

#[tokio::test]
async fn a_device_that_is_sealed_while_it_waits_for_its_source_stays_so_when_that_is_back() {
    let mut device = Device::new();
    device.up().await.shutdown().await;
    let key = device.plan.data_dir.join("software.key");
    let away = key.with_extension("away");
    OsDisk.rename(&key, &away, false).unwrap();
    let mut running = device.up().await;
    assert!(matches!(running.state(), State::Releasing(_)), "{:?}", running.state());
    running.seal().await;
    OsDisk.rename(&away, &key, false).unwrap();
    for _ in 0..3 {
        device.clock.advance(Duration::from_secs(60));
        running.tick().await;
    }
    assert!(matches!(running.state(), State::Sealed) && open(&running).is_empty(), "{:?}", running.state());
    running.unseal().await;
    assert_eq!(open(&running), BOTH);
}
