//! The device's own certification authority.

use std::net::IpAddr;

use host::Entropy;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
    date_time_ymd,
};
use secret::SecretBytes;

use crate::certificate::{Fingerprint, ServerCertificate, pem};
use crate::key::Key;
use crate::lint;
use crate::names::{ServerName, ServerNames};
use crate::{IssueError, LoadError};

/// What a CA may vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any name: a device whose names change keeps its CA, and with it every pin.
    Any,
    /// These names (and what lies below a DNS name), written into the certificate as critical name constraints (RFC
    /// 5280, 4.2.1.10): a stolen CA key cannot then speak for anybody else where an operator trusts it more widely.
    /// OpenSSL, Go, webpki and browsers honour them; a few embedded clients reject any critical extension that they do
    /// not know, so this is a choice and not the default.
    Only(ServerNames),
}

/// The device CA: certificate and key, from 1970 to 9999, path length 0.
#[derive(Debug)]
pub struct Ca {
    der: Vec<u8>,
    key: Key,
    subject: lint::CaFacts,
}

impl Ca {
    /// Makes the CA of a device: once, at its first boot.
    ///
    /// # Errors
    /// [`IssueError`] if the library fails, or if what it made does not pass our own reading of it.
    pub fn create(scope: &Scope, entropy: &dyn Entropy) -> Result<Self, IssueError> {
        let key = Key::generate()?;
        let mut params = lifelong(entropy)?;
        params.distinguished_name = ca_name(&key);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = match scope {
            Scope::Only(names) if host::in_force("ca-name-constraints") => Some(constraints(names)),
            _ => None,
        };
        let made = key.with_pair(|pair| params.self_signed(pair))?.map_err(IssueError::Encode)?;
        let der = made.der().to_vec();
        let subject = lint::ca(&der)?;
        Ok(Self { der, key, subject })
    }

    /// Takes a stored CA back into use.
    ///
    /// # Errors
    /// [`LoadError`] if it is no CA of ours, or the key is another's.
    pub fn from_parts(der: Vec<u8>, key: SecretBytes) -> Result<Self, LoadError> {
        let key = Key::from_pkcs8(key)?;
        let subject = lint::ca(&der)?;
        if subject.public_key != key.public().der_bytes() {
            return Err(LoadError::OtherKey { certificate: Fingerprint::of(&der) });
        }
        Ok(Self { der, key, subject })
    }

    /// A certificate for a server with these names, with a key of its own.
    ///
    /// # Errors
    /// [`IssueError::OutOfScope`] for a name that the CA was not made for; otherwise as [`Ca::create`].
    pub fn issue_server(&self, names: &ServerNames, entropy: &dyn Entropy) -> Result<ServerCertificate, IssueError> {
        if let Some(scope) = &self.subject.scope
            && let Some(name) = names.iter().find(|n| !in_scope(scope, n))
        {
            return Err(IssueError::OutOfScope { name: name.clone(), scope: scope.clone() });
        }
        let key = Key::generate()?;
        let mut params = lifelong(entropy)?;
        params.distinguished_name = server_name(names);
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                Ok(match name {
                    ServerName::Dns(text) => SanType::DnsName(text.as_str().try_into()?),
                    ServerName::Ip(ip) => SanType::IpAddress(*ip),
                })
            })
            .collect::<Result<_, rcgen::Error>>()
            .map_err(IssueError::Encode)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = ca_name(&self.key);
        issuer.key_identifier_method = KeyIdMethod::PreSpecified(self.subject.key_id.clone());
        let made = self
            .key
            .with_pair(|pair| params.signed_by(key.public(), &Issuer::from_params(&issuer, pair)))?
            .map_err(IssueError::Encode)?;
        ServerCertificate::issued(made.der().to_vec(), key, names, &self.subject).map_err(IssueError::Unfit)
    }

    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as PEM (RFC 7468), as clients pin it: `ca.pem`.
    pub fn pem(&self) -> String {
        pem(&self.der)
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The private key, for the barrier that stores it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The names it may vouch for; `None` is any.
    pub fn scope(&self) -> Option<&ServerNames> {
        self.subject.scope.as_ref()
    }

    pub(crate) fn facts(&self) -> &lint::CaFacts {
        &self.subject
    }
}

/// A name that no other device's CA has, for trust stores tell CAs apart by name first.
fn ca_name(key: &Key) -> DistinguishedName {
    let id: String = lint::key_id(key.public())[..8].iter().map(|b| format!("{b:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "edgekeep");
    name.push(DnType::CommonName, format!("edgekeep device CA {id}"));
    name
}

/// The common name repeats one of the alternative names, or is left out where none fits its 64 characters (RFC 5280,
/// appendix A.1): a client that still matches it must find nothing new in it.
fn server_name(names: &ServerNames) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "edgekeep");
    if let Some(common) = names.iter().map(ToString::to_string).find(|n| n.len() <= 64) {
        name.push(DnType::CommonName, common);
    }
    name
}

