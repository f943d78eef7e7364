//! What a hook that counts its releases says of them, without spending one.
//!
//! ```text
//! EDGEKEEP_IKM_ASK=status  ->  edgekeep-ikm 1 counted 2 of 3      two of this boot's three releases are left
//!                              edgekeep-ikm 1 uncounted           it gives its key as often as it is run
//!                              64acd828...                        it knows nothing of the question
//! ```
//! A hook has no arguments and one kind of output, so the question is a variable of its environment, which a script
//! hands on to what it runs. A line of hexadecimal digits tells a hook that does not know it; that was then a run as
//! any other.

use std::num::NonZeroU8;

/// The variable that asks, and its value.
pub const HOOK_QUESTION: (&str, &str) = ("EDGEKEEP_IKM_ASK", "status");

/// How often a hook still gives its key in this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookStatus {
    /// As often as it is run.
    Uncounted,
    /// So many times.
    Counted {
        /// More, at most `limit`.
        left: u8,
        /// In a boot.
        limit: NonZeroU8,
    },
}

impl HookStatus {
    /// As a hook prints it, with its line feed.
    pub fn to_line(self) -> String {
        match self {
            Self::Uncounted => format!("{HEAD}uncounted\n"),
            Self::Counted { left, limit } => format!("{HEAD}counted {left} of {limit}\n"),
        }
    }

    /// What a hook has printed; `None` for anything else. It has one form.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.strip_prefix(HEAD)?.strip_suffix('\n')?;
        let status = match text.strip_prefix("counted ") {
            None => Self::Uncounted,
            Some(numbers) => {
                let (left, limit) = numbers.split_once(" of ")?;
                Self::Counted { left: left.parse().ok()?, limit: limit.parse().ok()? }
            }
        };
        let possible = match status {
            Self::Uncounted => true,
            Self::Counted { left, limit } => left <= limit.get(),
        };
        (possible && status.to_line().as_bytes() == line).then_some(status)
    }
}

/// The version of the line, and what no hook's key begins with.
const HEAD: &str = "edgekeep-ikm 1 ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(left: u8, limit: u8) -> HookStatus {
        HookStatus::Counted { left, limit: NonZeroU8::new(limit).unwrap() }
    }

    #[test]
    fn a_line_for_each_state() {
        assert_eq!(HookStatus::Uncounted.to_line(), "edgekeep-ikm 1 uncounted\n");
        assert_eq!(counted(2, 3).to_line(), "edgekeep-ikm 1 counted 2 of 3\n");
        for status in [HookStatus::Uncounted, counted(0, 1), counted(8, 8), counted(255, 255)] {
            assert_eq!(HookStatus::parse(status.to_line().as_bytes()), Some(status));
        }
    }

    #[test]
    fn lines_that_are_no_status() {
        for line in [
            "",
            "00\n",
            "edgekeep-ikm 1 uncounted",
            "edgekeep-ikm 1 uncounted\n\n",
            "edgekeep-ikm 2 uncounted\n",
            "edgekeep-ikm 1 counted 3 of 2\n",
            "edgekeep-ikm 1 counted 0 of 0\n",
            "edgekeep-ikm 1 counted +1 of 2\n",
            "edgekeep-ikm 1 counted 01 of 2\n",
            "edgekeep-ikm 1 counted 1 of 256\n",
            "edgekeep-ikm 1 counted 1\n",
        ] {
            assert_eq!(HookStatus::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_status_or_none(junk: Vec<u8>, at in 0..30_usize, byte: u8) {
            let _ = HookStatus::parse(&junk);
            let mut near = counted(1, 2).to_line().into_bytes();
            let at = at % near.len();
            near[at] = byte;
            if let Some(status) = HookStatus::parse(&near) {
                prop_assert_eq!(status.to_line().into_bytes(), near);
            }
        }
    }
}
