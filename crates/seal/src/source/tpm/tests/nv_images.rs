//! Two indices for two images of one device: which of them opens, and that they have one release in a boot together.

use super::between::{Between, Instead, NV_READ_LOCK, refusal};
use super::nv::{source, source_at};
use super::*;
use crate::source::differ_in_values_alone;

/// What register 11 holds in the image that is booted next.
const NEXT: u8 = 0xcc;

fn holding(value: [u8; 32]) -> PcrValues {
    PcrValues::new([(7, after(0x77)), (11, value)])
}

fn boot(device: &mut Device, image: u8) {
    device.tpm.reboot();
    device.tpm.extend(7, 0x77);
    device.tpm.extend(11, image);
}

/// A slot for the image that runs, and one for register 11 with `value`.
fn two(device: &Device, policy: &PolicyRequest, value: [u8; 32]) -> [Provisioned; 2] {
    let old = source(device).provision(policy, &NoAuth, soon()).unwrap();
    let new = source(device).predict(&old.public, &holding(value), &NoAuth, soon()).unwrap();
    assert!(differ_in_values_alone(&old.public, &new.public) && !new.ikm.ct_eq(&old.ikm));
    [old, new]
}

/// As a start of edgekeep asks, which knows all slots of the store.
fn release(device: &Device, all: &[Provisioned; 2], which: usize) -> Result<Released, SourceError> {
    let slots = all.each_ref().map(|made| made.public.clone());
    source(device).among(&slots).release(&slots[which], &NoAuth, soon())
}

fn gives(device: &Device, all: &[Provisioned; 2], which: usize) -> bool {
    release(device, all, which).is_ok_and(|released| released.ikm.ct_eq(&all[which].ikm))
}

#[test]
fn an_index_for_the_next_image_opens_in_it_and_the_old_one_in_the_old() {
    for policy in [limited(1), measured()] {
        let Some(mut device) = Device::new() else { return };
        let all = two(&device, &policy, after(NEXT));
        assert!(matches!(
            release(&device, &all, 1),
            Err(SourceError::PolicyMismatch { .. } | SourceError::Exhausted { .. })
        ));
        assert!(gives(&device, &all, 0), "asking the other first has cost nothing");
        for (image, which) in [(NEXT, 1), (0xbb, 0), (NEXT, 1)] {
            boot(&mut device, image);
            assert!(matches!(release(&device, &all, 1 - which), Err(SourceError::PolicyMismatch { .. })));
            assert!(gives(&device, &all, which), "{image:#x}");
        }
        boot(&mut device, 0xdd);
        for which in [0, 1] {
            assert!(matches!(release(&device, &all, which), Err(SourceError::PolicyMismatch { .. })), "neither image");
        }
    }
}

/// Values that the present image has too, and such as it comes to later in the same boot: the second index is no second
/// release, whichever of the two is asked first and by whatever tool the other.
#[test]
fn two_images_release_once_in_a_boot() {
    let later = extended(&after(0xbb), &[0xee; 32]);
    for (value, moves_on) in [(after(0xbb), false), (later, true)] {
        let Some(mut device) = Device::new() else { return };
        let all = two(&device, &limited(1), value);
        let move_on = |device: &Device| {
            if moves_on {
                device.tpm.extend(11, 0xee);
            }
        };
        // In the boot in which it is predicted the old index has the release.
        assert!(gives(&device, &all, 0));
        move_on(&device);
        let alone = source(&device).release(&all[1].public, &NoAuth, soon());
        assert!(matches!(alone, Err(SourceError::Exhausted { .. })), "{value:02x?}: {alone:?}");
        for first in if moves_on { vec![0] } else { vec![0, 1] } {
            device.reboot();
            assert!(gives(&device, &all, first), "{first}");
            move_on(&device);
            for which in [0, 1] {
                // Without a word of the others, as another tool would ask.
                let again = source(&device).release(&all[which].public, &NoAuth, soon());
                assert!(matches!(again, Err(SourceError::Exhausted { .. })), "{which} after {first}: {again:?}");
            }
        }
    }
}

/// Locked, and only then read: what cannot be locked is a release too many.
#[test]
fn another_images_index_that_cannot_be_locked_gives_nothing() {
    let Some(mut device) = Device::new() else { return };
    let all = two(&device, &limited(1), after(NEXT));
    device.reboot();
    let slots = all.each_ref().map(|made| made.public.clone());
    let bus = Between::new(&device.tpm, Instead { code: NV_READ_LOCK, answer: refusal(0x101) });
    let released = source_at(&device, bus.socket()).among(&slots).release(&slots[0], &NoAuth, soon());
    assert!(matches!(released, Err(SourceError::Refused { .. })), "{released:?}");
    drop(bus);
    assert!(gives(&device, &all, 0), "no release was lost");

    // One that somebody has removed gives nothing by itself, and keeps nobody out.
    device.reboot();
    source(&device).discard(&slots[1], &[], &NoAuth, soon()).unwrap();
    assert!(gives(&device, &all, 0));
}

#[test]
fn a_pin_a_window_and_what_values_may_not_say() {
    let Some(mut device) = Device::new() else { return };
    let pin = device.pin_file("1234");
    let policy = PolicyRequest { pin: true, window: Some(Duration::from_secs(600)), ..limited(1) };
    let old = source(&device).provision(&policy, &pin, soon()).unwrap().public;
    let predict = |values: &PcrValues, auth: &dyn Auth| source(&device).predict(&old, values, auth, soon());
    let refused = |made| match made {
        Err(SourceError::PolicyEmpty { defect }) => defect,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(predict(&PcrValues::new([(7, after(0x77))]), &pin)), "PCR 11 has no known value");
    assert!(refused(predict(&holding([0; 32]), &pin)).starts_with("PCR 11 was never extended"));
    assert!(matches!(predict(&holding(after(NEXT)), &NoAuth), Err(SourceError::NoPin { .. })));
    assert_eq!(device.tpm.nv_indices().len(), 1, "what is refused leaves no index behind");
    let new = predict(&holding(after(NEXT)), &pin).unwrap();
    boot(&mut device, NEXT);
    assert!(matches!(source(&device).release(&new.public, &NoAuth, soon()), Err(SourceError::NoPin { .. })));
    assert!(source(&device).release(&new.public, &pin, soon()).unwrap().ikm.ct_eq(&new.ikm));
    // A slot that goes takes its own index with it, and no other.
    source(&device).discard(&old, &[&new.public], &NoAuth, soon()).unwrap();
    assert_eq!(device.tpm.nv_indices().len(), 1);
    boot(&mut device, NEXT);
    assert!(source(&device).release(&new.public, &pin, soon()).unwrap().ikm.ct_eq(&new.ikm));
    let Some(other) = Device::new() else { return };
    let elsewhere = source(&other).predict(&old, &holding(after(NEXT)), &pin, soon());
    assert!(matches!(elsewhere, Err(SourceError::WrongDevice { .. })), "{elsewhere:?}");
}
