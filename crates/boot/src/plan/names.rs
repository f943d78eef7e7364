//! Names that become parts of paths, policies and users: a narrow alphabet, so that nothing ever needs quoting.

use std::fmt;
use std::str::FromStr;

/// Longest name in bytes.
pub const MAX_NAME_BYTES: usize = 64;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A service: 1 to 64 of `[A-Za-z0-9_.-]`, beginning with a letter or digit, without `..`.
    ///
    /// It is a directory below the run directory, a segment of `secret/edgex/<service>/`, a userpass user and an OIDC
    /// role.
    ServiceName
}
name! {
    /// A gate, by the same rules.
    GateName
}

fn check(text: &str) -> Result<(), NameError> {
    let shown = || text.chars().take(MAX_NAME_BYTES).flat_map(char::escape_default).collect::<String>();
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    if !host::in_force("names-are-names") {
        return Ok(());
    }
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
        return Err(NameError::Character { name: shown(), character: c.escape_default().to_string() });
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(NameError::Start { name: shown() });
    }
    if text.contains("..") {
        return Err(NameError::DotDot { name: shown() });
    }
    Ok(())
}

/// Why a name is refused. The text that is shown is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("an empty name")]
    Empty,
    /// Over [`MAX_NAME_BYTES`].
    #[error("a name of {bytes} bytes; 64 are the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not of the alphabet.
    #[error("{name:?} has the character '{character}'; allowed are letters, digits, '_', '.' and '-'")]
    Character {
        /// The name, escaped.
        name: String,
        /// The first that does not fit, escaped.
        character: String,
    },
    /// `.`, `_` or `-` in front.
    #[error("{name:?} does not begin with a letter or a digit")]
    Start {
        /// The name.
        name: String,
    },
    /// `..` within.
    #[error("{name:?} contains '..'")]
    DotDot {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edgex_names_are_names() {
        for name in ["core-data", "device-virtual", "app_rules.engine-2", "0x", "a"] {
            assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
        }
        assert!("x".repeat(64).parse::<ServiceName>().is_ok());
    }

    #[test]
    fn what_could_leave_its_place_is_no_name() {
        for name in ["", ".", "..", "a..b", "../a", "a/b", "-a", "_a", "a b", "a\n", "a\0", "caf\u{e9}", "a;b", "{{x}}"]
        {
            assert!(name.parse::<ServiceName>().is_err(), "{name:?}");
        }
        assert_eq!("x".repeat(65).parse::<ServiceName>(), Err(NameError::TooLong { bytes: 65 }));
    }

    #[test]
    fn a_refusal_shows_control_characters_escaped() {
        let text = "a\u{1b}[2Jb".parse::<ServiceName>().unwrap_err().to_string();
        assert!(text.chars().all(|c| !c.is_control()), "{text}");
    }
}
