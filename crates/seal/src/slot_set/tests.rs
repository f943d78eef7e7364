//! The golden set (computed by another implementation), and every way in which a set must not open.

use std::num::NonZeroU8;

use proptest::prelude::*;
use secret::SecretBytes;

use super::*;
use crate::testing::{Counting, exec_slot, golden_set, header, ikm, other_ikm, recovery, root};

const GOLDEN: &str = include_str!("../../../../tests/golden/keys/slots.v1.hex");

fn golden_bytes() -> Vec<u8> {
    hex::decode(GOLDEN.replace('\n', "")).unwrap()
}

/// The same bytes (`the_bytes_are_the_golden_ones`), but made here: so that what this build leaves out is missed.
fn made_bytes() -> Vec<u8> {
    golden_set().0.encode()
}

/// The bytes with a digest that fits again: what a hand does, and rot does not.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let digest = crypto::sha256(&[&bytes[..end]]);
    bytes[end..].copy_from_slice(&digest);
    bytes
}

fn changed(at: usize, to: u8) -> SlotSet {
    let mut bytes = made_bytes();
    assert_ne!(bytes[at], to);
    bytes[at] = to;
    SlotSet::parse(&resealed(bytes)).unwrap()
}

fn refused(set: &SlotSet) -> UnlockError {
    set.unlock(SourceKind::Exec, ikm()).unwrap_err()
}

/// Offsets of the golden file: docs/formats.md, Slot set.
const HEADER: usize = 37;
const FIRST: usize = HEADER;
const SALT: usize = FIRST + 4;
const VERIFIER: usize = SALT + 32 + 2;
const NONCE: usize = VERIFIER + 16;
const WRAP: usize = NONCE + 12;
const SECOND: usize = WRAP + 48;

#[test]
fn the_bytes_are_the_golden_ones() {
    let (set, _) = golden_set();
    assert_eq!(hex::encode(set.encode()), hex::encode(golden_bytes()));
    assert_eq!(set.digest().0, golden_bytes()[golden_bytes().len() - 32..]);
}

#[test]
fn either_source_opens_the_golden_set() {
    let set = SlotSet::parse(&golden_bytes()).unwrap();
    let by_hook = set.unlock(SourceKind::Exec, ikm()).unwrap();
    assert_eq!(by_hook.root.expose(), root().expose());
    assert_eq!((by_hook.kek.slot, by_hook.source), (SlotId(1), SourceKind::Exec));
    let by_people = set.unlock(SourceKind::Recovery, recovery().ikm().unwrap()).unwrap();
    assert_eq!(by_people.root.expose(), root().expose());
    assert_eq!((by_people.kek.slot, by_people.header()), (SlotId(2), header()));
}

#[test]
fn a_slot_tells_whether_key_material_is_its_own() {
    let (set, _) = golden_set();
    assert!(set.fits(SlotId(1), &ikm()) && !set.fits(SlotId(1), &other_ikm()));
    assert!(!set.fits(SlotId(2), &ikm()) && !set.fits(SlotId(3), &ikm()));
}

#[test]
fn ikm_of_32_64_and_1000_octets() {
    for length in [32, 64, 1000] {
        let make = || Ikm::new(SecretBytes::new((0..length).map(|i| (i % 251) as u8).collect()), None).unwrap();
        let slot = NewSlot { public: SlotPublic::bare(SourceKind::Exec), ikm: make() };
        let (set, _) = SlotSet::create(header(), &root(), vec![slot], &Counting::default()).unwrap();
        assert_eq!(set.unlock(SourceKind::Exec, make()).unwrap().root.expose(), root().expose());
    }
}

#[test]
fn wrong_ikm() {
    let set = SlotSet::parse(&made_bytes()).unwrap();
    let wrong = UnlockError::WrongIkm { slot: SlotId(1), kind: SourceKind::Exec };
    assert_eq!(set.unlock(SourceKind::Exec, other_ikm()).err(), Some(wrong));
    assert!(wrong.hint().contains("recovery key"));
}

