//! Policies of the newer kinds, which say whom they concern (`targetRef`) and what they speak of
//! (`to`): whom each of them matches, and in which order they go (semantics 4.1, 4.2, 4.6).
//!
//! Built like [`precedence`](super::precedence): sources are told apart by which policies concern
//! them (their *signature*), items of `to` are found by what they speak of, and for each
//! destination only those signatures are looked at whose items can differ from those of an
//! unknown source. Does not know what an item says: that is [`mesh_tcp`](super::mesh_tcp)'s and
//! [`mesh_http`](super::mesh_http)'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use self::{
    speaks::{Key, keys_of},
    target::{Fact, facts},
};
use super::{Destination, objects::Objects};
use crate::policy::{
    MeshHttpRoute, MeshHttpTo, MeshLoadBalancingStrategy, MeshTcpRoute, MeshTcpTo, Meta,
    ReferredBy, RouteTarget, ServiceRef, Span, StrategyTarget, StrategyTo, ToTarget,
};

pub(super) mod backends;
pub(super) mod check;
mod order;
mod rank;
mod speaks;
mod target;

pub use order::{Item, Role, Rule, precedence, role};
pub use rank::{Mismatch, Ranking, of_http_routes, rank};
pub(super) use speaks::{names_object, written};
pub(super) use target::Clause;
pub use target::{Nobody, Proxy};

/// A policy with `targetRef` and `to`.
pub trait ToPolicy: fmt::Debug + PartialEq {
    /// An item of `to`.
    type To;
    /// Identity.
    fn meta(&self) -> &Meta;
    /// `targetRef`.
    fn target(&self) -> &RouteTarget;
    /// `to[]`.
    fn to(&self) -> &[Self::To];
    /// `to[].targetRef`.
    fn spoken(to: &Self::To) -> Spoken<'_>;
    /// Where an item stands, with its field path.
    fn place(to: &Self::To) -> (Span, &str);
    /// Whether an item says where connections go; one that does not leaves that to others
    /// (semantics 4.6: rules are merged).
    fn says_where(_to: &Self::To) -> bool {
        true
    }
}

/// What an item of `to` speaks of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spoken<'a> {
    /// Everything that is dialled.
    Mesh,
    /// A service.
    Service(&'a ServiceRef),
    /// What a MeshHTTPRoute takes.
    HttpRoute(&'a ReferredBy),
}

fn of_route(target: &ToTarget) -> Spoken<'_> {
    match target {
        ToTarget::Mesh => Spoken::Mesh,
        ToTarget::Service(to) => Spoken::Service(to),
    }
}

fn of_strategy(target: &StrategyTarget) -> Spoken<'_> {
    match target {
        StrategyTarget::Mesh => Spoken::Mesh,
        StrategyTarget::Service(to) => Spoken::Service(to),
        StrategyTarget::HttpRoute(by) => Spoken::HttpRoute(by),
    }
}

macro_rules! to_policies {
    ($($policy:ident of $to:ident by $spoken:expr;)*) => {
        $(impl ToPolicy for $policy {
            type To = $to;

            fn meta(&self) -> &Meta {
                &self.meta
            }

            fn target(&self) -> &RouteTarget {
                &self.target
            }

            fn to(&self) -> &[$to] {
                &self.to
            }

            fn spoken(to: &$to) -> Spoken<'_> {
                $spoken(&to.target)
            }

            fn place(to: &$to) -> (Span, &str) {
                (to.span, &to.field)
            }
        })*
    };
}

to_policies! {
    MeshHttpRoute of MeshHttpTo by of_route;
    MeshLoadBalancingStrategy of StrategyTo by of_strategy;
}

impl ToPolicy for MeshTcpRoute {
    type To = MeshTcpTo;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn target(&self) -> &RouteTarget {
        &self.target
    }

    fn to(&self) -> &[MeshTcpTo] {
        &self.to
    }

    fn spoken(to: &MeshTcpTo) -> Spoken<'_> {
        of_route(&to.target)
    }

    fn place(to: &MeshTcpTo) -> (Span, &str) {
        (to.span, &to.field)
    }

    /// One without a rule sends connections to what is dialled.
    fn says_where(to: &MeshTcpTo) -> bool {
        to.rule.as_ref().is_none_or(|rule| !rule.backends.is_empty())
    }
}

