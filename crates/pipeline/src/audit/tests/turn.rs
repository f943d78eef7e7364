//! A new key for the ring, and whoever has the one before.

use super::disk::FakeDisk;
use super::*;
use crate::audit::chain::Link;
use crate::audit::frame;
use crate::audit::segment::{HEADER_BYTES, Header, HeaderFound};

fn next() -> ChainKey {
    ChainKey::new(&[4; 32])
}

/// Both, as the store has them once the turn is noted.
fn both(turned: Turned) -> ChainKeys {
    keys().turned(next(), turned)
}

/// Records 1 to 20 under the first key, 21 to 30 under the next one.
fn ring_of_two_keys() -> (FakeDisk, Ring, Turned) {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    (1..=20).for_each(|n| assert!(append(&mut ring, n, 4000)));
    let turned = ring.turn(next()).unwrap();
    (21..=30).for_each(|n| assert!(append(&mut ring, n, 100)));
    ring.sync().unwrap();
    (disk, ring, turned)
}

#[test]
fn it_goes_on_under_the_new_key_and_all_is_proven() {
    let (disk, mut ring, turned) = ring_of_two_keys();
    assert_eq!((turned.generation, ring.at.generation), (2, 2));
    let (seen, verification) = numbers_under(&disk, &both(turned));
    assert_eq!((seen, verification.alarms), ((1..=30).collect(), vec![]));
    let opened = Ring::open(&disk, dir(), both(turned), u64::MAX).unwrap();
    assert_eq!((opened.torn, opened.alarms), (false, vec![]));
    // Once around: nothing is under the former key any more.
    (31..=130).for_each(|n| assert!(append(&mut ring, n, 4000)));
    let (seen, verification) = numbers_under(&disk, &ChainKeys::new(ChainKey::new(&[9; 32])).turned(next(), turned));
    assert_eq!((seen.last(), verification.alarms), (Some(&130), vec![]));
}

#[test]
fn two_turns_one_after_the_other_are_proven() {
    let (disk, mut ring, turned) = ring_of_two_keys();
    let again = ring.turn(ChainKey::new(&[5; 32])).unwrap();
    assert!(append(&mut ring, 31, 10) && ring.sync().is_ok());
    let keys = both(turned).turned(ChainKey::new(&[5; 32]), again);
    let (seen, verification) = numbers_under(&disk, &keys);
    assert_eq!((seen.last(), verification.alarms), (Some(&31), vec![]));
    assert_eq!(Ring::open(&disk, dir(), keys, u64::MAX).unwrap().alarms, []);
}

/// Records under any key, as whoever has it writes them.
fn forge(header: Header, key: &ChainKey, first: u64) -> Vec<u8> {
    let mut image = header.encode(key).to_vec();
    let mut link = header.start;
    for n in 0..5 {
        let body = body(first + n, 10);
        let record = NewRecord { kind: Kind::Request, store_sequence: 1, body: body.as_bytes() };
        link = frame::encode(
            &mut image,
            key,
            &link,
            header.first_sequence.wrapping_add(n),
            header.first_sequence,
            &record,
        );
    }
    image.resize(64 * 1024, 0);
    image
}

fn header(disk: &FakeDisk, slot: u32, keys: &ChainKeys) -> Header {
    header_in(&disk.lock().files[&dir().join(format!("ring-{slot:02}"))].seen(), slot, keys)
}

fn header_in(bytes: &[u8], slot: u32, keys: &ChainKeys) -> Header {
    let HeaderFound::Valid(header) = Header::parse(bytes, slot, keys) else { panic!("no header") };
    header
}

#[test]
fn a_segment_under_the_former_key_is_refused_where_the_new_one_has_begun() {
    let (disk, _, turned) = ring_of_two_keys();
    let newest = header(&disk, 2, &both(turned));
    // In place of the newest, and as the one after it.
    for (slot, generation) in [(2, 2), (0, 3)] {
        let disk = disk.after_power_cut(|| true);
        let forged = forge(Header { slot, generation, ..newest }, &key(), 666);
        disk.change(&format!("ring-{slot:02}"), |bytes| *bytes = forged);
        let (seen, verification) = numbers_under(&disk, &both(turned));
        assert!(!seen.contains(&666), "slot {slot}");
        assert!(!verification.alarms.is_empty(), "slot {slot}");
        let opened = Ring::open(&disk, dir(), both(turned), u64::MAX).unwrap();
        assert_eq!(opened.ring.at.generation, 2, "it is not gone on from");
    }
}

