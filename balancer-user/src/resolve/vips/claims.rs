//! Who gives which destination an address: outbounds of Dataplanes, and what a control plane
//! wrote below `status`.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16};

use super::super::{
    Destination, ResolveSettings, Resolver, VipKey, VipOrigin,
    findings::Findings,
    inventory::{Inventory, is_broadcast},
    objects::{NoPort, Object},
};
use crate::policy::{
    Dataplane, Meta, Outbound, ReferringOutbound, SERVICE_TAG, ServiceKind, ServiceStatus, Span,
};

/// Somebody who names an address for a destination.
#[derive(Clone, Debug)]
pub(in super::super) struct Claim<'a> {
    /// What is to be dialled there.
    pub(in super::super) destination: Destination,
    /// The document.
    pub(in super::super) meta: &'a Meta,
    /// The place in it.
    pub(in super::super) by: ClaimedBy<'a>,
}

/// The place of a claim in its document.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum ClaimedBy<'a> {
    /// An outbound of a Dataplane, by tags.
    Outbound(&'a Outbound),
    /// An outbound of a Dataplane, by `backendRef`.
    Referring(&'a ReferringOutbound),
    /// A field of an object; its path.
    Field(&'static str),
}

impl ClaimedBy<'_> {
    pub(in super::super) fn field(self) -> String {
        match self {
            Self::Outbound(Outbound { index, .. })
            | Self::Referring(ReferringOutbound { index, .. }) => {
                format!("networking.outbound[{index}]")
            }
            Self::Field(path) => path.to_owned(),
        }
    }

    /// Where it stands, where that is known better than by its document.
    pub(in super::super) fn span(self) -> Option<Span> {
        match self {
            Self::Outbound(outbound) => Some(outbound.span),
            Self::Referring(outbound) => Some(outbound.span),
            Self::Field(_) => None,
        }
    }
}

impl Claim<'_> {
    pub(in super::super) fn field(&self) -> String {
        self.by.field()
    }

    pub(in super::super) fn span(&self) -> Span {
        self.by.span().unwrap_or(self.meta.span)
    }

    pub(super) fn origin(&self) -> VipOrigin {
        match self.by {
            ClaimedBy::Outbound(_) | ClaimedBy::Referring(_) => VipOrigin::Outbound,
            ClaimedBy::Field(_) => VipOrigin::Status,
        }
    }
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    /// What is to be a VIP.
    pub(super) by_key: BTreeMap<VipKey, Vec<Claim<'a>>>,
    /// Outbounds on loopback addresses: what is dialled, and who says so.
    pub(super) loopbacks: Vec<(SocketAddr, Claim<'a>)>,
}

/// Collects what the documents of `set` say. Addresses that can be no VIP, and references that
/// mean nothing, are findings.
pub(super) fn claims<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) -> Claims<'a> {
    let mut claims = Claims::default();
    let (set, settings) = (resolver.set, resolver.settings);
    for dataplane in &resolver.dataplanes {
        let meta = &dataplane.meta;
        for outbound in &dataplane.outbounds {
            let service = outbound.tags.get(SERVICE_TAG).map_or("", String::as_str);
            let destination = Destination::tags(&meta.mesh, service);
            let addr = SocketAddr::new(outbound.address.to_canonical(), outbound.port.get());
            let by = ClaimedBy::Outbound(outbound);
            claims.add(addr, Claim { destination, meta, by }, settings, findings);
        }
        for outbound in &dataplane.referring {
            let Some(destination) = referred(dataplane, outbound, resolver, findings) else {
                continue;
            };
            let addr = SocketAddr::new(outbound.address.to_canonical(), outbound.port.get());
            let by = ClaimedBy::Referring(outbound);
            claims.add(addr, Claim { destination, meta, by }, settings, findings);
        }
    }
    let mesh_services = set.mesh_services.iter().map(|service| {
        let ports = service.ports.iter().map(|port| port.port).collect();
        (&service.meta, ServiceKind::MeshService, "status.vips", &service.status, ports)
    });
    let multi_zone = set.mesh_multi_zone_services.iter().map(|service| {
        let ports = service.ports.iter().map(|port| port.port).collect();
        (&service.meta, ServiceKind::MeshMultiZoneService, "status.vips", &service.status, ports)
    });
    let external = set.mesh_external_services.iter().map(|service| {
        let kind = ServiceKind::MeshExternalService;
        (&service.meta, kind, "status.vip", &service.status, vec![service.port])
    });
    let mut objects: Vec<(&Meta, ServiceKind, &'static str, &ServiceStatus, Vec<NonZeroU16>)> =
        mesh_services.chain(multi_zone).chain(external).collect();
    objects.sort_by_key(|(meta, kind, ..)| (&meta.mesh, *kind, &meta.name));
    for (meta, kind, field, status, ports) in objects {
        for address in &status.vips {
            for port in &ports {
                let destination = Destination::port(&meta.mesh, kind, &meta.name, *port);
                let addr = SocketAddr::new(address.to_canonical(), port.get());
                let by = ClaimedBy::Field(field);
                claims.add(addr, Claim { destination, meta, by }, settings, findings);
            }
        }
    }
    claims
}

