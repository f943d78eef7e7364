//! Something is measured in the middle of a release: not into a register that the slot looks at, and not by anybody who
//! means harm.

use std::sync::atomic::{AtomicU32, Ordering};

use super::between::{Between, Bus, NV_READ, NV_WRITE, UNSEAL, code};
use super::*;
use crate::source::{AuthError, AuthRequest, Remedy};

/// Extends register 10, as IMA does, before each of the first commands of a kind.
struct Measuring {
    before: u32,
    left: AtomicU32,
}

impl Measuring {
    fn new(before: u32, times: u32) -> Self {
        Self { before, left: AtomicU32::new(times) }
    }
}

impl Bus for Measuring {
    fn before(&self, command: &[u8]) -> Option<Vec<u8>> {
        if code(command) != self.before {
            return None;
        }
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()?;
        let extend = "800200000041 00000182 0000000a 00000009 40000009 0000 00 0000 00000001 000b".replace(' ', "");
        Some([hex::decode(extend).unwrap(), vec![0x10; 32]].concat())
    }
}

/// Counts how often it is asked.
struct Asked<'a>(&'a dyn Auth, AtomicU32);

impl Auth for Asked<'_> {
    fn pin(&self, request: &AuthRequest<'_>) -> Result<secret::SecretBytes, AuthError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.pin(request)
    }
}

/// A PIN and a window too: the one is asked for once, and the other is not taken for closed.
fn with_everything(releases: Option<u8>) -> PolicyRequest {
    let window = Some(Duration::from_secs(600));
    PolicyRequest { pin: true, window, releases_per_boot: releases.and_then(NonZeroU8::new), ..measured() }
}

fn text_of(released: &Released) -> String {
    released.evidence.0.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[test]
fn a_release_that_is_not_counted_yet_is_begun_again() {
    // Who counts, how often, where it is disturbed, what is left then.
    for (source, counting, limit, before, left) in [
        (SOURCES[0], Counting::Gate, None, UNSEAL, None),
        (SOURCES[0], Counting::Gate, Some(1), UNSEAL, Some(0)),
        (SOURCES[0], Counting::Gate, Some(3), UNSEAL, Some(2)),
        (SOURCES[0], Counting::Index, Some(3), NV_WRITE, Some(2)),
        (SOURCES[1], Counting::Gate, None, NV_READ, None),
        (SOURCES[1], Counting::Gate, Some(1), NV_READ, Some(0)),
    ] {
        let Some(device) = Device::counting(counting) else { return };
        let pin = device.pin_file("1234");
        // While the slot is made too.
        let bus = Between::new(&device.tpm, Measuring::new(if before == NV_WRITE { UNSEAL } else { before }, 2));
        let made = source(&device, bus.socket()).provision(&with_everything(limit), &pin, soon()).unwrap();
        drop(bus);
        let bus = Between::new(&device.tpm, Measuring::new(before, 3));
        let asked = Asked(&pin, AtomicU32::new(0));
        let released = source(&device, bus.socket()).release(&made.public, &asked, soon()).unwrap();
        assert!(released.ikm.ct_eq(&made.ikm));
        assert_eq!(released.remaining_this_boot, left, "{counting:?} {limit:?}");
        assert_eq!(asked.1.load(Ordering::SeqCst), 1, "the PIN serves every attempt");
        assert!(!text_of(&released).contains("in vain"));
    }
}

#[test]
fn a_release_that_was_counted_takes_one_more_and_says_so() {
    let Some(mut device) = Device::new() else { return };
    let pin = device.pin_file("1234");
    let Provisioned { public, ikm } = device.source().provision(&with_everything(Some(4)), &pin, soon()).unwrap();
    let release = |device: &Device, times| {
        let bus = Between::new(&device.tpm, Measuring::new(UNSEAL, times));
        device.source_at(bus.socket(), Some(13)).release(&public, &pin, soon())
    };
    let released = release(&device, 1).unwrap();
    assert!(released.ikm.ct_eq(&ikm));
    assert_eq!(released.remaining_this_boot, Some(2), "two are spent");
    assert!(text_of(&released).contains("one was spent in vain, since a register was extended meanwhile"));
    // Disturbed again, it is left to whoever asks whether the last ones are to go the same way.
    let e = release(&device, u32::MAX).unwrap_err();
    assert!(matches!(e, SourceError::Disturbed { counted: true, .. }), "{e:?}");
    assert_eq!(e.remedy(), Remedy::Retry);
    assert!(e.to_string().ends_with("since a register was extended meanwhile; it has counted a release all the same"));
    assert!(matches!(release(&device, 0), Err(SourceError::Exhausted { .. })));
    let failed = device.source().chip.open(soon()).unwrap().read_lockout().unwrap().failed;
    assert_eq!(failed, 0, "no PIN was held wrong for it");

    device.reboot();
    let Provisioned { public, .. } = device.provision(&limited(1)).unwrap();
    let bus = Between::new(&device.tpm, Measuring::new(UNSEAL, 1));
    let e = device.source_at(bus.socket(), Some(13)).release(&public, &NoAuth, soon()).unwrap_err();
    assert!(matches!(e, SourceError::Exhausted { .. }), "{e:?}");
    assert!(e.to_string().contains("one of them was spent in vain, since a register was extended meanwhile"), "{e}");
}

#[test]
fn a_storm_of_measurements_costs_the_deadline_and_nothing_else() {
    let Some(device) = Device::counting(Counting::Gate) else { return };
    let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
    let bus = Between::new(&device.tpm, Measuring::new(UNSEAL, u32::MAX));
    let mut source = device.source_at(bus.socket(), Some(13));
    let e = source.release(&public, &NoAuth, within(Duration::from_secs(1))).unwrap_err();
    assert_eq!(e.remedy(), Remedy::Retry, "{e:?}");
    drop(bus);
    let gate = device.source().chip.open(soon()).unwrap().read_pcrs(PcrSet::new([13]).unwrap()).unwrap();
    assert_eq!(gate.value(13), Some(&[0; 32]), "no release is spent");
}
