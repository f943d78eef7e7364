//! Reading a certificate back with a parser that had no part in making it, and holding it to our rules.

use std::net::IpAddr;

use rcgen::PublicKeyData;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::der::oid::db::rfc5912::{ECDSA_WITH_SHA_256, ID_EC_PUBLIC_KEY, SECP_256_R_1};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, NameConstraints, SubjectAltName,
    SubjectKeyIdentifier,
};

use crate::certificate::Fingerprint;
use crate::names::{ServerName, ServerNames};

/// What later steps need to know of a CA certificate that passed.
#[derive(Clone, Debug)]
pub(crate) struct CaFacts {
    pub(crate) subject: Vec<u8>,
    pub(crate) key_id: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) scope: Option<ServerNames>,
}

/// What later steps need to know of a server certificate that passed.
#[derive(Clone, Debug)]
pub(crate) struct ServerFacts {
    pub(crate) names: ServerNames,
    issuer: Vec<u8>,
    authority: Vec<u8>,
    public_key: Vec<u8>,
    certificate: Fingerprint,
}

impl ServerFacts {
    pub(crate) fn check_issuer(&self, ca: &CaFacts) -> Result<(), LintError> {
        let ours = self.issuer == ca.subject && self.authority == ca.key_id;
        if ours { Ok(()) } else { Err(self.defect(Defect::Issuer)) }
    }

    pub(crate) fn check_names(&self, wanted: &ServerNames) -> Result<(), LintError> {
        if self.names == *wanted { Ok(()) } else { Err(self.defect(Defect::AlternativeNames)) }
    }

    pub(crate) fn check_key(&self, public_key: &[u8]) -> Result<(), LintError> {
        if self.public_key == public_key { Ok(()) } else { Err(self.defect(Defect::PublicKey)) }
    }

    fn defect(&self, defect: Defect) -> LintError {
        LintError { certificate: self.certificate, defect }
    }
}

/// Checks a device CA.
pub(crate) fn ca(der: &[u8]) -> Result<CaFacts, LintError> {
    read_ca(der).map_err(|defect| LintError { certificate: Fingerprint::of(der), defect })
}

/// Checks a server certificate.
pub(crate) fn server(der: &[u8]) -> Result<ServerFacts, LintError> {
    read_server(der).map_err(|defect| LintError { certificate: Fingerprint::of(der), defect })
}

/// RFC 7093, method 1: the leftmost 160 bits of SHA-256 of the public key; of the whole key information here, as rcgen
/// does.
pub(crate) fn key_id(key: &impl PublicKeyData) -> [u8; 20] {
    let hash = secret::crypto::sha256(&[&key.subject_public_key_info()]);
    let mut id = [0; 20];
    id.copy_from_slice(&hash[..20]);
    id
}

fn read_ca(der: &[u8]) -> Result<CaFacts, Defect> {
    let certificate = common(der)?;
    let tbs = certificate.tbs_certificate();
    let subject = tbs.subject().to_der().map_err(|_| Defect::Encoding)?;
    if tbs.issuer() != tbs.subject() {
        return Err(Defect::Issuer);
    }
    let (critical, basic) = extension::<BasicConstraints>(&certificate)?.ok_or(Defect::BasicConstraints)?;
    if !critical || !basic.ca || basic.path_len_constraint != Some(0) {
        return Err(Defect::BasicConstraints);
    }
    usage(&certificate, KeyUsages::KeyCertSign | KeyUsages::CRLSign)?;
    if extension::<SubjectAltName>(&certificate)?.is_some() {
        return Err(Defect::AlternativeNames);
    }
    let (_, key_id) = extension::<SubjectKeyIdentifier>(&certificate)?.ok_or(Defect::KeyIdentifier)?;
    let scope = match extension::<NameConstraints>(&certificate)? {
        None => None,
        Some((false, _)) => return Err(Defect::NameConstraints),
        Some((true, constraints)) => Some(permitted(&constraints)?),
    };
    Ok(CaFacts { subject, key_id: key_id.0.as_bytes().to_vec(), public_key: point(&certificate)?, scope })
}

