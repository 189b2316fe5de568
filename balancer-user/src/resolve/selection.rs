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

#[cfg(test)]
mod tests {
    use super::{Rank, Rule, rank_routes, selector_matches, unknown_source};
    use crate::{
        policy::{Tags, TrafficRoute},
        resolve::tests::world::{route, tags},
    };

    /// The routes A to E of semantics 3.5.
    fn table() -> [TrafficRoute; 5] {
        [
            route("a").from("service=*").to("*"),
            route("b").from("service=web").to("*"),
            route("c").from("service=*").to("redis"),
            route("d").from("service=web").to("redis"),
            route("e").from("service=*,version=*").to("*"),
        ]
    }

    fn ranked<'a>(routes: &'a [TrafficRoute], of: &str) -> Vec<(&'a str, Rank)> {
        let tags = tags(of);
        let ranking = rank_routes(routes, &[&tags], "redis");
        ranking
            .winner
            .into_iter()
            .chain(ranking.losers.into_iter().map(|(loser, _)| loser))
            .map(|candidate| (candidate.route.meta.name.as_str(), candidate.rank()))
            .collect()
    }

    fn rank(total: u32, exact: u32) -> Rank {
        Rank { exact, wildcard: total - exact }
    }

    #[test]
    fn table_a_to_e_ranks_as_written() {
        assert_eq!(
            ranked(&table(), "service=web,version=v1"),
            [
                ("e", rank(3, 0)),
                ("d", rank(2, 2)),
                ("b", rank(2, 1)),
                ("c", rank(2, 1)),
                ("a", rank(2, 0))
            ]
        );
        assert_eq!(
            ranked(&table(), "service=web"),
            [("d", rank(2, 2)), ("b", rank(2, 1)), ("c", rank(2, 1)), ("a", rank(2, 0))],
            "without a version tag the wildcard for it does not match"
        );
        assert_eq!(ranked(&table(), "service=batch"), [("c", rank(2, 1)), ("a", rank(2, 0))]);
    }

    #[test]
    fn tie_of_b_and_c_goes_to_the_later_then_to_the_smaller_name() {
        let [_, b, c, ..] = table();
        let winner = |routes: &[TrafficRoute]| {
            let tags = tags("service=web");
            let ranking = rank_routes(routes, &[&tags], "redis");
            (ranking.winner.unwrap().route.meta.name.clone(), ranking.losers[0].1)
        };
        let won = |name: &str, rule| (name.to_owned(), rule);
        let (older, newer) = (b.clone().created(5.0), c.clone().created(5.000_000_1));
        assert_eq!(winner(&[older.clone(), newer.clone()]), won("c", Rule::CreatedLater));
        assert_eq!(winner(&[newer, older.clone()]), won("c", Rule::CreatedLater));
        assert_eq!(winner(&[older.clone(), c.clone().created(5.0)]), won("b", Rule::SmallerName));
        assert_eq!(winner(&[c.clone(), b]), won("b", Rule::SmallerName));
        assert_eq!(
            winner(&[c, older]),
            won("b", Rule::CreatedLater),
            "without a creation time a route counts as older"
        );
    }

    #[test]
    fn losers_tell_by_which_rule() {
        let tags = tags("service=web,version=v1");
        let table = table();
        let rules: Vec<Rule> =
            rank_routes(&table, &[&tags], "redis").losers.iter().map(|(_, rule)| *rule).collect();
        assert_eq!(rules, [Rule::MoreTags; 4]);
        let rules: Vec<Rule> = rank_routes(&table[..4], &[&tags], "redis")
            .losers
            .iter()
            .map(|(_, rule)| *rule)
            .collect();
        assert_eq!(rules, [Rule::MoreExactTags; 3]);
    }

    #[test]
    fn mismatches_tell_which_side_did_not_match() {
        let routes = [
            route("x").from("service=web").to("db"),
            route("y").from("service=batch").to("redis"),
            route("z").from("service=batch").to("db"),
        ];
        let tags = tags("service=web");
        let ranking = rank_routes(&routes, &[&tags], "redis");
        assert!(ranking.winner.is_none());
        let sides: Vec<(bool, bool)> = ranking
            .mismatches
            .iter()
            .map(|mismatch| (mismatch.source, mismatch.destination))
            .collect();
        assert_eq!(sides, [(false, true), (true, false), (true, true)]);
    }

    #[test]
    fn best_selector_counts_not_their_number() {
        let many = route("many")
            .from("service=*")
            .from("service=web")
            .from("version=v9")
            .to("*")
            .to("redis");
        let tags = tags("service=web");
        let ranking = rank_routes([&many], &[&tags], "redis");
        let winner = ranking.winner.unwrap();
        assert_eq!((winner.source, winner.destination), (rank(1, 1), rank(1, 1)));
    }

    #[test]
    fn wildcard_needs_the_key_and_nothing_matches_everything() {
        let web = tags("service=web");
        assert!(selector_matches(&tags("service=*"), &web));
        assert!(!selector_matches(&tags("version=*"), &web));
        assert!(!selector_matches(&tags("service=we"), &web));
        assert!(selector_matches(&Tags::new(), &web));
        assert!(selector_matches(&tags("service=*"), &unknown_source()));
    }

    #[test]
    fn workload_without_tags_matches_no_selector() {
        let all = route("all").from("service=*").to("*");
        assert!(rank_routes([&all], &[], "redis").winner.is_none());
    }
}
