//! Killed at random moments, and run again: it always ends provisioned, no share is ever lost, and none is ever in
//! clear.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bao::{Bao, Setup};
use crate::place::Place;
use crate::runs::only_our_root;

/// `EDGEKEEP_TEST_KILLS` says how often; CI kills a few times.
pub(crate) fn kills() -> u64 {
    std::env::var("EDGEKEEP_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

#[test]
fn killed_at_random_moments_and_run_again() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    // How long a whole run takes here, on a store that is to be made and on one that is there: the moments are spread
    // over all of it.
    let timed = || {
        let begun = std::time::Instant::now();
        place.must_set_up();
        begun.elapsed()
    };
    let (making, keeping) = (timed(), timed());
    bao.wipe();
    std::fs::remove_dir_all(place.path("assets")).unwrap();

    let mut dice = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let (mut steps, mut lost, mut kill) = (BTreeMap::new(), 0, 0);
    while kill < kills() {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let kept_before = place.has_shares().then(|| place.shares_text());
        let whole = if kept_before.is_some() { keeping } else { making };
        let mut child = place.begin();
        std::thread::sleep(whole.mul_f64(((dice >> 33) % 1000) as f64 / 1000.0));
        let outran = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if outran {
            // It was quicker than the one that was timed, and is no kill.
            continue;
        }
        kill += 1;
        if place.has_shares() {
            let text = place.shares_text();
            assert!(text.contains("encrypted_keys") && !text.contains("\"keys\""), "kill {kill}: {text}");
        }
        // As a power cut: what makes the store for the run, and OpenBao, are killed as well, whatever they are at.
        let all = kill % 3 == 0;
        if all {
            while end_maker(&place) {}
            bao.restart();
        }
        // What makes the store may have gone on until here.
        let step = step(&place);
        *steps.entry(step).or_insert(0) += 1;
        let (code, said) = place.set_up();
        if code != 0 {
            // OpenBao does not outlive a cut of its own init, nor do its shares one between its commit and our disk.
            // Nobody has a share then, so that nothing was ever in the store, and throwing it away loses nothing.
            assert!(all && step == INIT && !place.has_shares(), "kill {kill} in {step}: {said}");
            let told =
                ["a run was cut short while the store was being made", "no key share of it was ever given to anybody"];
            assert!(told.iter().any(|told| said.contains(told)), "kill {kill}: {said}");
            lost += 1;
            bao.wipe();
            std::fs::remove_dir_all(place.path("assets")).unwrap();
            place.must_set_up();
        }
        assert!(kept_before.is_none_or(|before| before == place.shares_text()), "kill {kill} in {step}: other shares");
        assert!(bao.knows(&place.token("core-data")), "kill {kill} in {step}");
        // Every other store is a new one, so that the making of it is met as often as its keeping.
        if kill % 2 == 0 {
            only_our_root(&place, &bao);
            bao.wipe();
            std::fs::remove_dir_all(place.path("assets")).unwrap();
        }
    }
    eprintln!(
        "{kill} kills: {steps:?}; {lost} with OpenBao killed in its own init: a store that nobody had a share of"
    );
    place.must_set_up();
    only_our_root(&place, &bao);
}

/// Kills the process that makes the store, if it is there: by its working directory, which is this test's alone.
fn end_maker(place: &Place) -> bool {
    let mut there = false;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let ours = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == place.path(""));
        let makes = std::fs::read(entry.path().join("cmdline")).is_ok_and(|c| c.ends_with(b"--makeStore\0"));
        if let (true, true, Some(pid)) = (ours, makes, rustix::process::Pid::from_raw(pid)) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            there = true;
        }
    }
    there
}

/// What a killed run was at, by what it left on the disk and had said.
fn step(place: &Place) -> &'static str {
    let said = place.said();
    let left = |name: &str| place.path("assets").join(name).exists();
    let told = |text: &str| said.contains(text);
    match () {
        () if left(".edgekeep-init.intent") => INIT,
        () if !place.has_shares() => "0 before init",
        () if left(".edgekeep-first-root") => "2 shares kept, no login yet",
        () if told("the secret store is ready") => "7 at its end",
        () if told("credentials are in their places") => "6 ending the tokens of before",
        () if told("every service has a new token") => "5 credentials",
        () if told("the store is open") || told("unsealed") => "4 root token, mounts, services' tokens",
        () => "3 hook, health, unsealing",
    }
}

const INIT: &str = "1 the store's own init";

/// OpenBao dies in the middle of its own init. Its storage is of no use then, and no share of it was ever given out:
/// the run says so within seconds, and so does the next.
#[test]
fn an_openbao_that_died_while_it_was_made_is_told_and_not_waited_for() {
    let Some(mut bao) = Bao::with(Setup { election: Some(10), ..Setup::default() }) else { return };
    let place = Place::small(&bao);
    bao.health();
    let mut run = place.begin();
    // Raft has its first entry, and elects itself for ten seconds and more before there is a barrier.
    bao.until_it_says("entering follower state");
    bao.restart();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    let first = place.said();
    assert_eq!(bao.health(), 501);
    let begun = std::time::Instant::now();
    let (code, second) = place.set_up();
    assert_eq!(code, 1);
    // Not the ten minutes that a store may take to be there.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    for said in [first, second] {
        assert!(
            said.contains("cut short while it was being made") && said.contains("cluster already has state"),
            "{said}"
        );
        assert!(said.contains("no key share of it was ever given to anybody"), "{said}");
    }
    bao.elects_soon();
    bao.wipe();
    place.must_set_up();
}

/// SIGTERM while the store is not there: the wait ends at once.
#[test]
fn a_signal_ends_the_wait_for_a_store_that_is_not_there() {
    let Some(mut bao) = Bao::new() else { return };
    let place = Place::small(&bao);
    bao.stop();
    let mut child = place.begin();
    // The lock stands when the wait has begun.
    let lock = place.path("assets/.edgekeep-custody.lock");
    place.until("the lock stands", || lock.exists());
    let begun = std::time::Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    // Not the ten minutes that a store may take to be there.
    assert!(begun.elapsed() < Duration::from_secs(120));
}
