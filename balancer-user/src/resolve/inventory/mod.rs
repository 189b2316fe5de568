//! Destinations and their endpoints (semantics 2.3 to 2.8).
//!
//! Where an endpoint is dialled, which of them are usable, and what protocol a destination
//! speaks. Does not know policies. Whatever a destination is, its endpoints are found here;
//! [`workloads`] and [`objects`] say where they come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{Destination, ResolveSettings, kubernetes};
use crate::policy::{Failover, FailoverTo, PROTOCOL_TAG, PolicySet, Tags, ZONE_TAG};

mod objects;
mod protocol;
mod workloads;

pub(super) use objects::{Joinable, Selectable, selects, targets};
pub use protocol::Protocol;
pub use workloads::endpoint_addresses;

/// The tag that a cross-mesh outbound carries; no endpoint is asked for it (semantics 2.1).
pub const MESH_TAG: &str = "kuma.io/mesh";

/// The tags of what has none.
pub(super) static NO_TAGS: Tags = Tags::new();

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// In which order endpoints of different zones are used (semantics 3.11, 4.9; decision D18).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zones<'a> {
    /// All are alike.
    Alike,
    /// First those of this zone, then those of all others.
    Own(&'a str),
    /// First those of this zone, then those that the first of these rules names for it, and so on.
    /// Zones that none names are not used.
    Failover(&'a str, &'a [Failover]),
}

impl Zones<'_> {
    /// How far an endpoint is; one without a zone is in every zone. `None`: it is not used.
    pub fn distance(self, zone: Option<&str>) -> Option<usize> {
        let (own, Some(zone)) = (
            match self {
                Self::Alike => return Some(0),
                Self::Own(own) | Self::Failover(own, _) => own,
            },
            zone,
        ) else {
            return Some(0);
        };
        if own == zone {
            return Some(0);
        }
        let Self::Failover(_, rules) = self else { return Some(1) };
        let names = |zones: &[String], zone: &str| zones.iter().any(|one| one == zone);
        let rule = rules.iter().position(|rule| {
            rule.from.as_ref().is_none_or(|from| names(from, own))
                && match &rule.to {
                    FailoverTo::Any => true,
                    FailoverTo::None => false,
                    FailoverTo::Only(zones) => names(zones, zone),
                    FailoverTo::AnyExcept(zones) => !names(zones, zone),
                }
        });
        rule.map(|rule| rule + 1)
    }
}

/// One address and port that serves a destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint<'a> {
    /// What is dialled.
    pub addr: SocketAddr,
    /// Its tags; none where it is found by other means.
    pub tags: &'a Tags,
    /// It may take connections.
    pub ready: bool,
    /// Its zone; one without is in every zone.
    pub zone: Option<&'a str>,
    /// Others take over where those of smaller numbers are missing.
    pub priority: u32,
    /// It expects TLS, which is not spoken here, and plain bytes are not allowed.
    pub refused: bool,
    /// The name that it is known by outside the mesh, which it expects requests to carry.
    pub host: Option<&'a str>,
}

impl<'a> Endpoint<'a> {
    /// An endpoint with these tags, in the zone that they name.
    pub fn new(addr: SocketAddr, tags: &'a Tags, ready: bool) -> Self {
        let zone = tags.get(ZONE_TAG).map(String::as_str);
        Self { addr, tags, ready, zone, priority: 0, refused: false, host: None }
    }

    fn usable(&self) -> bool {
        self.ready && !self.refused
    }
}

/// What is known of a destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service<'a> {
    /// In any state, sorted by address.
    pub endpoints: Vec<Endpoint<'a>>,
    /// What it says that it speaks, whatever its endpoints' tags say.
    pub declared: Option<Protocol>,
    /// Ports of endpoints that are given by a name without an address so far.
    pub waiting: BTreeSet<u16>,
}

impl Service<'_> {
    /// The ports of its endpoints in any state, each once.
    pub fn ports(&self) -> BTreeSet<u16> {
        let found = self.endpoints.iter().map(|endpoint| endpoint.addr.port());
        found.chain(self.waiting.iter().copied()).collect()
    }

    /// Somebody says that it has endpoints.
    pub fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty() || !self.waiting.is_empty()
    }

    /// The families of its endpoints in any state: a service keeps its VIP while none is ready.
    pub fn families(&self) -> BTreeSet<Family> {
        self.endpoints.iter().map(|endpoint| Family::of(endpoint.addr.ip())).collect()
    }

    /// What is spoken: as declared, else what its ready endpoints have in common.
    pub fn protocol(&self) -> Protocol {
        self.declared.unwrap_or_else(|| {
            self.endpoints
                .iter()
                .filter(|endpoint| endpoint.ready)
                .map(|one| Protocol::parse(one.tags.get(PROTOCOL_TAG).map(String::as_str)))
                .reduce(Protocol::common)
                .unwrap_or(Protocol::Unknown)
        })
    }

    /// Whether endpoints with these tags are there that only lack the right to plain bytes.
    pub fn refused(&self, tags: &Tags) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.refused && has_tags(endpoint, tags))
    }
}

fn has_tags(endpoint: &Endpoint<'_>, tags: &Tags) -> bool {
    tags.iter()
        .filter(|(key, _)| *key != MESH_TAG)
        .all(|(key, value)| endpoint.tags.get(key) == Some(value))
}

