//! The path of a request below `/v1/`.

use std::fmt;

/// Longest path that is looked at, in bytes. Vault has no limit of its own; the longest of EdgeX's is under 120.
pub const MAX_PATH_BYTES: usize = 1024;

/// A path below `/v1/` that is safe to route and to match: UTF-8, no leading slash, no empty, `.` or `..` segment, no
/// control characters. A trailing slash is kept, for it means "the folder" in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiPath(String);

impl ApiPath {
    /// Parses an already percent-decoded path. One leading slash is taken off; runs of slashes become one, as in Vault.
    ///
    /// # Errors
    /// [`PathError`] names the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let folder = text.ends_with('/');
        let mut clean = String::with_capacity(text.len());
        for segment in text.split('/').filter(|s| !s.is_empty()) {
            if segment == "." || segment == ".." {
                return Err(PathError::Relative);
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(segment);
        }
        if folder && !clean.is_empty() {
            clean.push('/');
        }
        Ok(Self(clean))
    }

    /// The path as text, without leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it ends in a slash.
    pub fn is_folder(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The same path with a slash at its end, as LIST wants it.
    #[must_use]
    pub fn into_folder(mut self) -> Self {
        if !self.is_folder() && !self.0.is_empty() {
            self.0.push('/');
        }
        self
    }
}

impl fmt::Display for ApiPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Over [`MAX_PATH_BYTES`].
    #[error("the path is longer than 1024 bytes")]
    TooLong,
    /// A control character.
    #[error("the path has a control character")]
    Control,
    /// A segment `.` or `..`.
    #[error("path cannot contain parent references")]
    Relative,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_slashes_and_keeps_the_folder() {
        for (text, clean) in [("/secret//a", "secret/a"), ("secret/a/", "secret/a/"), ("", ""), ("//", "")] {
            assert_eq!(ApiPath::parse(text).unwrap().as_str(), clean);
        }
    }

    #[test]
    fn refuses_what_could_leave_its_place() {
        assert_eq!(ApiPath::parse("secret/../sys"), Err(PathError::Relative));
        assert_eq!(ApiPath::parse("secret/a\n"), Err(PathError::Control));
        assert_eq!(ApiPath::parse(&"a".repeat(1025)), Err(PathError::TooLong));
        assert!(ApiPath::parse("secret/..a/b..").is_ok());
    }
}
