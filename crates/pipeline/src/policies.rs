//! Policies by name: in the store as text, in memory parsed.
//!
//! A name that has no policy grants nothing, and may be on a token: it begins to count when the policy is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policy::{DEFAULT_NAME, DEFAULT_TEXT, Policy, ROOT_NAME};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use store::StorePath;

use crate::error::EngineError;
use crate::txn::Txn;

/// A policy as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// The text as it was written.
    pub text: String,
    /// When, by the wall clock, nanoseconds since 1970.
    pub modified_wall: i128,
}

/// The named policies.
#[derive(Debug, Default)]
pub struct Policies {
    parsed: Mutex<HashMap<String, Option<Arc<Policy>>>>,
    generation: AtomicU64,
}

impl Policies {
    /// The policy of that name: its text and when it was written. `default` has its built-in text until it is written;
    /// `root` has none.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn read(&self, name: &str, txn: &mut Txn) -> Result<Option<PolicyEntry>, EngineError> {
        match txn.get_at(&path(name)?).await? {
            Some(bytes) => Ok(Some(decode(&bytes)?)),
            None if name == DEFAULT_NAME => Ok(Some(PolicyEntry { text: DEFAULT_TEXT.to_owned(), modified_wall: 0 })),
            None if name == ROOT_NAME => Ok(Some(PolicyEntry { text: String::new(), modified_wall: 0 })),
            None => Ok(None),
        }
    }

    /// All names, sorted; `default` and `root` are always among them.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn names(&self, txn: &mut Txn) -> Result<Vec<String>, EngineError> {
        let mut names = txn.list_at(&dir()).await?;
        names.extend([DEFAULT_NAME.to_owned(), ROOT_NAME.to_owned()]);
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Writes a policy, if its text can be read as one.
    ///
    /// # Errors
    /// 400 with the fault in the text, or for `root`.
    pub fn write(&self, name: &str, text: &str, txn: &mut Txn) -> Result<(), EngineError> {
        if name == ROOT_NAME {
            return Err(EngineError::bad_request("cannot update \"root\" policy"));
        }
        Policy::parse(name, text)
            .map_err(|e| EngineError::bad_request(e.to_string()).recorded_as("the policy's text has a fault"))?;
        let entry = PolicyEntry { text: text.to_owned(), modified_wall: txn.wall().0 };
        let bytes = serde_json::to_vec(&entry).expect("text and a number are JSON");
        txn.put_at(path(name)?, SecretBytes::new(bytes));
        Ok(())
    }

    /// Removes a policy; nothing happens where none is.
    ///
    /// # Errors
    /// 400 for the two policies that the store cannot do without.
    pub fn delete(&self, name: &str, txn: &mut Txn) -> Result<(), EngineError> {
        if name == ROOT_NAME || name == DEFAULT_NAME {
            return Err(EngineError::bad_request(format!("cannot delete \"{name}\" policy")));
        }
        txn.delete_at(path(name)?);
        Ok(())
    }

    /// The parsed policy of that name, or `None` where it grants nothing.
    pub(crate) async fn parsed(&self, name: &str, txn: &mut Txn) -> Result<Option<Arc<Policy>>, EngineError> {
        let generation = self.generation();
        if let Some(known) = self.lock().get(name) {
            return Ok(known.clone());
        }
        let policy = if name == ROOT_NAME {
            Some(Arc::new(Policy::root()))
        } else {
            match self.read(name, txn).await? {
                // It was parsed when it was written. If this version reads it differently, granting nothing is the safe
                // side.
                Some(entry) => Some(Arc::new(Policy::parse(name, &entry.text).map_err(|e| {
                    EngineError::internal(format!("the policy {name:?} cannot be read any more: {e}"))
                })?)),
                None => None,
            }
        };
        let mut parsed = self.lock();
        // A write that was published while this one was read makes what was read stale.
        if generation == self.generation() {
            if parsed.len() >= MAX_PARSED {
                parsed.clear();
            }
            parsed.insert(name.to_owned(), policy.clone());
        }
        Ok(policy)
    }

    /// Counts the commits that touched a policy: what was compiled under another number is compiled anew.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A commit touched a policy.
    pub(crate) fn changed(&self) {
        let mut parsed = self.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        parsed.clear();
    }

    /// Whether a touched path is a policy's.
    pub(crate) fn owns(path: &StorePath) -> bool {
        matches!(path.components(), [sys, policy, _] if sys == SYS && policy == POLICIES)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<Arc<Policy>>>> {
        // A map of whole values is sound even if a thread died while it held the lock.
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(bytes: &SecretBytes) -> Result<PolicyEntry, EngineError> {
    serde_json::from_slice(bytes.expose())
        .map_err(|e| EngineError::internal(format!("a policy entry cannot be read: {e}")))
}

fn dir() -> StorePath {
    StorePath::new([SYS, POLICIES]).expect("a constant path is sound")
}

fn path(name: &str) -> Result<StorePath, EngineError> {
    Ok(dir().child(name)?)
}

const SYS: &str = "sys";
const POLICIES: &str = "policy";
/// Far more than a device has; the bound is against names made up in tokens.
const MAX_PARSED: usize = 1024;
