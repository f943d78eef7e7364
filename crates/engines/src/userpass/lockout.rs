//! Guessing is slowed down: after five failures a name is refused for a while, be there such a user or not.
//!
//! In memory alone: a restart forgets it, and no failure costs a write. Passwords that edgekeep drew cannot be guessed,
//! so a service is never locked out by what strangers do under its name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use store::StoreTime;

/// Failures by mount and name.
#[derive(Debug)]
pub(super) struct Lockout(Mutex<HashMap<String, Failures>>);

/// A guess whose answer is awaited. It counts from before the slow hash, or a burst of guesses would be answered before
/// the first of them is counted; dropped without an answer it counts no more, for nobody has learnt anything.
#[derive(Debug)]
pub(super) struct Guess<'l> {
    lockout: &'l Lockout,
    key: &'l str,
}

/// Why a password is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// There were too many failures.
    Locked,
    /// As many guesses as are left are being looked at.
    Busy,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// Guesses without an answer yet.
    guesses: u32,
    last: StoreTime,
}

impl Lockout {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Lets a password for `key` be looked at: as many at once as failures are left.
    pub(super) fn guess<'l>(&'l self, key: &'l str, now: StoreTime) -> Result<Guess<'l>, NotNow> {
        let mut all = self.lock();
        make_room(&mut all, key, now);
        let entry = all.entry(key.to_owned()).or_insert(Failures { count: 0, guesses: 0, last: now });
        if entry.is_locked(now) {
            return Err(NotNow::Locked);
        }
        let failed = if entry.is_over(now) { 0 } else { entry.count };
        if failed + entry.guesses >= MOST_FAILURES && host::in_force("guesses-counted-first") {
            return Err(NotNow::Busy);
        }
        entry.guesses += 1;
        Ok(Guess { lockout: self, key })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess<'_> {
    /// It was another password.
    pub(super) fn failed(self, now: StoreTime) {
        if let Some(entry) = self.lockout.lock().get_mut(self.key) {
            entry.count = if entry.is_over(now) { 1 } else { entry.count.saturating_add(1) };
            entry.last = now;
        }
    }

    /// It was the password: the failures of the name are forgotten.
    pub(super) fn succeeded(self) {
        if let Some(entry) = self.lockout.lock().get_mut(self.key) {
            entry.count = 0;
        }
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let mut all = self.lockout.lock();
        let Some(entry) = all.get_mut(self.key) else { return };
        entry.guesses = entry.guesses.saturating_sub(1);
        if entry.guesses == 0 && entry.count == 0 {
            all.remove(self.key);
        }
    }
}

impl Failures {
    fn is_over(&self, now: StoreTime) -> bool {
        self.last.until(now) >= LOCKED_FOR
    }

    fn is_locked(&self, now: StoreTime) -> bool {
        self.count >= MOST_FAILURES && !self.is_over(now) && host::in_force("logins-locked-out")
    }
}

/// Keeps the table bounded when `key` is new.
fn make_room(all: &mut HashMap<String, Failures>, key: &str, now: StoreTime) {
    if all.len() < MOST_NAMES || all.contains_key(key) {
        return;
    }
    all.retain(|_, f| f.guesses > 0 || !f.is_over(now));
    if all.len() >= MOST_NAMES {
        // The one that matters least: not locked, none looked at, and longest ago. Filling the table with other names
        // therefore frees no locked one until all of it is locked, at five slow hashes for each.
        let least = all.iter().min_by_key(|(_, f)| (f.is_locked(now), f.guesses > 0, f.last)).map(|(k, _)| k.clone());
        least.and_then(|k| all.remove(&k));
    }
}

/// Then the name is locked.
const MOST_FAILURES: u32 = 5;
/// Counted from the last failure that was looked at: five guesses a quarter of an hour are 480 a day.
const LOCKED_FOR: Duration = Duration::from_secs(15 * 60);
/// Bounds the memory.
const MOST_NAMES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const T0: StoreTime = StoreTime(1_000_000);

    fn fail(lockout: &Lockout, key: &str, now: StoreTime) {
        lockout.guess(key, now).unwrap().failed(now);
    }

    fn is_locked(lockout: &Lockout, key: &str, now: StoreTime) -> bool {
        lockout.guess(key, now).is_err_and(|not| not == NotNow::Locked)
    }

    #[test]
    fn locked_after_five_failures_and_for_a_while() {
        let lockout = Lockout::new();
        (0..5).for_each(|_| fail(&lockout, "a", T0));
        assert!(is_locked(&lockout, "a", T0));
        assert!(!is_locked(&lockout, "b", T0));
        assert!(is_locked(&lockout, "a", T0.plus(LOCKED_FOR - Duration::from_millis(1))));
        assert!(!is_locked(&lockout, "a", T0.plus(LOCKED_FOR)));
        fail(&lockout, "a", T0.plus(LOCKED_FOR));
        assert!(!is_locked(&lockout, "a", T0.plus(LOCKED_FOR)), "the count begins anew");
    }

    #[test]
    fn a_success_forgets() {
        let lockout = Lockout::new();
        (0..4).for_each(|_| fail(&lockout, "a", T0));
        lockout.guess("a", T0).unwrap().succeeded();
        assert!(lockout.lock().is_empty(), "and costs no room");
        fail(&lockout, "a", T0);
        assert!(!is_locked(&lockout, "a", T0));
    }

    #[test]
    fn a_burst_is_counted_before_it_is_answered() {
        let lockout = Lockout::new();
        fail(&lockout, "a", T0);
        let burst: Vec<_> = (0..17).map(|_| lockout.guess("a", T0)).collect();
        assert_eq!(burst.iter().filter(|g| g.is_ok()).count(), 4, "one has failed, four are left");
        assert!(burst.iter().flat_map(|g| g.as_ref().err()).all(|not| *not == NotNow::Busy));
        drop(burst);
        let again: Vec<_> = (0..4).map(|_| lockout.guess("a", T0).unwrap()).collect();
        again.into_iter().for_each(|guess| guess.failed(T0));
        assert!(is_locked(&lockout, "a", T0));
    }

    #[test]
    fn other_names_neither_fill_memory_nor_free_a_locked_one() {
        let lockout = Lockout::new();
        (0..5).for_each(|_| fail(&lockout, "victim", T0));
        (0..10 * MOST_NAMES).for_each(|i| fail(&lockout, &format!("n{i}"), T0.plus(Duration::from_millis(i as u64))));
        assert!(is_locked(&lockout, "victim", T0.plus(Duration::from_secs(60))));
        assert!(lockout.lock().len() <= MOST_NAMES);
    }
}
