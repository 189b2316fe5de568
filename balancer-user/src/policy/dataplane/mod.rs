//! `Dataplane` (semantics 2.3): a workload, what it offers and what it dials.

pub(super) mod aside;
pub(super) mod inbound;
pub(super) mod outbound;

use std::net::IpAddr;

use super::{
    Api, Dataplane, Diagnostic, Host, Inbound, Meta, PROTOCOL_TAG, SERVICE_TAG, Tags,
    envelope::only,
    fields::{Context, Field, Fields},
    tags::{self, TagRules},
};

/// Reads a Dataplane. `None`: it has an error.
pub(super) fn dataplane(
    cx: &mut Context<'_>,
    meta: Meta,
    mut spec: Fields<'_>,
) -> Option<Dataplane> {
    let networking = spec.take(cx, "networking");
    let probes = spec.take(cx, "probes");
    let metrics = spec.take(cx, "metrics");
    let Some(networking) = networking else {
        cx.report(
            spec.missing("networking", "must be defined")
                .hint("add `networking:` with an `address` and at least one `inbound`"),
        );
        spec.finish(cx);
        return None;
    };
    spec.finish(cx);
    let mut fields = networking.fields(cx)?;

    let address_field = fields.take(cx, "address");
    let address = match &address_field {
        Some(field) => host(cx, field),
        None => {
            cx.report(fields.missing("address", "address can't be empty"));
            None
        }
    };
    let advertised_field = fields.take(cx, "advertisedAddress");
    let advertised = advertised_field.as_ref().map(|field| host(cx, field));

    let gateway_field = fields.take(cx, "gateway");
    let gateway = gateway_field.as_ref().map(|field| gateway(cx, field));
    let gateway_type = gateway.as_ref().map(|gateway| gateway.kind);

    let inbound_field = fields.take(cx, "inbound");
    let inbound_fields =
        inbound_field.as_ref().and_then(|field| field.items(cx)).unwrap_or_default();
    let outbound_field = fields.take(cx, "outbound");
    let outbound_fields =
        outbound_field.as_ref().and_then(|field| field.items(cx)).unwrap_or_default();
    let own = match &address {
        Some(Host::Ip(address)) => Some(*address),
        Some(Host::Name(_)) | None => None,
    };
    let inbounds: Vec<Option<Inbound>> =
        inbound_fields.iter().map(|field| inbound::inbound(cx, field, own)).collect();
    let outbounds: Vec<outbound::Read> = (0..)
        .zip(&outbound_fields)
        .map(|(index, field)| outbound::outbound(cx, field, index))
        .collect();

    let listeners = fields.take(cx, "listeners");
    let has_listeners = listeners.as_ref().is_some_and(|field| {
        // Listeners are Kuma 3's; earlier versions know no such field and ignore it.
        let known = !only(cx.options, &[Api::Kuma27, Api::Kuma29]);
        known && aside::listeners(cx, field, &inbound_fields)
    });
    let admin = fields.take(cx, "admin");
    if let Some(admin) = &admin {
        aside::admin(cx, admin, own, &inbounds, &outbounds);
    }
    let proxying = fields.take(cx, "transparentProxying");
    if let Some(proxying) = &proxying {
        aside::transparent_proxying(cx, proxying);
    }
    // In Kuma 3 a workload that only dials needs no inbound.
    let only_dials = proxying.is_some() && !only(cx.options, &[Api::Kuma27, Api::Kuma29]);

    match gateway_type {
        Some(GatewayType::Delegated) => {
            forbid(
                cx,
                inbound_field.as_ref(),
                &inbound_fields,
                "inbound cannot be defined for delegated gateways",
            );
        }
        Some(GatewayType::Builtin) => {
            forbid(
                cx,
                inbound_field.as_ref(),
                &inbound_fields,
                "inbound cannot be defined for builtin gateways",
            );
            forbid(
                cx,
                outbound_field.as_ref(),
                &outbound_fields,
                "outbound cannot be defined for builtin gateways",
            );
            if let Some(probes) = &probes {
                // The path is the reference's.
                cx.report(
                    Diagnostic::error(
                        "networking.probes",
                        "probes cannot be defined for builtin gateways",
                    )
                    .at(probes.key_span),
                );
            }
        }
        None if inbound_fields.is_empty() && !has_listeners && !only_dials => {
            cx.report(networking.error("has to contain at least one inbound interface or gateway"));
        }
        None => {}
    }
    if gateway_type != Some(GatewayType::Builtin)
        && let Some(probes) = &probes
    {
        aside::probes(cx, probes);
    }
    if gateway_type.is_none()
        && let Some(metrics) = &metrics
    {
        aside::metrics(cx, metrics);
    }
    fields.finish(cx);

    Some(Dataplane {
        meta,
        address: address?,
        advertised: match advertised {
            Some(host) => Some(host?),
            None => None,
        },
        inbounds: inbounds.into_iter().collect::<Option<_>>()?,
        gateway: match gateway {
            Some(gateway) => Some(gateway.tags?),
            None => None,
        },
        referring: outbounds.iter().filter_map(|read| read.by_reference.clone()).collect(),
        outbounds: outbounds.into_iter().filter_map(|outbound| outbound.by_tags).collect(),
    })
}

