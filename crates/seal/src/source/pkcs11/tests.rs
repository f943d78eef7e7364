//! Helpers that are not ours, or not well: each is a script in the place of `ikm-pkcs11`. The real one is tried in its
//! own crate.

#![allow(clippy::disallowed_methods)] // real time is what is measured

use std::time::{Duration, Instant};

use host::OsClock;

use super::super::exec::tests::Place;
use super::super::{NoAuth, Remedy};
use super::*;

const IKM: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

fn token() -> TokenName {
    TokenName { label: "edge".into(), serial: "9f1c".into() }
}

fn slot() -> SlotPublic {
    let key = ikm::Key { mode: ikm::Mode::Hmac, id: vec![1; 16], data: vec![2; 32] };
    TokenKey { token: token(), key, pin: false }.to_slot().unwrap()
}

/// A source whose helper is these shell lines.
fn source(place: &Place, lines: &str) -> Pkcs11Source {
    let setup = Pkcs11Setup {
        helper: place.file("helper", &format!("#!/bin/sh\n{lines}\n"), 0o700),
        // Any program will do: it is looked at, and not loaded.
        module: "/bin/sh".into(),
        token: token(),
        wish: Wish::Any,
        danger_last_try: false,
        env: Vec::new(),
    };
    Pkcs11Source::new(setup, Arc::new(OsClock::new().unwrap()))
}

fn release(place: &Place, lines: &str, limit: Duration) -> Result<Ikm, SourceError> {
    let mut source = source(place, lines);
    let deadline = Deadline::after(&*source.clock, limit);
    source.release(&slot(), &NoAuth, deadline).map(|r| r.ikm)
}

fn said(place: &Place, reply: &str) -> Result<Ikm, SourceError> {
    release(place, &format!("printf '{reply}'"), LONG)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_release_is_one_question_and_one_answer() {
    let place = Place::new();
    let question = place.path("question");
    let lines = format!("cat > {}; printf 'edgekeep-pkcs11 1 released\\nikm {IKM}\\nend\\n'", question.display());
    let ikm = release(&place, &lines, LONG).unwrap();
    assert_eq!(hex::encode(ikm.expose()), IKM);
    let asked = std::fs::read(question).unwrap();
    match Request::parse(&asked).unwrap() {
        Request::With { errand: Errand::Release, module, token: asked, key, last_try: false, pin: None } => {
            assert_eq!((asked, key.id, key.data), (token(), vec![1; 16], vec![2; 32]));
            assert!(module.starts_with('/'));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_helper_that_hangs_or_floods_or_dies_is_an_error() {
    let place = Place::new();
    let begun = Instant::now();
    let hung = release(&place, "sleep 60", Duration::from_millis(300));
    assert!(matches!(hung, Err(SourceError::TimedOut { .. })), "{hung:?}");
    assert!(begun.elapsed() < LONG, "it was killed");
    let flood = release(&place, "while :; do echo edgekeep-pkcs11 1 released; done", LONG);
    assert!(matches!(flood, Err(SourceError::BadOutput { .. })), "{flood:?}");
    for lines in
        ["kill -KILL $$", "exit 3", &format!("printf 'edgekeep-pkcs11 1 released\\nikm {IKM}\\nend\\n'; exit 70")]
    {
        match release(&place, lines, LONG) {
            Err(e @ SourceError::HookFailed { .. }) => assert_eq!(e.remedy(), Remedy::Retry),
            other => panic!("{lines}: {other:?}"),
        }
    }
}

#[test]
fn junk_is_no_answer() {
    let place = Place::new();
    for reply in [
        "",
        IKM,
        "edgekeep-pkcs11 2 released\\nend\\n",
        &format!("edgekeep-pkcs11 1 released\\nikm {IKM}\\n"),
        &format!("edgekeep-pkcs11 1 released\\nikm {IKM}\\nend\\nmore"),
        &format!("CK_OK\\nedgekeep-pkcs11 1 released\\nikm {IKM}\\nend\\n"),
        // The answer to another question.
        "edgekeep-pkcs11 1 probed\\nmodel x\\nwants-pin no\\nfew-tries no\\nmodes hmac\\nend\\n",
    ] {
        match said(&place, reply) {
            Err(e @ SourceError::Protocol { .. }) => assert!(!e.to_string().contains(&IKM[..16]), "{e}"),
            other => panic!("{reply}: {other:?}"),
        }
    }
    let dead = said(&place, &format!("edgekeep-pkcs11 1 released\\nikm {}\\nend\\n", "00".repeat(32)));
    assert!(matches!(dead, Err(SourceError::Ikm { .. })), "{dead:?}");
}

#[test]
fn each_refusal_says_who_must_act() {
    let place = Place::new();
    let refused = |reason: &str| {
        let reply = format!("edgekeep-pkcs11 1 refused\\nreason {reason}\\ndetail what the token said\\nend\\n");
        said(&place, &reply).unwrap_err()
    };
    for (reason, remedy) in [
        ("no-token", Remedy::Retry),
        ("failed", Remedy::Retry),
        ("module", Remedy::Operator),
        ("other-token", Remedy::Operator),
        ("no-pin", Remedy::Operator),
        ("few-tries", Remedy::Operator),
        ("wrong-pin", Remedy::Operator),
        ("locked", Remedy::Operator),
        ("no-mode", Remedy::Operator),
        ("no-key", Remedy::Operator),
        ("weak-key", Remedy::Operator),
        ("drifts", Remedy::Operator),
        ("request", Remedy::Alarm),
    ] {
        let e = refused(reason);
        assert_eq!(e.remedy(), remedy, "{reason}: {e}");
    }
    assert!(refused("failed").to_string().contains("what the token said"));
}

#[test]
fn nothing_is_started_that_others_may_write() {
    let place = Place::new();
    let mut source = source(&place, "true");
    source.setup.helper = place.file("open", "#!/bin/sh\ntrue\n", 0o722);
    let deadline = Deadline::after(&*source.clock, LONG);
    let refused = source.release(&slot(), &NoAuth, deadline);
    assert!(matches!(refused, Err(SourceError::NotTrusted { .. })), "{refused:?}");
}
