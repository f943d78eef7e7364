//! Two clocks: one that can be trusted within a boot, one that cannot be trusted at all.

use std::fmt;
use std::time::Duration;

/// The kernel's random identity of this boot (`/proc/sys/kernel/random/boot_id`): another boot, another value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.0.iter().map(|b| format!("{b:02x}")).collect::<String>();
        write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

impl std::str::FromStr for BootId {
    type Err = BootIdError;

    fn from_str(text: &str) -> Result<Self, BootIdError> {
        let hex: Vec<u8> = text.trim().bytes().filter(|b| *b != b'-').collect();
        if hex.len() != 32 {
            return Err(BootIdError);
        }
        let mut id = [0u8; 16];
        for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |d: u8| (d as char).to_digit(16).ok_or(BootIdError);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(id))
    }
}

/// A boot id is a UUID: 32 hexadecimal digits, dashes ignored.
#[derive(Debug, thiserror::Error)]
#[error("not a boot id: expected 32 hexadecimal digits")]
pub struct BootIdError;

/// Milliseconds of CLOCK_BOOTTIME: monotonic within one kernel boot, counting suspend. Says nothing across boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Time passed since `earlier` in the same boot; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `d`, at millisecond precision.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Nanoseconds since 1970 as the device believes: may be wrong, may step either way. For display, and as a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i128);

impl WallTime {
    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        i64::try_from(self.0.div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
    }
}

/// The device's clocks.
pub trait Clock: Send + Sync {
    /// Which boot this is.
    fn boot_id(&self) -> BootId;
    /// Now, within this boot.
    fn boottime(&self) -> BootTime;
    /// Now, as the wall clock says. Never decide access by it.
    fn wall(&self) -> WallTime;
}

/// The kernel's clocks.
#[derive(Debug)]
pub struct OsClock {
    boot_id: BootId,
}

impl OsClock {
    /// Reads the boot id once; it does not change while the process lives.
    ///
    /// # Errors
    /// If `/proc/sys/kernel/random/boot_id` cannot be read: without it a stale token could not be told from a live one.
    pub fn new() -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot_id = text.parse().map_err(std::io::Error::other)?;
        Ok(Self { boot_id })
    }
}

impl Clock for OsClock {
    fn boot_id(&self) -> BootId {
        self.boot_id
    }

    fn boottime(&self) -> BootTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        BootTime(t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000)
    }

    fn wall(&self) -> WallTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        WallTime(i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_reads_what_it_prints() {
        let id: BootId = "0e8623e9-7d1a-55fc-7aba-6980ef0d7f93\n".parse().unwrap();
        assert_eq!(id.to_string(), "0e8623e9-7d1a-55fc-7aba-6980ef0d7f93");
        assert!("0e8623e9".parse::<BootId>().is_err());
        assert!("zz8623e9-7d1a-55fc-7aba-6980ef0d7f93".parse::<BootId>().is_err());
    }

    #[test]
    fn the_kernels_clock_moves_forward() {
        let clock = OsClock::new().unwrap();
        let before = clock.boottime();
        assert!(clock.boottime() >= before);
        assert!(clock.wall().unix_seconds() > 0);
    }
}
