//! The certificate that the server shows, and whether it still fits.

use std::fmt;

use rcgen::PublicKeyData;
use secret::SecretBytes;

use crate::LoadError;
use crate::ca::Ca;
use crate::key::Key;
use crate::lint::{self, CaFacts, LintError};
use crate::names::ServerNames;

/// A server's certificate under the device CA, and its key.
#[derive(Debug)]
pub struct ServerCertificate {
    der: Vec<u8>,
    key: Key,
    facts: lint::ServerFacts,
}

impl ServerCertificate {
    /// What the CA has just signed, checked against what was wanted.
    pub(crate) fn issued(der: Vec<u8>, key: Key, wanted: &ServerNames, ca: &CaFacts) -> Result<Self, LintError> {
        let facts = lint::server(&der)?;
        facts.check_issuer(ca)?;
        facts.check_names(wanted)?;
        facts.check_key(key.public().der_bytes())?;
        Ok(Self { der, key, facts })
    }

    /// Takes a stored certificate back into use.
    ///
    /// # Errors
    /// [`LoadError`] if it is no server certificate of ours, or the key is another's.
    pub fn from_parts(der: Vec<u8>, key: SecretBytes) -> Result<Self, LoadError> {
        let key = Key::from_pkcs8(key)?;
        let facts = lint::server(&der)?;
        if facts.check_key(key.public().der_bytes()).is_err() && host::in_force("certificate-fits-key") {
            return Err(LoadError::OtherKey { certificate: Fingerprint::of(&der) });
        }
        Ok(Self { der, key, facts })
    }

    /// Whether it can go on serving under `ca` with exactly `names`; if not, it is to be issued anew.
    ///
    /// # Errors
    /// [`Misfit`] says what differs, with wanted and found.
    pub fn fits(&self, ca: &Ca, names: &ServerNames) -> Result<(), Misfit> {
        if self.facts.check_issuer(ca.facts()).is_err() && host::in_force("certificate-fits-ca") {
            return Err(Misfit::Issuer { wanted: ca.fingerprint() });
        }
        if self.facts.names != *names {
            return Err(Misfit::Names { wanted: names.clone(), found: self.facts.names.clone() });
        }
        Ok(())
    }

    /// The names it is for.
    pub fn names(&self) -> &ServerNames {
        &self.facts.names
    }

    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The private key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }
}

/// Why a certificate that is sound in itself cannot go on serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The configured names changed.
    #[error("the certificate is for {found}, wanted is {wanted}")]
    Names {
        /// What the configuration says.
        wanted: ServerNames,
        /// What the certificate says.
        found: ServerNames,
    },
    /// Another CA signed it.
    #[error("the certificate is not signed by the device CA {wanted}")]
    Issuer {
        /// The device CA.
        wanted: Fingerprint,
    },
}

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of these bytes.
    pub fn of(der: &[u8]) -> Self {
        Self(secret::crypto::sha256(&[der]))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// PEM text of a certificate (RFC 7468, 5).
pub(crate) fn pem(der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string("CERTIFICATE", LineEnding::LF, der).expect("the label is a fixed word and the output grows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use host::OsEntropy;

    #[test]
    fn it_is_issued_anew_only_when_names_or_ca_change() {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let names = |t: &[&str]| ServerNames::parse(t.iter().copied()).unwrap();
        let (old, new) = (names(&["localhost", "::1"]), names(&["localhost", "edge"]));
        let c = ca.issue_server(&old, &OsEntropy).unwrap();
        let stored =
            ServerCertificate::from_parts(c.der().to_vec(), SecretBytes::new(c.key().expose_pkcs8().to_vec())).unwrap();
        assert_eq!(stored.fits(&ca, &old), Ok(()));
        assert_eq!(stored.fits(&ca, &new), Err(Misfit::Names { wanted: new, found: old.clone() }));
        let other = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        assert_eq!(stored.fits(&other, &old), Err(Misfit::Issuer { wanted: other.fingerprint() }));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let names = ServerNames::parse(["localhost"]).unwrap();
        let (a, b) = (ca.issue_server(&names, &OsEntropy).unwrap(), ca.issue_server(&names, &OsEntropy).unwrap());
        let mixed = ServerCertificate::from_parts(a.der().to_vec(), SecretBytes::new(b.key().expose_pkcs8().to_vec()));
        assert!(matches!(mixed, Err(LoadError::OtherKey { certificate }) if certificate == a.fingerprint()));
    }
}
