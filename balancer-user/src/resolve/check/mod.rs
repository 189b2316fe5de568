//! Findings that need no routes: what cannot be carried out, and what leads nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    Names,
    findings::{Findings, outbound_field},
    http::{self, Refused},
    inventory::{Inventory, MESH_TAG, Protocol, endpoint_addresses},
    precedence::MeshPolicies,
    selection::ANY,
    split::{http_splits, outer_split},
};
use crate::policy::{
    Dataplane, Diagnostic, Host, PROTOCOL_TAG, PolicySet, SERVICE_TAG, SplitEntry, Tags,
    TrafficRoute, suggest::suggest,
};

mod objects;
mod reach;
mod wildcards;

pub(super) use objects::{mesh_service, objects};
pub(super) use reach::routes;
pub(super) use wildcards::{has_tag, sources, wildcards};

/// Addresses of Dataplanes that cannot be used as they stand.
pub(super) fn dataplanes<'a>(
    dataplanes: &[&'a Dataplane],
    names: &Names,
    findings: &mut Findings<'a>,
) {
    for dataplane in dataplanes {
        let meta = &dataplane.meta;
        // Names without an answer are reported elsewhere, once for all inbounds.
        for (index, inbound) in dataplane.inbounds.iter().enumerate() {
            let field = || format!("networking.inbound[{index}]");
            let named = matches!(dataplane.advertised, Some(Host::Name(_)))
                || (inbound.address.is_none() && matches!(dataplane.address, Host::Name(_)));
            match endpoint_addresses(dataplane, inbound, names)
                .find(|addr| addr.ip().is_loopback())
                .or_else(|| endpoint_addresses(dataplane, inbound, names).next())
            {
                None if !named => findings.add(
                    meta,
                    Diagnostic::warning(
                        field(),
                        "nobody can dial the address of this inbound, so it is no endpoint",
                    )
                    .at(inbound.span)
                    .hint("give it the address of the workload"),
                ),
                Some(addr) if addr.ip().is_loopback() => findings.add(
                    meta,
                    Diagnostic::warning(
                        field(),
                        format!(
                            "{addr} is a loopback address: connections sent there do not arrive"
                        ),
                    )
                    .at(inbound.span)
                    .hint("give it the address of the workload"),
                ),
                _ => {}
            }
        }
        for outbound in dataplane.outbounds.iter().filter(|o| o.tags.contains_key(MESH_TAG)) {
            findings.add(meta, Diagnostic::warning(format!("{}.tags[\"{MESH_TAG}\"]", outbound_field(outbound)), "outbounds to other meshes are not carried out: the service is looked up in the \
                 Dataplane's own mesh").at(outbound.span));
        }
    }
}

/// Resources whose mesh is none of those given. A set without any Mesh is taken as it is.
pub(super) fn meshes<'a>(set: &'a PolicySet, findings: &mut Findings<'a>) {
    let known: BTreeSet<&str> = set.meshes.iter().map(|mesh| mesh.meta.name.as_str()).collect();
    if known.is_empty() {
        return;
    }
    let dataplanes = set.dataplanes.iter().map(|dataplane| &dataplane.meta);
    let routes = set.traffic_routes.iter().map(|route| &route.meta);
    let mesh_tcp = set.mesh_tcp_routes.iter().map(|route| &route.meta);
    let services = set.mesh_services.iter().map(|service| &service.meta);
    let multi_zone = set.mesh_multi_zone_services.iter().map(|service| &service.meta);
    let external = set.mesh_external_services.iter().map(|service| &service.meta);
    let by_tag = set.external_services.iter().map(|service| &service.meta);
    let of_meshes = dataplanes.chain(routes).chain(mesh_tcp).chain(services).chain(multi_zone);
    let of_meshes = of_meshes.chain(external).chain(by_tag);
    for meta in of_meshes.filter(|meta| !known.contains(meta.mesh.as_str())) {
        findings.add(
            meta,
            with_hint(
                Diagnostic::warning(
                    "mesh",
                    format!(
                        "no Mesh is named `{}`; given are {}",
                        meta.mesh,
                        known.iter().copied().collect::<Vec<_>>().join(", ")
                    ),
                )
                .at(meta.span),
                did_you_mean(&meta.mesh, known.iter().copied()),
            ),
        );
    }
}

