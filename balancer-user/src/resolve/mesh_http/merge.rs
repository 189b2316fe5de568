//! Rules of several policies made one list (semantics 4.6).

use std::collections::{HashMap, HashSet};

use super::Item;
use crate::policy::{
    BackendRef, MeshHttpRule,
    http_route::{Located, RequestMatch, RouteFilter},
};

/// A rule that policies give together.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The item that goes first among those with these matches.
    pub item: Item<'a>,
    /// Its rule.
    pub rule: &'a MeshHttpRule,
    /// Its filters, else those of the next item that says some, with that item.
    pub filters: Option<(Item<'a>, &'a [Located<RouteFilter<BackendRef>>])>,
    /// Its backends, likewise; `None`: the service that is called.
    pub backends: Option<Given<'a>>,
}

/// `backendRefs` of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The item that gives them.
    pub item: Item<'a>,
    /// The index of the rule in the item.
    pub rule: usize,
    /// Themselves.
    pub backends: &'a [BackendRef],
}

/// Merges the rules of `items`, of which the first goes before the second and so on. Rules are
/// one where their lists of matches are equal; filters and backends are then taken whole from the
/// first that says some, each for itself. They stay in the order of items, those of one item in
/// written order; of two with equal matches in one item the first counts.
pub fn merge<'a>(items: &[Item<'a>]) -> Vec<Merged<'a>> {
    let mut merged: Vec<Merged<'a>> = Vec::new();
    // Only asked, never walked: its order does not matter.
    let mut places: HashMap<Vec<&'a RequestMatch>, usize> = HashMap::new();
    for item in items {
        let mut own = HashSet::new();
        for (index, rule) in item.to().rules.iter().enumerate() {
            let matches = rule.matches.iter().map(|one| &one.value).collect();
            let place = *places.entry(matches).or_insert_with(|| {
                merged.push(Merged { item: *item, rule, filters: None, backends: None });
                merged.len() - 1
            });
            if own.insert(place) {
                let one = &mut merged[place];
                one.filters = one.filters.or(rule.filters.as_deref().map(|all| (*item, all)));
                let given = |backends| Given { item: *item, rule: index, backends };
                one.backends = one.backends.or(rule.backends.as_deref().map(given));
            }
        }
    }
    merged
}
