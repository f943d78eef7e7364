//! As often as agreed: the gate, the window, and what would open them again.

use super::*;

fn exhausted(result: Result<Released, SourceError>) -> bool {
    match result {
        Err(SourceError::Exhausted { .. }) => true,
        Ok(_) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn once_a_boot() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, ikm } = device.provision(&limited(1)).unwrap();
        for _ in 0..2 {
            let released = device.release(&public).unwrap();
            assert!(released.ikm.ct_eq(&ikm));
            assert_eq!(released.remaining_this_boot, Some(0));
            assert!(exhausted(device.release(&public)));
            assert!(exhausted(device.release(&public)));
            device.reboot();
        }
    }
}

#[test]
fn as_often_as_agreed_and_no_more() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        // The gate has a value already when the store is made, as after systemd-stub.
        device.tpm.extend(13, 0x13);
        for limit in [3, 8] {
            let Provisioned { public, .. } = device.provision(&limited(limit)).unwrap();
            for left in (0..limit).rev() {
                assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(left));
            }
            assert!(exhausted(device.release(&public)));
            device.reboot();
            device.tpm.extend(13, 0x13);
            assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(limit - 1));
            device.reboot();
            device.tpm.extend(13, 0x13);
        }
    }
}

#[test]
fn probing_uses_nothing_up_and_closing_everything() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(3)).unwrap();
        for _ in 0..4 {
            device.source().probe(soon()).unwrap();
        }
        assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(2));
        assert!(device.source().close(&public, soon()).unwrap().is_until_reboot());
        assert!(exhausted(device.release(&public)));
        assert!(device.source().close(&public, soon()).unwrap().is_until_reboot());
        device.reboot();
        assert!(device.source().close(&public, soon()).unwrap().is_until_reboot(), "before the first release too");
        assert!(exhausted(device.release(&public)));
        device.reboot();
        assert!(device.release(&public).is_ok());
    }
}

#[test]
fn what_is_foreseen_is_what_a_release_does() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
        let left = |device: &Device| {
            let Evidence(facts) = device.source().foresee(&public, soon())?;
            Ok::<_, SourceError>(facts.into_iter().find(|(name, _)| *name == "releases left in this boot").unwrap().1)
        };
        for expected in ["2", "1"] {
            for _ in 0..3 {
                assert_eq!(left(&device).unwrap(), expected, "asking uses nothing up");
            }
            device.release(&public).unwrap();
        }
        assert!(matches!(left(&device), Err(SourceError::Exhausted { .. })));
        device.reboot();
        device.tpm.extend(11, 1);
        assert!(matches!(left(&device), Err(SourceError::PolicyMismatch { .. })));
    }
}

#[test]
fn no_gate_that_software_can_reset() {
    let Some(device) = Device::new() else { return };
    for pcr in [16, 23, 10, 0, 7, 17, 24] {
        let made = device.source_at(device.tpm.socket(), Some(pcr)).provision(&limited(1), &NoAuth, soon());
        assert!(matches!(made, Err(SourceError::PolicyEmpty { .. })), "{pcr}: {made:?}");
    }
    let none = device.source_at(device.tpm.socket(), None).provision(&limited(1), &NoAuth, soon());
    assert!(matches!(none, Err(SourceError::PolicyUnenforceable { what: "releases_per_boot", .. })));
    for pcr in [8, 12, 13, 15] {
        assert!(!device.tpm.try_reset(pcr), "{pcr} cannot be reset by software");
    }
}

#[test]
fn a_store_is_not_made_in_a_boot_whose_releases_have_begun() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(3)).unwrap();
        device.release(&public).unwrap();
        // Sealed to the gate as it is now, the store would never open after the next start.
        assert!(matches!(device.provision(&limited(3)), Err(SourceError::Exhausted { .. })));
        device.reboot();
        assert!(device.provision(&limited(3)).is_ok());
    }
}

#[test]
fn resume_from_suspend_opens_nothing() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(1)).unwrap();
        device.release(&public).unwrap();
        device.tpm.suspend_and_resume();
        assert!(exhausted(device.release(&public)), "registers 0 to 15 are kept over a suspend");
        device.reboot();
        assert!(device.release(&public).is_ok());
    }
}

#[test]
fn the_window_closes_and_a_resume_does_not_open_it() {
    let Some(mut device) = Device::new() else { return };
    let window = Duration::from_secs(5);
    let policy = PolicyRequest { window: Some(window), ..measured() };
    device.reboot();
    let Provisioned { public, .. } = device.provision(&policy).unwrap();
    let closed = |device: &Device| match device.release(&public) {
        Err(SourceError::WindowClosed { window: w, .. }) => w == window,
        Ok(_) => false,
        Err(other) => panic!("{other}"),
    };
    // The TPM's own clock is what is waited for.
    let clock = OsClock::new().unwrap();
    let start = clock.boottime();
    while !closed(&device) {
        assert!(clock.boottime().since(start) < Duration::from_secs(30), "the window does not close");
    }
    // The TPM's time begins anew with the resume; the window alone would be open again.
    device.tpm.suspend_and_resume();
    assert!(closed(&device));
    device.reboot();
    assert!(device.release(&public).is_ok());
}

#[test]
fn two_processes_race_for_the_last_release() {
    let Some(device) = Device::counting(Counting::Gate) else { return };
    let Provisioned { public, .. } = device.provision(&limited(1)).unwrap();
    // Both speak to the TPM at the same time, as they may through the kernel's resource manager; and if nothing keeps them apart,
    // both have unsealed before either has extended the gate.
    let bus = between::Between::new(&device.tpm, between::Racing::default());
    let winners: Vec<bool> = std::thread::scope(|scope| {
        let racing: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| device.source_at(bus.socket(), Some(13)).release(&public, &NoAuth, soon()).is_ok()))
            .collect();
        racing.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
}

/// Not a protection: what docs/hardware.md says of discrete TPMs. Should this test fail, a limit has gone, and the document with it.
#[test]
fn a_reset_line_opens_the_gate_again_where_the_measurements_are_replayed() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(1)).unwrap();
        device.release(&public).unwrap();
        device.tpm.reset_line();
        assert!(matches!(device.release(&public), Err(SourceError::PolicyMismatch { .. })), "without the measurements");
        device.measure();
        assert!(device.release(&public).is_ok(), "and with them");
    }
}
