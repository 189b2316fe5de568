//! Who has which class before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Side;

/// Class ids of the same sources before and after.
pub(super) type Pair = (u32, u32);

/// Every source of either side with its Dataplanes, `MESH/NAME`.
pub(super) fn dataplanes(before: Side<'_>, after: Side<'_>) -> BTreeMap<IpAddr, Vec<String>> {
    let mut named = BTreeMap::new();
    // Those of the set after are the ones that people know.
    for source in before.resolved.sources.iter().chain(&after.resolved.sources) {
        let names = source.dataplanes.iter().map(|(mesh, name)| format!("{mesh}/{name}"));
        named.insert(source.address, names.collect());
    }
    named
}

/// The classes of one address.
pub(super) fn pair_of(before: Side<'_>, after: Side<'_>, address: &IpAddr) -> Pair {
    let class = |side: Side<'_>| side.tables.sources.get(address).map_or(0, |source| source.class);
    (class(before), class(after))
}

/// The pairs of classes that sources have, each with its Dataplanes. Everybody else's, (0, 0),
/// is always there.
pub(super) struct Pairs {
    dataplanes: BTreeMap<Pair, Vec<String>>,
    by_before: BTreeMap<u32, Vec<Pair>>,
    by_after: BTreeMap<u32, Vec<Pair>>,
}

impl Pairs {
    pub(super) fn new(before: Side<'_>, after: Side<'_>) -> Self {
        let mut pairs = Self {
            dataplanes: BTreeMap::new(),
            by_before: BTreeMap::new(),
            by_after: BTreeMap::new(),
        };
        for (address, names) in dataplanes(before, after) {
            let pair = pair_of(before, after, &address);
            pairs.dataplanes.entry(pair).or_default().extend(names);
        }
        pairs.dataplanes.remove(&(0, 0));
        for names in pairs.dataplanes.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        for pair in pairs.dataplanes.keys() {
            pairs.by_before.entry(pair.0).or_default().push(*pair);
            pairs.by_after.entry(pair.1).or_default().push(*pair);
        }
        pairs
    }

    /// The pairs whose route to a VIP may differ from everybody's: one of their classes has a
    /// route of its own.
    pub(super) fn with_own(
        &self,
        before: impl Iterator<Item = u32>,
        after: impl Iterator<Item = u32>,
    ) -> BTreeSet<Pair> {
        let old = before.filter_map(|class| self.by_before.get(&class));
        let new = after.filter_map(|class| self.by_after.get(&class));
        old.chain(new).flatten().copied().collect()
    }

    /// Whose pair it is.
    pub(super) fn names(&self, pair: Pair) -> Vec<String> {
        match self.dataplanes.get(&pair) {
            Some(names) => names.clone(),
            None => vec!["*".to_owned()],
        }
    }
}
