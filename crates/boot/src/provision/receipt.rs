//! Receipts: what was delivered to whom in which boot, kept under the barrier; or, where the store is somebody else's,
//! as files in the data directory.
//!
//! A receipt in a file is as good as it must be. It counts only with the boot id of the running kernel and for a token
//! file that lies unchanged on the tmpfs of this boot: who can make both is root. From an older boot only the accessor
//! is used, to end the token: who changes it while the device is off ends another token whose accessor he knows, and
//! gets none.
//!
//! A receipt is committed after the delivery and before the gate. Without one a service counts as not provided for,
//! whatever lies in its directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{BootId, Clock, Disk};
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
#[derive(Clone)]
pub struct Receipts(Place);

#[derive(Clone)]
enum Place {
    UnderBarrier(Store),
    InFiles { dir: PathBuf, disk: Arc<dyn Disk>, clock: Arc<dyn Clock> },
}

impl Receipts {
    /// Under the barrier of our own store.
    pub fn new(store: Store) -> Self {
        Self(Place::UnderBarrier(store))
    }

    /// As files in `dir`, which is made when the first is kept.
    pub fn in_files(dir: &Path, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        Self(Place::InFiles { dir: dir.into(), disk, clock })
    }

    /// The receipt of a service. One that cannot be read counts as none: the token is issued anew.
    ///
    /// # Errors
    /// [`ReceiptError::Read`].
    pub async fn read(&self, service: &ServiceName) -> Result<Option<Receipt>, ReceiptError> {
        let parse = |text: &[u8]| serde_json::from_slice::<Receipt>(text).ok().filter(|r| r.format == FORMAT);
        match &self.0 {
            Place::UnderBarrier(store) => {
                let entry = store.get(&path(service)).await?;
                Ok(entry.and_then(|e| parse(e.value.expose())))
            }
            Place::InFiles { dir, disk, .. } => {
                let file = file(dir, service);
                let io = |cause| ReceiptError::File { path: file.clone(), cause };
                match disk.meta(&file).map_err(io)? {
                    Some(meta) if meta.kind == host::FileKind::File => {
                        Ok(parse(&disk.read(&file, MAX_RECEIPT_BYTES).map_err(io)?))
                    }
                    _ => Ok(None),
                }
            }
        }
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
            at_ms: match &self.0 {
                Place::UnderBarrier(store) => store.now().0,
                Place::InFiles { clock, .. } => clock.boottime().0,
            },
        };
        match &self.0 {
            Place::UnderBarrier(store) => {
                let ops = vec![Op::Put(path(service), SecretBytes::new(receipt.encode()))];
                store.commit(Batch { conds: Vec::new(), ops }).await?;
            }
            Place::InFiles { dir, disk, .. } => {
                let file = file(dir, service);
                let write = || -> io::Result<()> {
                    if disk.meta(dir)?.is_none() {
                        disk.create_dir(dir, 0o700)?;
                        dir.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))?;
                    }
                    disk.replace(&file, &receipt.encode(), 0o600, None)
                };
                write().map_err(|cause| ReceiptError::File { path: file.clone(), cause })?;
            }
        }
        Ok(receipt)
    }
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipts(..)")
    }
}

fn file(dir: &Path, service: &ServiceName) -> PathBuf {
    dir.join(format!("{service}.json"))
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
    /// Its file is not read or written.
    #[error("the receipt {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

const FORMAT: u8 = 1;
/// Ten times a receipt.
const MAX_RECEIPT_BYTES: usize = 8192;
