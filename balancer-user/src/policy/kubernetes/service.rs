//! `Service` of `v1`.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Service, ServiceKind, ServicePort, TargetPort, Transport, address, transport};
use crate::policy::{
    Diagnostic, Meta,
    fields::{Context, Field, Fields},
    names, object,
    scalar::{Meaning, meaning},
    yaml::{Scalar, Value},
};

/// Seconds that a client keeps its endpoint where nothing is written: three hours.
pub(in crate::policy) const AFFINITY_SECONDS: u32 = 10_800;
/// Most seconds that it can: a day.
pub(in crate::policy) const AFFINITY_SECONDS_MAX: u32 = 86_400;
/// `type`.
pub(in crate::policy) const TYPES: &[&str] =
    &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
/// `internalTrafficPolicy`.
pub(in crate::policy) const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
/// `sessionAffinity`.
pub(in crate::policy) const AFFINITIES: &[&str] = &["ClientIP", "None"];

/// Fields that have no effect on routing.
pub(in crate::policy) const WITHOUT_EFFECT: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    // The cluster marks endpoints of such a Service as ready in its EndpointSlices.
    "publishNotReadyAddresses",
];

/// Reads a Service. `None`: it has an error.
pub(in crate::policy) fn service(
    cx: &mut Context<'_>,
    meta: Meta,
    root: Fields<'_>,
) -> Option<Service> {
    let mut spec = object::spec(cx, root)?;
    let type_field = spec.take(cx, "type");
    let name_field = spec.take(cx, "externalName");
    let kind = kind(cx, &spec, type_field.as_ref(), name_field.as_ref());
    let addresses = addresses(cx, &mut spec);
    let headless = addresses.as_ref().is_some_and(|addresses| addresses.headless);
    if let (Some(kind), Some(addresses)) = (&kind, &addresses) {
        fits(cx, kind, addresses, type_field.as_ref());
    }

    let ports_field = spec.take(cx, "ports");
    let ports = match &ports_field {
        Some(field) => ports(cx, field),
        None => Some(Vec::new()),
    };
    let needs_ports = !headless && !matches!(kind, Some(ServiceKind::ExternalName(_)) | None);
    if needs_ports && ports.as_ref().is_some_and(Vec::is_empty) {
        let finding = match &ports_field {
            Some(field) => field.error("must have at least one port"),
            None => spec.missing("ports", "must have at least one port"),
        };
        cx.report(finding.hint("only headless and ExternalName Services may have none"));
    }
    let affinity = affinity(cx, &mut spec);

    if let Some(field) = spec.take(cx, "selector") {
        names::labels(cx, &field);
    }
    spec.not_carried_out(cx, "externalIPs", "what goes to these addresses passes untouched");
    if let Some(field) = spec.take(cx, "internalTrafficPolicy")
        && field.one_of(cx, TRAFFIC_POLICIES) == Some("Local")
    {
        cx.report(field.warning("Local is not carried out yet: endpoints of every node are used"));
    }
    spec.not_carried_out(cx, "trafficDistribution", "endpoints of every zone are used alike");
    spec.without_effect(WITHOUT_EFFECT);
    spec.finish(cx);
    let Addresses { cluster_ips, headless, .. } = addresses?;
    Some(Service {
        meta,
        kind: kind?,
        cluster_ips,
        headless,
        ports: ports?,
        affinity_seconds: affinity?,
    })
}

fn kind(
    cx: &mut Context<'_>,
    spec: &Fields<'_>,
    field: Option<&Field<'_>>,
    name: Option<&Field<'_>>,
) -> Option<ServiceKind> {
    let word = match field {
        Some(field) => field.one_of(cx, TYPES)?,
        None => "ClusterIP",
    };
    Some(match word {
        "ExternalName" => {
            let Some(name) = name else {
                cx.report(
                    spec.missing("externalName", "a Service of type ExternalName must have it"),
                );
                return None;
            };
            let name = names::subdomain(cx, name)?;
            return Some(ServiceKind::ExternalName(name));
        }
        "NodePort" => ServiceKind::NodePort,
        "LoadBalancer" => ServiceKind::LoadBalancer,
        _ => ServiceKind::ClusterIp,
    })
    .inspect(|kind| {
        if let (Some(field), ServiceKind::NodePort | ServiceKind::LoadBalancer) = (field, kind) {
            cx.report(field.warning(format!(
                "of a {word} only the cluster addresses are carried out: what comes to ports of \
                 nodes or to a load balancer's address passes untouched"
            )));
        }
        if let Some(name) = name {
            cx.report(
                Diagnostic::warning(
                    name.path.clone(),
                    "has no effect: the type is not ExternalName",
                )
                .at(name.key_span),
            );
        }
    })
}

