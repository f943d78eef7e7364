//! Why a source gives nothing.

use std::time::Duration;

use super::auth::AuthError;
use super::pcr_diff::{PcrDiff, PcrFound, list, values};
use crate::ikm::IkmError;
use crate::slot::SourceKind;

/// Why a source gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What the source is made of is missing.
    #[error("{what} is not there")]
    NotPresent {
        /// Path or device.
        what: String,
    },
    /// It may be there, and does not answer.
    #[error("{what} cannot be reached: {defect}")]
    Unreachable {
        /// Address or device.
        what: String,
        /// What happened.
        defect: String,
    },
    /// Several others are asked, and too few of them helped.
    #[error("{answered} of the {needed} servers that are needed have helped: {faults}")]
    TooFew {
        /// How many are needed.
        needed: usize,
        /// How many helped.
        answered: usize,
        /// What happened with each of the others.
        faults: String,
    },
    /// A combination of sources, too few of which gave their part. It may pass: those that failed may do so later.
    #[error("{answered} of the {needed} parts that are needed have given key material: {faults}")]
    TooFewParts {
        /// How many are needed.
        needed: usize,
        /// How many gave theirs.
        answered: usize,
        /// What happened with the others.
        faults: String,
    },
    /// A part of a combination, without which it cannot do.
    #[error("part {number} of the combination, `{kind}`")]
    Part {
        /// Which, from 1.
        number: usize,
        /// Its kind.
        kind: SourceKind,
        /// What is wrong with it.
        #[source]
        source: Box<SourceError>,
    },
    /// Key material came, and it is not the slot's.
    #[error("{what} gives other key material than the slot was made with")]
    OtherKey {
        /// The source.
        what: String,
    },
    /// What would have to be remembered does not fit a slot.
    #[error("a source of kind `{kind}` needs more than a slot has room for: {defect}")]
    TooLarge {
        /// The source.
        kind: SourceKind,
        /// How much.
        defect: String,
    },
    /// Another machine keeps the key, has been reached, and does not give it.
    #[error("{what} does not give this device its key: {defect}")]
    Withheld {
        /// Its address.
        what: String,
        /// Its answer.
        defect: String,
    },
    /// Provisioning would displace key material that something may still hang on.
    #[error("{what} is there already, and may be what another store opens with")]
    AlreadyThere {
        /// Path or device.
        what: String,
    },
    /// Somebody else could have written what is about to be trusted.
    #[error("{path} is not trusted: {defect}")]
    NotTrusted {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        defect: String,
    },
    /// It is not what it should be.
    #[error("{what} is not a key file of edgekeep")]
    NotAKeyFile {
        /// The file.
        what: String,
    },
    /// Another device, token or key file than the slot was made with, and it can be told.
    #[error("{what} is not the one that the slot was made with: it names {found}, the slot {expected}")]
    WrongDevice {
        /// The file or device.
        what: String,
        /// Its public name.
        found: String,
        /// The public name in the slot.
        expected: String,
    },
    /// The slot names another kind, or lacks what this kind needs.
    #[error("the slot was not made by a source of kind `{kind}`")]
    OtherSlot {
        /// The source that was asked.
        kind: SourceKind,
    },
    /// A policy was asked for that this source cannot hold to.
    #[error("a source of kind `{kind}` cannot enforce `{what}`")]
    PolicyUnenforceable {
        /// The source.
        kind: SourceKind,
        /// The policy.
        what: &'static str,
    },
    /// A policy that the source could hold to, and that would protect nothing.
    #[error("the policy would protect nothing: {defect}")]
    PolicyEmpty {
        /// Why.
        defect: String,
    },
    /// The device is not in the state that was agreed.
    #[error("the device is not in the state that the slot was made in: {}", list(.differs))]
    PolicyMismatch {
        /// Registers that differ.
        differs: Vec<PcrDiff>,
    },
    /// Nobody has signed the state that the device is in, of those whose signature the slot asks for.
    #[error("the device's state is not approved of: {file}: {defect}")]
    NotApproved {
        /// The key or the signatures.
        file: String,
        /// What is missing.
        defect: String,
    },
    /// Whoever must approve of the state has approved of others.
    #[error("the device's state is not approved of: {file}: none of the key's {signatures} signatures is for {}", values(.found))]
    NotSigned {
        /// The signatures.
        file: String,
        /// How many of them are the key's.
        signatures: usize,
        /// The registers that they are for, as they are now.
        found: Vec<PcrFound>,
    },
    /// What a TPM keeps for us in an index was taken away or replaced.
    #[error("{what} was tampered with: {defect}")]
    IndexChanged {
        /// The device.
        what: String,
        /// Which index, and how.
        defect: String,
    },
    /// The releases of this boot are used up, or were closed.
    #[error("{what} gives nothing more in this boot: {defect}")]
    Exhausted {
        /// The device.
        what: String,
        /// Used up, or closed.
        defect: String,
    },
    /// The time after the start in which it releases is over.
    #[error("{what} releases only within {window:?} of the device's start, and without a resume from suspend before")]
    WindowClosed {
        /// The device.
        what: String,
        /// The time.
        window: Duration,
    },
    /// Something was measured in the middle of a release: whichever register it was, the TPM then gives nothing to a
    /// session that has looked at registers.
    #[error("{what} gave nothing, since a register was extended meanwhile{}", if *counted { "; it has counted a release all the same" } else { "" })]
    Disturbed {
        /// The device.
        what: String,
        /// Whether a release of this boot is spent.
        counted: bool,
    },
    /// There is no PIN to give.
    #[error("{what} asks for a PIN")]
    NoPin {
        /// The device.
        what: String,
        /// Why there is none.
        #[source]
        source: AuthError,
    },
    /// The PIN is wrong.
    #[error("{what} refuses the PIN{}", tries(.tries_left))]
    AuthFailed {
        /// The device.
        what: String,
        /// How many wrong ones it still takes, where it says so.
        tries_left: Option<u32>,
    },
    /// Few tries are left for a PIN, and none is spent.
    #[error("{what} says that few tries are left for its PIN; none was spent")]
    FewTries {
        /// The device.
        what: String,
    },
    /// A vendor's module cannot be loaded.
    #[error("{path} cannot be used as a PKCS #11 module: {defect}")]
    BadModule {
        /// The module.
        path: String,
        /// What the loader said.
        defect: String,
    },
    /// Too many wrong PINs.
    #[error("{what} is locked after too many wrong PINs")]
    LockedOut {
        /// The device.
        what: String,
    },
    /// The device refuses, and not for a policy or a PIN.
    #[error("{what} refuses: {defect}")]
    Refused {
        /// The device.
        what: String,
        /// Its answer.
        defect: String,
    },
    /// Its memory is full.
    #[error("{what} has no room for another index")]
    NoRoom {
        /// The device.
        what: String,
    },
    /// An answer that is provably not from the device that was asked.
    #[error("{what} was interfered with: {defect}")]
    Tampered {
        /// The device.
        what: String,
        /// What gave it away.
        defect: String,
    },
    /// An answer that its protocol does not know.
    #[error("{what} gave an answer that cannot be understood: {defect}")]
    Protocol {
        /// The device.
        what: String,
        /// What is wrong with it.
        defect: String,
    },
    /// The deadline passed; everything that the source had started was killed.
    #[error("{what} did not finish within {limit:?}")]
    TimedOut {
        /// Path or device.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// The hook ended with something else than status 0.
    #[error("{what} failed: {status}")]
    HookFailed {
        /// The hook.
        what: String,
        /// Exit status or signal.
        status: String,
    },
    /// The hook's output is not one line of lower-case hexadecimal octets.
    #[error("the output of {what} is not key material: {defect}")]
    BadOutput {
        /// The hook.
        what: String,
        /// What is wrong with it; never the output itself.
        defect: &'static str,
    },
    /// The octets are too few, too many or all the same.
    #[error("{what} gave no usable key material")]
    Ikm {
        /// Path or device.
        what: String,
        /// Which.
        #[source]
        source: IkmError,
    },
    /// Asked twice, it gave two answers: a store made with the first would never open again.
    #[error("{what} gave different key material when asked twice")]
    Drifts {
        /// Path or device.
        what: String,
    },
    /// A system call failed.
    #[error("{what} cannot be used")]
    Os {
        /// What was being done, and with what.
        what: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}

fn tries(left: &Option<u32>) -> String {
    left.map_or_else(String::new, |n| format!("; {n} tries are left"))
}
