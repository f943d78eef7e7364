//! A store in another process: found, entered with our token, and watched.
//!
//! ```text
//! reach   CA file -> TLS -> health -> our token       each of them anew, whenever the store was away
//! watch   health once a second, and at once when the connection breaks; our token before a third of its life is over
//! ```
//! What is seen decides: a store that is sealed, gone, or another than the one that is trusted shuts the gates, and
//! they open again when everything that the plan names was found there anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{AskError, CallError, Deadlines, HttpsVault, Trust};
use external::{Access, AccessError, Health, Life, Scoped, health};
use host::{BootTime, Disk};

use super::running::Running;
use super::seam::Seam;
use super::work::told;
use crate::machine::Event;
use crate::plan::{ExternalStore, Terms};
use crate::provision::Receipts;

/// A store that was reached.
pub(super) struct Reached {
    pub(super) vault: Arc<Scoped<Arc<HttpsVault>>>,
    /// The trust's first authority, as the file has it.
    pub(super) ca_pem: String,
    life: Life,
    /// When our token was last seen to.
    fresh: BootTime,
    /// Looks in a row that got no answer.
    silent: u32,
}

/// The way to a store, by one state of the CA file.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) vault: Arc<HttpsVault>,
    ca_pem: String,
    ca: [u8; 32],
}

/// What became of a try.
enum Outcome {
    Reached(Box<Reached>, [u8; 32]),
    /// It waits for its owner.
    Shut(&'static str),
    /// Not yet.
    Away(String),
    /// Somebody answers who is not the store.
    Stranger(String),
}

impl Running {
    /// Where the way to our token in the store is.
    fn access(&self, store: &ExternalStore) -> Access {
        match &store.terms {
            Terms::Guest(access) => access.clone(),
            Terms::Owner { .. } => Access::TokenFile(self.plan.run_dir.join(KEPT_TOKEN)),
        }
    }

    pub(super) async fn reach(&mut self) -> Event {
        let Some(store) = self.plan.store.external().cloned() else { return Event::NotReached };
        // The root key has done its work, or will be asked for anew.
        self.hands.unlocked = None;
        self.hands.found = None;
        let address = store.address();
        let (event, text) = match self.try_to_reach(&store).await {
            Outcome::Reached(reached, ca) => {
                if self.away.take().is_some() {
                    tracing::info!("{address} serves");
                }
                self.hands.vault = Some(Seam::Theirs(Arc::clone(&reached.vault)));
                self.hands.reached = Some(reached);
                self.phase("reached");
                return Event::Reached { ca };
            }
            Outcome::Shut(why) => (Event::FoundShut, format!("{address}: {why}")),
            Outcome::Away(why) => (Event::NotReached, format!("{address}: {why}")),
            Outcome::Stranger(why) => {
                if self.away.as_ref() != Some(&why) {
                    self.alarm(format!("nothing is sent to {address}: {why}"));
                }
                self.away = Some(why);
                return Event::NotReached;
            }
        };
        // Told when it changes: it is looked at many times a second.
        if self.away.as_ref() != Some(&text) {
            self.warn(text.clone());
            self.away = Some(text);
        }
        event
    }

    async fn try_to_reach(&mut self, store: &ExternalStore) -> Outcome {
        let Line { vault, ca_pem, ca } = match self.knock(store) {
            Ok(line) => line,
            Err(why) => return Outcome::Away(why),
        };
        match health(&*vault).await {
            Ok(Health::Serving) => {}
            Ok(Health::Sealed) if store.is_kept() => return Outcome::Shut("it is sealed"),
            Ok(Health::NotInitialised) if store.is_kept() => return Outcome::Shut("it is not made yet"),
            Ok(other) => return Outcome::Away(other.to_string()),
            Err(e) => return unanswered(&e),
        }
        let vault = Arc::new(Scoped::new(vault));
        match vault.log_in(&self.access(store), &*self.env.disk, self.env.us).await {
            Ok(life) => {
                let fresh = self.env.clock.boottime();
                Outcome::Reached(Box::new(Reached { vault, ca_pem, life, fresh, silent: 0 }), ca)
            }
            Err(AccessError::Ask(e @ AskError::Call(_))) => unanswered(&e),
            Err(AccessError::Unfit { .. } | AccessError::Io { .. } | AccessError::Ask(_)) if store.is_kept() => {
                Outcome::Shut("we have no token there in this boot")
            }
            Err(e) => Outcome::Away(format!("{}; {}", told("we are not let in", &e), e.hint())),
        }
    }

    /// The way to the store, as the CA file is now: it can be replaced while we run.
    pub(super) fn knock(&mut self, store: &ExternalStore) -> Result<Line, String> {
        let pem = read_ca(&*self.env.disk, &store.ca)?;
        // With its connection, where there is one: who has shown the CA need not do so again for each question.
        if let Some(line) = self.line.as_ref().filter(|line| line.ca_pem == pem) {
            return Ok(line.clone());
        }
        Ok(self.line.insert(line_by(store, pem)?).clone())
    }

