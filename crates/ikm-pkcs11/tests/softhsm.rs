//! The source `pkcs11` with this helper, on tokens of SoftHSM: one token for each test.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // real time is what is measured, and what is written is thrown away

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use host::OsClock;
use ikm::{Errand, Key, Mode, Refusal, Reply, Request, TokenName, Wish};
use seal::{
    Auth, AuthError, AuthRequest, Deadline, KeySource, Left, NoAuth, Pkcs11Setup, Pkcs11Source, PolicyRequest,
    Provisioned, Released, Remedy, SlotPublic, SourceError, key_source_contract,
};
use secret::SecretBytes;
use testkit::{SoftHsm, are_figures_held, is_skipped};

/// Gives this PIN, and counts how often it was asked for.
struct Pin(&'static str, AtomicUsize);

impl Pin {
    fn new(pin: &'static str) -> Self {
        Self(pin, AtomicUsize::new(0))
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl Auth for Pin {
    fn pin(&self, request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        assert!(request.what.contains("edge"), "it says for which token: {}", request.what);
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(SecretBytes::new(self.0.as_bytes().to_vec()))
    }
}

fn setup(hsm: &SoftHsm, wish: Wish) -> Pkcs11Setup {
    // The helper's environment is what stands here; a mitigation that is switched off is so in the helper too.
    let bite = std::env::var("EDGEKEEP_BITE").ok().map(|name| ("EDGEKEEP_BITE".to_owned(), name));
    Pkcs11Setup {
        helper: PathBuf::from(env!("CARGO_BIN_EXE_ikm-pkcs11")),
        module: PathBuf::from(SoftHsm::MODULE),
        token: TokenName { label: hsm.label().into(), serial: hsm.serial().into() },
        wish,
        danger_last_try: false,
        env: hsm.env().into_iter().chain(bite).collect(),
    }
}

fn source(setup: &Pkcs11Setup) -> Pkcs11Source {
    Pkcs11Source::new(setup.clone(), Arc::new(OsClock::new().unwrap()))
}

fn soon() -> Deadline {
    // A busy machine takes its time for an RSA key.
    Deadline::after(&OsClock::new().unwrap(), Duration::from_secs(60))
}

fn provision(setup: &Pkcs11Setup) -> Result<Provisioned, SourceError> {
    let policy = PolicyRequest { pin: true, ..PolicyRequest::default() };
    source(setup).provision(&policy, &Pin::new(SoftHsm::PIN), soon())
}

fn release(setup: &Pkcs11Setup, slot: &SlotPublic) -> Result<Released, SourceError> {
    source(setup).release(slot, &Pin::new(SoftHsm::PIN), soon())
}

fn mode(released: &Released) -> &str {
    &released.evidence.0.iter().find(|(name, _)| *name == "mode").unwrap().1
}

#[test]
fn each_mode_gives_the_same_material_again() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    // SoftHSM knows OAEP with SHA-1 alone, which its list of mechanisms does not say: the helper finds it out.
    for (wish, used) in
        [(Wish::Any, "hmac"), (Wish::Hmac, "hmac"), (Wish::Rsa, "rsa-oaep-sha1"), (Wish::Aes, "aes-unwrap")]
    {
        let setup = setup(&hsm, wish);
        let made = provision(&setup).unwrap();
        let released = release(&setup, &made.public).unwrap();
        assert_eq!(mode(&released), used);
        assert!(released.ikm.ct_eq(&made.ikm), "{used}");
    }
    // Two keys of one token are two secrets.
    let setup = setup(&hsm, Wish::Hmac);
    let (a, b) = (provision(&setup).unwrap(), provision(&setup).unwrap());
    assert!(!a.ikm.ct_eq(&b.ikm));
}

#[test]
fn each_mode_keeps_to_the_contract() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    for wish in [Wish::Hmac, Wish::Rsa, Wish::Aes] {
        let setup = setup(&hsm, wish);
        let policy = PolicyRequest { pin: true, ..PolicyRequest::default() };
        key_source_contract(&|| Box::new(source(&setup)), &policy, &Pin::new(SoftHsm::PIN));
    }
}

#[test]
fn keys_are_seen_by_another_tool_and_cannot_leave() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    for wish in [Wish::Hmac, Wish::Rsa, Wish::Aes] {
        provision(&setup(&hsm, wish)).unwrap();
    }
    let shown = hsm.tool(&["--list-objects"]);
    let access = shown.lines().filter(|l| l.contains("Access:") && l.contains("sensitive"));
    let access: Vec<&str> = access.collect();
    assert_eq!(access.len(), 3, "{shown}");
    assert!(access.iter().all(|l| l.contains("never extractable") && l.contains("local")), "{shown}");
}