#[test]
fn a_record_of_before_that_is_changed_with_its_key_no_longer_fits_what_follows() {
    let (disk, _, turned) = ring_of_two_keys();
    let last = header(&disk, 1, &keys());
    // All of the last segment under the former key: other records, as many, and rightly closed.
    let forged = {
        let mut image = last.encode(&key()).to_vec();
        let mut link: Link = last.start;
        let count = header(&disk, 2, &both(turned)).first_sequence - last.first_sequence;
        for n in 0..count {
            let (kind, body) = if n + 1 == count {
                (Kind::Closed, r#"{"type":"ring","event":"closed"}"#.to_owned())
            } else {
                (Kind::Request, body(666, 10))
            };
            let sequence = last.first_sequence + n;
            let record = NewRecord { kind, store_sequence: 0, body: body.as_bytes() };
            link = frame::encode(&mut image, &key(), &link, sequence, sequence - 1, &record);
        }
        image.resize(64 * 1024, 0);
        image
    };
    disk.change("ring-01", |bytes| *bytes = forged);
    let (seen, verification) = numbers_under(&disk, &both(turned));
    assert!(seen.contains(&666), "each of them is proven by its own key");
    assert!(matches!(verification.alarms[..], [Alarm::Gap { slot: 2, .. }]), "{:?}", verification.alarms);
}

/// A ring of `count` records under the former key, in the place of the one that is there.
fn put_back(disk: &FakeDisk, count: u64) {
    let old = FakeDisk::default();
    let mut ring = create(&old);
    (1..=count).for_each(|n| assert!(append(&mut ring, n, 4000)));
    assert!(ring.sync().is_ok());
    for slot in 0..3 {
        let bytes = old.lock().files[&dir().join(format!("ring-{slot:02}"))].seen();
        disk.change(&format!("ring-{slot:02}"), |now| *now = bytes);
    }
}

#[test]
fn a_ring_from_before_the_turn_that_is_put_back_is_an_alarm_and_is_not_gone_on_from() {
    let (disk, _, turned) = ring_of_two_keys();
    put_back(&disk, 20);
    let (_, verification) = numbers_under(&disk, &both(turned));
    assert_eq!(verification.alarms, [Alarm::SegmentMissing { slot: 2 }]);
    let opened = Ring::open(&disk, dir(), both(turned), 33).unwrap();
    assert_eq!(opened.alarms, [Alarm::SegmentMissing { slot: 2 }]);
    assert_eq!((opened.ring.at.generation, opened.ring.store_sequence()), (2, 33), "what follows is under the new key");
    let mut told = false;
    verify(&disk, dir(), &both(turned), |e| told |= e.kind == Kind::Alarm).unwrap();
    assert!(told, "the ring itself says so");
    assert_eq!(Ring::open(&disk, dir(), both(turned), 33).unwrap().alarms, [], "and goes on");
}

/// Whoever has the former key writes a history of his own up to the turn, takes away what came after it, and lets the
/// device start: it does not sign the end of that history, whatever he takes away afterwards.
#[test]
fn the_device_does_not_vouch_for_a_history_that_was_written_with_the_former_key() {
    let (disk, _, turned) = ring_of_two_keys();
    let last = header(&disk, 1, &keys());
    for (first_sequence, segments, store_sequence) in [(last.first_sequence, 3, 20), (u64::MAX, 2, u64::MAX), (0, 3, 0)]
    {
        let disk = disk.after_power_cut(|| true);
        let forged = forge(Header { first_sequence, segments, store_sequence, generation: 1, ..last }, &key(), 666);
        disk.change("ring-01", |bytes| *bytes = forged);
        disk.change("ring-02", |bytes| bytes.fill(0));
        let opened = Ring::open(&disk, dir(), both(turned), 33).unwrap();
        assert_eq!(opened.alarms, [Alarm::SegmentMissing { slot: 2 }]);
        assert_eq!(opened.ring.store_sequence(), 33);
        let mut ring = opened.ring;
        assert_eq!(ring.files.len(), 3);
        assert!(append(&mut ring, 40, 10) && ring.sync().is_ok());
        // He takes the alarm away, and all that is behind it.
        disk.change("ring-02", |bytes| bytes[HEADER_BYTES..].fill(0));
        let gap = |alarms: &[Alarm]| alarms.iter().any(|a| matches!(a, Alarm::Gap { slot: 2, .. }));
        let (_, verification) = numbers_under(&disk, &both(turned));
        assert!(gap(&verification.alarms), "{:?}", verification.alarms);
        assert!(gap(&Ring::open(&disk, dir(), both(turned), 33).unwrap().alarms));
    }
}

#[test]
fn the_front_of_a_ring_is_not_cut_off_with_its_former_key() {
    let (disk, _, turned) = ring_of_two_keys();
    disk.change("ring-00", |bytes| {
        // The first five records away: a new header, and what follows moved up to it.
        let first = Header { first_sequence: 6, start: [0; 32], ..header_in(bytes, 0, &keys()) };
        let (mut at, mut start) = (HEADER_BYTES, first.start);
        for _ in 0..5 {
            let frame::Parsed::Frame(f) = frame::parse(&bytes[at..]) else { panic!("no record") };
            (at, start) = (at + f.span, f.link);
        }
        let kept = bytes[at..].to_vec();
        bytes[..HEADER_BYTES].copy_from_slice(&Header { start, ..first }.encode(&key()));
        bytes[HEADER_BYTES..].fill(0);
        bytes[HEADER_BYTES..HEADER_BYTES + kept.len()].copy_from_slice(&kept);
    });
    let (seen, verification) = numbers_under(&disk, &both(turned));
    assert_eq!((seen[0], seen.last()), (5, Some(&30)), "each of them is proven");
    assert_eq!(verification.alarms, [Alarm::Gap { slot: 0, sequence: 6 }]);
}

/// The next segment lies on a bad place for good: a turn fails, and the ring goes on where there is room.
#[test]
fn a_turn_into_a_bad_place_does_not_stop_the_ring() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    assert!(append(&mut ring, 1, 10) && ring.sync().is_ok());
    disk.lock().bad_file = Some(dir().join("ring-01"));
    for n in 2..20 {
        assert!(ring.turn(next()).is_err());
        assert!(append(&mut ring, n, 10) && ring.sync().is_ok(), "record {n}");
    }
    let opened = Ring::open_turning(&disk, dir(), keys(), next(), u64::MAX).unwrap();
    assert_eq!((opened.turned, opened.alarms), (None, vec![]));
    disk.lock().bad_file = None;
    let mut ring = opened.ring;
    let turned = ring.turn(next()).unwrap();
    assert!(append(&mut ring, 20, 10) && ring.sync().is_ok());
    let (seen, verification) = numbers_under(&disk, &both(turned));
    assert_eq!((seen, verification.alarms), ((1..=20).collect(), vec![]));
}

