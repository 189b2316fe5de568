//! Where a connection would go, and why.
//!
//! Belongs here: names that people type into a source and a destination, the shares of a route
//! as its table has them, and the sentences that say how it came about. Pure, like the rooms it
//! asks: it reads no file and no map. The decisions themselves are made in
//! [`resolve`] and [`compile`](crate::compile); this room repeats none of them,
//! it asks the same functions and says what they answered.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::{
    compile::Tables,
    policy::{Dataplane, PolicySet, Tags, TrafficRoute},
    resolve::{
        self, ResolveSettings, Resolved, Resolver, Route, Vip, VipKey, VipProtocol,
        inventory::Family,
        mesh_policy::Proxy,
        resolver::service_alone,
        selection::{Ranking, unknown_source},
        sources::{tag_sets, workload_addresses},
    },
};

mod answer;
mod mesh_tcp;
mod names;
mod objects;
mod shares;
mod steps;

pub use answer::{
    Answer, BackendAnswer, Decision, DestinationAnswer, Layer, LoadBalancerAnswer, PolicyAnswer,
    RealAnswer, RequestAnswer, ResponseAnswer, RouteAnswer, RuleAnswer, SourceAnswer,
};

/// What the answer is made from: one set, resolved and, where possible, compiled.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The policies.
    pub set: &'a PolicySet,
    /// What they were resolved with.
    pub settings: &'a ResolveSettings,
    /// `resolve(set, settings)`.
    pub resolved: &'a Resolved,
    /// `compile(resolved, …)`; without it shares come from weights and slots stay unknown.
    pub tables: Option<&'a Tables>,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `DATAPLANE`, `MESH/DATAPLANE`, an address, or `k=v,k=v`.
    pub from: String,
    /// `SERVICE`, `SERVICE:PORT`, either with `MESH/` before it, or `ADDRESS:PORT`.
    pub to: String,
    /// The request, where one was described.
    pub request: Option<RequestQuery>,
    /// Every route of the destination, not only the one that is taken.
    pub all: bool,
    /// What it is dialled with; `None`: TCP where that is possible.
    pub protocol: Option<VipProtocol>,
}

/// A described request. What is absent was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestQuery {
    /// `--method`.
    pub method: Option<String>,
    /// `--path`, with query.
    pub path: Option<String>,
    /// `--host`.
    pub host: Option<String>,
    /// `--header NAME:VALUE`, in order.
    pub headers: Vec<(String, String)>,
}

/// A question that names something unknown, or more than one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// What is wrong with which word.
    pub message: String,
    /// What would be understood, closest first.
    pub candidates: Vec<String>,
}

