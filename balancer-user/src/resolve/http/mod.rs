//! HTTP rules of routes: policies of each kind made into [`Rules`](crate::http::Rules), and the
//! endpoints of what these lead to.
//!
//! Belongs here: what of a policy becomes which match, filter and split. Does not know which
//! policy wins and what is merged ([`mesh_http`](super::mesh_http), [`gateway`](super::gateway)).

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use super::{Backend, BackendState, Destination, PolicyRef, inventory::Protocol, split::Place};
use crate::{
    http::{self, BackendId, Readiness, Rules},
    policy::Tags,
};

pub mod changes;
pub mod filters;
pub mod matches;
pub mod traffic_route;

pub use changes::Refused;

/// What becomes of the requests of one route. It goes before what the route says of connections,
/// which holds while nobody is there to carry out this (`l7_fallback`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRules {
    /// The policies that gave rules, the one that goes first first.
    pub policies: Vec<PolicyRef>,
    /// Which of them gave each of [`Rules::rules`].
    pub given_by: Vec<usize>,
    /// Where the split of each of them stands in a policy; `None`: it is not a MeshHTTPRoute's.
    pub splits: Vec<Option<SplitPlace>>,
    /// The rule whose split the connections of the route follow, if it is one's.
    pub connections: Option<usize>,
    /// The rules. Their backends are numbered by their place in `backends`.
    pub rules: Arc<Rules>,
    /// What the rules lead to, each once. Weights mean nothing here: they stand in the rules.
    pub backends: Vec<Backend>,
    /// What each of `backends` speaks.
    pub protocols: Vec<Protocol>,
    /// Names that endpoints outside the mesh expect requests to carry.
    pub outside_names: BTreeMap<SocketAddr, String>,
    /// A destination that does not speak HTTP takes no request (MeshHTTPRoute; decision D10).
    pub only_http: bool,
}

/// `backendRefs` of a rule of a MeshHTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPlace {
    /// The policy.
    pub policy: PolicyRef,
    /// Index in `to`.
    pub to: usize,
    /// Index in its `rules`.
    pub rule: usize,
}

impl Hash for HttpRules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Rules have no hash of their own; equal ones have these in common.
        self.policies.hash(state);
        self.backends.hash(state);
        self.rules.rules.len().hash(state);
    }
}

impl HttpRules {
    /// Whether a backend can take a request.
    pub fn readiness(&self, id: BackendId) -> Readiness {
        match self.backends.get(id.0 as usize).map(|backend| backend.state) {
            Some(BackendState::Ok) => Readiness::Ready,
            Some(BackendState::Empty | BackendState::Drained) => Readiness::Empty,
            Some(BackendState::Invalid) | None => Readiness::Invalid,
        }
    }

    /// The policy that gave a rule; `None`: the rule is [`Rules::otherwise`].
    pub fn policy_of(&self, rule: usize) -> Option<&PolicyRef> {
        self.given_by.get(rule).and_then(|policy| self.policies.get(*policy))
    }
}

/// What the rules of one route lead to, numbered as they are asked for.
#[derive(Debug)]
pub struct Backends<'p> {
    place: Place<'p>,
    only_http: bool,
    found: Vec<Backend>,
    protocols: Vec<Protocol>,
    outside_names: BTreeMap<SocketAddr, String>,
    ids: BTreeMap<(Destination, Tags), BackendId>,
}

impl<'p> Backends<'p> {
    /// None yet. See [`HttpRules::only_http`].
    pub fn new(place: Place<'p>, only_http: bool) -> Self {
        Self {
            place,
            only_http,
            found: Vec::new(),
            protocols: Vec::new(),
            outside_names: BTreeMap::new(),
            ids: BTreeMap::new(),
        }
    }

    /// The number of a destination: of its endpoints that have all of `tags`.
    pub fn id(&mut self, destination: Destination, tags: Tags) -> BackendId {
        let Self { place, only_http, found, protocols, ids, .. } = self;
        *ids.entry((destination, tags)).or_insert_with_key(|(destination, tags)| {
            let known = place.inventory.endpoints(destination);
            protocols.push(known.map_or(Protocol::Unknown, |known| known.protocol()));
            found.push(place.http_backend(destination.clone(), tags.clone(), *only_http));
            BackendId(found.len() as u32 - 1)
        })
    }

    /// A weighted reference to a destination. One that is outside the mesh is asked by its own
    /// name, unless the rule sets another (semantics 2.5).
    pub fn weighted(&mut self, weight: u32, destination: Destination, tags: Tags) -> http::Backend {
        let names = self.place.inventory.outside_names(&destination, &tags);
        let own_host = !names.is_empty();
        self.outside_names.extend(names.into_iter().map(|(addr, name)| (addr, name.to_owned())));
        let to = http::Destination::Backend(self.id(destination, tags));
        http::Backend { own_host, ..http::Backend::new(to, weight) }
    }

    /// The rules with what they lead to. `given_by` says of each rule which of `policies` gave it.
    pub fn finish(self, policies: Vec<PolicyRef>, given_by: Vec<usize>, rules: Rules) -> HttpRules {
        let Self { found: backends, protocols, outside_names, only_http, .. } = self;
        HttpRules {
            policies,
            splits: vec![None; given_by.len()],
            given_by,
            connections: None,
            rules: Arc::new(rules),
            backends,
            protocols,
            outside_names,
            only_http,
        }
    }
}

impl Place<'_> {
    /// What a rule leads to, with its endpoints. See [`HttpRules::only_http`].
    pub fn http_backend(&self, destination: Destination, tags: Tags, only_http: bool) -> Backend {
        let known = self.inventory.endpoints(&destination);
        let other = known.is_some_and(|known| !known.protocol().is_http_like());
        let backend = self.backend_of(1, destination, tags);
        if only_http && other && backend.state != BackendState::Empty {
            return Backend { state: BackendState::Invalid, reals: Vec::new(), ..backend };
        }
        backend
    }
}
