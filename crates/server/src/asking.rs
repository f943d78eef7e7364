//! TLS clients are asked for a certificate, and need not have one.
//!
//! The handshake proves that the client has the key of what it shows, and nothing more: whom to trust is a matter of
//! whoever lets the client in by it, and of the moment when that is asked. So a client with a certificate that is good
//! for other servers, or for nobody, is served like one without.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use api::{CertificateName, PeerCertificates};
use pki::Fingerprint;
use pki::peer::PeerFacts;

/// Takes every certificate that can be read, of whoever has its key.
#[derive(Debug)]
pub(crate) struct AnyHolder(pub(crate) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyHolder {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the names of authorities would tell strangers whom this house trusts, and some clients show nothing that
    /// is not hinted at.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
        if (intermediates.len() > MAX_INTERMEDIATES || bytes > MAX_CHAIN_BYTES) && host::in_force("peer-chains-bounded")
        {
            return Err(Error::General("more certificates than are looked at".into()));
        }
        PeerFacts::parse(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !host::in_force("peer-proves-its-key") {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// What the client of a handshake that went well has shown; `None` if nothing.
pub(crate) fn proven(connection: &rustls::ServerConnection) -> Option<PeerCertificates> {
    let chain = connection.peer_certificates()?;
    let leaf = chain.first()?;
    let facts = PeerFacts::parse(leaf).ok()?;
    let name = CertificateName {
        common_name: facts.common_name.unwrap_or_default(),
        serial_number: facts.serial,
        sha256: Fingerprint::of(leaf).to_string(),
    };
    PeerCertificates::proven_in_handshake(chain.iter().map(|der| der.to_vec()).collect(), name)
}

/// Beside the client's own: a site's authority is seldom further away than two.
const MAX_INTERMEDIATES: usize = 4;
/// Of all together. They are kept while the connection is.
const MAX_CHAIN_BYTES: usize = 16 * 1024;
