//! What changes about the HTTP rules of a route: for each match, which is what people know a rule
//! by, who takes its requests before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::Both;
use crate::{
    http::{Destination, Listed, Match, Router, Rule},
    policy::Tags,
    resolve::{HttpRules, PolicyRef, tags_text},
};

/// The HTTP rules of a route, before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleChanges {
    /// How many rules tell requests apart; `null`: each connection is decided as a whole.
    pub rules: Both<Option<usize>>,
    /// Matches that change, in the order in which they are tried afterwards; those that go stand
    /// last.
    pub changed: Vec<RuleChange>,
    /// Matches that stay as they are.
    pub unchanged: usize,
}

/// What becomes of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleFate {
    /// Only the set after has it.
    Added,
    /// Only the set before has it.
    Removed,
    /// Its requests meet something else.
    Changed,
    /// All that changes is before or behind which others it is tried.
    Moved,
}

/// A match of an HTTP rule before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleChange {
    /// What becomes of it.
    pub change: RuleFate,
    /// The hosts that it is for: a name, `*.` and a name, or `*`.
    pub hostname: String,
    /// What it asks for; `null`: what takes the requests that are left.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// Its place among all, from 1; `null`: not there.
    pub place: Both<Option<usize>>,
    /// The policy that gives its rule.
    pub policy: Both<Option<PolicyRef>>,
    /// What is done with its requests, a line for each filter.
    pub filters: Both<Vec<String>>,
    /// Who takes them, those of the set after first.
    pub backends: Vec<RuleBackend>,
}

/// A backend of an HTTP rule before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleBackend {
    /// What it names; empty for a reference that names nothing.
    pub service: String,
    /// The tags that its endpoints must have.
    pub tags: Tags,
    /// Part of the requests of this match.
    pub share: Both<f64>,
    /// What is done with its requests besides.
    pub filters: Both<Vec<String>>,
}

/// Compares the rules of a route; `None`: there are none.
pub(super) fn changes(
    before: Option<&HttpRules>,
    after: Option<&HttpRules>,
) -> Option<RuleChanges> {
    if before.is_none() && after.is_none() {
        return None;
    }
    let (old, new) = (listed(before), listed(after));
    let mut places: BTreeMap<&Key, &Taken> = old.iter().map(|(key, was)| (key, was)).collect();
    let moved = moved(&new, &places);
    let mut changed = Vec::new();
    let mut unchanged = 0;
    for (key, now) in &new {
        let was = places.remove(key);
        let fate = match was {
            None => RuleFate::Added,
            Some(was) if !was.same(now) => RuleFate::Changed,
            Some(_) if moved.contains(&now.place) => RuleFate::Moved,
            Some(_) => {
                unchanged += 1;
                continue;
            }
        };
        changed.push(change(fate, was, Some(now)));
    }
    let gone = old.iter().filter(|(key, _)| places.contains_key(key));
    changed.extend(gone.map(|(_, was)| change(RuleFate::Removed, Some(was), None)));
    let rules = |side: Option<&HttpRules>| side.map(|http| http.rules.rules.len());
    Some(RuleChanges {
        rules: Both { before: rules(before), after: rules(after) },
        changed,
        unchanged,
    })
}

/// What a match is known by: its hostname, what it asks for in words (nothing: what takes the rest),
/// and which of several alike.
type Key = (String, String, usize);

/// What becomes of the requests of a match on one side.
#[derive(Clone, Debug)]
struct Taken {
    hostname: String,
    matches: Option<Match>,
    place: usize,
    policy: Option<PolicyRef>,
    filters: Vec<String>,
    backends: Vec<Part>,
}

/// A backend of a rule on one side.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    service: String,
    tags: Tags,
    share: f64,
    filters: Vec<String>,
}

impl Taken {
    /// Whether the same becomes of its requests. Where it stands is another question.
    fn same(&self, other: &Self) -> bool {
        (&self.policy, &self.filters, &self.backends)
            == (&other.policy, &other.filters, &other.backends)
    }
}

