//! Family `outbounds` of MeshHTTPRoute and MeshTCPRoute: the route of every outbound, given the
//! rules that are left when policies have been matched and merged.
//!
//! Such rules are handed to resolution as policies for everybody, each for one destination, and
//! what is resolved is the whole set: so the same code decides as for policies that people write.
//! What a case leaves out is added: a VIP and an endpoint to each object (cases give those of
//! opaque services only), an address to each host name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use balancer_user::{
    policy::{Outbound, PROTOCOL_TAG, PolicySet, SERVICE_TAG, ServiceKind, Span, Tags},
    resolve::{
        Destination, ResolveSettings, Resolved, Resolver, Route,
        inventory::{Family, Protocol},
        objects::Objects,
        resolve,
    },
};
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    clusters::{address, meaning, object_port, service_kind},
    listeners::{Leave, compare},
    resources::{array, dataplane, read, tags, text},
    routing::settings,
    said::Said,
};

/// The workload of the case; no endpoint has this address.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// An outbound of a case.
struct Dialled {
    /// As the case calls it: address and port.
    name: String,
    /// Where it is dialled here.
    addr: SocketAddr,
    destination: Destination,
    /// Its tags; none where it names an object.
    tags: Tags,
    protocol: Protocol,
    /// The rule of each kind that speaks of it.
    http: Option<Value>,
    tcp: Option<Value>,
}

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    let part = text(&case["policy_kind"]).ok_or("no policy_kind")?;
    let mut settings = ResolveSettings { allow_plain: true, ..settings() };
    let documents = objects(case, &mut settings)?;
    let bare = read(&documents)?;
    let outbounds = outbounds(case, &Objects::new(&bare))?;
    let set = world(case, &documents, &outbounds, &mut settings)?;
    let resolved = resolve(&set, &settings);
    let resolver = Resolver::new(&set, &settings);
    let means = |name: &str| meaning(case, name, &resolver);
    let leave = Leave::of(case);

    let mut expected: BTreeMap<String, &Value> = array(&case["expected"])
        .iter()
        .map(|listener| Ok((address(&listener["outbound"])?.to_string(), listener)))
        .collect::<Result<_, String>>()?;
    let mut decided = None;
    for outbound in &outbounds {
        // Semantics 4.7: the others are made by the other kind.
        let by_http =
            outbound.protocol.is_http_like() && (outbound.http.is_some() || outbound.tcp.is_none());
        let Some(listener) = expected.remove(&outbound.name) else {
            if by_http == (part == "MeshHTTPRoute") {
                return Ok(Verdict::Failed {
                    expected: format!("no listener for {}", outbound.name),
                    found: format!("one, which {part}s decide about"),
                });
            }
            continue;
        };
        if by_http != (part == "MeshHTTPRoute") {
            return Ok(Verdict::Failed {
                expected: format!("{} is made by {part}s", outbound.name),
                found: "it is made by the other kind".to_owned(),
            });
        }
        let said = Said::read(listener, &means)?;
        let route = route(&resolved, outbound)?;
        match compare(&outbound.name, &said, route, &resolver.inventory, leave)? {
            Verdict::Passed => {}
            Verdict::Decided(decision) => decided = Some(decision),
            other => return Ok(other),
        }
    }
    match expected.keys().next() {
        Some(unknown) => Err(format!("a listener for {unknown}, which is no outbound")),
        None => Ok(decided.map_or(Verdict::Passed, Verdict::Decided)),
    }
}