impl<'a> Claims<'a> {
    fn add(
        &mut self,
        addr: SocketAddr,
        claim: Claim<'a>,
        settings: &ResolveSettings,
        findings: &mut Findings<'a>,
    ) {
        let kind = match addr.ip() {
            ip if ip.is_unspecified() => Some("the unspecified address"),
            ip if ip.is_multicast() => Some("a multicast address"),
            ip if is_broadcast(ip) => Some("the broadcast address"),
            ip if ip.is_loopback() && matches!(claim.by, ClaimedBy::Field(_)) => {
                Some("a loopback address")
            }
            _ => None,
        };
        if let Some(kind) = kind {
            findings.refused_address(addr.ip(), &claim, kind);
        } else if addr.ip().is_loopback() {
            self.loopbacks.push((addr, claim));
        } else {
            // `status` may name one address twice.
            let same = |other: &Claim<'_>| {
                matches!((claim.by, other.by), (ClaimedBy::Field(_), ClaimedBy::Field(_)))
                    && other.destination == claim.destination
            };
            for protocol in settings.protocols(&claim.destination, addr.port()) {
                let there = self.by_key.entry(VipKey { addr, protocol }).or_default();
                if !there.iter().any(same) {
                    there.push(claim.clone());
                }
            }
        }
    }
}

/// What the `backendRef` of an outbound means.
fn referred<'a>(
    dataplane: &'a Dataplane,
    outbound: &ReferringOutbound,
    resolver: &Resolver<'a>,
    findings: &mut Findings<'a>,
) -> Option<Destination> {
    let meta = &dataplane.meta;
    let Some(object) = resolver.objects.meant(&outbound.to, meta) else {
        let known = resolver.objects.of_mesh(&meta.mesh);
        let known = known.filter(|object| object.kind == outbound.to.kind);
        findings.no_object(meta, &outbound.to, known.map(|object| object.meta.name.as_str()));
        return None;
    };
    match object.port_of(&outbound.to) {
        Ok(port) => Some(port_of(object, port)),
        Err(NoPort::Unknown(port)) => {
            findings.no_port_of_object(meta, &outbound.to, object, &port);
            None
        }
        Err(NoPort::Which(_)) => {
            findings.no_port_of_object(meta, &outbound.to, object, "");
            None
        }
    }
}

fn port_of(object: &Object<'_>, port: NonZeroU16) -> Destination {
    Destination::port(&object.meta.mesh, object.kind, &object.meta.name, port)
}

/// The destination that gets an address that somebody names: the only one, or, so that the
/// outcome is whole, the first of those that dispute it. Disputes and loops are findings.
pub(super) fn settle<'c, 'a>(
    key: VipKey,
    claimants: &'c [Claim<'a>],
    inventory: &Inventory<'a>,
    findings: &mut Findings<'a>,
) -> Option<&'c Claim<'a>> {
    let destinations: BTreeMap<&Destination, &Claim<'a>> =
        claimants.iter().rev().map(|claim| (&claim.destination, claim)).collect();
    if destinations.len() > 1 {
        findings.disputed_vip(key, &destinations.values().copied().collect::<Vec<_>>());
    }
    let mut seen = BTreeMap::new();
    for claim in claimants {
        let ClaimedBy::Outbound(outbound) = claim.by else { continue };
        let who = (&claim.meta.mesh, &claim.meta.name);
        let (own, destination) = *seen.entry(who).or_insert((&outbound.tags, &claim.destination));
        if *own != outbound.tags && *destination == claim.destination {
            findings.repeated_outbound(claim.meta, outbound);
        }
    }
    if inventory.has(key.addr)
        && let Some(real) = findings.real_at(key.addr)
    {
        for claim in destinations.values() {
            findings.vip_is_real(key, claim, &real);
        }
    }
    destinations.into_values().next()
}
