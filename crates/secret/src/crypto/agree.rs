//! ECDH on P-256 (SP 800-56A, 6.1.2.2: one side's key lives for one exchange).

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;

use super::NotAuthentic;
use crate::Secret;

/// Bytes of an uncompressed point of P-256: 4, x, y (SEC 1, 2.3.3).
pub const P256_POINT_BYTES: usize = 65;

/// A fresh key pair of which only the public half and what both sides agree on is left.
#[derive(Debug)]
pub struct P256Exchange {
    /// Our public point, for the other side.
    pub ours: [u8; P256_POINT_BYTES],
    /// The x coordinate of the shared point.
    pub shared: Secret<32>,
}

impl P256Exchange {
    /// Agrees with whoever holds the private half of `theirs`.
    ///
    /// # Errors
    /// [`NotAuthentic`] if `theirs` is no point of the curve, or the library's generator failed.
    pub fn with(theirs: &[u8; P256_POINT_BYTES]) -> Result<Self, NotAuthentic> {
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(|_| NotAuthentic)?;
        let public = private.compute_public_key().map_err(|_| NotAuthentic)?;
        let mut ours = [0; P256_POINT_BYTES];
        if public.as_ref().len() != ours.len() {
            return Err(NotAuthentic);
        }
        ours.copy_from_slice(public.as_ref());
        let theirs = UnparsedPublicKey::new(&ECDH_P256, theirs.as_slice());
        let shared = agree_ephemeral(private, theirs, NotAuthentic, |x| {
            Secret::try_init_with(|out: &mut [u8; 32]| {
                out.copy_from_slice(x.get(..32).filter(|_| x.len() == 32).ok_or(NotAuthentic)?);
                Ok(())
            })
        })?;
        Ok(Self { ours, shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement::{PrivateKey, agree};

    #[test]
    fn both_sides_agree() {
        let theirs = PrivateKey::generate(&ECDH_P256).unwrap();
        let point: [u8; P256_POINT_BYTES] = theirs.compute_public_key().unwrap().as_ref().try_into().unwrap();
        let exchange = P256Exchange::with(&point).unwrap();
        let ours = UnparsedPublicKey::new(&ECDH_P256, exchange.ours);
        let shared = agree(&theirs, ours, (), |x| Ok::<_, ()>(x.to_vec())).unwrap();
        assert_eq!(exchange.shared.expose(), &shared[..]);
        assert_ne!(P256Exchange::with(&point).unwrap().ours, exchange.ours, "each exchange has a key of its own");
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let mut off = [0; P256_POINT_BYTES];
        assert!(P256Exchange::with(&off).is_err());
        off[0] = 4;
        off[64] = 1;
        assert!(P256Exchange::with(&off).is_err(), "x = 0, y = 1 is not on the curve");
    }
}
