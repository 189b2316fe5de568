//! What can be dialled: which services have a VIP, at which addresses and ports (decision D2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::{
    Destination, Resolver, VipAssignments, VipOrigin, VipOwner,
    allocate::allocate,
    dialled::Claims,
    findings::{Findings, Mention},
    gateway,
    inventory::{Family, Inventory, is_broadcast},
    kubernetes,
    mesh_tcp::backends::leads_to,
    resolver::service_alone,
    sources::{Declared, dialled},
    split::{outer_split, substitute},
};
use crate::policy::{Dataplane, Outbound, SERVICE_TAG, Tags};

/// A VIP before its routes are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedVip {
    pub(super) addr: SocketAddr,
    pub(super) destination: Destination,
    pub(super) origin: VipOrigin,
    /// The Service that the same address and port are of, where `destination` is that Service as
    /// a mesh knows it.
    pub(super) also: Option<Destination>,
}

/// All VIPs, sorted by address and port, and the assignments behind them.
pub(super) struct Vips {
    pub(super) planned: Vec<PlannedVip>,
    pub(super) assigned: VipAssignments,
}

/// A service that needs something to be dialled by.
#[derive(Debug, Default)]
struct Demand<'a> {
    /// Where it is first named; `None`: by an inbound.
    mention: Option<Mention<'a>>,
    /// Ports of outbounds on loopback addresses.
    loopback_ports: BTreeSet<u16>,
    /// Families in which an outbound names an address.
    explicit: BTreeSet<Family>,
}

/// Plans all VIPs.
pub(super) fn plan<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) -> Vips {
    let Resolver { settings, inventory, dataplanes, sources, .. } = resolver;
    let mut demands = demands(resolver);
    let (claims, loopbacks) = claims(dataplanes, findings);
    let mut entered = Claims::default();
    let mut planned = BTreeMap::new();
    for (addr, claimants) in &claims {
        for (dataplane, outbound) in claimants {
            if let Some(demand) = demands.get_mut(&key_of(dataplane, outbound)) {
                demand.explicit.insert(Family::of(addr.ip()));
            }
        }
        let destination = tagged(&settle(*addr, claimants, inventory, findings));
        let origin = VipOrigin::Outbound;
        if let Some((dataplane, outbound)) = claimants.first() {
            entered.enter(*addr, Mention::Outbound(dataplane, outbound), destination.clone());
        }
        planned.insert(*addr, PlannedVip { addr: *addr, destination, origin, also: None });
    }
    let mut objects = gateway::dialled(&resolver.attached, inventory);
    objects.extend(kubernetes::dialled(resolver.set, inventory));
    for object in &objects {
        entered.claim(object, inventory, &mut planned, findings);
    }
    for (dataplane, outbound) in &loopbacks {
        if let Some(demand) = demands.get_mut(&key_of(dataplane, outbound)) {
            demand.loopback_ports.insert(outbound.port.get());
        }
    }

    let mut wanted = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for (key, demand) in &demands {
        let outcome = led_to(key, resolver);
        let of_service = vip_ports(key, demand, inventory, &outcome);
        let families: BTreeSet<Family> =
            outcome.families.difference(&demand.explicit).copied().collect();
        if families.is_empty() {
            continue;
        }
        if of_service.is_empty() {
            if demand.explicit.is_empty() {
                findings.no_port(key, demand.mention);
            }
            continue;
        }
        wanted.insert(key.clone(), families);
        let destinations = of_service.into_iter().map(|port| (port, tagged(key)));
        ports.insert(key.clone(), destinations.collect::<Vec<_>>());
    }
    let mut mentions: BTreeMap<VipOwner, Option<Mention<'a>>> =
        demands.into_iter().map(|(owner, demand)| (owner, demand.mention)).collect();
    for object in objects.iter().filter(|object| object.addresses.is_empty()) {
        let destinations = object.ports.iter();
        let destinations = destinations.map(|port| (port.port.get(), port.destination.clone()));
        wanted.insert(object.owner.clone(), object.families.clone());
        ports.insert(object.owner.clone(), destinations.collect());
        mentions.insert(object.owner.clone(), object.mention());
    }

    let addresses = inventory.addresses().iter().map(SocketAddr::ip);
    let reserved: Vec<IpAddr> = addresses
        .chain(sources.iter().map(|(address, _)| address))
        .chain(planned.keys().map(SocketAddr::ip))
        .collect();
    let allocation = allocate(settings, &wanted, reserved);
    for (key, families) in &wanted {
        let assigned = allocation.assigned.get(key).copied().unwrap_or_default();
        for address in families.iter().filter_map(|family| assigned.of(*family)) {
            for (port, destination) in &ports[key] {
                let addr = SocketAddr::new(address, *port);
                let (destination, origin) = (destination.clone(), VipOrigin::Allocated);
                planned.insert(addr, PlannedVip { addr, destination, origin, also: None });
            }
        }
    }
    for (key, family) in &allocation.exhausted {
        findings.range_exhausted(settings, key, *family, mentions[key]);
    }
    for (key, old, new) in &allocation.moved {
        findings.assignment_moved(key, *old, *new, mentions[key]);
    }

    let planned: Vec<PlannedVip> = planned.into_values().collect();
    let mut by_destination: BTreeMap<&Destination, Vec<SocketAddr>> = BTreeMap::new();
    for vip in &planned {
        by_destination.entry(&vip.destination).or_default().push(vip.addr);
    }
    for (dataplane, outbound) in loopbacks {
        let instead = by_destination.get(&tagged(&key_of(dataplane, outbound)));
        findings.loopback_outbound(dataplane, outbound, instead.map_or(&[], Vec::as_slice));
    }
    Vips { planned, assigned: allocation.assigned }
}