#[test]
fn a_slot_opens_only_with_the_kind_of_source_that_it_names() {
    let set = SlotSet::parse(&golden_bytes()).unwrap();
    let none = UnlockError::NoSlotOfKind { kind: SourceKind::Software };
    assert_eq!(set.unlock(SourceKind::Software, ikm()).err(), Some(none));
    assert!(matches!(set.unlock(SourceKind::Recovery, ikm()), Err(UnlockError::WrongIkm { slot: SlotId(2), .. })));
    // Renamed on disk to a weaker kind, with the right octets.
    let renamed = changed(FIRST + 2, SourceKind::Software.number());
    assert!(matches!(renamed.unlock(SourceKind::Software, ikm()), Err(UnlockError::Tampered { .. })));
}

#[test]
fn whatever_decides_how_the_store_opens_is_bound() {
    let tampered = UnlockError::Tampered { slot: SlotId(1), kind: SourceKind::Exec, generation: 1 };
    assert_eq!(refused(&changed(34, 2)), tampered, "profile");
    assert_eq!(refused(&changed(35, 2)), tampered, "seal mode");
    assert_eq!(refused(&changed(FIRST + 3, 9)), tampered, "release limit");
    assert_eq!(refused(&changed(NONCE, 0xff)), tampered, "nonce");
    assert_eq!(refused(&changed(WRAP, !golden_bytes()[WRAP])), tampered, "wrap");
    let next = UnlockError::Tampered { slot: SlotId(1), kind: SourceKind::Exec, generation: 2 };
    assert_eq!(refused(&changed(33, 2)), next, "generation");
    // The verifier's inputs: another store, another salt, another number of the slot look like another IKM.
    let wrong = |slot| UnlockError::WrongIkm { slot: SlotId(slot), kind: SourceKind::Exec };
    assert_eq!(refused(&changed(10, 0xff)), wrong(1), "store id");
    assert_eq!(refused(&changed(SALT, 0xff)), wrong(1), "salt");
    assert_eq!(refused(&changed(VERIFIER, !golden_bytes()[VERIFIER])), wrong(1), "verifier");
    assert_eq!(refused(&changed(FIRST + 1, 0)), wrong(0), "slot id");
}

#[test]
fn a_slot_taken_out_or_put_in_is_noticed() {
    let mut bytes = made_bytes();
    bytes.truncate(SECOND);
    bytes.extend([0; 32]);
    bytes[36] = 1;
    let shorter = SlotSet::parse(&resealed(bytes)).unwrap();
    assert!(matches!(refused(&shorter), UnlockError::Tampered { .. }));
}

#[test]
fn refused_bytes_by_name() {
    let parse = |bytes: &[u8]| SlotSet::parse(bytes).unwrap_err();
    let with = |at: usize, to: u8| {
        let mut bytes = golden_bytes();
        bytes[at] = to;
        parse(&resealed(bytes))
    };
    assert_eq!(parse(b""), ParseError::NotASlotSet);
    assert_eq!(parse(b"EKSLOTS\0"), ParseError::CutShort);
    assert_eq!(parse(&golden_bytes()[..200]), ParseError::BitRot);
    assert_eq!(with(0, b'e'), ParseError::NotASlotSet);
    assert_eq!(with(9, 2), ParseError::Version { found: 2 });
    assert_eq!(with(34, 0), ParseError::Field { what: "profile", number: 0 });
    assert_eq!(with(35, 3), ParseError::Field { what: "seal mode", number: 3 });
    assert_eq!(with(36, 0), ParseError::Field { what: "number of slots", number: 0 });
    assert_eq!(with(36, 17), ParseError::Field { what: "number of slots", number: 17 });
    assert_eq!(with(36, 3), ParseError::CutShort);
    assert_eq!(with(36, 1), ParseError::TrailingBytes { count: golden_bytes().len() - SECOND - 32 });
    assert_eq!(with(FIRST + 2, 11), ParseError::Field { what: "source kind", number: 11 });
    assert_eq!(with(SECOND + 1, 1), ParseError::Order);
}

