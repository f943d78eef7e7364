//! The three kinds of path patterns, how one fits a path, and which of several fits best.

use std::cmp::{Ordering, Reverse};

/// A pattern. `*` is a wildcard only at the very end, `+` only as a whole segment; elsewhere both stand for themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pattern {
    /// The path itself.
    Exact(String),
    /// `secret/*`, kept without the star: whatever begins so.
    Prefix(String),
    /// With at least one `+` segment.
    Segments(Segments),
}

impl Pattern {
    /// Reads a pattern whose leading slash is gone already; `None` for one with `+*` in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.contains("+*") {
            return None;
        }
        let segmented = text == "+" || text.starts_with("+/") || text.contains("/+");
        Some(match text.strip_suffix('*') {
            _ if segmented => Self::Segments(Segments::new(text)),
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        })
    }

    /// The pattern as it was written, without leading slash.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Exact(text) => text.clone(),
            Self::Prefix(prefix) => format!("{prefix}*"),
            Self::Segments(s) if s.open => format!("{}*", s.text),
            Self::Segments(s) => s.text.clone(),
        }
    }
}

/// A pattern with `+` segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segments {
    /// Without the star at its end.
    text: String,
    /// Whether there was a star.
    open: bool,
}

impl Segments {
    fn new(text: &str) -> Self {
        let open = text.ends_with('*');
        Self { text: text.strip_suffix('*').unwrap_or(text).to_owned(), open }
    }

    /// Whether the pattern fits. Segments are compared one by one; with a star at its end, the last needs only to begin
    /// so, and anything may follow it. That last one may be empty: `a/+/*`.
    pub(crate) fn fits(&self, path: &str) -> bool {
        let mut left = path.split('/');
        let mut wanted = self.text.split('/').peekable();
        while let Some(want) = wanted.next() {
            let Some(have) = left.next() else { return false };
            let last = wanted.peek().is_none();
            if want == "+" || want == have {
                continue;
            }
            return self.open && last && have.starts_with(want);
        }
        // Here every segment was equal or `+`.
        self.open || left.next().is_none()
    }

    /// What stands before the first `+`.
    pub(crate) fn fixed(&self) -> &str {
        self.text.split_once('+').map_or(&self.text, |(fixed, _)| fixed)
    }

    pub(crate) fn rank(&self) -> Rank<'_> {
        Rank {
            first_wildcard: self.text.find('+').unwrap_or(self.text.len()),
            closed: !self.open,
            few_segments: Reverse(self.text.split('/').filter(|s| *s == "+").count()),
            length: self.text.len(),
            text: &self.text,
        }
    }
}

/// How closely a pattern fits; the greater decides. The fields stand in the order in which they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank<'a> {
    /// Where the first `+` or the star stands: later is closer.
    first_wildcard: usize,
    /// Whether it does without a star at its end.
    closed: bool,
    /// Fewer `+` segments are closer.
    few_segments: Reverse<usize>,
    /// Longer is closer.
    length: usize,
    /// The greater text, so that there is always one answer.
    text: &'a str,
}

impl<'a> Rank<'a> {
    /// Of a prefix pattern, given without its star.
    pub(crate) fn of_prefix(prefix: &'a str) -> Self {
        Self {
            first_wildcard: prefix.len(),
            closed: false,
            few_segments: Reverse(0),
            length: prefix.len(),
            text: prefix,
        }
    }

    /// The closer one first.
    pub(crate) fn closest_first(a: &Self, b: &Self) -> Ordering {
        b.cmp(a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Segments {
        match Pattern::parse(text) {
            Some(Pattern::Segments(s)) => s,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn star_counts_at_the_end_alone_and_plus_as_a_segment_alone() {
        assert_eq!(Pattern::parse("secret/*"), Some(Pattern::Prefix("secret/".into())));
        assert_eq!(Pattern::parse("*"), Some(Pattern::Prefix(String::new())));
        for literal in ["secret/*/x", "secret/a+", "a+b/c", "secret/a+/b"] {
            assert_eq!(Pattern::parse(literal), Some(Pattern::Exact(literal.into())), "{literal}");
        }
        for refused in ["+*", "secret/+*", "x+*", "a/+*b"] {
            assert_eq!(Pattern::parse(refused), None, "{refused}");
        }
        for text in ["+", "+/a", "a/+/b", "a/+", "a/+/b*", "a/+/*"] {
            assert_eq!(Pattern::Segments(segments(text)).to_text(), text);
        }
    }

    #[test]
    fn plus_is_exactly_one_segment() {
        for (pattern, path, fits) in [
            ("secret/+/x", "secret/a/x", true),
            ("secret/+/x", "secret/a/b/x", false),
            ("secret/+/x", "secret/a/x/y", false),
            ("secret/+/x", "secret/a/", false),
            ("secret/+/x*", "secret/a/x", true),
            ("secret/+/x*", "secret/a/xyz/deep/er", true),
            ("secret/+/x*", "secret/a/y", false),
            ("secret/+/*", "secret/a/", true),
            ("secret/+/*", "secret/a", false),
            ("+", "a", true),
            ("+", "a/b", false),
            ("+/b", "a/b", true),
            ("+/+", "a/b", true),
            ("+/+", "a", false),
            ("a/+b/c", "a/+b/c", true),
            ("a/+b/c", "a/xb/c", false),
        ] {
            assert_eq!(segments(pattern).fits(path), fits, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_five_steps_of_rank_in_their_order() {
        let r = |t| segments(t).text.len();
        assert!(r("a/+") > 0);
        for (closer, farther) in [
            ("a/b/+", "a/+/c"),        // the first wildcard stands later
            ("a/+/b", "a/+/bbbbb*"),   // no star at the end
            ("a/+/b/c", "a/+/+/long"), // fewer `+`
            ("a/+/bb", "a/+/b"),       // longer
            ("a/+/c", "a/+/b"),        // the greater text
        ] {
            assert!(segments(closer).rank() > segments(farther).rank(), "{closer} over {farther}");
        }
        assert!(Rank::of_prefix("a/b") > segments("a/+").rank());
        assert!(Rank::of_prefix("a/") < segments("a/+").rank());
    }
}
