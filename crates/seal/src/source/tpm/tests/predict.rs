//! Slots for a state that the device is not in yet, and in the place of others.

use super::between::{Between, Lying, PCR_READ};
use super::kept::NotToBeAsked;
use super::*;
use crate::source::differ_in_values_alone;

/// What the next image measures: another kernel, the same firmware.
fn next_image() -> PcrValues {
    PcrValues::new([(7, after(0x77)), (11, after(0xcc))])
}

fn boot_next(device: &mut Device) {
    device.tpm.reboot();
    device.tpm.extend(7, 0x77);
    device.tpm.extend(11, 0xcc);
}

fn predict(device: &Device, slot: &SlotPublic) -> Result<Provisioned, SourceError> {
    device.source().predict(slot, &next_image(), &NoAuth, soon())
}

#[test]
fn a_slot_for_the_next_image_opens_in_it_and_the_old_one_in_the_old() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let old = device.provision(&limited(2)).unwrap();
        // In a boot that has begun its releases, as a device that runs has.
        device.release(&old.public).unwrap();
        let new = predict(&device, &old.public).unwrap();
        assert!(differ_in_values_alone(&old.public, &new.public));
        assert!(!new.ikm.ct_eq(&old.ikm));
        assert!(matches!(device.release(&new.public), Err(SourceError::PolicyMismatch { .. })), "not yet");
        assert_eq!(device.release(&old.public).unwrap().remaining_this_boot, Some(0), "and nothing was counted");

        boot_next(&mut device);
        assert!(matches!(device.release(&old.public), Err(SourceError::PolicyMismatch { .. })));
        assert!(device.release(&new.public).unwrap().ikm.ct_eq(&new.ikm));
        assert_eq!(device.release(&new.public).unwrap().remaining_this_boot, Some(0));
        assert!(matches!(device.release(&new.public), Err(SourceError::Exhausted { .. })), "the limit holds");

        device.reboot();
        assert!(device.release(&old.public).unwrap().ikm.ct_eq(&old.ikm), "back to the old image");

        device.tpm.reboot();
        device.tpm.extend(7, 0x77);
        device.tpm.extend(11, 0xdd);
        for slot in [&old.public, &new.public] {
            assert!(matches!(device.release(slot), Err(SourceError::PolicyMismatch { .. })), "neither image");
        }
    }
}

/// As with `after_close`: no release is left, and none is needed.
#[test]
fn a_tpm_that_was_closed_in_this_boot_makes_a_slot_for_the_next() {
    for source in SOURCES {
        let Some(mut device) = Device::new() else { return };
        let mut tpm = source(&device, device.tpm.socket());
        let old = tpm.provision(&limited(1), &NoAuth, soon()).unwrap().public;
        assert!(tpm.close(&old, soon()).unwrap().is_until_reboot());
        let new = tpm.predict(&old, &next_image(), &NoAuth, soon()).unwrap();
        boot_next(&mut device);
        assert!(tpm.release(&new.public, &NoAuth, soon()).unwrap().ikm.ct_eq(&new.ikm));
    }
}

#[test]
fn a_pin_and_a_window_are_taken_over() {
    let Some(mut device) = Device::new() else { return };
    let pin = device.pin_file("1234");
    let policy = PolicyRequest { pin: true, window: Some(Duration::from_secs(600)), ..limited(3) };
    let old = device.source().provision(&policy, &pin, soon()).unwrap();
    assert!(matches!(predict(&device, &old.public), Err(SourceError::NoPin { .. })));
    let new = device.source().predict(&old.public, &next_image(), &pin, soon()).unwrap();
    boot_next(&mut device);
    assert!(matches!(device.release(&new.public), Err(SourceError::NoPin { .. })));
    assert!(device.source().release(&new.public, &pin, soon()).unwrap().ikm.ct_eq(&new.ikm));
    assert_eq!(TpmSlot::read(&new.public).unwrap().policy.state.window, policy.window);
}

#[test]
fn values_that_are_missing_or_say_nothing() {
    let (Some(device), Some(other)) = (Device::new(), Device::new()) else { return };
    let old = device.provision(&limited(1)).unwrap().public;
    let refused = |values: PcrValues| match device.source().predict(&old, &values, &NoAuth, soon()) {
        Err(SourceError::PolicyEmpty { defect }) => defect,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(PcrValues::new([(7, after(0x77))])), "PCR 11 has no known value");
    let zeros = "PCR 11 was never extended: nothing is measured into it on this device";
    assert_eq!(refused(next_image().with(11, [0; 32])), zeros);
    assert!(matches!(predict(&other, &old), Err(SourceError::WrongDevice { .. })), "on another TPM");
}

