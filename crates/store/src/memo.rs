//! Hidden paths that were worked out lately.
//!
//! Hiding a path costs one GCM-SIV a component, which is most of what a cached read costs. Names are no secrets to
//! whoever can read this memory, for the name key lies in it too; values are never kept here. Dropped with the keys on
//! seal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::StorePath;
use crate::lock::lock;
use crate::names::HiddenPath;

/// Two generations: what is asked for again moves to the young one; when that is full, it becomes the old one.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<StorePath, Arc<HiddenPath>>,
    old: HashMap<StorePath, Arc<HiddenPath>>,
}

impl Memo {
    /// The hidden form of `path`, from memory or from `hide`.
    pub(crate) fn hidden(
        &self,
        path: &StorePath,
        hide: impl FnOnce() -> Option<HiddenPath>,
    ) -> Option<Arc<HiddenPath>> {
        let mut memory = lock(&self.0);
        if let Some(known) = memory.young.get(path) {
            return Some(Arc::clone(known));
        }
        let from_old = memory.old.remove(path);
        drop(memory);
        let hidden = match from_old {
            Some(known) => known,
            None => Arc::new(hide()?),
        };
        if path.components().iter().map(String::len).sum::<usize>() <= MAX_PATH_BYTES {
            lock(&self.0).keep(path.clone(), Arc::clone(&hidden));
        }
        Some(hidden)
    }
}

impl Generations {
    fn keep(&mut self, path: StorePath, hidden: Arc<HiddenPath>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path, hidden);
    }
}

/// Paths in one generation: with [`MAX_PATH_BYTES`] at most 4 MiB in all, and a tenth of that with ordinary names.
const GENERATION: usize = 1024;
/// Longer paths are worked out each time.
const MAX_PATH_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Names;

    #[test]
    fn answers_as_hiding_does_and_stays_within_its_bounds() {
        let names = Names::new([1; 16], &[2; 32]);
        let memo = Memo::default();
        let path = |n: usize| StorePath::new(["dir".to_owned(), format!("{n}")]).unwrap();
        for n in (0..5000).chain(4000..5000).chain(0..10) {
            let hidden = memo.hidden(&path(n), || names.hide(&path(n))).unwrap();
            assert_eq!(hidden.entry, names.hide(&path(n)).unwrap().entry);
        }
        let memory = lock(&memo.0);
        assert!(memory.young.len() <= GENERATION && memory.old.len() <= GENERATION);
    }

    #[test]
    fn what_is_known_is_not_worked_out_again() {
        let names = Names::new([1; 16], &[2; 32]);
        let memo = Memo::default();
        let path = StorePath::new(["a"]).unwrap();
        memo.hidden(&path, || names.hide(&path)).unwrap();
        memo.hidden(&path, || unreachable!()).unwrap();
        let long = StorePath::new(["x".repeat(MAX_PATH_BYTES + 1)]).unwrap();
        memo.hidden(&long, || names.hide(&long)).unwrap();
        assert!(memo.hidden(&long, || None).is_none(), "a long path is not kept");
        assert!(memo.hidden(&StorePath::new([""; 0]).unwrap(), || None).is_none(), "nor the root, which has no entry");
    }
}
