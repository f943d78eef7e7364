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
    let (Some(one), Some(other)) = (Device::new(), Device::new()) else { return };
    std::thread::scope(|scope| {
        for (source, device) in SOURCES.into_iter().zip([one, other]) {
            scope.spawn(move || the_window_closes(source, device));
        }
    });
}

fn the_window_closes(source: Source, mut device: Device) {
    let window = Duration::from_secs(5);
    let policy = PolicyRequest { window: Some(window), ..measured() };
    let at = |device: &Device| source(device, device.tpm.socket());
    let made = within_the_window(&mut device, |device| at(device).provision(&policy, &NoAuth, soon()));
    let public = made.public;
    let release = |device: &Device| at(device).release(&public, &NoAuth, soon());
    let closed = |device: &Device| match release(device) {
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
    within_the_window(&mut device, release);
}

/// In a new boot. A machine with much other work may take longer for it than the window: then in the next one.
fn within_the_window<T>(device: &mut Device, act: impl Fn(&Device) -> Result<T, SourceError>) -> T {
    for _ in 0..5 {
        device.reboot();
        match act(device) {
            Err(SourceError::WindowClosed { .. }) => {}
            other => return other.unwrap(),
        }
    }
    panic!("in none of five boots was the window still open for the first command");
}

/// Both speak to the TPM at the same time, as they may through the kernel's resource manager, with these files for
/// locks: which of them have a release, and how often the TPM has given the octets.
fn raced(source: impl Fn(&Device, PathBuf, &str) -> Box<dyn KeySource>, locks: [&str; 2]) -> Option<([bool; 2], u32)> {
    let device = Device::counting(Counting::Gate)?;
    let Provisioned { public, .. } =
        source(&device, device.tpm.socket(), locks[0]).provision(&limited(1), &NoAuth, soon()).unwrap();
    // If nothing keeps them apart, both have the octets before either has spent the release.
    // Who waits in vain for the other behind the same lock does so to the end; without one it is over when both have.
    let patience = Duration::from_secs(if locks[0] == locks[1] { 2 } else { 15 });
    let racing = between::Racing::new(patience);
    let given = racing.given();
    let bus = between::Between::new(&device.tpm, racing);
    let won = std::thread::scope(|scope| {
        let each = locks.map(|lock| {
            let mut source = source(&device, bus.socket(), lock);
            let public = &public;
            scope.spawn(move || source.release(public, &NoAuth, soon()).is_ok())
        });
        each.map(|one| one.join().unwrap())
    });
    Some((won, given()))
}

fn by_the_gate(device: &Device, at: PathBuf, lock: &str) -> Box<dyn KeySource> {
    Box::new(device.source_with_lock(at, Some(13), lock))
}

fn by_an_index(device: &Device, at: PathBuf, lock: &str) -> Box<dyn KeySource> {
    Box::new(nv::source_with_lock(device, at, lock))
}

#[test]
fn two_processes_race_for_the_last_release() {
    for source in [by_the_gate, by_an_index] {
        let Some((won, given)) = raced(source, ["tpm.lock"; 2]) else { return };
        assert_eq!((won.iter().filter(|won| **won).count(), given), (1, 1), "{won:?}");
    }
}

/// Not a protection: what docs/hardware.md says of the gate alone, and of an index that is read and then locked. Who
/// takes no lock has the octets in between, whatever is made of them afterwards.
#[test]
fn who_takes_no_lock_is_given_the_last_release_as_well() {
    for source in [by_the_gate, by_an_index] {
        let Some((_, given)) = raced(source, ["one", "two"]) else { return };
        assert_eq!(given, 2);
    }
}

/// Not a protection: what docs/hardware.md says of discrete TPMs. Should this test fail, a limit has gone, and the
/// document with it.
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

/// What is left to whoever holds the reset line and replays the measurements: a PIN that he does not know. He has the
/// disk, the TPM's owner, and tools of his own.
#[test]
fn a_reset_line_gives_nothing_without_the_pin() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let (right, wrong) = (device.pin_file("1234"), device.pin_file("1235"));
        let policy = PolicyRequest { pin: true, ..limited(3) };
        let Provisioned { public, ikm } = device.source().provision(&policy, &right, soon()).unwrap();
        device.source().release(&public, &right, soon()).unwrap();
        device.tpm.reset_line();
        device.measure();
        assert!(matches!(device.release(&public), Err(SourceError::NoPin { .. })));
        let sealed = TpmSlot::read(&public).unwrap();
        let source = device.source();
        let mut tpm = source.chip.open(soon()).unwrap();
        let key = tpm.storage_key().unwrap().pin();
        let mut session = tpm.policy_session(&key).unwrap();
        source.admit(&mut tpm, &mut session, &sealed.policy.gate.unwrap()).unwrap();
        let object = tpm.try_load(&key, &sealed.object).unwrap();
        tpm.let_go(key).unwrap();
        source.show_registers(&mut tpm, &session, &sealed.policy).unwrap();
        if let Some((_, index)) = sealed.policy.counter() {
            tpm.policy_secret(&session, index.handle()).unwrap();
        }
        // All but the PIN is shown; and that it be proven is in the policy.
        assert_eq!(tpm.unseal(session, &object, None).unwrap_err().refusal(), Some(Refusal::Policy));
        drop(tpm);
        assert!(device.source().release(&public, &right, soon()).unwrap().ikm.ct_eq(&ikm), "to whoever has it");
        // The reset has cost one of three tries, and the last one is kept.
        let guessed = device.source().release(&public, &wrong, soon());
        assert!(
            matches!(guessed, Err(SourceError::AuthFailed { tries_left: Some(1), .. })),
            "{counting:?}: {guessed:?}"
        );
    }
}

/// As it is with a sealed object.
#[test]
fn a_reset_line_does_not_read_an_index_without_its_pin() {
    let Some(mut device) = Device::new() else { return };
    let right = device.pin_file("1234");
    let policy = PolicyRequest { pin: true, ..limited(1) };
    let Provisioned { public, ikm } = nv::source(&device).provision(&policy, &right, soon()).unwrap();
    nv::source(&device).release(&public, &right, soon()).unwrap();
    device.tpm.reset_line();
    device.measure();
    assert!(matches!(nv::source(&device).release(&public, &NoAuth, soon()), Err(SourceError::NoPin { .. })));

    let (index, branches) =
        (super::super::nv::index_of(&public).unwrap(), super::super::nv::branches_of(&public).unwrap());
    let mut tpm = device.source().chip.open(soon()).unwrap();
    let key = tpm.storage_key().unwrap().pin();
    let mut session = tpm.policy_session(&key).unwrap();
    tpm.policy_pcr(&session, measured().pcrs, None).unwrap();
    assert_eq!(tpm.policy_or(&session, &branches).unwrap_err().refusal(), Some(Refusal::Policy), "no PIN, no branch");
    assert_eq!(tpm.nv_read_secret(&mut session, &index, None).unwrap_err().refusal(), Some(Refusal::Policy));
    drop(tpm);
    assert!(nv::source(&device).release(&public, &right, soon()).unwrap().ikm.ct_eq(&ikm));
}