fn key_of(dataplane: &Dataplane, outbound: &Outbound) -> VipOwner {
    let service = outbound.tags.get(SERVICE_TAG).map_or("", String::as_str);
    VipOwner::tags(&dataplane.meta.mesh, service)
}

/// The service by its tag that an address is for.
fn tagged(owner: &VipOwner) -> Destination {
    Destination::Tags { mesh: owner.mesh.clone(), service: owner.name.clone() }
}

/// Services with endpoints, exact destinations of policies, and what outbounds name.
fn demands<'a>(resolver: &Resolver<'a>) -> BTreeMap<VipOwner, Demand<'a>> {
    let Resolver { inventory, dataplanes, policies, mesh_tcp, .. } = resolver;
    let mut demands: BTreeMap<VipOwner, Demand<'a>> = BTreeMap::new();
    for (mesh, service, known) in inventory.services() {
        if !known.endpoints.is_empty() {
            demands.insert(VipOwner::tags(mesh, service), Demand::default());
        }
    }
    let mut mention = |owner: VipOwner, mention: Mention<'a>| {
        let demand = Demand { mention: Some(mention), ..Demand::default() };
        demands.entry(owner).or_insert(demand);
    };
    for (mesh, policies) in policies {
        for (service, route) in policies.destinations() {
            mention(VipOwner::tags(mesh, service), Mention::Destination(route, service));
        }
    }
    for (mesh, routes) in mesh_tcp {
        for (service, item) in routes.tag_services() {
            // One that names an object too is dialled there.
            if !resolver.names_object(&item) {
                mention(VipOwner::tags(mesh, service), Mention::To(item));
            }
        }
    }
    for dataplane in dataplanes {
        for outbound in &dataplane.outbounds {
            mention(key_of(dataplane, outbound), Mention::Outbound(dataplane, outbound));
        }
    }
    demands
}

/// Outbounds by what they name: an address to be a VIP, or one on loopback. Addresses that can
/// be neither are findings.
fn claims<'a>(
    dataplanes: &[&'a Dataplane],
    findings: &mut Findings<'a>,
) -> (BTreeMap<SocketAddr, Vec<Declared<'a>>>, Vec<Declared<'a>>) {
    let mut claims: BTreeMap<SocketAddr, Vec<Declared<'a>>> = BTreeMap::new();
    let mut loopbacks = Vec::new();
    for dataplane in dataplanes {
        for outbound in &dataplane.outbounds {
            let addr = dialled(outbound);
            let kind = match addr.ip() {
                ip if ip.is_unspecified() => Some("the unspecified address"),
                ip if ip.is_multicast() => Some("a multicast address"),
                ip if is_broadcast(ip) => Some("the broadcast address"),
                _ => None,
            };
            if let Some(kind) = kind {
                findings.refused_outbound(dataplane, outbound, kind);
            } else if addr.ip().is_loopback() {
                loopbacks.push((*dataplane, outbound));
            } else {
                claims.entry(addr).or_default().push((*dataplane, outbound));
            }
        }
    }
    (claims, loopbacks)
}

