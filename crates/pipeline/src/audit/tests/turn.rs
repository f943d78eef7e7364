//! A new key for the ring, and whoever has the one before.

use super::disk::FakeDisk;
use super::*;
use crate::audit::chain::Link;
use crate::audit::frame;
use crate::audit::segment::{Header, HeaderFound};

fn next() -> ChainKey {
    ChainKey::new(&[4; 32])
}

/// Both, as the store has them once the turn is noted.
fn turned(begins: u64) -> ChainKeys {
    keys().turned(next(), begins)
}

/// Records 1 to 20 under the first key, 21 to 30 under the next one.
fn ring_of_two_keys() -> (FakeDisk, Ring) {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    (1..=20).for_each(|n| assert!(append(&mut ring, n, 4000)));
    ring.turn(next()).unwrap();
    (21..=30).for_each(|n| assert!(append(&mut ring, n, 100)));
    ring.sync().unwrap();
    (disk, ring)
}

#[test]
fn it_goes_on_under_the_new_key_and_all_is_proven() {
    let (disk, mut ring) = ring_of_two_keys();
    assert_eq!((ring.begins(), ring.at.generation), (2, 2));
    let (seen, verification) = numbers_under(&disk, &turned(2));
    assert_eq!((seen, verification.alarms), ((1..=30).collect(), vec![]));
    let opened = Ring::open(&disk, dir(), turned(2), u64::MAX).unwrap();
    assert_eq!((opened.torn, opened.alarms), (false, vec![]));
    // Once around: nothing is under the former key any more.
    (31..=130).for_each(|n| assert!(append(&mut ring, n, 4000)));
    let (seen, verification) = numbers_under(&disk, &ChainKeys::new(ChainKey::new(&[9; 32])).turned(next(), 2));
    assert_eq!((seen.last(), verification.alarms), (Some(&130), vec![]));
}

#[test]
fn two_turns_one_after_the_other_are_proven() {
    let (disk, mut ring) = ring_of_two_keys();
    ring.turn(ChainKey::new(&[5; 32])).unwrap();
    assert!(append(&mut ring, 31, 10) && ring.sync().is_ok());
    let keys = turned(2).turned(ChainKey::new(&[5; 32]), 3);
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
        link = frame::encode(&mut image, key, &link, header.first_sequence + n, header.first_sequence, &record);
    }
    image.resize(64 * 1024, 0);
    image
}

fn header(disk: &FakeDisk, slot: u32, keys: &ChainKeys) -> Header {
    let bytes = disk.lock().files[&dir().join(format!("ring-{slot:02}"))].seen();
    let HeaderFound::Valid(header) = Header::parse(&bytes, slot, keys) else { panic!("no header") };
    header
}

#[test]
fn a_segment_under_the_former_key_is_refused_where_the_new_one_has_begun() {
    let (disk, _) = ring_of_two_keys();
    let newest = header(&disk, 2, &turned(2));
    // In place of the newest, and as the one after it.
    for (slot, generation) in [(2, 2), (0, 3)] {
        let disk = disk.after_power_cut(|| true);
        let forged = forge(Header { slot, generation, ..newest }, &key(), 666);
        disk.change(&format!("ring-{slot:02}"), |bytes| *bytes = forged);
        let (seen, verification) = numbers_under(&disk, &turned(2));
        assert!(!seen.contains(&666), "slot {slot}");
        assert!(!verification.alarms.is_empty(), "slot {slot}");
        let opened = Ring::open(&disk, dir(), turned(2), u64::MAX).unwrap();
        assert_eq!(opened.ring.at.generation, 2, "it is not gone on from");
    }
}

