//! Names of EdgeX's programs under which this executable may be called. Those that `edgex` has no face for yet are
//! refused: a program that pretends would leave a device without secrets and without an error.

use std::ffi::OsString;
use std::path::Path;

use crate::failure::Failure;

/// The face that the name of the process asks for.
pub(crate) fn of(argv0: &OsString) -> Option<&'static str> {
    let name = Path::new(argv0).file_name()?.to_str()?;
    FACES.into_iter().find(|face| *face == name)
}

/// Whether the name of the process is that of a hook, which EdgeX runs without arguments.
pub(crate) fn is_hook(argv0: &OsString) -> bool {
    Path::new(argv0).file_name().is_some_and(|name| name == "edgekeep-ikm")
}

pub(crate) fn refuse(face: &str) -> Failure {
    Failure::usage(format!("called as {face}, which is not in this version"))
        .hint("run `edgekeep up --edgex-config DIR`: it does the work of EdgeX's security programs by itself")
}

const FACES: [&str; 7] = [
    "security-secretstore-setup",
    "security-file-token-provider",
    "security-bootstrapper",
    "security-secrets-setup",
    "security-spiffe-token-provider",
    "security-proxy-auth",
    "secrets-config",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edgexs_names_are_refused_and_ours_is_not() {
        assert_eq!(of(&"/usr/bin/security-bootstrapper".into()), Some("security-bootstrapper"));
        assert_eq!(of(&"/usr/bin/edgekeep".into()), None);
        assert_eq!(refuse("security-bootstrapper").code, crate::failure::Code::Usage);
    }
}
