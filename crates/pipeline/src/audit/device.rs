//! The ring as the pipeline's audit device.
//!
//! ```text
//! announce, conclude, record  ->  queue of the turn  ->  one write for all of them  ->  every waiter learns its result
//! ```
//! Whoever queues a record steps back once, so that the other requests of this turn of the executor can queue theirs;
//! the first to come back writes for all. Announcements are synced before the engine runs (unless the policy is
//! `never`), so that no change becomes durable before the record that announces it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use host::{BootTime, Clock};

use super::chain::ChainKey;
use super::flood::{Asker, Flood};
use super::frame::{Kind, NewRecord};
use super::keys::Turned;
use super::limit::Verdict;
use super::record;
use super::ring::{AppendError, Ring};
use crate::engine::BoxFuture;
use crate::sink::{ActorRecord, AuditRefused, AuditSink, RequestRecord, ResponseRecord};

/// When records become durable. They are accepted earlier, when the write has returned: a crash of the process loses
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When the kernel pleases: a power cut may lose half a minute.
    Never,
    /// Announcements of changes before the change; all others at most this much later.
    Interval(Duration),
    /// Before the reply.
    Each,
}

impl Default for SyncPolicy {
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

/// The default audit device.
pub struct AuditDevice {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    policy: SyncPolicy,
}

struct State {
    ring: Ring,
    flood: Flood,
    queue: Queue,
    synced_at: BootTime,
    unsynced: bool,
    /// The last write or sync failed.
    failing: bool,
}

/// The records of one turn.
#[derive(Default)]
struct Queue {
    bodies: Vec<u8>,
    records: Vec<Queued>,
    wants_sync: bool,
    result: Arc<OnceLock<Result<(), String>>>,
}

struct Queued {
    kind: Kind,
    store_sequence: u64,
    end: usize,
}

impl AuditDevice {
    /// Takes over an open ring.
    pub fn new(ring: Ring, clock: Arc<dyn Clock>, policy: SyncPolicy) -> Self {
        let state = State {
            ring,
            flood: Flood::new(),
            queue: Queue::default(),
            synced_at: clock.boottime(),
            unsynced: false,
            failing: false,
        };
        Self { state: Mutex::new(state), clock, policy }
    }

    /// What time brings: records whose askers went away, syncs and sums that are due. The driver calls it about once a
    /// second.
    ///
    /// # Errors
    /// [`AuditRefused`], for the log; the next request meets the same fault.
    pub fn tick(&self) -> Result<(), AuditRefused> {
        self.settle(Some(self.clock.boottime()))
    }

    /// Writes and syncs all that is left, before the keys go.
    ///
    /// # Errors
    /// [`AuditRefused`], for the log.
    pub fn close(&self) -> Result<(), AuditRefused> {
        self.settle(None)
    }

    fn settle(&self, now: Option<BootTime>) -> Result<(), AuditRefused> {
        let mut state = self.lock();
        let sums = state.flood.due(now);
        for sum in &sums {
            state.queue.push(Kind::Counted, 0, |out| record::counted(out, self.clock.wall(), sum));
        }
        let overdue = match (self.policy, now) {
            (_, None) => true,
            (SyncPolicy::Interval(interval), Some(now)) => now.since(state.synced_at) >= interval,
            (SyncPolicy::Never | SyncPolicy::Each, Some(_)) => false,
        };
        state.queue.wants_sync |= overdue && (state.unsynced || !state.queue.records.is_empty());
        state.flush(self.clock.boottime()).map_err(|reason| {
            sums.into_iter().for_each(|sum| state.flood.restore(sum));
            AuditRefused { reason }
        })
    }

    /// Goes on under another key, in a new segment; durable on return, with where that begins. Nothing happens where it
    /// is today's already.
    ///
    /// # Errors
    /// [`AuditRefused`]: the former key stays in use.
    pub fn turn(&self, next: ChainKey) -> Result<Turned, AuditRefused> {
        self.lock().ring.turn(next).map_err(|e| AuditRefused { reason: reason(&e) })
    }