#[test]
fn a_key_that_could_be_elsewhere_too_is_not_used() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "01", "--label", "weak", "--extractable"]);
    match provision(&setup(&hsm, Wish::Rsa)) {
        Err(SourceError::PolicyEmpty { defect }) => assert!(defect.contains("NeverExtractable"), "{defect}"),
        other => panic!("{other:?}"),
    }
    // One that its owner made well is taken, and no other is made.
    let hsm = SoftHsm::new("edge");
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "owner's"]);
    let setup = setup(&hsm, Wish::Rsa);
    let made = provision(&setup).unwrap();
    assert!(release(&setup, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    assert_eq!(hsm.tool(&["--list-objects"]).matches("Private Key Object").count(), 1);
}

/// What was made for a slot goes with it, by the word of another tool; the next slot's key and the owner's stay.
#[test]
fn a_key_that_was_made_for_a_slot_goes_with_it_and_an_owners_stays() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let objects = || hsm.tool(&["--list-objects"]).matches("Object").count();
    for (wish, each) in [(Wish::Hmac, 1), (Wish::Rsa, 2), (Wish::Aes, 1)] {
        let setup = setup(&hsm, wish);
        let (going, staying) = (provision(&setup).unwrap().public, provision(&setup).unwrap());
        assert_eq!(objects(), 2 * each, "{wish:?}: a slot does not use another's key");
        let mut source = source(&setup);
        let pin = Pin::new(SoftHsm::PIN);
        assert!(
            matches!(source.left_of(&going, &pin, soon()).unwrap(), Left::Copies(what) if what.contains("has the key"))
        );
        // A slot that stays may have the same key: it is left alone.
        source.discard(&going, &[&going], &pin, soon()).unwrap();
        assert_eq!(objects(), 2 * each);
        source.discard(&going, &[&staying.public], &pin, soon()).unwrap();
        assert_eq!(objects(), each);
        assert!(matches!(source.left_of(&going, &pin, soon()).unwrap(), Left::Nothing(_)));
        assert!(matches!(release(&setup, &going), Err(SourceError::WrongDevice { .. })));
        assert!(release(&setup, &staying.public).unwrap().ikm.ct_eq(&staying.ikm));
        source.discard(&going, &[], &pin, soon()).expect("what is gone is as good");
        source.discard(&staying.public, &[], &pin, soon()).unwrap();
        assert_eq!(objects(), 0);
    }
    // The owner has called his key as we call ours.
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "edgekeep"]);
    let setup = setup(&hsm, Wish::Rsa);
    let slot = provision(&setup).unwrap().public;
    let (mut source, pin) = (source(&setup), Pin::new(SoftHsm::PIN));
    source.discard(&slot, &[], &pin, soon()).unwrap();
    assert!(matches!(source.left_of(&slot, &pin, soon()).unwrap(), Left::Copies(what) if what.contains("its owner's")));
    assert_eq!(objects(), 2);
    assert!(release(&setup, &slot).is_ok());
}

