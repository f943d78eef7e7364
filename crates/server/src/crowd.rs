//! How many connections each address has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by address; as large as there are connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::new(HashMap::new()) })
    }

    /// A place for one more connection from `address`, given back by dropping it. Loopback is not limited: behind it stand
    /// many services, or one proxy for all.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if !address.is_loopback() {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Place { crowd: Arc::clone(self), address })
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others() {
        let crowd = Crowd::new(2);
        let [a, b, local] = ["10.0.0.1", "::ffff:10.0.0.2", "127.0.0.1"].map(|t| t.parse::<IpAddr>().unwrap());
        let held = [crowd.enter(a), crowd.enter(a)];
        assert!(held.iter().all(Option::is_some));
        assert!(crowd.enter(a).is_none());
        assert!(crowd.enter(b).is_some());
        assert_eq!((0..9).map(|_| crowd.enter(local)).filter(Option::is_some).count(), 9);
        drop(held);
        assert!(crowd.enter(a).is_some());
        assert!(crowd.counts.lock().unwrap().is_empty(), "an address that left is forgotten");
    }
}
