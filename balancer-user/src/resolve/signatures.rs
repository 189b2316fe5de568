//! Sources, told apart by the policies of every kind at once.
//!
//! Each kind has signatures of its own ([`precedence`](super::precedence),
//! [`mesh_policy`](super::mesh_policy)); what a source is to all of them is the four together. For
//! a destination only those are looked at that can lead to another route than an unknown source
//! has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Destination, Resolver,
    mesh_policy::{self, Proxy, ToPolicies, ToPolicy},
    precedence,
    sources::tag_sets,
};

/// Index of what sources are to all kinds. 0 is an unknown source.
pub(super) type SignatureId = usize;

/// A source's signature in each mesh in which it has a Dataplane, sorted by mesh.
pub(super) type OfMeshes<'a> = Vec<(&'a str, SignatureId)>;

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Winner {
    /// Items of MeshHTTPRoutes that speak of what is called, which speaks HTTP, in order and by
    /// their place. They are merged, and go before every other policy (semantics 4.7).
    pub(super) http: Option<Arc<[usize]>>,
    /// Who decides about connections.
    pub(super) connections: Connections,
    /// Items of MeshLoadBalancingStrategies that speak of what is called, in order.
    pub(super) strategies: Arc<[usize]>,
    /// The same of those that speak of requests which MeshHTTPRoutes take.
    pub(super) of_http_routes: Arc<[usize]>,
}

/// Who decides about connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Connections {
    /// An item of a MeshTCPRoute, by its place (decision D23).
    MeshTcp(usize),
    /// A TrafficRoute, by its index.
    Traffic(usize),
    /// No policy.
    Nobody,
}

impl Winner {
    /// No policy of any kind.
    pub(super) fn nobody() -> Self {
        let (strategies, of_http_routes) = (Arc::default(), Arc::default());
        Self { http: None, connections: Connections::Nobody, strategies, of_http_routes }
    }

    /// Whether it is a policy that goes before routes of the Gateway API (decision D21).
    pub(super) fn goes_first(&self) -> bool {
        self.http.is_some() || matches!(self.connections, Connections::MeshTcp(_))
    }
}

/// What sources are to the policies of one mesh: their signature in each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct OfKinds {
    traffic: precedence::SignatureId,
    mesh_tcp: mesh_policy::SignatureId,
    mesh_http: mesh_policy::SignatureId,
    strategy: mesh_policy::SignatureId,
}

/// All that there are in one mesh. What is looked up by a signature of one kind are those that
/// have it.
#[derive(Debug)]
struct Signed {
    all: Vec<OfKinds>,
    ids: BTreeMap<OfKinds, SignatureId>,
    by_traffic: BTreeMap<precedence::SignatureId, Vec<SignatureId>>,
    by_mesh_tcp: BTreeMap<mesh_policy::SignatureId, Vec<SignatureId>>,
    by_mesh_http: BTreeMap<mesh_policy::SignatureId, Vec<SignatureId>>,
    by_strategy: BTreeMap<mesh_policy::SignatureId, Vec<SignatureId>>,
}

impl Signed {
    fn new() -> Self {
        let mut signed = Self {
            all: Vec::new(),
            ids: BTreeMap::new(),
            by_traffic: BTreeMap::new(),
            by_mesh_tcp: BTreeMap::new(),
            by_mesh_http: BTreeMap::new(),
            by_strategy: BTreeMap::new(),
        };
        signed.id(OfKinds::default());
        signed
    }

    fn id(&mut self, of_kinds: OfKinds) -> SignatureId {
        if let Some(id) = self.ids.get(&of_kinds) {
            return *id;
        }
        let id = self.all.len();
        self.all.push(of_kinds);
        self.ids.insert(of_kinds, id);
        self.by_traffic.entry(of_kinds.traffic).or_default().push(id);
        self.by_mesh_tcp.entry(of_kinds.mesh_tcp).or_default().push(id);
        self.by_mesh_http.entry(of_kinds.mesh_http).or_default().push(id);
        self.by_strategy.entry(of_kinds.strategy).or_default().push(id);
        id
    }
}

/// A signature of a kind → what has it.
type ByKind = BTreeMap<mesh_policy::SignatureId, Vec<SignatureId>>;

/// The signatures of all sources.
#[derive(Debug)]
pub(super) struct Signatures<'a> {
    /// In the order of the sources, which is that of their addresses.
    of_sources: Vec<(IpAddr, OfMeshes<'a>)>,
    by_mesh: BTreeMap<&'a str, Signed>,
}

