//! When this program was built: the earliest moment that a clock can truly show.

use host::WallTime;

/// `SOURCE_DATE_EPOCH` of the build (reproducible-builds.org), or the date of this version's first commit.
pub(super) fn date() -> WallTime {
    let seconds = option_env!("SOURCE_DATE_EPOCH").and_then(|t| t.parse::<i64>().ok()).unwrap_or(FIRST_COMMIT);
    WallTime(i128::from(seconds) * 1_000_000_000)
}

/// 2026-11-22T00:00:00Z.
const FIRST_COMMIT: i64 = 1_795_305_600;
