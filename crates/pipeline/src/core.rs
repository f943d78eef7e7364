//! The unsealed core: requests in, recorded replies out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api::Request;
use host::Entropy;

use crate::announce::announce;
use crate::authn::authenticate;
use crate::authz::authorize;
use crate::boot::{Boot, BootMounts, InProcess, PathNotPlain};
use crate::directory::Directory;
use crate::engine::{Access, Engine};
use crate::error::EngineError;
use crate::outcome::After;
use crate::received::{Received, Refused, Trace};
use crate::record::{Recorded, record};
use crate::route::route;
use crate::run::{Done, commit, run};
use crate::services::Services;
use crate::sink::{AuditSink, RequestId};
use crate::tokens::{Spent, Use};

/// One unsealed store with its engines. Sealed means that there is no `Core`, or that it is closing.
pub struct Core {
    services: Arc<Services>,
    audit: Arc<dyn AuditSink>,
    sealing: AtomicBool,
    on_seal: OnceLock<Box<dyn Fn() + Send + Sync>>,
    reduced: AtomicBool,
    ids: Mutex<IdPool>,
}

impl Core {
    /// Opens the store's tokens and mounts; on a new store, makes the mounts that are always there.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read or written.
    pub async fn open(
        services: Arc<Services>,
        engines: Vec<Arc<dyn Engine>>,
        directory: Arc<dyn Directory>,
        audit: Arc<dyn AuditSink>,
    ) -> Result<Arc<Self>, EngineError> {
        services.directory.set(directory).map_err(|_| EngineError::internal("the core was opened twice"))?;
        services.tokens.open().await?;
        services.mounts.open(engines, &services.ground).await?;
        let (sealing, reduced) = (AtomicBool::new(false), AtomicBool::new(false));
        let (on_seal, ids) = (OnceLock::new(), Mutex::default());
        Ok(Arc::new(Self { services, audit, sealing, on_seal, reduced, ids }))
    }

    /// Carries out one request of a stranger, as every listener's are until their token is known.
    pub async fn handle(&self, request: Request) -> Recorded {
        self.handle_as(request, None).await
    }

    /// The door for the unattended start, to the usual mounts: `secret/` and `auth/userpass/`. Only code within this
    /// process can call it; no request can.
    pub fn in_process(self: &Arc<Self>) -> InProcess {
        InProcess::new(Arc::clone(self), &BootMounts::default()).expect("the usual mounts are plain")
    }

    /// The same, to the mounts that a plan names.
    ///
    /// # Errors
    /// [`PathNotPlain`] for a mount whose path a policy cannot hold.
    pub fn in_process_at(self: &Arc<Self>, mounts: &BootMounts) -> Result<InProcess, PathNotPlain> {
        InProcess::new(Arc::clone(self), mounts)
    }

    /// Does what is due: writes gathered renewals down, sweeps dead tokens and the data of mounts that are gone. To be
    /// called every few seconds; each call does a bounded amount of work.
    ///
    /// # Errors
    /// [`EngineError`]; what is left is done next time.
    pub async fn tick(&self) -> Result<(), EngineError> {
        if self.is_sealing() {
            return Ok(());
        }
        self.services.tokens.upkeep().await?;
        self.services.mounts.upkeep(&self.services.ground).await
    }

