//! A store under watch: found sealed after a crash, it is unsealed again; nothing is ever started or restarted.
//!
//! ```text
//! serving   looked at once a second, and at once when the connection breaks
//! away      looked at every 25 ms: within a tenth of a second of its answering it has its shares
//! sealed    custody, and with it the key material, is asked for now and let go after; then as `reopen` allows. What comes to nothing is
//!           tried again after pauses that grow: a hook, and the hardware behind it, is not run forty times a second
//! ```
//! What cannot get better by itself (another store's shares, once a boot and spent) is told once; no share is given
//! again until the store has served in between.

use std::time::Duration;

use client::{AskError, CallError, Wired};
use host::BootId;

use crate::custody::Custody;
use crate::health::{Health, health};
use crate::reopen::{ReopenError, Reopened, Reunseal, reopen};
use crate::stop::{Stop, Stopped};

/// How the store stands, told when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves.
    Serving,
    /// It was found sealed, and has been unsealed by us.
    Unsealed,
    /// It does not serve, for this reason; it is looked at again.
    Waiting(String),
    /// It is sealed and stays so until somebody acts.
    Refused {
        /// What happened.
        fact: String,
        /// What to do.
        hint: String,
    },
    /// Who answers there is not the store: nothing is sent.
    Stranger(String),
}

/// Watches until it is told to stop. `custody` is called each time the store is found sealed, and what it gives is
/// dropped as soon as the shares were given; its error is told and waited on.
///
/// # Errors
/// [`Stopped`], and nothing else.
pub async fn monitor<'c, V: Wired>(
    vault: &V,
    mut custody: impl AsyncFnMut() -> Result<Custody<'c>, String>,
    rule: Reunseal,
    boot: BootId,
    stop: &Stop,
    mut tell: impl FnMut(&Standing),
) -> Result<std::convert::Infallible, Stopped> {
    let mut last = None;
    // A refusal that does not pass: it holds until the store has served.
    let mut refused = None;
    let mut effort = FIRST_EFFORT;
    loop {
        stop.check()?;
        let mut tried = false;
        let standing = match health(vault).await {
            Ok(Health::Serving) => {
                refused = None;
                effort = FIRST_EFFORT;
                Standing::Serving
            }
            Ok(Health::Sealed) => match &refused {
                Some(refusal) => Clone::clone(refusal),
                // Not dropped by a signal: shares that were begun are given.
                None => {
                    tried = true;
                    match custody().await {
                        Ok(custody) => after(reopen(vault, &custody, rule, boot).await),
                        Err(why) => Standing::Waiting(why),
                    }
                }
            },
            Ok(other) => Standing::Waiting(other.to_string()),
            Err(AskError::Call(e @ CallError::Untrusted { .. })) => Standing::Stranger(host::with_causes(&e)),
            Err(e) => Standing::Waiting(host::with_causes(&e)),
        };
        if matches!(standing, Standing::Refused { .. }) {
            refused = Some(standing.clone());
        }
        if last.as_ref() != Some(&standing) {
            tell(&standing);
        }
        let pause = match &standing {
            Standing::Waiting(_) if tried => {
                let pause = effort;
                effort = (effort * 2).min(LONGEST_EFFORT);
                pause
            }
            Standing::Serving | Standing::Refused { .. } => WATCH,
            Standing::Unsealed | Standing::Waiting(_) | Standing::Stranger(_) => PRESS,
        };
        last = Some(standing);
        stop.or(async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = vault.hung_up() => {}
            }
            Ok::<_, Stopped>(())
        })
        .await?;
    }
}

fn after(outcome: Result<Reopened, ReopenError>) -> Standing {
    match outcome {
        Ok(Reopened::Unsealed) => Standing::Unsealed,
        Ok(Reopened::WasOpen) => Standing::Waiting("somebody else has unsealed it".into()),
        Err(e) if e.may_pass() => Standing::Waiting(host::with_causes(&e)),
        Err(e) => Standing::Refused { fact: host::with_causes(&e), hint: e.hint() },
    }
}