/// The service that gets an address that outbounds name: the only one, or, so that the outcome
/// is whole, the first of those that dispute it. Disputes and loops are findings.
fn settle<'a>(
    addr: SocketAddr,
    claimants: &[Declared<'a>],
    inventory: &Inventory<'a>,
    findings: &mut Findings<'a>,
) -> VipOwner {
    let services: BTreeMap<VipOwner, Declared<'a>> = claimants
        .iter()
        .rev()
        .map(|(dataplane, outbound)| (key_of(dataplane, outbound), (*dataplane, *outbound)))
        .collect();
    let first = services.first_key_value().map(|(key, _)| key.clone());
    if services.len() > 1 {
        findings.disputed_vip(addr, &services.values().copied().collect::<Vec<_>>());
    }
    let mut seen = BTreeMap::new();
    for (dataplane, outbound) in claimants {
        let own: &Tags =
            seen.entry((&dataplane.meta.mesh, &dataplane.meta.name)).or_insert(&outbound.tags);
        if *own != outbound.tags && own.get(SERVICE_TAG) == outbound.tags.get(SERVICE_TAG) {
            findings.repeated_outbound(dataplane, outbound);
        }
    }
    if let Some((real_dataplane, index)) = real_at(addr, inventory, findings) {
        for claim in services.values() {
            findings.vip_is_real(addr, *claim, real_dataplane, index);
        }
    }
    first.unwrap_or_else(|| VipOwner::tags("", ""))
}

fn real_at<'a>(
    addr: SocketAddr,
    inventory: &Inventory<'a>,
    findings: &Findings<'a>,
) -> Option<(&'a Dataplane, usize)> {
    inventory.has(addr).then(|| findings.inbound_at(addr)).flatten()
}

/// Where a service's connections can end, in any state of health.
struct Outcome {
    families: BTreeSet<Family>,
    /// Ports of the backends that its routes lead to.
    backend_ports: BTreeSet<u16>,
}

/// The families that a service needs a VIP of: those of its endpoints; without endpoints, those
/// of the backends that its routes lead to; else IPv4.
fn led_to(owner: &VipOwner, resolver: &Resolver<'_>) -> Outcome {
    let VipOwner { mesh, name: service, .. } = owner;
    let Resolver { inventory, policies, mesh_tcp, objects, .. } = resolver;
    let own = inventory.service(mesh, service).filter(|known| !known.endpoints.is_empty());
    if let Some(own) = own {
        return Outcome { families: own.families(), backend_ports: BTreeSet::new() };
    }
    let outbound = service_alone(service);
    let mut families = BTreeSet::new();
    let mut backend_ports = BTreeSet::new();
    if let Some(policies) = policies.get(&**mesh) {
        for route in policies.winners(service).into_iter().flatten() {
            for entry in outer_split(&policies.routes()[route].conf) {
                let tags = substitute(&entry.destination, &outbound);
                let target = tags.get(SERVICE_TAG).and_then(|name| inventory.service(mesh, name));
                if let (Some(target), true) = (target, entry.weight > 0) {
                    families.extend(target.families());
                    backend_ports.extend(target.ports());
                }
            }
        }
    }
    if let Some(routes) = mesh_tcp.get(&**mesh) {
        for place in routes.winners(&tagged(owner)).into_iter().flatten() {
            for destination in leads_to(&routes.item(place), objects, inventory) {
                if let Some(target) = inventory.endpoints(&destination) {
                    families.extend(target.families());
                    backend_ports.extend(target.ports());
                }
            }
        }
    }
    if families.is_empty() {
        families.insert(Family::V4);
    }
    Outcome { families, backend_ports }
}

/// The ports of a service's VIP: the one in its name; else those of its endpoints; else those of
/// outbounds on loopback; else those of the backends that its routes lead to.
fn vip_ports(
    VipOwner { mesh, name: service, .. }: &VipOwner,
    demand: &Demand<'_>,
    inventory: &Inventory<'_>,
    outcome: &Outcome,
) -> BTreeSet<u16> {
    if let Some(port) = port_in_name(service) {
        return BTreeSet::from([port]);
    }
    let own = inventory.service(mesh, service).map(|known| known.ports()).unwrap_or_default();
    [own, demand.loopback_ports.clone(), outcome.backend_ports.clone()]
        .into_iter()
        .find(|ports| !ports.is_empty())
        .unwrap_or_default()
}

/// The port that a Kubernetes-style service name ends with: `redis_default_svc_6379`, or
/// `redis.default.svc:6379` as Kuma 0.5 wrote it.
pub fn port_in_name(service: &str) -> Option<u16> {
    let digits = match service.rsplit_once(':') {
        Some((_, digits)) => digits,
        None => service.rsplit_once("_svc_")?.1,
    };
    // `parse` would take a sign.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse::<NonZeroU16>().ok()).flatten().map(NonZeroU16::get)
}
