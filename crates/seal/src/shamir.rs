//! Shamir's scheme over GF(2^8) (Shamir 1979), byte by byte: a secret from which any `threshold` shares come back, and
//! of which fewer say nothing.
//!
//! The field is AES's (x^8 + x^4 + x^3 + x + 1), as in Vault's shares. Neither branches nor table look-ups depend on a
//! secret. The scheme notices no false share: whoever uses it authenticates each share first.

use host::Entropy;
use secret::Secret;
use zeroize::Zeroizing;

/// Bytes of the secret, and of each share.
pub(crate) const SHARE_BYTES: usize = 32;

/// Splits `secret` into `count` shares, of which `threshold` are needed; share `i` stands at the point `i + 1`.
///
/// The caller has seen to it that 1 <= threshold <= count.
pub(crate) fn split(
    secret: &Secret<SHARE_BYTES>,
    threshold: u8,
    count: u8,
    entropy: &dyn Entropy,
) -> Vec<Secret<SHARE_BYTES>> {
    // The polynomials, highest power first; the secret is their value at 0.
    let random: Vec<Secret<SHARE_BYTES>> =
        (1..threshold).map(|_| Secret::init_with(|bytes| entropy.fill(bytes))).collect();
    (1..=count)
        .map(|x| {
            Secret::init_with(|share| {
                for powers in random.iter().chain([secret]) {
                    share.iter_mut().zip(powers.expose()).for_each(|(s, c)| *s = multiply(*s, x) ^ c);
                }
            })
        })
        .collect()
}

/// The secret, from as many shares as are needed, each with its point; the points differ and none is 0.
pub(crate) fn join(shares: &[(u8, &Secret<SHARE_BYTES>)]) -> Secret<SHARE_BYTES> {
    Secret::init_with(|secret| {
        for (x, share) in shares {
            // Lagrange's polynomial of this point, at 0. Points are public, and so is this number.
            let weight = shares
                .iter()
                .filter(|(other, _)| other != x)
                .fold(1, |w, (other, _)| multiply(w, multiply(*other, inverse(other ^ x))));
            secret.iter_mut().zip(share.expose()).for_each(|(s, b)| *s ^= multiply(weight, *b));
        }
    })
}

/// The product in the field, with masks in place of branches.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = Zeroizing::new(0);
    for _ in 0..8 {
        *product ^= a & (b & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
        b >>= 1;
    }
    *product
}

/// a^254, which is 1/a for all but 0.
fn inverse(a: u8) -> u8 {
    let square = |a| multiply(a, a);
    // 254 = 2 + 4 + ... + 128
    let (mut power, mut product) = (a, 1);
    for _ in 0..7 {
        power = square(power);
        product = multiply(product, power);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsEntropy;
    use proptest::prelude::*;

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, 4.2: {57} * {83} = {c1}, {57} * {13} = {fe}.
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
    }

    #[test]
    fn one_of_one_is_the_secret_itself() {
        let secret = Secret::init_with(|b| b.fill(7));
        let shares = split(&secret, 1, 1, &OsEntropy);
        assert!(shares[0].ct_eq(&secret));
    }

    proptest! {
        #[test]
        fn enough_shares_are_the_secret_and_fewer_are_not(bytes: [u8; 32], count in 1..=8_u8, drawn: u8, skip: u8) {
            let threshold = 1 + drawn % count;
            let secret = Secret::init_with(|b| *b = bytes);
            let shares = split(&secret, threshold, count, &OsEntropy);
            // Any run of neighbours around the ring.
            let some = |n: u8| -> Vec<(u8, &Secret<32>)> {
                (0..n).map(|i| (i + skip % count) % count).map(|i| (i + 1, &shares[usize::from(i)])).collect()
            };
            prop_assert!(join(&some(threshold)).ct_eq(&secret));
            prop_assert!(join(&some(count)).ct_eq(&secret));
            if threshold > 1 {
                prop_assert!(!join(&some(threshold - 1)).ct_eq(&secret));
            }
        }
    }
}
