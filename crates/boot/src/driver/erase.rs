//! The end of a device: whatever could open its store is destroyed, and a receipt says so.
//!
//! ```text
//! audit -> gates shut, store closed -> slots.a, slots.b and key files: zeros, then gone -> what sources keep (NV indices) -> the rest
//!       -> it is tried: there is no slot file to unseal by -> receipt, signed by the device CA, whose key is the last secret to die
//! ```
//! The slots go first: without them the rest is noise. Cut short before the end, `edgekeep reprovision --destroys-all-secrets` goes on;
//! a receipt exists only for what was done to its end.

use std::sync::Arc;

use api::PeerAddress;
use seal::{ReadSlotsError, SlotFiles};
use secret::crypto::{Curve, SigningKey};
use serde::{Deserialize, Serialize};

use super::asking;
use super::destroy;
use super::identity::MachineId;
use super::keys::refused;
use super::running::Running;
use super::source;
use crate::machine::Halt;

/// A receipt with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// The JSON text of a [`Receipt`]; these bytes are signed.
    pub receipt: String,
    /// ECDSA on P-256 with SHA-256, r and s, 128 hexadecimal digits; the key is the certificate's.
    pub signature: String,
    /// The device CA, PEM: the one that the fleet has known the device by.
    pub certificate: String,
}

/// What was destroyed. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// 1.
    pub format: u8,
    /// The store's name, 32 hexadecimal digits.
    pub store: String,
    /// Of the slot set that was destroyed.
    pub generation: u64,
    /// The kinds of its slots.
    pub slots: Vec<String>,
    /// The machine.
    pub machine: MachineId,
    /// The machine's clock, RFC 3339; it may be wrong.
    pub at: String,
    /// What came of the try to unseal afterwards.
    pub unseal: String,
    /// What could not be destroyed, and what no program can answer for.
    pub remains: Vec<String>,
}

impl Running {
    /// Destroys everything that could open this store. Afterwards the device is sealed for good; the process may end.
    ///
    /// # Errors
    /// A [`Halt`] if the store is sealed, if it cannot be recorded, or if something could not be destroyed: then there is no receipt.
    pub async fn erase(&mut self, by: PeerAddress) -> Result<SignedReceipt, Halt> {
        let set = self.vouched()?;
        let act = self.announce("admin/erase", by).await?;
        let Some(ca) = self.hands.certificates.take().map(|c| c.ca) else {
            let halt = Halt::Refused {
                fact: "the device has no certificate yet".into(),
                hint: "ask again in a moment".into(),
            };
            self.conclude(act, Err(halt.clone())).await?;
            return Err(halt);
        };
        // The record of the beginning is durable; that of the end would lie in a ring that is about to go.
        drop(act);
        let (plan, env) = (Arc::clone(&self.plan), self.env.clone());
        let pairs = asking::pairs(&plan, &env, &set);
        self.seal().await;

        destroy::slots(&*env.disk, &plan).map_err(|e| refused(&e, AGAIN))?;
        let mut remains = Vec::new();
        for pair in pairs {
            let slot = set.slots().iter().find(|s| s.id() == pair.slot).map(|s| s.public().clone());
            let (Some(spec), Some(slot)) = (plan.sources.get(pair.source), slot) else { continue };
            if let Err(e) = source::discard(spec, &plan, &env, slot, Vec::new()).await {
                remains.push(format!("{spec} may keep something for slot {}: {}", pair.slot, host::with_causes(&e)));
            }
        }
        destroy::rest(&*env.disk, &plan).map_err(|e| refused(&e, AGAIN))?;
        remains.extend(NOT_OURS.map(str::to_owned));

        let unseal = match SlotFiles::new(&*env.disk, plan.state_dir()).read() {
            Err(e @ ReadSlotsError::Absent { .. }) => e.to_string(),
            other => {
                let fact = format!("slot files are there still: {other:?}");
                return Err(Halt::Refused { fact, hint: AGAIN.into() });
            }
        };
        let receipt = Receipt {
            format: 1,
            store: set.header().store.to_string(),
            generation: set.generation(),
            slots: set.slots().iter().map(|s| s.public().kind().to_string()).collect(),
            machine: MachineId::read(&*env.disk, &env.machine),
            at: env.clock.wall().to_rfc3339(),
            unseal,
            remains,
        };
        let text = serde_json::to_string(&receipt).map_err(|e| refused(&e, "please report this"))?;
        let signature = SigningKey::from_pkcs8(Curve::P256, ca.key().expose_pkcs8())
            .and_then(|key| key.sign(text.as_bytes()))
            .map_err(|e| refused(&e, "everything is destroyed, and there is no receipt for it"))?;
        Ok(SignedReceipt { receipt: text, signature: hex::encode(signature), certificate: ca.pem() })
    }
}

const AGAIN: &str = "stop edgekeep, and go on with edgekeep reprovision --destroys-all-secrets";
/// What no program on the device can answer for.
const NOT_OURS: [&str; 3] = [
    "flash may keep earlier contents of overwritten blocks; they are of use only with the key source",
    "copies of the data directory that lie elsewhere open with the key source as before, unless it has destroyed what it kept",
    "the recovery key that is with its keeper opens such copies",
];
