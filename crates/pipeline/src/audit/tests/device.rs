//! The device: what is durable when, what is refused when, and who may fill it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use host::{BootId, BootTime, Clock, DiskFile, WallTime};

use super::disk::FakeDisk;
use super::*;
use crate::sink::{ActorRecord, AuditSink, RequestId, RequestRecord, ResponseRecord};

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
        certificate: None,
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
    verify(disk, dir(), &keys(), |_| {}).unwrap().records
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
    verify(&b.disk, dir(), &keys(), |e| reserved += u64::from(e.reserve)).unwrap();
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
    let verification = verify(&b.disk, dir(), &keys(), |e| kinds.push(e.kind)).unwrap();
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
        // Nonsense in the header of a token makes nobody less of a stranger.
        for actor in [ActorRecord::Anonymous, unknown] {
            let login = request("auth/userpass/login/root", actor);
            run_one(b.device.announce(&login)).unwrap();
            run_one(b.device.conclude(&login, &response(400))).unwrap();
        }
    }
    b.device.close().unwrap();
    let (mut first, mut counted, mut lines) = (false, 0, 0);
    let verification = verify(&b.disk, dir(), &keys(), |e| {
        first |= e.line.contains("secret/first");
        lines += u64::from(e.kind == Kind::Response);
        if e.kind == Kind::Counted {
            counted += serde_json::from_str::<serde_json::Value>(e.line).unwrap()["count"].as_u64().unwrap();
        }
    })
    .unwrap();
    assert!(first, "what was there before the flood is still there");
    assert_eq!(counted + lines, 60_001, "each of them is written or counted");
    assert!(verification.records < 200, "{}", verification.records);
    assert!(b.counts().0 < 200, "and the disk is not worn: {:?}", b.counts());
}

#[test]
fn what_a_token_is_refused_cannot_push_history_out() {
    let b = bench(SyncPolicy::default());
    let asked = request("secret/a", TOKEN);
    run_one(b.device.record(&request("secret/first", TOKEN), &response(200))).unwrap();
    for i in 0..20_000u64 {
        *b.clock.0.lock().unwrap() = i * 10; // 100 a second
        run_one(b.device.record(&asked, &response(403))).unwrap();
    }
    // What it may do is written, flood or not.
    run_one(b.device.record(&request("secret/allowed", TOKEN), &response(200))).unwrap();
    b.device.close().unwrap();
    let (mut first, mut last, mut counted, mut lines) = (false, false, 0, 0);
    let verification = verify(&b.disk, dir(), &keys(), |e| {
        first |= e.line.contains("secret/first");
        last |= e.line.contains("secret/allowed");
        lines += u64::from(e.kind == Kind::Response);
        if e.kind == Kind::Counted {
            let sum = serde_json::from_str::<serde_json::Value>(e.line).unwrap();
            assert_eq!(sum["auth"]["client_token"], super::record::tests::CODE_A, "the sum says whose it is");
            counted += sum["count"].as_u64().unwrap();
        }
    })
    .unwrap();
    assert!(first && last, "what was there before the flood, and what comes in it, is there");
    assert_eq!(counted + lines, 20_002, "each of them is written or counted");
    assert!(verification.records < 100, "{}", verification.records);
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
    verify(&b.disk, dir(), &keys(), |e| found += u64::from(e.store_sequence == 9)).unwrap();
    assert_eq!(found, 1);
}
