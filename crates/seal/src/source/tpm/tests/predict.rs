//! Slots for a state that the device is not in yet.

use super::*;

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
        assert!(TpmSource::differ_in_values_alone(&old.public, &new.public));
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
        let beside = |device: &Device, policy| device.source().provision_beside(&old.public, &policy, &NoAuth, soon());
        let new = beside(&device, limited(2)).unwrap();
        assert_eq!(device.release(&new.public).unwrap().remaining_this_boot, Some(1));
        assert!(matches!(device.provision(&limited(2)), Err(SourceError::Exhausted { .. })));
        let again = beside(&device, limited(2)).unwrap();
        assert_eq!(device.release(&again.public).unwrap().remaining_this_boot, Some(0), "both count together");
        assert!(TpmSource::differ_in_values_alone(&again.public, &new.public));
        // Another limit is another gate; another TPM has nothing in common with this one.
        assert!(matches!(beside(&device, limited(3)), Err(SourceError::Exhausted { .. })));
        let other = Device::counting(counting).unwrap();
        let moved = beside(&other, limited(2)).unwrap();
        assert!(other.release(&moved.public).unwrap().ikm.ct_eq(&moved.ikm));
        assert!(!TpmSource::differ_in_values_alone(&moved.public, &new.public));
        boot_next(&mut device);
        assert!(device.release(&again.public).unwrap().ikm.ct_eq(&again.ikm));
    }
}
