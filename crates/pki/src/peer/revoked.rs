//! A revocation list (RFC 5280, 5), of which only the serial numbers are taken.
//!
//! Its signature is not checked, as in Vault: whoever may hand a list in may shut out whom he likes, and a list can do
//! nothing else. So a list of another authority can shut out too many, and never let anybody in.

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::facts::decimal;

/// The serial numbers of a list in PEM, as decimal numbers; sorted, each once.
///
/// # Errors
/// [`CrlError`].
pub fn revoked(text: &[u8]) -> Result<Vec<String>, CrlError> {
    if text.len() > MAX_CRL_BYTES {
        return Err(CrlError::TooMuch);
    }
    let der = CertificateRevocationListDer::from_pem_slice(text).map_err(|_| CrlError::Encoding)?;
    let list: CertificateList = CertificateList::from_der(&der).map_err(|_| CrlError::Encoding)?;
    let entries = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
    if entries.len() > MAX_REVOKED {
        return Err(CrlError::TooMuch);
    }
    let mut serials: Vec<String> = entries.iter().map(|entry| decimal(entry.serial_number.as_bytes())).collect();
    serials.sort();
    serials.dedup();
    Ok(serials)
}

/// A revocation list that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// It is none.
    #[error("there is no revocation list in it; expected PEM")]
    Encoding,
    /// Too long.
    #[error("the list has more than {MAX_REVOKED} certificates or {MAX_CRL_BYTES} bytes")]
    TooMuch,
}

/// Of one list: a site has fewer devices.
pub const MAX_REVOKED: usize = 4096;
/// Of one list's text.
pub const MAX_CRL_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_serial_numbers_of_a_list() {
        let ca = testkit::SiteCa::new();
        let text = ca.crl(&[&[2, 0], &[1], &[1]]);
        assert_eq!(revoked(text.as_bytes()).unwrap(), ["1", "512"]);
        assert!(revoked(ca.crl(&[]).as_bytes()).unwrap().is_empty());
        assert_eq!(revoked(b"junk"), Err(CrlError::Encoding));
        assert_eq!(revoked(ca.pem().as_bytes()), Err(CrlError::Encoding));
        assert_eq!(revoked(&vec![b'\n'; MAX_CRL_BYTES + 1]), Err(CrlError::TooMuch));
    }

    proptest! {
        #[test]
        fn reading_is_total(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut text = testkit::SiteCa::new().crl(&[&[7], &[8]]).into_bytes();
            let at = at.index(text.len());
            text[at] = with;
            _ = revoked(&text);
        }
    }
}
