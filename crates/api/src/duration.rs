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

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Parses `90`, `90s`, `1h30m`, `7d`. Fractions of a second are cut off.
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
        let mut rest = text_trimmed;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0).ok_or_else(bad)?;
            let amount: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
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
        }
        u64::try_from(nanos / 1_000_000_000).ok().filter(|s| *s <= MAX_SECONDS).map(Self).ok_or_else(bad)
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
        {
            assert_eq!(Ttl::parse(text).unwrap().as_seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "h", "1", "-1h", "1x", "1h 30", "999999999999d", "1.5h"] {
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
