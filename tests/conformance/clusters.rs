//! What cases call things: outbounds, ports of objects, clusters.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use balancer_user::{
    policy::{ServiceKind, Tags},
    resolve::{Destination, Names, Resolver, objects::Objects},
};
use serde_json::Value;

use crate::{
    outcome::NOWHERE,
    resources::{array, number, text},
    said::Meaning,
};

/// Where an outbound is dialled.
pub(crate) fn address(outbound: &Value) -> Result<SocketAddr, String> {
    let address = text(&outbound["address"]).unwrap_or_else(|| "127.0.0.1".to_owned());
    let ip: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let port = number(&outbound["port"]).and_then(|port| u16::try_from(port).ok());
    Ok(SocketAddr::new(ip, port.ok_or("an outbound without port")?))
}

/// A kind of object that stands for a service.
pub(crate) fn service_kind(name: &str) -> Option<ServiceKind> {
    match name {
        "MeshService" => Some(ServiceKind::MeshService),
        "MeshExternalService" => Some(ServiceKind::MeshExternalService),
        "MeshMultiZoneService" => Some(ServiceKind::MeshMultiZoneService),
        _ => None,
    }
}

/// The object's port that an outbound names, and its protocol.
pub(crate) fn object_port<'o>(
    outbound: &Value,
    objects: &'o Objects<'_>,
) -> Result<(Destination, &'o str), String> {
    let (reference, section) = match outbound["backendRef"].is_object() {
        true => (&outbound["backendRef"], number(&outbound["backendRef"]["port"])),
        false => (&outbound["resource"], None),
    };
    let kind = text(&reference["type"]).or(text(&reference["kind"]));
    let kind = kind.as_deref().and_then(service_kind).ok_or("an outbound to nothing")?;
    let section = section.map(|port| port.to_string()).or(text(&reference["sectionName"]));
    port(objects, kind, &text(&reference["name"]).unwrap_or_default(), section.as_deref())
}

/// A port of an object of the case, and its protocol.
fn port<'o>(
    objects: &'o Objects<'_>,
    kind: ServiceKind,
    name: &str,
    section: Option<&str>,
) -> Result<(Destination, &'o str), String> {
    let missing = || format!("no {kind:?} {name} with a port {section:?}");
    let object = objects.named("default", kind, name).ok_or_else(missing)?;
    let number = match section.filter(|section| !section.is_empty()) {
        None => object.ports.first().map(|port| port.number),
        Some(section) => object.section(section),
    };
    let port = object.ports.iter().find(|port| Some(port.number) == number).ok_or_else(missing)?;
    Ok((Destination::port("default", kind, name, port.number), port.protocol))
}

/// What a cluster stands for: an object's port, or endpoints.
pub(crate) fn meaning(
    case: &Value,
    name: &str,
    resolver: &Resolver<'_>,
) -> Result<Meaning, String> {
    let cluster = &case["clusters"][name];
    let object = |kind, name: &str, section: Option<&str>| {
        let (destination, _) = port(&resolver.objects, kind, name, section)?;
        let called = format!("{} by roundRobin", destination.called());
        let named = !resolver.inventory.outside_names(&destination, &Tags::new()).is_empty();
        Ok(Meaning { called, named })
    };
    let means = &cluster["means"];
    if let Some(kind) = text(&means["kind"]).as_deref().and_then(service_kind) {
        let section = text(&means["port_or_section"]);
        return object(kind, &text(&means["name"]).unwrap_or_default(), section.as_deref());
    }
    // What Kuma 2.7 calls the port of a MeshService is all that the case says of it.
    if let Some((service, number)) = name.rsplit_once("_svc_")
        && resolver.objects.named("default", ServiceKind::MeshService, service).is_some()
    {
        return object(ServiceKind::MeshService, service, Some(number));
    }
    // Where the cluster has none, they are those of the service that it is named after.
    let own = &cluster["endpoints"];
    let listed = if own.is_array() { own } else { &case["services"][name]["endpoints"] };
    endpoints_meant(array(listed), "roundRobin", &resolver.settings.names)
}

/// A service by its endpoints.
pub(crate) fn endpoints_meant(
    listed: &[Value],
    balancing: &str,
    names: &Names,
) -> Result<Meaning, String> {
    let mut endpoints = BTreeSet::new();
    let mut named = false;
    for endpoint in listed {
        let host = text(&endpoint["address"]).unwrap_or_default();
        let mut endpoint = endpoint.clone();
        if let [ip] = names.of(&host) {
            endpoint["address"] = ip.to_string().into();
            named = true;
        }
        endpoints.insert(address(&endpoint)?);
    }
    let all: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let called = match all.is_empty() {
        true => NOWHERE.to_owned(),
        false => format!("{} by {balancing}", all.join(" ")),
    };
    Ok(Meaning { called, named })
}
