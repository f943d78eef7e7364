//! Shares, each under a key of its own: HKDF-SHA-256 (IKM, salt, label and index), AES-256-GCM without associated data.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use host::Entropy;
use secret::crypto::{self, Gcm, NONCE_BYTES, TAG_BYTES};
use secret::{Secret, SecretBytes, Token};
use zeroize::Zeroizing;

use super::EdgexSalt;
use crate::ikm::Ikm;
use crate::labels::{self, Label};

/// Which EdgeX wrapped the shares: nothing in the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgexLabel {
    /// 4.0 and later, and ours.
    SecretStore,
    /// 1.3 to 3.1.
    Vault,
}

impl EdgexLabel {
    fn label(self) -> Label {
        match self {
            Self::SecretStore => labels::EDGEX_V4,
            Self::Vault => labels::EDGEX_V1,
        }
    }
}

/// Shares in clear, as the store's `sys/init` answered them. They can be given to the store, and wrapped; not saved.
pub struct ClearShares {
    pub(super) shares: Vec<SecretBytes>,
    /// The initial root token, which EdgeX keeps in clear beside the shares, if at all.
    pub root_token: Option<Token>,
}

impl ClearShares {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// The shares in hexadecimal, as generate-root takes them.
    pub fn hex(&self) -> impl Iterator<Item = Zeroizing<String>> {
        self.shares.iter().map(|s| Zeroizing::new(hex::encode(s.expose())))
    }

    /// The shares in base 64, as unseal takes them.
    pub fn base64(&self) -> impl Iterator<Item = Zeroizing<String>> {
        self.shares.iter().map(|s| Zeroizing::new(BASE64_STANDARD.encode(s.expose())))
    }

    /// Wraps every share as EdgeX 4 does, under new nonces. The root token is left out.
    pub fn wrap(&self, ikm: &Ikm, salt: &EdgexSalt, entropy: &dyn Entropy) -> WrappedShares {
        self.wrap_with(ikm.expose(), salt, EdgexLabel::SecretStore, entropy)
    }

    fn wrap_with(&self, ikm: &[u8], salt: &EdgexSalt, label: EdgexLabel, entropy: &dyn Entropy) -> WrappedShares {
        let one = |(index, share): (usize, &SecretBytes)| {
            let mut nonce = [0; NONCE_BYTES];
            entropy.fill(&mut nonce);
            let mut text = Vec::with_capacity(share.len() + TAG_BYTES);
            text.extend_from_slice(share.expose());
            share_key(ikm, salt, label, index).seal(nonce, b"", &mut text);
            WrappedShare { sealed: text, nonce }
        };
        WrappedShares { shares: self.shares.iter().enumerate().map(one).collect(), root_token: None }
    }
}

impl fmt::Debug for ClearShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClearShares({} shares)", self.shares.len())
    }
}

/// One share as it is on disk.
pub(super) struct WrappedShare {
    /// Ciphertext and tag.
    pub(super) sealed: Vec<u8>,
    pub(super) nonce: [u8; NONCE_BYTES],
}

/// Wrapped shares: safe on disk for as long as the IKM is not.
pub struct WrappedShares {
    pub(super) shares: Vec<WrappedShare>,
    /// The initial root token, which EdgeX keeps in clear beside the shares, if at all.
    pub root_token: Option<Token>,
}

impl WrappedShares {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Opens all shares; share 0 decides under which label. These shares stay as they are.
    ///
    /// # Errors
    /// [`OpenSharesError`].
    pub fn open(&self, ikm: &Ikm, salt: &EdgexSalt) -> Result<(Vec<SecretBytes>, EdgexLabel), OpenSharesError> {
        self.open_with(ikm.expose(), salt)
    }

    /// Opens all shares, and gives them the place of the wrapped ones.
    ///
    /// # Errors
    /// [`OpenSharesError`].
    pub fn into_clear(self, ikm: &Ikm, salt: &EdgexSalt) -> Result<(ClearShares, EdgexLabel), OpenSharesError> {
        let (shares, label) = self.open(ikm, salt)?;
        Ok((ClearShares { shares, root_token: self.root_token }, label))
    }

    fn open_with(&self, ikm: &[u8], salt: &EdgexSalt) -> Result<(Vec<SecretBytes>, EdgexLabel), OpenSharesError> {
        let open = |label, index: usize, share: &WrappedShare| {
            share_key(ikm, salt, label, index).open(share.nonce, b"", &share.sealed).ok().map(SecretBytes::from)
        };
        let first = self.shares.first().ok_or(OpenSharesError::Nothing)?;
        let label = [EdgexLabel::SecretStore, EdgexLabel::Vault]
            .into_iter()
            .find(|label| open(*label, 0, first).is_some())
            .ok_or(OpenSharesError::WrongIkmOrSalt)?;
        let mut shares = Vec::with_capacity(self.shares.len());
        for (index, share) in self.shares.iter().enumerate() {
            shares.push(open(label, index, share).ok_or(OpenSharesError::Share { index })?);
        }
        Ok((shares, label))
    }
}