const WATCH: Duration = Duration::from_secs(1);
const PRESS: Duration = Duration::from_millis(25);
/// After an unsealing that came to nothing.
const FIRST_EFFORT: Duration = Duration::from_millis(100);
const LONGEST_EFFORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use api::{Reply, Request};
    use client::Vault;
    use host::Clock as _;
    use testkit::FakeClock;

    use super::*;
    use crate::fake::{FakeStore, clear_shares};
    use crate::place::{Place, SHARES, plain};
    use crate::stop::stop;

    /// A store on a wire that never breaks.
    struct Line(FakeStore);

    impl Vault for Line {
        async fn call(&self, request: Request) -> Result<Reply, CallError> {
            self.0.call(request).await
        }
    }

    impl Wired for Line {
        async fn hung_up(&self) {
            std::future::pending::<()>().await;
        }
    }

    /// Runs until `enough` standings were told, each followed by what `then` does to the store.
    async fn watched(
        rule: Reunseal,
        shares: &[&str],
        enough: usize,
        then: impl Fn(&FakeStore, &Standing),
    ) -> Vec<Standing> {
        let (place, clock) = (Place::keeping(plain()), FakeClock::at(0));
        let line = Line(FakeStore::made(&SHARES, true));
        let custody = || place.custody(plain());
        custody().save(&clear_shares(shares)).unwrap();
        let (halt, stop) = stop();
        let mut told = Vec::new();
        let ended = monitor(
            &line,
            async || Ok(custody()),
            rule,
            clock.boot_id(),
            &stop,
            |standing| {
                told.push(standing.clone());
                then(&line.0, standing);
                if told.len() == enough {
                    halt.say();
                }
            },
        );
        ended.await.unwrap_err();
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_sealed_is_unsealed_each_time() {
        let crashes = AtomicU32::new(0);
        let told = watched(Reunseal::Always, &SHARES, 5, |store, standing| {
            if *standing == Standing::Serving && crashes.fetch_add(1, Ordering::Relaxed) < 2 {
                store.state().sealed = true;
            }
        });
        use Standing::{Serving, Unsealed};
        assert_eq!(told.await, [Unsealed, Serving, Unsealed, Serving, Unsealed]);
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_boot_is_told_and_pressed_no_further() {
        let told = watched(Reunseal::OncePerBoot, &SHARES, 4, |store, standing| match standing {
            Standing::Serving => store.state().sealed = true,
            // A person unseals it.
            Standing::Refused { .. } => store.state().sealed = false,
            _ => {}
        })
        .await;
        assert!(
            matches!(&told[..], [Standing::Unsealed, Standing::Serving, Standing::Refused { fact, .. }, Standing::Serving]
            if fact.contains("once in this boot")),
            "{told:?}"
        );
    }

    /// A hook that fails, or hardware that is away, is asked again, and not as often as the store is.
    #[tokio::test(start_paused = true)]
    async fn key_material_that_is_not_to_be_had_is_asked_for_ever_more_rarely() {
        let (clock, line) = (FakeClock::at(0), Line(FakeStore::made(&SHARES, true)));
        let (halt, stop) = stop();
        let asked = std::cell::Cell::new(0);
        let begun = tokio::time::Instant::now();
        let hook = async || {
            asked.set(asked.get() + 1);
            if begun.elapsed() >= Duration::from_secs(600) {
                halt.say();
            }
            Err::<Custody<'_>, _>("the hook is away".to_owned())
        };
        let mut told = Vec::new();
        let watching = monitor(&line, hook, Reunseal::Always, clock.boot_id(), &stop, |s| told.push(s.clone()));
        watching.await.unwrap_err();
        assert_eq!(told, [Standing::Waiting("the hook is away".into())], "it is told once");
        assert!((10..25).contains(&asked.get()), "{} times in ten minutes", asked.get());
    }

    #[tokio::test(start_paused = true)]
    async fn shares_of_another_store_are_given_once() {
        let given = AtomicU32::new(0);
        let told = watched(Reunseal::Always, &["dd04", "ee05", "ff06"], 2, |store, standing| {
            if matches!(standing, Standing::Refused { .. }) {
                let count = store.state().asked.iter().filter(|a| a.ends_with("sys/unseal")).count();
                given.store(u32::try_from(count).unwrap(), Ordering::Relaxed);
                store.state().sealed = false;
            }
        })
        .await;
        assert!(
            matches!(&told[..], [Standing::Refused { fact, .. }, Standing::Serving] if fact.contains("not those of this store")),
            "{told:?}"
        );
        assert!(given.load(Ordering::Relaxed) > 0);
    }
}