fn forbid(cx: &mut Context<'_>, field: Option<&Field<'_>>, items: &[Field<'_>], message: &str) {
    if let Some(field) = field.filter(|_| !items.is_empty()) {
        cx.report(Diagnostic::error(field.path.clone(), message).at(field.key_span));
    }
}

/// An address that others dial: an IP address or a DNS name.
fn host(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Host> {
    let text = field.string(cx)?;
    if text.is_empty() {
        cx.report(field.error("address can't be empty"));
        return None;
    }
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            cx.report(field.error("must not be 0.0.0.0 or ::"));
            None
        }
        // An IPv4 address in IPv6 clothes is met as IPv4 on the wire.
        Ok(address) => Some(Host::Ip(address.to_canonical())),
        Err(_) if is_dns_name(text) => Some(Host::Name(text.to_owned())),
        Err(_) => {
            cx.report(field.error("address has to be valid IP address or domain name"));
            None
        }
    }
}

/// Whether it can be a DNS name: labels of letters, digits, `-` and `_` (service names carry
/// underscores), at most 63 long and 255 together (RFC 1035, 2.3.4).
pub(super) fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 255
        && name.split('.').all(|label| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| inner(byte) || byte == b'-')
                && label.bytes().next().is_some_and(inner)
                && label.bytes().last().is_some_and(inner)
        })
        // Four numbers that are no address are a typing error, not a name.
        && !name.split('.').all(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `gateway.type`.
pub(super) const GATEWAY_TYPES: &[&str] = &["DELEGATED", "BUILTIN"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum GatewayType {
    Delegated,
    Builtin,
}

struct Gateway {
    kind: GatewayType,
    tags: Option<Tags>,
}

fn gateway(cx: &mut Context<'_>, field: &Field<'_>) -> Gateway {
    let mut gateway = Gateway { kind: GatewayType::Delegated, tags: None };
    let Some(mut fields) = field.fields(cx) else { return gateway };
    if let Some(kind) = fields.take(cx, "type")
        && kind.one_of(cx, GATEWAY_TYPES) == Some("BUILTIN")
    {
        gateway.kind = GatewayType::Builtin;
    }
    let tags_field = fields.take(cx, "tags");
    let rules = TagRules { service: true, ..TagRules::default() };
    let path = format!("{}.tags", fields.path);
    gateway.tags = tags::tags(cx, &path, tags_field.as_ref(), fields.span, rules);
    if let Some(protocol) = gateway.tags.as_ref().and_then(|tags| tags.get(PROTOCOL_TAG))
        && protocol != "tcp"
        && let Some(entry) = tags_field.as_ref().and_then(|field| field.node.entry(PROTOCOL_TAG))
    {
        cx.report(
            Diagnostic::error(
                format!("{path}[\"{PROTOCOL_TAG}\"]"),
                format!("other values than tcp are not allowed, provided value \"{protocol}\""),
            )
            .at(entry.value.span),
        );
        gateway.tags = None;
    }
    fields.finish(cx);
    gateway
}

/// Turns `service` and `protocol` of Kuma 0.5 into today's names (decision D5).
fn prefixed(cx: &mut Context<'_>, field: &Field<'_>) -> bool {
    let old = field
        .node
        .entry("service")
        .filter(|_| cx.options.lenient() && field.node.entry(SERVICE_TAG).is_none());
    if let Some(entry) = old {
        cx.report(
            Diagnostic::warning(
                format!("{}[\"service\"]", field.path),
                format!("read as Kuma 0.5's name of the tag `{SERVICE_TAG}`"),
            )
            .at(entry.key_span)
            .hint(format!("write `{SERVICE_TAG}`")),
        );
    }
    old.is_some()
}

#[cfg(test)]
#[path = "../dataplane_tests.rs"]
mod tests;
