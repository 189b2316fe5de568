//! Who asks, as a VIP sees it: what policies know of it, who was considered for it, and its route.

use std::net::IpAddr;

use super::{Input, Query, QueryError, names, objects};
use crate::{
    policy::{Dataplane, Tags, TrafficRoute},
    resolve::{
        self, Resolver, Route, Vip,
        inventory::Family,
        mesh_http,
        mesh_policy::Proxy,
        resolver::service_alone,
        selection::{Ranking, unknown_source},
        sources::{tag_sets, workload_addresses},
        strategy,
    },
};

/// A source as one VIP sees it.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    pub(super) dataplane: Option<&'a Dataplane>,
    pub(super) address: Option<IpAddr>,
    /// What policies of the VIP's mesh match.
    pub(super) tag_sets: Vec<Tags>,
    /// Dataplanes that the question fits as well, all with the same route.
    pub(super) others: usize,
    /// The class; `None` for a source that does not exist.
    pub(super) class: Option<usize>,
    /// The tags of the outbound.
    pub(super) outbound: Tags,
    pub(super) mesh_http: mesh_http::Ranking<'a>,
    /// MeshHTTPRoutes decide: some are for it, and what is called speaks HTTP.
    pub(super) by_mesh_http: bool,
    pub(super) mesh_tcp: resolve::mesh_tcp::Ranking<'a>,
    pub(super) strategies: strategy::Ranking<'a>,
    /// Among TrafficRoutes. It decides where no MeshHTTPRoute and no MeshTCPRoute does.
    pub(super) ranking: Ranking<'a>,
    pub(super) route: Route,
}

impl<'a> Source<'a> {
    /// The TrafficRoute that decides.
    pub(super) fn traffic_route(&self) -> Option<&'a TrafficRoute> {
        let decides = !self.by_mesh_http && self.mesh_tcp.winner.is_none();
        self.ranking.winner.filter(|_| decides).map(|winner| winner.route)
    }
}

pub(super) fn source<'a>(
    resolver: &Resolver<'a>,
    input: &Input<'a>,
    asker: &names::Asker<'a>,
    vip: &Vip,
    query: &Query,
) -> Result<Source<'a>, QueryError> {
    match asker {
        names::Asker::Dataplane(dataplane) => Ok(of_dataplane(resolver, input, dataplane, vip)),
        names::Asker::Address(address, dataplanes) => {
            let here =
                dataplanes.iter().find(|dataplane| dataplane.meta.mesh == vip.destination.mesh());
            let dataplane = here.or(dataplanes.first()).copied();
            Ok(of_address(resolver, input, dataplane, *address, vip))
        }
        names::Asker::Tags(tags, dataplanes) => {
            let here: Vec<&Dataplane> = dataplanes
                .iter()
                .filter(|d| d.meta.mesh == vip.destination.mesh())
                .copied()
                .collect();
            let mut fitting: Vec<Source<'a>> = here
                .iter()
                .map(|dataplane| of_dataplane(resolver, input, dataplane, vip))
                .collect();
            if fitting.is_empty() {
                let proxies = [Proxy::tagged(vec![tags.clone()])];
                return Ok(of_tags(resolver, vec![tags.clone()], &proxies, vip));
            }
            let mut first = fitting.remove(0);
            if let Some(other) = fitting.iter().find(|other| other.route != first.route) {
                let name = |source: &Source<'_>| {
                    source.dataplane.map_or(String::new(), |dataplane| dataplane.meta.name.clone())
                };
                return Err(QueryError {
                    message: format!(
                        "{} Dataplanes have the tags `{}`, and they are not routed alike",
                        here.len(),
                        query.from
                    ),
                    candidates: vec![name(&first), name(other)],
                });
            }
            first.others = fitting.len();
            Ok(first)
        }
    }
}

