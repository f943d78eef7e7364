//! Whom a verifier trusts: authorities, and single certificates that are trusted as they are.

use std::sync::Arc;

use host::WallTime;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::facts::{PeerError, PeerFacts};

/// What PEM text names as trusted. A certificate that may sign others is an authority; any other is trusted by itself,
/// and signs for nobody.
pub struct Anchors {
    authorities: RootCertStore,
    single: Vec<(CertificateDer<'static>, PeerFacts)>,
}

impl Anchors {
    /// Reads PEM text.
    ///
    /// # Errors
    /// [`AnchorError`]: none of it is trusted.
    pub fn from_pem(text: &[u8]) -> Result<Self, AnchorError> {
        if text.len() > MAX_ANCHOR_BYTES {
            return Err(AnchorError::TooMuch);
        }
        let mut anchors = Self { authorities: RootCertStore::empty(), single: Vec::new() };
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|_| AnchorError::NoCertificate)?;
            let facts = PeerFacts::parse(&certificate)?;
            if anchors.len() == MAX_ANCHORS {
                return Err(AnchorError::TooMuch);
            }
            if facts.is_ca {
                anchors.authorities.add(certificate).map_err(|_| AnchorError::NoCertificate)?;
            } else if facts.is_for_clients {
                anchors.single.push((certificate, facts));
            } else {
                return Err(AnchorError::NotForClients);
            }
        }
        if anchors.len() == 0 { Err(AnchorError::NoCertificate) } else { Ok(anchors) }
    }

    /// Whether the first certificate of `chain` is good at this moment: it is one of the single ones, or an authority
    /// signed it, if need be by way of the others of the chain, for a TLS client (RFC 5280, 6.1: signatures, dates,
    /// path lengths, name constraints, purposes).
    ///
    /// # Errors
    /// [`NotVouched`] with the library's reason.
    pub fn vouch_for(&self, chain: &[CertificateDer<'_>], at: WallTime) -> Result<(), NotVouched> {
        let (leaf, others) = chain.split_first().ok_or(NotVouched::Nobody)?;
        let seconds = u64::try_from(at.unix_seconds()).unwrap_or(0);
        if let Some((_, facts)) = self.single.iter().find(|(single, _)| single == leaf) {
            let (first, last) = facts.validity;
            let in_time = (first..=last).contains(&seconds) || !host::in_force("peer-dates");
            return if in_time { Ok(()) } else { Err(NotVouched::OutOfTime) };
        }
        if !host::in_force("peer-authorities") {
            return Ok(());
        }
        if self.authorities.is_empty() {
            return Err(NotVouched::Nobody);
        }
        let seconds = match PeerFacts::parse(leaf) {
            Ok(facts) if !host::in_force("peer-dates") => facts.validity.0,
            _ => seconds,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities.clone()), provider)
            .build()
            .expect("there are authorities, and no revocation lists that could be at fault");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier.verify_client_cert(leaf, others, now).map(drop).map_err(NotVouched::Refused)
    }

    fn len(&self) -> usize {
        self.authorities.len() + self.single.len()
    }
}

impl std::fmt::Debug for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Anchors({} authorities, {} single)", self.authorities.len(), self.single.len())
    }
}

/// A text that cannot say whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Nothing in it, or something else.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// A single certificate that no client may show.
    #[error("a certificate that is no authority is not for TLS clients")]
    NotForClients,
    /// Too many certificates, or too long a text.
    #[error("more than {MAX_ANCHORS} certificates or {MAX_ANCHOR_BYTES} bytes")]
    TooMuch,
    /// One of them cannot be read.
    #[error(transparent)]
    Unreadable(#[from] PeerError),
}

/// Nobody who is trusted vouches for a certificate.
#[derive(Debug, thiserror::Error)]
pub enum NotVouched {
    /// It is none of the single ones, and there is no authority.
    #[error("no authority")]
    Nobody,
    /// It is trusted as it is, and its time is over or has not begun.
    #[error("not valid at this time")]
    OutOfTime,
    /// The library's reason.
    #[error("{0}")]
    Refused(rustls::Error),
}

