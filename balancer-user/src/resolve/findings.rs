//! What resolution has to say about the policies: across resources, with their positions.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Names, ResolveSettings, VipKey, VipOwner,
    dialled::Place,
    inventory::{Family, endpoint_addresses},
    mesh_tcp::Item,
    objects::Object,
    sources::dialled,
    vips::{Claim, ClaimedBy},
};
use crate::policy::{
    Dataplane, Diagnostic, ExternalEndpoint, Host, Meta, Outbound, PolicySet, SERVICE_TAG,
    ServiceRef, Span, Tags, TrafficRoute, suggest::suggest,
};

/// Where a service is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mention<'a> {
    /// By the inbound with this index.
    Inbound(&'a Dataplane, usize),
    /// By an outbound.
    Outbound(&'a Dataplane, &'a Outbound),
    /// As a destination of a policy.
    Destination(&'a TrafficRoute, &'a str),
    /// By a field of an object.
    Object(Place<'a>),
    /// By an item of a MeshTCPRoute.
    To(Item<'a>),
    /// By its own name.
    Named(&'a Meta),
    /// By an address that somebody gives it.
    Claimed(&'a Meta, ClaimedBy<'a>),
}

impl<'a> Mention<'a> {
    pub(super) fn meta(self) -> &'a Meta {
        match self {
            Self::Inbound(dataplane, _) | Self::Outbound(dataplane, _) => &dataplane.meta,
            Self::Destination(route, _) => &route.meta,
            Self::Object(place) => place.meta,
            Self::To(item) => &item.policy.meta,
            Self::Named(meta) | Self::Claimed(meta, _) => meta,
        }
    }

    pub(super) fn field(self) -> String {
        let service = format!("[\"{SERVICE_TAG}\"]");
        match self {
            Self::Inbound(_, index) => format!("networking.inbound[{index}].tags{service}"),
            Self::Outbound(_, outbound) => format!("{}.tags{service}", outbound_field(outbound)),
            Self::Destination(route, name) => {
                let index = route.destinations.iter().position(|other| other == name);
                format!("destinations[{}].match{service}", index.unwrap_or_default())
            }
            Self::Object(place) => place.field(),
            Self::To(item) => format!("{}.targetRef.name", item.to().field),
            Self::Named(_) => "name".to_owned(),
            Self::Claimed(_, by) => by.field(),
        }
    }

    pub(super) fn span(self) -> Span {
        match self {
            Self::Inbound(dataplane, index) => dataplane.inbounds[index].span,
            Self::Outbound(_, outbound) => outbound.span,
            Self::Destination(route, _) => route.meta.span,
            Self::Object(place) => place.span,
            Self::To(item) => item.to().span,
            Self::Named(meta) => meta.span,
            Self::Claimed(meta, by) => by.span().unwrap_or(meta.span),
        }
    }
}

/// Who is dialled at an address.
#[derive(Clone, Debug)]
pub(super) struct RealPlace {
    /// "inbound 0 of Dataplane redis".
    who: String,
    span: Span,
}

/// Collects diagnostics.
pub(super) struct Findings<'a> {
    set: &'a PolicySet,
    names: &'a Names,
    found: Vec<(Meta, Diagnostic)>,
    /// Only where it was asked for.
    offered: OnceCell<BTreeMap<&'a str, BTreeSet<&'a str>>>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(set: &'a PolicySet, names: &'a Names) -> Self {
        Self { set, names, found: Vec::new(), offered: OnceCell::new() }
    }

    /// All of them, in an order that does not depend on the input's.
    pub(super) fn into_sorted(mut self) -> Vec<(Meta, Diagnostic)> {
        type Who<'k> = (&'k str, &'k str, &'k str, &'k str);
        // In their document; documents are in no order.
        type Key<'k> = (Who<'k>, Option<(u32, u32)>, &'k str, &'k str);
        fn key((meta, diagnostic): &(Meta, Diagnostic)) -> Key<'_> {
            let Diagnostic { field, message, span, .. } = diagnostic;
            let who = (&*meta.mesh, meta.kind, &*meta.name, meta.object().0);
            (who, span.map(|span| (span.line, span.column)), field, message)
        }
        self.found.sort_by(|a, b| key(a).cmp(&key(b)));
        self.found.dedup();
        self.found
    }

    /// Adds a finding about `meta`.
    pub(super) fn add(&mut self, meta: &Meta, diagnostic: Diagnostic) {
        self.found.push((meta.clone(), diagnostic));
    }

    /// Adds what there is to say about `meta`.
    pub(super) fn extend(
        &mut self,
        meta: &Meta,
        diagnostics: impl IntoIterator<Item = Diagnostic>,
    ) {
        self.found.extend(diagnostics.into_iter().map(|found| (meta.clone(), found)));
    }

    /// `file:line:column`, for errors that name a second place. Not for warnings: small changes keep
    /// them, and the place moves with what stands above it.
    pub(super) fn position(&self, span: Span) -> String {
        let position = self.set.documents.position(span);
        position.map_or_else(|| "?".to_owned(), |position| position.to_string())
    }

    /// Who is dialled at `addr`: the first by kind, mesh and name.
    pub(super) fn real_at(&self, addr: SocketAddr) -> Option<RealPlace> {
        let names = self.names;
        let mut found: Vec<(&Meta, usize, &str, Span)> = Vec::new();
        for dataplane in &self.set.dataplanes {
            for (index, inbound) in dataplane.inbounds.iter().enumerate() {
                if endpoint_addresses(dataplane, inbound, names).any(|other| other == addr) {
                    found.push((&dataplane.meta, index, "inbound", inbound.span));
                }
            }
        }
        let is = |host: &Host, port: std::num::NonZeroU16| {
            port.get() == addr.port()
                && match host {
                    Host::Ip(address) => address.to_canonical() == addr.ip(),
                    Host::Name(name) => names.of(name).contains(&addr.ip()),
                }
        };
        for service in &self.set.mesh_external_services {
            for (index, ExternalEndpoint { address, port, span, .. }) in
                service.endpoints.iter().enumerate()
            {
                if is(address, *port) {
                    found.push((&service.meta, index, "endpoint", *span));
                }
            }
        }
        for external in &self.set.external_services {
            if is(&external.address, external.port) {
                found.push((&external.meta, 0, "address", external.meta.span));
            }
        }
        for slice in &self.set.endpoint_slices {
            for (index, endpoint) in slice.endpoints.iter().enumerate() {
                if endpoint.address == Host::Ip(addr.ip()) {
                    found.push((&slice.meta, index, "slice", endpoint.span));
                }
            }
        }
        found.sort_by_key(|(meta, index, ..)| (meta.kind, &meta.mesh, &meta.name, *index));
        found.first().map(|(meta, index, part, span)| RealPlace {
            who: match *part {
                "address" => format!("{} {}", meta.kind, meta.name),
                "slice" => format!("the EndpointSlice {}", meta.name),
                part => format!("{part} {index} of {} {}", meta.kind, meta.name),
            },
            span: *span,
        })
    }

    /// Whose endpoint an address is, for messages.
    pub(super) fn endpoint_of(&self, addr: SocketAddr) -> String {
        self.real_at(addr).map_or(String::new(), |real| {
            format!(" of {} ({})", real.who, self.position(real.span))
        })
    }

    /// The first inbound, by (mesh, name), of a service that inbounds name.
    fn first_inbound(&self, VipOwner { mesh, name, .. }: &VipOwner) -> Option<Mention<'a>> {
        let of_mesh = self.set.dataplanes.iter().filter(|d| *d.meta.mesh == **mesh);
        let naming = of_mesh.filter_map(|dataplane| {
            let named = |tags: &Tags| tags.get(SERVICE_TAG).is_some_and(|other| **other == **name);
            let index = dataplane.inbounds.iter().position(|inbound| named(&inbound.tags))?;
            Some((dataplane, index))
        });
        let first = naming.min_by_key(|(dataplane, _)| &dataplane.meta.name);
        first.map(|(dataplane, index)| Mention::Inbound(dataplane, index))
    }

    /// The services that inbounds name, by mesh.
    fn offered(&self) -> &BTreeMap<&'a str, BTreeSet<&'a str>> {
        self.offered.get_or_init(|| {
            let mut offered: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for dataplane in &self.set.dataplanes {
                let named = dataplane.inbounds.iter().filter_map(|i| i.tags.get(SERVICE_TAG));
                let of_mesh = offered.entry(&dataplane.meta.mesh).or_default();
                of_mesh.extend(named.map(String::as_str));
            }
            offered
        })
    }

    pub(super) fn loopback_outbound(
        &mut self,
        addr: SocketAddr,
        claim: &Claim<'_>,
        instead: &[VipKey],
    ) {
        let called = claim.destination.called();
        let vips = instead.iter().map(VipKey::to_string).collect::<Vec<_>>().join(", ");
        let serves = match (&claim.by, instead) {
            (_, []) => format!("{called} has no VIP that could serve instead"),
            (ClaimedBy::Outbound(_), _) => format!("the service's VIP serves instead: {vips}"),
            (_, _) => format!("the VIP of {called} serves instead: {vips}"),
        };
        let mut message =
            format!("the outbound on {addr} is not carried out (needs the socket hook); {serves}");
        if let ClaimedBy::Outbound(outbound) = claim.by {
            let others = outbound.tags.iter().filter(|(key, _)| *key != SERVICE_TAG);
            let others: Vec<_> = others.map(|(key, value)| format!("{key}={value}")).collect();
            if !others.is_empty() {
                message += &format!("; there its tags {} do not apply", others.join(","));
            }
        }
        let hint = match instead.first() {
            Some(vip) => format!("let clients dial {vip}, or give the outbound an `address`"),
            None => "give the outbound an `address` outside of 127.0.0.0/8 and ::1".to_owned(),
        };
        let found = Diagnostic::warning(claim.field(), message);
        self.add(claim.meta, found.at(claim.span()).hint(hint));
    }

    pub(super) fn refused_address(&mut self, address: IpAddr, claim: &Claim<'_>, kind: &str) {
        let message = format!("{address} is {kind}, which nobody can dial");
        let (field, hint) = match claim.by {
            ClaimedBy::Field(path) => (
                path.to_owned(),
                "name an address that nothing else has, or leave it out: the object then gets a \
                 VIP from the configured range",
            ),
            ClaimedBy::Outbound(_) | ClaimedBy::Referring(_) => (
                format!("{}.address", claim.field()),
                "name an address that nothing else has, or leave `address` out: the service then \
                 gets a VIP from the configured range",
            ),
        };
        self.add(claim.meta, Diagnostic::error(field, message).at(claim.span()).hint(hint));
    }

    pub(super) fn disputed_vip(&mut self, key: VipKey, claims: &[&Claim<'_>]) {
        for (index, claim) in claims.iter().enumerate() {
            let others = claims.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<String> = others
                .map(|(_, other)| {
                    format!(
                        "{} by {} {} ({})",
                        other.destination.called_in_mesh(),
                        other.meta.kind,
                        other.meta.name,
                        self.position(other.span()),
                    )
                })
                .collect();
            let mut found = Diagnostic::error(
                claim.field(),
                format!(
                    "VIP {key} is claimed for {} here, and for {}",
                    claim.destination.called_in_mesh(),
                    others.join(" and for ")
                ),
            )
            .at(claim.span())
            .hint("give one of them another address or port");
            let other = claims.iter().enumerate().find(|(other, _)| *other != index);
            found.related = other.map(|(_, other)| {
                (other.span(), format!("claimed for {}", other.destination.called()))
            });
            self.add(claim.meta, found);
        }
    }

    pub(super) fn repeated_outbound(&mut self, meta: &Meta, outbound: &Outbound) {
        let found = Diagnostic::warning(
            outbound_field(outbound),
            format!(
                "this Dataplane declares {} before, with other tags; the first one counts",
                dialled(outbound)
            ),
        );
        self.add(meta, found.at(outbound.span).hint("remove one of the two"));
    }

    pub(super) fn vip_is_real(&mut self, key: VipKey, claim: &Claim<'_>, real: &RealPlace) {
        let mut found = Diagnostic::error(
            claim.field(),
            format!(
                "VIP {key} of {} is also what {} is dialled at ({}): its connections would come \
                 back to the VIP",
                claim.destination.called(),
                real.who,
                self.position(real.span),
            ),
        )
        .at(claim.span())
        .hint("give it an address that nothing else has");
        found.related = Some((real.span, "the same address and port".to_owned()));
        self.add(claim.meta, found);
    }

    /// A reference that means no object; `known` are the names that it could mean.
    pub(super) fn no_object<'n>(
        &mut self,
        meta: &Meta,
        to: &ServiceRef,
        known: impl Iterator<Item = &'n str>,
    ) {
        let kind = super::DestinationKind::from(to.kind).name();
        let (what, close) = match &to.by {
            crate::policy::ReferredBy::Name { name, .. } => {
                (format!("is named `{name}`"), suggest(name, known))
            }
            crate::policy::ReferredBy::Labels(labels) => {
                (format!("has the labels {}", super::tags_text(labels)), Vec::new())
            }
        };
        let mut found = Diagnostic::warning(
            to.field.clone(),
            format!("no {kind} of mesh {} {what}: this outbound has no effect", meta.mesh),
        )
        .at(to.span);
        if !close.is_empty() {
            found = found.hint(format!("did you mean {}", close.join(" or ")));
        }
        self.add(meta, found);
    }

    /// A reference to an object that has no such port; none where it has to say which.
    pub(super) fn no_port_of_object(
        &mut self,
        meta: &Meta,
        to: &ServiceRef,
        object: &Object<'_>,
        port: &str,
    ) {
        let kind = super::DestinationKind::from(to.kind).name();
        let name = &object.meta.name;
        let what = match port {
            "" => "has several ports, and `port` does not say which".to_owned(),
            port => format!("has no port {port}"),
        };
        let found = Diagnostic::warning(
            to.field.clone(),
            format!("{kind} `{name}` {what}: this outbound has no effect"),
        );
        let ports = match object.port_names().as_slice() {
            [] => "it has no port".to_owned(),
            ports => format!("it has {}", ports.join(", ")),
        };
        self.add(meta, found.at(to.span).hint(ports));
    }

    pub(super) fn no_port(&mut self, key: &VipOwner, mention: Option<Mention<'a>>) {
        let Some(mention) = mention.or_else(|| self.first_inbound(key)) else { return };
        let service = &key.name;
        let found = Diagnostic::warning(
            mention.field(),
            format!("service `{service}` gets no VIP: nothing says at which port it is dialled"),
        );
        let known = self.offered().get(&*key.mesh);
        let meant = suggest(service, known.into_iter().flatten().copied());
        let hint = if meant.is_empty() {
            "add a Dataplane with an inbound for it, add an outbound with `address` and `port`, or \
             end the service's name in `_svc_PORT`"
                .to_owned()
        } else {
            format!("did you mean {}", meant.join(" or "))
        };
        self.add(mention.meta(), found.at(mention.span()).hint(hint));
    }

    pub(super) fn range_exhausted(
        &mut self,
        settings: &ResolveSettings,
        key: &VipOwner,
        family: Family,
        mention: Option<Mention<'a>>,
    ) {
        let Some(mention) = mention.or_else(|| self.first_inbound(key)) else { return };
        let (range, setting) = match family {
            Family::V4 => (format!("{}/{}", settings.vips4.0, settings.vips4.1), "vips.ipv4"),
            Family::V6 => (format!("{}/{}", settings.vips6.0, settings.vips6.1), "vips.ipv6"),
        };
        let found =
            Diagnostic::error(mention.field(), format!("no address is left in {range} for {key}"));
        let hint = format!("configure a larger `{setting}`");
        self.add(mention.meta(), found.at(mention.span()).hint(hint));
    }

    pub(super) fn assignment_moved(
        &mut self,
        key: &VipOwner,
        old: IpAddr,
        new: IpAddr,
        mention: Option<Mention<'a>>,
    ) {
        let Some(mention) = mention.or_else(|| self.first_inbound(key)) else { return };
        let found = Diagnostic::warning(
            mention.field(),
            format!(
                "the VIP of {key} moves from {old} to {new}: an outbound, a status, a workload or \
                 an endpoint has the old address now"
            ),
        );
        let hint = "give that one another address if clients know the old VIP";
        self.add(mention.meta(), found.at(mention.span()).hint(hint));
    }
}

pub(super) fn outbound_field(outbound: &Outbound) -> String {
    format!("networking.outbound[{}]", outbound.index)
}
