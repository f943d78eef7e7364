//! The rules with parts that do as they are told; then real ones: a TPM with Tang servers, a key file with a hook.

mod fake;
mod predict;
mod real;

use std::num::NonZeroU8;

use ::tpm::PcrSet;
use host::{OsClock, OsEntropy};

use super::super::Remedy;
use super::super::contract::key_source_contract;
use super::*;
use fake::{Fake, Mood};

fn combined(rule: Rule, fakes: &[&Fake]) -> CombinedSource {
    let parts = fakes.iter().map(|fake| fake.part()).collect();
    CombinedSource::new(rule, parts, Arc::new(OsClock::new().unwrap()), Arc::new(OsEntropy)).unwrap()
}

fn soon() -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), Duration::from_secs(10))
}

fn provision(source: &mut CombinedSource, policy: &PolicyRequest) -> Result<Provisioned, SourceError> {
    source.provision(policy, &NoAuth, soon())
}

fn release(source: &mut CombinedSource, made: &Provisioned) -> Result<Released, SourceError> {
    source.release(&made.public, &NoAuth, soon())
}

/// By a source of its own: a part that was not waited for in one round may be at it still in the next, and would be
/// left out there.
fn release_anew(rule: Rule, fakes: &[&Fake], made: &Provisioned) -> Result<Released, SourceError> {
    release(&mut combined(rule, fakes), made)
}

fn limit(n: u8) -> PolicyRequest {
    PolicyRequest { releases_per_boot: NonZeroU8::new(n), ..PolicyRequest::default() }
}

#[test]
fn both_keep_to_the_contract() {
    let (tpm, tang) = (Fake::tpm(), Fake::tang());
    key_source_contract(&|| Box::new(combined(Rule::All, &[&tpm, &tang])), &limit(3), &NoAuth);
    let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
    let make = || Box::new(combined(Rule::Threshold(2), &[&tpm, &tang, &hook])) as Box<dyn KeySource>;
    key_source_contract(&make, &PolicyRequest::default(), &NoAuth);
}

#[test]
fn a_server_that_is_away_uses_no_release_up() {
    let (tpm, tang) = (Fake::tpm(), Fake::tang());
    let mut all = combined(Rule::All, &[&tpm, &tang]);
    let made = provision(&mut all, &limit(1)).unwrap();
    tang.becomes(Mood::Away);
    for _ in 0..5 {
        let e = release(&mut all, &made).unwrap_err();
        assert!(matches!(e, SourceError::TooFewParts { needed: 2, answered: 0, .. }), "{e}");
        assert_eq!(e.remedy(), Remedy::Retry);
    }
    assert_eq!(tpm.released(), 0, "the part that counts is asked last");
    tang.becomes(Mood::Well);
    let released = release(&mut all, &made).unwrap();
    assert!(released.ikm.ct_eq(&made.ikm));
    assert_eq!((released.remaining_this_boot, tpm.released()), (Some(0), 1), "and once");
}

#[test]
fn a_server_that_is_away_costs_no_try_of_a_pin() {
    let (card, tang) = (Fake::card(), Fake::tang());
    let mut all = combined(Rule::All, &[&card, &tang]);
    let pin = PolicyRequest { pin: true, ..PolicyRequest::default() };
    let made = provision(&mut all, &pin).unwrap();
    tang.becomes(Mood::Away);
    release(&mut all, &made).unwrap_err();
    assert_eq!(card.released(), 0);
    tang.becomes(Mood::Well);
    card.becomes(Mood::WrongPin);
    let e = release(&mut all, &made).unwrap_err();
    assert_eq!((e.remedy(), e.to_string().as_str()), (Remedy::Operator, "part 1 of the combination, `pkcs11`"));
    assert!(
        matches!(e, SourceError::Part { number: 1, source, .. } if matches!(*source, SourceError::AuthFailed { .. }))
    );
}

