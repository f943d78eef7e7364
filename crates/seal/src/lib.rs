//! Key sources, derivation, key slots, recovery.
//!
//! ```text
//! KeySource ── release ──> Ikm ── derive(salt, store, slot) ──> Kek ── unwrap ──> RootKey
//! ```
//! A device has a [`SlotSet`] in two copies ([`SlotFiles`]); each slot holds the same root key, wrapped for one source.
//! An [`Ikm`] is spent by unlocking, and [`Unlocked`] is the proof that the set is authentic. Everything here is
//! synchronous.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod derive;
pub mod edgex;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod hook_file;
mod ikm;
pub mod labels;
mod recovery;
mod shamir;
mod slot;
mod slot_set;
mod source;
#[cfg(test)]
mod testing;

pub use self::ikm::{FULL_IKM_BYTES, Ikm, IkmError, MAX_IKM_BYTES, MIN_IKM_BYTES, ShortIkmAllowed};
pub use ::ikm::{TokenName, Wish};
pub use ::tang::{NotAThumbprint, Thumbprint};
pub use ::tpm::{PcrFileError, PcrSet, PcrSetError, PcrValues};
pub use client::{Address, AddressError, Origin, OriginError};
pub use derive::custody_ikm;
pub use files::{CopyFault, FoundSlots, ReadSlotsError, SlotCopy, SlotFiles};
pub use hook_file::{HookFile, HookKey, NotAHookFile, OtherHookKey};
pub use recovery::{
    AgeRecipients, MAX_RECIPIENTS, RecipientError, RecoveryChoice, RecoveryFileError, RecoveryKey, RecoveryKeyError,
    check_file as check_recovery_file, seal_to_recipients, write_file as write_recovery_file,
};
pub use slot::{Profile, SealMode, SlotId, SlotPublic, SlotPublicError, SourceKind, StoreId};
pub use slot_set::{
    Change, ChangeError, CreateError, FreshKek, HeadCheck, MAX_SLOT_SET_BYTES, MAX_SLOTS, NewSlot, ParseError,
    SetHeader, SetIsCurrent, Slot, SlotDigest, SlotKek, SlotSet, StaleSlotSet, UnlockError, Unlocked, new_root_key,
};
#[cfg(any(test, feature = "testing"))]
pub use source::key_source_contract;
pub use source::{
    Auth, AuthError, AuthRequest, Board, Capabilities, Check, Closed, CombinedSetupError, CombinedSource, Conformance,
    Counting, CredentialForm, CredentialName, CredentialNameError, CredentialSource, Deadline, Escrow, EscrowName,
    EscrowNameError, EscrowSource, Evidence, ExecSource, Fit, HOOK_LIMIT, HOOK_QUESTION, HandedPin, Hold, HookStatus,
    Identity, KeySource, Left, Login, MAX_PARTS, NoAuth, Part, PcrDiff, PcrFound, PcrSignatures, PcrSigning,
    PcrSigningError, PinFile, Pkcs11Setup, Pkcs11Source, PolicyRequest, Provisioned, ReleaseLatch, Released, Remedy,
    Runs, SoftwareSource, SourceError, TangServer, TangServers, TangSetupError, TangSource, TpmNvSource, TpmSource,
    Unkept, Verdict, Wanted, check_parts, conformance, counted_by_gate_alone, differ_in_values_alone, left_behind,
    may_count, measures_registers, parse_public_key as parse_pcr_public_key, slot_and_parts, storage_key,
};