#[test]
fn an_older_set_put_back_is_stale_and_a_cut_change_is_not() {
    let (first, keks) = golden_set();
    let second = first.rewrap_all(&root(), &keks, &Counting::from(100)).unwrap();
    let third = second.rewrap_all(&root(), &keks, &Counting::from(200)).unwrap();
    let head = (second.generation(), second.digest());
    let check = |set: &SlotSet| set.unlock(SourceKind::Exec, ikm()).unwrap().check_head(head.0, &head.1);
    assert!(matches!(check(&second), Ok(HeadCheck::Current(_))));
    assert_eq!(check(&first), Err(StaleSlotSet { on_disk: 1, expected: 2 }));
    assert_eq!(check(&third), Ok(HeadCheck::HeadIsBehind { generation: 3, digest: third.digest() }));
    let fourth = third.rewrap_all(&root(), &keks, &Counting::from(50)).unwrap();
    assert_eq!(check(&fourth), Err(StaleSlotSet { on_disk: 4, expected: 2 }), "the store was put back, not the slots");
    let same_number = first.rewrap_all(&root(), &keks, &Counting::from(7)).unwrap();
    assert_eq!(check(&same_number), Err(StaleSlotSet { on_disk: 2, expected: 2 }));
}

#[test]
fn the_next_generation_needs_each_kek_and_takes_no_wrong_one() {
    let (set, mut keks) = golden_set();
    assert_eq!(set.rewrap_all(&root(), &keks[..1], &Counting::default()), Err(ChangeError::NoKek { slot: SlotId(2) }));
    keks.swap(0, 1);
    (keks[0].slot, keks[1].slot) = (SlotId(1), SlotId(2));
    assert_eq!(set.rewrap_all(&root(), &keks, &Counting::default()), Err(ChangeError::WrongKek { slot: SlotId(1) }));
}

#[test]
fn a_new_root_key_reaches_sources_that_are_absent() {
    let (set, keks) = golden_set();
    let fresh = new_root_key(&Counting::from(0x80));
    let next = set.rewrap_all(&fresh, &keks, &Counting::default()).unwrap();
    let opened = next.unlock(SourceKind::Recovery, recovery().ikm().unwrap()).unwrap();
    assert_eq!(opened.root.expose(), fresh.expose());
}

#[test]
fn a_recovery_key_is_replaced_in_one_generation() {
    let (set, mut keks) = golden_set();
    let new_key = crate::RecoveryKey::generate(&Counting::from(99));
    let change = Change { remove: vec![SlotId(2)], add: vec![new_key.new_slot().unwrap()], ..Change::default() };
    let (next, added) = set.change(&root(), &keks, change, &Counting::from(1)).unwrap();
    assert_eq!(next.slots().iter().map(Slot::id).collect::<Vec<_>>(), [SlotId(1), SlotId(3)], "no number twice");
    assert!(matches!(
        next.unlock(SourceKind::Recovery, recovery().ikm().unwrap()),
        Err(UnlockError::WrongIkm { slot: SlotId(3), .. })
    ));
    assert!(next.unlock(SourceKind::Recovery, new_key.ikm().unwrap()).is_ok());
    keks.truncate(1);
    keks.extend(added);
    assert!(
        next.rewrap_all(&root(), &keks, &Counting::default()).is_ok(),
        "the KEKs that came back are the right ones"
    );
}

