//! What a certificate says of its holder.

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::{CN, OU};
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_CLIENT_AUTH};
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, SubjectAltName, SubjectKeyIdentifier,
};

/// The texts of one certificate. Nobody has vouched for any of them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// The common name of the subject, of which there is at most one.
    pub common_name: Option<String>,
    /// Organisational units of the subject.
    pub units: Vec<String>,
    /// DNS names among the alternative names.
    pub dns: Vec<String>,
    /// E-mail addresses among the alternative names.
    pub emails: Vec<String>,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    /// The serial number as a decimal number, as Vault writes it.
    pub serial: String,
    /// The identifier of the subject's key; empty where there is none.
    pub subject_key_id: Vec<u8>,
    /// The identifier of the issuer's key; empty where there is none.
    pub authority_key_id: Vec<u8>,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
    /// Whether a TLS client may show it: no purposes are named, or this one is.
    pub is_for_clients: bool,
    /// First and last second that it is good for, since 1970.
    pub validity: (u64, u64),
}

impl PeerFacts {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// [`PeerError`]; a field that is there and cannot be read is never taken for absent.
    pub fn parse(der: &[u8]) -> Result<Self, PeerError> {
        if der.len() > MAX_PEER_BYTES {
            return Err(PeerError::TooLarge { bytes: der.len() });
        }
        let certificate = Certificate::from_der(der).map_err(|_| PeerError::Encoding)?;
        let tbs = certificate.tbs_certificate();
        let mut names = subject(&certificate, CN)?;
        let common_name = names.pop();
        if !names.is_empty() {
            // Readers differ in which of two they take, so that one name could pass a check and another be let in.
            return Err(PeerError::TwoNames);
        }
        let (mut dns, mut emails, mut uris) = (Vec::new(), Vec::new(), Vec::new());
        for name in extension::<SubjectAltName>(&certificate)?.map(|names| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(text) => dns.push(text.as_str().to_owned()),
                GeneralName::Rfc822Name(text) => emails.push(text.as_str().to_owned()),
                GeneralName::UniformResourceIdentifier(text) => uris.push(text.as_str().to_owned()),
                _ => {}
            }
        }
        let purposes = extension::<ExtendedKeyUsage>(&certificate)?;
        let authority = extension::<AuthorityKeyIdentifier>(&certificate)?.and_then(|a| a.key_identifier);
        let subject_key = extension::<SubjectKeyIdentifier>(&certificate)?;
        let validity = tbs.validity();
        Ok(Self {
            common_name,
            units: subject(&certificate, OU)?,
            dns,
            emails,
            uris,
            serial: decimal(tbs.serial_number().as_bytes()),
            subject_key_id: subject_key.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default(),
            authority_key_id: authority.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
            is_ca: extension::<BasicConstraints>(&certificate)?.is_some_and(|basic| basic.ca),
            is_for_clients: purposes
                .is_none_or(|p| p.0.iter().any(|oid| *oid == ID_KP_CLIENT_AUTH || *oid == ANY_EXTENDED_KEY_USAGE)),
            validity: (
                validity.not_before.to_unix_duration().as_secs(),
                validity.not_after.to_unix_duration().as_secs(),
            ),
        })
    }
}

/// A certificate of a caller cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody's certificate is as large.
    #[error("the certificate has {bytes} bytes; at most {MAX_PEER_BYTES} are read")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// It is no certificate, or a field of it is not what it should be.
    #[error("the certificate cannot be read")]
    Encoding,
    /// More than one common name.
    #[error("the certificate has more than one common name")]
    TwoNames,
}

fn subject(certificate: &Certificate, oid: ObjectIdentifier) -> Result<Vec<String>, PeerError> {
    let of_kind = certificate.tbs_certificate().subject().iter().filter(|attribute| attribute.oid == oid);
    let text = of_kind.map(|a| a.value.decode_as::<DirectoryString>().map(|text| text.value().into_owned()));
    text.collect::<Result<_, _>>().map_err(|_| PeerError::Encoding)
}

fn extension<'a, T>(certificate: &'a Certificate) -> Result<Option<T>, PeerError>
where
    T: Decode<'a, Error = x509_cert::der::Error> + x509_cert::der::oid::AssociatedOid,
{
    let found = certificate.tbs_certificate().get_extension::<T>().map_err(|_| PeerError::Encoding)?;
    Ok(found.map(|(_, value)| value))
}

/// A big-endian number in decimal digits. Serial numbers have 20 octets at most (RFC 5280, 4.1.2.2); what is longer is
/// bounded by the certificate.
pub(super) fn decimal(octets: &[u8]) -> String {
    // Digits, the lowest first.
    let mut digits = vec![0u8];
    for octet in octets {
        let mut carry = u32::from(*octet);
        for digit in &mut digits {
            carry += u32::from(*digit) * 256;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

/// Of one certificate: a device's has 500 to 2000.
pub const MAX_PEER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(["device-07.site".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "device-07");
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn every_name_is_read() {
        let der = certificate(|p| {
            p.distinguished_name.push(DnType::OrganizationalUnitName, "pumps");
            p.subject_alt_names.push(SanType::URI("spiffe://site/device-07".try_into().unwrap()));
            p.subject_alt_names.push(SanType::Rfc822Name("d7@site.example".try_into().unwrap()));
            p.serial_number = Some(vec![1, 0, 0].into());
            p.not_before = rcgen::date_time_ymd(1970, 1, 2);
            p.not_after = rcgen::date_time_ymd(1970, 1, 3);
        });
        let facts = PeerFacts::parse(&der).unwrap();
        assert_eq!((facts.common_name.as_deref(), &*facts.serial), (Some("device-07"), "65536"));
        assert_eq!((&*facts.units, &*facts.dns), (&["pumps".to_owned()][..], &["device-07.site".to_owned()][..]));
        assert_eq!(facts.uris, ["spiffe://site/device-07"]);
        assert_eq!(facts.emails, ["d7@site.example"]);
        assert_eq!(facts.validity, (86_400, 2 * 86_400));
        assert!(!facts.is_ca && facts.is_for_clients);
    }

    #[test]
    fn a_purpose_that_is_named_excludes_others() {
        use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        for (purposes, clients) in [
            (vec![ClientAuth], true),
            (vec![Any], true),
            (vec![ServerAuth], false),
            (vec![ServerAuth, ClientAuth], true),
        ] {
            let der = certificate(|p| p.extended_key_usages = purposes);
            assert_eq!(PeerFacts::parse(&der).unwrap().is_for_clients, clients);
        }
    }

    #[test]
    fn a_serial_number_is_written_as_vault_writes_it() {
        assert_eq!(decimal(&[]), "0");
        assert_eq!(decimal(&[0, 255]), "255");
        let octets = hex("46a3427de376188acade0e904e566a12e3f01674");
        assert_eq!(decimal(&octets), "403270167673544563408561353332365855293673838196", "as OpenBao gave it");
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_is_too_large_is_not_looked_at() {
        let der = vec![0x30; MAX_PEER_BYTES + 1];
        assert_eq!(PeerFacts::parse(&der), Err(PeerError::TooLarge { bytes: MAX_PEER_BYTES + 1 }));
    }

    proptest! {
        /// Any damage gives facts or an error, and never ends the process.
        #[test]
        fn reading_is_total(at in 0usize..600, with in any::<u8>(), cut in 0usize..600) {
            let mut der = certificate(|_| {});
            let at = at % der.len();
            der[at] = with;
            _ = PeerFacts::parse(&der);
            der.truncate(cut);
            _ = PeerFacts::parse(&der);
        }
    }
}
