//! How many connections each asker has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::Limits;

/// Who is at the other end, as far as it can be told before a byte is read: what one of them takes is bounded, so that
/// the next one finds room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// An address of version 4.
    V4(Ipv4Addr),
    /// The first half of an address of version 6: who has one address of it has them all (RFC 4291, 2.5.4).
    V6([u16; 4]),
    /// Something on this machine, over TCP: a service, or one proxy for all of them.
    Loopback,
    /// A user of this machine, over a Unix socket.
    User(u32),
}

impl Asker {
    /// Who is at `address`.
    pub(crate) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            local if local.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Counts by asker; as large as there are connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    per_address: usize,
    loopback: usize,
    per_user: usize,
    /// Of all users together, beyond which only whoever has no connection gets one.
    users: usize,
    counts: Mutex<HashMap<Asker, usize>>,
}

impl Crowd {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            per_address: limits.connections_per_address,
            loopback: limits.loopback_connections,
            per_user: limits.connections_per_user,
            users: limits.socket_connections - limits.socket_connections / NEWCOMERS_SHARE,
            counts: Mutex::new(HashMap::new()),
        })
    }

    /// A place for one more connection of `asker`, given back by dropping it.
    pub(crate) fn enter(self: &Arc<Self>, asker: Asker) -> Option<Place> {
        let most = match asker {
            Asker::V4(_) | Asker::V6(_) => self.per_address,
            Asker::Loopback => self.loopback,
            Asker::User(_) => self.per_user,
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_users = || counts.iter().filter(|(a, _)| matches!(a, Asker::User(_))).map(|(_, n)| n).sum::<usize>();
        // Two users who take all that each may would else leave nothing for a third.
        let held = counts.get(&asker).copied().unwrap_or_default();
        let crowded = matches!(asker, Asker::User(_)) && held > 0 && of_users() >= self.users;
        if (held >= most || crowded) && host::in_force("askers-bounded") {
            return None;
        }
        let count = counts.entry(asker).or_insert(0);
        *count += 1;
        Some(Place { crowd: Arc::clone(self), asker })
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    asker: Asker,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.asker) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.asker);
            }
        }
    }
}

/// Of the API socket's places: one in so many is for users who have no connection yet, each of whom gets one there.
const NEWCOMERS_SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Asker {
        Asker::at(address.parse().unwrap())
    }

    fn crowd() -> Arc<Crowd> {
        let limits = Limits {
            connections_per_address: 2,
            loopback_connections: 3,
            connections_per_user: 1,
            ..Limits::default()
        };
        Crowd::new(&limits)
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let crowd = crowd();
        let [a, b] = ["10.0.0.1", "::ffff:10.0.0.2"].map(at);
        let held = [crowd.enter(a), crowd.enter(a)];
        assert!(held.iter().all(Option::is_some));
        assert!(crowd.enter(a).is_none());
        assert!(crowd.enter(b).is_some());
        assert_eq!(at("::ffff:10.0.0.1"), a);
        drop(held);
        assert!(crowd.enter(a).is_some());
        assert!(crowd.counts.lock().unwrap().is_empty(), "an address that left is forgotten");
    }

    #[test]
    fn the_addresses_of_one_network_of_version_6_are_one_asker() {
        let crowd = crowd();
        let held = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map(|a| crowd.enter(at(a)));
        assert!(held.iter().all(Option::is_some));
        assert!(crowd.enter(at("2001:db8:1:2:3:4:5:6")).is_none());
        assert!(crowd.enter(at("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn two_users_who_take_all_leave_places_for_those_who_have_none() {
        let limits = Limits { socket_connections: 16, connections_per_user: 8, ..Limits::default() };
        let crowd = Crowd::new(&limits);
        let held: Vec<_> = (0..16).filter_map(|n| crowd.enter(Asker::User(1000 + n % 2))).collect();
        assert_eq!(held.len(), 14);
        let first = [2000, 2001].map(|uid| crowd.enter(Asker::User(uid)));
        assert!(first.iter().all(Option::is_some));
        assert!(crowd.enter(Asker::User(2000)).is_none(), "one each, while it is crowded");
        drop(held);
        assert!(crowd.enter(Asker::User(2000)).is_some());
    }

    #[test]
    fn users_of_the_socket_leave_room_for_each_other_and_loopback_for_the_network() {
        let crowd = crowd();
        let user = crowd.enter(Asker::User(65534));
        assert!(user.is_some());
        assert!(crowd.enter(Asker::User(65534)).is_none());
        assert!(crowd.enter(Asker::User(2002)).is_some());
        let held = ["127.0.0.1", "127.77.2.1", "::1"].map(|a| crowd.enter(at(a)));
        assert!(held.iter().all(Option::is_some));
        assert!(crowd.enter(at("127.0.0.2")).is_none());
        assert!(crowd.enter(at("10.0.0.1")).is_some());
    }
}