#[test]
fn a_slot_is_made_anew_in_a_boot_whose_releases_have_begun() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let old = device.provision(&limited(2)).unwrap();
        boot_next(&mut device);
        assert!(matches!(device.release(&old.public), Err(SourceError::PolicyMismatch { .. })));
        let beside = |device: &Device, policy| {
            device.source().provision_beside(&old.public, Board::Same, &policy, &NoAuth, soon())
        };
        let new = beside(&device, limited(2)).unwrap();
        assert_eq!(device.release(&new.public).unwrap().remaining_this_boot, Some(1));
        assert!(matches!(device.provision(&limited(2)), Err(SourceError::Exhausted { .. })));
        let again = beside(&device, limited(2)).unwrap();
        assert_eq!(device.release(&again.public).unwrap().remaining_this_boot, Some(0), "both count together");
        assert!(differ_in_values_alone(&again.public, &new.public));
        // Another limit is another gate.
        assert!(matches!(beside(&device, limited(3)), Err(SourceError::Exhausted { .. })));
        boot_next(&mut device);
        assert!(device.release(&again.public).unwrap().ikm.ct_eq(&again.ikm));
    }
}

/// Who counts is part of what a slot is made anew for: one that is counted otherwise is no model for it.
#[test]
fn a_slot_made_anew_is_counted_as_is_wanted() {
    for (was, wanted) in [(Counting::Gate, Counting::Index), (Counting::Index, Counting::Gate)] {
        let Some(mut device) = Device::counting(was) else { return };
        let old = device.provision(&limited(2)).unwrap();
        let beside = |device: &Device, counting| {
            let source = device.source().counting(counting);
            let counter = |slot: &SlotPublic| TpmSlot::read(slot).unwrap().policy.gate.unwrap().counter;
            let mut source = source;
            source
                .provision_beside(&old.public, Board::Same, &limited(2), &NoAuth, soon())
                .map(|made| (counter(&made.public) == counter(&old.public), counter(&made.public).is_some()))
        };
        assert_eq!(beside(&device, was).unwrap(), (true, was == Counting::Index));
        assert_eq!(beside(&device, Counting::Best).unwrap(), (true, was == Counting::Index), "as it was");
        assert_eq!(beside(&device, wanted).unwrap(), (false, wanted == Counting::Index));
        // In a boot whose releases have begun there is no new gate, and so no such slot.
        device.reboot();
        device.release(&old.public).unwrap();
        assert!(matches!(beside(&device, wanted), Err(SourceError::Exhausted { .. })));
    }
}

#[test]
fn another_tpm_gets_no_pin_and_no_slot_unless_somebody_says_so() {
    for (source, counting) in
        [(SOURCES[0], Counting::Index), (SOURCES[0], Counting::Gate), (SOURCES[1], Counting::Gate)]
    {
        let (Some(device), Some(other)) = (Device::counting(counting), Device::counting(counting)) else { return };
        let at = |of: &Device| source(of, of.tpm.socket());
        let pin = device.pin_file("1234");
        let policy = PolicyRequest { pin: true, ..limited(1) };
        let old = at(&device).provision(&policy, &pin, soon()).unwrap().public;
        // Under another limit it would be made from nothing: on this TPM all the same.
        for policy in [&policy, &PolicyRequest { pin: true, ..measured() }] {
            let refused = at(&other).provision_beside(&old, Board::Same, policy, &NotToBeAsked, soon());
            let Err(SourceError::WrongDevice { found, expected, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!((Some(expected), found.len()), (storage_key(&old), 32));
        }
        let moved = at(&other).provision_beside(&old, Board::Any, &policy, &pin, soon()).unwrap();
        assert!(at(&other).release(&moved.public, &pin, soon()).unwrap().ikm.ct_eq(&moved.ikm));
        assert_ne!(storage_key(&moved.public), storage_key(&old));
        let same = at(&device).provision_beside(&old, Board::Any, &policy, &pin, soon()).unwrap();
        assert_eq!(storage_key(&same.public), storage_key(&old), "what has not changed is not made another");
    }
}

/// The registers of another image, in every answer: the slot would open for that one.
#[test]
fn the_bus_does_not_choose_what_a_slot_opens_for() {
    for (source, counting) in
        [(SOURCES[0], Counting::Index), (SOURCES[0], Counting::Gate), (SOURCES[1], Counting::Gate)]
    {
        let Some(device) = Device::counting(counting) else { return };
        let old = source(&device, device.tpm.socket()).provision(&limited(1), &NoAuth, soon()).unwrap().public;
        let (true_value, lie) = (after(0xbb), after(0x66));
        let bus = Between::new(
            &device.tpm,
            Lying(move |c, mut answer: Vec<u8>| {
                if c == PCR_READ
                    && let Some(at) = answer.windows(32).position(|w| w == true_value)
                {
                    answer[at..at + 32].copy_from_slice(&lie);
                }
                answer
            }),
        );
        for made in [
            source(&device, bus.socket()).provision_beside(&old, Board::Same, &limited(1), &NoAuth, soon()),
            source(&device, bus.socket()).provision(&measured(), &NoAuth, soon()),
        ] {
            assert!(matches!(made, Err(SourceError::Tampered { .. })), "{made:?}");
        }
        drop(bus);
        source(&device, device.tpm.socket()).provision_beside(&old, Board::Same, &limited(1), &NoAuth, soon()).unwrap();
    }
}