impl fmt::Debug for WrappedShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedShares({} shares)", self.shares.len())
    }
}

/// Why shares do not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenSharesError {
    /// No shares at all.
    #[error("there are no key shares")]
    Nothing,
    /// The first share opens under neither label. The format has nothing that would tell the causes apart.
    #[error("key share 0 does not open: other key material, another salt, or a changed share")]
    WrongIkmOrSalt,
    /// The first opens, and a later one does not: it was changed, or stands in another's place.
    #[error("key share {index} was changed, or stands in another's place")]
    Share {
        /// Counted from 0, as EdgeX does.
        index: usize,
    },
}

impl OpenSharesError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Nothing => "resp-init.json holds no shares: put it back from a backup",
            Self::WrongIkmOrSalt => {
                "is this the device that resp-init.json was made on? It, kdf-salt.dat and the hook must belong together"
            }
            Self::Share { .. } => "put resp-init.json back from a backup",
        }
    }
}

fn share_key(ikm: &[u8], salt: &EdgexSalt, label: EdgexLabel, index: usize) -> Gcm {
    let info = format!("{}{index}", label.label().text);
    let key = Secret::<32>::init_with(|key| crypto::hkdf_sha256(&salt.0, ikm, info.as_bytes(), key));
    Gcm::new(key.expose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edgex::Shares;
    use std::sync::Mutex;

    /// Gives the bytes of a vector's nonces, and nothing more.
    struct Nonces(Mutex<Vec<u8>>);

    impl Entropy for Nonces {
        fn fill(&self, out: &mut [u8]) {
            let mut left = self.0.lock().unwrap();
            let n = out.len();
            out.copy_from_slice(&left[..n]);
            left.drain(..n);
        }
    }

    fn nonces(hex: &[&str]) -> Nonces {
        Nonces(Mutex::new(hex::decode(hex.concat()).unwrap()))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    fn counting(first: u8, count: u8) -> Vec<u8> {
        (first..first + count).collect()
    }

    fn clear(shares: &[&[u8]]) -> ClearShares {
        ClearShares { shares: shares.iter().map(|s| SecretBytes::new(s.to_vec())).collect(), root_token: None }
    }

    fn salt(bytes: Vec<u8>) -> EdgexSalt {
        EdgexSalt(bytes.try_into().unwrap())
    }

    fn wrapped(text: &str) -> WrappedShares {
        match Shares::parse(text.as_bytes()).unwrap() {
            Shares::Wrapped(w) => w,
            other => panic!("{other:?}"),
        }
    }

    fn clear_of(shares: &[SecretBytes]) -> Vec<Vec<u8>> {
        shares.iter().map(|s| s.expose().to_vec()).collect()
    }

    /// Vector A: the plain shares, nonces, and the file of EdgeX 4.
    fn vector_a() -> ([Vec<u8>; 3], Nonces, &'static str) {
        let nonces = nonces(&["a0a1a2a3a4a5a6a7a8a9aaab", "b0b1b2b3b4b5b6b7b8b9babb", "c0c1c2c3c4c5c6c7c8c9cacb"]);
        (
            [counting(0x40, 33), counting(0x61, 33), counting(0x82, 33)],
            nonces,
            include_str!("../../../../tests/golden/keys/edgex-resp-init-v4.json"),
        )
    }

    fn ikm_a() -> Ikm {
        Ikm::new(SecretBytes::new(counting(0, 32)), None).unwrap()
    }

    #[test]
    fn edgex_unit_test_key() {
        let mut key = [0; 32];
        crypto::hkdf_sha256(&[0; 32], &[0; 32], b"info", &mut key);
        assert_eq!(hex::encode(key), "1060e4e72054653bf46623844033f5ccc9cff596a4a680e074ef4fd06aae60df");
    }

    #[test]
    fn vector_a_is_written_and_read_byte_for_byte() {
        let (plain, nonces, file) = vector_a();
        let shares = clear(&[&plain[0], &plain[1], &plain[2]]);
        assert_eq!(*shares.base64().next().unwrap(), "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl9g");
        let salt = salt(counting(0x20, 32));
        let wrapped_here = shares.wrap(&ikm_a(), &salt, &nonces);
        assert_eq!(std::str::from_utf8(&wrapped_here.encode()).unwrap(), file);
        let (opened, label) = wrapped(file).open(&ikm_a(), &salt).unwrap();
        assert_eq!((clear_of(&opened), label), (plain.to_vec(), EdgexLabel::SecretStore));
    }

    #[test]
    fn vector_b_of_the_old_label_is_found_by_share_0() {
        let (plain, nonces, _) = vector_a();
        let salt = salt(counting(0x20, 32));
        let old = clear(&[&plain[0], &plain[1]]).wrap_with(ikm_a().expose(), &salt, EdgexLabel::Vault, &nonces);
        assert_eq!(
            hex::encode(&old.shares[0].sealed),
            "5540f3e7a8c495214aba18341bc1379a345b5a1aa061ec83cda140cb4d57d0290a3a57ac92411889ae3b15773e006b3669"
        );
        assert_eq!(
            hex::encode(&old.shares[1].sealed),
            "d935c51aae6314e6404c7763aca442ada20ffeab610db09589f8c23e983359cdde951094d82919ad7f7b41c0bed00ff342"
        );
        let (opened, label) = old.open(&ikm_a(), &salt).unwrap();
        assert_eq!((clear_of(&opened), label), (plain[..2].to_vec(), EdgexLabel::Vault));
    }

    #[test]
    fn vector_c_keeps_the_root_token() {
        let file = include_str!("../../../../tests/golden/keys/edgex-resp-init-token.json");
        let ikm = bytes("12345678");
        let shares = clear(&[&bytes("aabbcc"), &bytes("ddeeff")]);
        let nonces = nonces(&["000000000000000000000000", "010101010101010101010101"]);
        let mut here = shares.wrap_with(&ikm, &salt(vec![0; 32]), EdgexLabel::SecretStore, &nonces);
        here.root_token = Some(Token::parse("s.example").unwrap());
        assert_eq!(std::str::from_utf8(&here.encode()).unwrap(), file);
        let there = wrapped(file);
        assert_eq!(there.root_token.as_ref().unwrap().expose(), "s.example");
        let (opened, _) = there.open_with(&ikm, &salt(vec![0; 32])).unwrap();
        let opened = ClearShares { shares: opened, root_token: None };
        assert_eq!(opened.hex().map(|h| h.to_string()).collect::<Vec<_>>(), ["aabbcc", "ddeeff"]);
        assert_eq!(opened.base64().map(|b| b.to_string()).collect::<Vec<_>>(), ["qrvM", "3e7/"]);
    }

    #[test]
    fn vector_d_of_ikm_longer_than_a_hash_block() {
        let here = clear(&[&[0; 33]]).wrap_with(
            &[0; 512],
            &salt(vec![0; 32]),
            EdgexLabel::SecretStore,
            &nonces(&["000000000000000000000000"]),
        );
        assert_eq!(
            hex::encode(&here.shares[0].sealed),
            "30c5288b46b6ea4610c1f0949f60c8fe33ea542d3576f1178db3ae7c8b4aae064b9b9f4136463d73c9add00a2e34e9cd6f"
        );
    }

    #[test]
    fn refusals_by_name() {
        let (_, _, file) = vector_a();
        let right = salt(counting(0x20, 32));
        let refused = |w: &WrappedShares| w.open(&ikm_a(), &right).map(|_| ()).unwrap_err();
        let other_ikm = crate::testing::other_ikm();
        assert_eq!(wrapped(file).open(&other_ikm, &right).err(), Some(OpenSharesError::WrongIkmOrSalt), "wrong IKM");
        let other_salt = salt(vec![7; 32]);
        assert_eq!(
            wrapped(file).open(&ikm_a(), &other_salt).err(),
            Some(OpenSharesError::WrongIkmOrSalt),
            "wrong salt"
        );
        let mut swapped = wrapped(file);
        swapped.shares.swap(1, 2);
        assert_eq!(refused(&swapped), OpenSharesError::Share { index: 1 }, "shares exchanged");
        let mut swapped = wrapped(file);
        swapped.shares.swap(0, 1);
        assert_eq!(refused(&swapped), OpenSharesError::WrongIkmOrSalt, "shares exchanged");
        let mut cut = wrapped(file);
        cut.shares[2].sealed.pop();
        assert_eq!(refused(&cut), OpenSharesError::Share { index: 2 }, "truncated tag");
        let (plain, nonces, _) = vector_a();
        let mut mixed = wrapped(file);
        let old = clear(&[&plain[0], &plain[1]]).wrap_with(ikm_a().expose(), &right, EdgexLabel::Vault, &nonces);
        mixed.shares[1] = old.shares.into_iter().nth(1).unwrap();
        assert_eq!(refused(&mixed), OpenSharesError::Share { index: 1 }, "labels mixed");
        mixed.shares.clear();
        assert_eq!(refused(&mixed), OpenSharesError::Nothing);
    }

    #[test]
    fn shares_are_not_printed() {
        assert_eq!(format!("{:?}", clear(&[b"hush"])), "ClearShares(1 shares)");
        assert_eq!(format!("{:?}", wrapped(vector_a().2)), "WrappedShares(3 shares)");
    }
}