/// Of one text.
pub const MAX_ANCHORS: usize = 16;
/// Of one text; sixteen large certificates have less.
pub const MAX_ANCHOR_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
        NameConstraints,
    };
    use testkit::SiteCa;

    /// 2026-11-22.
    const NOW: WallTime = WallTime(1_795_316_206_000_000_000);

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn vouched(anchors: &str, chain: &[&str]) -> Result<(), NotVouched> {
        let chain: Vec<_> = chain.iter().map(|pem| der(pem)).collect();
        Anchors::from_pem(anchors.as_bytes()).unwrap().vouch_for(&chain, NOW)
    }

    #[test]
    fn an_authority_vouches_for_what_it_signed_for_clients_and_for_nothing_else() {
        let (ca, other) = (SiteCa::new(), SiteCa::new());
        vouched(ca.pem(), &[&ca.device("a").certificate]).unwrap();
        for (why, foreign) in [
            ("another authority", other.device("a")),
            ("for servers", ca.server("localhost")),
            ("a year that is over", ca.client_of_the_past("a")),
        ] {
            assert!(matches!(vouched(ca.pem(), &[&foreign.certificate]), Err(NotVouched::Refused(_))), "{why}");
        }
        assert!(matches!(Anchors::from_pem(ca.pem().as_bytes()).unwrap().vouch_for(&[], NOW), Err(NotVouched::Nobody)));
    }

    #[test]
    fn one_that_is_trusted_by_itself_signs_for_nobody() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let single = params.self_signed(&key).unwrap().pem();
        vouched(&single, &[&single]).unwrap();
        let below = CertificateParams::new(["b".to_owned()]).unwrap();
        let below = below.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params.clone(), &key)).unwrap().pem();
        assert!(matches!(vouched(&single, &[&below, &single]), Err(NotVouched::Nobody)));
        let twin = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(matches!(vouched(&single, &[&twin]), Err(NotVouched::Nobody)), "the same words, another key");
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let past = params.self_signed(&key).unwrap().pem();
        assert!(matches!(vouched(&past, &[&past]), Err(NotVouched::OutOfTime)));
    }

    /// Root, intermediate, leaf: what RFC 5280 binds an intermediate to is bound.
    #[test]
    fn an_intermediate_reaches_as_far_as_it_may() {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(root, &root_key);
        let build = |change: &dyn Fn(&mut CertificateParams)| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, "middle");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            change(&mut params);
            let middle = params.signed_by(&key, &root).unwrap().pem();
            let mut leaf = CertificateParams::new(["a.site".to_owned()]).unwrap();
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params, key)).unwrap().pem();
            (middle, leaf)
        };
        let (middle, leaf) = build(&|_| {});
        vouched(&root_pem, &[&leaf, &middle]).unwrap();
        vouched(&middle, &[&leaf]).unwrap();
        assert!(vouched(&root_pem, &[&leaf]).is_err(), "the one between is not shown");
        let (middle, leaf) = build(&|p| p.is_ca = IsCa::ExplicitNoCa);
        assert!(vouched(&root_pem, &[&leaf, &middle]).is_err(), "one that may not sign");
        let (middle, leaf) = build(&|p| {
            p.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere".into())],
                excluded_subtrees: Vec::new(),
            });
        });
        assert!(vouched(&root_pem, &[&leaf, &middle]).is_err(), "one that may not sign for this name");
    }

    #[test]
    fn a_text_that_names_nobody_is_refused() {
        let ca = SiteCa::new();
        assert!(matches!(Anchors::from_pem(b""), Err(AnchorError::NoCertificate)));
        assert!(matches!(Anchors::from_pem(b"junk"), Err(AnchorError::NoCertificate)));
        let server = ca.server("localhost").certificate;
        assert!(matches!(Anchors::from_pem(server.as_bytes()), Err(AnchorError::NotForClients)));
        let many = ca.pem().repeat(MAX_ANCHORS + 1);
        assert!(matches!(Anchors::from_pem(many.as_bytes()), Err(AnchorError::TooMuch)));
        let long = vec![b'\n'; MAX_ANCHOR_BYTES + 1];
        assert!(matches!(Anchors::from_pem(&long), Err(AnchorError::TooMuch)));
    }
}
