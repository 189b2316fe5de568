//! Sources, told apart by the policies of every kind at once.
//!
//! Each kind has signatures of its own ([`precedence`](super::precedence),
//! [`mesh_tcp`](super::mesh_tcp)); what a source is to all of them is the pair. For a destination
//! only those pairs are looked at that can lead to another route than an unknown source has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Destination, Resolver,
    mesh_tcp::{self, Proxy},
    precedence,
    sources::tag_sets,
};

/// Index of a pair of signatures. 0 is that of an unknown source.
pub(super) type SignatureId = usize;

/// A source's signature in each mesh in which it has a Dataplane, sorted by mesh.
pub(super) type OfMeshes<'a> = Vec<(&'a str, SignatureId)>;

/// Who decides about connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Winner {
    /// An item of a MeshTCPRoute, by its place (decision D23).
    MeshTcp(usize),
    /// A TrafficRoute, by its index.
    Traffic(usize),
    /// No policy.
    Nobody,
}

/// What sources are to the policies of one mesh.
type Pair = (precedence::SignatureId, mesh_tcp::SignatureId);

/// The pairs of one mesh.
#[derive(Debug)]
struct Pairs {
    all: Vec<Pair>,
    ids: BTreeMap<Pair, SignatureId>,
    by_traffic: BTreeMap<precedence::SignatureId, Vec<SignatureId>>,
    by_mesh_tcp: BTreeMap<mesh_tcp::SignatureId, Vec<SignatureId>>,
}

impl Pairs {
    fn new() -> Self {
        Self {
            all: vec![(0, 0)],
            ids: BTreeMap::from([((0, 0), 0)]),
            by_traffic: BTreeMap::from([(0, vec![0])]),
            by_mesh_tcp: BTreeMap::from([(0, vec![0])]),
        }
    }

    fn id(&mut self, pair: Pair) -> SignatureId {
        if let Some(id) = self.ids.get(&pair) {
            return *id;
        }
        let id = self.all.len();
        self.all.push(pair);
        self.ids.insert(pair, id);
        self.by_traffic.entry(pair.0).or_default().push(id);
        self.by_mesh_tcp.entry(pair.1).or_default().push(id);
        id
    }
}

/// The signatures of all sources.
#[derive(Debug)]
pub(super) struct Signatures<'a> {
    /// In the order of the sources, which is that of their addresses.
    of_sources: Vec<(IpAddr, OfMeshes<'a>)>,
    pairs: BTreeMap<&'a str, Pairs>,
}

