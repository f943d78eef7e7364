//! The state that was agreed: this TPM, these registers, this PIN.

use super::*;

#[test]
fn the_same_state_gives_the_same_octets_after_every_start() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = device.provision(&measured()).unwrap();
    for _ in 0..2 {
        device.reboot();
        assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
    }
    device.tpm.power_cut();
    device.measure();
    assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
}

#[test]
fn a_changed_register_is_refused_and_named() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = device.provision(&measured()).unwrap();
    device.tpm.extend(11, 0x01);
    match device.release(&public) {
        Err(SourceError::PolicyMismatch { differs }) => {
            let pcrs: Vec<u8> = differs.iter().map(|d| d.pcr).collect();
            assert_eq!(pcrs, [11], "{differs:?}");
            assert_ne!(differs[0].expected, differs[0].found);
        }
        other => panic!("{other:?}"),
    }
    device.reboot();
    assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm), "in the state that was agreed it opens again");
    // With the gate too the answer names what was measured, and not the gate.
    let Provisioned { public, .. } = device.provision(&limited(3)).unwrap();
    device.tpm.extend(7, 0x01);
    let text = device.release(&public).unwrap_err().to_string();
    assert!(text.contains("PCR 7 is ") && !text.contains("PCR 11") && !text.contains("PCR 13"), "{text}");
}

#[test]
fn a_cloned_disk_on_another_tpm() {
    let (Some(device), Some(other)) = (Device::new(), Device::new()) else { return };
    let Provisioned { public, .. } = device.provision(&measured()).unwrap();
    assert!(matches!(other.release(&public), Err(SourceError::WrongDevice { .. })));
    assert!(device.release(&public).is_ok());
    // Cleared, it is another TPM: the seed is gone.
    device.tpm.clear();
    assert!(matches!(device.release(&public), Err(SourceError::WrongDevice { .. })));
}

#[test]
fn registers_that_say_nothing_are_refused() {
    let Some(device) = Device::new() else { return };
    let refused = |pcrs: &[u8]| {
        let pcrs = PcrSet::new(pcrs.iter().copied()).unwrap();
        let policy = PolicyRequest { pcrs, releases_per_boot: NonZeroU8::new(1), ..Default::default() };
        // The gate is none of an index.
        let sources = if pcrs.contains(13) { &SOURCES[..1] } else { &SOURCES };
        let told: Vec<_> = sources
            .iter()
            .map(|source| match source(&device, device.tpm.socket()).provision(&policy, &NoAuth, soon()) {
                Err(SourceError::PolicyEmpty { defect }) => defect,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        told[0].clone()
    };
    let never = |pcr| format!("PCR {pcr} was never extended: nothing is measured into it on this device");
    assert_eq!(refused(&[7, 0]), never(0));
    assert_eq!(refused(&[17]), never(17), "all ones");
    for pcr in [16, 23] {
        device.tpm.extend(pcr, 1);
        assert_eq!(refused(&[7, pcr]), format!("PCR {pcr} can be reset by software, to any state"));
        assert!(device.tpm.try_reset(pcr), "and here it was");
    }
    assert_eq!(refused(&[13]), "PCR 13 is the gate, and cannot be measured too");
}

#[test]
fn a_pin_is_needed_and_tried_once() {
    let Some(mut device) = Device::new() else { return };
    let policy = PolicyRequest { pin: true, ..measured() };
    let (right, wrong) = (device.pin_file("1234"), device.pin_file("1235"));
    assert!(matches!(device.provision(&policy), Err(SourceError::NoPin { .. })));
    let Provisioned { public, ikm } = device.source().provision(&policy, &right, soon()).unwrap();
    assert!(device.source().release(&public, &right, soon()).unwrap().ikm.ct_eq(&ikm));
    assert!(matches!(device.release(&public), Err(SourceError::NoPin { .. })));

    let failed = |device: &Device| device.source().release(&public, &wrong, soon()).unwrap_err();
    let first = match failed(&device) {
        SourceError::AuthFailed { tries_left: Some(n), .. } => n,
        other => panic!("{other:?}"),
    };
    // One call, one try; and the last one is kept, for whoever knows the PIN.
    for left in (1..first).rev() {
        assert!(matches!(failed(&device), SourceError::AuthFailed { tries_left: Some(n), .. } if n == left));
    }
    assert!(matches!(failed(&device), SourceError::LockedOut { .. }));
    device.reboot();
    assert!(matches!(failed(&device), SourceError::LockedOut { .. }), "a restart gives no new tries");
}

#[test]
fn what_lies_on_disk_cannot_be_bent() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
    // A bit of one item, counted as they stand.
    let items = |item: usize, byte: usize| {
        let mut items = public.items().to_vec();
        items[item].1[byte] ^= 1;
        SlotPublic::new(SourceKind::Tpm, public.release_limit(), items).unwrap()
    };
    // Other register values than were sealed to; a changed object; another storage key; more releases.
    let mut values = items(4, 10);
    assert!(matches!(device.release(&values), Err(SourceError::PolicyMismatch { .. })));
    values = items(3, 20);
    assert!(matches!(device.release(&values), Err(SourceError::Tampered { .. })));
    values = items(1, 5);
    assert!(matches!(device.release(&values), Err(SourceError::OtherSlot { .. })), "its public area is noted too");
    let mut unnoted = values.items().to_vec();
    unnoted.retain(|(tag, _)| *tag != super::super::items::TAG_KEPT);
    values = SlotPublic::new(SourceKind::Tpm, public.release_limit(), unnoted).unwrap();
    assert!(matches!(device.release(&values), Err(SourceError::WrongDevice { .. })));
    let more = SlotPublic::new(SourceKind::Tpm, NonZeroU8::new(8), public.items().to_vec()).unwrap();
    assert!(device.release(&more).is_err(), "a higher limit is another policy");
}
