//! Where slow hashes run: a few threads with a short queue, so that logins can use the cores but not the memory, and
//! other requests never wait behind them. A full queue answers 503.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use pipeline::EngineError;
use tokio::sync::oneshot;

/// Carries out jobs elsewhere.
pub trait HashPool: Send + Sync {
    /// Takes a job, or refuses it at once.
    ///
    /// # Errors
    /// [`PoolFull`]: the job will not be run.
    fn submit(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), PoolFull>;
}

/// Too many jobs wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub struct PoolFull;

/// A fixed number of threads. They end when the pool is dropped and its queue is done.
pub struct ThreadPool {
    jobs: SyncSender<Box<dyn FnOnce() + Send>>,
}

impl ThreadPool {
    /// `threads` of them (at least one), and room for `waiting` jobs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: usize, waiting: usize) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(waiting);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("hash".into()).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }
}

impl HashPool for ThreadPool {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), PoolFull> {
        self.jobs.try_send(job).map_err(|_| PoolFull)
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ThreadPool(..)")
    }
}

fn work(queue: &Mutex<Receiver<Box<dyn FnOnce() + Send>>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics drops its answer, which its asker sees; the thread lives on.
        _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

/// Runs `job` on the pool and waits for what it returns.
pub(super) async fn on_pool<T: Send + 'static>(
    pool: &dyn HashPool,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let (answer, answered) = oneshot::channel();
    let job = Box::new(move || {
        // Whoever asked may be gone.
        _ = answer.send(job());
    });
    pool.submit(job).map_err(EngineError::busy)?;
    answered.await.map_err(|_| EngineError::internal("a password check ended without an answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_refuses_at_once() {
        let pool = ThreadPool::new(1, 1).unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (began, begun) = std::sync::mpsc::channel();
        pool.submit(Box::new(move || {
            began.send(()).unwrap();
            _ = held.recv();
        }))
        .unwrap();
        begun.recv().unwrap();
        pool.submit(Box::new(|| {})).unwrap();
        assert_eq!(pool.submit(Box::new(|| {})), Err(PoolFull));
        drop(hold);
    }

    #[test]
    fn a_panic_takes_no_thread_with_it() {
        let pool = ThreadPool::new(1, 4).unwrap();
        let (done, finished) = std::sync::mpsc::channel();
        pool.submit(Box::new(|| panic!("a job that fails"))).unwrap();
        pool.submit(Box::new(move || done.send(7).unwrap())).unwrap();
        assert_eq!(finished.recv().unwrap(), 7);
    }
}
