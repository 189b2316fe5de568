//! Services and their endpoints (semantics 2.3 and 2.4).
//!
//! Where an endpoint is dialled, which of them are usable, and what protocol a service speaks.
//! Does not know policies. Endpoints come from Dataplanes, or one by one from a caller that has
//! them already.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::Destination;
use crate::policy::{Dataplane, Host, Inbound, PROTOCOL_TAG, SERVICE_TAG, Tags, ZONE_TAG};

/// The tag that a cross-mesh outbound carries; no endpoint is asked for it (semantics 2.1).
pub const MESH_TAG: &str = "kuma.io/mesh";

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

/// One address and port that serves a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint<'a> {
    /// What is dialled.
    pub addr: SocketAddr,
    /// Its tags.
    pub tags: &'a Tags,
    /// It may take connections.
    pub ready: bool,
}

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service<'a> {
    /// In any state, sorted by address.
    pub endpoints: Vec<Endpoint<'a>>,
}

impl Service<'_> {
    /// The ports of its endpoints in any state, each once.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.endpoints.iter().map(|endpoint| endpoint.addr.port()).collect()
    }

    /// The families of its endpoints in any state: a service keeps its VIP while none is ready.
    pub fn families(&self) -> BTreeSet<Family> {
        self.endpoints.iter().map(|endpoint| Family::of(endpoint.addr.ip())).collect()
    }

    /// The protocol of its ready endpoints together.
    pub fn protocol(&self) -> Protocol {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.ready)
            .map(|endpoint| Protocol::parse(endpoint.tags.get(PROTOCOL_TAG).map(String::as_str)))
            .reduce(Protocol::common)
            .unwrap_or(Protocol::Unknown)
    }
}

/// All services, by mesh and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory<'a> {
    /// Mesh → name → service.
    services: BTreeMap<&'a str, BTreeMap<&'a str, Service<'a>>>,
    /// Whatever else is a destination.
    objects: BTreeMap<Destination, Service<'a>>,
    /// Every endpoint in any state, sorted, each once.
    addresses: Vec<SocketAddr>,
}

impl<'a> Inventory<'a> {
    /// The inventory of `dataplanes`, whatever their order.
    pub fn of(dataplanes: impl IntoIterator<Item = &'a Dataplane>) -> Self {
        let mut inventory = Self::default();
        for dataplane in dataplanes {
            let mesh = dataplane.meta.mesh.as_str();
            for inbound in &dataplane.inbounds {
                let Some(service) = inbound.tags.get(SERVICE_TAG) else { continue };
                match endpoint_address(dataplane, inbound) {
                    Some(addr) => {
                        let endpoint = Endpoint { addr, tags: &inbound.tags, ready: inbound.ready };
                        inventory.add(mesh, service, endpoint);
                    }
                    None => inventory.note(mesh, service),
                }
            }
            if let Some(service) = dataplane.gateway.as_ref().and_then(|tags| tags.get(SERVICE_TAG))
            {
                inventory.note(mesh, service);
            }
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
            inventory.add(mesh, service, endpoint);
        }
        inventory.sort();
        inventory
    }

    /// Says that a service exists, be it without endpoints.
    fn note(&mut self, mesh: &'a str, service: &'a str) {
        self.services.entry(mesh).or_default().entry(service).or_default();
    }

    fn add(&mut self, mesh: &'a str, service: &'a str, endpoint: Endpoint<'a>) {
        let services = self.services.entry(mesh).or_default();
        services.entry(service).or_default().endpoints.push(endpoint);
    }

    /// Adds things that are no service of a mesh, each with its endpoints.
    pub(super) fn add_objects(
        &mut self,
        objects: impl IntoIterator<Item = (Destination, Vec<Endpoint<'a>>)>,
    ) {
        for (destination, endpoints) in objects {
            self.objects.entry(destination).or_default().endpoints.extend(endpoints);
        }
        self.sort();
    }

    fn sort(&mut self) {
        let objects = self.objects.values_mut();
        for service in self.services.values_mut().flat_map(BTreeMap::values_mut).chain(objects) {
            service
                .endpoints
                .sort_by(|a, b| (a.addr, a.tags, a.ready).cmp(&(b.addr, b.tags, b.ready)));
        }
        let services = self.services.values().flat_map(BTreeMap::values);
        let all = services.chain(self.objects.values()).flat_map(|service| &service.endpoints);
        self.addresses = all.map(|endpoint| endpoint.addr).collect();
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }

    /// A service, `None` if nobody offers it.
    pub fn service(&self, mesh: &str, service: &str) -> Option<&Service<'a>> {
        self.services.get(mesh)?.get(service)
    }

