//! `drain.deadline`: how long connections of a draining backend may stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    compile::{Patch, Tables},
    node::Node,
};

/// Reals that are in no table any more, and since when this process knows.
#[derive(Debug, Default)]
pub(super) struct Draining {
    since: BTreeMap<SocketAddr, Instant>,
    /// Their deadline is over: they count as gone until a table names them again.
    expired: BTreeMap<SocketAddr, ()>,
}

impl Draining {
    /// Whether the deadline of any of them is over now.
    pub(super) fn due(&self, deadline: Option<Duration>) -> bool {
        let now = Instant::now();
        deadline.is_some_and(|deadline| {
            self.since.iter().any(|(real, since)| {
                now.duration_since(*since) >= deadline && !self.expired.contains_key(real)
            })
        })
    }

    /// Takes reals whose deadline is over out of the inventory of `tables`: what becomes of
    /// their connections is then the same as if they had left it (decision D15). With a `patch`
    /// only what it names can have changed; `inventory` is the one of the policies.
    pub(super) fn expire(
        &mut self,
        node: &mut Node,
        tables: &mut Tables,
        patch: Option<&Patch>,
        inventory: &[SocketAddr],
        deadline: Option<Duration>,
    ) {
        let now = Instant::now();
        if let Some(patch) = patch {
            self.note_patch(patch, tables, inventory, now);
        } else {
            match node.reals() {
                Ok(known) => self.note(&known, tables, now),
                Err(error) => {
                    warn!(%error, "cannot see which reals drain; their deadline waits");
                    return;
                }
            }
        }
        self.take_out(tables, deadline, now);
    }

    /// `known`: all reals of the maps, sorted.
    fn note(&mut self, known: &[SocketAddr], tables: &Tables, now: Instant) {
        let named: BTreeSet<SocketAddr> = tables.reals.values().map(|real| real.addr).collect();
        let drains = |real: &SocketAddr| !named.contains(real);
        self.since.retain(|real, _| drains(real) && known.binary_search(real).is_ok());
        for real in known.iter().copied().filter(drains) {
            self.since.entry(real).or_insert(now);
        }
        self.expired.retain(|real, ()| self.since.contains_key(real));
    }

    /// Reals that the maps do not have any more stay noted until the next look at all of them.
    fn note_patch(
        &mut self,
        patch: &Patch,
        tables: &mut Tables,
        inventory: &[SocketAddr],
        now: Instant,
    ) {
        for (_, real) in &patch.reals_removed {
            self.since.entry(*real).or_insert(now);
        }
        for real in patch.reals_added.iter().filter_map(|id| tables.reals.get(id)) {
            self.since.remove(&real.addr);
            if self.expired.remove(&real.addr).is_some()
                && inventory.binary_search(&real.addr).is_ok()
                && let Err(at) = tables.inventory.binary_search(&real.addr)
            {
                tables.inventory.insert(at, real.addr);
            }
        }
    }

    fn take_out(&mut self, tables: &mut Tables, deadline: Option<Duration>, now: Instant) {
        let Some(deadline) = deadline else {
            self.expired.clear();
            return;
        };
        for (real, since) in &self.since {
            if now.duration_since(*since) >= deadline
                && self.expired.insert(*real, ()).is_none()
                && tables.inventory.binary_search(real).is_ok()
            {
                info!(real = %real, "its time to drain is over: its connections are reset");
            }
        }
        if !self.expired.is_empty() {
            tables.inventory.retain(|real| !self.expired.contains_key(real));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::RealSpec;

    fn tables(named: &[SocketAddr], inventory: &[SocketAddr]) -> Tables {
        Tables {
            reals: (2..)
                .zip(named)
                .map(|(id, addr)| (id, RealSpec { addr: *addr, generation: 1 }))
                .collect(),
            inventory: inventory.to_vec(),
            ..Tables::default()
        }
    }

    #[test]
    fn a_draining_real_counts_as_gone_once_its_deadline_is_over() {
        let reals: Vec<SocketAddr> =
            (1..=2).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
        let deadline = Some(Duration::from_secs(60));
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut draining = Draining::default();
        let inventory_at = |draining: &mut Draining, named: &[SocketAddr], seconds| {
            let mut tables = tables(named, &reals);
            draining.note(&reals, &tables, after(seconds));
            draining.take_out(&mut tables, deadline, after(seconds));
            tables.inventory
        };
        assert_eq!(inventory_at(&mut draining, &reals, 0), reals);
        assert_eq!(inventory_at(&mut draining, &reals[..1], 10), reals, "begins to drain");
        assert_eq!(inventory_at(&mut draining, &reals[..1], 69), reals);
        assert_eq!(inventory_at(&mut draining, &reals[..1], 70), reals[..1], "over");
        assert_eq!(inventory_at(&mut draining, &reals[..1], 71), reals[..1], "stays so");
        assert_eq!(inventory_at(&mut draining, &reals, 80), reals, "named again");
        assert_eq!(inventory_at(&mut draining, &reals[..1], 90), reals, "drains anew");
    }

    #[test]
    fn a_small_change_lets_a_real_drain_and_takes_it_back() {
        let reals: Vec<SocketAddr> =
            (1..=2).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
        let deadline = Some(Duration::from_secs(60));
        let begun = Instant::now();
        let mut draining = Draining::default();
        let mut at = |tables: &mut Tables, patch: &Patch, seconds| {
            let now = begun + Duration::from_secs(seconds);
            draining.note_patch(patch, tables, &reals, now);
            draining.take_out(tables, deadline, now);
            tables.inventory.clone()
        };
        let mut tables = tables(&reals, &reals);
        let spec = tables.reals.remove(&3).unwrap();
        let goes = Patch { reals_removed: vec![(3, reals[1])], ..Patch::default() };
        let (none, comes) = (Patch::default(), Patch { reals_added: vec![3], ..Patch::default() });
        assert_eq!(at(&mut tables, &goes, 10), reals, "begins to drain");
        assert_eq!(at(&mut tables, &none, 69), reals);
        assert_eq!(at(&mut tables, &none, 70), reals[..1], "over");
        tables.reals.insert(3, spec);
        assert_eq!(at(&mut tables, &comes, 80), reals, "named again");
        tables.reals.remove(&3);
        assert_eq!(at(&mut tables, &goes, 90), reals, "drains anew");
        assert_eq!(at(&mut tables, &none, 150), reals[..1]);
    }

    #[test]
    fn without_a_deadline_a_real_drains_as_long_as_it_likes() {
        let reals = [SocketAddr::from(([10, 0, 0, 1], 80))];
        let mut draining = Draining::default();
        for hours in 0..100 {
            let mut tables = tables(&[], &reals);
            let now = Instant::now() + Duration::from_secs(3600 * hours);
            draining.note(&reals, &tables, now);
            draining.take_out(&mut tables, None, now);
            assert_eq!(tables.inventory, reals);
        }
        assert!(!draining.due(None));
    }
}
