//! A clock that stands still until it is told to move.

use std::sync::Mutex;
use std::time::Duration;

use host::{BootId, BootTime, Clock, WallTime};

/// Time in the hands of a test. A clone begins at the same moment and goes on by itself.
#[derive(Debug)]
pub struct FakeClock(Mutex<Now>);

impl Clone for FakeClock {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.now()))
    }
}

#[derive(Clone, Copy, Debug)]
struct Now {
    boot_id: BootId,
    boottime_ms: u64,
    wall_ns: i128,
}

impl FakeClock {
    /// The first boot, 10 s old, at a wall time in seconds since 1970.
    pub fn at(unix_seconds: i64) -> Self {
        Self(Mutex::new(Now {
            boot_id: BootId([1; 16]),
            boottime_ms: 10_000,
            wall_ns: i128::from(unix_seconds) * 1_000_000_000,
        }))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        self.change(|now| {
            now.boottime_ms += u64::try_from(by.as_millis()).expect("a test does not last 500 million years");
            now.wall_ns += i128::try_from(by.as_nanos()).expect("nor longer");
        });
    }

    /// Steps the wall clock alone, as NTP or an operator does.
    pub fn step_wall(&self, unix_seconds: i64) {
        self.change(|now| now.wall_ns = i128::from(unix_seconds) * 1_000_000_000);
    }

    /// Another boot of the kernel, 5 s old; the wall clock goes on.
    pub fn reboot(&self) {
        self.change(|now| {
            let next = u128::from_be_bytes(now.boot_id.0).wrapping_add(1);
            now.boot_id = BootId(next.to_be_bytes());
            now.boottime_ms = 5_000;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().expect("no test panics while it holds the clock"));
    }

    fn now(&self) -> Now {
        *self.0.lock().expect("no test panics while it holds the clock")
    }
}

impl Clock for FakeClock {
    fn boot_id(&self) -> BootId {
        self.now().boot_id
    }

    fn boottime(&self) -> BootTime {
        BootTime(self.now().boottime_ms)
    }

    fn wall(&self) -> WallTime {
        WallTime(self.now().wall_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_moves() {
        let clock = FakeClock::at(1000);
        clock.advance(Duration::from_secs(5));
        assert_eq!((clock.boottime(), clock.wall().unix_seconds()), (BootTime(15_000), 1005));
        clock.step_wall(0);
        assert_eq!((clock.boottime(), clock.wall().unix_seconds()), (BootTime(15_000), 0));
        let first = clock.boot_id();
        clock.reboot();
        assert_ne!(clock.boot_id(), first);
        assert_eq!(clock.boottime(), BootTime(5_000));
    }
}