/// Index of a signature. 0 is that of an unknown source.
pub(super) type SignatureId = usize;

/// Which clauses match a source, sorted.
type Signature = Vec<usize>;

/// The policies of one kind in one mesh.
#[derive(Debug)]
pub(super) struct ToPolicies<'a, P> {
    /// In order of name.
    policies: Vec<&'a P>,
    /// Items that concern somebody, the one that goes first first.
    items: Vec<Item<'a, P>>,
    clauses: Vec<Clause>,
    /// Clauses by a fact without which they do not match.
    clauses_by_fact: BTreeMap<Fact, Vec<usize>>,
    /// Clauses that need no fact.
    clauses_for_any: Vec<usize>,
    /// What is dialled → clause → the clause's items that speak of it, in order.
    by_key: BTreeMap<Key, BTreeMap<usize, Vec<usize>>>,
    signatures: Vec<Signature>,
    signature_ids: BTreeMap<Signature, SignatureId>,
    /// Clause → signatures that it matches unlike an unknown source.
    unlike_by_clause: BTreeMap<usize, Vec<SignatureId>>,
}

impl<'a, P: ToPolicy> ToPolicies<'a, P> {
    /// Indexes `policies`, all of one mesh and sorted by name. `zone` is this node's.
    pub(super) fn new(policies: Vec<&'a P>, objects: &Objects<'a>, zone: Option<&str>) -> Self {
        let mut clause_ids: BTreeMap<Clause, usize> = BTreeMap::new();
        let mut clauses = Vec::new();
        let mut placed: Vec<(Item<'a, P>, usize)> = Vec::new();
        for policy in policies.iter().copied() {
            let Ok(clause) = Clause::of(policy, zone) else { continue };
            let clause = *clause_ids.entry(clause).or_insert_with_key(|clause| {
                clauses.push(clause.clone());
                clauses.len() - 1
            });
            placed.extend((0..policy.to().len()).map(|index| (Item { policy, index }, clause)));
        }
        placed.sort_by(|(a, _), (b, _)| precedence(a, b).0);
        let mut by_key: BTreeMap<Key, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        for (place, (item, clause)) in placed.iter().enumerate() {
            for key in speaks::keys(item, objects) {
                let of_clause = by_key.entry(key).or_default().entry(*clause).or_default();
                // By labels an item can mean one thing twice.
                if of_clause.last() != Some(&place) {
                    of_clause.push(place);
                }
            }
        }
        let (clauses_by_fact, clauses_for_any) = index_by_rarest_fact(&clauses);
        let mut routes = Self {
            policies,
            items: placed.into_iter().map(|(item, _)| item).collect(),
            clauses,
            clauses_by_fact,
            clauses_for_any,
            by_key,
            signatures: Vec::new(),
            signature_ids: BTreeMap::new(),
            unlike_by_clause: BTreeMap::new(),
        };
        routes.signature(&[Proxy::unknown()]);
        routes
    }

    /// The policies, by name.
    pub(super) fn policies(&self) -> &[&'a P] {
        &self.policies
    }

    /// An item by its place.
    pub(super) fn item(&self, place: usize) -> Item<'a, P> {
        self.items[place]
    }

