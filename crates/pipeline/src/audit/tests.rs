//! The ring and the device on a disk that can lose its power, fill up, fail and lie.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use host::{BootId, BootTime, Clock, Disk, DiskFile, Entropy, FileKind, Meta, Owner, WallTime};
use zeroize::Zeroizing;

use super::frame::NewRecord;
use super::*;
use crate::sink::{ActorRecord, AuditSink, RequestId, RequestRecord, ResponseRecord};

/// A disk whose writes are durable only after a sync.
#[derive(Clone, Default)]
struct FakeDisk(Arc<Mutex<Files>>);

#[derive(Clone, Default)]
struct Files {
    files: BTreeMap<PathBuf, FakeFile>,
    operations: u64,
    /// The power goes before this operation: it and all later ones fail.
    cut_at: Option<u64>,
    writes_fail: bool,
    syncs_fail: bool,
    writes: u64,
    syncs: u64,
}

#[derive(Clone, Default)]
struct FakeFile {
    durable: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

impl FakeFile {
    fn seen(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (at, new) in &self.pending {
            put(&mut bytes, *at, new);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

impl Files {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.cut_at {
            Some(cut) if self.operations > cut => Err(io::Error::other("no power")),
            _ => Ok(()),
        }
    }
}

impl FakeDisk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.lock().unwrap()
    }

