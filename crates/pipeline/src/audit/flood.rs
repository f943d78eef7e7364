//! Who may write how much that proves nothing: strangers together, and each token for what it is refused.
//!
//! A valid token alone, of whatever small power, would otherwise push history out with what it may not do. So the
//! refusals of each token have a bucket of their own, as strangers have one, and beyond it a sum that names the token.
//! A request that is allowed is always written: whoever may do much may fill the ring, under a name and line by line.

use std::collections::HashMap;

use host::{BootTime, WallTime};

use super::limit::{Bucket, Counted, Verdict};

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker<'a> {
    /// Nobody that is known.
    Stranger,
    /// The bearer of a valid token who was refused: the codes of token and accessor.
    Token {
        /// Of the token.
        token_code: &'a str,
        /// Of its accessor.
        accessor_code: &'a str,
    },
}

/// What was counted, and whose it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) counted: Counted,
    pub(crate) of: SumOf,
}

/// Whose requests a sum tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SumOf {
    /// Of strangers.
    Strangers,
    /// Of one token.
    Token {
        /// Of the token.
        token_code: String,
        /// Of its accessor.
        accessor_code: String,
    },
    /// Of tokens beyond those that are told apart.
    Tokens,
}

/// The buckets.
#[derive(Debug)]
pub(crate) struct Flood {
    strangers: Bucket,
    /// By the token's code, with its accessor's.
    tokens: HashMap<String, (String, Bucket)>,
    /// Of all tokens that found no room in the table.
    others: Bucket,
}

impl Flood {
    pub(crate) fn new() -> Self {
        Self { strangers: Bucket::new(), tokens: HashMap::new(), others: Bucket::new() }
    }

    /// Judges one request at `now`; `at` is its wall time, for display.
    pub(crate) fn knock(&mut self, asker: Asker<'_>, now: BootTime, at: WallTime) -> Verdict<Sum> {
        let (bucket, of) = match asker {
            Asker::Stranger => (&mut self.strangers, SumOf::Strangers),
            Asker::Token { token_code, accessor_code } => {
                self.make_room(token_code, accessor_code, now);
                match self.tokens.get_mut(token_code) {
                    Some((_, bucket)) => (bucket, SumOf::token(token_code, accessor_code)),
                    None => (&mut self.others, SumOf::Tokens),
                }
            }
        };
        bucket.knock(now, at).map(|counted| Sum { counted, of })
    }

    /// Whether the next request of a stranger would be written.
    pub(crate) fn has_room_for_a_stranger(&mut self, now: BootTime) -> bool {
        self.strangers.has_room(now)
    }

    /// What was counted and not yet written, if its time has come or `now` is `None`: for the end of the device's life.
    pub(crate) fn due(&mut self, now: Option<BootTime>) -> Vec<Sum> {
        let strangers = self.strangers.due(now).map(|counted| Sum { counted, of: SumOf::Strangers });
        let others = self.others.due(now).map(|counted| Sum { counted, of: SumOf::Tokens });
        let tokens = self.tokens.iter_mut().filter_map(|(token_code, (accessor_code, bucket))| {
            bucket.due(now).map(|counted| Sum { counted, of: SumOf::token(token_code, accessor_code) })
        });
        strangers.into_iter().chain(others).chain(tokens).collect()
    }

    /// Puts a sum back that could not be written.
    pub(crate) fn restore(&mut self, sum: Sum) {
        let bucket = match &sum.of {
            SumOf::Strangers => &mut self.strangers,
            SumOf::Tokens => &mut self.others,
            // Its line may have gone to another token meanwhile: then the count stands without its name.
            SumOf::Token { token_code, .. } => self.tokens.get_mut(token_code).map_or(&mut self.others, |(_, b)| b),
        };
        bucket.restore(sum.counted);
    }

    /// Gives the token a bucket of its own if there is room, or if others need theirs no longer.
    fn make_room(&mut self, token_code: &str, accessor_code: &str, now: BootTime) {
        if self.tokens.contains_key(token_code) {
            return;
        }
        if self.tokens.len() >= MOST_TOKENS {
            self.tokens.retain(|_, (_, bucket)| !bucket.is_idle(now));
        }
        if self.tokens.len() < MOST_TOKENS {
            self.tokens.insert(token_code.to_owned(), (accessor_code.to_owned(), Bucket::new()));
        }
    }
}

impl SumOf {
    fn token(token_code: &str, accessor_code: &str) -> Self {
        Self::Token { token_code: token_code.to_owned(), accessor_code: accessor_code.to_owned() }
    }
}

/// Tokens that are told apart. At two records a minute each, all together write some 30 MB in a day of flood.
const MOST_TOKENS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(code: &str) -> Asker<'_> {
        Asker::Token { token_code: code, accessor_code: "a" }
    }

    fn knocks(flood: &mut Flood, asker: Asker<'_>, count: usize) -> usize {
        (0..count).filter(|_| matches!(flood.knock(asker, BootTime(0), WallTime(0)), Verdict::Write(_))).count()
    }

    #[test]
    fn each_has_a_bucket_of_its_own() {
        let mut flood = Flood::new();
        let alone = knocks(&mut flood, Asker::Stranger, 1000);
        assert!(alone < 100);
        assert_eq!(knocks(&mut flood, token("a"), 1000), alone);
        assert_eq!(knocks(&mut flood, token("b"), 10), 10, "another's flood is no reason to be silent about this one");
        let mut sums = flood.due(None);
        sums.sort_by_key(|s| s.of != SumOf::Strangers);
        let counts: Vec<_> = sums.iter().map(|s| (s.of.clone(), s.counted.count)).collect();
        let left = 1000 - alone as u64;
        assert_eq!(counts, [(SumOf::Strangers, left), (SumOf::token("a", "a"), left)]);
        for sum in sums.clone() {
            flood.restore(sum);
        }
        let mut again = flood.due(None);
        again.sort_by_key(|s| s.of != SumOf::Strangers);
        assert_eq!(again, sums);
    }

    #[test]
    fn many_tokens_share_what_is_left_and_idle_ones_make_room() {
        let mut flood = Flood::new();
        for i in 0..10 * MOST_TOKENS {
            knocks(&mut flood, token(&format!("t{i}")), 100);
        }
        assert_eq!(flood.tokens.len(), MOST_TOKENS, "memory is bounded");
        let counted: u64 = flood.due(None).iter().map(|s| s.counted.count).sum();
        let written = 10 * MOST_TOKENS as u64 * 100 - counted;
        assert!(written <= (MOST_TOKENS as u64 + 1) * 50, "{written}");
        let later = BootTime(24 * 3600 * 1000);
        flood.knock(token("late"), later, WallTime(0));
        assert_eq!(flood.tokens.len(), 1, "whoever is quiet again is forgotten");
    }
}
