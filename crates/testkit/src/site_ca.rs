//! A certificate authority of a site, and what it signs, in PEM.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
};

/// The authority.
pub struct SiteCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

/// A certificate, and its private key.
pub struct Pair {
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS #8.
    pub key: String,
}

impl SiteCa {
    /// Another one.
    #[allow(clippy::new_without_default)] // two are never the same
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "site");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a CA signs itself");
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// For a server at this address, or of this name.
    pub fn server(&self, name: &str) -> Pair {
        self.server_of(&[name])
    }

    /// For a server of all of these.
    pub fn server_of(&self, names: &[&str]) -> Pair {
        self.sign(named(names), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client of this DNS name.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(named(&[name]), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same, for a year that is over.
    pub fn client_of_the_past(&self, name: &str) -> Pair {
        let mut params = named(&[name]);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a client that is known by the common name of its certificate.
    pub fn device(&self, common_name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same, with this serial number.
    pub fn device_numbered(&self, common_name: &str, serial: &[u8]) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(serial.to_vec().into());
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Its revocation list with these serial numbers, in PEM.
    pub fn crl(&self, serials: &[&[u8]]) -> String {
        let revoked_certs = serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: serial.to_vec().into(),
                revocation_time: rcgen::date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2036, 1, 1),
            crl_number: 1u64.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a CA signs").pem().expect("it has a text")
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a CA signs").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

fn named(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("they are names or addresses")
}