#[test]
fn no_release_is_spent_where_another_part_that_counts_is_not_there() {
    let (one, other) = (Fake::tpm(), Fake::tpm());
    let mut all = combined(Rule::All, &[&one, &other]);
    let made = provision(&mut all, &limit(1)).unwrap();
    other.becomes(Mood::Away);
    assert_eq!(release(&mut all, &made).unwrap_err().remedy(), Remedy::Retry);
    assert_eq!((one.released(), other.released()), (0, 0));
    other.becomes(Mood::Well);
    assert!(release(&mut all, &made).unwrap().ikm.ct_eq(&made.ikm));
}

#[test]
fn any_two_of_three_give_the_key_and_one_does_not() {
    let fakes = [Fake::tang(), Fake::exec(), Fake::credential()];
    let release = |made| release_anew(Rule::Threshold(2), &fakes.each_ref(), made);
    let made = provision(&mut combined(Rule::Threshold(2), &fakes.each_ref()), &PolicyRequest::default()).unwrap();
    for away in &fakes {
        away.becomes(Mood::Away);
        assert!(release(&made).unwrap().ikm.ct_eq(&made.ikm));
        away.becomes(Mood::Well);
    }
    fakes[0].becomes(Mood::Away);
    fakes[1].becomes(Mood::Away);
    let e = release(&made).unwrap_err();
    assert_eq!(
        e.to_string(),
        "1 of the 2 parts that are needed have given key material: part 1 (tang): a fake cannot be reached: it is away; \
         part 2 (exec): a fake cannot be reached: it is away"
    );
}

#[test]
fn a_part_that_counts_is_left_alone_where_the_others_are_enough() {
    let fakes = [Fake::tpm(), Fake::tang(), Fake::exec()];
    let mut two = combined(Rule::Threshold(2), &fakes.each_ref());
    fakes[0].limits(1);
    let made = provision(&mut two, &PolicyRequest::default()).unwrap();
    release(&mut two, &made).unwrap();
    assert_eq!(fakes[0].released(), 0);
    fakes[2].becomes(Mood::Away);
    release(&mut two, &made).unwrap();
    assert_eq!(fakes[0].released(), 1);
    fakes[1].becomes(Mood::Away);
    release(&mut two, &made).unwrap_err();
    assert_eq!(fakes[0].released(), 1, "it alone would not be enough");
}

#[test]
fn a_part_that_hangs_is_not_waited_for_where_the_others_are_enough() {
    let fakes = [Fake::tang(), Fake::exec(), Fake::credential()];
    let mut two = combined(Rule::Threshold(2), &fakes.each_ref());
    let made = provision(&mut two, &PolicyRequest::default()).unwrap();
    let hanging = fakes[0].hang();
    assert!(release(&mut two, &made).unwrap().ikm.ct_eq(&made.ikm));
    // The next round finds it still at the last one.
    assert!(release(&mut two, &made).unwrap().ikm.ct_eq(&made.ikm));
    drop(hanging);
}

#[test]
fn a_part_that_lies_is_named_and_does_not_stop_the_others() {
    let fakes = [Fake::tang(), Fake::exec(), Fake::credential()];
    let release = |made| release_anew(Rule::Threshold(2), &fakes.each_ref(), made);
    let made = provision(&mut combined(Rule::Threshold(2), &fakes.each_ref()), &PolicyRequest::default()).unwrap();
    fakes[1].becomes(Mood::Lying);
    assert!(release(&made).unwrap().ikm.ct_eq(&made.ikm));
    fakes[0].becomes(Mood::Away);
    let e = release(&made).unwrap_err();
    assert_eq!(e.remedy(), Remedy::Retry, "the server may come back");
    fakes[0].becomes(Mood::Lying);
    let e = release(&made).unwrap_err();
    assert!(
        matches!(&e, SourceError::Part { source, .. } if matches!(**source, SourceError::OtherKey { .. })),
        "{e:?}"
    );
    assert_eq!(e.remedy(), Remedy::Operator);
}

