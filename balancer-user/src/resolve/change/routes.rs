//! Which routes name a destination, and that no two routes are equal.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::super::{Destination, Resolved, Route, inventory::Family};

/// The routes of an outcome, found by what they name.
#[derive(Debug)]
pub(super) struct Routes {
    /// Destination → the routes with a backend of it, and some that had one.
    users: BTreeMap<Destination, Vec<usize>>,
    /// Of the VIPs that have the route; `None` where those are of both families: routes without
    /// reals are equal in both, and may be so no longer.
    families: Vec<Option<Family>>,
    hashes: Vec<u64>,
    /// Hash → number of routes that have it.
    known: HashMap<u64, u32>,
}

impl Routes {
    pub(super) fn new(resolved: &Resolved) -> Self {
        let mut users: BTreeMap<Destination, Vec<usize>> = BTreeMap::new();
        let mut hashes = Vec::with_capacity(resolved.routes.len());
        let mut known: HashMap<u64, u32> = HashMap::with_capacity(resolved.routes.len());
        for (index, route) in resolved.routes.iter().enumerate() {
            let requests = route.http.iter().flat_map(|http| &http.backends);
            for backend in route.backends.iter().chain(requests) {
                match users.get_mut(&backend.destination) {
                    Some(of) if of.last() == Some(&index) => {}
                    Some(of) => of.push(index),
                    None => _ = users.insert(backend.destination.clone(), vec![index]),
                }
            }
            let hash = hash_of(route);
            hashes.push(hash);
            *known.entry(hash).or_default() += 1;
        }
        let mut families: Vec<(bool, bool)> = vec![(false, false); resolved.routes.len()];
        for vip in &resolved.vips {
            let family = Family::of(vip.key.addr.ip());
            for route in std::iter::once(&vip.route).chain(vip.class_routes.values()) {
                match family {
                    Family::V4 => families[*route].0 = true,
                    Family::V6 => families[*route].1 = true,
                }
            }
        }
        let only = |both: &(bool, bool)| match both {
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            _ => None,
        };
        Self { users, families: families.iter().map(only).collect(), hashes, known }
    }

    /// The routes with a backend of this destination, and some that had one, sorted.
    pub(super) fn users(&self, destination: &Destination) -> &[usize] {
        self.users.get(destination).map_or(&[], Vec::as_slice)
    }

    /// The family of the VIPs that have a route, where it is one.
    pub(super) fn family(&self, route: usize) -> Option<Family> {
        self.families[route]
    }

    /// Puts routes in the place of those that they have come from. `None`: two might be equal
    /// now, which would be one.
    pub(super) fn replace(
        &mut self,
        resolved: &mut Resolved,
        new: Vec<(usize, Route)>,
    ) -> Option<()> {
        for (index, _) in &new {
            let hash = self.hashes[*index];
            let left = self.known.get_mut(&hash)?;
            *left -= 1;
            if *left == 0 {
                self.known.remove(&hash);
            }
        }
        for (index, route) in new {
            let hash = hash_of(&route);
            if self.known.insert(hash, 1).is_some() {
                return None;
            }
            self.hashes[index] = hash;
            let requests = route.http.iter().flat_map(|http| &http.backends);
            for backend in route.backends.iter().chain(requests) {
                let of = self.users.entry(backend.destination.clone()).or_default();
                if let Err(place) = of.binary_search(&index) {
                    of.insert(place, index);
                }
            }
            resolved.routes[index] = route;
        }
        Some(())
    }
}

fn hash_of(route: &Route) -> u64 {
    let mut hasher = DefaultHasher::new();
    route.hash(&mut hasher);
    hasher.finish()
}
