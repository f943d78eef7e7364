//! The counter in the TPM: who asks beside us, who defines it anew, and who swallows what arms it.

use ::tpm::{NvIndex, NvState, PinCounter};

use super::between::{Between, Instead, Listening, Lying, PCR_EXTEND, code, refusal, sized};
use super::*;
use crate::source::Remedy;

const NV_DEFINE_SPACE: u32 = 0x12A;

fn index_of(slot: &SlotPublic) -> NvIndex {
    TpmSlot::read(slot).unwrap().policy.gate.unwrap().index().unwrap()
}

/// Somebody with the owner's authorisation, which is empty.
fn owner(device: &Device) -> Tpm {
    device.source().chip.open(soon()).unwrap()
}

#[test]
fn other_tools_are_counted_too() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(3)).unwrap();
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(2));
    // Root asks the index by itself, as for an unsealing of its own.
    let mut tpm = owner(&device);
    let key = tpm.storage_key().unwrap().pin();
    let session = tpm.policy_session(&key).unwrap();
    tpm.policy_secret(&session, index_of(&public).handle()).unwrap();
    drop(tpm);
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(0));
    assert!(matches!(device.release(&public), Err(SourceError::Exhausted { .. })));
    // And whoever has the whole policy right, and no more consent of the index, has nothing.
    let sealed = TpmSlot::read(&public).unwrap();
    let mut tpm = owner(&device);
    let key = tpm.storage_key().unwrap().pin();
    let session = tpm.policy_session(&key).unwrap();
    let object = tpm.try_load(&key, &sealed.object).unwrap();
    tpm.policy_pcr(&session, sealed.policy.registers(), None).unwrap();
    let asked = tpm.policy_secret(&session, index_of(&public).handle()).unwrap_err();
    assert_eq!(asked.refusal(), Some(Refusal::Unavailable));
    assert_eq!(tpm.unseal(session, &object, None).unwrap_err().refusal(), Some(Refusal::Policy));
}

/// Who takes no lock is stopped by the TPM itself.
#[test]
fn two_who_take_no_lock_race_for_the_last_release() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
    device.release(&public).unwrap();
    let bus = Between::new(&device.tpm, Listening::default());
    let winners: Vec<bool> = std::thread::scope(|scope| {
        let racing = ["one", "two"].map(|lock| {
            let mut source = device.source_with_lock(bus.socket(), Some(13), lock);
            let public = &public;
            scope.spawn(move || source.release(public, &NoAuth, soon()).is_ok())
        });
        racing.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
}

#[test]
fn an_index_undefined_and_defined_anew_releases_nothing() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, ikm } = device.provision(&limited(1)).unwrap();
    device.release(&public).unwrap();
    let index = index_of(&public);
    let mut tpm = owner(&device);
    let key = tpm.storage_key().unwrap().pin();
    tpm.nv_undefine(index.handle()).unwrap();
    let e = device_error(&device, &public, &mut tpm);
    assert!(e.to_string().contains("is not there any more"), "{e}");
    // The very same index, so that its name is right; then it has to be filled, which is possible at the gate's base
    // alone.
    tpm.nv_define(&key, &index, None).unwrap();
    let mut fill = |pcrs: PcrSet| {
        let mut session = tpm.policy_session(&key).unwrap();
        if !pcrs.is_empty() {
            tpm.policy_pcr(&session, pcrs, None).unwrap();
        }
        let counter = PinCounter { count: 0, limit: 100 };
        let filled = tpm.nv_write_counter(&mut session, &index, NvState::default(), counter).is_ok();
        let _ = tpm.end(session);
        filled
    };
    let filled = [PcrSet::default(), PcrSet::new([13]).unwrap()].map(&mut fill);
    drop(tpm);
    let released = device.release(&public);
    assert!(matches!(released, Err(SourceError::IndexChanged { .. })), "{filled:?}: {released:?}");
    assert_eq!(filled, [false, false]);
    assert_eq!(released.unwrap_err().remedy(), Remedy::Alarm);
    // After a start it is as before: what was destroyed was no secret.
    device.reboot();
    assert!(device.release(&public).unwrap().ikm.ct_eq(&ikm));
}

