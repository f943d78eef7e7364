//! `--longRun` keeps the store open: killed and started again it is unsealed, as often as was chosen.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bao::Bao;
use crate::long_run::LongRun;
use crate::place::{IKM, Place};

const UNSEALED: &str = "the store was found sealed, and was unsealed";

/// A place whose hook writes down that it was asked, and its socket.
fn counted(bao: &Bao) -> (Place, std::path::PathBuf) {
    let place = Place::small(bao);
    let asked = place.path("asked").display().to_string();
    let place = place.hook(&format!("echo >> {asked}; echo {IKM}"));
    let socket = place.path("run/regenerate.sock");
    (place.with("EDGEKEEP_REGENERATE_SOCKET", socket.to_str().unwrap()), socket)
}

fn asked(place: &Place) -> usize {
    std::fs::read(place.path("asked")).unwrap().len()
}

/// EdgeX issue 1944: a store that crashes stays sealed until somebody starts the set-up anew. Printed: how long it was
/// sealed after its first answer.
#[test]
fn a_store_that_is_killed_under_a_long_run_is_unsealed_again() {
    let Some(mut bao) = Bao::new() else { return };
    let (place, socket) = counted(&bao);
    place.must_set_up();
    let run = LongRun::start(&place, &socket);
    place.until_said("the store serves");
    let (token, before) = (place.token("core-data"), asked(&place));
    let mut sealed_for = Vec::new();
    for _ in 0..5 {
        bao.restart();
        sealed_for.push(sealed_after_the_first_answer(&bao));
        bao.until(&[200]);
        assert!(bao.knows(&token), "nobody has to read anything again");
    }
    // The store serves before it is written down who has opened it.
    let unsealed = || place.said().matches(UNSEALED).count();
    place.until("five unsealings are written down", || unsealed() >= 5);
    assert_eq!(unsealed(), 5, "{}", place.said());
    assert_eq!(asked(&place) - before, 5, "key material is asked for when the store is sealed, and never else");
    sealed_for.sort();
    println!("sealed after the first answer: median {:?}, all {sealed_for:?}", sealed_for[2]);
    assert!(sealed_for[2] < Duration::from_millis(100) || !testkit::are_figures_held(), "{sealed_for:?}");

    // Sealed by a hand, and not by a crash: it is the same. The hand's token is revoked by an open store.
    place.as_root(&bao, |root| {
        assert_eq!(bao.call("PUT", "sys/seal", Some(root), None).0, 204);
        bao.until(&[200]);
    });
    assert!(bao.knows(&token));
    assert_eq!(run.stop(), Some(0));
}

fn sealed_after_the_first_answer(bao: &Bao) -> Duration {
    // Returns with the first answer that there is.
    let mut status = bao.call("GET", "sys/seal-status", None, None).1;
    let first = Instant::now();
    while status["sealed"] != json!(false) {
        assert!(first.elapsed().as_secs() < 60, "{status}");
        std::thread::sleep(Duration::from_millis(1));
        status = bao.call("GET", "sys/seal-status", None, None).1;
    }
    first.elapsed()
}

/// Whoever makes the store crash, to have it unsealed while he watches, gains nothing: neither the long run nor a
/// set-up opens it again.
#[test]
fn once_per_boot_a_store_that_is_killed_stays_sealed_and_that_is_told() {
    let Some(mut bao) = Bao::new() else { return };
    let (place, socket) = counted(&bao);
    let place = place.with("EDGEKEEP_REUNSEAL", "once-per-boot");
    place.must_set_up();
    place.must_set_up();
    let run = LongRun::start(&place, &socket);
    place.until_said("the store serves");
    bao.restart();
    place.until_said("is sealed again: it stays so until the device is restarted");
    assert!(place.said().contains("EDGEKEEP_REUNSEAL=always"), "{}", place.said());
    assert_eq!(bao.health(), 503);
    let (code, said) = place.set_up();
    assert!(code == 1 && said.contains("was unsealed once in this boot"), "{said}");
    assert_eq!(bao.health(), 503);
    assert!(!place.said().contains(UNSEALED));
    assert_eq!(run.stop(), Some(0));
    // As the note of another boot.
    place.lay("assets/.edgekeep-unsealed", b"00000000-0000-0000-0000-000000000000\n");
    assert!(place.must_set_up().contains("the store was unsealed"));
}
