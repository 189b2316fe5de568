//! What can be dialled: which services have a VIP, at which addresses and ports (decision D2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use super::{
    Destination, Resolver, VipAssignments, VipKey, VipOrigin, VipOwner,
    allocate::allocate,
    dialled::Claims,
    findings::{Findings, Mention},
    gateway,
    inventory::{Family, Inventory, Service},
    kubernetes, mesh_http,
    mesh_tcp::backends::leads_to,
    resolver::service_alone,
    split::{outer_split, substitute},
};
use crate::policy::SERVICE_TAG;

mod claims;

pub(super) use claims::{Claim, ClaimedBy};
use claims::{claims, settle};

/// A VIP before its routes are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedVip {
    pub(super) key: VipKey,
    pub(super) destination: Destination,
    pub(super) origin: VipOrigin,
    /// The Service that the same address and port are of, where `destination` is that Service as
    /// a mesh knows it.
    pub(super) also: Option<Destination>,
}

/// All VIPs, sorted by key, and the assignments behind them.
pub(super) struct Vips {
    pub(super) planned: Vec<PlannedVip>,
    pub(super) assigned: VipAssignments,
    /// Meshes in which something has a VIP, or asks for one, and no endpoint of its own: what it
    /// is dialled by depends on where its routes lead.
    pub(super) bare: BTreeSet<Arc<str>>,
}

/// A service by its tag that needs something to be dialled by.
#[derive(Debug, Default)]
struct Demand<'a> {
    /// Where it is first named; `None`: by an inbound.
    mention: Option<Mention<'a>>,
    /// Ports of outbounds on loopback addresses.
    loopback_ports: BTreeSet<u16>,
}

/// What an owner's own address is for.
#[derive(Debug)]
struct Wish<'a> {
    /// Where the owner is first named; `None`: by an inbound.
    mention: Option<Mention<'a>>,
    /// What is dialled at which port, and in which families nobody names an address for it.
    ports: Vec<(u16, Destination, BTreeSet<Family>)>,
}

