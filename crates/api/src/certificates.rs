//! What a caller showed of himself in the TLS handshake.

/// The certificates of a peer that has proven, in the handshake of this very connection, that it has the key of the
/// first of them. Nobody has vouched for any of them: that is for whoever lets the caller in by them.
#[derive(Debug)]
pub struct PeerCertificates {
    chain: Vec<Vec<u8>>,
    name: CertificateName,
}

/// By what log and audit know a certificate. The holder's own words, but for the digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateName {
    /// The common name of the subject, or empty.
    pub common_name: String,
    /// The serial number, decimal.
    pub serial_number: String,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub sha256: String,
}

impl PeerCertificates {
    /// The certificates of a handshake that went well, the peer's own first, in DER; `None` if it showed none. Only who
    /// ran the handshake may call this.
    pub fn proven_in_handshake(chain: Vec<Vec<u8>>, name: CertificateName) -> Option<Self> {
        (!chain.is_empty()).then_some(Self { chain, name })
    }

    /// The certificates in DER: the peer's own, then those that it thinks lead to an authority.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(Vec::as_slice)
    }

    /// For the audit.
    pub fn name(&self) -> &CertificateName {
        &self.name
    }
}
