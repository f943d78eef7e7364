//! What every source must do, whatever it is made of: one body of tests, run against the real thing.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]
#![allow(clippy::disallowed_methods)] // real time is what is measured

use std::num::NonZeroU8;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::tpm::PcrSet;
use host::OsClock;
use secret::SecretBytes;

use super::*;

/// Who has the PIN, and how often he was asked.
struct Counted<'a> {
    auth: &'a dyn Auth,
    asked: AtomicUsize,
}

impl Auth for Counted<'_> {
    fn pin(&self, request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.auth.pin(request)
    }
}

/// Runs the suite. `make` gives the source anew, as a restart of edgekeep does; each value that it gives speaks to the
/// same device. `policy` must allow three releases in this boot, or not count them.
pub fn key_source_contract(make: &dyn Fn() -> Box<dyn KeySource>, policy: &PolicyRequest, auth: &dyn Auth) {
    let kind = make().kind();
    let can = make().capabilities();
    assert_eq!(make().capabilities(), can, "what a source can do does not depend on what was asked before");

    for (what, wish) in beyond(&can) {
        match make().provision(&wish, auth, soon()) {
            Err(SourceError::PolicyUnenforceable { kind: k, what: w }) => assert_eq!((k, w), (kind, what)),
            other => panic!("{kind} takes a policy that it cannot hold to: {what}: {other:?}"),
        }
    }
    let Provisioned { public, ikm } = make().provision(policy, auth, at_leisure()).expect("a good policy is taken");
    assert_eq!(public.kind(), kind);
    assert_eq!(public.release_limit(), policy.releases_per_boot);

    for _ in 0..3 {
        make().probe(soon()).expect("a source that was provisioned can be probed");
    }
    let evidence = make().probe(soon()).unwrap();
    let mut left = policy.releases_per_boot.map(NonZeroU8::get);
    for _ in 0..3 {
        for _ in 0..2 {
            let foreseen = make().foresee(&public, soon()).expect("what is about to be released is foreseen");
            let said = foreseen.releases_left();
            assert!(
                said.is_none() || said == left,
                "{kind} says what is left, and takes nothing of it: {said:?}, {left:?}"
            );
        }
        let counted = Counted { auth, asked: AtomicUsize::new(0) };
        let released = make().release(&public, &counted, soon()).expect("probing has used nothing up");
        assert!(counted.asked.into_inner() <= usize::from(policy.pin), "{kind} asks for its PIN again");
        left = left.map(|n| n - 1);
        assert!(released.ikm.ct_eq(&ikm), "{kind} gives what it was provisioned with");
        assert_eq!(released.remaining_this_boot, left);
        for (_, value) in evidence.0.iter().chain(&released.evidence.0) {
            assert!(!value.contains(&hex::encode(ikm.expose())), "{kind} shows its key material");
        }
    }
    let other = if kind == SourceKind::Exec { SourceKind::Software } else { SourceKind::Exec };
    match make().release(&SlotPublic::bare(other), auth, soon()) {
        Err(SourceError::OtherSlot { kind: k }) => assert_eq!(k, kind),
        other => panic!("{kind} opens a slot of another kind: {other:?}"),
    }
    match make().foresee(&SlotPublic::bare(other), soon()) {
        Err(SourceError::OtherSlot { kind: k }) => assert_eq!(k, kind),
        other => panic!("{kind} foresees a slot of another kind: {other:?}"),
    }
    // A slot of the right kind without what it needs, or with another device's.
    if !matches!(kind, SourceKind::Exec) {
        assert!(make().release(&SlotPublic::bare(kind), auth, soon()).is_err(), "{kind} opens an empty slot");
    }

    // No time is left: it does not take any, and nobody is called for what may pass.
    let begun = Instant::now();
    let late = Deadline::after(&OsClock::new().unwrap(), Duration::ZERO);
    for refused in [make().release(&public, auth, late).err(), make().foresee(&public, late).err()] {
        let remedy = refused.map(|e| e.remedy());
        assert!(matches!(remedy, None | Some(Remedy::Retry | Remedy::Reboot)), "{kind}: {remedy:?}");
    }
    assert!(begun.elapsed() < HOOK_LIMIT / 2, "{kind} took {:?} after its deadline", begun.elapsed());

    let closed = make().close(&public, soon()).expect("it can be closed");
    assert_eq!(make().close(&public, soon()).expect("it can be closed again"), closed);
    assert_eq!(make().release(&public, auth, soon()).is_err(), closed.is_until_reboot());
    assert_eq!(make().foresee(&public, soon()).is_err(), closed.is_until_reboot());
    make().probe(soon()).expect("what is closed can be probed");
}

/// A policy for each thing that the source does not claim.
fn beyond(can: &Capabilities) -> Vec<(&'static str, PolicyRequest)> {
    let mut wishes = Vec::new();
    if !can.measured {
        wishes.push(("pcrs", PolicyRequest { pcrs: PcrSet::new([7]).unwrap(), ..Default::default() }));
    }
    let more = NonZeroU8::new(can.most_releases_per_boot.saturating_add(1));
    wishes.push(("releases_per_boot", PolicyRequest { releases_per_boot: more, ..Default::default() }));
    if !can.time_window {
        wishes.push(("window", PolicyRequest { window: Some(Duration::from_secs(60)), ..Default::default() }));
    }
    if !can.pin {
        wishes.push(("pin", PolicyRequest { pin: true, ..Default::default() }));
    }
    wishes
}

fn soon() -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), HOOK_LIMIT)
}

/// What makes a key first may search long for its primes, the longer beside other work: how fast is not asked here.
fn at_leisure() -> Deadline {
    Deadline::after(&OsClock::new().unwrap(), Duration::from_secs(60))
}
