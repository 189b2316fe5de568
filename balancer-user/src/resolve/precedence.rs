//! The winner for every (source, service) of a mesh, without asking every policy each time.
//!
//! Gives what [`selection`](super::selection) gives for one pair, for all pairs at once: sources
//! are told apart only by which source selectors match them and how well (their *signature*),
//! policies are found by the service that they name, and for each service only those signatures
//! are looked at whose winner can differ from that of an unknown source. So ten thousand
//! services and as many Dataplanes cost their sum, not their product, unless the policies really
//! give a different route to each pair.

use std::collections::{BTreeMap, BTreeSet};

use super::selection::{ANY, Rank, destination_rank, precedence, source_rank, unknown_source};
use crate::policy::{SERVICE_TAG, Tags, TrafficRoute};

/// Which source clauses match a source and with what rank, sorted by clause. Clauses are the
/// distinct `sources` lists of a mesh.
type Signature = Vec<(usize, Rank)>;

/// A signature as it is looked up: (clause, exact, wildcard) for each.
type SignatureKey = Vec<(usize, u32, u32)>;

/// Index of a signature. 0 is that of an unknown source.
pub(super) type SignatureId = usize;

/// A policy, by index, and its whole rank.
type Ranked = (usize, Rank);

/// The TrafficRoutes of one mesh.
#[derive(Debug)]
pub(super) struct MeshPolicies<'a> {
    routes: Vec<&'a TrafficRoute>,
    /// Route → clause.
    clause: Vec<usize>,
    clauses: Vec<&'a [Tags]>,
    /// Clauses with a selector that asks for this service.
    clauses_by_service: BTreeMap<&'a str, Vec<usize>>,
    /// Clauses with a selector that asks for no particular service.
    clauses_for_any: Vec<usize>,
    /// Service → routes that name it as a destination.
    by_destination: BTreeMap<&'a str, Vec<usize>>,
    /// Clause → routes with destination `*`.
    for_any_destination: BTreeMap<usize, Vec<usize>>,
    signatures: Vec<Signature>,
    signature_ids: BTreeMap<SignatureKey, SignatureId>,
    /// Signature → the best route with destination `*`.
    best_for_any: Vec<Option<Ranked>>,
    /// Clause → signatures that it ranks unlike an unknown source.
    unlike_by_clause: BTreeMap<usize, Vec<SignatureId>>,
    /// Signatures whose best route with destination `*` differs from an unknown source's, in
    /// itself or in its rank.
    unlike_for_any: Vec<SignatureId>,
}

impl<'a> MeshPolicies<'a> {
    /// Indexes `routes`, all of one mesh.
    pub(super) fn new(routes: Vec<&'a TrafficRoute>) -> Self {
        let mut policies = Self {
            clause: Vec::with_capacity(routes.len()),
            clauses: Vec::new(),
            clauses_by_service: BTreeMap::new(),
            clauses_for_any: Vec::new(),
            by_destination: BTreeMap::new(),
            for_any_destination: BTreeMap::new(),
            signatures: Vec::new(),
            signature_ids: BTreeMap::new(),
            best_for_any: Vec::new(),
            unlike_by_clause: BTreeMap::new(),
            unlike_for_any: Vec::new(),
            routes,
        };
        let mut clause_ids: BTreeMap<&'a [Tags], usize> = BTreeMap::new();
        for (index, route) in policies.routes.iter().enumerate() {
            let clause = *clause_ids.entry(&route.sources).or_insert_with(|| {
                policies.clauses.push(&route.sources);
                policies.clauses.len() - 1
            });
            policies.clause.push(clause);
            for name in &route.destinations {
                if name == ANY {
                    policies.for_any_destination.entry(clause).or_default().push(index);
                } else {
                    policies.by_destination.entry(name).or_default().push(index);
                }
            }
        }
        for (clause, selectors) in policies.clauses.iter().enumerate() {
            for selector in *selectors {
                match selector.get(SERVICE_TAG).filter(|service| *service != ANY) {
                    Some(service) => {
                        policies.clauses_by_service.entry(service).or_default().push(clause);
                    }
                    None => {
                        policies.clauses_for_any.push(clause);
                    }
                }
            }
        }
        policies.signature(&[&unknown_source()]);
        policies
    }

