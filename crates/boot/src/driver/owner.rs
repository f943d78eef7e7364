//! A store in another process that is ours: made, unsealed, and given a token of ours, by key shares under our root
//! key.
//!
//! ```text
//! root key (from a slot) --HKDF--> wraps the shares, in EdgeX's file: written, synced, read back, before the store is unsealed
//!
//! not made   intent on the disk -> sys/init, by a process of its own (`making`) -> shares and first root token kept -> as sealed
//! sealed     shares loaded -> may it be, in this boot -> unsealed -> our token
//! open       shares loaded -> our token, by a root token of the moment
//! ```
//! A root token lives for one piece of work, and is revoked on every way out of it.

use std::path::Path;
use std::time::Duration;

use api::Auth;
use client::{AskError, Bearer, Calls, HttpsVault};
use external::{
    BringUpError, Custody, Health, InitError, Keeping, Patience, ReopenError, Reunseal, RootError, RootToken,
    ShareCounts, health, make_and_keep, open_new, reopen, with_root,
};
use seal::edgex::ClearShares;
use serde_json::json;

use super::environment::Environment;
use super::keys::refused;
use super::reach::KEPT_TOKEN;
use super::running::Running;
use super::state_dir::{self, SHARES};
use super::work::{out_of_order, told};
use crate::machine::{Event, Halt};
use crate::plan::{ExternalStore, Plan, Terms};

/// The custody of a state directory, under this root key.
fn custody<'a>(env: &'a Environment, dir: &Path, root: &secret::RootKey, id: &seal::StoreId) -> Custody<'a> {
    custody_by(env, dir, Keeping::Wrapped(seal::custody_ikm(root, id)))
}

/// The same, by what the shares are kept under.
pub(super) fn custody_by<'a>(env: &'a Environment, dir: &Path, keeping: Keeping) -> Custody<'a> {
    Custody::new(&*env.disk, &*env.entropy, dir, SHARES, env.us, keeping)
}

/// Makes the place for the shares, within `data.new`: the note that they are to come tells a first boot that goes on
/// from a state whose shares were removed.
pub(super) fn prepare(env: &Environment, new: &Path, root: &secret::RootKey, id: &seal::StoreId) -> Result<(), Halt> {
    custody(env, new, root, id).prepare().map(drop).map_err(|e| refused(&e, &e.hint()))
}

/// Why the store was not opened: for a person, or for the next look.
enum NotYet {
    Never(Halt),
    Later(String),
}

impl Running {
    /// Does what the store waits for.
    pub(super) async fn open_kept(&mut self, store: &ExternalStore) -> Result<Event, Halt> {
        let Terms::Owner { counts, reunseal } = store.terms else { return Err(out_of_order("open")) };
        let line = self.knock(store);
        let unlocked = self.hands.unlocked.as_ref().ok_or_else(|| out_of_order("open"))?;
        let custody = custody(&self.env, &self.plan.state_dir(), &unlocked.root, &unlocked.header().store);
        let outcome = match line {
            Ok(line) => bring(&self.env, &self.plan, &custody, &line.vault, counts, reunseal).await,
            Err(why) => Err(NotYet::Later(why)),
        };
        drop(custody);
        self.close_others().await;
        match outcome {
            Ok(done) => {
                if let Err(e) = state_dir::settle(&*self.env.disk, &self.plan) {
                    self.warn(format!("a note of the first boot is left behind: {e}"));
                }
                self.close_when_open().await;
                self.phase(done);
                Ok(Event::Unsealed)
            }
            Err(NotYet::Never(halt)) => Err(halt),
            Err(NotYet::Later(why)) => {
                self.warn(format!("{}: {why}", store.address()));
                Ok(Event::NotReached)
            }
        }
    }
}

/// From whatever state the store is in to one that serves and has us.
async fn bring(
    env: &Environment,
    plan: &Plan,
    custody: &Custody<'_>,
    vault: &HttpsVault,
    counts: ShareCounts,
    reunseal: Reunseal,
) -> Result<&'static str, NotYet> {
    // By a start before this one that was killed; its shares come.
    if custody.is_being_made().map_err(|e| never(&e, &e.hint()))? {
        return Err(NotYet::Later("it is being made, for a start before this one".into()));
    }
    let done = match health(vault).await.map_err(|e| ask(&e))? {
        Health::NotInitialised => {
            make(env, custody, vault, counts).await?;
            open_new(vault, custody, reunseal, env.clock.boot_id()).await.map_err(of_reopening)?;
            "initialised"
        }
        Health::Sealed => {
            reopen(vault, custody, reunseal, env.clock.boot_id()).await.map_err(of_reopening)?;
            // A store that was sealed for a moment has our token still, and no root token is made for nothing.
            if env.disk.meta(&plan.run_dir.join(KEPT_TOKEN)).is_ok_and(|m| m.is_some()) {
                return Ok("unsealed");
            }
            "unsealed"
        }
        Health::Serving => "entered",
        other => return Err(NotYet::Later(other.to_string())),
    };
    serving(env, vault).await?;
    // The login first: until it is there the store's first root token lies wrapped beside the shares, and goes with it.
    let (root, shares) = root(custody, vault).await?;
    let root = root.with_login(vault, custody, &shares).await.map_err(|e| of_root(&e))?;
    let settled = with_root(vault, root, async |store: Bearer<'_, HttpsVault>| settle(env, plan, &store).await);
    settled.await.map_err(|e| of_root(&e))?;
    Ok(done)
}

