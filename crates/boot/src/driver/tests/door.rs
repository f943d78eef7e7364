//! The gates' socket belongs to the edgekeep that runs, whatever others start beside it.

use super::*;
use crate::gate::{GateState, Trust, ask as ask_gate};

/// What the socket says of the last gate.
async fn is_open(device: &Device) -> bool {
    let us = rustix::process::geteuid().as_raw();
    let trust = Trust { boot: device.clock.boot_id(), uid: us, ca: None };
    let answer = ask_gate(&device.plan.listen.gate_socket, &"ready-to-run".parse().unwrap(), &trust).await;
    matches!(answer.unwrap().state, GateState::Open(_))
}

#[tokio::test]
async fn a_second_edgekeep_in_one_run_directory_takes_nothing_from_the_first() {
    let mut first = Device::new();
    let running = first.up().await;
    let mut second = Device::new();
    second.plan.run_dir.clone_from(&first.plan.run_dir);
    // With a gates' socket of its own it would still take the tokens.
    let refused = up(second.plan.clone(), second.environment(), Box::new(Quiet)).await.unwrap_err();
    assert!(matches!(refused, UpError::RunDirInUse { .. }), "{refused}");
    assert!(is_open(&first).await);
    drop(running);
    second.plan.listen.gate_socket.clone_from(&first.plan.listen.gate_socket);
    let _running = second.up().await;
    assert!(is_open(&second).await, "whoever has ended holds nothing");
}

#[tokio::test]
async fn a_second_edgekeep_with_a_run_directory_of_its_own_leaves_the_socket_too() {
    let mut first = Device::new();
    let _running = first.up().await;
    let mut second = Device::new();
    second.plan.listen.gate_socket.clone_from(&first.plan.listen.gate_socket);
    let refused = up(second.plan.clone(), second.environment(), Box::new(Quiet)).await.unwrap_err();
    assert!(matches!(refused, UpError::Gates(crate::gate::BindError::Taken(_))), "{refused}");
    assert!(is_open(&first).await);
}

#[tokio::test]
async fn a_socket_that_was_removed_or_replaced_is_made_anew_with_an_alarm() {
    let mut device = Device::new();
    let mut running = device.up().await;
    let path = device.plan.listen.gate_socket.clone();
    let mut alarms = 0;
    for replaced in [false, true] {
        OsDisk.remove_file(&path).unwrap();
        if replaced {
            // Somebody who does not ask first, and has ended since.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        device.clock.advance(Duration::from_secs(1));
        running.tick().await;
        assert!(is_open(&device).await);
        alarms += 1;
        assert_eq!(device.ears.heard(|n| matches!(n, Note::Alarm(t) if t.contains("gates' socket"))), alarms);
    }
    // As long as another answers there it is left to it, and one line says so.
    OsDisk.remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        device.clock.advance(Duration::from_secs(1));
        running.tick().await;
    }
    assert_eq!(device.ears.heard(|n| matches!(n, Note::Alarm(t) if t.contains("another process answers"))), 1);
    drop(other);
    device.clock.advance(Duration::from_secs(1));
    running.tick().await;
    assert!(is_open(&device).await);
}

#[tokio::test]
async fn the_token_of_a_service_that_is_gone_from_the_plan_is_told_by_name() {
    let mut device = Device::new();
    drop(device.up().await);
    let told =
        |device: &Device| device.ears.heard(|n| matches!(n, Note::Warning(t) if t.contains("no service of the")));
    assert_eq!(told(&device), 0);
    let gone = device.plan.services.pop().unwrap().name;
    for credential in &mut device.plan.credentials {
        credential.copies.retain(|service| *service != gone);
    }
    let _running = device.up().await;
    assert_eq!(told(&device), 1);
}
