//! Objects that are dialled: the addresses that they name, and who else names them.
//!
//! An object has one address of a family for all its ports. Where it names none, it gets one from
//! the configured ranges like a service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::{
    Destination, VipKey, VipOrigin, VipOwner, VipProtocol,
    findings::{Findings, Mention},
    inventory::{Family, Inventory},
    vips::{PlannedVip, port_in_name},
};
use crate::policy::{Diagnostic, Meta, Span};

/// An object with ports that clients dial.
#[derive(Clone, Debug)]
pub(super) struct Dialled<'a> {
    /// Whose addresses they are.
    pub(super) owner: VipOwner,
    /// Where the addresses come from.
    pub(super) origin: VipOrigin,
    /// What it names. Empty: addresses are allocated.
    pub(super) addresses: Vec<IpAddr>,
    /// Families in which addresses are allocated.
    pub(super) families: BTreeSet<Family>,
    /// At least one.
    pub(super) ports: Vec<DialledPort<'a>>,
}

/// A port that clients dial.
#[derive(Clone, Debug)]
pub(super) struct DialledPort<'a> {
    pub(super) port: NonZeroU16,
    pub(super) protocol: VipProtocol,
    /// What it stands for.
    pub(super) destination: Destination,
    /// Where it is written.
    pub(super) place: Place<'a>,
}

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) meta: &'a Meta,
    /// The list that it is in: `spec.ports`.
    pub(super) list: &'static str,
    /// Its place there.
    pub(super) index: usize,
    pub(super) span: Span,
}

impl Place<'_> {
    /// `spec.ports[0]`.
    pub(super) fn field(&self) -> String {
        format!("{}[{}]", self.list, self.index)
    }
}

impl<'a> Dialled<'a> {
    /// Where it is first mentioned.
    pub(super) fn mention(&self) -> Option<Mention<'a>> {
        self.ports.first().map(|port| Mention::Object(port.place))
    }
}

/// What stands for one address and port.
type Claim<'a> = (Mention<'a>, Destination);

/// Addresses that documents name, with who does.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    by_key: BTreeMap<VipKey, Claim<'a>>,
}

impl<'a> Claims<'a> {
    /// Enters what an outbound names.
    pub(super) fn enter(&mut self, key: VipKey, mention: Mention<'a>, destination: Destination) {
        self.by_key.insert(key, (mention, destination));
    }

    /// Plans the VIPs of the addresses that an object names. Who comes second to an address is a
    /// finding, and the first keeps it; but where a service by its tag is the Service of that
    /// name, one VIP stands for both.
    pub(super) fn claim(
        &mut self,
        object: &Dialled<'a>,
        inventory: &Inventory<'_>,
        planned: &mut BTreeMap<VipKey, PlannedVip>,
        findings: &mut Findings<'a>,
    ) {
        for address in &object.addresses {
            for port in &object.ports {
                let addr = SocketAddr::new(*address, port.port.get());
                let key = VipKey { addr, protocol: port.protocol };
                let mention = Mention::Object(port.place);
                let vip = PlannedVip {
                    key,
                    destination: port.destination.clone(),
                    origin: object.origin,
                    also: None,
                };
                match self.by_key.get(&key) {
                    None => {
                        if inventory.has(addr) {
                            findings.object_is_real(key, mention, &port.destination);
                        }
                        planned.insert(key, vip);
                        self.by_key.insert(key, (mention, port.destination.clone()));
                    }
                    Some((_, first)) if is_same_service(first, &port.destination) => {
                        if let Some(planned) = planned.get_mut(&key) {
                            planned.also = Some(port.destination.clone());
                        }
                    }
                    Some((first, destination)) => {
                        findings.claimed_twice(
                            key,
                            (*first, destination),
                            mention,
                            &port.destination,
                        );
                    }
                }
            }
        }
    }
}

/// Whether a service of a mesh is a port of a Service: Kuma names it `NAME_NAMESPACE_svc_PORT`
/// (`NAME.NAMESPACE.svc:PORT` in 0.5), and a MeshService that it makes of one `NAME.NAMESPACE`.
fn is_same_service(of_mesh: &Destination, object: &Destination) -> bool {
    let Destination::Service { namespace, name, port, protocol } = object else { return false };
    // Kuma names ports of TCP so, and knows no others.
    if *protocol != VipProtocol::Tcp {
        return false;
    }
    match of_mesh {
        Destination::Tags { service, .. } => {
            port_in_name(service) == Some(port.get())
                && (service.starts_with(&format!("{name}_{namespace}_svc_"))
                    || service.starts_with(&format!("{name}.{namespace}.svc:")))
        }
        Destination::Port { name: of_mesh, port: own, .. } => {
            own == port && **of_mesh == *format!("{name}.{namespace}")
        }
        Destination::Service { .. }
        | Destination::Missing { .. }
        | Destination::Listener { .. } => false,
    }
}

impl<'a> Findings<'a> {
    /// What an object is dialled at is an endpoint too.
    fn object_is_real(&mut self, key: VipKey, own: Mention<'a>, destination: &Destination) {
        let message = format!(
            "VIP {key} of {} is also the address of an endpoint{}: its connections would come \
             back to the VIP",
            destination.called(),
            self.endpoint_of(key.addr),
        );
        let found = Diagnostic::error(own.field(), message)
            .at(own.span())
            .hint("give one of them an address that nothing else has");
        self.add(own.meta(), found);
    }

    /// Two objects, or an object and an outbound, name one address and port.
    fn claimed_twice(
        &mut self,
        key: VipKey,
        (first, first_is): (Mention<'a>, &Destination),
        second: Mention<'a>,
        second_is: &Destination,
    ) {
        for ((own, own_is), (other, other_is)) in
            [((first, first_is), (second, second_is)), ((second, second_is), (first, first_is))]
        {
            let message = format!(
                "VIP {key} is claimed for {} here, and for {} at {}",
                own_is.called(),
                other_is.called(),
                self.position(other.span()),
            );
            let found = Diagnostic::error(own.field(), message)
                .at(own.span())
                .related(other.span(), format!("claimed for {}", other_is.called()))
                .hint("give one of them another address or port");
            self.add(own.meta(), found);
        }
    }
}
