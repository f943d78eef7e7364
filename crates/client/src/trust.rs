//! Whom a TLS client trusts: the certificate authorities of one PEM file, under one name. And who it is itself, where
//! the server asks.

use std::sync::Arc;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// A pinned trust. The system's authorities are never asked: one of hundreds of them could be made to lie.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    first: [u8; 32],
    server_name: Option<ServerName<'static>>,
    identity: Option<Arc<SingleCertAndKey>>,
    tls12: bool,
}

/// Largest PEM text that is read: some hundred authorities.
const MAX_PEM_BYTES: usize = 1024 * 1024;

impl Trust {
    /// Trusts the authorities of a PEM text, and TLS 1.3 alone.
    ///
    /// # Errors
    /// [`TrustError`] where the text holds none, or one that cannot be read.
    pub fn of_pem(pem: &[u8]) -> Result<Self, TrustError> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(TrustError::TooLong { bytes: pem.len() });
        }
        let mut roots = RootCertStore::empty();
        let mut first = None;
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let unreadable = |problem: String| TrustError::Unreadable { number: index + 1, problem };
            let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
            first.get_or_insert_with(|| secret::crypto::sha256(&[certificate.as_ref()]));
            roots.add(certificate).map_err(|e| unreadable(e.to_string()))?;
        }
        let first = first.ok_or(TrustError::NoCertificate)?;
        Ok(Self { roots: Arc::new(roots), first, server_name: None, identity: None, tls12: false })
    }

    /// Expects this name in the server's certificate instead of the host of the address.
    ///
    /// # Errors
    /// [`TrustError::Name`] where it is neither a DNS name nor an IP address.
    pub fn named(mut self, name: &str) -> Result<Self, TrustError> {
        let parsed = ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name { name: name.to_owned() })?;
        self.server_name = Some(parsed);
        Ok(self)
    }

    /// Presents this certificate to a server that asks for one: a PEM chain, the leaf first, and the leaf's private
    /// key.
    ///
    /// # Errors
    /// [`TrustError::Identity`] where either cannot be read, or the key is another certificate's.
    pub fn presenting(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TrustError> {
        let unusable = |problem: String| TrustError::Identity { problem };
        if chain.len() > MAX_PEM_BYTES || key.len() > MAX_PEM_BYTES {
            return Err(unusable("it is longer than any certificate".into()));
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|e| unusable(format!("the certificate: {e}")))?;
        if chain.is_empty() {
            return Err(unusable("it holds no certificate".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| unusable(format!("the private key: {e}")))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|e| unusable(e.to_string()))?;
        self.identity = Some(Arc::new(SingleCertAndKey::from(pair)));
        Ok(self)
    }

    /// Also speaks TLS 1.2, for a store of somebody else's that has no better.
    #[must_use]
    pub fn allow_tls12(mut self) -> Self {
        self.tls12 = true;
        self
    }

    /// SHA-256 of the first authority's certificate (DER): by it the trust is named.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.first
    }

    /// The name to expect from a server at `host`.
    pub(crate) fn name_for(&self, host: &str) -> Result<ServerName<'static>, TrustError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()).map_err(|_| TrustError::Name { name: host.to_owned() }),
        }
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] =
            if self.tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| TrustError::Library { problem: e.to_string() })?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            Some(identity) => config.with_client_cert_resolver(Arc::clone(identity) as _),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// No trust can be made of this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The text is longer than any list of authorities.
    #[error("the CA file has {bytes} bytes; at most {MAX_PEM_BYTES} are taken")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// There is none in it.
    #[error("the CA file holds no certificate")]
    NoCertificate,
    /// One of them is damaged or no authority.
    #[error("certificate {number} of the CA file cannot be used: {problem}")]
    Unreadable {
        /// Which one, from 1.
        number: usize,
        /// Why.
        problem: String,
    },
    /// Neither a DNS name nor an IP address.
    #[error("{name:?} is no server name")]
    Name {
        /// The name.
        name: String,
    },
    /// What the client would show of itself.
    #[error("the client's own certificate cannot be used: {problem}")]
    Identity {
        /// Why.
        problem: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {problem}")]
    Library {
        /// What it says.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pem: &[u8]) -> TrustError {
        Trust::of_pem(pem).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_file_without_a_sound_certificate_is_no_trust() {
        assert_eq!(refusal(b""), TrustError::NoCertificate);
        assert_eq!(refusal(b"some text"), TrustError::NoCertificate);
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refusal(junk), TrustError::Unreadable { number: 1, .. }));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(refusal(cut), TrustError::Unreadable { number: 1, .. } | TrustError::NoCertificate));
        assert!(matches!(refusal(&vec![b'a'; MAX_PEM_BYTES + 1]), TrustError::TooLong { .. }));
    }

    #[test]
    fn a_certificate_is_presented_with_its_own_key_alone() {
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (one, other) = (made("one"), made("other"));
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let trust = || Trust::of_pem(chain.as_bytes()).unwrap();
        assert!(trust().presenting(chain.as_bytes(), key.as_bytes()).is_ok());
        let refusal = |chain: &[u8], key: &[u8]| match trust().presenting(chain, key) {
            Err(TrustError::Identity { problem }) => problem,
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("it is taken"),
        };
        assert_eq!(refusal(b"", key.as_bytes()), "it holds no certificate");
        assert!(refusal(chain.as_bytes(), b"").starts_with("the private key: "));
        refusal(chain.as_bytes(), other.signing_key.serialize_pem().as_bytes());
        refusal(&vec![b'a'; MAX_PEM_BYTES + 1], key.as_bytes());
    }
}