/// Says where connections go. A question that names something unknown, or more than one thing,
/// is refused with what could have been meant.
pub fn explain(input: &Input<'_>, query: &Query) -> Result<Answer, QueryError> {
    let asker = names::asker(input, &query.from)?;
    let vips = match names::target(input, &asker, &query.to, query.protocol)? {
        names::Target::Vips(vips) => vips,
        names::Target::Elsewhere(addr) => return Ok(no_vip(input, &asker, addr, query)),
    };
    let resolver = Resolver::new(input.set, input.settings);
    let mut taken: Vec<(&Vip, Source<'_>, Route)> = Vec::new();
    for vip in vips {
        let source = source(&resolver, input, &asker, vip, query)?;
        let route = source.route.clone();
        taken.push((vip, source, route));
    }
    let (vip, source, route) = &taken[0];
    if taken.iter().any(|(.., other)| other != route) {
        let all: Vec<&Vip> = taken.iter().map(|(vip, ..)| *vip).collect();
        return Err(QueryError {
            message: format!(
                "{} has {} VIPs that route this source differently",
                vip.destination.called(),
                all.len()
            ),
            candidates: names::addresses(&all),
        });
    }
    let others: Vec<VipKey> = taken[1..].iter().map(|(vip, ..)| vip.key).collect();

    let shares = shares::shares(input.resolved, input.tables, vip, route);
    let told = steps::Told { input, resolver: &resolver, query, vip, source, route };
    let steps = told.steps(&others, &shares);
    let known = resolver.inventory.endpoints(&vip.destination);
    let protocol = match vip.key.protocol {
        VipProtocol::Tcp => known.map_or("tcp", |service| service.protocol().name()),
        VipProtocol::Udp => "udp",
    };
    let routes = query.all.then(|| {
        vec![RouteAnswer {
            matches: None,
            backends: shares.backends.clone(),
            request: None,
            response: None,
        }]
    });
    Ok(Answer {
        source: SourceAnswer {
            dataplane: source.dataplane.map(|dataplane| dataplane.meta.name.clone()),
            address: source.address.map(|address| address.to_string()),
        },
        destination: DestinationAnswer {
            service: Some(vip.destination.to_string()),
            address: vip.key.addr.to_string(),
        },
        protocol: protocol.to_owned(),
        layer: Layer::L4,
        policy: route.policy.as_ref().map(|policy| PolicyAnswer {
            kind: policy.kind.clone(),
            mesh: Some(policy.mesh.clone()).filter(|mesh| !mesh.is_empty()),
            name: policy.name.clone(),
        }),
        rule: source.mesh_tcp.winner.map(|item| RuleAnswer { index: item.index, matches: None }),
        decision: match route.decision {
            resolve::Decision::Forward => Decision::Forward,
            resolve::Decision::Direct => Decision::Direct,
            resolve::Decision::Reject => Decision::Reject,
        },
        load_balancer: (route.decision != resolve::Decision::Reject).then(|| LoadBalancerAnswer {
            kind: route.load_balancer.name().to_owned(),
            slots: shares.slots.as_ref().map(|(all, _)| *all),
        }),
        backends: shares.backends,
        request: None,
        response: None,
        steps,
        routes,
    })
}

/// A source as one VIP sees it.
#[derive(Clone, Debug)]
struct Source<'a> {
    dataplane: Option<&'a Dataplane>,
    address: Option<IpAddr>,
    /// What policies of the VIP's mesh match.
    tag_sets: Vec<Tags>,
    /// Dataplanes that the question fits as well, all with the same route.
    others: usize,
    /// The class; `None` for a source that does not exist.
    class: Option<usize>,
    /// The tags of the outbound.
    outbound: Tags,
    mesh_tcp: resolve::mesh_tcp::Ranking<'a>,
    /// Among TrafficRoutes. It decides where no MeshTCPRoute does.
    ranking: Ranking<'a>,
    route: Route,
}

impl<'a> Source<'a> {
    /// The TrafficRoute that decides.
    fn traffic_route(&self) -> Option<&'a TrafficRoute> {
        let decides = self.mesh_tcp.winner.is_none();
        self.ranking.winner.filter(|_| decides).map(|winner| winner.route)
    }
}

fn source<'a>(
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
        mesh_tcp: resolver.rank_mesh_tcp(&proxies, &vip.destination),
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
    let (dataplane, address, class) = (None, None, None);
    Source { dataplane, address, tag_sets, others: 0, class, outbound, mesh_tcp, ranking, route }
}

/// Who was considered for a VIP; nobody where it stands for no service by its tag.
fn ranking<'a>(resolver: &Resolver<'a>, tag_sets: &[Tags], vip: &Vip) -> Ranking<'a> {
    let sets: Vec<&Tags> = tag_sets.iter().collect();
    let service = vip.destination.tag_service();
    service.map(|service| resolver.rank(vip.destination.mesh(), &sets, service)).unwrap_or_default()
}

/// The answer for an address that is no VIP.
fn no_vip(input: &Input<'_>, asker: &names::Asker<'_>, addr: SocketAddr, query: &Query) -> Answer {
    let dataplane = asker.dataplanes().first().copied();
    let address = match asker {
        names::Asker::Address(address, _) => Some(*address),
        names::Asker::Dataplane(_) | names::Asker::Tags(..) => dataplane.and_then(|dataplane| {
            workload_addresses(dataplane, &input.settings.names).first().copied()
        }),
    };
    Answer {
        source: SourceAnswer {
            dataplane: dataplane.map(|dataplane| dataplane.meta.name.clone()),
            address: address.map(|address| address.to_string()),
        },
        destination: DestinationAnswer { service: None, address: addr.to_string() },
        protocol: query.protocol.unwrap_or_default().name().to_owned(),
        layer: Layer::L4,
        policy: None,
        rule: None,
        decision: Decision::Direct,
        backends: Vec::new(),
        load_balancer: None,
        request: None,
        response: None,
        steps: steps::no_vip(input, addr),
        routes: query.all.then(Vec::new),
    }
}

#[cfg(test)]
mod mesh_object_tests;
#[cfg(test)]
mod object_tests;
#[cfg(test)]
mod tests;
