//! P-521 (SP 800-186, 3.2.1.5), as far as the exchange needs it, and the one file that calls its library.
//!
//! The house's library (aws-lc) multiplies points but neither adds nor gives them back whole; this one does. A
//! [`Point`] is on the curve and is not its neutral element, whoever sent it: it cannot be made otherwise. The curve
//! has cofactor 1, so that there are no small subgroups to check for.

use std::fmt;

use host::Entropy;
use p521::elliptic_curve::point::AffineCoordinates;
use p521::elliptic_curve::sec1::ToSec1Point;
use p521::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, PublicKey};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a coordinate or a scalar.
pub(crate) const FIELD_BYTES: usize = 66;
/// Bytes of a compressed point (SEC 1, 2.3.3).
pub(crate) const COMPRESSED_BYTES: usize = 1 + FIELD_BYTES;

/// A public point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point(PublicKey);

impl Point {
    /// The point of these coordinates, if they are on the curve.
    pub(crate) fn from_coordinates(x: &[u8; FIELD_BYTES], y: &[u8; FIELD_BYTES]) -> Option<Self> {
        let mut bytes = [4; 1 + 2 * FIELD_BYTES];
        bytes[1..COMPRESSED_BYTES].copy_from_slice(x);
        bytes[COMPRESSED_BYTES..].copy_from_slice(y);
        PublicKey::from_sec1_bytes(&bytes).ok().map(Self)
    }

    /// The point of [`Point::compressed`].
    pub(crate) fn from_compressed(bytes: &[u8]) -> Option<Self> {
        let shape = bytes.len() == COMPRESSED_BYTES && matches!(bytes.first(), Some(2 | 3));
        if shape { PublicKey::from_sec1_bytes(bytes).ok().map(Self) } else { None }
    }

    /// 2 or 3 by the parity of y, then x.
    pub(crate) fn compressed(&self) -> [u8; COMPRESSED_BYTES] {
        let mut out = [0; COMPRESSED_BYTES];
        out.copy_from_slice(self.0.to_sec1_point(true).as_bytes());
        out
    }

    /// 4, x, y.
    pub(crate) fn uncompressed(&self) -> [u8; 1 + 2 * FIELD_BYTES] {
        let mut out = [0; 1 + 2 * FIELD_BYTES];
        out.copy_from_slice(self.0.to_sec1_point(false).as_bytes());
        out
    }

    /// x and y.
    pub(crate) fn coordinates(&self) -> ([u8; FIELD_BYTES], [u8; FIELD_BYTES]) {
        let (mut x, mut y) = ([0; FIELD_BYTES], [0; FIELD_BYTES]);
        let whole = self.uncompressed();
        x.copy_from_slice(&whole[1..COMPRESSED_BYTES]);
        y.copy_from_slice(&whole[COMPRESSED_BYTES..]);
        (x, y)
    }

    /// This point and `scalar` times the generator, added: the blinding. `None` where they cancel out.
    pub(crate) fn blinded_by(&self, scalar: &Scalar) -> Option<Self> {
        let mask = ProjectivePoint::GENERATOR.mul(&scalar.0);
        PublicKey::try_from(self.0.to_projective() + mask).ok().map(Self)
    }

    /// `self - scalar * base`: the unblinding. `None` where they cancel out, which no honest answer does.
    pub(crate) fn unblinded_by(&self, scalar: &Scalar, base: &Self) -> Option<SecretPoint> {
        let mask = Zeroizing::new(base.0.to_projective().mul(&scalar.0));
        SecretPoint::new(&Zeroizing::new(self.0.to_projective() - *mask))
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.compressed();
        f.write_str("Point(")?;
        bytes.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("..)")
    }
}

/// A secret number between 1 and the group's order, wiped when it is dropped. The library computes with copies on the
/// stack, which it leaves to be overwritten.
pub(crate) struct Scalar(Zeroizing<NonZeroScalar>);

