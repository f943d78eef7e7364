//! The writer over a backend that breaks: what callers are told, and that nobody waits for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use host::{BootId, BootTime, Clock, Disk, OsDisk, OsEntropy, WallTime};
use secret::crypto::sha256;
use tokio::sync::oneshot;

use crate::StorePath;
use crate::backend::{Backend, BackendError, Change, Id, NameRow, Reader, Record, StageError};
use crate::batch::{CommitError, ReadError};
use crate::head::{BootEpoch, Head, HeadRecord, Profile, SlotSet};
use crate::keyring::{Keyring, Keys};
use crate::names::ROOT;
use crate::plan::{HiddenBatch, HiddenOp};
use crate::reserve::Reserve;
use crate::root::Root;
use crate::shared::{Published, Shared};
use crate::time::Timeline;
use crate::writer::{Request, Write, Writer};

/// How a [`Broken`] backend breaks.
#[derive(Clone, PartialEq)]
enum Defect {
    /// Panics in the middle of a commit, as C code on a damaged file might abort a call.
    Panics,
    /// COMMIT fails, and so does reopening.
    NeverComesBack,
    /// COMMIT fails, and afterwards somebody else's head is there.
    ComesBackAsAnother,
    /// COMMIT fails though it was carried out.
    CommitsAndSaysNo,
    /// There is room for a COMMIT only while no file is at the path.
    FullBesides(PathBuf),
}

struct Broken {
    defect: Defect,
    head: Vec<u8>,
    staged: Vec<u8>,
}

impl Reader for Broken {
    fn value(&mut self, _: u64, _: usize) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(None)
    }
    fn names(&mut self, _: &Id, _: usize) -> Result<Vec<NameRow>, BackendError> {
        Ok(Vec::new())
    }
}