impl<'a> Signatures<'a> {
    /// Signs every source.
    pub(super) fn new(resolver: &mut Resolver<'a>) -> Self {
        let mut of_sources = Vec::new();
        let mut pairs: BTreeMap<&'a str, Pairs> = BTreeMap::new();
        for (address, dataplanes) in resolver.sources.iter() {
            let mut of_meshes: OfMeshes<'a> = Vec::with_capacity(1);
            for of_mesh in dataplanes.chunk_by(|a, b| a.meta.mesh == b.meta.mesh) {
                let mesh = of_mesh[0].meta.mesh.as_str();
                let traffic = resolver
                    .policies
                    .get_mut(mesh)
                    .map(|policies| policies.signature(&tag_sets(of_mesh.iter().copied())));
                let mesh_tcp = resolver.mesh_tcp.get_mut(mesh).map(|routes| {
                    let proxies: Vec<_> = of_mesh.iter().copied().map(Proxy::of).collect();
                    routes.signature(&proxies)
                });
                if traffic.is_some() || mesh_tcp.is_some() {
                    let pair = (traffic.unwrap_or(0), mesh_tcp.unwrap_or(0));
                    let pairs = pairs.entry(mesh).or_insert_with(Pairs::new);
                    of_meshes.push((mesh, pairs.id(pair)));
                }
            }
            of_sources.push((address, of_meshes));
        }
        Self { of_sources, pairs }
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

    /// Who decides for sources of this signature that call `called`: a MeshTCPRoute where one
    /// speaks of it, else a TrafficRoute (decision D23).
    pub(super) fn winner(
        &self,
        resolver: &Resolver<'_>,
        signature: SignatureId,
        called: &Destination,
    ) -> Winner {
        let mesh = called.mesh();
        let (traffic, mesh_tcp) = self.pair(mesh, signature);
        let routes = resolver.mesh_tcp.get(mesh);
        if let Some(place) = routes.and_then(|routes| routes.winner(mesh_tcp, called)) {
            return Winner::MeshTcp(place);
        }
        let policies = resolver.policies.get(mesh).zip(called.tag_service());
        let first = policies.and_then(|(policies, service)| policies.winner(traffic, service));
        first.map_or(Winner::Nobody, Winner::Traffic)
    }

    /// Signatures whose winner may differ from that of an unknown source, sorted. All others have
    /// the unknown source's winner.
    pub(super) fn unlike_unknown(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
    ) -> BTreeSet<SignatureId> {
        // Where a MeshTCPRoute decides for the unknown source it does for all that are like it,
        // whatever TrafficRoutes would say.
        let decided = matches!(self.winner(resolver, 0, called), Winner::MeshTcp(_));
        self.told_apart(resolver, called, !decided)
    }

    /// Where a MeshTCPRoute may stand before a TrafficRoute: each TrafficRoute that wins among its
    /// kind for some source that calls `called`, with the item of a MeshTCPRoute that wins for
    /// that source, by its place. Sources that both kinds take for unknown ones are looked at once.
    pub(super) fn rivals(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
    ) -> BTreeSet<(usize, Option<usize>)> {
        let mut rivals = BTreeSet::new();
        let mesh = called.mesh();
        let (Some(policies), Some(routes), Some(service)) =
            (resolver.policies.get(mesh), resolver.mesh_tcp.get(mesh), called.tag_service())
        else {
            return rivals;
        };
        let apart = routes.unlike_unknown(called);
        let pairs = self.pairs.get(mesh);
        for id in apart.iter().filter_map(|id| pairs?.by_mesh_tcp.get(id)).flatten() {
            let (traffic, mesh_tcp) = self.pair(mesh, *id);
            let first = policies.winner(traffic, service);
            rivals.extend(first.map(|first| (first, routes.winner(mesh_tcp, called))));
        }
        let like_unknown = routes.winner(0, called);
        let told_apart = policies.unlike_unknown(service);
        for traffic in std::iter::once(0).chain(told_apart) {
            let of_kind = pairs.and_then(|pairs| Some((pairs, pairs.by_traffic.get(&traffic)?)));
            let exists = of_kind.map_or(traffic == 0, |(pairs, ids)| {
                ids.iter().any(|id| !apart.contains(&pairs.all[*id].1))
            });
            if exists && let Some(first) = policies.winner(traffic, service) {
                rivals.insert((first, like_unknown));
            }
        }
        rivals
    }

    fn told_apart(
        &self,
        resolver: &Resolver<'_>,
        called: &Destination,
        by_traffic_routes: bool,
    ) -> BTreeSet<SignatureId> {
        let mesh = called.mesh();
        let mut apart = BTreeSet::new();
        let Some(pairs) = self.pairs.get(mesh) else { return apart };
        if let Some(routes) = resolver.mesh_tcp.get(mesh) {
            let of_kind = routes.unlike_unknown(called);
            apart.extend(of_kind.iter().filter_map(|id| pairs.by_mesh_tcp.get(id)).flatten());
        }
        if by_traffic_routes
            && let Some(policies) = resolver.policies.get(mesh)
            && let Some(service) = called.tag_service()
        {
            let of_kind = policies.unlike_unknown(service);
            apart.extend(of_kind.iter().filter_map(|id| pairs.by_traffic.get(id)).flatten());
        }
        apart
    }

    fn pair(&self, mesh: &str, signature: SignatureId) -> Pair {
        self.pairs.get(mesh).map_or((0, 0), |pairs| pairs.all[signature])
    }
}
