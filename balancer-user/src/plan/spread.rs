//! How a table spreads connections over reals, and how much of it two tables share.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::Serialize;

use crate::compile::{Table, Tables};

/// How much of a table names another real than before. Refused shares (blackholes) count as a
/// real of their own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Slots that name another real; `null` where the two tables have different sizes.
    pub slots: Option<u32>,
    /// The part of all hash values whose slot names another real, 0 to 1: exact also between
    /// sizes.
    pub share: f64,
    /// The least that `share` can be: what the reals that gain gain.
    pub least: f64,
    /// Connections are found again by their slot: those without a flow entry move with it.
    /// Otherwise slots only carry shares, and nothing that lives depends on which is whose.
    pub by_hash: bool,
}

/// The reals of a table's targets, by ordinal; `None`: a blackhole.
pub(super) fn reals(tables: &Tables, table: &Table) -> Vec<Option<SocketAddr>> {
    let addr = |real| tables.reals.get(&real).map(|spec| spec.addr);
    table.targets.iter().map(|target| addr(target.real)).collect()
}

/// Slots of each target, by ordinal.
pub(super) fn slots_per_target(table: &Table) -> Vec<u32> {
    let mut slots = vec![0; table.targets.len()];
    for slot in table.slots.iter() {
        slots[usize::from(*slot)] += 1;
    }
    slots
}

/// A table and the reals of its targets.
pub(super) struct Spread<'a> {
    pub(super) table: &'a Table,
    pub(super) reals: Vec<Option<SocketAddr>>,
}

impl<'a> Spread<'a> {
    pub(super) fn new(tables: &Tables, table: &'a Table) -> Self {
        Self { table, reals: reals(tables, table) }
    }

    fn real(&self, slot: usize) -> Option<SocketAddr> {
        self.reals[usize::from(self.table.slots[slot])]
    }

    /// The part of the slots that each real has.
    fn shares(&self) -> BTreeMap<Option<SocketAddr>, f64> {
        let all = self.table.slots.len() as f64;
        let mut counts: BTreeMap<_, u32> = BTreeMap::new();
        for (real, slots) in self.reals.iter().zip(slots_per_target(self.table)) {
            *counts.entry(*real).or_insert(0) += slots;
        }
        counts.into_iter().map(|(real, slots)| (real, f64::from(slots) / all)).collect()
    }
}

/// Compares two tables slot by slot.
pub(super) fn moved(before: &Spread<'_>, after: &Spread<'_>, by_hash: bool) -> Moved {
    let (old, new) = (before.shares(), after.shares());
    let gained = new.iter().map(|(real, share)| share - old.get(real).copied().unwrap_or(0.0));
    let least: f64 = gained.filter(|gain| *gain > 0.0).sum();
    let sizes = (before.table.slots.len(), after.table.slots.len());
    if sizes.0 == sizes.1 {
        let slots = (0..sizes.0).filter(|&slot| before.real(slot) != after.real(slot)).count();
        let share = slots as f64 / sizes.0.max(1) as f64;
        return Moved { slots: Some(slots as u32), share, least: least.min(share), by_hash };
    }
    let share = share_between_sizes(before, after);
    Moved { slots: None, share, least: least.min(share), by_hash }
}

/// The part of the hashes that find another real: both tables divide the range of hashes into
/// stretches ([`balancer_ebpf::hash::slot`]), which are walked together.
fn share_between_sizes(before: &Spread<'_>, after: &Spread<'_>) -> f64 {
    const HASHES: u64 = 1 << 32;
    /// The first hash behind a slot.
    fn end(slot: usize, slots: usize) -> u64 {
        ((slot as u64 + 1) << 32).div_ceil(slots as u64)
    }
    let (mut old, mut new, mut at, mut moved) = (0, 0, 0, 0);
    while at < HASHES {
        let ends = (end(old, before.table.slots.len()), end(new, after.table.slots.len()));
        let next = ends.0.min(ends.1);
        if before.real(old) != after.real(new) {
            moved += next - at;
        }
        old += usize::from(ends.0 == next);
        new += usize::from(ends.1 == next);
        at = next;
    }
    moved as f64 / HASHES as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use balancer_ebpf::{abi::TargetWord, hash};
    use proptest::prelude::*;

    use super::*;

    fn spread(reals: u8, slots: Vec<u16>) -> (Arc<Table>, Vec<Option<SocketAddr>>) {
        let real = |n: u8| Some(SocketAddr::from(([10, 0, 0, n], 80)));
        let targets = (0..reals).map(|n| TargetWord { real: 2 + u32::from(n), backend: 0 });
        let table = Table {
            backends: vec![0],
            runs: vec![(0, 0)],
            targets: targets.collect(),
            slots: slots.into(),
        };
        (Arc::new(table), (0..reals).map(real).collect())
    }

    #[test]
    fn slots_of_equal_tables_are_counted_one_by_one() {
        let (a, reals) = spread(3, vec![0, 0, 1, 1, 2]);
        let (b, _) = spread(3, vec![0, 1, 1, 1, 0]);
        let moved =
            moved(&Spread { table: &a, reals: reals.clone() }, &Spread { table: &b, reals }, true);
        assert_eq!(moved.slots, Some(2));
        assert!(
            (moved.share - 0.4).abs() < 1e-12 && (moved.least - 0.2).abs() < 1e-12,
            "{moved:?}"
        );
    }

    proptest! {
        /// The walk over stretches says what trying hashes says.
        #[test]
        fn share_between_sizes_is_that_of_hashes_tried(
            a in prop::collection::vec(0..3u16, 2..40), b in prop::collection::vec(0..3u16, 41..90)
        ) {
            let (a, reals) = spread(3, a);
            let (b, _) = spread(3, b);
            let (a, b) =
                (Spread { table: &a, reals: reals.clone() }, Spread { table: &b, reals });
            let share = share_between_sizes(&a, &b);
            let tried = 65_536u32;
            let slot = |hash, spread: &Spread<'_>| {
                spread.real(hash::slot(hash, spread.table.slots.len() as u32) as usize)
            };
            let differ = (0..tried)
                .map(|n| n << 16 | 0x8000)
                .filter(|&hash| slot(hash, &a) != slot(hash, &b))
                .count();
            // Each border between stretches is off by one of the hashes tried at most.
            let off = (share - differ as f64 / f64::from(tried)).abs();
            prop_assert!(off <= 130.0 / f64::from(tried), "{share} is not {differ} of {tried}");
        }
    }
}
