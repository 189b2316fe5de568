//! Who wins for one source and one destination, with everybody who was considered.

use super::{
    super::{Destination, objects::Objects},
    Item, Nobody, Proxy, Rule, Spoken, ToPolicy, precedence,
    speaks::{keys, keys_of},
    target::Clause,
};

/// A policy that does not match.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch<'a, P> {
    /// The policy.
    pub policy: &'a P,
    /// It does not concern this source.
    pub source: bool,
    /// It does not speak of this destination.
    pub destination: bool,
    /// It concerns nobody at all.
    pub nobody: Option<Nobody>,
}

/// Everybody who was considered.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking<'a, P> {
    /// The item that goes first; `None` where no policy matches.
    pub winner: Option<Item<'a, P>>,
    /// The others that match, in order, each with the rule by which the first goes before it. Of
    /// kinds that are merged they add what the first leaves open.
    pub losers: Vec<(Item<'a, P>, Rule)>,
    /// Policies that do not match, by name.
    pub mismatches: Vec<Mismatch<'a, P>>,
}

impl<'a, P> Ranking<'a, P> {
    /// All items that match, in order.
    pub fn in_order(&self) -> Vec<Item<'a, P>> {
        self.winner.iter().chain(self.losers.iter().map(|(item, _)| item)).copied().collect()
    }
}

/// The items of `policies` that speak of requests which MeshHTTPRoutes take, and concern this
/// workload, in order.
pub fn of_http_routes<'a, P: ToPolicy>(
    policies: impl IntoIterator<Item = &'a P>,
    zone: Option<&str>,
    workload: &[Proxy<'_>],
) -> Vec<Item<'a, P>> {
    let concerns = |policy: &&P| Clause::of(*policy, zone).is_ok_and(|c| c.matches(workload));
    let mut items: Vec<Item<'a, P>> = policies
        .into_iter()
        .filter(concerns)
        .flat_map(|policy| (0..policy.to().len()).map(move |index| Item { policy, index }))
        .filter(|item| matches!(item.spoken(), Spoken::HttpRoute(_)))
        .collect();
    items.sort_by(|a, b| precedence(a, b).0);
    items
}

/// Ranks `policies` (all of one mesh) for a workload that connects to `called`. `zone` is this
/// node's, where it has one.
pub fn rank<'a, P: ToPolicy>(
    policies: impl IntoIterator<Item = &'a P>,
    objects: &Objects<'a>,
    zone: Option<&str>,
    workload: &[Proxy<'_>],
    called: &Destination,
) -> Ranking<'a, P> {
    let wanted = keys_of(called);
    let mut candidates: Vec<Item<'a, P>> = Vec::new();
    let mut mismatches = Vec::new();
    for policy in policies {
        let clause = Clause::of(policy, zone);
        let source = clause.as_ref().is_ok_and(|clause| clause.matches(workload));
        let speaking: Vec<Item<'a, P>> = (0..policy.to().len())
            .map(|index| Item { policy, index })
            .filter(|item| keys(item, objects).iter().any(|key| wanted.contains(key)))
            .collect();
        if source && !speaking.is_empty() {
            candidates.extend(speaking);
        } else {
            mismatches.push(Mismatch {
                policy,
                source: !source,
                destination: speaking.is_empty(),
                nobody: clause.err(),
            });
        }
    }
    candidates.sort_by(|a, b| precedence(a, b).0);
    mismatches.sort_by(|a, b| a.policy.meta().name.cmp(&b.policy.meta().name));
    let mut candidates = candidates.into_iter();
    let winner = candidates.next();
    let losers = match &winner {
        Some(winner) => candidates.map(|loser| (loser, precedence(winner, &loser).1)).collect(),
        None => Vec::new(),
    };
    Ranking { winner, losers, mismatches }
}