/// Plans all VIPs.
pub(super) fn plan<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) -> Vips {
    let Resolver { settings, inventory, sources, .. } = resolver;
    let claims = claims(resolver, findings);
    let mut entered = Claims::default();
    let mut planned = BTreeMap::new();
    // Families in which somebody names an address for a destination.
    let mut explicit: BTreeMap<&Destination, BTreeSet<Family>> = BTreeMap::new();
    for (key, claimants) in &claims.by_key {
        for claim in claimants {
            explicit.entry(&claim.destination).or_default().insert(Family::of(key.addr.ip()));
        }
        if let Some(claim) = settle(*key, claimants, inventory, findings) {
            let (destination, origin) = (claim.destination.clone(), claim.origin());
            let mention = Mention::Claimed(claim.meta, claim.by);
            entered.enter(*key, mention, destination.clone());
            planned.insert(*key, PlannedVip { key: *key, destination, origin, also: None });
        }
    }
    let mut objects = gateway::dialled(&resolver.attached, inventory);
    objects.extend(kubernetes::dialled(resolver.set, inventory));
    for object in &objects {
        entered.claim(object, inventory, &mut planned, findings);
    }

    let mut wishes: BTreeMap<VipOwner, Wish<'a>> = BTreeMap::new();
    let mut bare = BTreeSet::new();
    for (owner, demand) in demands(resolver, &claims) {
        let destination = tagged(&owner);
        if !inventory.endpoints(&destination).is_some_and(Service::has_endpoints) {
            bare.insert(owner.mesh.clone());
        }
        let outcome = led_to(&owner, resolver);
        let of_service = vip_ports(&owner, &demand, inventory, &outcome);
        let named = explicit.get(&destination);
        let families = missing(&outcome.families, named);
        if families.is_empty() {
            continue;
        }
        if of_service.is_empty() {
            if named.is_none() {
                findings.no_port(&owner, demand.mention);
            }
            continue;
        }
        let ports = of_service
            .into_iter()
            .map(|port| (port, destination.clone(), families.clone()))
            .collect();
        wishes.insert(owner, Wish { mention: demand.mention, ports });
    }
    wishes.extend(mesh_objects(resolver, &explicit, &mut bare));
    for object in objects.into_iter().filter(|object| object.addresses.is_empty()) {
        let mention = object.mention();
        let ports = object
            .ports
            .into_iter()
            .map(|port| (port.port.get(), port.destination, object.families.clone()))
            .collect();
        wishes.insert(object.owner, Wish { mention, ports });
    }

    let addresses = inventory.addresses().iter().map(SocketAddr::ip);
    let reserved: Vec<IpAddr> = addresses
        .chain(sources.iter().map(|(address, _)| address))
        .chain(planned.keys().map(|key| key.addr.ip()))
        .collect();
    let wanted = wishes
        .iter()
        .map(|(owner, wish)| {
            let families = wish.ports.iter().flat_map(|(.., families)| families);
            (owner.clone(), families.copied().collect())
        })
        .collect();
    let allocation = allocate(settings, &wanted, reserved);
    let mention = |owner: &VipOwner| wishes.get(owner).and_then(|wish| wish.mention);
    for (owner, family) in &allocation.exhausted {
        findings.range_exhausted(settings, owner, *family, mention(owner));
    }
    for (owner, old, new) in &allocation.moved {
        findings.assignment_moved(owner, *old, *new, mention(owner));
    }
    for (owner, wish) in wishes {
        let assigned = allocation.assigned.get(&owner).copied().unwrap_or_default();
        for (port, destination, families) in wish.ports {
            for address in families.iter().filter_map(|family| assigned.of(*family)) {
                let addr = SocketAddr::new(address, port);
                for protocol in settings.protocols(&destination, port) {
                    let key = VipKey { addr, protocol };
                    let (destination, origin) = (destination.clone(), VipOrigin::Allocated);
                    planned.insert(key, PlannedVip { key, destination, origin, also: None });
                }
            }
        }
    }

    let planned: Vec<PlannedVip> = planned.into_values().collect();
    if !claims.loopbacks.is_empty() {
        let mut by_destination: BTreeMap<&Destination, Vec<VipKey>> = BTreeMap::new();
        for vip in &planned {
            by_destination.entry(&vip.destination).or_default().push(vip.key);
        }
        for (addr, claim) in &claims.loopbacks {
            let instead = by_destination.get(&claim.destination).map_or(&[][..], Vec::as_slice);
            findings.loopback_outbound(*addr, claim, instead);
        }
    }
    Vips { planned, assigned: allocation.assigned, bare }
}

/// Families without those in which an address is named already.
fn missing(families: &BTreeSet<Family>, named: Option<&BTreeSet<Family>>) -> BTreeSet<Family> {
    families
        .iter()
        .filter(|family| named.is_none_or(|named| !named.contains(family)))
        .copied()
        .collect()
}

/// The service by its tag that an address is for.
fn tagged(owner: &VipOwner) -> Destination {
    Destination::Tags { mesh: owner.mesh.clone(), service: owner.name.clone() }
}

/// Services by their tag: those with endpoints, exact destinations of policies, and what outbounds
/// name.
fn demands<'a>(
    resolver: &Resolver<'a>,
    claims: &claims::Claims<'a>,
) -> BTreeMap<VipOwner, Demand<'a>> {
    let mut demands: BTreeMap<VipOwner, Demand<'a>> = BTreeMap::new();
    for (mesh, service, known) in resolver.inventory.services() {
        if known.has_endpoints() {
            demands.insert(VipOwner::tags(mesh, service), Demand::default());
        }
    }
    let mut mention = |owner: VipOwner, mention: Mention<'a>| {
        let demand = Demand { mention: Some(mention), ..Demand::default() };
        demands.entry(owner).or_insert(demand);
    };
    for (mesh, policies) in &resolver.policies {
        for (service, route) in policies.destinations() {
            mention(VipOwner::tags(mesh, service), Mention::Destination(route, service));
        }
    }
    for (mesh, routes) in &resolver.mesh_tcp {
        for (service, item) in routes.tag_services() {
            // One that names an object too is dialled there.
            if !resolver.names_object(&item) {
                mention(VipOwner::tags(mesh, service), Mention::To(item));
            }
        }
    }
    // Dataplane by Dataplane, so that the first mention does not depend on what is named.
    for dataplane in &resolver.dataplanes {
        for outbound in &dataplane.outbounds {
            let service = outbound.tags.get(SERVICE_TAG).map_or("", String::as_str);
            let owner = VipOwner::tags(&dataplane.meta.mesh, service);
            mention(owner, Mention::Outbound(dataplane, outbound));
        }
    }
    for (addr, claim) in &claims.loopbacks {
        if matches!(claim.by, ClaimedBy::Outbound(_))
            && let Some(demand) = demands.get_mut(&claim.destination.owner())
        {
            demand.loopback_ports.insert(addr.port());
        }
    }
    demands
}

