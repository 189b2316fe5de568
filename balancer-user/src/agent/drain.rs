//! `drain.deadline`: how long connections of a draining backend may stay.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{compile::Tables, node::Node};

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
    /// their connections is then the same as if they had left it (decision D15).
    pub(super) fn expire(
        &mut self,
        node: &mut Node,
        tables: &mut Tables,
        deadline: Option<Duration>,
    ) {
        match node.reals() {
            Ok(known) => self.note(&known, tables, deadline, Instant::now()),
            Err(error) => warn!(%error, "cannot see which reals drain; their deadline waits"),
        }
    }

    fn note(
        &mut self,
        known: &[SocketAddr],
        tables: &mut Tables,
        deadline: Option<Duration>,
        now: Instant,
    ) {
        let named: std::collections::BTreeSet<SocketAddr> =
            tables.reals.values().map(|real| real.addr).collect();
        let drains = |real: &SocketAddr| !named.contains(real);
        self.since.retain(|real, _| drains(real) && known.contains(real));
        for real in known.iter().copied().filter(drains) {
            self.since.entry(real).or_insert(now);
        }
        let Some(deadline) = deadline else {
            self.expired.clear();
            return;
        };
        self.expired.retain(|real, ()| self.since.contains_key(real));
        for (real, since) in &self.since {
            if now.duration_since(*since) >= deadline
                && self.expired.insert(*real, ()).is_none()
                && tables.inventory.contains(real)
            {
                info!(real = %real, "its time to drain is over: its connections are reset");
            }
        }
        tables.inventory.retain(|real| !self.expired.contains_key(real));
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
            draining.note(&reals, &mut tables, deadline, after(seconds));
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
    fn without_a_deadline_a_real_drains_as_long_as_it_likes() {
        let reals = [SocketAddr::from(([10, 0, 0, 1], 80))];
        let mut draining = Draining::default();
        for hours in 0..100 {
            let mut tables = tables(&[], &reals);
            let now = Instant::now() + Duration::from_secs(3600 * hours);
            draining.note(&reals, &mut tables, None, now);
            assert_eq!(tables.inventory, reals);
        }
        assert!(!draining.due(None));
    }
}