    /// What is known of a destination, `None` if there is no such thing.
    pub fn endpoints(&self, destination: &Destination) -> Option<&Service<'a>> {
        match destination {
            Destination::Tags { mesh, service } => self.service(mesh, service),
            Destination::Missing { .. } => None,
            Destination::Port { .. }
            | Destination::Service { .. }
            | Destination::Listener { .. } => self.objects.get(destination),
        }
    }

    /// All services: mesh, name, and what is known. Sorted.
    pub fn services(&self) -> impl Iterator<Item = (&'a str, &'a str, &Service<'a>)> {
        self.services.iter().flat_map(|(mesh, services)| {
            services.iter().map(|(name, service)| (*mesh, *name, service))
        })
    }

    /// Every endpoint in any state, sorted, each once.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether an endpoint in any state is dialled at `addr`.
    pub fn has(&self, addr: SocketAddr) -> bool {
        self.addresses.binary_search(&addr).is_ok()
    }

    /// The usable endpoints of a subset: those of a destination that have every one of `tags` with
    /// exactly that value, of one family, sorted, each once. With a `zone`, those of other zones
    /// only if there is none in it (decision D18); an endpoint without a zone is in every zone.
    pub fn subset(
        &self,
        destination: &Destination,
        tags: &Tags,
        family: Family,
        zone: Option<&str>,
    ) -> Vec<SocketAddr> {
        let Some(service) = self.endpoints(destination) else { return Vec::new() };
        let qualifies = |endpoint: &&Endpoint<'_>| {
            endpoint.ready
                && Family::of(endpoint.addr.ip()) == family
                && tags
                    .iter()
                    .filter(|(key, _)| *key != MESH_TAG)
                    .all(|(key, value)| endpoint.tags.get(key) == Some(value))
        };
        let (near, far): (Vec<&Endpoint<'_>>, Vec<&Endpoint<'_>>) =
            service.endpoints.iter().filter(qualifies).partition(|endpoint| {
                let theirs = endpoint.tags.get(ZONE_TAG);
                zone.is_none_or(|ours| theirs.is_none_or(|theirs| theirs == ours))
            });
        let chosen = if near.is_empty() { far } else { near };
        let mut addresses: Vec<_> = chosen.iter().map(|endpoint| endpoint.addr).collect();
        // Two inbounds may share an address and differ in their tags.
        addresses.dedup();
        addresses
    }
}

/// Where others dial an inbound (decision D13): the advertised address, else the inbound's own,
/// else the Dataplane's, at the inbound's port. `None` where the one that counts is a name or
/// an address that nobody can dial.
pub fn endpoint_address(dataplane: &Dataplane, inbound: &Inbound) -> Option<SocketAddr> {
    let address = match (&dataplane.advertised, inbound.address, &dataplane.address) {
        (Some(Host::Ip(advertised)), _, _) => *advertised,
        (Some(Host::Name(_)), _, _) => return None,
        (None, Some(own), _) => own,
        (None, None, Host::Ip(address)) => *address,
        (None, None, Host::Name(_)) => return None,
    }
    .to_canonical();
    let dialable = !address.is_unspecified() && !address.is_multicast() && !is_broadcast(address);
    dialable.then(|| SocketAddr::new(address, inbound.port.get()))
}

/// 255.255.255.255.
pub(super) fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

/// What a service speaks (semantics 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque.
    Tcp,
    /// Kafka.
    Kafka,
    /// Not stated, or not one of these: handled as TCP.
    Unknown,
}

impl Protocol {
    /// The value of a `kuma.io/protocol` tag, in any case.
    pub fn parse(tag: Option<&str>) -> Self {
        match tag.map(str::to_ascii_lowercase).as_deref() {
            Some("http") => Self::Http,
            Some("http2") => Self::Http2,
            Some("grpc") => Self::Grpc,
            Some("tcp") => Self::Tcp,
            Some("kafka") => Self::Kafka,
            _ => Self::Unknown,
        }
    }

    /// What two endpoints of one service have in common.
    pub fn common(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Grpc, Self::Http2) | (Self::Http2, Self::Grpc) => Self::Http2,
            _ => Self::Tcp,
        }
    }

    /// Requests can be told apart.
    pub fn is_http_like(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// As written in tags; an unknown protocol is handled as `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Kafka => "kafka",
            Self::Tcp | Self::Unknown => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Inventory, Protocol};
    use crate::resolve::tests::world::dataplane;

    #[test]
    fn protocols_have_in_common_what_the_table_says() {
        use Protocol::{Grpc, Http, Http2, Kafka, Tcp, Unknown};
        let table = [
            (Http, Http, Http),
            (Http, Unknown, Unknown),
            (Grpc, Http2, Http2),
            (Grpc, Http, Tcp),
            (Http2, Http, Tcp),
            (Http, Tcp, Tcp),
            (Kafka, Tcp, Tcp),
            (Kafka, Grpc, Tcp),
            (Kafka, Kafka, Kafka),
            (Tcp, Unknown, Unknown),
        ];
        for (a, b, common) in table {
            assert_eq!((a.common(b), b.common(a)), (common, common), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn protocol_tags_are_read_in_any_case() {
        assert_eq!(Protocol::parse(Some("HTTP2")), Protocol::Http2);
        assert_eq!(Protocol::parse(Some("gopher")), Protocol::Unknown);
        assert_eq!(Protocol::parse(None), Protocol::Unknown);
    }

    #[test]
    fn one_endpoint_without_the_tag_demotes_the_service() {
        let tagged = dataplane("a", "10.0.0.1").inbound(80, "service=web,protocol=http");
        let bare = dataplane("b", "10.0.0.2").inbound(80, "service=web");
        let protocol = |dataplanes: &[_]| {
            Inventory::of(dataplanes).service("default", "web").unwrap().protocol()
        };
        assert_eq!(protocol(std::slice::from_ref(&tagged)), Protocol::Http);
        assert_eq!(protocol(&[tagged.clone(), bare.clone()]), Protocol::Unknown);
        assert_eq!(
            protocol(&[tagged, bare.not_ready()]),
            Protocol::Http,
            "an inbound that is not ready is no endpoint"
        );
    }
}
