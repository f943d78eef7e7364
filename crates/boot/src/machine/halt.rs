//! Why the boot cannot go on without a person, in two lines: what happened, and what to do.

use std::path::PathBuf;

use crate::machine::{Part, profile_of};
use crate::plan::Profile;

/// A fault for an operator. The device stays sealed; nothing was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A first boot without a choice.
    #[error("nobody has chosen who holds the recovery key, and nothing was made")]
    NoRecovery,
    /// Both slot copies are gone, the store is there.
    #[error("slots.a and slots.b are missing, and store.db is there: without a slot nothing opens the store")]
    SlotsMissing,
    /// The store is gone, a slot is there.
    #[error("store.db is missing, and its key slots are there")]
    StoreMissing,
    /// The audit ring is gone.
    #[error("the audit ring is missing, and the store is there: what was done before cannot be shown")]
    AuditMissing,
    /// The shares are gone, their slots are there.
    #[error("the key shares of the store are missing, and their key slots are there")]
    SharesMissing,
    /// The slots are gone, the shares are there.
    #[error("slots.a and slots.b are missing, and key shares are there: without a slot nothing opens them")]
    SharesSlotsMissing,
    /// The state of another kind of plan.
    #[error("the state directory holds {found}: it is of a plan with another [store]")]
    OtherKind {
        /// What there is that the plan does not have.
        found: Part,
    },
    /// Neither slots nor store, and yet not nothing.
    #[error("slots and store are missing, but the state directory is not empty: it has {}", list(parts))]
    OnlyRemains {
        /// What is there.
        parts: Vec<Part>,
    },
    /// A demo store under a production plan, or the reverse.
    #[error("the store is of profile {}, and {} was asked for", profile_of(*found), profile_of(*asked))]
    Profile {
        /// In slot or head.
        found: Profile,
        /// In the plan.
        asked: Profile,
    },
    /// A destruction that was cut short.
    #[error("the destruction of what is here was begun and has not ended: it is neither a device nor nothing")]
    Destroying,
    /// An erasure that is under way, or was not done to its end.
    #[error("this device is being erased, and that has not ended")]
    Erasing,
    /// An erasure that was.
    #[error("this device was erased; the receipt is {}", receipt.display())]
    Erased {
        /// Where it is.
        receipt: PathBuf,
    },
    /// A part of the boot refused; its own words.
    #[error("{fact}")]
    Refused {
        /// What happened, with values.
        fact: String,
        /// What to do.
        hint: String,
    },
}

impl Halt {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let destroys = "; to give up every secret and begin anew: edgekeep reprovision --destroys-all-secrets";
        match self {
            Self::NoRecovery => {
                "set [recovery] in edgekeep.toml: age recipients, out = a file on another disk, terminal, or none"
                    .into()
            }
            // The recovery key opens a slot too: without one it opens nothing.
            Self::SlotsMissing => format!("put slots.a and slots.b back from a backup of the same device{destroys}"),
            Self::SharesMissing => "put resp-init.json and kdf-salt.dat back from a backup of the same device".into(),
            Self::SharesSlotsMissing => "put slots.a and slots.b back from a backup of the same device".into(),
            Self::OtherKind { .. } => "give another data_dir, or put [store] in edgekeep.toml back as it was".into(),
            Self::StoreMissing => format!("put store.db back from a backup of the same device{destroys}"),
            Self::AuditMissing => format!("put audit back from a backup, or find out who removed it{destroys}"),
            Self::OnlyRemains { .. } => {
                format!("put the state directory back from a backup, or see whose files these are{destroys}")
            }
            Self::Destroying => {
                "repeat what was cut short: edgekeep reprovision, or generalize, --destroys-all-secrets".into()
            }
            Self::Erasing => "repeat edgekeep erase --destroys-all-secrets: it goes on, as does the next start".into(),
            Self::Erased { .. } => {
                "edgekeep erase --destroys-all-secrets gives the receipt again; edgekeep reprovision \
                --destroys-all-secrets removes it, and the next start makes another device"
                    .into()
            }
            Self::Profile { found: Profile::Demo, .. } => {
                "a demo store is never used in production: give another data_dir, or run: edgekeep up --demo".into()
            }
            Self::Profile { .. } => "a production store is never opened as a demo: give another --data-dir".into(),
            Self::Refused { hint, .. } => hint.clone(),
        }
    }
}

fn list(parts: &[Part]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_happened_and_what_to_do() {
        let all = [
            Halt::NoRecovery,
            Halt::SlotsMissing,
            Halt::StoreMissing,
            Halt::AuditMissing,
            Halt::SharesMissing,
            Halt::SharesSlotsMissing,
            Halt::OtherKind { found: Part::Store },
            Halt::OnlyRemains { parts: vec![Part::Audit, Part::Other] },
            Halt::Profile { found: Profile::Demo, asked: Profile::Production },
            Halt::Profile { found: Profile::Production, asked: Profile::Demo },
            Halt::Destroying,
            Halt::Erasing,
            Halt::Erased { receipt: "/d/erased.json".into() },
        ];
        let mut facts: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert!(all.iter().all(|h| !h.hint().is_empty()));
        facts.sort();
        facts.dedup();
        assert_eq!(facts.len(), all.len(), "no two faults read alike");
    }
}
