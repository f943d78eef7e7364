//! Octets that the TPM keeps itself: once in a boot, and for whoever finds them changed.

use ::tpm::{NvHandle, NvIndex, PolicyDigest};

use super::between::{Between, Instead, Listening, NV_READ, NV_READ_LOCK, code, refusal};
use super::*;
use crate::source::Remedy;

const FLUSH_CONTEXT: u32 = 0x165;

pub(super) fn source_with_lock(device: &Device, socket: PathBuf, lock: &str) -> TpmNvSource {
    let clock = Arc::new(OsClock::new().unwrap());
    TpmNvSource::new(socket, device.dir.path().join(lock), Arc::new(OsDisk), clock, Arc::new(OsEntropy))
}

pub(super) fn source_at(device: &Device, socket: PathBuf) -> TpmNvSource {
    source_with_lock(device, socket, "tpm.lock")
}

pub(super) fn source(device: &Device) -> TpmNvSource {
    source_at(device, device.tpm.socket())
}

fn provision(device: &Device, policy: &PolicyRequest) -> Provisioned {
    source(device).provision(policy, &NoAuth, soon()).unwrap()
}

fn release(device: &Device, slot: &SlotPublic) -> Result<Released, SourceError> {
    source(device).release(slot, &NoAuth, soon())
}

fn handle(slot: &SlotPublic) -> NvHandle {
    NvHandle::from_number(u32::from_be_bytes(slot.item(10).unwrap().try_into().unwrap())).unwrap()
}

fn exhausted(result: Result<Released, SourceError>) -> bool {
    match result {
        Err(SourceError::Exhausted { .. }) => true,
        Ok(_) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn keeps_to_the_contract() {
    let Some(mut device) = Device::new() else { return };
    key_source_contract(&|| Box::new(source(&device)), &measured(), &NoAuth);
    key_source_contract(&|| Box::new(source(&device)), &PolicyRequest::default(), &NoAuth);
    let policy = PolicyRequest { window: Some(Duration::from_secs(600)), pin: true, ..measured() };
    device.reboot();
    key_source_contract(&|| Box::new(source(&device)), &policy, &device.pin_file("1234"));
}

#[test]
fn once_a_boot_and_again_after_each_start() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = provision(&device, &limited(1));
    for _ in 0..2 {
        assert!(source(&device).foresee(&public, soon()).is_ok());
        let released = release(&device, &public).unwrap();
        assert!(matches!(source(&device).foresee(&public, soon()), Err(SourceError::Exhausted { .. })));
        assert!(released.ikm.ct_eq(&ikm));
        assert_eq!(released.remaining_this_boot, Some(0));
        assert!(exhausted(release(&device, &public)));
        device.tpm.suspend_and_resume();
        assert!(exhausted(release(&device, &public)), "a resume opens nothing");
        device.reboot();
    }
    device.tpm.power_cut();
    device.measure();
    assert!(release(&device, &public).unwrap().ikm.ct_eq(&ikm));
    let two = PolicyRequest { releases_per_boot: NonZeroU8::new(2), ..measured() };
    let made = source(&device).provision(&two, &NoAuth, soon());
    assert!(matches!(made, Err(SourceError::PolicyUnenforceable { what: "releases_per_boot", .. })), "{made:?}");
}

#[test]
fn without_a_limit_it_is_read_as_often_as_asked() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, ikm } = provision(&device, &measured());
    for _ in 0..4 {
        let released = release(&device, &public).unwrap();
        assert!(released.ikm.ct_eq(&ikm) && released.remaining_this_boot.is_none());
    }
    assert!(!source(&device).close(&public, soon()).unwrap().is_until_reboot(), "and cannot be closed");
    assert!(release(&device, &public).is_ok());
}