impl<'a> Signatures<'a> {
    /// Signs every source.
    pub(super) fn new(resolver: &mut Resolver<'a>) -> Self {
        let mut of_sources = Vec::new();
        let mut by_mesh: BTreeMap<&'a str, Signed> = BTreeMap::new();
        for (address, dataplanes) in resolver.sources.iter() {
            let mut of_meshes: OfMeshes<'a> = Vec::with_capacity(1);
            for of_mesh in dataplanes.chunk_by(|a, b| a.meta.mesh == b.meta.mesh) {
                let mesh = of_mesh[0].meta.mesh.as_str();
                let traffic = resolver
                    .policies
                    .get_mut(mesh)
                    .map(|policies| policies.signature(&tag_sets(of_mesh.iter().copied())));
                let proxies: Vec<_> = of_mesh.iter().copied().map(Proxy::of).collect();
                let mesh_tcp = signature(&mut resolver.mesh_tcp, mesh, &proxies);
                let mesh_http = signature(&mut resolver.mesh_http, mesh, &proxies);
                let strategy = signature(&mut resolver.strategies, mesh, &proxies);
                if traffic.is_some()
                    || mesh_tcp.is_some()
                    || mesh_http.is_some()
                    || strategy.is_some()
                {
                    let of_kinds = OfKinds {
                        traffic: traffic.unwrap_or(0),
                        mesh_tcp: mesh_tcp.unwrap_or(0),
                        mesh_http: mesh_http.unwrap_or(0),
                        strategy: strategy.unwrap_or(0),
                    };
                    let signed = by_mesh.entry(mesh).or_insert_with(Signed::new);
                    of_meshes.push((mesh, signed.id(of_kinds)));
                }
            }
            of_sources.push((address, of_meshes));
        }
        Self { of_sources, by_mesh }
    }