    /// Queues records, and waits until they are accepted with all others of the turn.
    async fn accept(&self, sync: bool, queue: impl FnOnce(&mut State)) -> Result<(), AuditRefused> {
        let result = {
            let mut state = self.lock();
            queue(&mut state);
            let overdue = match self.policy {
                SyncPolicy::Interval(interval) => self.clock.boottime().since(state.synced_at) >= interval,
                SyncPolicy::Never | SyncPolicy::Each => false,
            };
            state.queue.wants_sync |= sync || overdue || self.policy == SyncPolicy::Each;
            state.queue.result.clone()
        };
        step_back().await;
        if result.get().is_none() {
            // The outcome reaches this waiter, and all others, through `result`.
            _ = self.lock().flush(self.clock.boottime());
        }
        match result.get() {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(AuditRefused { reason: reason.clone() }),
            None => Err(AuditRefused { reason: "the turn ended without a result".into() }),
        }
    }

    /// The last resort of what must work: the reserve.
    fn rescue(
        &self,
        path: &str,
        refused: AuditRefused,
        kind: Kind,
        line: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), AuditRefused> {
        if !works_always(path) {
            return Err(refused);
        }
        let mut body = Vec::new();
        line(&mut body);
        let record = NewRecord { kind, store_sequence: 0, body: &body };
        self.lock().ring.append_reserved(&record).map_err(|e| AuditRefused { reason: e.to_string() })
    }

    #[cfg(test)]
    pub(crate) fn with_ring(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.lock().ring);
    }

    /// Nothing panics while the lock is held; were it so, the state would still be whole, for the ring's cursor moves
    /// last.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response of a request; `asker` is set for one that may be counted instead.
    async fn respond(
        &self,
        request: &RequestRecord<'_>,
        response: &ResponseRecord<'_>,
        asker: Option<Asker<'_>>,
    ) -> Result<(), AuditRefused> {
        let verdict = asker.map(|asker| self.lock().flood.knock(asker, self.clock.boottime(), response.at));
        let (sum, write) = match verdict {
            Some(Verdict::Counted) => return Ok(()),
            Some(Verdict::Sum(sum)) => (Some(sum), false),
            Some(Verdict::Write(sum)) => (sum, true),
            None => (None, true),
        };
        let store_sequence = response.sequence.unwrap_or(0);
        let accepted = self
            .accept(false, |state| {
                if let Some(sum) = &sum {
                    state.queue.push(Kind::Counted, 0, |out| record::counted(out, response.at, sum));
                }
                if write {
                    state.queue.push(Kind::Response, store_sequence, |out| record::response(out, request, response));
                }
            })
            .await;
        let Err(refused) = accepted else { return Ok(()) };
        if let Some(sum) = sum {
            self.lock().flood.restore(sum);
        }
        self.rescue(request.path, refused, Kind::Response, |out| record::response(out, request, response))
    }
}

impl AuditSink for AuditDevice {
    fn announce<'a>(&'a self, request: &'a RequestRecord<'a>) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(async move {
            if is_stranger(&request.actor) {
                let mut state = self.lock();
                // In a flood of logins that prove nothing a line and a sync for each would be the attack. Whoever
                // succeeds is recorded, token and all, before the reply.
                if !state.failing && !state.flood.has_room_for_a_stranger(self.clock.boottime()) {
                    return Ok(());
                }
            }
            let sync = self.policy != SyncPolicy::Never;
            let line = |out: &mut Vec<u8>| record::request(out, request);
            match self.accept(sync, |state| state.queue.push(Kind::Request, 0, line)).await {
                Ok(()) => Ok(()),
                Err(refused) => self.rescue(request.path, refused, Kind::Request, line),
            }
        })
    }

    fn conclude<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(self.respond(request, response, stranger(request, response)))
    }

    fn record<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        // The line of a response tells its request too, so one line holds both.
        Box::pin(self.respond(request, response, stranger(request, response).or(refused(request, response))))
    }
}

