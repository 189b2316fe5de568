//! The answers behind [`resolve`](super::resolve), one at a time: what a source is, what wins for
//! it, what route that gives.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Decision, Destination, NoRoute, ResolveSettings, Route, Vip, VipKey,
    classes::Recipe,
    gateway::{self, Attachments},
    inventory::{Family, Inventory},
    mesh_http::{self, MeshHttpRoutes},
    mesh_policy::{self, Proxy, ToPolicies, ToPolicy},
    mesh_tcp::{self, Item, MeshTcpRoutes},
    objects::Objects,
    precedence::MeshPolicies,
    selection::{Ranking, rank_routes, unknown_source},
    signatures::{Connections, Winner},
    sources::{Sources, tag_sets},
    split::Place,
    strategy::{self, OfHttpRoutes, Strategies},
};
use crate::policy::{
    Dataplane, List, MeshHttpRoute, MeshTcpRoute, PolicySet, SERVICE_TAG, Tags, TrafficRoute,
};

/// A policy set, indexed. Answers for any source, also for one that does not exist.
#[derive(Debug)]
pub struct Resolver<'a> {
    /// What it resolves with.
    pub settings: &'a ResolveSettings,
    /// All services.
    pub inventory: Inventory<'a>,
    /// TCPRoutes and what they attach to.
    pub attached: Attachments<'a>,
    pub(super) set: &'a PolicySet,
    /// Sorted by (mesh, name).
    pub(super) dataplanes: Vec<&'a Dataplane>,
    pub(super) sources: Sources<'a>,
    pub(super) policies: BTreeMap<&'a str, MeshPolicies<'a>>,
    pub(super) mesh_tcp: BTreeMap<&'a str, MeshTcpRoutes<'a>>,
    pub(super) mesh_http: BTreeMap<&'a str, MeshHttpRoutes<'a>>,
    pub(super) strategies: BTreeMap<&'a str, Strategies<'a>>,
    /// Objects that stand for services.
    pub objects: Objects<'a>,
    locality_aware: BTreeMap<&'a str, bool>,
}

impl<'a> Resolver<'a> {
    /// Indexes `set`, whatever its order.
    pub fn new(set: &'a PolicySet, settings: &'a ResolveSettings) -> Self {
        let mut dataplanes: Vec<&Dataplane> =
            set.dataplanes.iter().map(|dataplane| &**dataplane).collect();
        dataplanes.sort_by_key(|dataplane| (&dataplane.meta.mesh, &dataplane.meta.name));
        let mut routes: Vec<&TrafficRoute> =
            set.traffic_routes.iter().map(|route| &**route).collect();
        routes.sort_by_key(|route| (&route.meta.mesh, &route.meta.name));
        let mut by_mesh: BTreeMap<&str, Vec<&TrafficRoute>> = BTreeMap::new();
        for route in routes {
            by_mesh.entry(&route.meta.mesh).or_default().push(route);
        }
        let objects = Objects::new(set);
        let zone = settings.zone.as_deref();
        Self {
            settings,
            mesh_tcp: by_mesh_of(&set.mesh_tcp_routes, &objects, zone),
            mesh_http: by_mesh_of(&set.mesh_http_routes, &objects, zone),
            strategies: by_mesh_of(&set.mesh_load_balancing_strategies, &objects, zone),
            objects,
            inventory: Inventory::new(set, settings),
            attached: gateway::attach(set, &settings.gateway_controller),
            set,
            sources: Sources::of(&dataplanes, &settings.names),
            policies: by_mesh
                .into_iter()
                .map(|(mesh, routes)| (mesh, MeshPolicies::new(routes)))
                .collect(),
            locality_aware: set
                .meshes
                .iter()
                .map(|mesh| (mesh.meta.name.as_str(), mesh.locality_aware))
                .collect(),
            dataplanes,
        }
    }

    /// Where a VIP of this mesh and family finds its endpoints.
    pub fn place<'p>(&'p self, mesh: &'p str, family: Family) -> Place<'p> {
        let local = self.locality_aware.get(mesh).copied().unwrap_or(false);
        let zone = self.settings.zone.as_deref().filter(|_| local);
        let own_zone = self.settings.zone.as_deref();
        Place { inventory: &self.inventory, mesh, family, zone, own_zone, locality: None }
    }

