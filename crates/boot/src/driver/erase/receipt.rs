//! What an erased device leaves behind: a text that its own key has signed.

use seal::SlotSet;
use secret::crypto::{Curve, SignError, SigningKey};
use serde::{Deserialize, Serialize};

use super::super::identity::MachineId;

/// A receipt with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// The JSON text of a [`Receipt`]; these bytes are signed.
    pub receipt: String,
    /// ECDSA on P-256 with SHA-256, r and s, 128 hexadecimal digits. The key is the certificate's; where there is
    /// `begun`, the one that it names.
    pub signature: String,
    /// The device CA, PEM: the one that the fleet has known the device by.
    pub certificate: String,
    /// Where the power was cut in between: the CA's key has died with the slots, and another, which lay on the disk
    /// meanwhile, has signed in its place. The CA has signed that it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<SignedBeginning>,
}

/// That an erasure was begun, by the device CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBeginning {
    /// The JSON text of a [`Beginning`]; these bytes are signed.
    pub beginning: String,
    /// As in [`SignedReceipt`]; the key is the certificate's.
    pub signature: String,
}

/// Which device is erased. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedDevice {
    /// 1.
    pub format: u8,
    /// The store's name, 32 hexadecimal digits.
    pub store: String,
    /// Of the slot set.
    pub generation: u64,
    /// The kinds of its slots.
    pub slots: Vec<String>,
    /// The machine.
    pub machine: MachineId,
}

/// What is to be destroyed, and who may say that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Which device.
    #[serde(flatten)]
    pub erased: ErasedDevice,
    /// The machine's clock, RFC 3339; it may be wrong.
    pub at: String,
    /// The public key that signs the receipt if the CA's cannot: a point of P-256, uncompressed, 130 hexadecimal
    /// digits.
    pub receipt_key: String,
}

/// What was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which device.
    #[serde(flatten)]
    pub erased: ErasedDevice,
    /// The machine's clock, RFC 3339; it may be wrong.
    pub at: String,
    /// What came of the try to unseal afterwards.
    pub unseal: String,
    /// What key sources have said when they were asked again.
    pub sources: Vec<String>,
    /// What could not be destroyed, and what no program can answer for.
    pub remains: Vec<String>,
}

impl Beginning {
    pub(super) fn of(set: &SlotSet, machine: MachineId, at: String, receipt_key: &SigningKey) -> Self {
        let erased = ErasedDevice {
            format: 1,
            store: set.header().store.to_string(),
            generation: set.generation(),
            slots: set.slots().iter().map(|s| s.public().kind().to_string()).collect(),
            machine,
        };
        Self { erased, at, receipt_key: hex::encode(receipt_key.public()) }
    }
}

/// Signs with a key as PKCS #8; hexadecimal.
pub(super) fn sign(pkcs8: &[u8], text: &str) -> Result<String, SignError> {
    let key = SigningKey::from_pkcs8(Curve::P256, pkcs8)?;
    key.sign(text.as_bytes()).map(hex::encode)
}
