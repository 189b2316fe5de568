//! MeshTCPRoutes: whose connections they concern, which of them wins for what is dialled, and the
//! route that it gives (semantics 4.1 to 4.3, 4.6, 4.7).
//!
//! Built like [`precedence`](super::precedence): sources are told apart by which policies concern
//! them (their *signature*), items of `to` are found by what they speak of, and for each
//! destination only those signatures are looked at whose winner can differ from that of an
//! unknown source.

use std::collections::{BTreeMap, BTreeSet};

use self::{
    speaks::{Key, keys_of},
    target::{Clause, Fact, facts},
};
use super::{Destination, objects::Objects};
use crate::policy::MeshTcpRoute;

pub mod backends;
mod check;
mod order;
mod rank;
mod speaks;
mod target;

pub(super) use check::check;
pub use order::{Item, Role, Rule, precedence, role};
pub use rank::{Mismatch, Ranking, rank};
pub(super) use speaks::names_object;
pub use target::{Nobody, Proxy};

/// Index of a signature. 0 is that of an unknown source.
pub(super) type SignatureId = usize;

/// Which clauses match a source, sorted.
type Signature = Vec<usize>;

/// The MeshTCPRoutes of one mesh.
#[derive(Debug)]
pub(super) struct MeshTcpRoutes<'a> {
    /// In order of name.
    policies: Vec<&'a MeshTcpRoute>,
    /// Items that concern somebody, the one that goes first first.
    items: Vec<Item<'a>>,
    clauses: Vec<Clause>,
    /// Clauses by a fact without which they do not match.
    clauses_by_fact: BTreeMap<Fact, Vec<usize>>,
    /// Clauses that need no fact.
    clauses_for_any: Vec<usize>,
    /// What is dialled → clause → the first of the clause's items that speak of it.
    by_key: BTreeMap<Key, BTreeMap<usize, usize>>,
    signatures: Vec<Signature>,
    signature_ids: BTreeMap<Signature, SignatureId>,
    /// Clause → signatures that it matches unlike an unknown source.
    unlike_by_clause: BTreeMap<usize, Vec<SignatureId>>,
}

impl<'a> MeshTcpRoutes<'a> {
    /// Indexes `policies`, all of one mesh and sorted by name. `zone` is this node's.
    pub(super) fn new(
        policies: Vec<&'a MeshTcpRoute>,
        objects: &Objects<'a>,
        zone: Option<&str>,
    ) -> Self {
        let mut clause_ids: BTreeMap<Clause, usize> = BTreeMap::new();
        let mut clauses = Vec::new();
        let mut placed: Vec<(Item<'a>, usize)> = Vec::new();
        for policy in &policies {
            let Ok(clause) = Clause::of(policy, zone) else { continue };
            let clause = *clause_ids.entry(clause).or_insert_with_key(|clause| {
                clauses.push(clause.clone());
                clauses.len() - 1
            });
            placed.extend((0..policy.to.len()).map(|index| (Item { policy, index }, clause)));
        }
        placed.sort_by(|(a, _), (b, _)| precedence(a, b).0);
        let mut by_key: BTreeMap<Key, BTreeMap<usize, usize>> = BTreeMap::new();
        for (place, (item, clause)) in placed.iter().enumerate() {
            for key in speaks::keys(item, objects) {
                by_key.entry(key).or_default().entry(*clause).or_insert(place);
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
    pub(super) fn policies(&self) -> &[&'a MeshTcpRoute] {
        &self.policies
    }

    /// An item by its place.
    pub(super) fn item(&self, place: usize) -> Item<'a> {
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

    /// The item that wins for sources of this signature, by its place.
    pub(super) fn winner(&self, signature: SignatureId, called: &Destination) -> Option<usize> {
        let own = &self.signatures[signature];
        let best = |clauses: &BTreeMap<usize, usize>| -> Option<usize> {
            if clauses.len() < own.len() {
                let matching =
                    clauses.iter().filter(|(clause, _)| own.binary_search(clause).is_ok());
                return matching.map(|(_, place)| *place).min();
            }
            own.iter().filter_map(|clause| clauses.get(clause)).min().copied()
        };
        keys_of(called).iter().filter_map(|key| self.by_key.get(key)).filter_map(best).min()
    }

    /// Signatures whose winner may differ from that of an unknown source, sorted. All others have
    /// the unknown source's winner.
    pub(super) fn unlike_unknown(&self, called: &Destination) -> BTreeSet<SignatureId> {
        let spoken_of = keys_of(called);
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

    /// Values of `kuma.io/service` that some item speaks of, with the first such item, sorted.
    pub(super) fn tag_services(&self) -> impl Iterator<Item = (&str, Item<'a>)> {
        self.by_key.iter().filter_map(|(key, clauses)| {
            let Key::Tags(service) = key else { return None };
            Some((service.as_str(), self.items[*clauses.values().min()?]))
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