fn read_server(der: &[u8]) -> Result<ServerFacts, Defect> {
    let certificate = common(der)?;
    let tbs = certificate.tbs_certificate();
    let issuer = tbs.issuer().to_der().map_err(|_| Defect::Encoding)?;
    let (critical, basic) = extension::<BasicConstraints>(&certificate)?.ok_or(Defect::BasicConstraints)?;
    if !critical || basic.ca || basic.path_len_constraint.is_some() {
        return Err(Defect::BasicConstraints);
    }
    usage(&certificate, KeyUsages::DigitalSignature.into())?;
    let (_, purposes) = extension::<ExtendedKeyUsage>(&certificate)?.ok_or(Defect::ExtendedKeyUsage)?;
    if purposes.0 != [ID_KP_SERVER_AUTH] {
        return Err(Defect::ExtendedKeyUsage);
    }
    let (_, alternatives) = extension::<SubjectAltName>(&certificate)?.ok_or(Defect::AlternativeNames)?;
    let names = alternatives.0.iter().map(alternative).collect::<Option<Vec<_>>>().ok_or(Defect::AlternativeNames)?;
    let count = names.len();
    let names = ServerNames::new(names).map_err(|_| Defect::AlternativeNames)?;
    if names.iter().count() != count {
        return Err(Defect::AlternativeNames);
    }
    if let Some(common) = tbs.subject().common_name().map_err(|_| Defect::CommonName)? {
        let common: ServerName = common.value().parse().map_err(|_| Defect::CommonName)?;
        if !names.contains(&common) {
            return Err(Defect::CommonName);
        }
    }
    let (_, authority) = extension::<AuthorityKeyIdentifier>(&certificate)?.ok_or(Defect::KeyIdentifier)?;
    let authority = authority.key_identifier.ok_or(Defect::KeyIdentifier)?.as_bytes().to_vec();
    Ok(ServerFacts { names, issuer, authority, public_key: point(&certificate)?, certificate: Fingerprint::of(der) })
}

/// What holds for both: version 3, a serial of 128 bits, our validity, our algorithms, no extension twice.
fn common(der: &[u8]) -> Result<Certificate, Defect> {
    if der.len() > MAX_DER_BYTES {
        return Err(Defect::Encoding);
    }
    let certificate = Certificate::from_der(der).map_err(|_| Defect::Encoding)?;
    let tbs = certificate.tbs_certificate();
    if tbs.version() != Version::V3 {
        return Err(Defect::Version);
    }
    let serial = tbs.serial_number().as_bytes();
    if serial.len() != 16 || serial[0] & 0x80 != 0 {
        return Err(Defect::Serial);
    }
    let validity = tbs.validity();
    let (from, to) =
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs());
    if (from, to) != (0, END_OF_9999) && host::in_force("certificates-without-dates") {
        return Err(Defect::Validity);
    }
    let signature = certificate.signature_algorithm();
    if signature.oid != ECDSA_WITH_SHA_256 || tbs.signature() != signature {
        return Err(Defect::Algorithm);
    }
    let mut seen: Vec<_> = tbs.extensions().into_iter().flatten().map(|e| e.extn_id).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != count {
        return Err(Defect::Encoding);
    }
    Ok(certificate)
}

fn extension<'a, T>(certificate: &'a Certificate) -> Result<Option<(bool, T)>, Defect>
where
    T: Decode<'a, Error = x509_cert::der::Error> + x509_cert::der::oid::AssociatedOid,
{
    certificate.tbs_certificate().get_extension::<T>().map_err(|_| Defect::Encoding)
}

fn usage(certificate: &Certificate, wanted: x509_cert::der::flagset::FlagSet<KeyUsages>) -> Result<(), Defect> {
    match extension::<KeyUsage>(certificate)? {
        Some((true, found)) if found.0 == wanted => Ok(()),
        _ => Err(Defect::KeyUsage),
    }
}

fn point(certificate: &Certificate) -> Result<Vec<u8>, Defect> {
    let spki = certificate.tbs_certificate().subject_public_key_info();
    let curve: ObjectIdentifier =
        spki.algorithm.parameters.as_ref().ok_or(Defect::PublicKey)?.decode_as().map_err(|_| Defect::PublicKey)?;
    let bits = spki.subject_public_key.as_bytes().ok_or(Defect::PublicKey)?;
    if spki.algorithm.oid != ID_EC_PUBLIC_KEY || curve != SECP_256_R_1 || bits.len() != 65 {
        return Err(Defect::PublicKey);
    }
    Ok(bits.to_vec())
}

