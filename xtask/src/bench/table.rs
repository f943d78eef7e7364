//! One table: what was measured, its limit, and whether it holds.

use std::fmt;

/// One line of the table.
pub(super) struct Row {
    what: String,
    measured: String,
    limit: Option<(String, bool)>,
}

impl Row {
    /// A figure without a limit.
    pub(super) fn plain(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), limit: None }
    }

    /// A figure that must not be above `limit`. One that could not be measured does not hold.
    pub(super) fn limited(what: impl Into<String>, value: f64, limit: f64, unit: &str, detail: &str) -> Self {
        let measured = format!("{} {unit}{detail}", round(value));
        Self { what: what.into(), measured, limit: Some((format!("{} {unit}", round(limit)), value <= limit)) }
    }

    /// A figure with a limit that this machine cannot give, and what it lacks.
    pub(super) fn lacking(what: impl Into<String>, lacks: &str) -> Self {
        Self { what: what.into(), measured: format!("NOT MEASURED: {lacks}"), limit: Some((String::new(), false)) }
    }
}

/// The whole table, as Markdown.
pub(super) struct Table(pub(super) Vec<Row>);

impl Table {
    /// What does not hold.
    pub(super) fn misses(&self) -> Vec<&str> {
        self.0.iter().filter(|r| matches!(r.limit, Some((_, false)))).map(|r| r.what.as_str()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | limit | |\n|---|---|---|---|")?;
        for Row { what, measured, limit } in &self.0 {
            let (limit, verdict) = match limit {
                Some((limit, true)) => (limit.as_str(), "holds"),
                Some((limit, false)) => (limit.as_str(), "**misses**"),
                None => ("", ""),
            };
            writeln!(f, "| {what} | {measured} | {limit} | {verdict} |")?;
        }
        Ok(())
    }
}

/// Two digits behind the point where they say something.
pub(super) fn round(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_limit_or_unknown_misses() {
        let rows = vec![
            Row::limited("a", 12.0, 12.0, "MB", ""),
            Row::limited("b", 12.1, 12.0, "MB", ""),
            Row::limited("c", f64::NAN, 1.0, "ms", ""),
            Row::lacking("d", "strace"),
            Row::plain("e", "9 ms"),
        ];
        let table = Table(rows);
        assert_eq!(table.misses(), ["b", "c", "d"]);
        assert!(table.to_string().contains("| b | 12.1 MB | 12 MB | **misses** |"), "{table}");
    }
}