/// `clusterIP` and `clusterIPs`.
struct Addresses<'n> {
    cluster_ips: Vec<IpAddr>,
    headless: bool,
    /// The field that says so, for findings.
    field: Option<Field<'n>>,
}

fn addresses<'n>(cx: &mut Context<'_>, spec: &mut Fields<'n>) -> Option<Addresses<'n>> {
    let single = spec.take(cx, "clusterIP");
    let list = spec.take(cx, "clusterIPs");
    let errors = cx.errors();
    let first = single.as_ref().map(|field| (field.string(cx).unwrap_or_default(), field));
    let mut words: Vec<(&str, Field<'n>)> = Vec::new();
    if let Some(list) = &list {
        for item in object::items(cx, list, 2)? {
            let text = item.string(cx)?;
            words.push((text, item));
        }
        if let (Some((text, field)), Some((other, at))) = (first, words.first())
            && text != *other
        {
            cx.report(
                at.error(format!("must be the same as clusterIP, which is `{text}`"))
                    .related(field.node.span, "clusterIP is here"),
            );
        }
    }
    if let Some((text, field)) = first.filter(|_| words.is_empty()) {
        words.push((text, field.clone()));
    }
    let field = single.or(list);
    // An empty string is what a Service has that is still to get its address.
    words.retain(|(text, _)| !text.is_empty());
    let headless = words.iter().any(|(text, _)| *text == "None");
    if headless {
        if let Some((_, at)) = words.get(1) {
            cx.report(at.error("`None` cannot stand beside another address"));
        }
        return (cx.errors() == errors).then_some(Addresses {
            cluster_ips: Vec::new(),
            headless,
            field,
        });
    }
    let mut cluster_ips: Vec<IpAddr> = Vec::new();
    for (_, at) in &words {
        let Some(address) = address(cx, at, "a cluster address") else { continue };
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            cx.report(at.error(format!("{address} cannot be the address of a Service")));
        } else if cluster_ips.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            cx.report(at.error("the two addresses must be of different families"));
        } else {
            cluster_ips.push(address);
        }
    }
    (cx.errors() == errors).then_some(Addresses { cluster_ips, headless, field })
}

/// Which addresses a Service of a type may have.
fn fits(
    cx: &mut Context<'_>,
    kind: &ServiceKind,
    addresses: &Addresses<'_>,
    at: Option<&Field<'_>>,
) {
    let Some(field) = &addresses.field else { return };
    let message = match kind {
        ServiceKind::ExternalName(_) if addresses.headless || !addresses.cluster_ips.is_empty() => {
            "a Service of type ExternalName has no cluster address"
        }
        ServiceKind::NodePort | ServiceKind::LoadBalancer if addresses.headless => {
            "a Service of type NodePort or LoadBalancer cannot be headless"
        }
        _ => return,
    };
    let finding = field.error(message);
    cx.report(match at {
        Some(at) => finding.related(at.node.span, "the type is here"),
        None => finding,
    });
}

