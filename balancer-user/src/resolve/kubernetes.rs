//! Services as something to dial, and the endpoints of their ports, joined through EndpointSlices
//! (semantics 2.10).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::{
    Destination, VipOrigin, VipProtocol,
    dialled::{Dialled, DialledPort, Place},
    inventory::{Endpoint, Family, Inventory, NO_TAGS},
};
use crate::policy::{
    Host, List, PolicySet,
    kubernetes::{EndpointSlice, Service, ServiceKind, ServicePort, SliceEndpoint, Transport},
};

/// Every EndpointSlice, found by the Service that it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Slices<'s> {
    of: BTreeMap<(&'s str, &'s str), Vec<&'s EndpointSlice>>,
}

/// One address and port that serves a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint<'s> {
    /// What is dialled.
    pub addr: SocketAddr,
    /// Its zone, for locality (decision D18).
    pub zone: Option<&'s str>,
    /// It takes connections: it is ready; or it is about to go and still serves, where no
    /// endpoint of its family is ready, as kube-proxy has it.
    pub usable: bool,
}

/// What all slices together say of one address.
#[derive(Clone, Copy, Default)]
struct State<'s> {
    ready: bool,
    /// Not ready, but still serving while it terminates.
    leaving: bool,
    zone: Option<&'s str>,
}

impl<'s> Slices<'s> {
    /// Sorts slices by their Service. Slices without one are of no use.
    pub fn new(slices: &'s List<EndpointSlice>) -> Self {
        let mut of: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            if let (Some(namespace), Some(service)) = (&slice.meta.namespace, &slice.service) {
                of.entry((namespace.as_str(), service.as_str())).or_default().push(slice);
            }
        }
        for slices in of.values_mut() {
            slices.sort_by_key(|slice| &slice.meta.name);
        }
        Self { of }
    }

    /// The endpoints of a Service's port in any state, by address. One that several slices name
    /// is one, and ready if one of them says so.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> Vec<ServiceEndpoint<'s>> {
        let mut states: BTreeMap<SocketAddr, State<'s>> = BTreeMap::new();
        for (addr, endpoint) in self.named(service, port) {
            let state = states.entry(addr).or_default();
            state.ready |= endpoint.ready;
            state.leaving |= endpoint.serving && endpoint.terminating;
            state.zone = state.zone.or(endpoint.zone.as_deref());
        }
        let ready = states.iter().filter(|(_, state)| state.ready);
        let with_ready: BTreeSet<Family> = ready.map(|(addr, _)| Family::of(addr.ip())).collect();
        states
            .into_iter()
            .map(|(addr, state)| {
                let some_ready = with_ready.contains(&Family::of(addr.ip()));
                let usable = if some_ready { state.ready } else { state.leaving };
                ServiceEndpoint { addr, zone: state.zone, usable }
            })
            .collect()
    }

    /// Every address that a slice names for the port, whatever its state: slices name ports as
    /// the Service does, and give the numbers that workloads listen on.
    fn named<'a>(
        &'a self,
        service: &'a Service,
        port: &'a ServicePort,
    ) -> impl Iterator<Item = (SocketAddr, &'s SliceEndpoint)> + use<'a, 's> {
        let namespace = service.meta.namespace.as_deref().unwrap_or_default();
        let slices = match &service.kind {
            // A DNS name has no endpoints, whatever slices claim to belong to it.
            ServiceKind::ExternalName(_) => None,
            ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => {
                self.of.get(&(namespace, service.meta.name.as_str()))
            }
        };
        slices.into_iter().flatten().flat_map(move |slice| {
            let target: Option<NonZeroU16> = slice
                .ports
                .iter()
                .find(|named| named.name == port.name && named.protocol == port.protocol)
                .and_then(|named| named.port);
            target.into_iter().flat_map(|target| {
                slice.endpoints.iter().filter_map(move |endpoint| {
                    let address: IpAddr = match &endpoint.address {
                        Host::Ip(address) => *address,
                        Host::Name(_) => return None,
                    };
                    Some((SocketAddr::new(address, target.get()), endpoint))
                })
            })
        })
    }
}

/// Every port of every Service that has endpoints of its own, with these, to be added to an
/// inventory.
pub(super) fn inventory(set: &PolicySet) -> Vec<(Destination, Vec<Endpoint<'_>>)> {
    let slices = Slices::new(&set.endpoint_slices);
    let mut known = Vec::new();
    for service in &set.services {
        if matches!(service.kind, ServiceKind::ExternalName(_)) {
            continue;
        }
        for port in &service.ports {
            let Some(destination) = destination(service, port) else { continue };
            let endpoints = slices.endpoints(service, port).into_iter().map(|endpoint| Endpoint {
                zone: endpoint.zone,
                ..Endpoint::new(endpoint.addr, &NO_TAGS, endpoint.usable)
            });
            known.push((destination, endpoints.collect()));
        }
    }
    known
}

/// The Services that are dialled at an address of their own: not headless ones, whose clients
/// dial the endpoints, nor those that are another name for something else. Sorted.
pub(super) fn dialled<'a>(set: &'a PolicySet, inventory: &Inventory<'_>) -> Vec<Dialled<'a>> {
    let mut services: Vec<&Service> = set.services.iter().map(|service| &**service).collect();
    services.sort_by_key(|service| service.meta.object());
    let mut dialled = Vec::new();
    for service in services {
        if service.headless || matches!(service.kind, ServiceKind::ExternalName(_)) {
            continue;
        }
        let mut families = BTreeSet::new();
        let mut ports = Vec::new();
        for (index, port) in service.ports.iter().enumerate() {
            let Some(destination) = destination(service, port) else { continue };
            let Some(protocol) = protocol(port) else { continue };
            let known = inventory.endpoints(&destination);
            families.extend(known.into_iter().flat_map(|known| known.families()));
            let meta = &service.meta;
            let place = Place { meta, list: "spec.ports", index, span: port.span };
            ports.push(DialledPort { port: port.port, protocol, destination, place });
        }
        let Some(first) = ports.first() else { continue };
        if families.is_empty() {
            families.insert(Family::V4);
        }
        dialled.push(Dialled {
            owner: first.destination.owner(),
            origin: VipOrigin::Service,
            addresses: service.cluster_ips.clone(),
            families,
            ports,
        });
    }
    dialled
}

/// What a port is dialled with; `None`: it is not carried.
fn protocol(port: &ServicePort) -> Option<VipProtocol> {
    match port.protocol {
        Transport::Tcp => Some(VipProtocol::Tcp),
        Transport::Udp => Some(VipProtocol::Udp),
        Transport::Sctp => None,
    }
}

/// What a port is; `None`: it is not carried.
pub(super) fn destination(service: &Service, port: &ServicePort) -> Option<Destination> {
    let (namespace, name) = service.meta.object();
    Some(Destination::service_port(namespace, name, port.port, protocol(port)?))
}

/// The TCP port of a Service that a `backendRef` names by its number.
pub fn tcp_port(service: &Service, number: NonZeroU16) -> Option<&ServicePort> {
    service.ports.iter().find(|port| port.port == number && port.is_tcp())
}

#[cfg(test)]
#[path = "tests/kubernetes.rs"]
mod tests;
