//! The ring: wrapping, power cuts, changes by others.

use super::disk::FakeDisk;
use super::*;

#[test]
fn it_wraps_over_the_oldest_and_stays_whole() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    for n in 1..=100 {
        assert!(append(&mut ring, n, 4000));
    }
    let (seen, verification) = numbers(&disk);
    assert_eq!(verification.alarms, []);
    assert_eq!(verification.store_sequence, 100);
    assert!(seen.len() < 48, "three segments of 64 KiB hold no more: {}", seen.len());
    assert_eq!(seen, (101 - seen.len() as u64..=100).collect::<Vec<_>>());
    assert!(disk.lock().files.values().all(|f| f.seen().len() == 64 * 1024), "no file grows");
    let opened = open(&disk);
    assert_eq!((opened.torn, opened.alarms.len()), (false, 0));
}

#[test]
fn a_power_cut_at_any_write_or_sync_is_mended() {
    // Large records, so that the script goes through several segments; a sync after every third.
    let script = |ring: &mut Ring| {
        let mut synced = 0;
        for n in 1..=40 {
            if !append(ring, n, 7000 + 331 * n as usize % 5000) {
                return synced;
            }
            if n % 3 == 0 {
                if ring.sync().is_err() {
                    return synced;
                }
                synced = n;
            }
        }
        synced
    };
    let whole = FakeDisk::default();
    let mut ring = create(&whole);
    let before = whole.lock().operations;
    script(&mut ring);
    let operations = whole.lock().operations;
    assert!(operations - before > 60, "the script does something");

    for cut in before..=operations {
        for luck in 0..6 {
            let disk = FakeDisk::default();
            let mut ring = create(&disk);
            disk.lock().cut_at = Some(cut);
            let synced = script(&mut ring);
            let mut dice = Dice(0x9e37_79b9 + cut * 31 + luck);
            let disk = disk.after_power_cut(|| match luck {
                0 => false,
                1 => true,
                _ => !dice.roll().is_multiple_of(3),
            });
            let opened = open(&disk);
            assert_eq!(opened.alarms, [], "cut {cut}, luck {luck}");
            let mut ring = opened.ring;
            assert!(append(&mut ring, 1000, 10) && ring.sync().is_ok());
            let (seen, verification) = numbers(&disk);
            assert_eq!(verification.alarms, [], "cut {cut}, luck {luck}");
            let kept = seen.len() - 1;
            assert_eq!(seen.last(), Some(&1000));
            assert!(
                seen[..kept].is_sorted() && seen[..kept].last().copied().unwrap_or(0) >= synced,
                "cut {cut}, luck {luck}"
            );
            assert!(!open(&disk).torn, "what was torn is mended once");
        }
    }
}

#[test]
fn every_change_to_what_was_durable_is_an_alarm() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    for n in 1..=55 {
        assert!(append(&mut ring, n, 3000) && ring.sync().is_ok());
    }
    assert_eq!(ring.at.generation, 2, "all three segments are in use");
    let (current, end) = (ring.slot(), ring.at.end as usize);
    let used = |slot: usize| if slot == current { end - 4000 } else { 64 * 1024 - 4096 };
    let mut dice = Dice(99);
    for round in 0..300 {
        let slot = (dice.roll() % 3) as usize;
        let at = dice.roll() as usize % used(slot);
        let changed = disk.after_power_cut(|| true);
        changed.change(&format!("ring-{slot:02}"), |bytes| bytes[at] ^= 1 << (dice.roll() % 8));
        let (_, verification) = numbers(&changed);
        assert!(!verification.alarms.is_empty(), "round {round}: slot {slot}, byte {at}");
    }
}

#[test]
fn a_changed_record_of_the_current_segment_is_seen_at_the_opening() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    for n in 1..=10 {
        assert!(append(&mut ring, n, 100) && ring.sync().is_ok());
    }
    disk.change("ring-00", |bytes| bytes[128 + 400] ^= 1);
    let opened = open(&disk);
    assert!(matches!(opened.alarms[..], [Alarm::ChainBroken { slot: 0, .. }]), "{:?}", opened.alarms);
    let (_, verification) = numbers(&disk);
    assert!(matches!(verification.alarms[..], [Alarm::ChainBroken { slot: 0, .. }]), "the evidence stays");
    let mut told = false;
    verify(&disk, dir(), &keys(), |e| told |= e.kind == Kind::Alarm && e.line.contains("broken at record")).unwrap();
    assert!(told, "the ring itself says so");
    assert_eq!(open(&disk).alarms, [], "and goes on");
}

#[test]
fn lost_files_are_told_apart() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    for n in 1..=20 {
        assert!(append(&mut ring, n, 4000));
    }
    assert!(ring.sync().is_ok());
    let missing = disk.after_power_cut(|| true);
    missing.lock().files.clear();
    assert!(matches!(Ring::open(&missing, dir(), keys(), 20), Err(OpenError::AuditMissing { .. })));

    let blank = disk.after_power_cut(|| true);
    (0..3).for_each(|slot| blank.change(&format!("ring-{slot:02}"), |bytes| bytes.fill(0)));
    assert!(matches!(Ring::open(&blank, dir(), keys(), 20), Err(OpenError::AuditUnreadable { .. })));

    let foreign = ChainKeys::new(ChainKey::new(&[4; 32]));
    assert!(matches!(Ring::open(&disk, dir(), foreign, 20), Err(OpenError::AuditUnreadable { .. })));

    let one = disk.after_power_cut(|| true);
    one.lock().files.remove(&dir().join("ring-00"));
    assert_eq!(open(&one).alarms, [Alarm::SegmentMissing { slot: 0 }]);

    // The newest segment is blanked: the one before it is closed, so there was a next one.
    let newest = disk.after_power_cut(|| true);
    newest.change("ring-01", |bytes| bytes.fill(0));
    assert_eq!(open(&newest).alarms, [Alarm::SegmentForeign { slot: 1 }]);
}

#[test]
fn a_store_older_than_its_audit_is_reported() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    assert!(append(&mut ring, 41, 10) && ring.sync().is_ok());
    assert_eq!(Ring::open(&disk, dir(), keys(), 41).unwrap().alarms, []);
    let opened = Ring::open(&disk, dir(), keys(), 40).unwrap();
    assert_eq!(opened.alarms, [Alarm::StoreOlderThanAudit { store: 40, audit: 41 }]);
    assert_eq!(opened.ring.store_sequence(), 41);
}

#[test]
fn hostile_bytes_never_panic() {
    let disk = FakeDisk::default();
    let mut ring = create(&disk);
    for n in 1..=40 {
        assert!(append(&mut ring, n, 3000));
    }
    let mut dice = Dice(5);
    for _ in 0..60 {
        let hostile = disk.after_power_cut(|| true);
        for name in ["ring-00", "ring-01", "ring-02", "reserve"] {
            hostile.change(name, |bytes| {
                for _ in 0..dice.roll() % 200 {
                    let at = dice.roll() as usize % bytes.len();
                    let n = (dice.roll() as usize % 64).min(bytes.len() - at);
                    bytes[at..at + n].fill(dice.roll() as u8);
                }
                if dice.roll().is_multiple_of(5) {
                    bytes.truncate(dice.roll() as usize % bytes.len());
                }
            });
        }
        _ = Ring::open(&hostile, dir(), keys(), 0);
        verify(&hostile, dir(), &keys(), |_| {}).unwrap();
    }
}
