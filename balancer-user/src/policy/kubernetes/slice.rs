//! `EndpointSlice` of `discovery.k8s.io/v1`.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    AddressType, EndpointSlice, SERVICE_NAME_LABEL, SliceEndpoint, SlicePort, service, transport,
};
use crate::policy::{
    Diagnostic, Host, Meta,
    fields::{Context, Field, Fields},
    names, object,
};

/// Most endpoints, ports, and addresses of an endpoint (the API's own bounds).
pub(in crate::policy) const ENDPOINTS_MAX: usize = 1_000;
pub(in crate::policy) const PORTS_MAX: usize = 20_000;
pub(in crate::policy) const ADDRESSES_MAX: usize = 100;
/// `addressType`.
pub(in crate::policy) const ADDRESS_TYPES: &[&str] = &["IPv4", "IPv6", "FQDN"];

/// Reads an EndpointSlice, which has no `spec`. `None`: it has an error.
pub(in crate::policy) fn endpoint_slice(
    cx: &mut Context<'_>,
    meta: Meta,
    mut root: Fields<'_>,
) -> Option<EndpointSlice> {
    let service = meta.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty()).cloned();
    if service.is_none() {
        cx.report(
            Diagnostic::warning(
                format!("metadata.labels[\"{SERVICE_NAME_LABEL}\"]"),
                "not given: the slice belongs to no Service, and none of its endpoints is used",
            )
            .at(root.span),
        );
    }
    let type_field = object::required(cx, &mut root, "addressType");
    let address_type = type_field.as_ref().and_then(|field| {
        Some(match field.one_of(cx, ADDRESS_TYPES)? {
            "IPv4" => AddressType::Ipv4,
            "IPv6" => AddressType::Ipv6,
            _ => {
                cx.report(
                    field.warning("FQDN is not carried out: no endpoint of this slice is used"),
                );
                AddressType::Fqdn
            }
        })
    });
    let ports = match root.take(cx, "ports") {
        Some(field) => ports(cx, &field),
        None => Some(Vec::new()),
    };
    let mut endpoints = Some(Vec::new());
    // The cluster writes null where a Service has none.
    if let Some(field) = root.take(cx, "endpoints") {
        let items = object::items(cx, &field, ENDPOINTS_MAX).unwrap_or_default();
        endpoints = items
            .iter()
            .map(|item| endpoint(cx, item, address_type))
            // All of them are read, also behind one that has an error.
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
    }
    root.finish(cx);
    Some(EndpointSlice {
        meta,
        service,
        address_type: address_type?,
        ports: ports?,
        endpoints: endpoints?,
    })
}

fn ports(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<SlicePort>> {
    let items = object::items(cx, field, PORTS_MAX)?;
    let mut seen = BTreeMap::new();
    let mut ports = Vec::new();
    for item in &items {
        let Some(port) = port(cx, item) else { continue };
        if let Some(first) = seen.insert(port.name.clone(), port.span) {
            let what = format!("ports named `{}`", port.name);
            cx.report(object::twice(format!("{}.name", item.path), &what, (port.span, first)));
        }
        ports.push(port);
    }
    (ports.len() == items.len()).then_some(ports)
}

fn port(cx: &mut Context<'_>, item: &Field<'_>) -> Option<SlicePort> {
    let mut fields = item.fields(cx)?;
    let name = match fields.take(cx, "name").filter(Field::is_set) {
        Some(field) => names::label(cx, &field),
        None => Some(String::new()),
    };
    let protocol_field = fields.take(cx, "protocol");
    let protocol = transport(cx, protocol_field.as_ref());
    let port = match fields.take(cx, "port") {
        Some(field) => Some(field.port(cx)?),
        None => {
            cx.report(
                fields
                    .missing_warning("port", "not given: no endpoint can be dialled by this port"),
            );
            None
        }
    };
    if let Some(field) = fields.take(cx, "appProtocol") {
        service::app_protocol(cx, &field);
    }
    fields.finish(cx);
    Some(SlicePort { span: item.node.span, name: name?, protocol: protocol?, port })
}

fn endpoint(
    cx: &mut Context<'_>,
    item: &Field<'_>,
    address_type: Option<AddressType>,
) -> Option<SliceEndpoint> {
    let mut fields = item.fields(cx)?;
    let address = object::required(cx, &mut fields, "addresses")
        .and_then(|field| addresses(cx, &field, address_type));
    let (mut ready, mut serving, mut terminating) = (None, None, None);
    if let Some(conditions) = fields.take(cx, "conditions")
        && let Some(mut conditions) = conditions.fields(cx)
    {
        let mut condition = |name| conditions.take(cx, name).and_then(|field| field.boolean(cx));
        ready = condition("ready");
        serving = condition("serving");
        terminating = condition("terminating");
        conditions.finish(cx);
    }
    let zone = fields.take(cx, "zone").and_then(|field| field.string(cx).map(str::to_owned));
    let node = fields.take(cx, "nodeName").and_then(|field| field.string(cx).map(str::to_owned));
    fields.not_carried_out(cx, "hints", "the endpoint is used from every zone");
    fields.without_effect(&["hostname", "targetRef", "deprecatedTopology"]);
    fields.finish(cx);
    let ready = ready.unwrap_or(true);
    Some(SliceEndpoint {
        span: item.node.span,
        address: address?,
        ready,
        serving: serving.unwrap_or(ready),
        terminating: terminating.unwrap_or(false),
        zone,
        node,
    })
}

/// Checks every address and gives the first.
fn addresses(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    address_type: Option<AddressType>,
) -> Option<Host> {
    let items = object::items(cx, field, ADDRESSES_MAX)?;
    if items.is_empty() {
        cx.report(field.error("must have at least one address"));
    }
    if items.len() > 1 {
        cx.report(
            Diagnostic::warning(field.path.clone(), "only the first address is used")
                .at(items[1].node.span),
        );
    }
    let read: Vec<Option<Host>> =
        items.iter().map(|item| address(cx, item, address_type?)).collect();
    read.into_iter().next().flatten()
}

fn address(cx: &mut Context<'_>, item: &Field<'_>, address_type: AddressType) -> Option<Host> {
    if address_type == AddressType::Fqdn {
        return names::hostname(cx, item).map(Host::Name);
    }
    let address = super::address(cx, item, "address")?;
    let wanted = if address_type == AddressType::Ipv4 { "IPv4" } else { "IPv6" };
    if address.is_ipv4() != (address_type == AddressType::Ipv4) {
        cx.report(
            item.error(format!("must be an {wanted} address: the slice's addressType is {wanted}")),
        );
        return None;
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    // Neither another node nor a connection to a VIP could reach it.
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        cx.report(item.error(format!(
            "{address} is unspecified, loopback, link-local or multicast, and can be no endpoint"
        )));
        return None;
    }
    Some(Host::Ip(address))
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