/// The case's objects that stand for services, each with an endpoint of its own.
fn objects(case: &Value, settings: &mut ResolveSettings) -> Result<Vec<Value>, String> {
    let mut documents = Vec::new();
    let mut pods = Vec::new();
    for object in array(&case["resources"]) {
        let Some(kind) = text(&object["type"]).as_deref().and_then(service_kind) else { continue };
        let mut object = object.clone();
        let name = text(&object["name"]).ok_or("an object without a name")?;
        for port in ports_of(&mut object) {
            // Kuma 2.7 calls it so.
            if let Some(protocol) = port["protocol"].as_str().map(str::to_owned)
                && let Some(fields) = port.as_object_mut()
            {
                fields.remove("protocol");
                fields.insert("appProtocol".to_owned(), protocol.into());
            }
        }
        match kind {
            ServiceKind::MeshService => {
                let pod = format!("pod-{}", pods.len());
                let address = Ipv4Addr::from_bits(0x0a80_0001 + pods.len() as u32);
                let mut inbounds = Vec::new();
                for port in ports_of(&mut object) {
                    if port["targetPort"].is_null() {
                        port["targetPort"] = port["port"].clone();
                    }
                    let at = 8000 + inbounds.len();
                    inbounds.push(match text(&port["targetPort"]) {
                        Some(named) => json!({"name": named, "port": at}),
                        None => json!({"port": port["targetPort"]}),
                    });
                }
                for inbound in &mut inbounds {
                    inbound["tags"] = json!({SERVICE_TAG: pod});
                }
                object["spec"]["selector"] = json!({"dataplaneRef": {"name": pod}});
                pods.push(json!({
                    "type": "Dataplane", "mesh": object["mesh"], "name": pod,
                    "networking": {"address": address.to_string(), "inbound": inbounds}
                }));
            }
            ServiceKind::MeshExternalService => {
                if array(&object["spec"]["endpoints"]).is_empty() {
                    let port = object["spec"]["match"]["port"].clone();
                    object["spec"]["endpoints"] = json!([{"address": "192.0.2.1", "port": port}]);
                }
                for endpoint in array(&object["spec"]["endpoints"]) {
                    if let Some(host) = text(&endpoint["address"])
                        && host.parse::<IpAddr>().is_err()
                    {
                        settings.names.insert(&host, [IpAddr::from([192, 0, 2, 2])], None);
                    }
                }
            }
            ServiceKind::MeshMultiZoneService => {}
        }
        let vip = json!(format!("198.19.0.{}", documents.len()));
        match kind {
            ServiceKind::MeshExternalService if object["status"]["vip"]["ip"].is_null() => {
                object["status"]["vip"] = json!({"ip": vip});
            }
            ServiceKind::MeshService | ServiceKind::MeshMultiZoneService
                if array(&object["status"]["vips"]).is_empty() =>
            {
                object["status"]["vips"] = json!([{"ip": vip}]);
            }
            _ => {}
        }
        object["name"] = name.into();
        documents.push(object);
    }
    documents.extend(pods);
    Ok(documents)
}

fn ports_of(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten()
}

/// What the case dials, with the rule of each kind that speaks of it.
fn outbounds(case: &Value, objects: &Objects<'_>) -> Result<Vec<Dialled>, String> {
    let mut all = Vec::new();
    for (at, outbound) in array(&case["outbounds"]).iter().enumerate() {
        let stated = address(outbound)?;
        // A loopback address is not dialled from another network namespace.
        let addr = match stated.ip().is_loopback() {
            true => SocketAddr::new(IpAddr::from([198, 18, 0, at as u8]), stated.port()),
            false => stated,
        };
        let (destination, protocol, tags) = match text(&outbound["tags"][SERVICE_TAG]) {
            Some(service) => {
                let protocol = text(&case["services"][&service]["protocol"]);
                let destination = Destination::tags("default", &service);
                (destination, Protocol::parse(protocol.as_deref()), tags(&outbound["tags"])?)
            }
            None => {
                let (destination, protocol) = object_port(outbound, objects)?;
                (destination, Protocol::parse(Some(protocol)), Tags::new())
            }
        };
        let section = text(&outbound["resource"]["sectionName"]);
        let rule = |kind| rule_of(case, kind, &destination, section.as_deref());
        let (http, tcp) = (rule("MeshHTTPRoute"), rule("MeshTCPRoute"));
        all.push(Dialled {
            name: stated.to_string(),
            addr,
            destination,
            tags,
            protocol,
            http,
            tcp,
        });
    }
    Ok(all)
}

/// The conf of a kind for a destination: of its section, else of the whole of it, else of
/// everything (semantics 4.6).
fn rule_of(
    case: &Value,
    kind: &str,
    destination: &Destination,
    section: Option<&str>,
) -> Option<Value> {
    let of_kind = |policy: &&Value| text(&policy["kind"]).as_deref() == Some(kind);
    let rules = || {
        let policies = array(&case["effective_policies"]).iter().filter(of_kind);
        policies.flat_map(|policy| array(&policy["rules"]))
    };
    let of_section = |named: Option<&str>| {
        rules().find(|rule| {
            let to = &rule["to"]["resource"];
            let Destination::Port { kind, name, .. } = destination else { return false };
            text(&to["type"]).as_deref().and_then(service_kind) == Some(*kind)
                && to["name"] == **name
                && text(&to["sectionName"]).filter(|name| !name.is_empty()).as_deref() == named
        })
    };
    let by_tag = || {
        let service = destination.tag_service()?;
        rules().find(|rule| rule["to"]["service"] == *service)
    };
    let of_all = || rules().find(|rule| rule["to"]["any"] == true);
    let of_named = section.and_then(|section| of_section(Some(section)));
    let found = of_named.or_else(|| of_section(None)).or_else(by_tag).or_else(of_all);
    found.map(|rule| rule["conf"].clone())
}

