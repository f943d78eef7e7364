//! TLS 1.3 in which both sides show a certificate: who calls is who an authority says that he is.

use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Identity, Shown, provider};

/// What the server shows, and the authorities that sign its callers' certificates.
#[derive(Clone)]
pub struct Mutual(TlsAcceptor);

impl Mutual {
    /// `authorities`: PEM, and nobody else's certificates are let in.
    ///
    /// # Errors
    /// [`MutualError`] if there is no authority in it.
    pub fn new(identity: Identity, authorities: &[u8]) -> Result<Self, MutualError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.map_err(|_| MutualError::NoAuthority)?;
            roots.add(certificate).map_err(MutualError::Refused)?;
        }
        if roots.is_empty() {
            return Err(MutualError::NoAuthority);
        }
        let provider = Arc::new(provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("there are authorities, and no revocation lists that could be at fault");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has ciphers and groups for it")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Shown::new(identity));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.max_early_data_size = 0;
        // A ticket would let a caller in again without his certificate being looked at.
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}

impl fmt::Debug for Mutual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutual(..)")
    }
}

/// A caller who has shown in a handshake that he has the key of this certificate, and that an authority has signed it,
/// for a client and for now.
pub struct Certified(CertificateDer<'static>);

impl Certified {
    /// Of a handshake that went well.
    pub(crate) fn of(connection: &rustls::ServerConnection) -> Option<Self> {
        connection.peer_certificates()?.first().map(|leaf| Self(leaf.clone().into_owned()))
    }

    /// Whether this is among the certificate's DNS names (RFC 5280, 4.2.1.6); its subject counts for nothing.
    pub fn is_named(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        ParsedCertificate::try_from(&self.0).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certified({})", pki::Fingerprint::of(&self.0))
    }
}

/// Authorities of callers that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MutualError {
    /// No certificate in the PEM text.
    #[error("there is no authority in it; expected PEM")]
    NoAuthority,
    /// One that signs nothing.
    #[error("a certificate in it is no authority")]
    Refused(#[source] rustls::Error),
}
