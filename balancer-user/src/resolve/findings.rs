//! What resolution has to say about the policies: across resources, with their positions.

use std::net::{IpAddr, SocketAddr};

use super::{
    ResolveSettings, VipOwner,
    dialled::Place,
    inventory::Family,
    mesh_tcp::Item,
    sources::{Declared, dialled},
};
use crate::policy::{
    Dataplane, Diagnostic, Host, Meta, Outbound, PolicySet, SERVICE_TAG, Span, Tags, TrafficRoute,
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
}

impl<'a> Mention<'a> {
    pub(super) fn meta(self) -> &'a Meta {
        match self {
            Self::Inbound(dataplane, _) | Self::Outbound(dataplane, _) => &dataplane.meta,
            Self::Destination(route, _) => &route.meta,
            Self::Object(place) => place.meta,
            Self::To(item) => &item.policy.meta,
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
        }
    }

    pub(super) fn span(self) -> Span {
        match self {
            Self::Inbound(dataplane, index) => dataplane.inbounds[index].span,
            Self::Outbound(_, outbound) => outbound.span,
            Self::Destination(route, _) => route.meta.span,
            Self::Object(place) => place.span,
            Self::To(item) => item.to().span,
        }
    }
}

/// Collects diagnostics.
pub(super) struct Findings<'a> {
    set: &'a PolicySet,
    found: Vec<(Meta, Diagnostic)>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(set: &'a PolicySet) -> Self {
        Self { set, found: Vec::new() }
    }

    /// All of them, in an order that does not depend on the input's.
    pub(super) fn into_sorted(mut self) -> Vec<(Meta, Diagnostic)> {
        type Key<'k> = (&'k str, &'k str, &'k str, Option<Span>, &'k str, &'k str);
        fn key((meta, diagnostic): &(Meta, Diagnostic)) -> Key<'_> {
            let Diagnostic { field, message, span, .. } = diagnostic;
            (&meta.mesh, meta.kind, &meta.name, *span, field, message)
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

    /// `file:line:column`, for messages that name a second place.
    pub(super) fn position(&self, span: Span) -> String {
        let file = self.set.texts.get(span.text as usize).map_or("?", |text| &text.name);
        format!("{file}:{}:{}", span.line, span.column)
    }

    /// The inbound that is dialled at `addr`, the first by (mesh, name).
    pub(super) fn inbound_at(&self, addr: SocketAddr) -> Option<(&'a Dataplane, usize)> {
        let mut found: Vec<(&'a Dataplane, usize)> = self
            .set
            .dataplanes
            .iter()
            .flat_map(|dataplane| {
                let inbounds = dataplane.inbounds.iter().enumerate();
                inbounds.map(move |(index, inbound)| (dataplane, index, inbound))
            })
            .filter(|(dataplane, _, inbound)| {
                super::inventory::endpoint_address(dataplane, inbound) == Some(addr)
            })
            .map(|(dataplane, index, _)| (dataplane, index))
            .collect();
        found
            .sort_by_key(|(dataplane, index)| (&dataplane.meta.mesh, &dataplane.meta.name, *index));
        found.first().copied()
    }

    /// Whose endpoint an address is, for messages: of an inbound, or named by a slice.
    pub(super) fn endpoint_of(&self, addr: SocketAddr) -> String {
        if let Some((dataplane, index)) = self.inbound_at(addr) {
            let at = self.position(dataplane.inbounds[index].span);
            return format!(" of inbound {index} of Dataplane {} ({at})", dataplane.meta.name);
        }
        let endpoints = self.set.endpoint_slices.iter().flat_map(|slice| {
            slice.endpoints.iter().map(move |endpoint| (&slice.meta.name, endpoint))
        });
        let mut at = endpoints.filter(|(_, endpoint)| endpoint.address == Host::Ip(addr.ip()));
        at.next().map_or(String::new(), |(slice, endpoint)| {
            format!(" of the EndpointSlice {slice} ({})", self.position(endpoint.span))
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

    pub(super) fn loopback_outbound(
        &mut self,
        dataplane: &Dataplane,
        outbound: &Outbound,
        instead: &[SocketAddr],
    ) {
        let addr = dialled(outbound);
        let service = service_of(outbound);
        let vips = instead.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        let serves = if instead.is_empty() {
            format!("service `{service}` has no VIP that could serve instead")
        } else {
            format!("the service's VIP serves instead: {vips}")
        };
        let mut message =
            format!("the outbound on {addr} is not carried out (needs the socket hook); {serves}");
        let others = outbound.tags.iter().filter(|(key, _)| *key != SERVICE_TAG);
        let others: Vec<_> = others.map(|(key, value)| format!("{key}={value}")).collect();
        if !others.is_empty() {
            message += &format!("; there its tags {} do not apply", others.join(","));
        }
        let hint = match instead.first() {
            Some(vip) => format!("let clients dial {vip}, or give the outbound an `address`"),
            None => "give the outbound an `address` outside of 127.0.0.0/8 and ::1".to_owned(),
        };
        let found = Diagnostic::warning(outbound_field(outbound), message);
        self.add(&dataplane.meta, found.at(outbound.span).hint(hint));
    }

    pub(super) fn refused_outbound(
        &mut self,
        dataplane: &Dataplane,
        outbound: &Outbound,
        kind: &str,
    ) {
        let found = Diagnostic::error(
            format!("{}.address", outbound_field(outbound)),
            format!("{} is {kind}, which nobody can dial", outbound.address),
        );
        let hint = "name an address that nothing else has, or leave `address` out: the service \
                    then gets a VIP from the configured range";
        self.add(&dataplane.meta, found.at(outbound.span).hint(hint));
    }

    pub(super) fn disputed_vip(&mut self, addr: SocketAddr, claims: &[Declared<'a>]) {
        for (index, (dataplane, outbound)) in claims.iter().enumerate() {
            let others = claims.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<String> = others
                .map(|(_, (dataplane, outbound))| {
                    format!(
                        "service `{}` of mesh {} by Dataplane {} ({})",
                        service_of(outbound),
                        dataplane.meta.mesh,
                        dataplane.meta.name,
                        self.position(outbound.span),
                    )
                })
                .collect();
            let mut found = Diagnostic::error(
                outbound_field(outbound),
                format!(
                    "VIP {addr} is claimed for service `{}` of mesh {} here, and for {}",
                    service_of(outbound),
                    dataplane.meta.mesh,
                    others.join(" and for ")
                ),
            )
            .at(outbound.span)
            .hint("give one of them another `address` or `port`");
            let other = claims.iter().enumerate().find(|(other, _)| *other != index);
            found.related = other.map(|(_, (_, outbound))| {
                (outbound.span, format!("claimed for service `{}`", service_of(outbound)))
            });
            self.add(&dataplane.meta, found);
        }
    }

    pub(super) fn repeated_outbound(&mut self, dataplane: &Dataplane, outbound: &Outbound) {
        let found = Diagnostic::warning(
            outbound_field(outbound),
            format!(
                "this Dataplane declares {} before, with other tags; the first one counts",
                dialled(outbound)
            ),
        );
        self.add(&dataplane.meta, found.at(outbound.span).hint("remove one of the two"));
    }

    pub(super) fn vip_is_real(
        &mut self,
        addr: SocketAddr,
        (dataplane, outbound): (&Dataplane, &Outbound),
        real: &Dataplane,
        inbound: usize,
    ) {
        let real_span = real.inbounds[inbound].span;
        let mut found = Diagnostic::error(
            outbound_field(outbound),
            format!(
                "VIP {addr} of service `{}` is also what inbound {inbound} of Dataplane {} is \
                 dialled at ({}): its connections would come back to the VIP",
                service_of(outbound),
                real.meta.name,
                self.position(real_span),
            ),
        )
        .at(outbound.span)
        .hint("give the outbound an address that nothing else has");
        found.related = Some((real_span, "the same address and port".to_owned()));
        self.add(&dataplane.meta, found);
    }

    pub(super) fn no_port(&mut self, key: &VipOwner, mention: Option<Mention<'a>>) {
        let Some(mention) = mention.or_else(|| self.first_inbound(key)) else { return };
        let service = &key.name;
        let found = Diagnostic::warning(
            mention.field(),
            format!("service `{service}` gets no VIP: nothing says at which port it is dialled"),
        );
        let hint = "add a Dataplane with an inbound for it, add an outbound with `address` and \
                    `port`, or end the service's name in `_svc_PORT`";
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
        let service = &key.name;
        let found = Diagnostic::warning(
            mention.field(),
            format!(
                "the VIP of service `{service}` moves from {old} to {new}: an outbound, a workload \
                 or an endpoint has the old address now"
            ),
        );
        let hint = "give that one another address if clients know the old VIP";
        self.add(mention.meta(), found.at(mention.span()).hint(hint));
    }
}

pub(super) fn outbound_field(outbound: &Outbound) -> String {
    format!("networking.outbound[{}]", outbound.index)
}

fn service_of(outbound: &Outbound) -> &str {
    outbound.tags.get(SERVICE_TAG).map_or("", String::as_str)
}