/// Two barriers: the source does not ask for it, and the helper does not do it.
#[test]
fn an_owners_key_is_not_destroyed_whoever_asks() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "edgekeep"]);
    let key = Key { mode: Mode::RsaPkcs1, id: vec![2], data: vec![1; 256] };
    let request = Request::With {
        errand: Errand::Destroy,
        module: SoftHsm::MODULE.into(),
        token: TokenName { label: hsm.label().into(), serial: hsm.serial().into() },
        key,
        last_try: false,
        pin: Some(SecretBytes::new(SoftHsm::PIN.into())),
    };
    let bite = std::env::var("EDGEKEEP_BITE").ok().map(|name| ("EDGEKEEP_BITE".to_owned(), name));
    let mut helper = Command::new(env!("CARGO_BIN_EXE_ikm-pkcs11"))
        .env_clear()
        .envs(hsm.env().into_iter().chain(bite))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    helper.stdin.take().unwrap().write_all(&request.to_bytes()).unwrap();
    let output = helper.wait_with_output().unwrap();
    match Reply::parse(&output.stdout).unwrap() {
        Reply::Refused { refusal: Refusal::NoKey, detail } => assert!(detail.contains("its owner's"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(hsm.tool(&["--list-objects"]).matches("Object").count(), 2);
}

/// On a PIV card the padding may be the oldest: what another tool has encrypted to the owner's key by PKCS #1 v1.5 is
/// released.
#[test]
fn key_material_under_the_oldest_padding_is_released() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "owner's"]);
    let (clear, wrapped) = (hsm.dir().join("clear"), hsm.dir().join("wrapped"));
    let octets: Vec<u8> = (1..=32).collect();
    std::fs::write(&clear, &octets).unwrap();
    let public = hsm.dir().join("public.der");
    hsm.tool(&["--read-object", "--type", "pubkey", "--id", "02", "--output-file", public.to_str().unwrap()]);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-pkeyopt", "rsa_padding_mode:pkcs1", "-inkey"]);
    openssl.arg(&public).arg("-in").arg(&clear).arg("-out").arg(&wrapped);
    assert!(openssl.status().expect("openssl is missing: apt-get install openssl").success());
    let data = std::fs::read(&wrapped).unwrap();
    assert_eq!(data.len(), 256);

    let setup = setup(&hsm, Wish::Rsa);
    let made = provision(&setup).unwrap().public;
    // The slot that provisioning makes where nothing better works.
    let number = Mode::RsaPkcs1.number();
    let slot = |data: &[u8]| {
        let mut bytes = made.to_bytes();
        let name = bytes.windows(4).position(|w| w[..2] == [0, 1]).unwrap() + 4;
        bytes[name + 1] = number;
        let old = bytes.len() - 256;
        bytes[old..].copy_from_slice(data);
        SlotPublic::from_bytes(&bytes).unwrap()
    };
    let released = release(&setup, &slot(&data)).unwrap();
    assert_eq!(mode(&released), "rsa-pkcs1");
    let expected = seal::Ikm::take_over(&mut &[&[0, 32], &octets[..]].concat()[..], None).unwrap();
    assert!(released.ikm.ct_eq(&expected));
    // What is no such block does not give the octets, and what is wrong with it is not told apart. A library may make
    // other octets of it (implicit rejection, OpenSSL 3.2 on), which by chance are as many as a key has.
    let mut other = data.clone();
    other[100] ^= 1;
    match release(&setup, &slot(&other)) {
        Ok(released) => assert!(!released.ikm.ct_eq(&expected)),
        Err(refused) => assert!(!matches!(refused, SourceError::AuthFailed { .. }), "{refused}"),
    }
}

