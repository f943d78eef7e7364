//! TLS 1.3 with the hybrid key exchange first; the certificate is looked up at each handshake, so it can be changed at
//! any time, and whatever name a client asks for, it is shown this one.

use std::fmt;
use std::sync::{Arc, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group, sign};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::asking::AnyHolder;

/// A certificate chain and the key that signs for it; the key cannot be taken out again.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// The device's own certificate. The CA is not sent: clients have it pinned.
    ///
    /// # Errors
    /// [`IdentityError`] if the TLS library refuses what `pki` made.
    pub fn of_device(certificate: &pki::ServerCertificate) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.key().expose_pkcs8()));
        let key = sign::any_ecdsa_type(&key).map_err(IdentityError::Key)?;
        Self::checked(vec![CertificateDer::from(certificate.der().to_vec())], key)
    }

    /// An operator's certificate chain and key, PEM, server certificate first.
    ///
    /// # Errors
    /// [`IdentityError`] says which of the two is at fault.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| IdentityError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
        let signing = sign::any_supported_type(&key).map_err(IdentityError::Key);
        wipe(key);
        Self::checked(chain, signing?)
    }

    fn checked(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn rustls::sign::SigningKey>,
    ) -> Result<Self, IdentityError> {
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(IdentityError::Mismatch)?;
        Ok(Self(Arc::new(certified)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

fn wipe(key: PrivateKeyDer<'static>) {
    use zeroize::Zeroize;
    match key {
        PrivateKeyDer::Pkcs1(mut k) => k.zeroize(),
        PrivateKeyDer::Sec1(mut k) => k.zeroize(),
        PrivateKeyDer::Pkcs8(mut k) => k.zeroize(),
        _ => {}
    }
}

/// A certificate and key cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No certificate in the PEM text.
    #[error("there is no certificate in it; expected PEM, the server's certificate first")]
    NoCertificate,
    /// No private key in the PEM text.
    #[error("there is no private key in it; expected PEM without a passphrase")]
    NoKey,
    /// The key is of a kind that cannot sign here.
    #[error("the private key cannot be used")]
    Key(#[source] rustls::Error),
    /// They belong to different pairs.
    #[error("the private key does not belong to the certificate")]
    Mismatch(#[source] rustls::Error),
}

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// TLS 1.3 alone.
    #[default]
    Tls13,
    /// TLS 1.2 as well, for old clients: with ECDHE and AEAD ciphers only (rustls has no others).
    DangerTls12,
}

/// The identity of the moment.
#[derive(Debug)]
pub(crate) struct Shown(RwLock<Identity>);

impl Shown {
    pub(crate) fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(identity)))
    }

    pub(crate) fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = identity;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).0))
    }
}

/// Key exchanges and ciphers of every server.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // Recorded traffic must stay closed to a quantum computer of later years; the plain curves are for older clients.
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider
}

/// Handshakes that show what `shown` holds at each, with the client asked for a certificate or not.
#[derive(Clone)]
pub(crate) struct Handshakes {
    quiet: TlsAcceptor,
    asking: TlsAcceptor,
}

impl Handshakes {
    pub(crate) fn new(shown: Arc<Shown>, versions: TlsVersions) -> Self {
        let versions: &[_] = match versions {
            TlsVersions::Tls13 if host::in_force("tls-1.3-only") => &[&rustls::version::TLS13],
            _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let provider = Arc::new(provider());
        let anyone = Arc::new(AnyHolder(provider.signature_verification_algorithms));
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .expect("the provider has ciphers and groups for both versions")
        };
        let mut quiet = builder().with_no_client_auth().with_cert_resolver(Arc::clone(&shown) as _);
        let mut asking = builder().with_client_cert_verifier(anyone).with_cert_resolver(shown);
        for config in [&mut quiet, &mut asking] {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            // Early data can be replayed (RFC 8446, 8), and a login or a write must not be.
            config.max_early_data_size = 0;
        }
        // Who logs in by a certificate has shown its key in this handshake, not in one of some hours ago.
        if host::in_force("peer-proves-its-key-each-time") {
            asking.send_tls13_tickets = 0;
            asking.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Self { quiet: TlsAcceptor::from(Arc::new(quiet)), asking: TlsAcceptor::from(Arc::new(asking)) }
    }

    /// Browsers show people a dialogue when they are asked, and each client that is answers with one message more: so
    /// nobody is asked while nobody wants to know.
    pub(crate) fn acceptor(&self, asks: bool) -> &TlsAcceptor {
        if asks { &self.asking } else { &self.quiet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsEntropy;
    use pki::{Ca, Scope, ServerNames};

    fn certificate() -> pki::ServerCertificate {
        let ca = Ca::create(&Scope::Any, &OsEntropy).unwrap();
        ca.issue_server(&ServerNames::parse(["localhost"]).unwrap(), &OsEntropy).unwrap()
    }

    #[test]
    fn an_operators_files_are_told_apart() {
        let pem = |label: &str, der: &[u8]| {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
        };
        let (a, b) = (certificate(), certificate());
        let (chain, key) = (pem("CERTIFICATE", a.der()), pem("PRIVATE KEY", a.key().expose_pkcs8()));
        assert!(Identity::from_pem(&chain, &key).is_ok());
        assert!(matches!(Identity::from_pem(b"", &key), Err(IdentityError::NoCertificate)));
        assert!(matches!(Identity::from_pem(&key, &key), Err(IdentityError::NoCertificate)));
        assert!(matches!(Identity::from_pem(&chain, &chain), Err(IdentityError::NoKey)));
        let other = pem("PRIVATE KEY", b.key().expose_pkcs8());
        assert!(matches!(Identity::from_pem(&chain, &other), Err(IdentityError::Mismatch(_))));
    }

    #[test]
    fn an_identity_prints_no_key() {
        assert_eq!(format!("{:?}", Identity::of_device(&certificate()).unwrap()), "Identity(1 certificates)");
    }
}