/// swtpm serves one connection at a time: the other one is given up for this.
fn device_error(device: &Device, public: &SlotPublic, tpm: &mut Tpm) -> SourceError {
    let key = tpm.storage_key().unwrap().pin();
    let mut session = tpm.policy_session(&key).unwrap();
    let gate = TpmSlot::read(public).unwrap().policy.gate.unwrap();
    let e = device.source().admit(tpm, &mut session, &gate).unwrap_err();
    tpm.end(session).unwrap();
    tpm.let_go(key).unwrap();
    e
}

#[test]
fn another_index_in_its_place_is_noticed() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(1)).unwrap();
    device.release(&public).unwrap();
    let index = index_of(&public);
    let mut tpm = owner(&device);
    let key = tpm.storage_key().unwrap().pin();
    tpm.nv_undefine(index.handle()).unwrap();
    // Of another policy, so that anybody may fill it: and so of another name.
    let loose = NvIndex::counter(index.handle(), Default::default());
    tpm.nv_define(&key, &loose, None).unwrap();
    let mut session = tpm.policy_session(&key).unwrap();
    let counter = PinCounter { count: 0, limit: 100 };
    tpm.nv_write_counter(&mut session, &loose, NvState::default(), counter).unwrap();
    drop(tpm);
    let released = device.release(&public);
    assert!(matches!(released, Err(SourceError::IndexChanged { .. })), "{released:?}");
}

#[test]
fn a_state_that_was_not_agreed_is_not_counted() {
    let Some(device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
    device.release(&public).unwrap();
    device.tpm.extend(11, 1);
    for _ in 0..3 {
        assert!(matches!(device.release(&public), Err(SourceError::PolicyMismatch { .. })));
    }
    let counter = owner(&device).nv_read_counter(index_of(&public).handle()).unwrap();
    assert_eq!(counter, PinCounter { count: 1, limit: 2 });
}

#[test]
fn a_crash_between_filling_and_arming_costs_nothing() {
    let Some(mut device) = Device::new() else { return };
    let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
    device.reboot();
    let bus = Between::new(&device.tpm, Instead { code: PCR_EXTEND, answer: refusal(0x101) });
    for _ in 0..2 {
        assert!(device.source_at(bus.socket(), Some(13)).release(&public, &NoAuth, soon()).is_err());
    }
    drop(bus);
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(1));
    assert_eq!(device.release(&public).unwrap().remaining_this_boot, Some(0));
    assert!(matches!(device.release(&public), Err(SourceError::Exhausted { .. })));
}

/// "Done", with every field in its place, from somebody who keeps the command to himself.
struct Swallowing;

impl between::Bus for Swallowing {
    fn command(&self, command: &[u8]) -> Option<Vec<u8>> {
        (code(command) == PCR_EXTEND).then(|| {
            // After the handle and the size of the authorisations: which session is answered. A password has no HMAC.
            let answer: &[u8] = match command[18..22] {
                [0x40, 0, 0, 9] => &[0, 0, 1, 0, 0],
                _ => &[&[0, 32][..], &[7; 32], &[0, 0, 32], &[9; 32]].concat(),
            };
            sized([&[0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], answer].concat())
        })
    }
}

#[test]
fn a_swallowed_extension_is_noticed() {
    for counting in BOTH {
        let Some(device) = Device::counting(counting) else { return };
        let Provisioned { public, .. } = device.provision(&limited(2)).unwrap();
        let bus = Between::new(&device.tpm, Swallowing);
        let mut source = device.source_at(bus.socket(), Some(13));
        let released = source.release(&public, &NoAuth, soon());
        assert!(matches!(released, Err(SourceError::Tampered { .. })), "{counting:?}: {released:?}");
        let closed = source.close(&public, soon());
        assert!(matches!(closed, Err(SourceError::Tampered { .. })), "{counting:?}: {closed:?}");
    }
}