    /// The policies, in the order that indexes count.
    pub(super) fn routes(&self) -> &[&'a TrafficRoute] {
        &self.routes
    }

    /// The signature of a source with these tag sets.
    pub(super) fn signature(&mut self, tag_sets: &[&Tags]) -> SignatureId {
        let mut clauses = self.clauses_for_any.clone();
        for service in tag_sets.iter().filter_map(|tags| tags.get(SERVICE_TAG)) {
            clauses.extend(self.clauses_by_service.get(service.as_str()).into_iter().flatten());
        }
        clauses.sort_unstable();
        clauses.dedup();
        let key: SignatureKey = clauses
            .into_iter()
            .filter_map(|clause| {
                let rank = source_rank(self.clauses[clause], tag_sets)?;
                Some((clause, rank.exact, rank.wildcard))
            })
            .collect();
        if let Some(id) = self.signature_ids.get(&key) {
            return *id;
        }
        let signature: Signature = key
            .iter()
            .map(|(clause, exact, wildcard)| (*clause, Rank { exact: *exact, wildcard: *wildcard }))
            .collect();
        let id = self.signatures.len();
        self.signature_ids.insert(key, id);
        let best = self.best(signature.iter().flat_map(|(clause, source)| {
            let any = Rank::of_value(ANY);
            let routes = self.for_any_destination.get(clause).into_iter().flatten();
            routes.map(move |route| (*route, *source + any))
        }));
        self.best_for_any.push(best);
        self.signatures.push(signature);
        self.note_what_is_unlike(id);
        id
    }

    fn note_what_is_unlike(&mut self, id: SignatureId) {
        if id == 0 {
            return;
        }
        let (unknown, own) = (&self.signatures[0], &self.signatures[id]);
        let clauses: BTreeSet<usize> =
            unknown.iter().chain(own).map(|(clause, _)| *clause).collect();
        for clause in clauses {
            if rank_of(unknown, clause) != rank_of(own, clause) {
                self.unlike_by_clause.entry(clause).or_default().push(id);
            }
        }
        if self.best_for_any[id] != self.best_for_any[0] {
            self.unlike_for_any.push(id);
        }
    }

    fn best(&self, ranked: impl IntoIterator<Item = Ranked>) -> Option<Ranked> {
        ranked
            .into_iter()
            .min_by(|a, b| precedence((self.routes[a.0], a.1), (self.routes[b.0], b.1)).0)
    }

    /// The route that wins for sources of this signature that call `service`.
    pub(super) fn winner(&self, signature: SignatureId, service: &str) -> Option<usize> {
        let own = &self.signatures[signature];
        let exact = self.by_destination.get(service).into_iter().flatten().filter_map(|route| {
            let source = rank_of(own, self.clause[*route])?;
            Some((*route, source + destination_rank(&self.routes[*route].destinations, service)?))
        });
        self.best(exact.chain(self.best_for_any[signature])).map(|(route, _)| route)
    }

    /// Signatures whose winner for `service` may differ from that of an unknown source, sorted.
    /// All others have the unknown source's winner.
    pub(super) fn unlike_unknown(&self, service: &str) -> BTreeSet<SignatureId> {
        let named = self.by_destination.get(service).into_iter().flatten();
        named
            .filter_map(|route| self.unlike_by_clause.get(&self.clause[*route]))
            .flatten()
            .chain(&self.unlike_for_any)
            .copied()
            .collect()
    }

    /// Every route that some source gets for `service`, and whether some source gets none.
    pub(super) fn winners(&self, service: &str) -> BTreeSet<Option<usize>> {
        std::iter::once(0)
            .chain(self.unlike_unknown(service))
            .map(|signature| self.winner(signature, service))
            .collect()
    }

    /// Services that some route names as a destination, with the first such route, sorted.
    pub(super) fn destinations(&self) -> impl Iterator<Item = (&'a str, &'a TrafficRoute)> {
        self.by_destination.iter().map(|(service, routes)| (*service, self.routes[routes[0]]))
    }
}

fn rank_of(signature: &Signature, clause: usize) -> Option<Rank> {
    signature.binary_search_by_key(&clause, |(clause, _)| *clause).ok().map(|at| signature[at].1)
}
