//! Listeners as something to dial.

use std::collections::BTreeSet;

use super::{Attachments, Point};
use crate::{
    policy::{Host, gateway::ListenerProtocol},
    resolve::{
        Destination, VipOrigin, VipProtocol,
        dialled::{Dialled, DialledPort, Place},
        inventory::{Family, Inventory},
    },
};

/// The listeners of TCP: at the addresses of their Gateway, else at one that is allocated in
/// each family in which a backend has endpoints.
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
            if listener.protocol != ListenerProtocol::Tcp {
                continue;
            }
            let point = Point::Listener { namespace, gateway: name, listener: &listener.name };
            families.extend(attached.families(&point, inventory));
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
