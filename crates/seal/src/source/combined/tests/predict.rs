//! For the next image: who is asked for what, in which order, and what real parts make of it.

use ::tpm::{PcrValues, extended};
use host::OsDisk;
use testkit::{Swtpm, Tangd, Tanging, is_skipped};

use super::super::super::{SoftwareSource, TpmNvSource, differ_in_values_alone, measures_registers};
use super::real::{LIMIT, clock, later, tang, tpm, tpm_at};
use super::*;

fn seven() -> PcrValues {
    PcrValues::new([(7, [8; 32])])
}

fn predict(source: &mut CombinedSource, made: &Provisioned, values: &PcrValues) -> Result<Provisioned, SourceError> {
    source.predict(&made.public, values, &NoAuth, later())
}

#[test]
fn a_tpm_is_made_anew_and_releases_nothing_and_the_others_are_asked_once() {
    for rule in [Rule::All, Rule::Threshold(2)] {
        let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
        let mut source = combined(rule, &[&tpm, &tang, &hook]);
        tpm.limits(1);
        hook.limits(3);
        let made = provision(&mut source, &PolicyRequest::default()).unwrap();
        let next = predict(&mut source, &made, &seven()).unwrap();
        assert_eq!((tpm.released(), tang.released(), hook.released()), (0, 1, 1));
        assert_eq!((tpm.predicted(), tpm.made_beside(), tang.made_beside()), (1, 0, 0));
        assert_eq!(next.public.release_limit(), made.public.release_limit());
        // These octets are the same, so what is joined of all is too; of a threshold it is drawn.
        assert_eq!(next.ikm.ct_eq(&made.ikm), rule == Rule::All);
        assert!(release(&mut source, &next).unwrap().ikm.ct_eq(&next.ikm));
    }
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_spent() {
    let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
    let mut all = combined(Rule::All, &[&hook, &tpm, &tang]);
    hook.limits(2);
    let made = provision(&mut all, &PolicyRequest::default()).unwrap();
    let told = |made: Result<Provisioned, SourceError>| match made {
        Err(SourceError::Part { number, source, .. }) => (number, source.remedy(), source.to_string()),
        other => panic!("{other:?}"),
    };
    let eleven = PcrValues::new([(11, [8; 32])]);
    let (number, _, text) = told(predict(&mut all, &made, &eleven));
    assert!(number == 2 && text.contains("PCR 7 has no known value"), "{number}: {text}");
    tang.becomes(Mood::Away);
    assert_eq!(told(predict(&mut all, &made, &seven())).0, 3);
    assert_eq!((hook.released(), tpm.predicted()), (0, 0), "who counts comes last");
    tang.becomes(Mood::Well);
    release(&mut all, &made).unwrap();
    let (number, remedy, text) = told(predict(&mut all, &made, &seven()));
    assert!((number, remedy) == (1, Remedy::Reboot) && text.contains("the last of a boot is not spent"), "{text}");
    assert_eq!((hook.released(), tang.released()), (1, 1));
}

/// What a TPM has made goes again, and nothing that the slot in use needs.
#[test]
fn what_was_made_in_vain_is_taken_back() {
    let (tpm, card) = (Fake::tpm(), Fake::card());
    let mut all = combined(Rule::All, &[&tpm, &card]);
    let pin = PolicyRequest { pin: true, ..PolicyRequest::default() };
    let made = provision(&mut all, &pin).unwrap();
    card.becomes(Mood::WrongPin);
    assert!(matches!(predict(&mut all, &made, &seven()), Err(SourceError::Part { number: 2, .. })));
    assert_eq!((tpm.predicted(), tpm.discarded()), (1, vec![vec![SourceKind::Tpm, SourceKind::Pkcs11]]));
    assert_eq!(card.discarded(), Vec::<Vec<SourceKind>>::new());
}

#[test]
fn a_part_that_lies_makes_no_slot() {
    let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
    let mut two = combined(Rule::Threshold(2), &[&tpm, &tang, &hook]);
    let made = provision(&mut two, &PolicyRequest::default()).unwrap();
    hook.becomes(Mood::Lying);
    let lied = predict(&mut two, &made, &seven()).unwrap_err();
    assert!(
        matches!(&lied, SourceError::Part { number: 3, source, .. } if matches!(**source, SourceError::OtherKey { .. }))
    );
}

fn after(byte: u8) -> [u8; 32] {
    extended(&[0; 32], &[byte; 32])
}

fn boot(chip: &mut Swtpm, image: u8) {
    chip.reboot();
    chip.extend(11, image);
}

fn image(byte: u8) -> PcrValues {
    PcrValues::new([(11, after(byte))])
}

fn eleven() -> PolicyRequest {
    PolicyRequest { pcrs: PcrSet::new([11]).unwrap(), ..limit(1) }
}

#[test]
fn a_tpm_and_a_server_follow_an_update_with_one_release_in_a_boot() {
    if is_skipped("swtpm") || is_skipped("tang") {
        return;
    }
    let (mut chip, server, dir) = (Swtpm::start(), Tangd::start(), testkit::scratch_dir());
    boot(&mut chip, 0xbb);
    let mut both =
        CombinedSource::all(vec![tpm(&chip, dir.path().join("lock")), tang(&server)], clock(), Arc::new(OsEntropy))
            .unwrap();
    let old = both.provision(&eleven(), &NoAuth, later()).unwrap();
    assert!(both.release(&old.public, &NoAuth, later()).is_ok(), "the release of this boot");
    server.becomes(Tanging::Down);
    assert_eq!(predict(&mut both, &old, &image(0xcc)).unwrap_err().remedy(), Remedy::Retry);
    server.becomes(Tanging::Well);
    let new = predict(&mut both, &old, &image(0xcc)).unwrap();
    assert!(differ_in_values_alone(&old.public, &new.public) && measures_registers(&new.public));
    for (byte, [opens, other]) in [(0xbb, [&old, &new]), (0xcc, [&new, &old])] {
        boot(&mut chip, byte);
        assert!(both.release(&other.public, &NoAuth, later()).is_err(), "{byte:#x}");
        assert!(both.release(&opens.public, &NoAuth, later()).unwrap().ikm.ct_eq(&opens.ikm), "{byte:#x}");
        for slot in [opens, other] {
            assert!(both.release(&slot.public, &NoAuth, later()).is_err(), "{byte:#x}");
        }
    }
    // The same server by another exchange: a slot by itself, and for no other image.
    boot(&mut chip, 0xbb);
    let apart = both.provision(&eleven(), &NoAuth, later()).unwrap();
    assert!(!differ_in_values_alone(&old.public, &apart.public));
    let other = Tangd::start();
    let of_servers = CombinedSource::all(vec![tang(&server), tang(&other)], clock(), Arc::new(OsEntropy));
    let of_servers = of_servers.unwrap().provision(&PolicyRequest::default(), &NoAuth, later()).unwrap().public;
    assert!(!measures_registers(&of_servers) && !differ_in_values_alone(&of_servers, &of_servers));
}

/// An index of one chip, an object of another, and a key file, of which two are enough.
#[test]
fn two_chips_and_a_file_follow_an_update() {
    if is_skipped("swtpm") {
        return;
    }
    let (mut one, mut other, dir) = (Swtpm::start(), Swtpm::start(), testkit::scratch_dir());
    boot(&mut one, 0xbb);
    boot(&mut other, 0xbb);
    let (lock, file) = (dir.path().join("lock"), dir.path().join("part.key"));
    let chips = [one.socket(), other.socket()];
    let source = |all: &[&Provisioned]| {
        let slots: Vec<SlotPublic> = all.iter().flat_map(|made| slot_and_parts(&made.public)).collect();
        let index = TpmNvSource::new(&chips[0], &lock, Arc::new(OsDisk), clock(), Arc::new(OsEntropy)).among(&slots);
        let software = SoftwareSource::new(&file, Arc::new(OsDisk), Arc::new(OsEntropy));
        let parts = vec![
            Part::new(Box::new(index), LIMIT).under(eleven()),
            tpm_at(&chips[1], lock.clone()).under(PolicyRequest { pcrs: PcrSet::new([7, 11]).unwrap(), ..eleven() }),
            Part::new(Box::new(software), LIMIT),
        ];
        CombinedSource::threshold(2, parts, clock(), Arc::new(OsEntropy)).unwrap()
    };
    other.extend(7, 0x77);
    let old = source(&[]).provision(&PolicyRequest::default(), &NoAuth, later()).unwrap();
    let lacks = predict(&mut source(&[&old]), &old, &image(0xcc)).unwrap_err();
    let text = host::with_causes(&lacks);
    assert!(text.contains("part 2 of the combination, `tpm`") && text.contains("PCR 7 has no known value"), "{text}");
    let values = image(0xcc).with(7, after(0x77));
    let new = predict(&mut source(&[&old]), &old, &values).unwrap();
    assert!(differ_in_values_alone(&old.public, &new.public));
    let boot_both = |one: &mut Swtpm, other: &mut Swtpm, byte| {
        boot(one, byte);
        boot(other, byte);
        other.extend(7, 0x77);
    };
    for byte in [0xbb, 0xcc] {
        boot_both(&mut one, &mut other, byte);
        let (opens, closed) = if byte == 0xcc { (&new, &old) } else { (&old, &new) };
        let evidence = |slot: &Provisioned| source(&[&old, &new]).foresee(&slot.public, later());
        assert_eq!(evidence(opens).unwrap().left_out(), None, "{byte:#x}");
        assert!(evidence(closed).is_err(), "the file alone is not enough");
        let released = source(&[&old, &new]).release(&opens.public, &NoAuth, later()).unwrap();
        assert!(released.ikm.ct_eq(&opens.ikm), "{byte:#x}");
        assert!(released.evidence.left_out().is_some(), "one of the chips was enough");
    }
    // The new slot keeps the file, and what the chips keep for the old one goes.
    source(&[]).discard(&old.public, &[&new.public], &NoAuth, later()).unwrap();
    boot_both(&mut one, &mut other, 0xcc);
    assert!(source(&[&new]).release(&new.public, &NoAuth, later()).unwrap().ikm.ct_eq(&new.ikm));
    assert_eq!((one.nv_indices().len(), other.nv_indices().len()), (1, 1));
}
