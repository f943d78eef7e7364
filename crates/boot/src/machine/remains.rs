//! What is left on the disk, and what may be concluded from it.
//!
//! A first boot is only when *nothing* is there. A wiped part is never made anew: whoever can delete a file would
//! otherwise turn the device into an empty one that trusts him.

use std::fmt;
use std::path::PathBuf;

use crate::machine::Halt;
use crate::plan::StoreSpec;

/// A part of the state that is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `slots.a`.
    SlotsA,
    /// `slots.b`.
    SlotsB,
    /// `store.db`.
    Store,
    /// `audit/`.
    Audit,
    /// The key shares of a store in another process, or the note that they are being made.
    Shares,
    /// Something else in the state directory.
    Other,
}

impl Part {
    /// The parts that a whole state has.
    pub const WHOLE: [Self; 4] = [Self::SlotsA, Self::SlotsB, Self::Store, Self::Audit];
}

impl Remains {
    /// The state of an owner: slots, and the key shares of a store in another process.
    fn owners_fault(&self) -> Option<Halt> {
        let has = |p| self.parts.contains(&p) || !host::in_force("partial-wipe-refused");
        let slots = has(Part::SlotsA) || has(Part::SlotsB);
        match (slots, has(Part::Shares)) {
            _ if self.parts.contains(&Part::Store) => Some(Halt::OtherKind { found: Part::Store }),
            (true, true) => None,
            (true, false) => Some(Halt::SharesMissing),
            (false, true) => Some(Halt::SharesSlotsMissing),
            (false, false) => Some(Halt::OnlyRemains { parts: self.parts.clone() }),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlotsA => "slots.a",
            Self::SlotsB => "slots.b",
            Self::Store => "store.db",
            Self::Audit => "audit",
            Self::Shares => "key shares",
            Self::Other => "other files",
        })
    }
}

/// A way on which a state is going for good, by somebody's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `reprovision` or `generalize` was cut short.
    Destroying,
    /// An erasure was cut short behind the last slot.
    Erasing,
    /// The device was erased, and nothing else is there.
    Erased {
        /// The receipt.
        receipt: PathBuf,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Parts in `data`, in order.
    pub parts: Vec<Part>,
    /// `data.new` is there: a first boot was cut short.
    pub leftover: bool,
    /// Somebody has begun, or done, to end this.
    pub ending: Option<Ending>,
}

impl Remains {
    /// Nothing is there that a store was ever served from.
    pub fn is_virgin(&self) -> bool {
        self.parts.is_empty()
    }

    /// Why this is no state to boot from; `None` when it is whole, or lacks one slot copy, which the other heals.
    pub fn fault(&self, store: &StoreSpec) -> Option<Halt> {
        if store.external().is_some() {
            return self.owners_fault();
        }
        let has = |p| self.parts.contains(&p) || !host::in_force("partial-wipe-refused");
        let slots = has(Part::SlotsA) || has(Part::SlotsB);
        if self.parts.contains(&Part::Shares) {
            return Some(Halt::OtherKind { found: Part::Shares });
        }
        Some(match (slots, has(Part::Store), has(Part::Audit)) {
            (true, true, true) => return None,
            (true, true, false) => Halt::AuditMissing,
            (true, false, _) => Halt::StoreMissing,
            (false, true, _) => Halt::SlotsMissing,
            (false, false, _) => Halt::OnlyRemains { parts: self.parts.clone() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subset of the state's files, and what the boot makes of it.
    #[test]
    fn every_subset_of_the_state_has_its_own_answer() {
        use Part::{Audit, SlotsA, SlotsB, Store};
        for bits in 0u8..16 {
            let parts: Vec<Part> =
                Part::WHOLE.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, p)| *p).collect();
            let remains = Remains { parts: parts.clone(), ..Remains::default() };
            let verdict = if remains.is_virgin() { None } else { Some(remains.fault(&StoreSpec::Ours)) };
            let has = |p: Part| parts.contains(&p);
            match verdict {
                None => assert_eq!(parts, []),
                Some(None) => assert!((has(SlotsA) || has(SlotsB)) && has(Store) && has(Audit), "{parts:?} boots"),
                Some(Some(Halt::AuditMissing)) => assert!(!has(Audit)),
                Some(Some(Halt::StoreMissing)) => assert!(!has(Store)),
                Some(Some(Halt::SlotsMissing)) => assert!(!has(SlotsA) && !has(SlotsB) && has(Store)),
                Some(Some(Halt::OnlyRemains { .. })) => assert_eq!(parts, [Audit]),
                Some(Some(other)) => panic!("{parts:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_file_is_not_nothing() {
        let remains = Remains { parts: vec![Part::Other], ..Remains::default() };
        assert!(!remains.is_virgin());
        assert!(matches!(remains.fault(&StoreSpec::Ours), Some(Halt::OnlyRemains { .. })));
    }
}