impl Scalar {
    /// A random one (FIPS 186-5, A.2.2: by rejection). All but one in 2^261 draws of 521 bits are below the order.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; FIELD_BYTES]);
        loop {
            entropy.fill(&mut bytes[..]);
            bytes[0] &= 1; // 521 bits
            let mut repr = FieldBytes::from(*bytes);
            let drawn = NonZeroScalar::from_repr(repr).into_option();
            repr.zeroize();
            if let Some(scalar) = drawn {
                return Self(Zeroizing::new(scalar));
            }
        }
    }

    /// The number that blinds nothing: what remains of the exchange without its mitigation.
    pub(crate) fn one() -> Self {
        let mut repr = FieldBytes::default();
        repr[FIELD_BYTES - 1] = 1;
        Self(Zeroizing::new(NonZeroScalar::from_repr(repr).into_option().expect("one is not zero")))
    }

    /// This many times the generator.
    pub(crate) fn public(&self) -> Point {
        Point(PublicKey::from_secret_scalar(&self.0))
    }

    /// This many times `point`.
    pub(crate) fn times(&self, point: &Point) -> SecretPoint {
        // Neither factor is 0, and the order is a prime.
        let product = Zeroizing::new(point.0.to_projective().mul(&self.0));
        SecretPoint::new(&product).expect("no product of non-zero factors is neutral")
    }
}

/// A point that must stay secret, wiped when it is dropped.
pub(crate) struct SecretPoint(Zeroizing<AffinePoint>);

impl SecretPoint {
    fn new(point: &ProjectivePoint) -> Option<Self> {
        let affine = Zeroizing::new(point.to_affine());
        if *affine == AffinePoint::IDENTITY { None } else { Some(Self(affine)) }
    }

    /// Its x coordinate, as ECDH takes it (SEC 1, 3.3.1).
    pub(crate) fn x(&self) -> Zeroizing<[u8; FIELD_BYTES]> {
        let mut repr = self.0.x();
        let mut x = Zeroizing::new([0; FIELD_BYTES]);
        x.copy_from_slice(&repr);
        repr.zeroize();
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsEntropy;

    #[test]
    fn blinding_is_undone_by_unblinding() {
        // With s the server's number: K = sC = s(C + eG) - e(sG).
        let (s, c, e) = (Scalar::generate(&OsEntropy), Scalar::generate(&OsEntropy), Scalar::generate(&OsEntropy));
        let blinded = c.public().blinded_by(&e).unwrap();
        let answer = answered(&blinded, &s);
        let found = answer.unblinded_by(&e, &s.public()).unwrap();
        assert_eq!(*found.x(), *c.times(&s.public()).x());
        let other = answer.unblinded_by(&c, &s.public()).unwrap();
        assert_ne!(*other.x(), *c.times(&s.public()).x());
    }

    #[test]
    fn what_cancels_out_is_no_point() {
        let e = Scalar::generate(&OsEntropy);
        let minus = Point(PublicKey::try_from(-e.public().0.to_projective()).unwrap());
        assert!(minus.blinded_by(&e).is_none());
        let s = Scalar::generate(&OsEntropy);
        let mask = answered(&e.public(), &s);
        assert!(mask.unblinded_by(&e, &s.public()).is_none());
    }

    #[test]
    fn only_points_of_the_curve_are_points() {
        let p = Scalar::generate(&OsEntropy).public();
        let (x, y) = p.coordinates();
        assert_eq!(Point::from_coordinates(&x, &y), Some(p));
        let mut off = y;
        off[65] ^= 1;
        assert_eq!(Point::from_coordinates(&x, &off), None);
        assert_eq!(Point::from_coordinates(&[0; 66], &[0; 66]), None);
        // Coordinates above the prime would be a second spelling of another point.
        assert_eq!(Point::from_coordinates(&[0xff; 66], &y), None);

        let bytes = p.compressed();
        assert_eq!(Point::from_compressed(&bytes), Some(p));
        for bad in [&bytes[..66], &[0][..], &[][..], &p.uncompressed()[..]] {
            assert_eq!(Point::from_compressed(bad), None);
        }
    }

    /// What a server does with a blinded point.
    fn answered(point: &Point, server: &Scalar) -> Point {
        Point(PublicKey::try_from(point.0.to_projective().mul(&server.0)).unwrap())
    }
}
