//! Guessing is slowed down: after five failures a name is refused for a while, be there such a user or not.
//!
//! In memory alone: a restart forgets it, and no failure costs a write. Passwords that edgekeep drew cannot be guessed, so
//! a service is never locked out by what strangers do under its name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use store::StoreTime;

/// Failures by mount and name.
#[derive(Debug)]
pub(super) struct Lockout(Mutex<HashMap<String, Failures>>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: StoreTime,
}

impl Lockout {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Whether `key` is refused at `now`, whatever the password.
    pub(super) fn is_locked(&self, key: &str, now: StoreTime) -> bool {
        self.lock().get(key).is_some_and(|f| f.is_locked(now))
    }

    /// Counts a failure.
    pub(super) fn failed(&self, key: &str, now: StoreTime) {
        let mut failures = self.lock();
        if failures.len() >= MOST_NAMES && !failures.contains_key(key) {
            failures.retain(|_, f| !f.is_over(now));
        }
        if failures.len() >= MOST_NAMES && !failures.contains_key(key) {
            // The one that matters least: not locked, and longest ago. Filling the table with other names therefore frees no
            // locked one until all of it is locked, at five slow hashes for each.
            let least = failures.iter().min_by_key(|(_, f)| (f.is_locked(now), f.last)).map(|(k, _)| k.clone());
            least.and_then(|k| failures.remove(&k));
        }
        let entry = failures.entry(key.to_owned()).or_insert(Failures { count: 0, last: now });
        entry.count = if entry.is_over(now) { 1 } else { entry.count.saturating_add(1) };
        entry.last = now;
    }

    /// Forgets the failures of a name that has shown its password.
    pub(super) fn succeeded(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn locked_after_five_failures_and_for_a_while() {
        let lockout = Lockout::new();
        for _ in 0..5 {
            assert!(!lockout.is_locked("a", T0));
            lockout.failed("a", T0);
        }
        assert!(lockout.is_locked("a", T0));
        assert!(!lockout.is_locked("b", T0));
        assert!(lockout.is_locked("a", T0.plus(LOCKED_FOR - Duration::from_millis(1))));
        assert!(!lockout.is_locked("a", T0.plus(LOCKED_FOR)));
        lockout.failed("a", T0.plus(LOCKED_FOR));
        assert!(!lockout.is_locked("a", T0.plus(LOCKED_FOR)), "the count begins anew");
    }

    #[test]
    fn a_success_forgets() {
        let lockout = Lockout::new();
        (0..4).for_each(|_| lockout.failed("a", T0));
        lockout.succeeded("a");
        lockout.failed("a", T0);
        assert!(!lockout.is_locked("a", T0));
    }

    #[test]
    fn other_names_neither_fill_memory_nor_free_a_locked_one() {
        let lockout = Lockout::new();
        (0..5).for_each(|_| lockout.failed("victim", T0));
        (0..10 * MOST_NAMES).for_each(|i| lockout.failed(&format!("n{i}"), T0.plus(Duration::from_millis(i as u64))));
        assert!(lockout.is_locked("victim", T0.plus(Duration::from_secs(60))));
        assert!(lockout.lock().len() <= MOST_NAMES);
    }
}