#[test]
fn in_another_state_it_is_not_read_but_closed() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = provision(&device, &limited(1));
    device.tpm.extend(11, 1);
    match release(&device, &public) {
        Err(SourceError::PolicyMismatch { differs }) => assert_eq!(differs.len(), 1, "{differs:?}"),
        other => panic!("{other:?}"),
    }
    assert!(source(&device).close(&public, soon()).unwrap().is_until_reboot(), "locking needs no state");
    assert!(exhausted(release(&device, &public)));
    device.reboot();
    assert!(release(&device, &public).unwrap().ikm.ct_eq(&ikm));
}

/// Read, locked, and only then returned.
#[test]
fn a_lock_that_fails_gives_nothing() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = provision(&device, &limited(1));
    let bus = Between::new(&device.tpm, Instead { code: NV_READ_LOCK, answer: refusal(0x101) });
    assert!(source_at(&device, bus.socket()).release(&public, &NoAuth, soon()).is_err());
    drop(bus);
    // An answer that the TPM did not make is none: somebody keeps the lock from it.
    let done = [&[0x80, 2, 0, 0, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32][..], &[7; 32], &[0, 0, 32], &[9; 32]].concat();
    let bus = Between::new(&device.tpm, Instead { code: NV_READ_LOCK, answer: between::sized(done) });
    let released = source_at(&device, bus.socket()).release(&public, &NoAuth, soon());
    assert!(matches!(released, Err(SourceError::Tampered { .. })), "{released:?}");
    drop(bus);
    assert!(release(&device, &public).is_ok(), "no release was lost");
}

#[test]
fn an_index_that_is_gone_or_was_defined_anew() {
    let Some(device) = Device::new() else { return };
    let slot = provision(&device, &limited(1)).public;
    let owner = || device.source().chip.open(soon()).unwrap();
    let told = |expected: &str| {
        let e = release(&device, &slot).unwrap_err();
        assert!(matches!(e, SourceError::IndexChanged { .. }) && e.to_string().contains(expected), "{e}");
        assert_eq!(e.remedy(), Remedy::Alarm);
    };
    owner().nv_undefine(handle(&slot)).unwrap();
    told("is not there any more");
    // Another policy, under which anybody may read: it has another name.
    let mut tpm = owner();
    let key = tpm.storage_key().unwrap().pin();
    let loose = NvIndex::secret(handle(&slot), PolicyDigest::default(), false, true);
    tpm.nv_define(&key, &loose, None).unwrap();
    tpm.nv_write_once(&key, &loose, None, &[7; 32]).unwrap();
    drop(tpm);
    told("is another one, or was defined anew");
    // The very same, with octets that somebody else knows.
    let same = super::super::nv::index_of(&slot).unwrap();
    let mut tpm = owner();
    let key = tpm.storage_key().unwrap().pin();
    tpm.nv_undefine(handle(&slot)).unwrap();
    tpm.nv_define(&key, &same, None).unwrap();
    tpm.nv_write_once(&key, &same, None, &[7; 32]).unwrap();
    drop(tpm);
    told("has other octets than were put there");
}

#[test]
fn who_listens_on_the_bus_learns_nothing_and_ten_commands_are_enough() {
    let Some(device) = Device::new() else { return };
    let heard = Listening::default();
    let bus = Between::new(&device.tpm, heard.clone());
    let Provisioned { public, ikm } = source_at(&device, bus.socket()).provision(&limited(1), &NoAuth, soon()).unwrap();
    let provisioning = heard.0.lock().unwrap().len();
    source_at(&device, bus.socket()).release(&public, &NoAuth, soon()).unwrap();
    let heard = heard.0.lock().unwrap();
    for (command, answer) in heard.iter() {
        for bytes in [command, answer] {
            assert!(!bytes.windows(16).any(|w| ikm.expose().windows(16).any(|k| k == w)), "{:#x}", code(command));
        }
    }
    let codes: Vec<u32> = heard[provisioning..].iter().map(|(c, _)| code(c)).collect();
    let at = |wanted| codes.iter().position(|c| *c == wanted).unwrap();
    assert!(at(NV_READ) < at(NV_READ_LOCK), "{codes:x?}");
    assert_eq!(codes.iter().filter(|c| **c != FLUSH_CONTEXT).count(), 8, "{codes:x?}");
}