#[test]
fn a_wrong_pin_is_tried_once_and_few_tries_are_kept() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let good = setup(&hsm, Wish::Hmac);
    let made = provision(&good).unwrap();
    let wrong = Pin::new("00000000");
    match source(&good).release(&made.public, &wrong, soon()) {
        Err(e @ SourceError::AuthFailed { .. }) => assert_eq!(e.remedy(), Remedy::Operator),
        other => panic!("{other:?}"),
    }
    assert_eq!(wrong.asked(), 1);
    // The token now says that its count is low; nothing is tried, not even the right one.
    match release(&good, &made.public) {
        Err(e @ SourceError::FewTries { .. }) => assert_eq!(e.remedy(), Remedy::Operator),
        other => panic!("{other:?}"),
    }
    // Unless somebody says so; the right one sets the count back.
    let forced = Pkcs11Setup { danger_last_try: true, ..good.clone() };
    assert!(release(&forced, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    assert!(release(&good, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    // Nobody to ask.
    assert!(matches!(source(&good).release(&made.public, &NoAuth, soon()), Err(SourceError::NoPin { .. })));
    // A slot that was made without one, on a token that wants one.
    let made = source(&good).provision(&PolicyRequest::default(), &NoAuth, soon());
    assert!(matches!(made, Err(SourceError::NoPin { .. })), "{made:?}");
}

#[test]
fn another_token_is_told_by_its_serial_number_and_a_missing_one_is_waited_for() {
    if is_skipped("softhsm") {
        return;
    }
    let (hsm, other) = (SoftHsm::new("edge"), SoftHsm::new("edge"));
    let good = setup(&hsm, Wish::Hmac);
    let made = provision(&good).unwrap();
    // The same label in the reader, another token.
    match release(&Pkcs11Setup { env: other.env(), ..good.clone() }, &made.public) {
        Err(SourceError::WrongDevice { found, expected, .. }) => {
            assert_eq!((found.as_str(), expected.as_str()), (other.serial(), hsm.serial()));
        }
        unexpected => panic!("{unexpected:?}"),
    }
    // The configuration names another token than the slot.
    assert!(matches!(release(&setup(&other, Wish::Hmac), &made.public), Err(SourceError::WrongDevice { .. })));

    hsm.remove();
    match release(&good, &made.public) {
        Err(e @ SourceError::NotPresent { .. }) => assert_eq!(e.remedy(), Remedy::Retry),
        unexpected => panic!("{unexpected:?}"),
    }
    hsm.put_back();
    assert!(release(&good, &made.public).unwrap().ikm.ct_eq(&made.ikm));
    // The key was deleted from it.
    hsm.tool(&["--delete-object", "--type", "secrkey", "--label", "edgekeep"]);
    assert!(matches!(release(&good, &made.public), Err(SourceError::WrongDevice { .. })));
}

#[test]
fn a_probe_says_what_the_token_is_and_spends_no_try() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let facts = source(&setup(&hsm, Wish::Any)).probe(soon()).unwrap().0;
    let fact = |name: &str| facts.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    assert!(fact("model").contains("SoftHSM"), "{facts:?}");
    assert_eq!((fact("wants a PIN").as_str(), fact("few tries left").as_str()), ("yes", "no"));
    assert!(fact("modes").starts_with("hmac "), "{facts:?}");
}

#[test]
fn a_module_that_is_none_or_that_others_may_write() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let with = |module: &Path| Pkcs11Setup { module: module.to_owned(), ..setup(&hsm, Wish::Any) };
    let missing = source(&with(&hsm.dir().join("none.so"))).probe(soon());
    assert!(matches!(missing, Err(SourceError::NotPresent { .. })), "{missing:?}");

    let text = hsm.dir().join("text.so");
    std::fs::write(&text, "no module").unwrap();
    let refused = source(&with(&text)).probe(soon());
    assert!(matches!(refused, Err(SourceError::NotTrusted { .. })), "{refused:?}");

    let foreign = PathBuf::from(env!("CARGO_BIN_EXE_ikm-pkcs11"));
    let refused = source(&with(&foreign)).probe(soon());
    assert!(matches!(refused, Err(SourceError::BadModule { .. })), "{refused:?}");

    let open = hsm.dir().join("open.so");
    std::fs::copy(SoftHsm::MODULE, &open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = source(&with(&open)).probe(soon());
    assert!(matches!(refused, Err(SourceError::NotTrusted { .. })), "{refused:?}");
}

/// The figure of the project: a release within 20 ms, start of the process and loading of the module included. On a
/// machine that does other things too, what another program takes to load the same module and log in is allowed on top.
#[test]
fn a_release_costs_no_more_than_another_programs_login() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let setup = setup(&hsm, Wish::Hmac);
    let made = provision(&setup).unwrap();
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut bare, mut released) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begun = Instant::now();
        hsm.tool(&["--list-objects", "--type", "pubkey"]);
        bare.push(begun.elapsed());
        let begun = Instant::now();
        release(&setup, &made.public).unwrap();
        released.push(begun.elapsed());
    }
    let (bare, released) = (median(bare), median(released));
    println!("figure: pkcs11 release {released:?}, login by pkcs11-tool {bare:?}");
    let limit = Duration::from_millis(20) + if are_figures_held() { Duration::ZERO } else { bare * 2 };
    assert!(released < limit, "{released:?}, pkcs11-tool takes {bare:?}");
}
