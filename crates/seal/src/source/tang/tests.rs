//! Against Debian's `tangd`, one for each server of a test; and against servers that lie, hang and are not there.

#![allow(clippy::disallowed_methods)] // real time is what is measured

use std::time::Instant;

use host::{OsClock, OsEntropy};
use testkit::{Tangd, Tanging, are_figures_held, is_skipped};

use super::super::contract::key_source_contract;
use super::super::{NoAuth, Remedy};
use super::*;

fn server(tangd: &Tangd) -> TangServer {
    TangServer { origin: Origin::parse(&tangd.url()).unwrap(), pinned: tangd.thumbprint().parse().unwrap() }
}

fn source(servers: &[TangServer], threshold: u8) -> TangSource {
    let servers = TangServers::new(servers.to_vec(), threshold).unwrap();
    TangSource::new(servers, Arc::new(OsClock::new().unwrap()), Arc::new(OsEntropy))
}

fn within(limit: Duration) -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), limit)
}

fn provision(source: &mut TangSource) -> Result<Provisioned, SourceError> {
    source.provision(&PolicyRequest::default(), &NoAuth, within(LONG))
}

fn release(source: &mut TangSource, slot: &SlotPublic) -> Result<Released, SourceError> {
    source.release(slot, &NoAuth, within(LONG))
}

/// The fault of a refusal, and that it is one which is asked again.
fn faults(result: Result<impl std::fmt::Debug, SourceError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry, "{error}");
    match error {
        SourceError::TooFew { faults, .. } => faults,
        other => panic!("{other:?}"),
    }
}

/// A point that is on the curve, as an answer.
fn lie() -> Vec<u8> {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tang/tests/golden/exchange.json")).unwrap();
    http_200(golden["reply"].to_string().as_bytes())
}

fn http_200(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn keeps_to_the_contract() {
    if is_skipped("tang") {
        return;
    }
    let tangd = Tangd::start();
    let servers = [server(&tangd)];
    key_source_contract(&|| Box::new(source(&servers, 1)), &PolicyRequest::default(), &NoAuth);
}

#[test]
fn two_of_three_do_without_any_one() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start(), Tangd::start()];
    let mut source = source(&tangds.each_ref().map(server), 2);
    let made = provision(&mut source).unwrap();
    for down in &tangds {
        down.becomes(Tanging::Down);
        let released = release(&mut source, &made.public).unwrap();
        assert!(released.ikm.ct_eq(&made.ikm));
        down.becomes(Tanging::Well);
    }
    tangds[0].becomes(Tanging::Down);
    tangds[2].becomes(Tanging::Down);
    let told = faults(release(&mut source, &made.public));
    assert!(told.contains(&tangds[0].url()) && told.contains(&tangds[2].url()), "{told}");
    tangds[2].becomes(Tanging::Well);
    assert!(release(&mut source, &made.public).unwrap().ikm.ct_eq(&made.ikm), "it comes back with the network");
}