    /// What each source is, in the order of the sources.
    pub(super) fn of_sources(&self) -> impl Iterator<Item = &OfMeshes<'a>> {
        self.of_sources.iter().map(|(_, of_meshes)| of_meshes)
    }

    /// What a source is to a mesh.
    pub(super) fn of(&self, address: IpAddr, mesh: &str) -> SignatureId {
        let at = self.of_sources.binary_search_by_key(&address, |(address, _)| *address);
        let of_meshes = at.map_or(&[][..], |at| &self.of_sources[at].1);
        of_meshes.iter().find(|(of, _)| *of == mesh).map_or(0, |(_, signature)| *signature)
    }

    /// Who decides for sources of this signature that call `called`: MeshHTTPRoutes that speak of
    /// it, if it speaks HTTP; about connections a MeshTCPRoute where one speaks of it, else a
    /// TrafficRoute (decisions D16, D23).
    pub(super) fn winner(
        &self,
        resolver: &Resolver<'_>,
        signature: SignatureId,
        called: &Destination,
    ) -> Winner {
        let mesh = called.mesh();
        let own = self.of_kinds(mesh, signature);
        let (strategies, of_http_routes) = match resolver.strategies.get(mesh) {
            Some(all) => {
                (all.speaking_of(own.strategy, called), all.speaking_of_http_routes(own.strategy))
            }
            None => (Vec::new(), Vec::new()),
        };
        let winner = |http, connections| Winner {
            http,
            connections,
            strategies: strategies.into(),
            of_http_routes: of_http_routes.into(),
        };
        let speaking = resolver
            .mesh_http
            .get(mesh)
            .filter(|_| resolver.speaks_http(called))
            .map(|routes| routes.speaking_of(own.mesh_http, called));
        let http: Option<Arc<[usize]>> = speaking.filter(|items| !items.is_empty()).map(Into::into);
        let mesh_tcp = resolver.mesh_tcp.get(mesh);
        if let Some(place) = mesh_tcp.and_then(|routes| routes.winner(own.mesh_tcp, called)) {
            return winner(http, Connections::MeshTcp(place));
        }
        if http.is_some() {
            return winner(http, Connections::Nobody);
        }
        let policies = resolver.policies.get(mesh).zip(called.tag_service());
        let first = policies.and_then(|(policies, service)| policies.winner(own.traffic, service));
        winner(None, first.map_or(Connections::Nobody, Connections::Traffic))
    }

    /// Signatures whose winner may differ from that of an unknown source, sorted. All others have
    /// the unknown source's winner.
    pub(super) fn unlike_unknown(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
    ) -> BTreeSet<SignatureId> {
        let mesh = called.mesh();
        let mut apart = BTreeSet::new();
        let Some(signed) = self.by_mesh.get(mesh) else { return apart };
        add_unlike(&mut apart, resolver.mesh_tcp.get(mesh), &signed.by_mesh_tcp, called);
        add_unlike(&mut apart, resolver.mesh_http.get(mesh), &signed.by_mesh_http, called);
        add_unlike(&mut apart, resolver.strategies.get(mesh), &signed.by_strategy, called);
        // Where another kind decides for the unknown source it does for all that are like it,
        // whatever TrafficRoutes would say.
        if !self.winner(resolver, 0, called).goes_first()
            && let Some(policies) = resolver.policies.get(mesh)
            && let Some(service) = called.tag_service()
        {
            let of_kind = policies.unlike_unknown(service);
            apart.extend(of_kind.iter().filter_map(|id| signed.by_traffic.get(id)).flatten());
        }
        apart
    }

    /// Where another kind may stand before a TrafficRoute: each TrafficRoute that wins among its
    /// kind for some source that calls `called`, with the item that goes first for that source, by
    /// its place.
    pub(super) fn rivals(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
        before: Before,
    ) -> BTreeSet<(usize, Option<usize>)> {
        let mesh = called.mesh();
        match before {
            Before::MeshTcp => {
                let routes = resolver.mesh_tcp.get(mesh);
                self.rivals_of(resolver, called, routes, |s| &s.by_mesh_tcp, |of| of.mesh_tcp)
            }
            Before::MeshHttp => {
                let routes = resolver.mesh_http.get(mesh);
                self.rivals_of(resolver, called, routes, |s| &s.by_mesh_http, |of| of.mesh_http)
            }
        }
    }

    /// Sources that both kinds take for unknown ones are looked at once.
    fn rivals_of<P: ToPolicy>(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
        routes: Option<&ToPolicies<'_, P>>,
        by_kind: impl Fn(&Signed) -> &ByKind,
        of_kind: impl Fn(&OfKinds) -> mesh_policy::SignatureId,
    ) -> BTreeSet<(usize, Option<usize>)> {
        let mut rivals = BTreeSet::new();
        let mesh = called.mesh();
        let (Some(policies), Some(routes), Some(service)) =
            (resolver.policies.get(mesh), routes, called.tag_service())
        else {
            return rivals;
        };
        let apart = routes.unlike_unknown(called);
        let signed = self.by_mesh.get(mesh);
        for id in apart.iter().filter_map(|id| by_kind(signed?).get(id)).flatten() {
            let of_kinds = self.of_kinds(mesh, *id);
            let first = policies.winner(of_kinds.traffic, service);
            let item = routes.winner(of_kind(&of_kinds), called);
            rivals.extend(first.map(|first| (first, item)));
        }
        let like_unknown = routes.winner(0, called);
        let told_apart = policies.unlike_unknown(service);
        for traffic in std::iter::once(0).chain(told_apart) {
            let having = signed.and_then(|signed| Some((signed, signed.by_traffic.get(&traffic)?)));
            let exists = having.map_or(traffic == 0, |(signed, ids)| {
                ids.iter().any(|id| !apart.contains(&of_kind(&signed.all[*id])))
            });
            if exists && let Some(first) = policies.winner(traffic, service) {
                rivals.insert((first, like_unknown));
            }
        }
        rivals
    }

    fn of_kinds(&self, mesh: &str, signature: SignatureId) -> OfKinds {
        self.by_mesh.get(mesh).map_or_else(OfKinds::default, |signed| signed.all[signature])
    }
}

/// A kind that goes before TrafficRoutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// MeshTCPRoute.
    MeshTcp,
    /// MeshHTTPRoute.
    MeshHttp,
}

fn signature<'a, P: ToPolicy>(
    policies: &mut BTreeMap<&'a str, ToPolicies<'a, P>>,
    mesh: &str,
    proxies: &[Proxy<'_>],
) -> Option<mesh_policy::SignatureId> {
    policies.get_mut(mesh).map(|policies| policies.signature(proxies))
}

fn add_unlike<P: ToPolicy>(
    apart: &mut BTreeSet<SignatureId>,
    policies: Option<&ToPolicies<'_, P>>,
    having: &ByKind,
    called: &Destination,
) {
    let Some(policies) = policies else { return };
    let unlike = policies.unlike_unknown(called);
    apart.extend(unlike.iter().filter_map(|id| having.get(id)).flatten());
}