    /// Refuses everything from here on and writes down what was gathered. The caller closes the store afterwards.
    ///
    /// # Errors
    /// [`EngineError`]; the next start then treats this stop as a crash, which kills no token.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.sealing.store(true, Ordering::Release);
        self.services.tokens.close().await
    }

    /// What is done when a request has sealed the core, before its reply goes: with nothing more served, and without
    /// waiting for anything. The first that is given stays.
    pub fn on_seal(&self, act: impl Fn() + Send + Sync + 'static) {
        self.on_seal.get_or_init(|| Box::new(act));
    }

    /// Whether the core is closing, by request or by its driver.
    pub fn is_sealing(&self) -> bool {
        self.sealing.load(Ordering::Acquire)
    }

    /// Whether TLS clients are asked for a certificate: some mount lets callers in by theirs.
    pub fn asks_for_certificates(&self) -> bool {
        self.services.mounts.table().iter().any(|m| m.engine().is_some_and(|e| e.reads_certificates()))
    }

    /// What the engines of the core share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    pub(crate) fn reduce(&self) {
        self.reduced.store(true, Ordering::Release);
    }

    pub(crate) fn is_reduced(&self) -> bool {
        self.reduced.load(Ordering::Acquire)
    }

    pub(crate) async fn handle_as(&self, request: Request, boot: Option<Boot>) -> Recorded {
        let id = self.next_id();
        if self.is_sealing() {
            return Recorded::sealed(id);
        }
        let ground = &self.services.ground;
        let mut received = Received {
            request: &request,
            id,
            at: ground.clock.wall(),
            now: ground.store.now(),
            boot,
            token: request.token.as_ref().map(|token| self.services.tokens.id(token)),
            spent: Spent::No,
        };
        let paid = self.pay(&received).await;
        let mut using = None;
        let result = match paid {
            Ok(paid) => {
                (received.spent, using) = paid;
                self.attempts(&received).await
            }
            Err(e) => Err(Trace::new(&received).refuse(e)),
        };
        if let Some(used) = using {
            self.retire(used).await;
        }
        let recorded = record(result, &self.services, &*self.audit).await;
        if recorded.after() == Some(After::Seal) {
            self.sealing.store(true, Ordering::Release);
            if let Some(act) = self.on_seal.get() {
                act();
            }
        }
        recorded
    }

    /// Runs the request again when another commit was first: from the beginning, for the token, the policies or the
    /// mount may be what was changed.
    async fn attempts<'r>(&self, received: &'r Received<'r>) -> Result<Done<'r>, Refused<'r>> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.attempt(received).await {
                Err(refused) if refused.error.is_conflict() && left > 0 => {}
                result => return result,
            }
        }
    }

    /// The stages. Each takes what the one before it made; there is no other way to make it.
    async fn attempt<'r>(&self, received: &'r Received<'r>) -> Result<Done<'r>, Refused<'r>> {
        let (services, audit) = (&*self.services, &*self.audit);
        let mut txn = services.txn();
        let routed = route(received, &services.mounts.table());
        let authenticated = authenticate(routed, services, &mut txn).await?;
        let authorized = authorize(authenticated, &mut txn).await?;
        let announced = announce(authorized, audit).await?;
        run(announced, services, audit, txn).await
    }

    /// Takes a use off a token that has only so many, once for all attempts.
    async fn pay(&self, received: &Received<'_>) -> Result<(Spent, Option<Use<'_>>), EngineError> {
        let Some(id) = received.token else { return Ok((Spent::No, None)) };
        let table = self.services.mounts.table();
        let engine = table.route(received.request.path.as_str()).and_then(|(m, path)| Some((m.engine()?, path)));
        let access = engine.map_or(Access::Ordinary, |(e, path)| e.access(received.request.operation, path));
        if access == Access::Anonymous { Ok((Spent::Open, None)) } else { self.services.tokens.spend(id).await }
    }

    /// Removes a token whose last use is over. If that fails it stays with no uses left, refused, until it is swept.
    async fn retire(&self, used: Use<'_>) {
        let tokens = &self.services.tokens;
        let gone = async {
            let Some(id) = tokens.used_last(used).await? else { return Ok(()) };
            let mut txn = self.services.txn();
            if tokens.revoke(id, &mut txn).await? {
                commit(txn, &self.services).await?;
            }
            Ok::<_, EngineError>(())
        };
        if let Err(e) = gone.await {
            tracing::warn!("a token without uses left waits to be swept: {e}");
        }
    }

    pub(crate) fn audit(&self) -> &dyn AuditSink {
        &*self.audit
    }

    pub(crate) fn next_id(&self) -> RequestId {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(&*self.services.ground.entropy)
    }
}

impl Drop for Core {
    /// Engines have hold of the services, which have hold of the engines: nobody else would let either go, and a device
    /// that is sealed and unsealed again would keep the tables of each time.
    fn drop(&mut self) {
        self.services.mounts.close();
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Core(..)")
    }
}

/// Random bytes for request ids, drawn many at a time: a system call for each request would be a tenth of its cost.
struct IdPool {
    bytes: [u8; 256],
    used: usize,
}

impl Default for IdPool {
    fn default() -> Self {
        Self { bytes: [0; 256], used: 256 }
    }
}

impl IdPool {
    fn next(&mut self, entropy: &dyn Entropy) -> RequestId {
        if self.used + 16 > self.bytes.len() {
            entropy.fill(&mut self.bytes);
            self.used = 0;
        }
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[self.used..self.used + 16]);
        self.used += 16;
        RequestId::from_random(id)
    }
}

/// How often a request is run before it is answered "too busy".
const ATTEMPTS: usize = 16;