impl Backend for Broken {
    fn record(&mut self, _: Record, _: usize) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(Some(self.head.clone()))
    }
    fn scan(&mut self, _: &mut dyn FnMut(NameRow)) -> Result<(), BackendError> {
        Ok(())
    }
    fn begin(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    fn stage(&mut self, changes: &[Change]) -> Result<(), StageError> {
        if let [Change::SetRecord { record: Record::Head, bytes }] = changes {
            self.staged.clone_from(bytes);
        }
        Ok(())
    }
    fn commit(&mut self) -> Result<(), BackendError> {
        assert!(self.defect != Defect::Panics, "a panic in the backend");
        match &self.defect {
            Defect::FullBesides(path) if path.exists() => return Err(BackendError::Full),
            Defect::FullBesides(_) => {
                self.head.clone_from(&self.staged);
                return Ok(());
            }
            Defect::CommitsAndSaysNo => self.head.clone_from(&self.staged),
            Defect::Panics | Defect::NeverComesBack | Defect::ComesBackAsAnother => {}
        }
        Err(BackendError::Disk(std::io::ErrorKind::Other.into()))
    }
    fn rollback(&mut self) {}
    fn reopen(&mut self) -> Result<(), BackendError> {
        match self.defect {
            Defect::NeverComesBack => return Err(BackendError::Disk(std::io::ErrorKind::Other.into())),
            Defect::ComesBackAsAnother => self.head[40] ^= 1,
            Defect::Panics | Defect::CommitsAndSaysNo | Defect::FullBesides(_) => {}
        }
        Ok(())
    }
    fn recycle(&mut self) -> Result<(), BackendError> {
        Err(BackendError::Full)
    }
    fn checkpoint(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

struct Still;

impl Clock for Still {
    fn boot_id(&self) -> BootId {
        BootId([1; 16])
    }
    fn boottime(&self) -> BootTime {
        BootTime(1)
    }
    fn wall(&self) -> WallTime {
        WallTime(1)
    }
}

/// A writer over a backend that is made with the first head.
fn writer(
    backend: impl FnOnce(Vec<u8>) -> Box<dyn Backend>,
    reserve: Option<Reserve>,
) -> (Arc<Keys>, Arc<Shared>, Writer) {
    let keys = Arc::new(Keyring::generate(&OsEntropy).keys([7; 16]));
    let timeline = Timeline::start(None, WallTime(0), &Still);
    let head = HeadRecord {
        public: Head {
            sequence: 0,
            boot: BootEpoch { boot_id: BootId([1; 16]), count: 1 },
            store_epoch: 1,
            profile: Profile::Demo,
            slots: SlotSet { generation: 1, digest: [0; 32] },
            sealed_values: 0,
        },
        time: timeline.record(&Still),
        keyring_digest: sha256(&[]),
        rows: 0,
        root: Root::default(),
    };
    let bytes = head.seal(&keys, &OsEntropy);
    let published = Published { keys: Arc::clone(&keys), index: Default::default(), head: head.public };
    let shared =
        Arc::new(Shared::new(Arc::new(Still), Arc::new(OsEntropy), timeline, published, 0, Default::default()));
    let writer = Writer::new(Arc::clone(&shared), backend(bytes.clone()), head, bytes, reserve, Box::new(()));
    (keys, shared, writer)
}

/// Puts an entry twice and then lists the root; returns the answers, and whether the store is still open.
fn run(defect: Defect) -> (Vec<Option<Result<(), CommitError>>>, bool) {
    let (keys, shared, writer) = writer(|head| Box::new(Broken { defect, head, staged: Vec::new() }), None);
    let (requests, queue) = sync_channel(8);
    let mut answers = Vec::new();
    for name in ["a", "b"] {
        let path = keys.hidden(&StorePath::new([name]).unwrap()).unwrap();
        let op = HiddenOp { path, value: Some(secret::SecretBytes::new(vec![1])) };
        let batch = HiddenBatch { absent: vec![], versions: vec![], ops: vec![op], value_bytes: 1 };
        let (reply, answer) = oneshot::channel();
        requests.send(Request::Write(Write::Batch(batch), reply)).unwrap();
        answers.push(answer);
        // Not in one commit with the next: a read stands between.
        requests.send(Request::Keyring(oneshot::channel().0)).unwrap();
    }
    let (reply, list) = oneshot::channel();
    requests.send(Request::List(ROOT, reply)).unwrap();
    drop(requests);
    writer.run(&queue);
    assert!(shared.keys().is_none(), "it seals at its end; whether it was sealed before, the list tells");
    let list = list.blocking_recv().expect("a list is answered in any case");
    let answers = answers.into_iter().map(|a| a.blocking_recv().ok().map(|r| r.map(drop))).collect();
    (answers, !matches!(list, Err(ReadError::Sealed)))
}

#[test]
fn a_panic_seals_the_store_and_answers_those_who_come_later() {
    let (answers, open) = run(Defect::Panics);
    assert!(answers[0].is_none(), "its channel is closed, which `Store` tells as an unknown outcome");
    assert!(matches!(answers[1], Some(Err(CommitError::Sealed))), "{answers:?}");
    assert!(!open);
}

#[test]
fn a_disk_that_does_not_come_back_seals_the_store() {
    for defect in [Defect::NeverComesBack, Defect::ComesBackAsAnother] {
        let (answers, open) = run(defect);
        assert!(matches!(answers[0], Some(Err(CommitError::OutcomeUnknown(_)))), "{answers:?}");
        assert!(matches!(answers[1], Some(Err(CommitError::Sealed))), "{answers:?}");
        assert!(!open);
    }
}

#[test]
fn a_commit_that_was_carried_out_and_failed_is_found_and_not_called_done() {
    let (answers, open) = run(Defect::CommitsAndSaysNo);
    assert!(matches!(answers[0], Some(Err(CommitError::OutcomeUnknown(_)))), "{answers:?}");
    assert!(matches!(answers[1], Some(Err(CommitError::OutcomeUnknown(_)))), "it goes on from the head that it found");
    assert!(open);
}

#[test]
fn on_a_full_disk_what_takes_away_is_carried_out_and_what_puts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let reserve = Reserve::open(&disk, &dir.path().join("store.db"));
    let file = dir.path().join("store.reserve");
    assert!(file.exists());
    let (keys, _, writer) = writer(
        |head| Box::new(Broken { defect: Defect::FullBesides(file.clone()), head, staged: Vec::new() }),
        Some(reserve),
    );
    let (requests, queue) = sync_channel(8);
    let ask = |puts: &[bool]| {
        let ops = puts.iter().map(|puts| HiddenOp {
            path: keys.hidden(&StorePath::new(["a"]).unwrap()).unwrap(),
            value: puts.then(|| secret::SecretBytes::new(vec![1])),
        });
        let batch = HiddenBatch { absent: vec![], versions: vec![], ops: ops.collect(), value_bytes: 1 };
        let (reply, answer) = oneshot::channel();
        requests.send(Request::Write(Write::Batch(batch), reply)).unwrap();
        answer
    };
    // Two groups: what comes after a read is not in one commit with what came before.
    let first = [ask(&[true]), ask(&[false]), ask(&[true, false]), ask(&[false])];
    requests.send(Request::Keyring(oneshot::channel().0)).unwrap();
    let second = [ask(&[true]), ask(&[false])];
    drop(requests);
    writer.run(&queue);
    let answers: Vec<_> = first.into_iter().chain(second).map(|a| a.blocking_recv().unwrap().map(drop)).collect();
    for (n, answer) in answers.iter().enumerate() {
        match n {
            1 | 3 | 5 => assert!(answer.is_ok(), "{n}: {answer:?}"),
            _ => assert!(matches!(answer, Err(CommitError::DiskFull)), "{n}: {answer:?}"),
        }
    }
}

#[test]
fn a_reserve_that_cannot_be_made_leaves_the_store_to_removals() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    // A directory in its place: nothing that could be removed, or written over.
    disk.create_dir(&dir.path().join("store.reserve"), 0o700).unwrap();
    let mut reserve = Reserve::open(&disk, &dir.path().join("store.db"));
    assert!(!reserve.stands() && !reserve.give_up());
    disk.remove_dir(&dir.path().join("store.reserve")).unwrap();
    assert!(reserve.stands(), "it is made as soon as it can be");
    assert_eq!(disk.meta(&dir.path().join("store.reserve")).unwrap().unwrap().len, 4 << 20);
    assert!(reserve.give_up() && !dir.path().join("store.reserve").exists());
}
