//! The endpoints of a Service's port, joined through its EndpointSlices (semantics 2.10). Nothing
//! resolves Services yet: these are the rules that it will go by.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::inventory::Family;
use crate::policy::{
    Host,
    kubernetes::{EndpointSlice, Service, ServiceKind, ServicePort, SliceEndpoint},
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
    /// It is about to go, and takes connections only because no other endpoint is left.
    pub terminating: bool,
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
    pub fn new(slices: &'s [EndpointSlice]) -> Self {
        let mut of: BTreeMap<_, Vec<_>> = BTreeMap::new();
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

    /// The endpoints of a Service's port that connections of a family go to, by address: those
    /// that are ready; where none is, those that terminate and still serve, as kube-proxy has
    /// it. An endpoint that several slices name is one, and ready if one of them says so.
    pub fn endpoints(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
    ) -> Vec<ServiceEndpoint<'s>> {
        let mut states: BTreeMap<SocketAddr, State<'s>> = BTreeMap::new();
        for (addr, endpoint) in self.named(service, port) {
            if Family::of(addr.ip()) != family {
                continue;
            }
            let state = states.entry(addr).or_default();
            state.ready |= endpoint.ready;
            state.leaving |= endpoint.serving && endpoint.terminating;
            state.zone = state.zone.or(endpoint.zone.as_deref());
        }
        let some_ready = states.values().any(|state| state.ready);
        let wanted = |state: &State<'_>| if some_ready { state.ready } else { state.leaving };
        states
            .into_iter()
            .filter(|(_, state)| wanted(state))
            .map(|(addr, state)| ServiceEndpoint {
                addr,
                zone: state.zone,
                terminating: !state.ready,
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

/// The TCP port of a Service that a `backendRef` names by its number.
pub fn tcp_port(service: &Service, number: NonZeroU16) -> Option<&ServicePort> {
    service.ports.iter().find(|port| port.port == number && port.is_tcp())
}

#[cfg(test)]
#[path = "tests/kubernetes.rs"]
mod tests;
