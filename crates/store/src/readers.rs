//! A few threads that read what no cache holds, each with a connection of its own.
//!
//! They return bytes and rows as they find them; whoever asked checks them. The queue is bounded: a full one is `Busy`,
//! so that a flood of cold reads costs neither threads nor memory.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::backend::{BackendError, Id, NameRow, Reader};
use crate::lock::lock;
use crate::sqlite::MAX_STORED_BYTES;

/// A read for one of the threads.
#[derive(Debug)]
pub(crate) enum Job {
    /// The value at a row.
    Value(u64, oneshot::Sender<Result<Option<Vec<u8>>, BackendError>>),
    /// The names of a directory, at most so many.
    Names(Id, usize, oneshot::Sender<Result<Vec<NameRow>, BackendError>>),
}

/// The threads; they end, and are waited for, when this is dropped.
#[derive(Debug)]
pub(crate) struct Readers {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// One thread for each reader.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(readers: Vec<Box<dyn Reader>>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let threads = readers
            .into_iter()
            .map(|reader| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().name("store-read".into()).spawn(move || serve(reader, &queue))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Hands over a job.
    ///
    /// # Errors
    /// [`NoRoom`] when the queue is full, or all threads have ended.
    pub(crate) fn ask(&self, job: Job) -> Result<(), NoRoom> {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(NoRoom::Full),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(NoRoom::Ended),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a reader that panicked has said so
        }
    }
}

/// Why no thread takes a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Ended,
}

fn serve(mut reader: Box<dyn Reader>, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = lock(queue).recv();
        match next {
            Ok(Job::Value(row, reply)) => drop(reply.send(reader.value(row, MAX_STORED_BYTES))),
            Ok(Job::Names(dir, max, reply)) => drop(reply.send(reader.names(&dir, max))),
            Err(_) => return,
        }
    }
}

const QUEUE: usize = 64;