/// All destinations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory<'a> {
    /// Mesh → name → service by its tag.
    services: BTreeMap<&'a str, BTreeMap<&'a str, Service<'a>>>,
    /// Whatever else is a destination.
    objects: BTreeMap<Destination, Service<'a>>,
    /// Every endpoint in any state, sorted, each once.
    addresses: Vec<SocketAddr>,
}

impl<'a> Inventory<'a> {
    /// The inventory of `set`, whatever its order.
    pub fn new(set: &'a PolicySet, settings: &ResolveSettings) -> Self {
        let mut inventory = Self::default();
        inventory.add_workloads(set, settings);
        inventory.add_mesh_objects(set, settings);
        for (destination, endpoints) in kubernetes::inventory(set) {
            inventory.objects.entry(destination).or_default().endpoints.extend(endpoints);
        }
        inventory.sort();
        inventory
    }

    /// An inventory of endpoints that the caller has: (service, endpoint), all in `mesh`.
    pub fn of_endpoints(
        mesh: &'a str,
        endpoints: impl IntoIterator<Item = (&'a str, Endpoint<'a>)>,
    ) -> Self {
        let mut inventory = Self::default();
        for (service, endpoint) in endpoints {
            inventory.tagged(mesh, service).endpoints.push(endpoint);
        }
        inventory.sort();
        inventory
    }

    /// A service by its tag, which is there from now on, be it without endpoints.
    fn tagged(&mut self, mesh: &'a str, service: &'a str) -> &mut Service<'a> {
        self.services.entry(mesh).or_default().entry(service).or_default()
    }

    fn sort(&mut self) {
        let objects = self.objects.values_mut();
        for service in self.services.values_mut().flat_map(BTreeMap::values_mut).chain(objects) {
            service.endpoints.sort_by(|a, b| {
                (a.addr, a.priority, a.tags, a.ready).cmp(&(b.addr, b.priority, b.tags, b.ready))
            });
        }
        let services = self.services.values().flat_map(BTreeMap::values);
        let all = services.chain(self.objects.values()).flat_map(|service| &service.endpoints);
        self.addresses = all.map(|endpoint| endpoint.addr).collect();
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }

    /// A service by its tag, `None` if nobody offers it.
    pub fn service(&self, mesh: &str, service: &str) -> Option<&Service<'a>> {
        self.services.get(mesh)?.get(service)
    }

    /// What is known of a destination, `None` if there is no such thing.
    pub fn endpoints(&self, destination: &Destination) -> Option<&Service<'a>> {
        match destination {
            Destination::Tags { mesh, service } => self.service(mesh, service),
            Destination::Port { .. }
            | Destination::Missing { .. }
            | Destination::Service { .. }
            | Destination::Listener { .. } => self.objects.get(destination),
        }
    }

    /// All services by their tag: mesh, name, and what is known. Sorted.
    pub fn services(&self) -> impl Iterator<Item = (&'a str, &'a str, &Service<'a>)> {
        self.services.iter().flat_map(|(mesh, services)| {
            services.iter().map(|(name, service)| (*mesh, *name, service))
        })
    }

    /// All other destinations, sorted.
    pub fn objects(&self) -> impl Iterator<Item = (&Destination, &Service<'a>)> {
        self.objects.iter()
    }

    /// Every endpoint in any state, sorted, each once.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether an endpoint in any state is dialled at `addr`.
    pub fn has(&self, addr: SocketAddr) -> bool {
        self.addresses.binary_search(&addr).is_ok()
    }

    /// The usable endpoints of a subset: those of a destination that have every one of `tags`
    /// with exactly that value, of one family, sorted, each once. Only the best of them: the
    /// nearest (decision D18), and among those that are equally near the smallest priority counts.
    pub fn subset(
        &self,
        destination: &Destination,
        tags: &Tags,
        family: Family,
        zones: Zones<'_>,
    ) -> Vec<SocketAddr> {
        let Some(service) = self.endpoints(destination) else { return Vec::new() };
        let qualified: Vec<((usize, u32), &Endpoint<'_>)> = service
            .endpoints
            .iter()
            .filter(|endpoint| {
                endpoint.usable()
                    && Family::of(endpoint.addr.ip()) == family
                    && has_tags(endpoint, tags)
            })
            .filter_map(|endpoint| {
                Some(((zones.distance(endpoint.zone)?, endpoint.priority), endpoint))
            })
            .collect();
        let best = qualified.iter().map(|(level, _)| *level).min();
        let chosen = qualified.into_iter().filter(|(level, _)| Some(*level) == best);
        let mut addresses: Vec<_> = chosen.map(|(_, endpoint)| endpoint.addr).collect();
        // Two inbounds may share an address and differ in their tags.
        addresses.dedup();
        addresses
    }
}

impl Inventory<'_> {
    /// The names by which usable endpoints of a subset are known outside the mesh; none where one
    /// of them has no such name.
    pub fn outside_names(&self, destination: &Destination, tags: &Tags) -> Vec<(SocketAddr, &str)> {
        let known = self.endpoints(destination);
        let endpoints = known.into_iter().flat_map(|known| &known.endpoints);
        let named = endpoints
            .filter(|endpoint| endpoint.usable() && has_tags(endpoint, tags))
            .map(|endpoint| Some((endpoint.addr, endpoint.host?)));
        named.collect::<Option<_>>().unwrap_or_default()
    }
}

/// Whether packets can be sent to an address.
pub(super) fn dialable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast(address)
}

/// 255.255.255.255.
pub(super) fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