    /// The Dataplanes that have an address.
    pub fn dataplanes_at(&self, address: IpAddr) -> &[&'a Dataplane] {
        self.sources.dataplanes(address)
    }

    /// The TrafficRoutes of a mesh, by name.
    pub fn traffic_routes(&self, mesh: &str) -> &[&'a TrafficRoute] {
        self.policies.get(mesh).map_or(&[], MeshPolicies::routes)
    }

    /// The MeshTCPRoutes of a mesh, by name.
    pub fn mesh_tcp_routes(&self, mesh: &str) -> &[&'a MeshTcpRoute] {
        self.mesh_tcp.get(mesh).map_or(&[], MeshTcpRoutes::policies)
    }

    /// An item of a MeshTCPRoute by its place.
    pub(super) fn mesh_tcp_item(&self, mesh: &str, place: usize) -> Option<Item<'a>> {
        self.mesh_tcp.get(mesh).map(|routes| routes.item(place))
    }

    /// Whether an item of a MeshTCPRoute names an object that is there.
    pub(super) fn names_object(&self, item: &Item<'_>) -> bool {
        mesh_policy::names_object(item, &self.objects)
    }

    /// What an address is to MeshTCPRoutes of `mesh`.
    pub fn proxies(&self, mesh: &str, address: IpAddr) -> Vec<Proxy<'a>> {
        let dataplanes = self.sources.dataplanes(address).iter();
        let proxies: Vec<_> = dataplanes
            .filter(|dataplane| dataplane.meta.mesh == mesh)
            .map(|dataplane| Proxy::of(dataplane))
            .collect();
        if proxies.is_empty() { vec![Proxy::unknown()] } else { proxies }
    }

    /// Which MeshTCPRoutes were considered for a workload that calls `called`, and which won.
    pub fn rank_mesh_tcp(
        &self,
        workload: &[Proxy<'_>],
        called: &Destination,
    ) -> mesh_tcp::Ranking<'a> {
        let policies = self.mesh_tcp_routes(called.mesh()).iter().copied();
        let zone = self.settings.zone.as_deref();
        mesh_policy::rank(policies, &self.objects, zone, workload, called)
    }

    /// The tag sets by which policies of `mesh` know an address; those of an unknown source
    /// where no Dataplane of that mesh has it, be it one of another mesh (decision D1).
    pub fn tag_sets(&self, mesh: &str, address: IpAddr) -> Vec<Tags> {
        let of_mesh = |dataplane: &&&Dataplane| dataplane.meta.mesh == mesh;
        let dataplanes: Vec<_> =
            self.sources.dataplanes(address).iter().filter(of_mesh).copied().collect();
        if dataplanes.is_empty() {
            return vec![unknown_source()];
        }
        tag_sets(dataplanes).into_iter().cloned().collect()
    }

    /// The tags of the outbound that a source dials with `vip`: those that its own Dataplane
    /// gives it, else the service alone.
    pub fn outbound_tags(&self, mesh: &str, service: &str, vip: VipKey, source: IpAddr) -> Tags {
        match self.sources.own_outbound(source, vip.addr, mesh) {
            Some((_, outbound)) if outbound.tags.get(SERVICE_TAG).is_some_and(|s| s == service) => {
                outbound.tags.clone()
            }
            _ => service_alone(service),
        }
    }

    /// Who was considered for a source with these tag sets that calls `service`, and who won.
    pub fn rank(&self, mesh: &str, tag_sets: &[&Tags], service: &str) -> Ranking<'a> {
        rank_routes(self.traffic_routes(mesh).iter().copied(), tag_sets, service)
    }

    /// The route of a destination that is no service by its tag, for clients of a namespace: as
    /// its TCPRoute says; without one a listener has nothing to offer, and anything else is
    /// reached directly.
    pub fn object_route(
        &self,
        destination: &Destination,
        clients: Option<&str>,
        family: Family,
    ) -> Route {
        let place = self.place(destination.mesh(), family);
        self.attached.route(destination, clients, &place).unwrap_or_else(|| match destination {
            Destination::Listener { .. } => place.no_policy_route(Decision::Reject, &Tags::new()),
            _ => place.direct_route(destination),
        })
    }

    /// Whether requests to a destination can be told apart.
    pub fn speaks_http(&self, destination: &Destination) -> bool {
        let known = self.inventory.endpoints(destination);
        known.is_some_and(|known| known.protocol().is_http_like())
    }

    /// The MeshHTTPRoutes of a mesh, by name.
    pub fn mesh_http_routes(&self, mesh: &str) -> &[&'a MeshHttpRoute] {
        self.mesh_http.get(mesh).map_or(&[], MeshHttpRoutes::policies)
    }

    /// Which MeshHTTPRoutes were considered for a workload that calls `called`, in which order
    /// they are merged. They have an effect where what is called speaks HTTP.
    pub fn rank_mesh_http(
        &self,
        workload: &[Proxy<'_>],
        called: &Destination,
    ) -> mesh_http::Ranking<'a> {
        let policies = self.mesh_http_routes(called.mesh()).iter().copied();
        let zone = self.settings.zone.as_deref();
        mesh_policy::rank(policies, &self.objects, zone, workload, called)
    }

    /// Whoever decides for a workload that calls something of a mesh.
    pub fn deciding(
        &self,
        workload: &[Proxy<'_>],
        tag_sets: &[&Tags],
        called: &Destination,
    ) -> Deciding<'a> {
        let http = self.rank_mesh_http(workload, called);
        let speaks_http = self.speaks_http(called);
        let strategies = self.rank_strategies(workload, called);
        let winner = called.tag_service().and_then(|service| {
            self.rank(called.mesh(), tag_sets, service).winner.map(|winner| winner.route)
        });
        Deciding {
            http: if speaks_http { http.in_order() } else { Vec::new() },
            mesh_tcp: self.rank_mesh_tcp(workload, called).winner,
            traffic: winner,
            strategies: strategies.in_order(),
            of_http_routes: self.strategies_of_http_routes(workload, called.mesh()),
        }
    }

    /// Which MeshLoadBalancingStrategies were considered for a workload that calls `called`, in
    /// which order they are merged.
    pub fn rank_strategies(
        &self,
        workload: &[Proxy<'_>],
        called: &Destination,
    ) -> strategy::Ranking<'a> {
        let policies = self.strategies.get(called.mesh()).map_or(&[][..], Strategies::policies);
        let zone = self.settings.zone.as_deref();
        mesh_policy::rank(policies.iter().copied(), &self.objects, zone, workload, called)
    }

    fn strategies_of_http_routes(
        &self,
        workload: &[Proxy<'_>],
        mesh: &str,
    ) -> Vec<strategy::Item<'a>> {
        let policies = self.strategies.get(mesh).map_or(&[][..], Strategies::policies);
        let zone = self.settings.zone.as_deref();
        mesh_policy::of_http_routes(policies.iter().copied(), zone, workload)
    }

    /// Those whom a winner means by their places.
    pub(super) fn deciding_by(&self, winner: &Winner, mesh: &str) -> Deciding<'a> {
        let http = self.mesh_http.get(mesh).zip(winner.http.as_deref());
        let strategies = |places: &[usize]| {
            let of_mesh = self.strategies.get(mesh);
            of_mesh.map_or_else(Vec::new, |of_mesh| {
                places.iter().map(|place| of_mesh.item(*place)).collect()
            })
        };
        Deciding {
            http: http.map_or_else(Vec::new, |(routes, places)| {
                places.iter().map(|place| routes.item(*place)).collect()
            }),
            mesh_tcp: match winner.connections {
                Connections::MeshTcp(place) => self.mesh_tcp_item(mesh, place),
                Connections::Traffic(_) | Connections::Nobody => None,
            },
            traffic: match winner.connections {
                Connections::Traffic(index) => Some(self.traffic_routes(mesh)[index]),
                Connections::MeshTcp(_) | Connections::Nobody => None,
            },
            strategies: strategies(&winner.strategies),
            of_http_routes: strategies(&winner.of_http_routes),
        }
    }

    /// The route of whoever decides.
    pub(super) fn route_of(&self, recipe: &Recipe) -> Route {
        let Recipe { winner, called, outbound, family } = recipe;
        self.route(&self.deciding_by(winner, called.mesh()), called, *family, outbound)
    }

    /// The route of a VIP for a workload whose outbounds say nothing but the service. `clients` is
    /// its namespace.
    pub fn route_to(
        &self,
        vip: &Vip,
        workload: &[Proxy<'_>],
        tag_sets: &[&Tags],
        clients: Option<&str>,
    ) -> Route {
        let (called, family) = (&vip.destination, Family::of(vip.key.addr.ip()));
        if matches!(called, Destination::Service { .. } | Destination::Listener { .. }) {
            return self.object_route(called, clients, family);
        }
        let deciding = self.deciding(workload, tag_sets, called);
        let attached = |service: &&Destination| self.attached.point(service, clients).is_some();
        match vip.also.as_ref().filter(attached) {
            Some(service) if !deciding.goes_first() => self.object_route(service, clients, family),
            _ => {
                let outbound = called.tag_service().map(service_alone).unwrap_or_default();
                self.route(&deciding, called, family, &outbound)
            }
        }
    }

    /// The route that those who decide give to what is called by an outbound with these tags
    /// (semantics 4.7; decisions D16, D21, D23).
    pub fn route(
        &self,
        deciding: &Deciding<'_>,
        called: &Destination,
        family: Family,
        outbound: &Tags,
    ) -> Route {
        let mesh = called.mesh();
        let strategy = strategy::merge(&deciding.strategies);
        let place = Place { locality: strategy.locality, ..self.place(mesh, family) };
        let by_tcp =
            deciding.mesh_tcp.map(|item| place.mesh_tcp_route(&item, &self.objects, called));
        let route = if !deciding.http.is_empty() {
            let (_, tags) = place.subset(outbound.clone());
            place.mesh_http_route(&deciding.http, &self.objects, (called, &tags), by_tcp)
        } else if let Some(route) = by_tcp {
            route
        } else if called.tag_service().is_none() {
            place.direct_route(called)
        } else if let Some(policy) = deciding.traffic {
            place.policy_route(policy, outbound)
        } else {
            place.no_policy_route(self.no_policy_decision(mesh), outbound)
        };
        if deciding.strategies.is_empty() && deciding.of_http_routes.is_empty() {
            return route;
        }
        let routes = self.mesh_http_routes(mesh);
        let of_http_routes = OfHttpRoutes { items: &deciding.of_http_routes, routes };
        strategy.apply(&place, route, of_http_routes, self.speaks_http(called))
    }

    /// What happens where nothing matches (decision D6): a mesh without any TrafficRoute is
    /// routed directly; in one that has some the configuration decides.
    pub fn no_policy_decision(&self, mesh: &str) -> Decision {
        match self.settings.no_route {
            NoRoute::Deny if !self.traffic_routes(mesh).is_empty() => Decision::Reject,
            NoRoute::Deny | NoRoute::Direct => Decision::Direct,
        }
    }
}

