//! Threat a1: a name that leads elsewhere, by a poisoned hosts file or DNS answer. Who answers there is told from the
//! store by the pinned CA and the name in the certificate, before anything is sent.

use std::time::Duration;

use boot::driver::Note;
use boot::machine::State;
use testkit::OpenBao;

use crate::device::{BOTH, Device, POLICY, let_in, open};

/// The device's store; and a second, real one that does everything as the first, but for who it can show that it is.
async fn two(second_name: Option<&str>) -> (OpenBao, OpenBao, Device) {
    let mut bao = OpenBao::start();
    bao.make().await;
    let mut other = OpenBao::start();
    if let Some(name) = second_name {
        let address = other.address();
        drop(other);
        other = OpenBao::at(address, name);
    }
    other.make().await;
    let (role_id, secret_id) = let_in(&bao, POLICY).await;
    let device = Device::of(&bao, &role_id, &secret_id);
    (bao, other, device)
}

#[tokio::test]
async fn a1_a_server_of_another_ca_is_sent_nothing() {
    if testkit::is_skipped("clients") {
        return;
    }
    let (bao, other, mut device) = two(None).await;
    // The name leads to the other; what is believed stays as it was.
    let address = device.store().host.clone();
    device.store().host = other.address().ip().to_string();
    device.store().server_name = Some(address.clone());
    let mut running = device.up().await;
    refused(&device, &running);
    // It is asked again, for there is nobody who would start the device anew; and refused again.
    device.after(&mut running, Duration::from_secs(5)).await;
    refused(&device, &running);
    running.shutdown().await;
    assert!(!other.said().contains("approle"), "it was not asked to let us in");

    device.store().host = address;
    let running = device.up().await;
    assert_eq!(open(&running), BOTH, "the true one is let do its work: {:?}", device.complaints());
    drop(bao);
}

/// Of the same CA, and yet another server: a CA that serves more than the store.
#[tokio::test]
async fn a1_a_server_of_another_name_is_sent_nothing() {
    if testkit::is_skipped("clients") {
        return;
    }
    let (_bao, other, mut device) = two(Some("printer.site")).await;
    device.store().host = other.address().ip().to_string();
    device.store().ca = other.ca_file();
    let running = device.up().await;
    refused(&device, &running);
}

fn refused(device: &Device, running: &boot::driver::Running) {
    assert!(matches!(running.state(), State::Reaching(_)));
    assert_eq!(open(running), [""; 0]);
    let alarmed = device.heard(|n| matches!(n, Note::Alarm(text) if text.contains("is not the store")));
    assert_eq!(alarmed, 1, "{:?}", device.complaints());
}
