//! Services by the tag `kuma.io/service`: inbounds of Dataplanes, and ExternalServices.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::{Names, ResolveSettings},
    Endpoint, Inventory, dialable,
};
use crate::policy::{Dataplane, ExternalService, Host, Inbound, PolicySet, SERVICE_TAG};

impl<'a> Inventory<'a> {
    /// Adds every service that a tag names.
    pub(super) fn add_workloads(&mut self, set: &'a PolicySet, settings: &ResolveSettings) {
        for dataplane in &set.dataplanes {
            self.add_dataplane(dataplane, &settings.names);
        }
        for external in &set.external_services {
            self.add_external(external, settings);
        }
    }

    fn add_dataplane(&mut self, dataplane: &'a Dataplane, names: &Names) {
        let mesh = dataplane.meta.mesh.as_str();
        for inbound in &dataplane.inbounds {
            let Some(service) = inbound.tags.get(SERVICE_TAG) else { continue };
            let service = self.tagged(mesh, service);
            let port = inbound.port.get();
            service.waiting.extend(unanswered(dialled_host(dataplane, inbound), port, names));
            service.endpoints.extend(
                endpoint_addresses(dataplane, inbound, names)
                    .map(|addr| Endpoint::new(addr, &inbound.tags, inbound.ready)),
            );
        }
        if let Some(service) = dataplane.gateway.as_ref().and_then(|tags| tags.get(SERVICE_TAG)) {
            self.tagged(mesh, service);
        }
    }

    fn add_external(&mut self, external: &'a ExternalService, settings: &ResolveSettings) {
        let Some(service) = external.tags.get(SERVICE_TAG) else { return };
        let service = self.tagged(&external.meta.mesh, service);
        let port = external.port.get();
        service.waiting.extend(unanswered(Dialled::Host(&external.address), port, &settings.names));
        let refused = external.tls && !settings.allow_plain;
        let host = outside_name(&external.address);
        let addresses = addresses(Dialled::Host(&external.address), port, &settings.names);
        service.endpoints.extend(addresses.map(|addr| Endpoint {
            refused,
            host,
            ..Endpoint::new(addr, &external.tags, true)
        }));
    }
}

/// The name that something outside the mesh is known by.
pub(super) fn outside_name(host: &Host) -> Option<&str> {
    match host {
        Host::Name(name) => Some(name),
        Host::Ip(_) => None,
    }
}

/// Where others dial an inbound (decision D13): the advertised address, else the inbound's own,
/// else the Dataplane's, at the inbound's port; several where that is a name of several. None
/// where it is a name without an answer or an address that nobody can dial.
pub fn endpoint_addresses<'n>(
    dataplane: &Dataplane,
    inbound: &Inbound,
    names: &'n Names,
) -> impl Iterator<Item = SocketAddr> + use<'n> {
    addresses(dialled_host(dataplane, inbound), inbound.port.get(), names)
}

/// What others dial an inbound by.
pub(super) fn dialled_host<'h>(dataplane: &'h Dataplane, inbound: &Inbound) -> Dialled<'h> {
    match (&dataplane.advertised, inbound.address) {
        (Some(advertised), _) => Dialled::Host(advertised),
        (None, Some(own)) => Dialled::Ip(own),
        (None, None) => Dialled::Host(&dataplane.address),
    }
}

/// An address, or a host that has one.
#[derive(Clone, Copy)]
pub(super) enum Dialled<'h> {
    Ip(IpAddr),
    Host(&'h Host),
}

/// The addresses of a host that can be dialled, with a port.
pub(super) fn addresses<'n>(
    host: Dialled<'_>,
    port: u16,
    names: &'n Names,
) -> impl Iterator<Item = SocketAddr> + use<'n> {
    let (own, answered): (Option<IpAddr>, &[IpAddr]) = match host {
        Dialled::Ip(address) | Dialled::Host(&Host::Ip(address)) => (Some(address), &[]),
        Dialled::Host(Host::Name(name)) => (None, names.of(name)),
    };
    own.into_iter()
        .chain(answered.iter().copied())
        .map(|address| address.to_canonical())
        .filter(|address| dialable(*address))
        .map(move |address| SocketAddr::new(address, port))
}

/// The port, if this is a name without an address so far.
pub(super) fn unanswered(host: Dialled<'_>, port: u16, names: &Names) -> Option<u16> {
    match host {
        Dialled::Host(Host::Name(name)) if names.of(name).is_empty() => Some(port),
        Dialled::Host(_) | Dialled::Ip(_) => None,
    }
}