/// Splits that lead nowhere, and http sections that could match nothing.
pub(super) fn traffic_routes<'a>(
    inventory: &Inventory<'a>,
    policies: &BTreeMap<&'a str, MeshPolicies<'a>>,
    findings: &mut Findings<'a>,
) {
    for (mesh, policies) in policies {
        for route in policies.routes() {
            for entry in outer_split(&route.conf).iter().filter(|entry| entry.weight > 0) {
                split_entry(mesh, route, (entry, Share::OfConnections), inventory, findings);
            }
            for entry in http_splits(&route.conf).filter(|entry| entry.weight > 0) {
                split_entry(mesh, route, (entry, Share::OfRequests), inventory, findings);
            }
            if !route.conf.http.is_empty() {
                http_section(mesh, route, inventory, findings);
            }
        }
    }
}

/// A destination that no endpoint can serve, whatever the outbound. With a wildcard it depends
/// on the outbound, so nothing is said here.
fn split_entry<'a>(
    mesh: &str,
    route: &'a TrafficRoute,
    (entry, share): (&SplitEntry, Share),
    inventory: &Inventory<'a>,
    findings: &mut Findings<'a>,
) {
    let Some(name) = entry.destination.get(SERVICE_TAG).filter(|name| *name != ANY) else { return };
    let wanted: Tags = entry
        .destination
        .iter()
        .filter(|(key, value)| *key != SERVICE_TAG && *key != MESH_TAG && *value != ANY)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let service_field = format!("{}[\"{SERVICE_TAG}\"]", entry.field);
    let fields = (service_field.as_str(), entry.field.as_str());
    let found = nowhere(inventory, mesh, name, &wanted, fields, share);
    if let Some(found) = found {
        findings.add(&route.meta, found.at(entry.span));
    }
}

/// What a share is of, and so what comes of it where nobody serves it (decision D10).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    OfConnections,
    OfRequests,
}

impl Share {
    /// `exists`: the service that it goes to does.
    fn lost(self, exists: bool) -> &'static str {
        match self {
            Self::OfConnections => "its share of the connections is refused",
            Self::OfRequests if exists => "its share of the requests is answered with 503",
            Self::OfRequests => "its share of the requests is answered with 500",
        }
    }
}

/// Why no endpoint of `mesh` can serve a share of connections that goes to endpoints of a service
/// with these tags; `None` where one can. The first field is that of the service's name, the second
/// that of the whole destination.
pub(super) fn subset(
    inventory: &Inventory<'_>,
    mesh: &str,
    name: &str,
    wanted: &Tags,
    fields: (&str, &str),
) -> Option<Diagnostic> {
    nowhere(inventory, mesh, name, wanted, fields, Share::OfConnections)
}