impl State {
    /// Writes the queue, in one write where it fits, and tells every waiter.
    fn flush(&mut self, now: BootTime) -> Result<(), String> {
        let queue = std::mem::take(&mut self.queue);
        let outcome = self.append(&queue, now).map_err(|e| reason(&e));
        self.failing = outcome.is_err();
        // A fresh queue has a fresh cell, so nobody has set this one.
        _ = queue.result.set(outcome.clone());
        self.queue.keep_buffers(queue.bodies, queue.records);
        outcome
    }

    fn append(&mut self, queue: &Queue, now: BootTime) -> Result<(), AppendError> {
        let mut start = 0;
        let mut records = Vec::with_capacity(queue.records.len());
        for r in &queue.records {
            records.push(NewRecord {
                kind: r.kind,
                store_sequence: r.store_sequence,
                body: &queue.bodies[start..r.end],
            });
            start = r.end;
        }
        self.ring.append(&records)?;
        self.unsynced |= !records.is_empty();
        if queue.wants_sync && self.unsynced {
            self.ring.sync()?;
            self.unsynced = false;
        }
        if queue.wants_sync {
            self.synced_at = now;
        }
        Ok(())
    }
}

impl Queue {
    fn push(&mut self, kind: Kind, store_sequence: u64, line: impl FnOnce(&mut Vec<u8>)) {
        line(&mut self.bodies);
        self.records.push(Queued { kind, store_sequence, end: self.bodies.len() });
    }

    /// Buffers of a written queue serve again, unless a burst made them large.
    fn keep_buffers(&mut self, mut bodies: Vec<u8>, mut records: Vec<Queued>) {
        bodies.clear();
        bodies.shrink_to(KEPT_BYTES);
        records.clear();
        records.shrink_to(64);
        (self.bodies, self.records) = (bodies, records);
    }
}

impl std::fmt::Debug for AuditDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuditDevice({:?})", self.policy)
    }
}

fn reason(e: &AppendError) -> String {
    match e {
        AppendError::Disk(cause) => format!("{e}: {cause}"),
        AppendError::TooLarge { .. } => e.to_string(),
    }
}

/// Of requests that prove nothing: the bearer of a token that is none is as much a stranger as who has none.
fn is_stranger(actor: &ActorRecord<'_>) -> bool {
    match actor {
        ActorRecord::Anonymous => true,
        ActorRecord::Unknown { .. } => host::in_force("audit-bad-token-is-stranger"),
        ActorRecord::Token { .. } | ActorRecord::Boot | ActorRecord::Local { .. } => false,
    }
}

fn stranger(request: &RequestRecord<'_>, response: &ResponseRecord<'_>) -> Option<Asker<'static>> {
    let limited = response.stranger || (is_stranger(&request.actor) && response.issued.is_none());
    limited.then_some(Asker::Stranger)
}

/// A token's request that was refused before it was announced. What was announced was allowed, and is told to its end.
fn refused<'a>(request: &RequestRecord<'a>, response: &ResponseRecord<'_>) -> Option<Asker<'a>> {
    match request.actor {
        ActorRecord::Token { token_code, accessor_code, .. }
            if (400..500).contains(&response.status) && host::in_force("audit-refusals-limited") =>
        {
            Some(Asker::Token { token_code, accessor_code })
        }
        _ => None,
    }
}

/// Lets the other requests of this turn go first.
async fn step_back() {
    let mut stepped = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What makes things safer must not wait for a disk: sealing and revoking.
fn works_always(path: &str) -> bool {
    path == "sys/seal" || WORKS_ALWAYS.iter().any(|p| path.starts_with(p))
}

const WORKS_ALWAYS: [&str; 3] = ["auth/token/revoke", "sys/leases/revoke", "sys/revoke"];
/// As much as a busy turn needs.
const KEPT_BYTES: usize = 32 * 1024;
