//! Receipts: what was delivered to whom in which boot, kept under the barrier.
//!
//! A receipt is committed after the delivery and before the gate. Without one a service counts as not provided for, whatever
//! lies in its directory.

use host::BootId;
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use store::{Batch, CommitError, Op, ReadError, Store, StorePath};

use crate::plan::ServiceName;

/// One delivery. Its bytes are JSON (docs/formats.md, Receipt).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// 1.
    pub format: u8,
    /// Accessor of the token.
    pub accessor: String,
    /// Boot id of the kernel, as text.
    pub boot: String,
    /// Where it was put.
    pub place: String,
    /// SHA-256 of the token's file, hexadecimal.
    pub digest: String,
    /// Time of the store, ms.
    pub at_ms: u64,
}

impl Receipt {
    /// Whether it is of this boot.
    pub fn is_of(&self, boot: BootId) -> bool {
        self.boot == boot.to_string()
    }

    /// What was delivered, for the channel to verify; `None` if the digest is none.
    pub fn delivered(&self) -> Option<delivery::Delivered> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.digest, &mut digest).ok()?;
        Some(delivery::Delivered { place: (&self.place).into(), digest })
    }

    /// SHA-256 of its bytes: the service's part of a gate's evidence.
    pub fn digest(&self) -> [u8; 32] {
        secret::crypto::sha256(&[&self.encode()])
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }
}

/// Where receipts are kept.
#[derive(Clone, Debug)]
pub struct Receipts {
    store: Store,
}

impl Receipts {
    /// The receipts of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The receipt of a service. One that cannot be read counts as none: the token is issued anew.
    ///
    /// # Errors
    /// [`ReceiptError::Read`].
    pub async fn read(&self, service: &ServiceName) -> Result<Option<Receipt>, ReceiptError> {
        let entry = self.store.get(&path(service)).await?;
        Ok(entry.and_then(|e| serde_json::from_slice::<Receipt>(e.value.expose()).ok()).filter(|r| r.format == FORMAT))
    }

    /// Keeps a receipt; durable on return.
    ///
    /// # Errors
    /// [`ReceiptError::Write`].
    pub async fn keep(
        &self,
        service: &ServiceName,
        accessor: &str,
        boot: BootId,
        delivered: &delivery::Delivered,
    ) -> Result<Receipt, ReceiptError> {
        let receipt = Receipt {
            format: FORMAT,
            accessor: accessor.into(),
            boot: boot.to_string(),
            place: delivered.place.display().to_string(),
            digest: hex::encode(delivered.digest),
            at_ms: self.store.now().0,
        };
        let ops = vec![Op::Put(path(service), SecretBytes::new(receipt.encode()))];
        self.store.commit(Batch { conds: Vec::new(), ops }).await?;
        Ok(receipt)
    }
}

fn path(service: &ServiceName) -> StorePath {
    StorePath::new(["boot", "receipt", service.as_str()]).expect("a service's name is a component")
}

/// Why a receipt was not read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Not read.
    #[error("the receipt cannot be read")]
    Read(#[from] ReadError),
    /// Not kept.
    #[error("the receipt cannot be kept")]
    Write(#[from] CommitError),
}

const FORMAT: u8 = 1;