#[test]
fn a_wrong_pin_is_tried_once_and_a_locked_index_counts_none() {
    let Some(device) = Device::new() else { return };
    let policy = PolicyRequest { pin: true, ..limited(1) };
    let (right, wrong) = (device.pin_file("1234"), device.pin_file("1235"));
    let Provisioned { public, ikm } = source(&device).provision(&policy, &right, soon()).unwrap();
    let failed = || device.source().chip.open(soon()).unwrap().read_lockout().unwrap().failed;
    let refused = source(&device).release(&public, &wrong, soon());
    assert!(matches!(refused, Err(SourceError::AuthFailed { tries_left: Some(_), .. })), "{refused:?}");
    assert_eq!(failed(), 1);
    assert!(source(&device).release(&public, &right, soon()).unwrap().ikm.ct_eq(&ikm));
    for _ in 0..3 {
        assert!(exhausted(source(&device).release(&public, &right, soon())));
    }
    assert_eq!(failed(), 1, "what was locked has cost no try");
}

#[test]
fn another_tpm_and_what_is_discarded() {
    let (Some(device), Some(other)) = (Device::new(), Device::new()) else { return };
    let slot = provision(&device, &limited(1)).public;
    assert!(matches!(release(&other, &slot), Err(SourceError::WrongDevice { .. })));
    source(&device).discard(&slot, &[&slot], &NoAuth, soon()).unwrap();
    release(&device, &slot).expect("it is kept while a slot needs it");
    assert!(matches!(source(&device).left_of(&slot, &NoAuth, soon()).unwrap(), Left::Copies(_)));
    source(&device).discard(&slot, &[], &NoAuth, soon()).unwrap();
    assert!(matches!(source(&device).left_of(&slot, &NoAuth, soon()).unwrap(), Left::Nothing(_)));
    assert!(matches!(release(&device, &slot), Err(SourceError::IndexChanged { .. })));
    source(&device).discard(&slot, &[], &NoAuth, soon()).expect("what is gone is as good");
}

#[test]
fn what_lies_on_disk_cannot_be_bent() {
    let Some(device) = Device::new() else { return };
    let slot = provision(&device, &limited(1)).public;
    let with = |tag: u16, value: Option<Vec<u8>>| {
        let mut items = slot.items().to_vec();
        items.retain(|(t, _)| *t != tag);
        items.extend(value.map(|v| (tag, v)));
        items.sort();
        SlotPublic::new(SourceKind::TpmNv, slot.release_limit(), items).unwrap()
    };
    for tag in [1, 2, 5, 10, 11] {
        let released = release(&device, &with(tag, None));
        assert!(matches!(released, Err(SourceError::OtherSlot { .. })), "without {tag}: {released:?}");
    }
    let values = [&slot.item(5).unwrap()[..4], &[9; 64]].concat();
    assert!(matches!(release(&device, &with(5, Some(values))), Err(SourceError::IndexChanged { .. })));
    let beyond = with(10, Some(0x0180_EE00_u32.to_be_bytes().to_vec()));
    assert!(matches!(release(&device, &beyond), Err(SourceError::OtherSlot { .. })), "an index that is not ours");
    let unlimited = SlotPublic::new(SourceKind::TpmNv, None, slot.items().to_vec()).unwrap();
    // Else it would be read in that boot and not locked, before the wrap tells.
    assert!(matches!(release(&device, &unlimited), Err(SourceError::IndexChanged { .. })));
    let twice = SlotPublic::new(SourceKind::TpmNv, NonZeroU8::new(2), slot.items().to_vec()).unwrap();
    assert!(matches!(release(&device, &twice), Err(SourceError::OtherSlot { .. })));
    release(&device, &slot).expect("nothing was locked by that");
}
