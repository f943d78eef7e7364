//! Killed at random moments, and run again: it always ends provisioned, no share is ever lost, and none is ever in clear.

use std::time::Duration;

use crate::bao::{Bao, is_skipped};
use crate::place::Place;
use crate::runs::only_our_root;

/// `EDGEKEEP_TEST_KILLS` says how often; CI kills a few times.
pub(crate) fn kills() -> u64 {
    std::env::var("EDGEKEEP_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

#[test]
fn killed_at_random_moments_and_run_again() {
    if is_skipped() {
        return;
    }
    let mut bao = Bao::new();
    let place = Place::small(&bao);
    // How long a whole run takes here, so that the moments are spread over all of it.
    let begun = std::time::Instant::now();
    place.must_set_up();
    let whole = begun.elapsed();
    bao.wipe();
    std::fs::remove_dir_all(place.path("assets")).unwrap();

    let (mut state, mut lost) = (0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id()), 0);
    for kill in 0..kills() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (state >> 33) % 1000;
        let mut child = place.begin();
        std::thread::sleep(whole.mul_f64(share as f64 / 1000.0) + Duration::from_millis(1));
        child.kill().unwrap();
        child.wait().unwrap();
        let file = place.path("assets/resp-init.json");
        if let Ok(text) = std::fs::read_to_string(&file) {
            assert!(text.contains("encrypted_keys") && !text.contains("\"keys\""), "kill {kill}: {text}");
        }
        // OpenBao itself does not outlive a kill in the middle of its own init: "cluster already has state", or a health of 500 for ever
        // ("barrier reports initialized but no seal configuration found").
        if kill % 3 == 2 && matches!(bao.health(), 200 | 503) {
            bao.restart();
        }
        let (mut code, mut said) = place.set_up();
        for _ in 0..20 {
            // The killed run's own request is at work in the store still; a container would be started again now.
            if code == 0 || !said.contains("the store was not initialised") {
                break;
            }
            (code, said) = place.set_up();
        }
        // Between the store's commit of init and our own: the one moment that only order can make short. Or inside OpenBao's own
        // init, which ends with its caller and cannot be begun again on what it left. Nothing was in the store in either.
        let told = ["a run was cut short while the store was being made", "its own making of a store was cut short"];
        if code != 0 && told.iter().any(|told| said.contains(told)) {
            lost += 1;
            bao.wipe();
            std::fs::remove_dir_all(place.path("assets")).unwrap();
            place.must_set_up();
        } else {
            assert_eq!(code, 0, "kill {kill}: {said}");
        }
        let token = place.token("core-data");
        assert!(bao.knows(&token), "kill {kill}");
        // Every other store is a new one, so that the making of it is met as often as its keeping.
        if kill % 2 == 1 {
            only_our_root(&place, &bao);
            bao.wipe();
            std::fs::remove_dir_all(place.path("assets")).unwrap();
        }
    }
    eprintln!("{} kills; {lost} met the moment of init, and were told so", kills());
    place.must_set_up();
    only_our_root(&place, &bao);
}

/// SIGTERM while the store is not there: the wait ends at once.
#[test]
fn a_signal_ends_the_wait_for_a_store_that_is_not_there() {
    if is_skipped() {
        return;
    }
    let mut bao = Bao::new();
    let place = Place::small(&bao);
    bao.stop();
    let mut child = place.begin();
    // The lock stands when the wait has begun.
    let lock = place.path("assets/.edgekeep-custody.lock");
    for _ in 0..600 {
        if lock.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = std::time::Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
