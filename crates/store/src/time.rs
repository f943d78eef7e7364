//! Time as the store counts it.
//!
//! Milliseconds since 1970 by name, but no clock on the wall: within one kernel boot it goes on with CLOCK_BOOTTIME
//! from what was last stored; in another boot it starts at the largest of what was last stored, the day the program was
//! built, and the wall clock. So it never goes back, and a step of the wall clock moves nothing that runs.

use std::time::Duration;

use host::{BootId, BootTime, Clock, WallTime};

/// Milliseconds of the store's life: goes on with CLOCK_BOOTTIME within a boot, never back across boots, and no step of
/// the wall clock moves it. Every TTL is counted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

impl StoreTime {
    /// This moment plus `d`.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(millis(d)))
    }

    /// Time left until `later`; zero when it has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// What the head keeps of time: in this boot, at this moment, it was this late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRecord {
    pub(crate) boot_id: BootId,
    pub(crate) boottime: BootTime,
    pub(crate) store_time: StoreTime,
}

/// Store time within this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    boot_id: BootId,
    opened: BootTime,
    base: StoreTime,
}

impl Timeline {
    /// Goes on from `last`, or starts when there is none.
    pub(crate) fn start(last: Option<TimeRecord>, build_date: WallTime, clock: &dyn Clock) -> Self {
        let (boot_id, opened) = (clock.boot_id(), clock.boottime());
        let base = match last {
            Some(last) if last.boot_id == boot_id => last.store_time.plus(opened.since(last.boottime)),
            _ => {
                let stored = last.map_or(StoreTime(0), |l| l.store_time);
                stored.max(of_wall(build_date)).max(of_wall(clock.wall()))
            }
        };
        Self { boot_id, opened, base }
    }

    pub(crate) fn now(&self, clock: &dyn Clock) -> StoreTime {
        self.base.plus(clock.boottime().since(self.opened))
    }

    /// For the head.
    pub(crate) fn record(&self, clock: &dyn Clock) -> TimeRecord {
        let boottime = clock.boottime();
        TimeRecord { boot_id: self.boot_id, boottime, store_time: self.base.plus(boottime.since(self.opened)) }
    }
}

fn of_wall(wall: WallTime) -> StoreTime {
    StoreTime(u64::try_from(wall.0.max(0) / 1_000_000).unwrap_or(0))
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u8, u64, i128);

    impl Clock for At {
        fn boot_id(&self) -> BootId {
            BootId([self.0; 16])
        }
        fn boottime(&self) -> BootTime {
            BootTime(self.1)
        }
        fn wall(&self) -> WallTime {
            WallTime(self.2 * 1_000_000)
        }
    }

    const BUILT: WallTime = WallTime(1_000 * 1_000_000);

    fn last(boot: u8, boottime: u64, store_time: u64) -> Option<TimeRecord> {
        Some(TimeRecord {
            boot_id: BootId([boot; 16]),
            boottime: BootTime(boottime),
            store_time: StoreTime(store_time),
        })
    }

    #[test]
    fn within_a_boot_only_boottime_counts() {
        for wall in [0, 5_000, 9_999_999] {
            let line = Timeline::start(last(1, 100, 5_000), BUILT, &At(1, 150, wall));
            assert_eq!(line.now(&At(1, 150, 0)), StoreTime(5_050));
            assert_eq!(line.now(&At(1, 160, -7)), StoreTime(5_060));
            assert_eq!(line.record(&At(1, 160, 0)).store_time, StoreTime(5_060));
        }
    }

    #[test]
    fn in_another_boot_it_is_the_largest_of_three() {
        assert_eq!(Timeline::start(last(1, 100, 5_000), BUILT, &At(2, 3, 0)).now(&At(2, 4, 0)), StoreTime(5_001));
        assert_eq!(Timeline::start(last(1, 100, 500), BUILT, &At(2, 3, 0)).now(&At(2, 3, 0)), StoreTime(1_000));
        assert_eq!(Timeline::start(last(1, 100, 5_000), BUILT, &At(2, 3, 7_000)).now(&At(2, 3, 0)), StoreTime(7_000));
        assert_eq!(Timeline::start(None, BUILT, &At(2, 3, -5)).now(&At(2, 3, 0)), StoreTime(1_000));
    }

    #[test]
    fn a_clock_that_stands_before_its_record_does_not_go_back() {
        let line = Timeline::start(last(1, 100, 5_000), BUILT, &At(1, 90, 0));
        assert_eq!(line.now(&At(1, 90, 0)), StoreTime(5_000));
    }
}