/// Has the store made: its shares are on the disk then.
async fn make(env: &Environment, custody: &Custody<'_>, vault: &HttpsVault, counts: ShareCounts) -> Result<(), NotYet> {
    let _claim = custody.claim().map_err(|e| NotYet::Later(told("it is not made yet", &e)))?;
    let made = match &env.maker {
        Some(maker) => maker.make(custody).await,
        None => make_and_keep(vault, custody, counts).await,
    };
    if let Err(e) = made {
        // Whoever deletes that storage need not start us again.
        let half_made = matches!(health(vault).await, Ok(Health::HalfMade));
        return Err(match e {
            _ if half_made => NotYet::Later(Health::HalfMade.to_string()),
            BringUpError::Init(InitError::Ask(e @ AskError::Call(_))) => ask(&e),
            e => never(&e, &e.hint()),
        });
    }
    match custody.has_shares() {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotYet::Later("it did not answer to sys/init".into())),
        Err(e) => Err(never(&e, &e.hint())),
    }
}

fn of_reopening(error: ReopenError) -> NotYet {
    if error.may_pass() { NotYet::Later(told("it is not unsealed", &error)) } else { never(&error, &error.hint()) }
}

async fn root(custody: &Custody<'_>, vault: &HttpsVault) -> Result<(RootToken, ClearShares), NotYet> {
    let held = custody.load().map_err(|e| never(&e, &e.hint()))?;
    RootToken::for_custody(vault, custody, held.shares).await.map_err(|e| of_root(&e))
}

/// After the last share it elects itself, and answers 500 until it has.
async fn serving(env: &Environment, vault: &HttpsVault) -> Result<(), NotYet> {
    let (_halt, stop) = external::stop();
    let mut patience = Patience::new(&*env.clock, ELECTION, PAUSE);
    loop {
        let last = match health(vault).await {
            Ok(Health::Serving) => return Ok(()),
            Ok(other) => other.to_string(),
            Err(e) => return Err(ask(&e)),
        };
        if !matches!(patience.pause(&stop).await, Ok(Ok(()))) {
            return Err(NotYet::Later(format!("it was unsealed, and {last}")));
        }
    }
}

/// The policy, and our token under it in memory's own file system.
async fn settle(env: &Environment, plan: &Plan, store: &Bearer<'_, HttpsVault>) -> Result<(), RootError> {
    let calls = Calls::over(store);
    calls.write(&format!("sys/policies/acl/{POLICY_NAME}"), &json!({ "policy": policy(plan) })).await?;
    let body = json!({
        "display_name": POLICY_NAME,
        "policies": [POLICY_NAME],
        "no_parent": true,
        "no_default_policy": true,
        "renewable": true,
        "period": "24h",
    });
    let auth: Auth = calls.write_for_token("auth/token/create", &body).await?;
    let file = plan.run_dir.join(KEPT_TOKEN);
    let text = zeroize::Zeroizing::new(auth.client_token.expose().as_bytes().to_vec());
    if let Err(source) = env.disk.replace(&file, &text, 0o600, None) {
        // Nobody has it: at the next try there is another.
        calls.write("auth/token/revoke-accessor", &json!({ "accessor": auth.accessor.as_str() })).await?;
        return Err(external::CustodyError::Disk { what: "write", path: file, source }.into());
    }
    Ok(())
}

/// The documented policy, and a path for each credential that it does not cover.
fn policy(plan: &Plan) -> String {
    let mut text = POLICY.to_owned();
    for credential in plan.credentials.iter().filter(|c| !c.source.starts_with("edgex/")) {
        // A source is of letters, digits, '_', '.', '-' and '/': `CredentialPlan::check`.
        text.push_str(&format!(
            "path \"secret/{}\" {{\n  capabilities = [\"create\", \"read\", \"update\"]\n}}\n",
            credential.source
        ));
    }
    text
}

fn ask(error: &AskError) -> NotYet {
    NotYet::Later(told("it does not answer", error))
}

fn never(error: &dyn std::error::Error, hint: &str) -> NotYet {
    NotYet::Never(refused(error, hint))
}

fn of_root(error: &RootError) -> NotYet {
    match error {
        RootError::Ask(AskError::Call(_)) => NotYet::Later(told("we have no token there yet", error)),
        e => never(e, &e.hint()),
    }
}

const POLICY_NAME: &str = "edgekeep";
/// What a guest's operator writes by hand.
const POLICY: &str = include_str!("../../../../docs/external-policy.hcl");
/// A node alone elects itself within seconds.
const ELECTION: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