#[test]
fn a_changed_device_is_no_reason_to_give_up_while_a_server_may_come_back() {
    let fakes = [Fake::tpm(), Fake::tang(), Fake::exec()];
    let mut two = combined(Rule::Threshold(2), &fakes.each_ref());
    let made = provision(&mut two, &PolicyRequest::default()).unwrap();
    fakes[0].becomes(Mood::Changed);
    fakes[1].becomes(Mood::Away);
    assert_eq!(release(&mut two, &made).unwrap_err().remedy(), Remedy::Retry);
    let mut all = combined(Rule::All, &[&fakes[0], &fakes[2]]);
    fakes[0].becomes(Mood::Well);
    let made = provision(&mut all, &PolicyRequest::default()).unwrap();
    fakes[0].becomes(Mood::Changed);
    let e = release(&mut all, &made).unwrap_err();
    assert!(matches!(&e, SourceError::Part { source, .. } if matches!(**source, SourceError::PolicyMismatch { .. })));
    assert_eq!(e.remedy(), Remedy::Operator);
}

/// The policy goes to whoever can enforce it, and nothing is promised that too few parts can keep.
#[test]
fn a_policy_holds_whichever_parts_are_used_or_is_refused() {
    let pcrs = PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..PolicyRequest::default() };
    let pin = PolicyRequest { pin: true, ..PolicyRequest::default() };
    let window = PolicyRequest { window: Some(Duration::from_secs(60)), ..PolicyRequest::default() };
    let wishes = [("pcrs", &pcrs), ("pin", &pin), ("window", &window), ("releases_per_boot", &limit(1))];
    let outcome = |rule, fakes: &[&Fake], wish: &PolicyRequest| match provision(&mut combined(rule, fakes), wish) {
        Ok(_) => None,
        Err(SourceError::PolicyUnenforceable { what, .. }) => Some(what),
        Err(e) => panic!("{e}"),
    };
    let (tpm, other, tang, hook) = (Fake::tpm(), Fake::tpm(), Fake::tang(), Fake::exec());
    for (what, wish) in wishes {
        assert_eq!(outcome(Rule::All, &[&tang, &hook], wish), Some(what), "nobody can");
        assert_eq!(outcome(Rule::Threshold(2), &[&tpm, &tang, &hook], wish), Some(what), "it holds for some only");
        assert_eq!(outcome(Rule::All, &[&tpm, &tang], wish), None);
        assert_eq!(tpm.policy(), Some(wish.clone()), "{what} has come to the part that can");
        assert_eq!(tang.policy(), Some(PolicyRequest::default()));
        let expected = Some(what).filter(|what| *what == "releases_per_boot");
        // Whichever two are used, one of them can; but two that count would together give more than was agreed.
        assert_eq!(outcome(Rule::Threshold(2), &[&tpm, &other, &hook], wish), expected);
    }
}

#[test]
fn a_parts_own_policy_is_joined_to_what_is_asked_of_all() {
    let (tpm, tang) = (Fake::tpm(), Fake::tang());
    let own = PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..limit(2) };
    let parts = vec![tpm.part().under(own), tang.part()];
    let clock = Arc::new(OsClock::new().unwrap());
    let mut all = CombinedSource::all(parts, clock, Arc::new(OsEntropy)).unwrap();
    let asked = PolicyRequest { pcrs: PcrSet::new([11]).unwrap(), ..limit(3) };
    provision(&mut all, &asked).unwrap();
    assert_eq!(tpm.policy(), Some(PolicyRequest { pcrs: PcrSet::new([7, 11]).unwrap(), ..limit(2) }));
}

#[test]
fn one_source_under_two_names_is_refused() {
    let (one, same) = (Fake::exec(), Fake::exec());
    same.gives(one.octets());
    for rule in [Rule::All, Rule::Threshold(1)] {
        let refused = provision(&mut combined(rule, &[&one, &same]), &PolicyRequest::default()).unwrap_err();
        assert!(refused.to_string().contains("parts 2 and 1 give the same key material"), "{refused}");
    }
    assert_eq!((one.discarded().len(), same.discarded().len()), (2, 2), "and each takes back what it has made");
}