fn nowhere(
    inventory: &Inventory<'_>,
    mesh: &str,
    name: &str,
    wanted: &Tags,
    (service_field, field): (&str, &str),
    share: Share,
) -> Option<Diagnostic> {
    let refused = share.lost(inventory.service(mesh, name).is_some());
    let Some(service) = inventory.service(mesh, name) else {
        let known = inventory.services().filter(|(of, ..)| *of == mesh).map(|(_, name, _)| name);
        let message = format!("no Dataplane of mesh {mesh} offers service `{name}`: {refused}");
        let found = Diagnostic::warning(service_field.to_owned(), message);
        return Some(with_hint(found, did_you_mean(name, known)));
    };
    // Endpoints that only lack an answer or the right to plain bytes are reported where they are
    // given.
    if !service.waiting.is_empty() || service.refused(wanted) {
        return None;
    }
    let tagged = |tags: &Tags| wanted.iter().all(|(key, value)| tags.get(key) == Some(value));
    let mut matching = service.endpoints.iter().filter(|endpoint| tagged(endpoint.tags)).peekable();
    let (what, hint) = if matching.peek().is_some() {
        if matching.any(|endpoint| endpoint.ready) {
            return None;
        }
        ("ready endpoint", None)
    } else if service.endpoints.is_empty() {
        ("endpoint", None)
    } else {
        ("endpoint", Some(values_there(service.endpoints.iter().map(|e| e.tags), wanted)))
    };
    let with = match tags_text(wanted) {
        text if text.is_empty() => String::new(),
        text => format!(" with {text}"),
    };
    let message = format!("service `{name}` has no {what}{with}: {refused}");
    Some(with_hint(Diagnostic::warning(field.to_owned(), message), hint))
}

/// "its endpoints have version=v1, version=v2": the values of the keys that were asked for.
fn values_there<'t>(endpoints: impl Iterator<Item = &'t Tags>, wanted: &Tags) -> String {
    let values: BTreeSet<String> = endpoints
        .flat_map(|tags| tags.iter().filter(|(key, _)| wanted.contains_key(*key)))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if values.is_empty() {
        let keys: Vec<&str> = wanted.keys().map(String::as_str).collect();
        return format!("its endpoints have no tag {}", keys.join(", "));
    }
    format!("its endpoints have {}", values.into_iter().collect::<Vec<_>>().join(", "))
}

/// `k=v,k=v`.
pub fn tags_text(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn http_section<'a>(
    mesh: &str,
    route: &'a TrafficRoute,
    inventory: &Inventory<'a>,
    findings: &mut Findings<'a>,
) {
    let span = route.conf.http_span.unwrap_or(route.meta.span);
    match http::traffic_route::rules_alone(&route.conf) {
        Ok(rules) => reach::traffic_route(route, &rules, findings),
        Err(refused) => {
            let error = |Refused { field, why }| Diagnostic::error(field, why).at(span);
            findings.extend(&route.meta, refused.into_iter().map(error));
        }
    }
    for name in &route.destinations {
        let Some(NotHttp { protocol, untagged }) = not_http(mesh, name, inventory) else {
            continue;
        };
        findings.add(&route.meta, with_hint(Diagnostic::warning("conf.http", format!(
                "service `{name}` is handled as {}, so the http section has no effect on it",
                protocol.name()
            )).at(span), untagged.map(|addr| {
                format!("{addr} has no tag {PROTOCOL_TAG}; every endpoint needs it")
            })));
    }
}

/// A service with ready endpoints that does not speak HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotHttp {
    protocol: Protocol,
    /// A ready endpoint that does not say what it speaks.
    untagged: Option<SocketAddr>,
}

/// Whether http sections have no effect on a service.
pub(super) fn not_http(mesh: &str, name: &str, inventory: &Inventory<'_>) -> Option<NotHttp> {
    let service = inventory.service(mesh, name)?;
    let mut ready = service.endpoints.iter().filter(|endpoint| endpoint.ready).peekable();
    if ready.peek().is_none() || service.protocol().is_http_like() {
        return None;
    }
    let untagged = ready.find(|endpoint| !endpoint.tags.contains_key(PROTOCOL_TAG));
    Some(NotHttp { protocol: service.protocol(), untagged: untagged.map(|endpoint| endpoint.addr) })
}

pub(super) fn did_you_mean<'n>(
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<String> {
    let close = suggest(name, known);
    (!close.is_empty()).then(|| format!("did you mean {}", close.join(" or ")))
}

pub(super) fn with_hint(diagnostic: Diagnostic, hint: Option<String>) -> Diagnostic {
    Diagnostic { hint, ..diagnostic }
}