#[test]
fn a_tpm_without_such_indices_counts_by_the_gate_and_says_so() {
    let Some(mut device) = Device::counting(Counting::Best) else { return };
    // TPM_RC_ATTRIBUTES for the second parameter; no such command.
    for refused in [0x2C2, 0x143] {
        let bus = Between::new(&device.tpm, Instead { code: NV_DEFINE_SPACE, answer: refusal(refused) });
        let made = device.source_at(bus.socket(), Some(13)).provision(&limited(1), &NoAuth, soon());
        drop(bus);
        let Provisioned { public, .. } = made.unwrap();
        let Evidence(facts) = device.release(&public).unwrap().evidence;
        assert!(facts.contains(&("releases counted by", "PCR 13 alone".into())), "{facts:?}");
        assert!(matches!(device.release(&public), Err(SourceError::Exhausted { .. })));
        device.reboot();
    }
    let with = device.provision(&limited(1)).unwrap().public;
    let Evidence(facts) = device.release(&with).unwrap().evidence;
    let expected = format!("NV index {}, behind PCR 13", index_of(&with).handle());
    assert!(facts.contains(&("releases counted by", expected)), "{facts:?}");
    // Where an index was asked for nothing less is taken.
    device.counting = Counting::Index;
    device.reboot();
    let bus = Between::new(&device.tpm, Instead { code: NV_DEFINE_SPACE, answer: refusal(0x2C2) });
    let made = device.source_at(bus.socket(), Some(13)).provision(&limited(1), &NoAuth, soon());
    assert!(matches!(made, Err(SourceError::PolicyUnenforceable { .. })), "{made:?}");
}

/// It has such indices, and others fill it: that passes, and a slot without one would be weaker for good.
#[test]
fn a_tpm_that_is_full_is_told_and_not_taken_for_one_without_such_indices() {
    let Some(device) = Device::counting(Counting::Best) else { return };
    let bus = Between::new(&device.tpm, Instead { code: NV_DEFINE_SPACE, answer: refusal(0x14B) });
    let made = device.source_at(bus.socket(), Some(13)).provision(&limited(1), &NoAuth, soon());
    assert!(matches!(made, Err(SourceError::NoRoom { .. })), "{made:?}");
}

/// A TPM that lets itself be asked without counting is no counter.
#[test]
fn an_index_that_does_not_count_is_found_out() {
    let Some(device) = Device::counting(Counting::Best) else { return };
    const POLICY_SECRET: u32 = 0x151;
    let done = std::sync::Mutex::new(None);
    let bus = Between::new(
        &device.tpm,
        Lying(move |c, answer: Vec<u8>| {
            if c != POLICY_SECRET {
                return answer;
            }
            // What it said the first time, again.
            done.lock().unwrap().get_or_insert(answer).clone()
        }),
    );
    let Provisioned { public, .. } =
        device.source_at(bus.socket(), Some(13)).provision(&limited(2), &NoAuth, soon()).unwrap();
    assert_eq!(TpmSlot::read(&public).unwrap().policy.gate.unwrap().counter, None);
}

#[test]
fn what_is_discarded_is_gone_unless_another_slot_needs_it() {
    let Some(device) = Device::new() else { return };
    let first = device.provision(&limited(2)).unwrap().public;
    let second = device.source().provision_beside(&first, Board::Same, &limited(2), &NoAuth, soon()).unwrap().public;
    let there = || owner(&device).nv_name(index_of(&first).handle()).is_ok();
    // On another TPM there may be an index of that number, and of somebody else's store.
    let other = Device::new().unwrap();
    let theirs = other.provision(&limited(2)).unwrap().public;
    other.source().discard(&first, &[], &NoAuth, soon()).unwrap();
    assert!(other.release(&theirs).is_ok());
    device.source().discard(&first, &[&second], &NoAuth, soon()).unwrap();
    let left = |of: &Device| of.source().left_of(&first, &NoAuth, soon()).unwrap();
    assert!(there() && matches!(left(&device), Left::Copies(what) if what.contains("has the NV index")));
    device.source().discard(&first, &[], &NoAuth, soon()).unwrap();
    assert!(!there() && matches!(left(&device), Left::Nothing(how) if how.contains("has no NV index")));
    assert!(matches!(left(&other), Left::Copies(what) if what.contains("is not the TPM of the slot")));
    let unlimited = device.provision(&PolicyRequest::default()).unwrap().public;
    device.source().discard(&unlimited, &[], &NoAuth, soon()).unwrap();
    let left = device.source().left_of(&unlimited, &NoAuth, soon()).unwrap();
    assert!(
        matches!(left, Left::Copies(what) if what.contains("unseals a copy")),
        "an object that is on the disk alone"
    );
    device.source().discard(&first, &[], &NoAuth, soon()).expect("what is gone is as good");
}