    /// The signature of a workload.
    pub(super) fn signature(&mut self, workload: &[Proxy<'_>]) -> SignatureId {
        let of_facts = facts(workload).into_iter();
        let mut signature: Signature = of_facts
            .filter_map(|fact| self.clauses_by_fact.get(&fact))
            .flatten()
            .chain(&self.clauses_for_any)
            .copied()
            .filter(|clause| self.clauses[*clause].matches(workload))
            .collect();
        signature.sort_unstable();
        signature.dedup();
        if let Some(id) = self.signature_ids.get(&signature) {
            return *id;
        }
        let id = self.signatures.len();
        if id > 0 {
            let unknown: BTreeSet<usize> = self.signatures[0].iter().copied().collect();
            let own: BTreeSet<usize> = signature.iter().copied().collect();
            for clause in unknown.symmetric_difference(&own) {
                self.unlike_by_clause.entry(*clause).or_default().push(id);
            }
        }
        self.signature_ids.insert(signature.clone(), id);
        self.signatures.push(signature);
        id
    }

    /// The item that goes first for sources of this signature, by its place.
    pub(super) fn winner(&self, signature: SignatureId, called: &Destination) -> Option<usize> {
        let first = |places: &Vec<usize>| places.first().copied();
        let keys = keys_of(called);
        keys.iter().flat_map(|key| self.speaking(signature, key)).filter_map(first).min()
    }

    /// All items that speak of what is called to sources of this signature, by their place, in
    /// order.
    pub(super) fn speaking_of(&self, signature: SignatureId, called: &Destination) -> Vec<usize> {
        let keys = keys_of(called);
        let of_keys = keys.iter().flat_map(|key| self.speaking(signature, key)).flatten();
        let mut places: Vec<usize> = of_keys.copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The same of requests that MeshHTTPRoutes take.
    pub(super) fn speaking_of_http_routes(&self, signature: SignatureId) -> Vec<usize> {
        let mut places: Vec<usize> =
            self.speaking(signature, &Key::HttpRoutes).flatten().copied().collect();
        places.sort_unstable();
        places
    }

    /// For each clause that matches sources of this signature its items that speak of this.
    fn speaking<'s>(
        &'s self,
        signature: SignatureId,
        key: &Key,
    ) -> impl Iterator<Item = &'s Vec<usize>> {
        let own = &self.signatures[signature];
        let clauses = self.by_key.get(key);
        // The fewer are looked up among the more.
        let (of_key, of_source) = match clauses {
            Some(clauses) if clauses.len() < own.len() => (Some(clauses), None),
            clauses => (None, clauses),
        };
        let of_key = of_key.into_iter().flatten();
        let of_key = of_key.filter(|(clause, _)| own.binary_search(clause).is_ok());
        let of_source = of_source
            .into_iter()
            .flat_map(|clauses| own.iter().filter_map(|clause| clauses.get(clause)));
        of_key.map(|(_, places)| places).chain(of_source)
    }

    /// Signatures whose items may differ from those of an unknown source, sorted. All others have
    /// the unknown source's.
    pub(super) fn unlike_unknown(&self, called: &Destination) -> BTreeSet<SignatureId> {
        let mut spoken_of = keys_of(called);
        spoken_of.push(Key::HttpRoutes);
        spoken_of
            .iter()
            .filter_map(|key| self.by_key.get(key))
            .flat_map(BTreeMap::keys)
            .filter_map(|clause| self.unlike_by_clause.get(clause))
            .flatten()
            .copied()
            .collect()
    }

    /// Every item that some source gets, and whether some source gets none.
    pub(super) fn winners(&self, called: &Destination) -> BTreeSet<Option<usize>> {
        std::iter::once(0)
            .chain(self.unlike_unknown(called))
            .map(|signature| self.winner(signature, called))
            .collect()
    }

    /// Every item that speaks of what is called to anybody, by its place.
    pub(super) fn speaking_to_anybody(&self, called: &Destination) -> BTreeSet<usize> {
        let of_keys = keys_of(called);
        let clauses = of_keys.iter().filter_map(|key| self.by_key.get(key));
        clauses.flat_map(BTreeMap::values).flatten().copied().collect()
    }

    /// Values of `kuma.io/service` that some item speaks of, with the first such item, sorted.
    pub(super) fn tag_services(&self) -> impl Iterator<Item = (&str, Item<'a, P>)> {
        self.by_key.iter().filter_map(|(key, clauses)| {
            let Key::Tags(service) = key else { return None };
            Some((service.as_str(), self.items[*clauses.values().flatten().min()?]))
        })
    }
}

/// Files each clause under the fact that the fewest clauses need, so that labels which every
/// policy asks for do not make every source try every clause.
fn index_by_rarest_fact(clauses: &[Clause]) -> (BTreeMap<Fact, Vec<usize>>, Vec<usize>) {
    let all: Vec<Vec<Fact>> = clauses.iter().map(Clause::facts).collect();
    let mut needed: BTreeMap<&Fact, usize> = BTreeMap::new();
    for fact in all.iter().flatten() {
        *needed.entry(fact).or_default() += 1;
    }
    let mut by_fact: BTreeMap<Fact, Vec<usize>> = BTreeMap::new();
    let mut for_any = Vec::new();
    for (clause, facts) in all.iter().enumerate() {
        match facts.iter().min_by_key(|fact| needed[fact]) {
            Some(rarest) => by_fact.entry(rarest.clone()).or_default().push(clause),
            None => for_any.push(clause),
        }
    }
    (by_fact, for_any)
}