/// 1970-01-01 to 9999-12-31 23:59:59, the value for "no well-defined expiration" (RFC 5280, 4.1.2.5), and a serial
/// number of 128 bits with a fixed sign and length.
fn lifelong(entropy: &dyn Entropy) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(if host::in_force("certificates-without-dates") { 1970 } else { 2026 }, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31)
        .replace_hour(23)
        .and_then(|t| t.replace_minute(59))
        .and_then(|t| t.replace_second(59))
        .expect("23:59:59 is a time of day");
    let mut serial = [0u8; 16];
    entropy.fill(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

/// A kind of name that is not permitted at all must be excluded as a whole: a constraint speaks only of its own kind.
fn constraints(names: &ServerNames) -> NameConstraints {
    let mut permitted_subtrees = Vec::new();
    let mut excluded_subtrees = Vec::new();
    let mut kinds = (false, false);
    for name in names.iter() {
        permitted_subtrees.push(match name {
            ServerName::Dns(text) => {
                kinds.0 = true;
                GeneralSubtree::DnsName(text.clone())
            }
            ServerName::Ip(ip) => {
                kinds.1 = true;
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*ip, if ip.is_ipv4() { 32 } else { 128 }))
            }
        });
    }
    if !kinds.0 {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    if !kinds.1 {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::from([0; 4]), 0)));
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::from([0u16; 8]), 0)));
    }
    NameConstraints { permitted_subtrees, excluded_subtrees }
}

fn in_scope(scope: &ServerNames, name: &ServerName) -> bool {
    scope.iter().any(|permitted| match (permitted, name) {
        (ServerName::Dns(above), ServerName::Dns(name)) => {
            name.strip_suffix(above.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
        (permitted, name) => permitted == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsEntropy;

    fn names(texts: &[&str]) -> ServerNames {
        ServerNames::parse(texts.iter().copied()).unwrap()
    }

    #[test]
    fn a_stored_ca_goes_on_issuing() {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let again = Ca::from_parts(ca.der().to_vec(), SecretBytes::new(ca.key().expose_pkcs8().to_vec())).unwrap();
        let wanted = names(&["localhost", "127.0.0.1"]);
        let certificate = again.issue_server(&wanted, &OsEntropy).unwrap();
        assert!(certificate.fits(&ca, &wanted).is_ok());
        assert_eq!(ca.fingerprint(), again.fingerprint());
    }

    #[test]
    fn another_devices_key_is_refused() {
        let (a, b) = (Ca::create(&Scope::Any, &OsEntropy).unwrap(), Ca::create(&Scope::Any, &OsEntropy).unwrap());
        let mixed = Ca::from_parts(a.der().to_vec(), SecretBytes::new(b.key().expose_pkcs8().to_vec()));
        assert!(matches!(mixed, Err(LoadError::OtherKey { .. })));
    }

    #[test]
    fn a_server_certificate_is_no_ca() {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        let leaf = ca.issue_server(&names(&["localhost"]), &OsEntropy).unwrap();
        let taken = Ca::from_parts(leaf.der().to_vec(), SecretBytes::new(leaf.key().expose_pkcs8().to_vec()));
        assert!(matches!(taken, Err(LoadError::Unfit(_))));
    }

    #[test]
    fn a_ca_made_for_some_names_vouches_for_no_other() {
        let ca = Ca::create(&Scope::Only(names(&["edge.local", "10.0.0.1"])), &OsEntropy).unwrap();
        for good in ["edge.local", "a.edge.local", "10.0.0.1"] {
            assert!(ca.issue_server(&names(&[good]), &OsEntropy).is_ok(), "{good}");
        }
        for bad in ["local", "xedge.local", "10.0.0.2", "::1", "edge.local.org"] {
            assert!(
                matches!(ca.issue_server(&names(&["edge.local", bad]), &OsEntropy), Err(IssueError::OutOfScope { .. })),
                "{bad}"
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
        #[test]
        fn a_changed_byte_never_panics_the_reader(at in 0usize..700, to: u8) {
            let ca = Ca::create(&Scope::Only(names(&["a.b", "::1"])), &OsEntropy).unwrap();
            let mut der = ca.der().to_vec();
            let at = at % der.len();
            der[at] = to;
            let _ = Ca::from_parts(der, SecretBytes::new(ca.key().expose_pkcs8().to_vec()));
        }
    }
}