#[test]
fn sets_that_must_not_be_made() {
    let create = |mode, slots| {
        SlotSet::create(SetHeader { mode, ..header() }, &root(), slots, &Counting::default()).map(|_| ()).unwrap_err()
    };
    let many = |n: usize| (0..n).map(|_| exec_slot()).collect::<Vec<_>>();
    assert_eq!(create(SealMode::Slots, vec![]), CreateError::NoSlot);
    assert_eq!(create(SealMode::Slots, many(17)), CreateError::TooMany { count: 17 });
    assert_eq!(create(SealMode::Shamir, many(2)), CreateError::ShamirHasOneSlot { count: 2 });
    assert_eq!(create(SealMode::Slots, vec![recovery().new_slot().unwrap()]), CreateError::RecoveryAlone);
    let (set, keks) = golden_set();
    let remove =
        |id| set.change(&root(), &keks, Change { remove: vec![SlotId(id)], ..Change::default() }, &Counting::default());
    assert_eq!(remove(9).err(), Some(ChangeError::NoSuchSlot { slot: SlotId(9) }));
    assert_eq!(remove(1).err(), Some(ChangeError::Create(CreateError::RecoveryAlone)));
}

#[test]
fn neither_the_bytes_nor_the_debug_form_hold_the_root_key() {
    // Other random bytes than the golden set's, which count through the root key's own.
    let (set, keks) = SlotSet::create(header(), &root(), vec![exec_slot()], &Counting::from(0x90)).unwrap();
    let bytes = set.encode();
    assert!(!bytes.windows(8).any(|w| root().expose().windows(8).any(|r| r == w)));
    let unlocked = set.unlock(SourceKind::Exec, ikm()).unwrap();
    for text in [format!("{unlocked:?}"), format!("{keks:?}")] {
        assert!(text.contains("Kek(..)") && !text.contains("expose"), "{text}");
        assert!(!text.contains(&hex::encode(&root().expose()[..4])) && !text.contains("64, 65, 66"), "{text}");
    }
}

#[test]
fn the_largest_set_fits_the_bound() {
    let item = vec![(7, vec![1; SlotPublic::MAX_BYTES - 4])];
    let public = SlotPublic::new(SourceKind::Exec, NonZeroU8::new(255), item).unwrap();
    let slots = (0..MAX_SLOTS).map(|_| NewSlot { public: public.clone(), ikm: ikm() }).collect();
    let (set, _) = SlotSet::create(header(), &root(), slots, &Counting::default()).unwrap();
    assert_eq!(set.encode().len(), MAX_SLOT_SET_BYTES);
    assert_eq!(SlotSet::parse(&set.encode()).unwrap(), set);
}

proptest! {
    /// On disk as it rots, and as a hand that knows the format would leave it.
    #[test]
    fn any_single_flipped_bit_is_refused(bit in 0usize..8 * 309) {
        let mut bytes = golden_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SlotSet::parse(&bytes).is_err());
        if bit / 8 < SECOND {
            // Beyond it lies the other slot, which the store's head vouches for and this wrap does not.
            if let Ok(set) = SlotSet::parse(&resealed(bytes)) {
                prop_assert!(set.unlock(SourceKind::Exec, ikm()).is_err());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(SlotSet::parse(&bytes).is_err());
        let mut framed = golden_bytes()[..HEADER].to_vec();
        framed.extend(&bytes);
        framed.extend([0; 32]);
        if let Ok(set) = SlotSet::parse(&resealed(framed.clone())) {
            prop_assert_eq!(set.encode(), resealed(framed), "one form for one set");
        }
    }

    #[test]
    fn sets_are_read_as_they_were_written(
        limit: u8,
        items in proptest::collection::btree_map(any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60), 0..8),
        cut in 0usize..400,
    ) {
        let public = SlotPublic::new(SourceKind::Software, NonZeroU8::new(limit), items.into_iter().collect()).unwrap();
        let slots = vec![NewSlot { public, ikm: ikm() }, exec_slot()];
        let (set, _) = SlotSet::create(header(), &root(), slots, &Counting::from(limit)).unwrap();
        let bytes = set.encode();
        prop_assert_eq!(&SlotSet::parse(&bytes).unwrap(), &set);
        prop_assert!(set.unlock(SourceKind::Software, ikm()).is_ok());
        prop_assert!(SlotSet::parse(&bytes[..bytes.len() - 1 - cut % (bytes.len() - 1)]).is_err());
    }
}
