//! What the system refused to do, and where.

use std::io;
use std::path::{Path, PathBuf};

/// A verb, a path, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct PathError {
    what: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl PathError {
    /// `what` is a verb that a path can follow: "read", "look at".
    pub fn new(what: &'static str, path: &Path, cause: io::Error) -> Self {
        Self { what, path: path.into(), cause }
    }
}