fn of_dataplane<'a>(
    resolver: &Resolver<'a>,
    input: &Input<'a>,
    dataplane: &'a Dataplane,
    vip: &Vip,
) -> Source<'a> {
    let family = Family::of(vip.key.addr.ip());
    let addresses = workload_addresses(dataplane, &input.settings.names);
    let same = addresses.iter().find(|address| Family::of(**address) == family);
    match same.or(addresses.first()) {
        Some(address) => of_address(resolver, input, Some(dataplane), *address, vip),
        None => {
            let (sets, proxy) = if dataplane.meta.mesh == vip.destination.mesh() {
                let sets = tag_sets([dataplane]).into_iter().cloned().collect();
                (sets, Proxy::of(dataplane))
            } else {
                (vec![unknown_source()], Proxy::unknown())
            };
            Source { dataplane: Some(dataplane), ..of_tags(resolver, sets, &[proxy], vip) }
        }
    }
}

fn of_address<'a>(
    resolver: &Resolver<'a>,
    input: &Input<'a>,
    dataplane: Option<&'a Dataplane>,
    address: IpAddr,
    vip: &Vip,
) -> Source<'a> {
    let mesh = vip.destination.mesh();
    let tag_sets = resolver.tag_sets(mesh, address);
    let ranking = ranking(resolver, &tag_sets, vip);
    let proxies = resolver.proxies(mesh, address);
    let outbound = vip
        .destination
        .tag_service()
        .map_or_else(Tags::new, |service| resolver.outbound_tags(mesh, service, vip.key, address));
    let mesh_http = resolver.rank_mesh_http(&proxies, &vip.destination);
    let resolved = input.resolved;
    let known = resolved.sources.iter().find(|source| source.address == address);
    let class = known.map_or(0, |source| source.class);
    let route = vip.class_routes.get(&class).copied().unwrap_or(vip.route);
    Source {
        dataplane,
        address: Some(address),
        outbound,
        tag_sets,
        others: 0,
        class: Some(class),
        by_mesh_http: decide(resolver, &mesh_http, vip),
        mesh_http,
        mesh_tcp: resolver.rank_mesh_tcp(&proxies, &vip.destination),
        strategies: resolver.rank_strategies(&proxies, &vip.destination),
        ranking,
        route: resolved.routes[route].clone(),
    }
}

fn of_tags<'a>(
    resolver: &Resolver<'a>,
    tag_sets: Vec<Tags>,
    proxies: &[Proxy<'_>],
    vip: &Vip,
) -> Source<'a> {
    let ranking = ranking(resolver, &tag_sets, vip);
    let mesh_tcp = resolver.rank_mesh_tcp(proxies, &vip.destination);
    let outbound = vip.destination.tag_service().map_or_else(Tags::new, service_alone);
    let clients = objects::clients(&tag_sets);
    let sets: Vec<&Tags> = tag_sets.iter().collect();
    let route = resolver.route_to(vip, proxies, &sets, clients);
    let mesh_http = resolver.rank_mesh_http(proxies, &vip.destination);
    let (dataplane, address, class) = (None, None, None);
    Source {
        dataplane,
        address,
        tag_sets,
        others: 0,
        class,
        outbound,
        by_mesh_http: decide(resolver, &mesh_http, vip),
        mesh_http,
        mesh_tcp,
        strategies: resolver.rank_strategies(proxies, &vip.destination),
        ranking,
        route,
    }
}

/// Whether MeshHTTPRoutes decide.
fn decide(resolver: &Resolver<'_>, ranking: &mesh_http::Ranking<'_>, vip: &Vip) -> bool {
    ranking.winner.is_some() && resolver.speaks_http(&vip.destination)
}

/// Who was considered for a VIP; nobody where it stands for no service by its tag.
fn ranking<'a>(resolver: &Resolver<'a>, tag_sets: &[Tags], vip: &Vip) -> Ranking<'a> {
    let sets: Vec<&Tags> = tag_sets.iter().collect();
    let service = vip.destination.tag_service();
    service.map(|service| resolver.rank(vip.destination.mesh(), &sets, service)).unwrap_or_default()
}