/// Otherwise each try would leave something more in the hardware.
#[test]
fn what_was_made_is_taken_back_when_another_part_fails() {
    for rule in [Rule::All, Rule::Threshold(1)] {
        let (tpm, hook) = (Fake::tpm(), Fake::exec());
        let mut both = combined(rule, &[&tpm, &hook]);
        let used = provision(&mut both, &PolicyRequest::default()).unwrap().public;
        assert!(tpm.discarded().is_empty());
        hook.becomes(Mood::Away);
        let refused = provision(&mut both, &PolicyRequest::default()).unwrap_err();
        assert!(matches!(refused, SourceError::Part { number: 2, .. }), "{refused}");
        assert_eq!((tpm.discarded(), hook.discarded()), (vec![vec![]], vec![]));
        // What it shares with a slot in use stays.
        let made = both.provision_beside(&used, Board::Same, &PolicyRequest::default(), &NoAuth, soon());
        assert!(made.is_err());
        assert_eq!(tpm.discarded()[1], [SourceKind::Tpm, SourceKind::Exec]);
    }
}

#[test]
fn a_threshold_says_what_it_has_left_where_a_part_has_counted() {
    let (tpm, hook, credential) = (Fake::tpm(), Fake::exec(), Fake::credential());
    tpm.limits(2);
    let mut two = combined(Rule::Threshold(2), &[&tpm, &hook, &credential]);
    let made = provision(&mut two, &PolicyRequest::default()).unwrap();
    assert!(made.public.release_limit().is_none() && may_count(&made.public));
    let left = |two: &mut CombinedSource| release(two, &made).unwrap().remaining_this_boot;
    assert_eq!(left(&mut two), None, "the others were enough");
    credential.becomes(Mood::Away);
    assert_eq!((left(&mut two), left(&mut two)), (Some(1), Some(0)));
    credential.becomes(Mood::Well);
    assert_eq!(left(&mut two), None);
    let free = provision(&mut combined(Rule::Threshold(1), &[&hook, &credential]), &PolicyRequest::default()).unwrap();
    assert!(!may_count(&free.public));
}

#[test]
fn parts_are_made_servers_first_and_files_last() {
    let (file, tpm, tang) = (Fake::software(), Fake::tpm(), Fake::tang());
    tang.becomes(Mood::Away);
    let mut all = combined(Rule::All, &[&file, &tpm, &tang]);
    let e = provision(&mut all, &PolicyRequest::default()).unwrap_err();
    assert!(matches!(e, SourceError::Part { number: 3, .. }) && e.remedy() == Remedy::Retry, "{e}");
    assert_eq!((file.policy(), tpm.policy()), (None, None), "nothing was begun");
}

#[test]
fn closed_when_too_few_parts_go_on() {
    let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
    for (rule, closed) in [(Rule::All, true), (Rule::Threshold(3), true), (Rule::Threshold(2), false)] {
        let mut source = combined(rule, &[&tpm, &tang, &hook]);
        tpm.limits(8);
        let made = provision(&mut source, &PolicyRequest::default()).unwrap();
        assert_eq!(source.close(&made.public, soon()).unwrap().is_until_reboot(), closed, "{rule:?}");
        tpm.reboots();
    }
}