/// The set: objects, endpoints of services by their tag, the workload with its outbounds, and a
/// policy for each rule.
fn world(
    case: &Value,
    documents: &[Value],
    outbounds: &[Dialled],
    settings: &mut ResolveSettings,
) -> Result<PolicySet, String> {
    let mut documents = documents.to_vec();
    let mut spoken_of = BTreeSet::new();
    for outbound in outbounds {
        let destination = &outbound.destination;
        if !spoken_of.insert(destination.clone()) {
            continue;
        }
        let to = match destination {
            Destination::Port { kind, name, port, .. } => {
                let mut to = json!({"kind": format!("{kind:?}"), "name": **name});
                if *kind != ServiceKind::MeshExternalService {
                    to["sectionName"] = json!(port.to_string());
                }
                to
            }
            other => json!({"kind": "MeshService", "name": other.tag_service()}),
        };
        let policy = |kind: &str, rules: &Value| {
            let name = format!("rule-{}", spoken_of.len());
            json!({"type": kind, "mesh": "default", "name": name, "spec": {
                "targetRef": {"kind": "Mesh"}, "to": [{"targetRef": to, "rules": rules}]
            }})
        };
        if let Some(conf) = &outbound.http {
            documents.push(policy("MeshHTTPRoute", &conf["rules"]));
        }
        if let Some(conf) = &outbound.tcp {
            documents.push(policy("MeshTCPRoute", &json!([{"default": conf["default"]}])));
        }
    }
    endpoints(case, &mut documents, settings)?;
    let mut set = read(&documents)?;
    let mut source = dataplane(&case["source"], SOURCE)?;
    let by_tag = outbounds.iter().filter(|outbound| !outbound.tags.is_empty());
    source.outbounds = by_tag
        .zip(0..)
        .map(|(outbound, index)| {
            Ok(Outbound {
                span: Span::default(),
                index,
                address: outbound.addr.ip(),
                port: NonZeroU16::new(outbound.addr.port()).ok_or("an outbound to port 0")?,
                tags: outbound.tags.clone(),
            })
        })
        .collect::<Result<_, String>>()?;
    set.dataplanes.push_back(Arc::new(source));
    Ok(set)
}

/// Endpoints of the services that outbounds and backends name by tag: a Dataplane each, an
/// ExternalService where they are outside the mesh.
fn endpoints(
    case: &Value,
    documents: &mut Vec<Value>,
    settings: &mut ResolveSettings,
) -> Result<(), String> {
    for (service, of) in case["services"].as_object().ok_or("no services")? {
        for endpoint in array(&of["endpoints"]) {
            let address = text(&endpoint["address"]).ok_or("an endpoint without address")?;
            let mut tags = tags(&endpoint["tags"])?;
            tags.insert(SERVICE_TAG.to_owned(), service.clone());
            if let Some(protocol) = text(&of["protocol"]).filter(|name| name != "<unknown>") {
                tags.entry(PROTOCOL_TAG.to_owned()).or_insert(protocol);
            }
            let name = format!("endpoint-{}", documents.len());
            let (kind, networking) = match endpoint["external"] == true {
                true => (
                    "ExternalService",
                    json!({"address": format!("{address}:{}", endpoint["port"])}),
                ),
                false => {
                    let inbound = json!([{"port": endpoint["port"], "tags": tags}]);
                    ("Dataplane", json!({"address": address, "inbound": inbound}))
                }
            };
            if address.parse::<IpAddr>().is_err() {
                let at = Ipv4Addr::from_bits(0xc000_0264 + documents.len() as u32);
                settings.names.insert(&address, [IpAddr::V4(at)], None);
            }
            let mut document = json!({"type": kind, "mesh": "default", "name": name,
                "networking": networking});
            if kind == "ExternalService" {
                document["tags"] = json!(tags);
            }
            documents.push(document);
        }
    }
    Ok(())
}

/// What the workload does with an outbound.
fn route<'r>(resolved: &'r Resolved, outbound: &Dialled) -> Result<&'r Route, String> {
    let by_tag = !outbound.tags.is_empty();
    let family = Family::of(outbound.addr.ip());
    let vip = resolved.vips.iter().find(|vip| match by_tag {
        true => vip.key.addr == outbound.addr,
        false => vip.destination == outbound.destination && Family::of(vip.key.addr.ip()) == family,
    });
    let vip = vip.ok_or_else(|| format!("{} has no VIP", outbound.name))?;
    let source = resolved.sources.iter().find(|source| source.address == IpAddr::V4(SOURCE));
    let class = source.map_or(0, |source| source.class);
    Ok(&resolved.routes[vip.class_routes.get(&class).copied().unwrap_or(vip.route)])
}
