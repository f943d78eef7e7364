//! How many conversations each user of the gates' socket has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by user; as large as there are conversations.
#[derive(Debug, Default)]
pub(crate) struct Places {
    counts: Mutex<HashMap<u32, usize>>,
    /// Our own user: like root, it has a place whatever others hold.
    us: u32,
}

impl Places {
    pub(crate) fn new(us: u32) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), us })
    }

    /// A place for `uid`, given back by dropping it; none where that user has its share already, or where the rest is
    /// kept for those who have none yet.
    pub(crate) fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.get(&uid).copied().unwrap_or_default();
        let all: usize = counts.values().sum();
        let ours = uid == 0 || uid == self.us;
        // Not without a bound for ours either: a descriptor is a descriptor.
        let share = if ours || !host::in_force("gate-places-shared") { MAX_PLACES } else { PLACES_PER_USER };
        // Users who take all that each may would else leave nothing for the next.
        let room = if held > 0 { OPEN_PLACES } else { MAX_PLACES };
        if held >= share || (!ours && all >= room) {
            return None;
        }
        counts.insert(uid, held + 1);
        Some(Place { places: Arc::clone(self), uid })
    }
}

/// One conversation's place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// More than the services of any device; a place costs a descriptor and a few hundred bytes.
const MAX_PLACES: usize = 256;
/// Of these, so many are for anybody; in the rest each user without a conversation finds room for one.
const OPEN_PLACES: usize = 192;
/// All services of a device may run as one user, or each as its own.
const PLACES_PER_USER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, uid: u32, n: usize) -> Vec<Place> {
        (0..n).filter_map(|_| places.enter(uid)).collect()
    }

    #[test]
    fn one_user_leaves_room_for_others_and_for_us() {
        let places = Places::new(900);
        let nobody = take(&places, 65534, 300);
        assert_eq!(nobody.len(), PLACES_PER_USER);
        assert_eq!(take(&places, 1000, 1).len(), 1);
        assert_eq!((take(&places, 0, 100).len(), take(&places, 900, 100).len()), (100, 100));
        drop(nobody);
        assert!(places.counts.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn users_who_take_all_leave_one_place_each_for_those_who_have_none() {
        let places = Places::new(900);
        let held: Vec<Vec<Place>> = (2000..2010).map(|uid| take(&places, uid, 300)).collect();
        assert_eq!(held.iter().map(Vec::len).sum::<usize>(), OPEN_PLACES + 7, "three shares, then one each");
        assert_eq!(take(&places, 3000, 5).len(), 1);
        // Root is told about its gates even where a crowd of users fills the rest.
        let rest: Vec<Vec<Place>> = (4000..4100).map(|uid| take(&places, uid, 1)).collect();
        assert_eq!(rest.iter().map(Vec::len).sum::<usize>(), MAX_PLACES - OPEN_PLACES - 7);
        assert_eq!(take(&places, 0, 1).len(), 1);
    }
}
