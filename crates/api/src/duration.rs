//! Durations as Vault's clients write them: seconds as a number, or Go's `1h30m`, with `d` for days.

use std::time::Duration;

/// A time to live, at second precision; zero means "the default of the place".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

/// The longest that is taken: 100 years. Longer ones are slips, and would overflow somebody's arithmetic.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

impl Ttl {
    /// No time at all, or "the default".
    pub const ZERO: Self = Self(0);

    /// From whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whole seconds.
    pub const fn as_seconds(self) -> u64 {
        self.0
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The smaller of two limits, of which zero is none.
    #[must_use]
    pub fn or_less(self, other: Self) -> Self {
        match (self.is_zero(), other.is_zero()) {
            (true, _) => other,
            (_, true) => self,
            _ => self.min(other),
        }
    }

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Parses `90`, `90s`, `1h30m`, `1.5h`, `7d`. Fractions of a second are cut off, but what is not zero is at least
    /// one second; days have none.
    ///
    /// # Errors
    /// [`DurationError`] with the text.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let bad = || DurationError { text: text.chars().take(64).collect() };
        let text_trimmed = text.trim();
        if text_trimmed.is_empty() {
            return Err(bad());
        }
        if text_trimmed.bytes().all(|b| b.is_ascii_digit()) {
            return text_trimmed.parse().ok().filter(|s| *s <= MAX_SECONDS).map(Self).ok_or_else(bad);
        }
        let mut nanos: u128 = 0;
        let mut rest = text_trimmed.strip_prefix('+').unwrap_or(text_trimmed);
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| *n > 0).ok_or_else(bad)?;
            let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
            let of_day = rest[digits..].starts_with('d');
            if whole.is_empty() && fraction.is_empty()
                || fraction.contains('.')
                || of_day && rest[..digits].contains('.')
            {
                return Err(bad());
            }
            let amount: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit: u128 = match &rest[..unit_len] {
                "ns" => 1,
                "us" | "\u{b5}s" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                _ => return Err(bad()),
            };
            rest = &rest[unit_len..];
            nanos = nanos.saturating_add(u128::from(amount).saturating_mul(unit));
            // Each digit is a tenth of the place before it; below a nanosecond nothing is left.
            let mut place = unit;
            for digit in fraction.bytes() {
                place /= 10;
                nanos = nanos.saturating_add(u128::from(digit - b'0') * place);
            }
        }
        // Cut to zero, half a second would be "the default", which is the longest.
        let seconds = if nanos == 0 { 0 } else { (nanos / 1_000_000_000).max(1) };
        u64::try_from(seconds).ok().filter(|s| *s <= MAX_SECONDS).map(Self).ok_or_else(bad)
    }

    /// As Go prints a duration: `1h0m0s`, `15m0s`, `30s`.
    pub fn to_go(self) -> String {
        let (h, m, s) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (h, m) {
            (0, 0) => format!("{s}s"),
            (0, _) => format!("{m}m{s}s"),
            _ => format!("{h}h{m}m{s}s"),
        }
    }
}

/// Not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write seconds (3600) or units (1h, 90m, 7d)")]
pub struct DurationError {
    /// What was written, at most 64 characters.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_notations() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("1h", 3600), ("1h30m", 5400), ("7d", 604_800), ("1500ms", 1), ("168h", 604_800)]
                .into_iter()
                .chain([
                    ("1.5h", 5400),
                    (".5h", 1800),
                    ("5.h", 18_000),
                    ("90.9s", 90),
                    ("0.5s", 1),
                    ("0ms", 0),
                    ("+5s", 5),
                    ("1.25h1.5m", 4590),
                ])
        {
            assert_eq!(Ttl::parse(text).unwrap().as_seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "h",
            "1",
            "-1h",
            "1x",
            "1h 30",
            "999999999999d",
            "1.5",
            ".",
            ".h",
            "1..5h",
            "1.5d",
            "+",
            "+-1h",
            "-1.5h",
            "1.5.h",
        ] {
            assert_eq!(Ttl::parse(text).is_ok(), text == "1", "{text}");
        }
    }

    #[test]
    fn prints_as_go_does() {
        for (seconds, text) in [(0, "0s"), (30, "30s"), (900, "15m0s"), (3600, "1h0m0s")] {
            assert_eq!(Ttl::seconds(seconds).to_go(), text);
        }
    }
}
