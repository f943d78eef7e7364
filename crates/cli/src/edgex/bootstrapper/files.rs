//! Writing what a server reads, with words for people.

use std::path::Path;

use delivery::peers::{Unwritable, install};
use host::{OsDisk, Owner};

use crate::failure::{Code, Failure};

/// Puts a file in its place, whole, 0600, for `owner` or whoever owns its directory.
///
/// # Errors
/// What the disk, or the state of the directories, does not allow.
pub(super) fn put(path: &Path, bytes: &[u8], owner: Option<Owner>) -> Result<(), Failure> {
    install(&OsDisk, crate::process::uid(), path, bytes, owner).map_err(|e| {
        let hint = e.hint();
        Failure::of(Code::Fault, &e).hint(hint)
    })
}

/// A credential that the server's grammar cannot hold.
pub(super) fn unwritable(e: Unwritable) -> Failure {
    Failure::of(Code::Refused, &e).hint(e.hint())
}