#[test]
fn a_cut_while_a_ring_begins_again_never_leaves_it_without_its_alarm() {
    let prepared = || {
        let (disk, _, turned) = ring_of_two_keys();
        put_back(&disk, 20);
        disk.change("ring-00", |bytes| bytes.truncate(100));
        (disk, turned)
    };
    let (whole, turned) = prepared();
    let before = whole.lock().operations;
    Ring::open(&whole, dir(), both(turned), 33).unwrap();
    let operations = whole.lock().operations;
    for cut in before..=operations {
        for luck in 0..4 {
            let (disk, turned) = prepared();
            disk.lock().cut_at = Some(cut);
            _ = Ring::open(&disk, dir(), both(turned), 33);
            let mut dice = Dice(0x1234_5678 + cut * 31 + luck);
            let disk = disk.after_power_cut(|| dice.roll().is_multiple_of(2));
            let opened = Ring::open(&disk, dir(), both(turned), 33).unwrap();
            let mut told = !opened.alarms.is_empty();
            verify(&disk, dir(), &both(turned), |e| told |= e.kind == Kind::Alarm).unwrap();
            assert!(told, "cut {cut}, luck {luck}");
        }
    }
}

#[test]
fn what_lay_in_the_reserve_is_in_the_ring_after_the_turn() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    assert!(append(&mut ring, 1, 10) && ring.sync().is_ok());
    let rescued = body(500, 10);
    ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: rescued.as_bytes() }).unwrap();
    let turned = ring.turn(next()).unwrap();
    let (seen, verification) = numbers_under(&disk, &both(turned));
    assert_eq!((seen, verification.alarms), (vec![1, 500], vec![]));
    // It serves again, under the new key, and the former one puts nothing there that is believed.
    ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: body(501, 10).as_bytes() })
        .unwrap();
    assert_eq!(numbers_under(&disk, &both(turned)).0, [1, 500, 501]);
    let reserve = header(&disk, 0, &both(turned));
    let forged = forge(Header { slot: u32::MAX, ..reserve }, &key(), 666);
    disk.change("reserve", |bytes| *bytes = forged);
    assert_eq!(numbers_under(&disk, &both(turned)).0, [1, 500]);
}

