//! The storage key where the TPM keeps it, and where it does not, or keeps another.

use super::between::{Between, Instead, READ_PUBLIC, refusal};
use super::*;
use crate::source::{AuthError, AuthRequest};
use secret::SecretBytes;

/// Nobody who would know the PIN may be asked.
pub(super) struct NotToBeAsked;

impl Auth for NotToBeAsked {
    fn pin(&self, request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        panic!("{} asks for the PIN", request.what)
    }
}

/// A slot that was told to take the key of another for its own, whole and in itself right: whoever holds that other key
/// and listens would have a session salted to it.
fn with_key_of(slot: &SlotPublic, other: &SlotPublic) -> SlotPublic {
    let of_key = |tag: u16| [items::TAG_KEY, items::TAG_KEPT].contains(&tag);
    let theirs = other.items().iter().filter(|(tag, _)| of_key(*tag));
    let mut all: Vec<_> = slot.items().iter().filter(|(tag, _)| !of_key(*tag)).chain(theirs).cloned().collect();
    all.sort();
    SlotPublic::new(slot.kind(), slot.release_limit(), all).unwrap()
}

#[test]
fn a_key_that_is_not_kept_any_more_is_made() {
    for counting in BOTH {
        let Some(mut device) = Device::counting(counting) else { return };
        let Provisioned { public, ikm } = device.provision(&limited(2)).unwrap();
        device.release(&public).unwrap();
        device.tpm.forget_storage_key();
        let released = device.release(&public).unwrap();
        assert!(released.ikm.ct_eq(&ikm));
        assert_eq!(released.remaining_this_boot, Some(0), "the first attempt was not counted");
        device.reboot();
        let _closed = device.source().close(&public, soon()).unwrap();
        assert!(matches!(device.release(&public), Err(SourceError::Exhausted { .. })));
        // Whoever makes a slot has it kept again.
        device.provision(&measured()).unwrap();
        device.tpm.forget_storage_key();
    }
}

#[test]
fn a_key_that_is_kept_already_stays() {
    for counting in BOTH {
        let Some(device) = Device::counting(counting) else { return };
        device.tpm.keep_other_storage_key();
        let Provisioned { public, ikm } = device.provision(&limited(2)).unwrap();
        assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
        assert_eq!(TpmSlot::read(&public).unwrap().key.kept, None);
        // With that one gone the next slot has ours kept; one of before is opened as before.
        device.tpm.forget_storage_key();
        let Provisioned { public: next, .. } = device.provision(&measured()).unwrap();
        assert!(TpmSlot::read(&next).unwrap().key.kept.is_some());
        assert!(device.release(&public).is_ok());
    }
}

#[test]
fn another_key_in_its_place_learns_nothing_and_counts_nothing() {
    for counting in BOTH {
        let Some(device) = Device::counting(counting) else { return };
        let auth = device.pin_file("1234");
        let policy = PolicyRequest { pin: true, ..limited(1) };
        let Provisioned { public, ikm } = device.source().provision(&policy, &auth, soon()).unwrap();
        device.tpm.forget_storage_key();
        device.tpm.keep_other_storage_key();
        // The right TPM: its own key is made, and the one release is there.
        let released = device.source().release(&public, &auth, soon()).unwrap();
        assert!(released.ikm.ct_eq(&ikm));
        let failed = device.source().chip.open(soon()).unwrap().read_lockout().unwrap().failed;
        assert_eq!(failed, 0, "the PIN was not tried with the other key");
    }
}

#[test]
fn another_tpm_that_keeps_its_own() {
    for counting in BOTH {
        let (Some(device), Some(other)) = (Device::counting(counting), Device::counting(counting)) else { return };
        let auth = device.pin_file("1234");
        let policy = PolicyRequest { pin: true, ..limited(1) };
        let Provisioned { public, .. } = device.source().provision(&policy, &auth, soon()).unwrap();
        let Provisioned { public: theirs, .. } = other.provision(&limited(1)).unwrap();
        assert_ne!(TpmSlot::read(&public).unwrap().key, TpmSlot::read(&theirs).unwrap().key);
        let refused = other.source().release(&public, &NotToBeAsked, soon());
        assert!(matches!(refused, Err(SourceError::WrongDevice { .. })), "{refused:?}");
        assert!(matches!(other.source().close(&public, soon()), Err(SourceError::WrongDevice { .. })));
        assert!(other.release(&theirs).is_ok(), "nothing was counted or closed there");

        let refused = device.source().release(&with_key_of(&public, &theirs), &NotToBeAsked, soon());
        assert!(matches!(refused, Err(SourceError::WrongDevice { .. })), "{refused:?}");
        assert!(device.source().release(&public, &auth, soon()).is_ok());
    }
}

/// Whoever is on the bus says, once the PIN was refused, that the key is not kept any more: it is not tried again with
/// a key that is made, and nothing is counted twice.
#[test]
fn a_pin_is_tried_once_whatever_is_said_of_the_key() {
    for (source, counting) in
        [(SOURCES[0], Counting::Index), (SOURCES[0], Counting::Gate), (SOURCES[1], Counting::Gate)]
    {
        let Some(device) = Device::counting(counting) else { return };
        let (right, wrong) = (device.pin_file("1234"), device.pin_file("1235"));
        let limit = if source(&device, device.tpm.socket()).kind() == SourceKind::Tpm { 2 } else { 1 };
        let policy = PolicyRequest { pin: true, ..limited(limit) };
        let Provisioned { public, ikm } =
            source(&device, device.tpm.socket()).provision(&policy, &right, soon()).unwrap();
        let bus = Between::new(&device.tpm, Instead { code: READ_PUBLIC, answer: refusal(0x18b) });
        let refused = source(&device, bus.socket()).release(&public, &wrong, soon()).unwrap_err();
        assert!(matches!(refused, SourceError::AuthFailed { .. }), "{refused:?}");
        drop(bus);
        let failed = device.source().chip.open(soon()).unwrap().read_lockout().unwrap().failed;
        assert_eq!(failed, 1, "{counting:?}");
        assert!(source(&device, device.tpm.socket()).release(&public, &right, soon()).unwrap().ikm.ct_eq(&ikm));
    }
}

#[test]
fn an_index_and_the_key_that_is_kept() {
    let (Some(device), Some(other)) = (Device::new(), Device::new()) else { return };
    let auth = device.pin_file("1234");
    let policy = PolicyRequest { pin: true, ..measured() };
    let source = |device: &Device| super::nv::source(device);
    let Provisioned { public, ikm } = source(&device).provision(&policy, &auth, soon()).unwrap();
    let Provisioned { public: theirs, .. } = source(&other).provision(&measured(), &NoAuth, soon()).unwrap();
    let refused = |device: &Device, slot: &SlotPublic| source(device).release(slot, &NotToBeAsked, soon()).unwrap_err();
    let elsewhere = refused(&other, &public);
    assert!(matches!(elsewhere, SourceError::WrongDevice { .. }), "{elsewhere:?}");
    let bent = refused(&device, &with_key_of(&public, &theirs));
    assert!(matches!(bent, SourceError::WrongDevice { .. }), "{bent:?}");
    let released = || assert!(source(&device).release(&public, &auth, soon()).unwrap().ikm.ct_eq(&ikm));
    released();
    device.tpm.forget_storage_key();
    released();
    device.tpm.keep_other_storage_key();
    released();
    let failed = device.source().chip.open(soon()).unwrap().read_lockout().unwrap().failed;
    assert_eq!(failed, 0, "the PIN was not tried with another key");
}