/// The matches of a side in the order in which they are tried, and last what takes the rest.
fn listed(http: Option<&HttpRules>) -> Vec<(Key, Taken)> {
    let Some(http) = http else { return Vec::new() };
    // Rules that contradict themselves are refused before they come here.
    let Ok(router) = Router::new(Arc::clone(&http.rules)) else { return Vec::new() };
    let mut alike: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut all: Vec<(Key, Taken)> = Vec::new();
    for Listed { found, hostname, .. } in router.listed() {
        let (hostname, words) = (hostname.to_string(), found.matched.to_string());
        let nth = alike.entry((hostname.clone(), words.clone())).or_insert(0);
        let key = (hostname.clone(), words, *nth);
        *nth += 1;
        let policy = found.place.and_then(|place| http.policy_of(place.rule));
        let matched = (hostname, Some(found.matched.clone()));
        all.push((key, taken(http, (all.len() + 1, matched), policy, found.rule)));
    }
    if let Some(rule) = &http.rules.otherwise {
        let any = "*".to_owned();
        let last = (all.len() + 1, (any.clone(), None));
        all.push(((any, String::new(), 0), taken(http, last, http.policies.first(), rule)));
    }
    all
}

fn taken(
    http: &HttpRules,
    (place, (hostname, matches)): (usize, (String, Option<Match>)),
    policy: Option<&PolicyRef>,
    rule: &Rule,
) -> Taken {
    let known = |destination| match destination {
        Destination::Backend(id) => http.backends.get(id.0 as usize),
        Destination::Invalid => None,
    };
    let name = |destination| match known(destination) {
        Some(backend) if backend.tags.is_empty() => backend.destination.to_string(),
        Some(backend) => {
            format!("{} {}", backend.destination, tags_text(&backend.tags))
        }
        None => "nothing".to_owned(),
    };
    let split = rule.split.backends().iter().zip(rule.split.shares());
    Taken {
        hostname,
        matches,
        place,
        policy: policy.cloned(),
        filters: rule.words(name),
        backends: split
            .map(|(backend, share)| {
                let to = known(backend.destination);
                Part {
                    service: to.map_or(String::new(), |to| to.destination.to_string()),
                    tags: to.map(|to| to.tags.clone()).unwrap_or_default(),
                    share,
                    filters: backend.filters.iter().map(|filter| filter.words(name)).collect(),
                }
            })
            .collect(),
    }
}

/// Places of the matches of both sides that are tried before or behind others than before: as few
/// as could be taken out so that the rest stands in the same order.
fn moved(new: &[(Key, Taken)], old: &BTreeMap<&Key, &Taken>) -> BTreeSet<usize> {
    // Places after and before.
    let common: Vec<(usize, usize)> =
        new.iter().filter_map(|(key, now)| Some((now.place, old.get(key)?.place))).collect();
    // Of rows of growing places: where the shortest that end lowest end, for each length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(common.len());
    for (at, (_, place)) in common.iter().enumerate() {
        let length = ends.partition_point(|end| common[*end].1 < *place);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut moved: BTreeSet<usize> = common.iter().map(|(now, _)| *now).collect();
    let mut stays = ends.last().copied();
    while let Some(at) = stays {
        moved.remove(&common[at].0);
        stays = before[at];
    }
    moved
}

fn change(fate: RuleFate, before: Option<&Taken>, after: Option<&Taken>) -> RuleChange {
    let either = after.or(before);
    let both = |of: &dyn Fn(&Taken) -> Vec<String>| Both {
        before: before.map(of).unwrap_or_default(),
        after: after.map(of).unwrap_or_default(),
    };
    let split = |side: Option<&Taken>| side.map(|taken| taken.backends.clone()).unwrap_or_default();
    RuleChange {
        change: fate,
        hostname: either.map(|taken| taken.hostname.clone()).unwrap_or_default(),
        matches: either.and_then(|taken| taken.matches.clone()),
        place: Both { before: before.map(|b| b.place), after: after.map(|a| a.place) },
        policy: Both {
            before: before.and_then(|taken| taken.policy.clone()),
            after: after.and_then(|taken| taken.policy.clone()),
        },
        filters: both(&|taken| taken.filters.clone()),
        backends: backends(split(before), split(after)),
    }
}

fn backends(mut before: Vec<Part>, after: Vec<Part>) -> Vec<RuleBackend> {
    let mut all = Vec::new();
    for now in after {
        let was =
            before.iter().position(|was| (&was.service, &was.tags) == (&now.service, &now.tags));
        let was = was.map(|at| before.remove(at)).unwrap_or_default();
        all.push(RuleBackend {
            service: now.service,
            tags: now.tags,
            share: Both { before: was.share, after: now.share },
            filters: Both { before: was.filters, after: now.filters },
        });
    }
    all.extend(before.into_iter().map(|was| RuleBackend {
        service: was.service,
        tags: was.tags,
        share: Both { before: was.share, after: 0.0 },
        filters: Both { before: was.filters, after: Vec::new() },
    }));
    all
}