fn ports(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<ServicePort>> {
    let items = field.items(cx)?;
    let mut ports = Vec::new();
    let mut names_seen = BTreeMap::new();
    let mut numbers_seen = BTreeMap::new();
    for item in &items {
        let Some(port) = port(cx, item, items.len() > 1) else { continue };
        if !port.name.is_empty()
            && let Some(first) = names_seen.insert(port.name.clone(), port.span)
        {
            let what = format!("ports named `{}`", port.name);
            cx.report(object::twice(format!("{}.name", item.path), &what, (port.span, first)));
        }
        if let Some(first) = numbers_seen.insert((port.port, port.protocol), port.span) {
            let what = format!("ports {} of one protocol", port.port);
            cx.report(object::twice(format!("{}.port", item.path), &what, (port.span, first)));
        }
        ports.push(port);
    }
    (ports.len() == items.len()).then_some(ports)
}

fn port(cx: &mut Context<'_>, item: &Field<'_>, named: bool) -> Option<ServicePort> {
    let mut fields = item.fields(cx)?;
    let name_field = fields.take(cx, "name");
    // An empty name is no name.
    let name = match name_field.filter(Field::is_set) {
        Some(field) => names::label(cx, &field),
        None if named => {
            cx.report(
                fields
                    .missing("name", "must be given where a Service has several ports")
                    .hint("EndpointSlices name their ports so"),
            );
            None
        }
        None => Some(String::new()),
    };
    let protocol_field = fields.take(cx, "protocol");
    let protocol = transport(cx, protocol_field.as_ref());
    let port = object::required(cx, &mut fields, "port").and_then(|field| field.port(cx));
    let target = match fields.take(cx, "targetPort") {
        Some(field) => target(cx, &field),
        None => port.map(TargetPort::Number),
    };
    let app_protocol = fields.take(cx, "appProtocol").map(|field| app_protocol(cx, &field));
    if let (Some(field), Some(Transport::Sctp)) = (&protocol_field, protocol) {
        cx.report(field.warning("SCTP is not carried: what is sent to this port passes untouched"));
    }
    fields.without_effect(&["nodePort"]);
    fields.finish(cx);
    Some(ServicePort {
        span: item.node.span,
        name: name?,
        protocol: protocol?,
        port: port?,
        target: target?,
        app_protocol: match app_protocol {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

/// `targetPort`: a number, or the name of a port.
fn target(cx: &mut Context<'_>, field: &Field<'_>) -> Option<TargetPort> {
    match &field.node.value {
        Value::Scalar(Scalar { text, plain: true }) if meaning(text) == Meaning::Integer => {
            field.port(cx).map(TargetPort::Number)
        }
        Value::Scalar(Scalar { text, plain: false }) if text.parse::<u16>().is_ok() => {
            cx.report(
                field
                    .error("a port number must not be quoted: in quotes it is the name of a port, and needs a letter")
                    .hint(format!("write targetPort: {text}")),
            );
            None
        }
        _ => names::service_name(cx, field).map(TargetPort::Name),
    }
}

/// `appProtocol`, which EndpointSlices have too.
pub(super) fn app_protocol(cx: &mut Context<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.string(cx)?;
    if !names::is_qualified(text) {
        cx.report(
            field
                .error("must be a protocol's name, a domain and '/' may stand before it")
                .hint("e.g. http, kubernetes.io/h2c, example.com/protocol"),
        );
        return None;
    }
    Some(text.to_owned())
}

/// `sessionAffinity` and its timeout. `None`: it has an error.
fn affinity(cx: &mut Context<'_>, spec: &mut Fields<'_>) -> Option<Option<u32>> {
    let config = spec.take(cx, "sessionAffinityConfig");
    let mut seconds = Some(AFFINITY_SECONDS);
    if let Some(config) = &config {
        let mut fields = config.fields(cx)?;
        if let Some(client) = fields.take(cx, "clientIP") {
            let mut client = client.fields(cx)?;
            if let Some(field) = client.take(cx, "timeoutSeconds") {
                seconds = field.u32(cx);
                if seconds.is_some_and(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)) {
                    cx.report(field.error(format!("must be 1 to {AFFINITY_SECONDS_MAX} seconds")));
                    seconds = None;
                }
            }
            client.finish(cx);
        }
        fields.finish(cx);
    }
    let by_client = match spec.take(cx, "sessionAffinity") {
        Some(field) => {
            let by_client = field.one_of(cx, AFFINITIES)? == "ClientIP";
            if by_client && let Some(seconds) = seconds {
                cx.report(field.warning(format!(
                    "ClientIP (for {seconds} s) is not carried out yet: every connection is balanced by itself"
                )));
            }
            by_client
        }
        None => false,
    };
    if let Some(config) = config.filter(|_| !by_client) {
        cx.report(config.error("must not be given where sessionAffinity is not ClientIP"));
    }
    Some(if by_client { Some(seconds?) } else { None })
}

impl ServicePort {
    /// Whether it is a port of TCP. TCPRoutes attach to no others.
    pub fn is_tcp(&self) -> bool {
        self.protocol == Transport::Tcp
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