/// Objects that stand for services: each is dialled at its ports, in the families of all its
/// endpoints; else of the backends that its routes lead to; else over IPv4.
fn mesh_objects<'a>(
    resolver: &Resolver<'a>,
    explicit: &BTreeMap<&Destination, BTreeSet<Family>>,
    without: &mut BTreeSet<Arc<str>>,
) -> BTreeMap<VipOwner, Wish<'a>> {
    let mut families: BTreeMap<VipOwner, BTreeSet<Family>> = BTreeMap::new();
    for (destination, known) in resolver.inventory.objects() {
        families.entry(destination.owner()).or_default().extend(known.families());
    }
    // Without endpoints of its own those of the backends that its routes lead to count.
    let bare: BTreeSet<VipOwner> =
        families.iter().filter(|(_, own)| own.is_empty()).map(|(owner, _)| owner.clone()).collect();
    without.extend(bare.iter().map(|owner| owner.mesh.clone()));
    for (destination, _) in resolver.inventory.objects() {
        let Destination::Port { .. } = destination else { continue };
        if let Some(none) = families.get_mut(&destination.owner())
            && bare.contains(&destination.owner())
        {
            none.extend(
                mesh_targets(destination, resolver).into_iter().flat_map(Service::families),
            );
        }
    }
    let mut wishes: BTreeMap<VipOwner, Wish<'a>> = BTreeMap::new();
    for (destination, _) in resolver.inventory.objects() {
        let Destination::Port { mesh, kind, name, port } = destination else { continue };
        let owner = destination.owner();
        let mut families = families.get(&owner).cloned().unwrap_or_default();
        if families.is_empty() {
            families.insert(Family::V4);
        }
        let families = missing(&families, explicit.get(destination));
        if families.is_empty() {
            continue;
        }
        let object = resolver.objects.named(mesh, *kind, name);
        let mention = object.map(|object| Mention::Named(object.meta));
        let wish = wishes.entry(owner).or_insert(Wish { mention, ports: Vec::new() });
        wish.ports.push((port.get(), destination.clone(), families));
    }
    wishes
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
    let Resolver { inventory, policies, .. } = resolver;
    let own = inventory.service(mesh, service).filter(|known| known.has_endpoints());
    if let Some(own) = own {
        let mut families = own.families();
        if families.is_empty() {
            families.insert(Family::V4);
        }
        return Outcome { families, backend_ports: BTreeSet::new() };
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
    for target in mesh_targets(&tagged(owner), resolver) {
        families.extend(target.families());
        backend_ports.extend(target.ports());
    }
    if families.is_empty() {
        families.insert(Family::V4);
    }
    Outcome { families, backend_ports }
}

/// Where the policies of a destination lead that speak of it.
fn mesh_targets<'r, 'a>(
    destination: &Destination,
    resolver: &'r Resolver<'a>,
) -> Vec<&'r Service<'a>> {
    let Resolver { inventory, mesh_tcp, mesh_http, objects, .. } = resolver;
    let mut targets = Vec::new();
    if let Some(routes) = mesh_tcp.get(destination.mesh()) {
        let won = routes.winners(destination).into_iter().flatten();
        let of_item = |place| leads_to(&routes.item(place), objects, inventory);
        targets.extend(won.flat_map(of_item));
    }
    if let Some(routes) = mesh_http.get(destination.mesh())
        && resolver.speaks_http(destination)
    {
        let speaking = routes.speaking_to_anybody(destination);
        let of_item = |place| mesh_http::leads_to(&routes.item(place), objects, inventory);
        targets.extend(speaking.into_iter().flat_map(of_item));
    }
    targets.iter().filter_map(|target| inventory.endpoints(target)).collect()
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
