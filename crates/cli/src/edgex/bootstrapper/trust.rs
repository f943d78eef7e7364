//! Whom `waitFor` and `getHttpStatus` trust for https: the authorities of this machine, as Go's programs find them.

use std::io::Read as _;
use std::path::Path;

use client::Trust;
use config::Environment;

use crate::failure::{Code, Failure};

/// The authorities of `SSL_CERT_FILE`, or of the file where the distributions keep them.
///
/// # Errors
/// If there are none: an address whose server cannot be verified is never taken for ready.
pub(super) fn of_this_machine(environment: &Environment) -> Result<Trust, Failure> {
    let named = environment.value("SSL_CERT_FILE").filter(|f| !f.is_empty());
    let places: Vec<&str> = named.map_or_else(|| USUAL.to_vec(), |file| vec![file]);
    let found = places.iter().find_map(|file| Some((file, read(Path::new(file)).ok()?)));
    let Some((file, pem)) = found else {
        return Err(Failure::new(Code::Usage, format!("no certificate authorities at {}", places.join(", ")))
            .hint("name their PEM file in SSL_CERT_FILE: https is never asked without verifying who answers"));
    };
    let trust = Trust::of_pem(&pem)
        .map_err(|e| Failure::of(Code::Usage, &e).hint(format!("put the PEM text of the authorities into {file}")))?;
    // Whoever is asked is not ours, and may have no better.
    Ok(trust.allow_tls12())
}

/// Public, and mostly a link.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(2 * 1024 * 1024).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Debian and Alpine; Fedora; OpenSUSE; what OpenSSL was built with.
const USUAL: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_cannot_be_read_are_no_reason_to_trust_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let refused = || {
            let environment = Environment::of([("SSL_CERT_FILE", file.to_str().unwrap())]);
            of_this_machine(&environment).err().unwrap()
        };
        assert!(refused().fact.contains("no certificate authorities"));
        host::Disk::write_new(&host::OsDisk, &file, b"junk", 0o644, None).unwrap();
        assert_eq!(refused().fact, "the CA file holds no certificate");
    }
}