    /// Looks whether the store still serves, and keeps our token alive. [`Event::Lost`] if it does not.
    pub(super) async fn watch(&mut self, now: BootTime) -> Option<Event> {
        let store = self.plan.store.external()?.clone();
        let access = self.access(&store);
        let (disk, us) = (Arc::clone(&self.env.disk), self.env.us);
        let reached = self.hands.reached.as_mut()?;
        let why = match health(reached.vault.anonymous()).await {
            Ok(Health::Serving) => {
                reached.silent = 0;
                None
            }
            Ok(other) => Some(other.to_string()),
            Err(AskError::Call(e @ CallError::Untrusted { .. })) => Some(told("another answers in its place", &e)),
            Err(e) => {
                reached.silent += 1;
                // One look without an answer can be one lost packet; looked at again at once.
                self.look_again = reached.silent < SILENT_LOOKS;
                (reached.silent >= SILENT_LOOKS).then(|| told("it does not answer", &e))
            }
        };
        if let Some(why) = why {
            let text = format!("{}: {why}; all gates are shut", store.address());
            self.warn(text);
            return Some(Event::Lost);
        }
        let due = reached.silent == 0 && now.since(reached.fresh) >= reached.life.see_to_it_after();
        if !due {
            return None;
        }
        match reached.vault.freshen(reached.life, &access, &*disk, us).await {
            Ok(life) => {
                reached.life = life;
                reached.fresh = now;
                None
            }
            Err(e) => {
                let alive = reached.vault.is_alive().await;
                let text = told("our token in the store is not renewed", &e);
                self.warn(format!("{text}; {}", e.hint()));
                // Without a token nothing can be kept; the way back is a login.
                matches!(alive, Ok(false)).then_some(Event::Lost)
            }
        }
    }

    /// Sealed by command, an owner keeps nothing that enters the store: the next start has its shares opened for
    /// another token.
    pub(super) fn drop_kept_token(&mut self) {
        let file = self.plan.run_dir.join(KEPT_TOKEN);
        let kept = self.plan.store.external().is_some_and(ExternalStore::is_kept);
        if !kept || !matches!(self.env.disk.meta(&file), Ok(Some(_))) {
            return;
        }
        if let Err(e) = self.env.disk.remove_file(&file) {
            self.alarm(told(&format!("our token in the store stays in {}", file.display()), &e));
        }
    }

    /// Whether a refusal was about the token that was asked for, and not about ours.
    pub(super) async fn is_our_token_alive(&self) -> bool {
        match &self.hands.reached {
            Some(reached) => matches!(reached.vault.is_alive().await, Ok(true)),
            None => true,
        }
    }

    /// The receipts, wherever the store is.
    pub(super) fn receipts(&self) -> Option<Receipts> {
        match (&self.hands.store, &self.hands.reached) {
            (Some(store), _) => Some(Receipts::new(store.clone())),
            (None, Some(_)) => {
                let (disk, clock) = (Arc::clone(&self.env.disk), Arc::clone(&self.env.clock));
                Some(Receipts::in_files(&self.plan.data_dir.join(RECEIPTS), disk, clock))
            }
            (None, None) => None,
        }
    }

    /// The CA by which the store is believed, PEM; `None` while there is no store.
    pub(super) fn ca_pem(&self) -> Option<String> {
        match (self.ca(), &self.hands.reached) {
            (Some(ca), _) => Some(ca.pem()),
            (None, Some(reached)) => Some(reached.ca_pem.clone()),
            (None, None) => None,
        }
    }
}

fn unanswered(error: &AskError) -> Outcome {
    match error {
        // Asked again all the same, for a device has nobody who would start it anew; it is sent nothing until it shows
        // the pinned CA.
        AskError::Call(CallError::Untrusted { .. }) => {
            Outcome::Stranger(told("who answers there is not the store", error))
        }
        e => Outcome::Away(told("it does not answer", e)),
    }
}

/// The way to a store, looked up once.
pub(super) fn line(disk: &dyn Disk, store: &ExternalStore) -> Result<Line, String> {
    line_by(store, read_ca(disk, &store.ca)?)
}

fn line_by(store: &ExternalStore, pem: String) -> Result<Line, String> {
    let mut trust = Trust::of_pem(pem.as_bytes()).map_err(|e| told(&store.ca.display().to_string(), &e))?;
    let ca = trust.fingerprint();
    if let Some(name) = &store.server_name {
        trust = trust.named(name).map_err(|e| e.to_string())?;
    }
    let vault = HttpsVault::new(&store.host, store.port, &trust, DEADLINES).map_err(|e| e.to_string())?;
    Ok(Line { vault: Arc::new(vault), ca_pem: pem, ca })
}

fn read_ca(disk: &dyn Disk, path: &Path) -> Result<String, String> {
    let bytes = disk.read(path, MAX_CA_BYTES).map_err(|e| format!("the CA file {}: {e}", path.display()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("the CA file {} is no PEM", path.display()))?;
    Ok(text.to_owned())
}

/// A store on the device answers within milliseconds; one that takes longer than this for a call is as good as away.
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(5), total: Duration::from_secs(20) };
const MAX_CA_BYTES: usize = 1024 * 1024;
/// So many looks in a row without an answer, and the store counts as away.
const SILENT_LOOKS: u32 = 2;
/// Below the data directory: they outlive the boot, so that the tokens of before can be ended.
const RECEIPTS: &str = "receipts";
/// Below the run directory, which is in memory: the token of an owner, which a restart within the boot goes on with.
pub(super) const KEPT_TOKEN: &str = "store-token";