    /// The disk as the next boot finds it: of each unsynced write, those 512-byte blocks that `keeps` chooses.
    fn after_power_cut(&self, mut keeps: impl FnMut() -> bool) -> Self {
        let mut files = self.lock().files.clone();
        for file in files.values_mut() {
            for (at, bytes) in std::mem::take(&mut file.pending) {
                let mut from = 0;
                while from < bytes.len() {
                    let to = bytes.len().min((at + from) / 512 * 512 + 512 - at);
                    if keeps() {
                        put(&mut file.durable, at + from, &bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
        Self(Arc::new(Mutex::new(Files { files, ..Files::default() })))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.lock();
        let file = files.files.get_mut(&Path::new("audit").join(name)).unwrap();
        file.durable = file.seen();
        file.pending.clear();
        change(&mut file.durable);
    }
}

struct FakeHandle(FakeDisk, PathBuf);

impl DiskFile for FakeHandle {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().files.get(&self.1).map(FakeFile::seen).unwrap_or_default();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.writes += 1;
        if disk.writes_fail {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.entry(self.1.clone()).or_default().pending.push((offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.syncs += 1;
        if disk.syncs_fail {
            return Err(io::Error::other("medium error"));
        }
        let file = disk.files.entry(self.1.clone()).or_default();
        file.durable = file.seen();
        file.pending.clear();
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        let file = disk.files.entry(self.1.clone()).or_default();
        if file.durable.len() < len as usize {
            file.durable.resize(len as usize, 0);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().files.get(&self.1).map_or(0, |f| f.seen().len() as u64))
    }
}

impl Disk for FakeDisk {
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        Ok(self.lock().files.get(path).map(|f| Meta {
            kind: FileKind::File,
            mode: 0o600,
            owner: Owner { uid: 0, gid: 0 },
            len: f.seen().len() as u64,
        }))
    }
    fn read(&self, path: &Path, _max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(self.lock().files.get(path).map(FakeFile::seen).ok_or(io::ErrorKind::NotFound)?))
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn create_dir(&self, _: &Path, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_new(&self, _: &Path, _: &[u8], _: u32, _: Option<Owner>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.lock().files.entry(path.to_owned()).or_default();
        Ok(Box::new(FakeHandle(self.clone(), path.to_owned())))
    }
    fn sync_file(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _: &Path, _: &Path, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.lock().files.remove(path);
        Ok(())
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn chown(&self, _: &Path, _: Owner) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// xorshift: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

const SMALL: RingSize = RingSize { segments: 3, segment_bytes: 64 * 1024 };

fn key() -> Arc<ChainKey> {
    Arc::new(ChainKey::new(&[3; 32]))
}

fn dir() -> &'static Path {
    Path::new("audit")
}

fn create(disk: &FakeDisk) -> Ring {
    Ring::create(disk, dir(), SMALL, key(), &Sevens, Beginning::NewStore, 0).unwrap()
}

fn open(disk: &FakeDisk) -> Opened {
    Ring::open(disk, dir(), key(), u64::MAX).unwrap()
}

fn body(n: u64, bytes: usize) -> String {
    format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(bytes))
}

fn append(ring: &mut Ring, n: u64, bytes: usize) -> bool {
    let body = body(n, bytes);
    ring.append(&[NewRecord { kind: Kind::Request, store_sequence: n, body: body.as_bytes() }]).is_ok()
}

/// The numbers of the request records, in order.
fn numbers(disk: &FakeDisk) -> (Vec<u64>, Verification) {
    let mut seen = Vec::new();
    let verification = verify(disk, dir(), &key(), |e| {
        if e.kind == Kind::Request {
            seen.push(serde_json::from_str::<serde_json::Value>(e.line).unwrap()["n"].as_u64().unwrap());
        }
    });
    (seen, verification.unwrap())
}

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
    verify(&disk, dir(), &key(), |e| told |= e.kind == Kind::Alarm && e.line.contains("broken at record")).unwrap();
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
    assert!(matches!(Ring::open(&missing, dir(), key(), 20), Err(OpenError::AuditMissing { .. })));

    let blank = disk.after_power_cut(|| true);
    (0..3).for_each(|slot| blank.change(&format!("ring-{slot:02}"), |bytes| bytes.fill(0)));
    assert!(matches!(Ring::open(&blank, dir(), key(), 20), Err(OpenError::AuditUnreadable { .. })));

    let foreign = Arc::new(ChainKey::new(&[4; 32]));
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
    assert_eq!(Ring::open(&disk, dir(), key(), 41).unwrap().alarms, []);
    let opened = Ring::open(&disk, dir(), key(), 40).unwrap();
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
        _ = Ring::open(&hostile, dir(), key(), 0);
        verify(&hostile, dir(), &key(), |_| {}).unwrap();
    }
}

struct FakeClock(Mutex<u64>);

impl Clock for FakeClock {
    fn boot_id(&self) -> BootId {
        BootId([1; 16])
    }
    fn boottime(&self) -> BootTime {
        BootTime(*self.0.lock().unwrap())
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

struct Bench {
    disk: FakeDisk,
    clock: Arc<FakeClock>,
    device: AuditDevice,
}

fn bench(policy: SyncPolicy) -> Bench {
    let disk = FakeDisk::default();
    let ring = create(&disk);
    let clock = Arc::new(FakeClock(Mutex::new(0)));
    let device = AuditDevice::new(ring, clock.clone(), policy);
    {
        let mut files = disk.lock();
        (files.writes, files.syncs) = (0, 0);
    }
    Bench { disk, clock, device }
}

impl Bench {
    fn counts(&self) -> (u64, u64) {
        let files = self.disk.lock();
        (files.writes, files.syncs)
    }
}

const TOKEN: ActorRecord<'static> = ActorRecord::Token {
    token_code: super::record::tests::CODE_A,
    accessor_code: super::record::tests::CODE_B,
    display_name: "token",
    policies: &[],
    entity_id: "",
};

fn request<'a>(path: &'a str, actor: ActorRecord<'a>) -> RequestRecord<'a> {
    RequestRecord {
        id: RequestId::from_random([1; 16]),
        at: WallTime(0),
        operation: "update",
        path,
        mount: None,
        actor,
        rule: None,
        peer: &api::PeerAddress::Internal,
    }
}

fn response(status: u16) -> ResponseRecord<'static> {
    ResponseRecord { at: WallTime(0), status, error: None, issued: None, sequence: None, stranger: false }
}

/// Polls all futures in turns, as one thread of an executor does.
fn run<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    let mut futures: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    while futures.iter().any(|(_, out)| out.is_none()) {
        for (future, out) in futures.iter_mut().filter(|(_, out)| out.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                *out = Some(value);
            }
        }
    }
    futures.into_iter().filter_map(|(_, out)| out).collect()
}

fn run_one<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

#[test]
fn the_records_of_a_turn_are_one_write() {
    let b = bench(SyncPolicy::Interval(std::time::Duration::from_secs(1)));
    let (asked, answered) = (request("secret/a", TOKEN), response(200));
    let results = run((0..32).map(|_| b.device.record(&asked, &answered)).collect());
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(b.counts(), (1, 0), "32 records, one write, no sync");
    *b.clock.0.lock().unwrap() = 1000;
    b.device.tick().unwrap();
    assert_eq!(b.counts(), (1, 1));
    b.device.tick().unwrap();
    assert_eq!(b.counts(), (1, 1), "an idle device does not write");
    assert_eq!(numbers_of(&b.disk), 33);
}

fn numbers_of(disk: &FakeDisk) -> u64 {
    verify(disk, dir(), &key(), |_| {}).unwrap().records
}

#[test]
fn an_announcement_is_durable_before_the_change() {
    for (policy, syncs) in [(SyncPolicy::default(), 1), (SyncPolicy::Each, 1), (SyncPolicy::Never, 0)] {
        let b = bench(policy);
        let asked = request("secret/a", TOKEN);
        assert!(run((0..8).map(|_| b.device.announce(&asked)).collect()).iter().all(Result::is_ok));
        assert_eq!(b.counts(), (1, syncs), "{policy:?}");
        let after = b.disk.after_power_cut(|| false);
        assert_eq!(numbers_of(&after), 1 + 8 * syncs, "{policy:?}");
    }
}

#[test]
fn what_cannot_be_recorded_is_refused_for_all_waiters() {
    let b = bench(SyncPolicy::default());
    b.disk.lock().writes_fail = true;
    let asked = request("secret/a", TOKEN);
    let results = run((0..5).map(|_| b.device.announce(&asked)).collect());
    assert!(results.iter().all(Result::is_err));
    b.disk.lock().writes_fail = false;
    run_one(b.device.announce(&asked)).unwrap();
    assert_eq!(numbers_of(&b.disk), 2, "the disk is back, and so is the device");
}

#[test]
fn sealing_and_revoking_work_from_the_reserve() {
    let b = bench(SyncPolicy::default());
    // The ring's files fail, the reserve does not.
    b.device.with_ring(|ring| ring.files.iter_mut().for_each(|f| *f = Box::new(Bad)));
    let ordinary = request("secret/a", TOKEN);
    assert!(run_one(b.device.announce(&ordinary)).is_err());
    for path in ["sys/seal", "auth/token/revoke-accessor", "sys/leases/revoke"] {
        run_one(b.device.announce(&request(path, TOKEN))).unwrap();
    }
    let mut reserved = 0;
    verify(&b.disk, dir(), &key(), |e| reserved += u64::from(e.reserve)).unwrap();
    assert_eq!(reserved, 3);
}

/// A file of which nothing works.
struct Bad;

impl DiskFile for Bad {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Other.into())
    }
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }
    fn sync_data(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }
    fn allocate(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }
    fn len(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Other.into())
    }
}

