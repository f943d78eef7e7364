//! The authenticated root: one number that stands for all rows of `name`.
//!
//! MSet-Add-Hash (Clarke, Devadas, van Dijk, Gassend, Suh: Incremental Multiset Hash Functions, ASIACRYPT 2003): the
//! sum mod 2^256 of HMAC-SHA-256 over each row. A commit adds and subtracts what it changed; opening a store sums all
//! rows once. Without the key nobody can find rows of equal sum; their nonce is left out, because the root is only ever
//! kept encrypted.

use secret::crypto::Hmac;

use crate::backend::NameRow;

/// The sum over a set of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Root([u64; 4]); // least significant limb first

impl Root {
    pub(crate) fn add(&mut self, key: &Hmac, row: &NameRow) {
        let mut carry = false;
        for (a, b) in self.0.iter_mut().zip(limbs(&code(key, row))) {
            (*a, carry) = a.carrying_add_stable(b, carry);
        }
    }

    pub(crate) fn subtract(&mut self, key: &Hmac, row: &NameRow) {
        let mut borrow = false;
        for (a, b) in self.0.iter_mut().zip(limbs(&code(key, row))) {
            (*a, borrow) = a.borrowing_sub_stable(b, borrow);
        }
    }

    /// Big-endian.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (chunk, limb) in out.rchunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(limbs(bytes))
    }
}

/// HMAC over directory id 16 | version u64 | tag 16 | row u64 | hidden name: fixed lengths first, so no two rows read
/// alike.
fn code(key: &Hmac, row: &NameRow) -> [u8; 32] {
    key.sign(&[&row.dir, &row.version.to_be_bytes(), &row.tag, &row.row.to_be_bytes(), &row.name])
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut out = [0; 4];
    for (limb, chunk) in out.iter_mut().zip(bytes.rchunks_exact(8)) {
        *limb = chunk.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    }
    out
}

/// Addition and subtraction with carry on limbs.
trait Carry: Sized {
    fn carrying_add_stable(self, other: Self, carry: bool) -> (Self, bool);
    fn borrowing_sub_stable(self, other: Self, borrow: bool) -> (Self, bool);
}

impl Carry for u64 {
    fn carrying_add_stable(self, other: Self, carry: bool) -> (Self, bool) {
        let (sum, over) = self.overflowing_add(other);
        let (sum, over_again) = sum.overflowing_add(Self::from(carry));
        (sum, over || over_again)
    }

    fn borrowing_sub_stable(self, other: Self, borrow: bool) -> (Self, bool) {
        let (rest, under) = self.overflowing_sub(other);
        let (rest, under_again) = rest.overflowing_sub(Self::from(borrow));
        (rest, under || under_again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(name: u8) -> NameRow {
        NameRow { dir: [1; 16], name: [name; 48].into(), version: u64::from(name), tag: [name; 16], row: 1 }
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let key = Hmac::new(&[0; 32]);
        let mut root = Root([u64::MAX; 4]);
        let before = root;
        root.add(&key, &row(1));
        root.subtract(&key, &row(1));
        assert_eq!(root, before);
        assert_eq!(Root::from_bytes(&root.to_bytes()), root);
        assert_eq!(Root([1, 0, 0, 0]).to_bytes()[31], 1);
    }

    #[test]
    fn each_field_of_a_row_counts() {
        let key = Hmac::new(&[0; 32]);
        let of = |change: &dyn Fn(&mut NameRow)| {
            let mut r = row(1);
            change(&mut r);
            let mut root = Root::default();
            root.add(&key, &r);
            root
        };
        let plain = of(&|_| {});
        assert_ne!(plain, of(&|r| r.dir[0] = 2));
        assert_ne!(plain, of(&|r| r.name[0] = 2));
        assert_ne!(plain, of(&|r| r.version = 2));
        assert_ne!(plain, of(&|r| r.tag[15] = 2));
        assert_ne!(plain, of(&|r| r.row = 2));
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_removal_undoes(names in proptest::collection::vec(any::<u8>(), 0..20)) {
            let key = Hmac::new(&[3; 32]);
            let (mut forth, mut back) = (Root::default(), Root::default());
            for n in &names { forth.add(&key, &row(*n)); }
            for n in names.iter().rev() { back.add(&key, &row(*n)); }
            prop_assert_eq!(forth, back);
            for n in &names { forth.subtract(&key, &row(*n)); }
            prop_assert_eq!(forth, Root::default());
        }
    }
}