/// Records 1 to `count` in the ring, durable, and 500 in the reserve.
fn ring_and_reserve(count: u64) -> (FakeDisk, Ring) {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    (1..=count).for_each(|n| assert!(append(&mut ring, n, 4000)));
    ring.sync().unwrap();
    let rescued = body(500, 10);
    ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: rescued.as_bytes() }).unwrap();
    (disk, ring)
}

#[test]
fn a_power_cut_at_any_write_or_sync_of_a_turn_is_mended() {
    let prepared = || ring_and_reserve(17);
    let (whole, mut ring) = prepared();
    let before = whole.lock().operations;
    ring.turn(next()).unwrap();
    let operations = whole.lock().operations;
    assert!(operations - before >= 8, "two segments, the record and the reserve: {}", operations - before);

    let mut twice = 0;
    for cut in before..=operations {
        for luck in 0..8 {
            let (disk, mut ring) = prepared();
            disk.lock().cut_at = Some(cut);
            let done = ring.turn(next()).is_ok();
            assert_eq!(done, cut == operations);
            let mut dice = Dice(0x51ed_270b + cut * 31 + luck);
            let disk = disk.after_power_cut(|| match luck {
                0 => false,
                1 => true,
                _ => !dice.roll().is_multiple_of(3),
            });
            // The store has both keys, and no note of when the new one began.
            let opened = Ring::open_turning(&disk, dir(), keys(), next(), u64::MAX).unwrap();
            assert_eq!(opened.alarms, [], "cut {cut}, luck {luck}");
            let mut ring = opened.ring;
            let turned = opened.turned.unwrap();
            assert!(turned.generation > 0 && ring.at.generation >= turned.generation);
            assert!(append(&mut ring, 1000, 10) && ring.sync().is_ok());
            let (mut seen, verification) = numbers_under(&disk, &both(turned));
            assert_eq!(verification.alarms, [], "cut {cut}, luck {luck}");
            let all = seen.len();
            seen.dedup();
            twice += all - seen.len();
            let expected: Vec<u64> = (1..=17).chain([500, 1000]).collect();
            assert_eq!(seen, expected, "cut {cut}, luck {luck}");
            // The note that follows: the same ring by it.
            let opened = Ring::open(&disk, dir(), both(turned), u64::MAX).unwrap();
            assert_eq!((opened.torn, opened.alarms), (false, vec![]), "cut {cut}, luck {luck}");
        }
    }
    assert!(twice > 0, "a cut before the reserve is wiped leaves its record twice, and never not at all");
}

/// One operation fails and the disk goes on: the ring too, under whichever key, and so does the next start.
#[test]
fn a_fault_at_any_write_or_sync_of_a_turn_loses_nothing_and_alarms_nobody() {
    // Little, so that a segment that is left for its fault pushes none of them out.
    let prepared = || ring_and_reserve(5);
    let (whole, mut ring) = prepared();
    let before = whole.lock().operations;
    ring.turn(next()).unwrap();
    let operations = whole.lock().operations;
    let (mut turned_at_once, mut turned_later) = (0, 0);
    for fault in before + 1..=operations {
        for restart in [false, true] {
            let (disk, mut ring) = prepared();
            disk.lock().fails_at = Some(fault);
            let turned = ring.turn(next()).ok();
            // A sync that failed leaves its segment, so the record may need a second try.
            assert!(append(&mut ring, 600, 10) || append(&mut ring, 600, 10), "fault {fault}");
            assert!(ring.sync().is_ok(), "fault {fault}");
            let turned = match turned {
                Some(turned) => {
                    turned_at_once += 1;
                    turned
                }
                None if restart => {
                    drop(ring);
                    let opened = Ring::open_turning(&disk, dir(), keys(), next(), u64::MAX).unwrap();
                    assert_eq!(opened.alarms, [], "fault {fault}");
                    opened.turned.unwrap()
                }
                None => {
                    turned_later += 1;
                    ring.turn(next()).unwrap()
                }
            };
            let opened = Ring::open(&disk, dir(), both(turned), u64::MAX).unwrap();
            assert_eq!((opened.torn, opened.alarms), (false, vec![]), "fault {fault}, restart {restart}");
            let (mut seen, verification) = numbers_under(&disk, &both(turned));
            assert_eq!(verification.alarms, [], "fault {fault}, restart {restart}");
            seen.sort_unstable();
            seen.dedup();
            let expected: Vec<u64> = (1..=5).chain([500, 600]).collect();
            assert_eq!(seen, expected, "fault {fault}, restart {restart}");
        }
    }
    assert!(turned_at_once > 0 && turned_later > 2, "{turned_at_once}, {turned_later}");
}