#[test]
fn a_record_of_before_that_is_changed_with_its_key_no_longer_fits_what_follows() {
    let (disk, _) = ring_of_two_keys();
    let last = header(&disk, 1, &keys());
    // All of the last segment under the former key: other records, as many, and rightly closed.
    let forged = {
        let mut image = last.encode(&key()).to_vec();
        let mut link: Link = last.start;
        let count = header(&disk, 2, &turned(2)).first_sequence - last.first_sequence;
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
    let (seen, verification) = numbers_under(&disk, &turned(2));
    assert!(seen.contains(&666), "each of them is proven by its own key");
    assert!(matches!(verification.alarms[..], [Alarm::Gap { slot: 2, .. }]), "{:?}", verification.alarms);
}

/// The whole ring of before the turn, put back by whoever kept a copy of it.
#[test]
fn a_ring_from_before_the_turn_that_is_put_back_is_an_alarm_and_is_not_gone_on_from() {
    let (disk, _) = ring_of_two_keys();
    let old = FakeDisk::default();
    let mut ring = create(&old);
    (1..=20).for_each(|n| assert!(append(&mut ring, n, 4000)));
    assert!(ring.sync().is_ok());
    for slot in 0..3 {
        let bytes = old.lock().files[&dir().join(format!("ring-{slot:02}"))].seen();
        disk.change(&format!("ring-{slot:02}"), |now| *now = bytes);
    }
    let (_, verification) = numbers_under(&disk, &turned(2));
    assert_eq!(verification.alarms, [Alarm::SegmentMissing { slot: 2 }]);
    let opened = Ring::open(&disk, dir(), turned(2), u64::MAX).unwrap();
    assert_eq!(opened.alarms, [Alarm::SegmentMissing { slot: 2 }]);
    assert!(opened.ring.at.generation >= 2, "what follows is under the new key");
    let mut told = false;
    verify(&disk, dir(), &turned(2), |e| told |= e.kind == Kind::Alarm).unwrap();
    assert!(told, "the ring itself says so");
}

#[test]
fn what_lay_in_the_reserve_is_in_the_ring_after_the_turn() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    assert!(append(&mut ring, 1, 10) && ring.sync().is_ok());
    let rescued = body(500, 10);
    ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: rescued.as_bytes() }).unwrap();
    ring.turn(next()).unwrap();
    let (seen, verification) = numbers_under(&disk, &turned(1));
    assert_eq!((seen, verification.alarms), (vec![1, 500], vec![]));
    // It serves again, under the new key, and the former one puts nothing there that is believed.
    ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: body(501, 10).as_bytes() })
        .unwrap();
    assert_eq!(numbers_under(&disk, &turned(1)).0, [1, 500, 501]);
    let reserve = header(&disk, 0, &turned(1));
    let forged = forge(Header { slot: u32::MAX, ..reserve }, &key(), 666);
    disk.change("reserve", |bytes| *bytes = forged);
    assert_eq!(numbers_under(&disk, &turned(1)).0, [1, 500]);
}

#[test]
fn a_power_cut_at_any_write_or_sync_of_a_turn_is_mended() {
    let prepared = || {
        let disk = FakeDisk::default();
        let mut ring = create(&disk);
        (1..=17).for_each(|n| assert!(append(&mut ring, n, 4000)));
        ring.sync().unwrap();
        let rescued = body(500, 10);
        ring.append_reserved(&NewRecord { kind: Kind::Request, store_sequence: 0, body: rescued.as_bytes() }).unwrap();
        (disk, ring)
    };
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
            let begins = ring.begins();
            assert!(begins > 0 && ring.at.generation >= begins);
            assert!(append(&mut ring, 1000, 10) && ring.sync().is_ok());
            let (mut seen, verification) = numbers_under(&disk, &turned(begins));
            assert_eq!(verification.alarms, [], "cut {cut}, luck {luck}");
            let all = seen.len();
            seen.dedup();
            twice += all - seen.len();
            let expected: Vec<u64> = (1..=17).chain([500, 1000]).collect();
            assert_eq!(seen, expected, "cut {cut}, luck {luck}");
            // The note that follows: the same ring by it.
            let opened = Ring::open(&disk, dir(), turned(begins), u64::MAX).unwrap();
            assert_eq!((opened.torn, opened.alarms), (false, vec![]), "cut {cut}, luck {luck}");
        }
    }
    assert!(twice > 0, "a cut before the reserve is wiped leaves its record twice, and never not at all");
}

#[test]
fn a_turn_on_a_failing_disk_leaves_the_former_key_at_work() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    assert!(append(&mut ring, 1, 10));
    disk.lock().writes_fail = true;
    assert!(ring.turn(next()).is_err());
    disk.lock().writes_fail = false;
    assert!(append(&mut ring, 2, 10) && ring.sync().is_ok());
    assert_eq!(numbers(&disk).0, [1, 2]);
    ring.turn(next()).unwrap();
    assert!(append(&mut ring, 3, 10) && ring.sync().is_ok());
    assert_eq!(numbers_under(&disk, &turned(ring.begins())).0, [1, 2, 3]);
}
