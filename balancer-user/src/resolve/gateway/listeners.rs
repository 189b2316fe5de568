//! Listeners as something to dial. Those of one protocol that share a port of their Gateway are
//! dialled at one address: requests are told apart by host.

use std::collections::BTreeSet;

use super::{Attachments, Point, route::is_of_requests};
use crate::{
    http::Hostname,
    policy::{
        Host,
        gateway::{Gateway, Listener, ListenerProtocol},
    },
    resolve::{
        Destination, VipOrigin, VipProtocol,
        dialled::{Dialled, DialledPort, Place},
        inventory::{Family, Inventory},
    },
};

/// The hosts that a listener is for.
pub(super) fn hostname(listener: &Listener) -> Hostname {
    let written = listener.hostname.as_deref().map(Hostname::new);
    // Validation has seen to it that it is one.
    written.and_then(Result::ok).unwrap_or(Hostname::Any)
}

/// Whether connections to a listener are carried.
pub(super) fn is_carried(listener: &Listener) -> bool {
    // TLS is not terminated here.
    matches!(listener.protocol, ListenerProtocol::Tcp | ListenerProtocol::Http)
}

/// Those of a Gateway that are dialled as a listener is, itself among them, in written order: the
/// first gives the VIP its name.
pub(super) fn together<'g>(gateway: &'g Gateway, of: &Listener) -> Vec<&'g Listener> {
    let alike = |listener: &&Listener| match is_of_requests(&of.protocol) {
        true => listener.port == of.port && listener.protocol == of.protocol,
        false => listener.name == of.name,
    };
    gateway.listeners.iter().filter(alike).collect()
}

/// Hosts that are those of more specific listeners, though a listener's own hostname takes them.
pub(super) fn except(listener: &Listener, beside: &[&Listener]) -> Vec<Hostname> {
    let own = hostname(listener);
    let others = beside.iter().map(|other| hostname(other));
    others
        .filter(|other| other.precedence() < own.precedence() && other.intersect(&own).is_some())
        .collect()
}

impl<'s> Attachments<'s> {
    /// The Gateway of a name.
    pub(super) fn gateway(&self, namespace: &str, name: &str) -> Option<&'s Gateway> {
        let at = self.gateways.binary_search_by_key(&(namespace, name), |one| one.meta.object());
        at.ok().map(|at| self.gateways[at])
    }

    /// The listener that a point is.
    pub(super) fn listener(&self, point: &Point<'_>) -> Option<&'s Listener> {
        let Point::Listener { namespace, gateway, listener: name } = point else { return None };
        let gateway = self.gateway(namespace, gateway)?;
        gateway.listeners.iter().find(|listener| listener.name == *name)
    }

    /// The listeners that are dialled as a destination; none: it is no listener.
    pub(super) fn dialled_as(&self, destination: &Destination) -> Vec<&'s Listener> {
        let Destination::Listener { namespace, gateway, listener } = destination else {
            return Vec::new();
        };
        let point = Point::Listener { namespace, gateway, listener };
        let gateway = self.gateway(namespace, gateway);
        let own = self.listener(&point);
        gateway.zip(own).map_or_else(Vec::new, |(gateway, own)| together(gateway, own))
    }

    /// The listeners that are dialled as a destination, with the hosts that each is for, in written
    /// order; none: it is no listener.
    pub fn listeners(&self, destination: &Destination) -> Vec<(Destination, Hostname)> {
        let Destination::Listener { namespace, gateway, .. } = destination else {
            return Vec::new();
        };
        let named = |one: &Listener| Destination::listener(namespace, gateway, &one.name);
        let all = self.dialled_as(destination).into_iter();
        all.map(|one| (named(one), hostname(one))).collect()
    }

    /// What connections to a listener go to: itself, or the first of those that share its port.
    pub fn named_by(&self, destination: &Destination) -> Option<Destination> {
        let Destination::Listener { namespace, gateway, .. } = destination else { return None };
        let first = *self.dialled_as(destination).first()?;
        Some(Destination::listener(namespace, gateway, &first.name))
    }
}

/// The listeners of TCP and HTTP: at the addresses of their Gateway, else at one that is allocated
/// in each family in which a backend has endpoints.
pub(in crate::resolve) fn dialled<'a>(
    attached: &Attachments<'a>,
    inventory: &Inventory<'_>,
) -> Vec<Dialled<'a>> {
    let mut dialled = Vec::new();
    for gateway in &attached.gateways {
        let (namespace, name) = gateway.meta.object();
        let mut families = BTreeSet::new();
        let mut ports = Vec::new();
        for (index, listener) in gateway.listeners.iter().enumerate() {
            if !is_carried(listener) {
                continue;
            }
            let point = Point::Listener { namespace, gateway: name, listener: &listener.name };
            families.extend(attached.families(&point, inventory));
            if together(gateway, listener).first().is_some_and(|one| one.name != listener.name) {
                continue;
            }
            // Two protocols at one port are an error, which is told of the Gateway.
            if ports.iter().any(|known: &DialledPort<'_>| known.port == listener.port) {
                continue;
            }
            ports.push(DialledPort {
                port: listener.port,
                protocol: VipProtocol::Tcp,
                destination: Destination::listener(namespace, name, &listener.name),
                place: Place {
                    meta: &gateway.meta,
                    list: "spec.listeners",
                    index,
                    span: listener.span,
                },
            });
        }
        let Some(first) = ports.first() else { continue };
        if families.is_empty() {
            families.insert(Family::V4);
        }
        let addresses = gateway.addresses.iter().filter_map(|address| match address {
            Host::Ip(address) => Some(*address),
            Host::Name(_) => None,
        });
        dialled.push(Dialled {
            owner: first.destination.owner(),
            origin: VipOrigin::Gateway,
            addresses: addresses.collect(),
            families,
            ports,
        });
    }
    dialled
}