#[test]
fn after_a_failed_sync_the_segment_is_left() {
    let b = bench(SyncPolicy::default());
    let asked = request("secret/a", TOKEN);
    b.disk.lock().syncs_fail = true;
    assert!(run_one(b.device.announce(&asked)).is_err());
    b.disk.lock().syncs_fail = false;
    run_one(b.device.announce(&asked)).unwrap();
    let mut kinds = Vec::new();
    let verification = verify(&b.disk, dir(), &key(), |e| kinds.push(e.kind)).unwrap();
    assert_eq!(kinds, [Kind::Began, Kind::Request, Kind::Repaired, Kind::Request]);
    assert_eq!(verification.alarms, []);
}

#[test]
fn a_flood_of_strangers_cannot_push_history_out() {
    let b = bench(SyncPolicy::default());
    run_one(b.device.record(&request("secret/first", TOKEN), &response(200))).unwrap();
    for i in 0..20_000u64 {
        *b.clock.0.lock().unwrap() = i * 10; // 100 a second
        let unknown = ActorRecord::Unknown { token_code: super::record::tests::CODE_A };
        run_one(b.device.record(&request("secret/a", unknown), &response(403))).unwrap();
        let login = request("auth/userpass/login/root", ActorRecord::Anonymous);
        run_one(b.device.announce(&login)).unwrap();
        run_one(b.device.conclude(&login, &response(400))).unwrap();
    }
    b.device.close().unwrap();
    let (mut first, mut counted, mut lines) = (false, 0, 0);
    let verification = verify(&b.disk, dir(), &key(), |e| {
        first |= e.line.contains("secret/first");
        lines += u64::from(e.kind == Kind::Response);
        if e.kind == Kind::Strangers {
            counted += serde_json::from_str::<serde_json::Value>(e.line).unwrap()["count"].as_u64().unwrap();
        }
    })
    .unwrap();
    assert!(first, "what was there before the flood is still there");
    assert_eq!(counted + lines, 40_001, "each of them is written or counted");
    assert!(verification.records < 200, "{}", verification.records);
    assert!(b.counts().0 < 200, "and the disk is not worn: {:?}", b.counts());
}

#[test]
fn a_login_that_succeeds_in_a_flood_is_recorded() {
    let b = bench(SyncPolicy::default());
    let login = request("auth/userpass/login/a", ActorRecord::Anonymous);
    for _ in 0..1000 {
        run_one(b.device.conclude(&login, &response(400))).unwrap();
    }
    let issued = crate::sink::IssuedRecord {
        token_code: super::record::tests::CODE_A.into(),
        accessor_code: super::record::tests::CODE_B.into(),
    };
    run_one(b.device.announce(&login)).unwrap();
    let granted = ResponseRecord { issued: Some(issued), sequence: Some(9), ..response(200) };
    run_one(b.device.conclude(&login, &granted)).unwrap();
    let mut found = 0;
    verify(&b.disk, dir(), &key(), |e| found += u64::from(e.store_sequence == 9)).unwrap();
    assert_eq!(found, 1);
}