fn alternative(name: &GeneralName) -> Option<ServerName> {
    match name {
        GeneralName::DnsName(text) => text.as_str().parse().ok().filter(|n| matches!(n, ServerName::Dns(_))),
        GeneralName::IpAddress(octets) => Some(ServerName::Ip(address(octets.as_bytes())?)),
        _ => None,
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The permitted names; an address stands there with its full mask (RFC 5280, 4.2.1.10).
fn permitted(constraints: &NameConstraints) -> Result<ServerNames, Defect> {
    let trees = constraints.permitted_subtrees.as_ref().ok_or(Defect::NameConstraints)?;
    let names = trees
        .iter()
        .map(|tree| match &tree.base {
            GeneralName::IpAddress(octets) => {
                let (ip, mask) = octets.as_bytes().split_at(octets.as_bytes().len() / 2);
                mask.iter().all(|b| *b == 0xff).then(|| address(ip).map(ServerName::Ip)).flatten()
            }
            other => alternative(other),
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(Defect::NameConstraints)?;
    ServerNames::new(names).map_err(|_| Defect::NameConstraints)
}

/// A certificate breaks one of our rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate {certificate}: {defect}")]
pub struct LintError {
    /// SHA-256 of the bytes.
    pub certificate: Fingerprint,
    /// The rule.
    pub defect: Defect,
}

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Not DER of a certificate, or over 16 KiB, or an extension twice.
    #[error("not the DER of one certificate")]
    Encoding,
    /// Not version 3.
    #[error("the version is not 3")]
    Version,
    /// Not 16 octets, or negative.
    #[error("the serial number is not a positive number of 16 octets")]
    Serial,
    /// Not 1970 to 9999.
    #[error("the validity is not 1970-01-01 to 9999-12-31")]
    Validity,
    /// Not ECDSA with SHA-256 throughout.
    #[error("the signature algorithm is not ECDSA with SHA-256")]
    Algorithm,
    /// Not the key that belongs here, or not on P-256.
    #[error("the public key is not the one that belongs to it on P-256")]
    PublicKey,
    /// Not the issuer it should have.
    #[error("the issuer is not the device CA")]
    Issuer,
    /// Missing, or a CA where none should be, or none where one should.
    #[error("the basic constraints are not those of its role")]
    BasicConstraints,
    /// Not exactly the usages of its role.
    #[error("the key usage is not that of its role")]
    KeyUsage,
    /// Not exactly server authentication.
    #[error("the extended key usage is not server authentication alone")]
    ExtendedKeyUsage,
    /// Not exactly the wanted names.
    #[error("the alternative names are not those that were wanted")]
    AlternativeNames,
    /// A common name that is none of the alternative names.
    #[error("the common name is none of the alternative names")]
    CommonName,
    /// A key identifier is missing.
    #[error("a key identifier is missing")]
    KeyIdentifier,
    /// Not critical, or not to be read.
    #[error("the name constraints are not critical, or not names and addresses")]
    NameConstraints,
}

/// 9999-12-31T23:59:59Z in seconds since 1970.
const END_OF_9999: u64 = 253_402_300_799;

/// 64 names of 253 characters come to 16 KiB; certificates of ours have 600 bytes.
const MAX_DER_BYTES: usize = 20 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SerialNumber};

    /// A self-signed certificate that differs from a good server certificate in what `change` does.
    fn with(change: impl FnOnce(&mut CertificateParams)) -> Result<ServerFacts, LintError> {
        let key = Key::generate().unwrap();
        let mut p = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        p.distinguished_name = rcgen::DistinguishedName::new();
        p.distinguished_name.push(DnType::CommonName, "localhost");
        p.not_before = rcgen::date_time_ymd(1970, 1, 1);
        p.not_after = rcgen::date_time_ymd(9999, 12, 31).replace_hour(23).unwrap();
        p.not_after = p.not_after.replace_minute(59).unwrap().replace_second(59).unwrap();
        p.serial_number = Some(SerialNumber::from_slice(&[0x41; 16]));
        p.is_ca = IsCa::ExplicitNoCa;
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        p.use_authority_key_identifier_extension = true;
        change(&mut p);
        server(key.with_pair(|pair| p.self_signed(pair)).unwrap().unwrap().der())
    }

    fn defect(change: impl FnOnce(&mut CertificateParams)) -> Option<Defect> {
        with(change).err().map(|e| e.defect)
    }

    #[test]
    fn a_good_certificate_passes() {
        assert_eq!(with(|_| ()).unwrap().names.to_string(), "localhost");
    }

    #[test]
    fn every_slip_has_its_name() {
        use Defect as D;
        assert_eq!(defect(|p| p.serial_number = Some(SerialNumber::from_slice(&[7]))), Some(D::Serial));
        assert_eq!(defect(|p| p.not_before = rcgen::date_time_ymd(2026, 1, 1)), Some(D::Validity));
        assert_eq!(defect(|p| p.not_after = rcgen::date_time_ymd(2050, 1, 1)), Some(D::Validity));
        assert_eq!(defect(|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)), Some(D::BasicConstraints));
        assert_eq!(defect(|p| p.is_ca = IsCa::NoCa), Some(D::BasicConstraints));
        assert_eq!(defect(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), Some(D::KeyUsage));
        assert_eq!(defect(|p| p.key_usages.clear()), Some(D::KeyUsage));
        assert_eq!(
            defect(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth)),
            Some(D::ExtendedKeyUsage)
        );
        assert_eq!(defect(|p| p.extended_key_usages.clear()), Some(D::ExtendedKeyUsage));
        assert_eq!(defect(|p| p.subject_alt_names.clear()), Some(D::AlternativeNames));
        assert_eq!(
            defect(|p| p.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@b".try_into().unwrap()))),
            Some(D::AlternativeNames)
        );
        assert_eq!(
            defect(|p| p.subject_alt_names.push(rcgen::SanType::DnsName("localhost".try_into().unwrap()))),
            Some(D::AlternativeNames)
        );
        assert_eq!(defect(|p| p.distinguished_name.push(DnType::CommonName, "other")), Some(D::CommonName));
        assert_eq!(defect(|p| p.use_authority_key_identifier_extension = false), Some(D::KeyIdentifier));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [vec![], vec![0x30, 0x80], vec![0xff; 600], vec![0x30; MAX_DER_BYTES + 1]] {
            assert_eq!(ca(&bytes).unwrap_err().defect, Defect::Encoding);
        }
    }
}
