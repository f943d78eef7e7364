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

    /// As RFC 3339 writes it, in UTC with nanoseconds: `2026-11-22T02:56:46.635386107Z`. Years outside 1 to 9999, which
    /// only a broken clock has, come out as the nearest that the format knows.
    pub fn to_rfc3339(self) -> String {
        let seconds = self.unix_seconds().clamp(-62_135_596_800, 253_402_300_799);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to a date of the Gregorian calendar, in eras of 400 years that begin on 1 March.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let nanos = self.0.rem_euclid(1_000_000_000);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{nanos:09}Z")
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
    fn dates_as_rfc_3339_writes_them() {
        let at = |seconds: i64| WallTime(i128::from(seconds) * 1_000_000_000).to_rfc3339();
        assert_eq!(WallTime(1_795_316_206_635_386_107).to_rfc3339(), "2026-11-22T02:56:46.635386107Z");
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(at(253_402_300_799), "9999-12-31T23:59:59.000000000Z");
        assert!(WallTime(i128::MAX).to_rfc3339().starts_with("9999-12-31T23:59:59."));
    }

    #[test]
    fn the_kernels_clock_moves_forward() {
        let clock = OsClock::new().unwrap();
        let before = clock.boottime();
        assert!(clock.boottime() >= before);
        assert!(clock.wall().unix_seconds() > 0);
    }
}