/// Whoever decides about connections and requests: what of it counts is [`Resolver::route`]'s to
/// say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deciding<'a> {
    /// Items of MeshHTTPRoutes, in order; none where requests cannot be told apart.
    pub http: Vec<mesh_http::Item<'a>>,
    /// The item of a MeshTCPRoute that wins.
    pub mesh_tcp: Option<Item<'a>>,
    /// The TrafficRoute that wins.
    pub traffic: Option<&'a TrafficRoute>,
    /// Items of MeshLoadBalancingStrategies that speak of what is called, in order.
    pub strategies: Vec<strategy::Item<'a>>,
    /// The same of those that speak of what MeshHTTPRoutes take.
    pub of_http_routes: Vec<strategy::Item<'a>>,
}

impl Deciding<'_> {
    /// Whether it is a policy that goes before routes of the Gateway API (decision D21).
    pub fn goes_first(&self) -> bool {
        !self.http.is_empty() || self.mesh_tcp.is_some()
    }
}

/// The tags of an outbound that says nothing but its service.
pub fn service_alone(service: &str) -> Tags {
    Tags::from([(SERVICE_TAG.to_owned(), service.to_owned())])
}

/// The policies of a kind by their mesh, those of one by their name.
fn by_mesh_of<'a, P: ToPolicy>(
    all: &'a List<P>,
    objects: &Objects<'a>,
    zone: Option<&str>,
) -> BTreeMap<&'a str, ToPolicies<'a, P>> {
    let mut sorted: Vec<&'a P> = all.iter().map(|policy| &**policy).collect();
    sorted.sort_by_key(|policy| (&policy.meta().mesh, &policy.meta().name));
    let of_mesh = |policies: &[&'a P]| {
        let mesh = policies[0].meta().mesh.as_str();
        (mesh, ToPolicies::new(policies.to_vec(), objects, zone))
    };
    sorted.chunk_by(|a, b| a.meta().mesh == b.meta().mesh).map(of_mesh).collect()
}
