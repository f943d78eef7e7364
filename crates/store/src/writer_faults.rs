//! The writer over a backend that breaks: what callers are told, and that nobody waits for ever.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use host::{BootId, BootTime, Clock, OsEntropy, WallTime};
use secret::crypto::sha256;
use tokio::sync::oneshot;

use crate::StorePath;
use crate::backend::{Backend, BackendError, Change, Id, NameRow, Reader, Record, StageError};
use crate::batch::{CommitError, ReadError};
use crate::head::{BootEpoch, Head, HeadRecord, Profile, SlotSet};
use crate::keyring::Keyring;
use crate::names::ROOT;
use crate::plan::{HiddenBatch, HiddenOp};
use crate::root::Root;
use crate::shared::{Published, Shared};
use crate::time::Timeline;
use crate::writer::{Request, Write, Writer};

/// How a [`Broken`] backend breaks.
#[derive(Clone, Copy, PartialEq)]
enum Defect {
    /// Panics in the middle of a commit, as C code on a damaged file might abort a call.
    Panics,
    /// COMMIT fails, and so does reopening.
    NeverComesBack,
    /// COMMIT fails, and afterwards somebody else's head is there.
    ComesBackAsAnother,
    /// COMMIT fails though it was carried out.
    CommitsAndSaysNo,
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
        if self.defect == Defect::CommitsAndSaysNo {
            self.head.clone_from(&self.staged);
        }
        Err(BackendError::Disk(std::io::ErrorKind::Other.into()))
    }
    fn rollback(&mut self) {}
    fn reopen(&mut self) -> Result<(), BackendError> {
        match self.defect {
            Defect::NeverComesBack => return Err(BackendError::Disk(std::io::ErrorKind::Other.into())),
            Defect::ComesBackAsAnother => self.head[40] ^= 1,
            Defect::Panics | Defect::CommitsAndSaysNo => {}
        }
        Ok(())
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

/// Puts an entry twice and then lists the root; returns the answers, and whether the store is still open.
fn run(defect: Defect) -> (Vec<Option<Result<(), CommitError>>>, bool) {
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
    let backend = Box::new(Broken { defect, head: bytes.clone(), staged: Vec::new() });
    let writer = Writer::new(Arc::clone(&shared), backend, head, bytes, Box::new(()));

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
