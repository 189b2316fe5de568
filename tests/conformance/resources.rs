//! Resources as cases state them: whole documents, and proxies cut down to what matters.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use balancer_user::policy::{
    self, Dataplane, Host, Inbound, Meta, Outbound, PolicySet, ReadOptions, Reading, SERVICE_TAG,
    SourceText, Span, Tags, TrafficRoute, TrafficRouteConf,
};
use serde_json::{Value, json};

pub(crate) fn traffic_routes(resources: &[Value]) -> Result<Vec<TrafficRoute>, String> {
    let of_kind = |r: &&Value| text(&r["type"]).as_deref() == Some("TrafficRoute");
    resources.iter().filter(of_kind).map(traffic_route).collect()
}

fn reading(documents: &[Value]) -> Reading {
    let body: Vec<String> = documents.iter().map(Value::to_string).collect();
    let text = SourceText { name: "case".to_owned(), text: body.join("\n---\n").into() };
    policy::read(vec![text], &ReadOptions::default())
}

/// The fields for which documents are refused, each once.
pub(crate) fn refused(documents: &[Value]) -> BTreeSet<String> {
    let reading = reading(documents);
    let errors = reading.report.violations().filter(|finding| finding.is_error());
    errors.map(|finding| finding.field.clone()).collect()
}

/// Documents as the policy room reads them.
pub(crate) fn read(documents: &[Value]) -> Result<PolicySet, String> {
    let reading = reading(documents);
    let errors: Vec<String> = reading
        .report
        .violations()
        .filter(|finding| finding.is_error())
        .map(|finding| format!("{}: {}", finding.field, finding.message))
        .collect();
    if errors.is_empty() { Ok(reading.set) } else { Err(errors.join("; ")) }
}

/// A TrafficRoute as the policy room reads it. The creation time stands in a field of the case's.
pub(crate) fn traffic_route(resource: &Value) -> Result<TrafficRoute, String> {
    let mut document = resource.clone();
    let created = document
        .as_object_mut()
        .and_then(|fields| fields.remove("creationTimeUnix"))
        .and_then(|seconds| seconds.as_f64());
    let mut set = read(std::slice::from_ref(&document))
        .map_err(|errors| format!("{document} is refused: {errors}"))?;
    let route = set.traffic_routes.pop_back().map(Arc::unwrap_or_clone);
    let mut route = route.ok_or_else(|| format!("{document} is no TrafficRoute"))?;
    route.meta.created = created.or(route.meta.created);
    Ok(route)
}

pub(crate) fn read_conf(conf: &Value) -> Result<TrafficRouteConf, String> {
    let any = json!([{"match": {SERVICE_TAG: "*"}}]);
    let whole = json!({
        "type": "TrafficRoute", "mesh": "default", "name": "conf",
        "sources": any, "destinations": any, "conf": conf
    });
    Ok(traffic_route(&whole)?.conf)
}

/// The proxy of a case. Cases leave out what does not matter to them, addresses and ports among
/// it, so it is taken as it is and not validated.
pub(crate) fn dataplane(stated: &Value, address: Ipv4Addr) -> Result<Dataplane, String> {
    let name = text(&stated["name"]).unwrap_or_else(|| "source".to_owned());
    let networking = &stated["networking"];
    let mut inbounds = Vec::new();
    for (index, inbound) in array(&networking["inbound"]).iter().enumerate() {
        inbounds.push(Inbound {
            span: Span::default(),
            address: None,
            port: port(&inbound["port"], 8080 + index as u16)?,
            name: text(&inbound["name"]),
            service_address: None,
            service_port: None,
            tags: tags(&inbound["tags"])?,
            ready: is_ready(inbound),
        });
    }
    let mut outbounds = Vec::new();
    for (index, outbound) in (0..).zip(array(&networking["outbound"])) {
        let address = text(&outbound["address"]).unwrap_or_else(|| "127.0.0.1".to_owned());
        outbounds.push(Outbound {
            span: Span::default(),
            index,
            address: address.parse().map_err(|_| format!("{address} is no address"))?,
            port: port(&outbound["port"], 0)?,
            tags: tags(&outbound["tags"])?,
        });
    }
    let gateway = match &networking["gateway"]["tags"] {
        Value::Null => None,
        of => Some(tags(of)?),
    };
    let meta = Meta {
        kind: "Dataplane",
        mesh: text(&stated["mesh"]).unwrap_or_else(|| "default".to_owned()),
        namespace: None,
        display_name: name.clone(),
        name,
        labels: tags(&stated["labels"])?,
        created: None,
        item: 0,
        span: Span::default(),
    };
    let address = Host::Ip(IpAddr::V4(address));
    let (advertised, referring) = (None, Vec::new());
    Ok(Dataplane { meta, address, advertised, inbounds, gateway, outbounds, referring })
}

/// Semantics 2.3.
fn is_ready(inbound: &Value) -> bool {
    let state = text(&inbound["state"]);
    let health = &inbound["health"];
    state.is_none_or(|state| state == "Ready") && (health.is_null() || health["ready"] == true)
}

pub(crate) fn dialled(outbound: &Outbound) -> SocketAddr {
    SocketAddr::new(outbound.address, outbound.port.get())
}

fn port(value: &Value, absent: u16) -> Result<std::num::NonZeroU16, String> {
    let port = number(value).map_or(Ok(absent), u16::try_from);
    port.ok().and_then(|port| port.try_into().ok()).ok_or_else(|| format!("{value} is no port"))
}

pub(crate) fn tags(value: &Value) -> Result<Tags, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter(|(_, value)| !value.is_boolean())
        .map(|(key, value)| Ok((key.clone(), text(value).ok_or(format!("tag {key} is no text"))?)))
        .collect()
}

pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
