//! Which TrafficRoute wins for a source and a service (semantics 3.5).
//!
//! Routes are never merged: one wins whole. The ranking is a value with everybody in it, the
//! losers with the rule by which they lost, so that `explain` tells what was really compared.

use std::cmp::Ordering;

use crate::policy::{SERVICE_TAG, Tags, TrafficRoute, UNKNOWN_SERVICE};

/// The selector value that any present value satisfies.
pub const ANY: &str = "*";

/// How specific a selector is, or a source selector and a destination selector together.
/// Ordered by the number of tags, then by the number of exact ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rank {
    /// Tags with an exact value.
    pub exact: u32,
    /// Tags whose value is `*`.
    pub wildcard: u32,
}

impl Rank {
    /// The rank of a selector: what it asks for, whoever matches it.
    pub fn of(selector: &Tags) -> Self {
        selector.values().fold(Self::default(), |rank, value| rank + Self::of_value(value))
    }

    /// The rank of a single tag.
    pub fn of_value(value: &str) -> Self {
        if value == ANY { Self { exact: 0, wildcard: 1 } } else { Self { exact: 1, wildcard: 0 } }
    }

    /// Number of tags.
    pub fn total(self) -> u32 {
        self.exact + self.wildcard
    }
}

impl std::ops::Add for Rank {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { exact: self.exact + other.exact, wildcard: self.wildcard + other.wildcard }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.total(), self.exact).cmp(&(other.total(), other.exact))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The tags that an address has which belongs to no Dataplane of the mesh (decision D1).
pub fn unknown_source() -> Tags {
    Tags::from([(SERVICE_TAG.to_owned(), UNKNOWN_SERVICE.to_owned())])
}

/// Whether `tags` has every key of `selector`, with the same value where that is not `*`. An
/// empty selector matches everything.
pub fn selector_matches(selector: &Tags, tags: &Tags) -> bool {
    selector
        .iter()
        .all(|(key, wanted)| tags.get(key).is_some_and(|value| wanted == ANY || wanted == value))
}

/// The best rank among the selectors that match any one of `tag_sets`. Tags of two sets (two
/// inbounds) are never combined (semantics 2.3).
pub fn source_rank(selectors: &[Tags], tag_sets: &[&Tags]) -> Option<Rank> {
    selectors
        .iter()
        .filter(|selector| tag_sets.iter().any(|tags| selector_matches(selector, tags)))
        .map(Rank::of)
        .max()
}

/// The best rank among the destinations that name `service` or are `*`.
pub fn destination_rank(destinations: &[String], service: &str) -> Option<Rank> {
    destinations
        .iter()
        .filter(|name| *name == ANY || *name == service)
        .map(|name| Rank::of_value(name))
        .max()
}

/// By which rule one route goes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// Its selectors have more tags.
    MoreTags,
    /// As many tags, more of them exact.
    MoreExactTags,
    /// Equal rank, created later. A route without a creation time counts as older than any
    /// that has one.
    CreatedLater,
    /// Equal rank and age, smaller name.
    SmallerName,
}

/// Which of two matching routes goes first: `Less` if `a` does. `Equal` only for two routes of
/// one name, which a valid set does not have.
pub fn precedence(a: (&TrafficRoute, Rank), b: (&TrafficRoute, Rank)) -> (Ordering, Rule) {
    let ((route_a, rank_a), (route_b, rank_b)) = (a, b);
    let by_total = rank_b.total().cmp(&rank_a.total());
    if by_total.is_ne() {
        return (by_total, Rule::MoreTags);
    }
    let by_exact = rank_b.exact.cmp(&rank_a.exact);
    if by_exact.is_ne() {
        return (by_exact, Rule::MoreExactTags);
    }
    let age = |route: &TrafficRoute| route.meta.created.unwrap_or(f64::NEG_INFINITY);
    let by_age = age(route_b).total_cmp(&age(route_a));
    if by_age.is_ne() {
        return (by_age, Rule::CreatedLater);
    }
    let name = |route: &TrafficRoute| (route.meta.display_name.clone(), route.meta.name.clone());
    (name(route_a).cmp(&name(route_b)), Rule::SmallerName)
}

/// A route that matches the source and the service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The route.
    pub route: &'a TrafficRoute,
    /// The best of its source selectors that match.
    pub source: Rank,
    /// The best of its destination selectors that match.
    pub destination: Rank,
}

impl Candidate<'_> {
    /// What is compared: both ranks, component by component.
    pub fn rank(&self) -> Rank {
        self.source + self.destination
    }
}

/// A route that does not match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch<'a> {
    /// The route.
    pub route: &'a TrafficRoute,
    /// No source selector matches.
    pub source: bool,
    /// No destination selector matches.
    pub destination: bool,
}

/// Everybody who was considered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking<'a> {
    /// The winner; `None` where no route matches.
    pub winner: Option<Candidate<'a>>,
    /// The others that match, best first, each with the rule by which the winner goes before it.
    pub losers: Vec<(Candidate<'a>, Rule)>,
    /// Those that do not match, by name.
    pub mismatches: Vec<Mismatch<'a>>,
}

/// Ranks `routes` (all of one mesh) for a source with `tag_sets` (one for each inbound, in any
/// state, or the gateway's) that calls `service`.
pub fn rank_routes<'a>(
    routes: impl IntoIterator<Item = &'a TrafficRoute>,
    tag_sets: &[&Tags],
    service: &str,
) -> Ranking<'a> {
    let mut candidates = Vec::new();
    let mut mismatches = Vec::new();
    for route in routes {
        let source = source_rank(&route.sources, tag_sets);
        let destination = destination_rank(&route.destinations, service);
        match (source, destination) {
            (Some(source), Some(destination)) => {
                candidates.push(Candidate { route, source, destination });
            }
            _ => mismatches.push(Mismatch {
                route,
                source: source.is_none(),
                destination: destination.is_none(),
            }),
        }
    }
    candidates.sort_by(|a, b| precedence((a.route, a.rank()), (b.route, b.rank())).0);
    mismatches.sort_by(|a, b| a.route.meta.name.cmp(&b.route.meta.name));
    let mut candidates = candidates.into_iter();
    let winner = candidates.next();
    let losers = winner
        .map(|winner| {
            candidates
                .map(|loser| {
                    let of = |candidate: &Candidate<'a>| (candidate.route, candidate.rank());
                    (loser, precedence(of(&winner), of(&loser)).1)
                })
                .collect()
        })
        .unwrap_or_default();
    Ranking { winner, losers, mismatches }
}