/// One part that is destroyed ends a combination that needs it.
#[test]
fn a_combination_is_gone_when_too_few_parts_are_left() {
    for (rule, gone) in [(Rule::All, true), (Rule::Threshold(2), true), (Rule::Threshold(1), false)] {
        let (tpm, tang) = (Fake::tpm(), Fake::tang());
        let mut source = combined(rule, &[&tpm, &tang]);
        let made = provision(&mut source, &PolicyRequest::default()).unwrap().public;
        assert!(
            matches!(source.left_of(&made, &NoAuth, soon()), Ok(Left::Copies(_))),
            "{rule:?}: nothing was destroyed"
        );
        source.discard(&made, &[], &NoAuth, soon()).unwrap();
        assert_eq!(matches!(source.left_of(&made, &NoAuth, soon()).unwrap(), Left::Nothing(_)), gone, "{rule:?}");
        tpm.becomes(Mood::Away);
        assert!(source.left_of(&made, &NoAuth, soon()).is_err(), "{rule:?}: who does not answer is not gone");
    }
}

/// What a TPM keeps for a slot is destroyed with it, unless a slot that stays needs it, by itself or as a part.
#[test]
fn what_is_kept_for_a_slot_goes_with_it() {
    let (tpm, tang) = (Fake::tpm(), Fake::tang());
    let mut all = combined(Rule::All, &[&tpm, &tang]);
    let made = provision(&mut all, &PolicyRequest::default()).unwrap().public;
    let stays = provision(&mut all, &PolicyRequest::default()).unwrap().public;
    all.discard(&made, &[&stays, &SlotPublic::bare(SourceKind::Exec)], &NoAuth, soon()).unwrap();
    let seen = [SourceKind::All, SourceKind::Tpm, SourceKind::Tang, SourceKind::Exec];
    assert_eq!((tpm.discarded(), tang.discarded()), (vec![seen.to_vec()], vec![seen.to_vec()]));
    tpm.becomes(Mood::Away);
    assert!(all.discard(&made, &[], &NoAuth, soon()).is_err());
    assert_eq!(tang.discarded().len(), 2, "the others are destroyed all the same");
}

#[test]
fn a_slot_made_beside_another_is_made_beside_its_parts() {
    let (tpm, tang) = (Fake::tpm(), Fake::tang());
    let mut all = combined(Rule::All, &[&tpm, &tang]);
    let made = provision(&mut all, &limit(2)).unwrap();
    assert_eq!(tpm.made_beside(), 0);
    all.provision_beside(&made.public, Board::Same, &limit(2), &NoAuth, soon()).unwrap();
    assert_eq!((tpm.made_beside(), tang.made_beside()), (1, 1));
}

#[test]
fn a_slot_of_other_parts_is_refused() {
    let (tpm, tang, hook) = (Fake::tpm(), Fake::tang(), Fake::exec());
    let made = provision(&mut combined(Rule::All, &[&tpm, &tang]), &PolicyRequest::default()).unwrap();
    for (rule, fakes) in [
        (Rule::All, &[&tang, &tpm][..]),
        (Rule::All, &[&tpm, &hook]),
        (Rule::All, &[&tpm, &tang, &hook]),
        (Rule::Threshold(2), &[&tpm, &tang]),
    ] {
        let refused = release(&mut combined(rule, fakes), &made).unwrap_err();
        assert!(matches!(refused, SourceError::OtherSlot { .. }), "{refused}");
    }
    assert_eq!(tpm.released(), 0);
}

#[test]
fn combinations_that_are_none() {
    use SourceKind::{All, Exec, Recovery, Tang, Threshold, Tpm};
    assert_eq!(check_parts(&[Tpm, Tang], None), Ok(()));
    assert_eq!(check_parts(&[Tpm], None), Err(CombinedSetupError::Parts { count: 1 }));
    assert_eq!(check_parts(&[Exec; 9], Some(2)), Err(CombinedSetupError::Parts { count: 9 }));
    for threshold in [0, 3] {
        let expected = Err(CombinedSetupError::Threshold { threshold, count: 2 });
        assert_eq!(check_parts(&[Tpm, Tang], Some(threshold)), expected);
    }
    for kind in [All, Threshold, Recovery] {
        assert_eq!(check_parts(&[Tpm, kind], None), Err(CombinedSetupError::Kind { number: 2, kind }));
    }
}