#[test]
fn a_slow_server_costs_nothing_where_others_suffice() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start(), Tangd::start()];
    let mut source = source(&tangds.each_ref().map(server), 2);
    let made = provision(&mut source).unwrap();
    tangds[1].becomes(Tanging::Hanging);
    let begun = Instant::now();
    assert!(release(&mut source, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    assert!(begun.elapsed() < LONG / 2, "the deadline was not waited for");

    tangds[2].becomes(Tanging::Hanging);
    let limit = Duration::from_millis(300);
    let told = faults(source.release(&made.public, &NoAuth, within(limit)));
    // Nor may the third, on a machine that has no time for it.
    assert!(told.contains("did not answer") && told.contains(&tangds[1].url()), "{told}");
    assert!(told.contains(&tangds[2].url()), "{told}");
}

/// Late is not too late; and who sends an octet now and then does not hold anybody beyond the deadline.
#[test]
fn a_late_server_is_waited_for_and_one_that_drips_is_given_up() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start()];
    let mut one = source(&[server(&tangds[0])], 1);
    let made = provision(&mut one).unwrap();
    tangds[0].becomes(Tanging::Late(Duration::from_millis(700)));
    let begun = Instant::now();
    assert!(release(&mut one, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let told = faults(one.release(&made.public, &NoAuth, within(Duration::from_millis(200))));
    assert!(told.contains("not answer"), "{told}");

    tangds[0].becomes(Tanging::Dripping);
    let begun = Instant::now();
    let told = faults(one.release(&made.public, &NoAuth, within(Duration::from_millis(400))));
    assert!(told.contains("not answer"), "{told}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    // Beside another it costs nothing.
    tangds[0].becomes(Tanging::Well);
    let mut both = source(&tangds.each_ref().map(server), 1);
    let made = provision(&mut both).unwrap();
    tangds[0].becomes(Tanging::Dripping);
    let begun = Instant::now();
    assert!(release(&mut both, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_rotated_key_still_answers_and_a_deleted_one_is_revoked() {
    if is_skipped("tang") {
        return;
    }
    let tangd = Tangd::start();
    let before = server(&tangd);
    let mut old = source(std::slice::from_ref(&before), 1);
    let made = provision(&mut old).unwrap();
    tangd.rotate();
    assert!(release(&mut old, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    // The configuration may name the new keys before the slot does, and the server may have moved.
    let mut renewed = source(&[server(&tangd)], 1);
    assert_ne!(before.pinned, renewed.servers[0].pinned);
    assert!(release(&mut renewed, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    // A slot for the new keys is made only under the new pin.
    let told = faults(provision(&mut old));
    assert!(told.contains("does not have the pinned signing key"), "{told}");
    assert!(told.contains(&renewed.servers[0].pinned.to_string()), "it says which keys are there: {told}");
    let anew = provision(&mut renewed).unwrap();

    tangd.revoke_rotated();
    let told = faults(release(&mut renewed, &made.public));
    assert!(told.contains("rotated away, or revoked"), "{told}");
    assert!(release(&mut renewed, &anew.public).unwrap().ikm.ct_eq(&anew.ikm));
}

#[test]
fn a_server_that_lies_is_named_and_cannot_stop_the_others() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start()];
    let mut both = source(&tangds.each_ref().map(server), 1);
    let made = provision(&mut both).unwrap();
    for tangd in &tangds {
        tangd.becomes(Tanging::Saying(lie()));
    }
    let told = faults(release(&mut both, &made.public));
    assert_eq!(told.matches("it lies").count(), 2, "{told}");
    tangds[1].becomes(Tanging::Well);
    assert!(release(&mut both, &made.public).unwrap().ikm.ct_eq(&made.ikm));

    for (said, expected) in [
        (http_200(b"{}"), "no JSON Web Key"),
        (http_200(b"{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"AA\",\"y\":\"AA\"}"), "no point of P-521"),
        (http_200(&[b' '; 5000]), "larger than any answer"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec(), "status 503"),
        (b"junk\r\n\r\n".to_vec(), "not HTTP/1.1"),
    ] {
        tangds[0].becomes(Tanging::Saying(said.clone()));
        tangds[1].becomes(Tanging::Saying(said));
        let told = faults(release(&mut both, &made.public));
        assert_eq!(told.matches(expected).count(), 2, "{told}");
    }
}

#[test]
fn a_stranger_is_not_provisioned_with() {
    if is_skipped("tang") {
        return;
    }
    let (tangd, stranger) = (Tangd::start(), Tangd::start());
    let posing = TangServer { origin: Origin::parse(&stranger.url()).unwrap(), ..server(&tangd) };
    let told = faults(provision(&mut source(&[posing], 1)));
    assert!(told.contains("does not have the pinned signing key"), "{told}");
    // The right signing key in the set, and an exchange key that it did not sign.
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tang/tests/golden/exchange.json")).unwrap();
    let swapped = include_bytes!("../../../../tang/tests/golden/advertisement-swapped.json");
    stranger.becomes(Tanging::Saying(http_200(swapped)));
    let posing = TangServer {
        origin: Origin::parse(&stranger.url()).unwrap(),
        pinned: golden["signing_thumbprint"].as_str().unwrap().parse().unwrap(),
    };
    let told = faults(provision(&mut source(&[posing], 1)));
    assert!(told.contains("is not signed by the pinned key"), "{told}");
}

#[test]
fn a_slot_is_made_with_the_servers_that_answer_if_they_are_enough() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start(), Tangd::start()];
    let mut source = source(&tangds.each_ref().map(server), 2);
    tangds[1].becomes(Tanging::Down);
    tangds[2].becomes(Tanging::Hanging);
    let told = faults(source.provision(&PolicyRequest::default(), &NoAuth, within(Duration::from_secs(2))));
    assert!(told.contains(&tangds[1].url()) && told.contains(&tangds[2].url()), "one of three: {told}");
    tangds[1].becomes(Tanging::Well);
    // The one that hangs is waited for to the end, and the two that answer have that time.
    let two = source.provision(&PolicyRequest::default(), &NoAuth, within(Duration::from_secs(6))).unwrap();
    tangds[2].becomes(Tanging::Down);
    let facts = source.probe(within(LONG)).unwrap().0;
    assert!(facts.contains(&("threshold", "2 of 3".into())));
    assert!(facts.contains(&("server", format!("{}: answers with the pinned key", tangds[0].url()))), "{facts:?}");

    // It is back, and of no use to this slot.
    tangds[2].becomes(Tanging::Well);
    let released = release(&mut source, &two.public).unwrap();
    assert!(released.ikm.ct_eq(&two.ikm));
    assert!(released.evidence.0.contains(&("threshold", "2 of 2".into())), "{:?}", released.evidence);
    tangds[0].becomes(Tanging::Down);
    faults(release(&mut source, &two.public));
    tangds[0].becomes(Tanging::Well);
    let three = provision(&mut source).unwrap();
    tangds[0].becomes(Tanging::Down);
    assert!(release(&mut source, &three.public).unwrap().ikm.ct_eq(&three.ikm), "made anew, it has all three");
}

#[test]
fn what_is_no_setup_is_refused_by_name() {
    let at = |port: u16, key: u8| TangServer {
        origin: Origin::parse(&format!("http://127.0.0.1:{port}")).unwrap(),
        pinned: Thumbprint([key; 32]),
    };
    let new = |servers: Vec<TangServer>, threshold| TangServers::new(servers, threshold).err();
    assert_eq!(new(vec![], 1), Some(TangSetupError::Servers { count: 0 }));
    let nine: Vec<_> = (1..=9).map(|n| at(n.into(), n)).collect();
    assert_eq!(new(nine.clone(), 1), Some(TangSetupError::Servers { count: 9 }));
    assert_eq!(new(nine[..8].to_vec(), 8), None);
    for threshold in [0, 3] {
        let refused = TangSetupError::Threshold { threshold, count: 2 };
        assert_eq!(new(nine[..2].to_vec(), threshold), Some(refused));
    }
    let twice = vec![at(1, 1), at(2, 1)];
    assert_eq!(new(twice, 1), Some(TangSetupError::Twice { pinned: Thumbprint([1; 32]) }));
}

/// The figure of the project: 60 ms with a server on this machine. On a machine that does other things too, what bare
/// requests to the same server (a process of tangd each) take at that moment is allowed on top.
#[test]
fn a_release_costs_a_request_and_little_more() {
    if is_skipped("tang") {
        return;
    }
    let tangd = Tangd::start();
    let server = server(&tangd);
    let mut source = source(std::slice::from_ref(&server), 1);
    let made = provision(&mut source).unwrap();
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut bare, mut released) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begun = Instant::now();
        ask::race(vec![ask::advertisement(server.origin.clone(), LONG)], |outcome| outcome.is_ok()).unwrap();
        bare.push(begun.elapsed());
        let begun = Instant::now();
        release(&mut source, &made.public).unwrap();
        released.push(begun.elapsed());
    }
    let (bare, released) = (median(bare), median(released));
    println!("figure: tang release {released:?}, bare request {bare:?}");
    let limit = Duration::from_millis(60) + if are_figures_held() { Duration::ZERO } else { bare * 4 };
    assert!(released < limit, "{released:?}, a bare request takes {bare:?}");
}

/// Any change of a slot on disk is no slot, or gives nothing.
#[test]
fn a_changed_slot_gives_nothing() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start()];
    let mut source = source(&tangds.each_ref().map(server), 2);
    let made = provision(&mut source).unwrap();
    for (item, (_, value)) in made.public.items().iter().enumerate() {
        // Version, threshold, count; pin, both points, share and tag.
        for at in [0, 1, 2, 40, 100, 170, 213] {
            let mut items = made.public.items().to_vec();
            let Some(byte) = items[item].1.get_mut(at) else { continue };
            *byte ^= 1;
            let changed = SlotPublic::new(SourceKind::Tang, None, items).unwrap();
            let result = release(&mut source, &changed);
            assert!(result.is_err(), "item {item} of {} bytes, byte {at}", value.len());
        }
    }
}
