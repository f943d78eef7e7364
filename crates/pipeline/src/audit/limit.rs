//! Whoever is refused may knock as often as he likes, but not write the log full: what he asks is written one by one up
//! to a rate, and beyond it counted into one record.
//!
//! At the slowest refill 2 x 1440 records a day are possible, some 1.2 MB: a flood needs weeks to push a day of history
//! out of a ring of 32 MB, and every record of it tells the count.

use std::time::Duration;

use host::{BootTime, WallTime};

/// The bucket, and the count of what did not fit into it.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: u32,
    refilled: Option<BootTime>,
    counted: Option<Counted>,
}

/// Requests that were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    pub(crate) first: WallTime,
    pub(crate) last: WallTime,
    since: BootTime,
}

/// What to do with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<S = Counted> {
    /// Write it, after the sum of what was counted before, if any.
    Write(Option<S>),
    /// It is counted.
    Counted,
    /// It is counted, and the sum is due.
    Sum(S),
}

impl Verdict {
    /// The same, of a sum that tells more.
    pub(crate) fn map<S>(self, tell: impl FnOnce(Counted) -> S) -> Verdict<S> {
        match self {
            Self::Write(sum) => Verdict::Write(sum.map(tell)),
            Self::Counted => Verdict::Counted,
            Self::Sum(sum) => Verdict::Sum(tell(sum)),
        }
    }
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Self { tokens: BURST, refilled: None, counted: None }
    }

    /// Judges one request at `now`; `at` is its wall time, for display.
    pub(crate) fn knock(&mut self, now: BootTime, at: WallTime) -> Verdict {
        self.refill(now);
        if self.tokens > 0 || !host::in_force("audit-flood-limited") {
            self.tokens = self.tokens.saturating_sub(1);
            return Verdict::Write(self.counted.take());
        }
        let fresh = Counted { count: 0, first: at, last: at, since: now };
        let counted = self.counted.get_or_insert(fresh);
        counted.count = counted.count.saturating_add(1);
        counted.last = at;
        match now.since(counted.since) >= REFILL {
            true => self.counted.take().map_or(Verdict::Counted, Verdict::Sum),
            false => Verdict::Counted,
        }
    }

    /// What was counted and not yet written, if its time has come or `now` is `None`: for the end of the device's life.
    pub(crate) fn due(&mut self, now: Option<BootTime>) -> Option<Counted> {
        let since = self.counted.as_ref()?.since;
        if now.is_some_and(|now| now.since(since) < REFILL) {
            return None;
        }
        self.counted.take()
    }

    /// Puts a sum back that could not be written.
    pub(crate) fn restore(&mut self, sum: Counted) {
        match &mut self.counted {
            Some(c) => {
                c.count = c.count.saturating_add(sum.count);
                c.first = sum.first;
                c.since = sum.since;
            }
            None => self.counted = Some(sum),
        }
    }

    /// Whether the next one would be written.
    pub(crate) fn has_room(&mut self, now: BootTime) -> bool {
        self.refill(now);
        self.tokens > 0
    }

    /// Whether nothing would be lost if it were made anew.
    pub(crate) fn is_idle(&mut self, now: BootTime) -> bool {
        self.refill(now);
        self.tokens == BURST && self.counted.is_none()
    }

    fn refill(&mut self, now: BootTime) {
        let refilled = *self.refilled.get_or_insert(now);
        let steps = now.since(refilled).as_millis() / REFILL.as_millis();
        if steps > 0 {
            self.tokens = u32::try_from(steps).unwrap_or(BURST).saturating_add(self.tokens).min(BURST);
            self.refilled = Some(now);
        }
    }
}

/// As many are written at once: enough for the slips of a morning.
const BURST: u32 = 50;
/// One more each minute; a sum at most as often.
const REFILL: Duration = Duration::from_secs(60);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sum of `count` requests, all at one moment.
    pub(crate) fn a_sum(count: u32, at: WallTime) -> Option<Counted> {
        let mut bucket = Bucket::new();
        (0..BURST + count).for_each(|_| _ = bucket.knock(BootTime(0), at));
        bucket.due(None)
    }

    fn at(ms: u64) -> (BootTime, WallTime) {
        (BootTime(ms), WallTime(i128::from(ms) * 1_000_000))
    }

    #[test]
    fn a_day_of_flood_writes_a_bounded_number_of_records() {
        let mut bucket = Bucket::new();
        let (mut written, mut summed) = (0u64, 0u64);
        let total = 24 * 3600 * 20;
        for i in 0..total {
            let (now, wall) = at(i * 50); // 20 a second
            match bucket.knock(now, wall) {
                Verdict::Write(sum) => {
                    written += 1 + u64::from(sum.is_some());
                    summed += 1 + sum.map_or(0, |s| s.count);
                }
                Verdict::Counted => {}
                Verdict::Sum(sum) => {
                    written += 1;
                    summed += sum.count;
                }
            }
        }
        summed += bucket.due(None).map_or(0, |s| s.count);
        assert_eq!(summed, total, "every request is written or counted");
        assert!(written <= u64::from(BURST) + 2 * 1440, "{written}");
    }

    #[test]
    fn a_quiet_house_sees_each_knock() {
        let mut bucket = Bucket::new();
        for i in 0..500 {
            let (now, wall) = at(i * 61_000);
            assert_eq!(bucket.knock(now, wall), Verdict::Write(None), "{i}");
        }
    }

    #[test]
    fn a_sum_that_could_not_be_written_is_kept() {
        let mut bucket = Bucket::new();
        for _ in 0..BURST + 3 {
            bucket.knock(at(0).0, at(0).1);
        }
        assert_eq!(bucket.due(Some(BootTime(59_999))), None);
        let sum = bucket.due(Some(BootTime(60_000))).unwrap();
        assert_eq!(sum.count, 3);
        bucket.restore(sum);
        assert_eq!(bucket.due(None), Some(sum));
    }
}
