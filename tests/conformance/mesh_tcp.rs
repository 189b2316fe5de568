//! `routing.jsonl`, policy kind MeshTCPRoute: who wins where several policies speak of one
//! destination (`merge`, `merge-yaml`), and the routes of outbounds whose effective rules are given
//! (`outbounds`).
//!
//! Effective rules are handed to resolution as policies for everybody, so that the same code
//! decides as for policies that people write.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use balancer_user::{
    policy::{
        self, BackendRef, BackendTarget, PolicySet, ReadOptions, SERVICE_TAG, ServiceKind,
        ServiceRef, SourceText, Tags, ToTarget,
    },
    resolve::{
        Backend, Destination, Resolver,
        inventory::{Family, Protocol},
        mesh_tcp::{Item, Proxy},
        objects::Objects,
    },
};
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    resources::{array, dataplane, number, tags, text},
    routing::{compared, settings, sole_route},
};

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    match text(&case["family"]).as_deref() {
        Some("merge") => merge(case),
        Some("merge-yaml") => merge_yaml(case),
        Some("outbounds") => outbounds(case),
        _ => Ok(Verdict::NotBuilt),
    }
}

/// Documents as the policy room reads them.
fn read(documents: &[Value]) -> Result<PolicySet, String> {
    let body: Vec<String> = documents.iter().map(Value::to_string).collect();
    let text = SourceText { name: "case".to_owned(), text: body.join("\n---\n").into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    let errors: Vec<String> = reading
        .report
        .violations()
        .filter(|finding| finding.is_error())
        .map(|finding| format!("{}: {}", finding.field, finding.message))
        .collect();
    if errors.is_empty() { Ok(reading.set) } else { Err(errors.join("; ")) }
}

/// Whether a document is of one of these kinds.
fn is_one_of(document: &Value, kinds: &[&str]) -> bool {
    text(&document["type"]).is_some_and(|kind| kinds.contains(&kind.as_str()))
}

const OBJECTS: [&str; 3] = ["MeshService", "MeshExternalService", "MeshMultiZoneService"];

/// A backend by what it says: its weight, and what it names.
type Said = (u32, String);

fn said(backends: &[BackendRef]) -> Vec<Said> {
    let name = |backend: &BackendRef| match &backend.target {
        BackendTarget::Service(ServiceRef { kind, by, section, port, .. }) => {
            format!("{kind:?} {by:?} {section:?} {port:?}")
        }
        BackendTarget::Subset { name, tags } => format!("{name} {tags:?}"),
    };
    backends.iter().map(|backend| (backend.weight, name(backend))).collect()
}

/// The backends of a conf, read as those of a policy.
fn said_by(conf: &Value) -> Result<Vec<Said>, String> {
    let to = json!({"kind": "MeshService", "name": "any"});
    let set = read(&[policy_for_all("conf", &to, conf)])?;
    let rule = set.mesh_tcp_routes.front().and_then(|policy| policy.to[0].rule.as_ref());
    Ok(rule.map_or_else(Vec::new, |rule| said(&rule.backends)))
}

/// A policy for everybody with one item.
fn policy_for_all(name: &str, to: &Value, conf: &Value) -> Value {
    json!({"type": "MeshTCPRoute", "mesh": "default", "name": name, "spec": {
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": to, "rules": [{"default": conf["default"]}]}]
    }})
}

/// Which backends win for each destination that some policy speaks of.
fn merge(case: &Value) -> Result<Verdict, String> {
    let known: Vec<Value> = array(&case["resources"])
        .iter()
        .filter(|document| is_one_of(document, &OBJECTS) || is_one_of(document, &["MeshTCPRoute"]))
        .cloned()
        .collect();
    let mut set = read(&known)?;
    set.dataplanes.push_back(Arc::new(dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?));
    let mut expected = BTreeMap::new();
    for rule in array(&case["expected_effective_rules"]) {
        let to = &rule["to"];
        let service = text(&to["service"]).map(|service| format!("service {service}"));
        let resource = || {
            let (kind, name) = (text(&to["resource"]["type"])?, text(&to["resource"]["name"])?);
            Some(format!("{kind} {name}"))
        };
        let name = service.or_else(resource).ok_or("a rule for nothing")?;
        expected.insert(name, said_by(&rule["conf"])?);
    }
    Ok(compared(expected, winners(&set)))
}

/// The backends that win for the first Dataplane, by what is dialled.
fn winners(set: &PolicySet) -> BTreeMap<String, Vec<Said>> {
    let settings = settings();
    let resolver = Resolver::new(set, &settings);
    let proxies: Vec<Proxy<'_>> =
        set.dataplanes.iter().take(1).map(|dataplane| Proxy::of(dataplane)).collect();
    let mut found = BTreeMap::new();
    for policy in &set.mesh_tcp_routes {
        for to in &policy.to {
            let ToTarget::Service(reference) = &to.target else { continue };
            let mesh = policy.meta.mesh.as_str();
            let mut dialled: Vec<(String, Destination)> = resolver
                .objects
                .all_meant(reference, &policy.meta)
                .into_iter()
                .map(|object| {
                    // An object without ports is spoken of as a whole.
                    let port = object.ports.first().map_or(std::num::NonZeroU16::MIN, |p| p.number);
                    let name = &object.meta.name;
                    let destination = Destination::port(mesh, object.kind, name, port);
                    (format!("{:?} {name}", object.kind), destination)
                })
                .collect();
            if let Some(service) = reference.tag_service().filter(|_| dialled.is_empty()) {
                let destination = Destination::tags(mesh, service);
                dialled.push((format!("service {service}"), destination));
            }
            for (name, destination) in dialled {
                if let Some(item) = resolver.rank_mesh_tcp(&proxies, &destination).winner {
                    found.insert(name, winning(&item));
                }
            }
        }
    }
    found
}

fn winning(item: &Item<'_>) -> Vec<Said> {
    item.to().rule.as_ref().map_or_else(Vec::new, |rule| said(&rule.backends))
}

/// The same from the peer's own YAML. Every policy selects the proxy and every object that is
/// spoken of exists, so the proxy and the objects are made to fit.
fn merge_yaml(case: &Value) -> Result<Verdict, String> {
    let input = text(&case["input_yaml"]).ok_or("no input_yaml")?;
    let mut documents = Vec::new();
    for document in input.split("\n---\n") {
        let mut document: Value =
            serde_yaml::from_str(document).map_err(|error| error.to_string())?;
        document["mesh"] = json!("default");
        documents.push(document);
    }
    let (mut source_labels, mut source_tags) = (serde_json::Map::new(), serde_json::Map::new());
    let mut objects = Vec::new();
    for document in &documents {
        let target = &document["spec"]["targetRef"];
        source_labels.extend(target["labels"].as_object().cloned().unwrap_or_default());
        source_tags.extend(target["tags"].as_object().cloned().unwrap_or_default());
        for to in array(&document["spec"]["to"]) {
            let to = &to["targetRef"];
            let known = |object: &Value| object["labels"] == to["labels"];
            if to["labels"].is_object() && !objects.iter().any(known) {
                objects.push(json!({
                    "type": to["kind"], "mesh": "default", "name": format!("o{}", objects.len()),
                    "labels": to["labels"], "spec": {"ports": [{"port": 80}]}
                }));
            }
        }
    }
    documents.extend(objects);
    let mut set = read(&documents)?;
    source_tags.insert(SERVICE_TAG.to_owned(), json!("source"));
    let source = json!({"mesh": "default", "name": "source", "labels": source_labels,
        "networking": {"inbound": [{"port": 80, "tags": source_tags}]}});
    set.dataplanes.push_back(Arc::new(dataplane(&source, Ipv4Addr::new(10, 0, 0, 1))?));

    let stated = text(&case["expected_yaml"]).ok_or("no expected_yaml")?;
    let stated: Value = serde_yaml::from_str(&stated).map_err(|error| error.to_string())?;
    let mut confs = BTreeSet::new();
    let of_resources = stated["ResourceRules"].as_object().into_iter().flatten();
    let all = array(&stated["Rules"]).iter().chain(of_resources.map(|(_, rule)| rule));
    for rule in all {
        confs.insert(said_by(&rule["Conf"])?);
    }
    Ok(compared(confs, winners(&set).into_values().collect()))
}

/// A destination of a listener: its share of the whole in millionths, and what it means: an
/// object's port, or endpoints.
type Shares = BTreeMap<String, u64>;

/// The route of each outbound that is made by this kind of policy.
fn outbounds(case: &Value) -> Result<Verdict, String> {
    let resources = array(&case["resources"]);
    let documents: Vec<Value> =
        resources.iter().filter(|document| is_one_of(document, &OBJECTS)).cloned().collect();
    let tcp = effective(case, "MeshTCPRoute")?;
    let http = effective(case, "MeshHTTPRoute")?;
    let (mut set, http) =
        (read(&[documents.clone(), tcp].concat())?, read(&[documents, http].concat())?);
    endpoints(case, &mut set)?;
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let proxies = [Proxy::of(&source)];
    let settings = settings();
    let (resolver, http) = (Resolver::new(&set, &settings), Resolver::new(&http, &settings));

    let mut found = BTreeMap::new();
    for outbound in array(&case["outbounds"]) {
        let addr = address(outbound)?;
        let (destination, protocol) = dialled(outbound, case, &resolver)?;
        let winner = resolver.rank_mesh_tcp(&proxies, &destination).winner;
        let has_http = http.rank_mesh_tcp(&proxies, &destination).winner.is_some();
        // Semantics 4.7: the others are made by the other kind.
        if protocol.is_http_like() && (has_http || winner.is_none()) {
            continue;
        }
        let family = Family::of(addr.ip());
        let route = match (winner, &destination) {
            (Some(item), called) => resolver.mesh_tcp_route(&item, called, family),
            (None, Destination::Tags { mesh, service }) => {
                let outbound = Tags::from([(SERVICE_TAG.to_owned(), service.to_string())]);
                resolver.route(mesh, family, None, &outbound)
            }
            (None, called) => resolver.object_route(called, None, family),
        };
        let mut shares = Shares::new();
        for backend in route.backends.iter().filter(|backend| backend.weight > 0) {
            *shares.entry(meaning(backend)).or_default() += u64::from(backend.weight);
        }
        found.insert(addr.to_string(), of_the_whole(shares));
    }
    let mut expected = BTreeMap::new();
    for stated in array(&case["expected"]) {
        let addr = address(&stated["outbound"])?;
        let route = sole_route(stated).ok_or_else(|| format!("an HTTP rule for {addr}"))?;
        let mut shares = Shares::new();
        for destination in array(&route["destinations"]) {
            let name = text(&destination["cluster"]).ok_or("a destination without cluster")?;
            let weight = match destination["only"] == true {
                true => 1,
                false => number(&destination["weight"]).ok_or("a destination without weight")?,
            };
            let means = cluster(&case["clusters"][&name], &resolver.objects)?;
            if weight > 0 {
                *shares.entry(means).or_default() += weight;
            }
        }
        expected.insert(addr.to_string(), of_the_whole(shares));
    }
    Ok(compared(expected, found))
}

/// Effective rules of a kind as policies for everybody: only what they speak of counts for
/// MeshHTTPRoutes, so their rules are left out.
fn effective(case: &Value, kind: &str) -> Result<Vec<Value>, String> {
    let of_kind = |policy: &&Value| text(&policy["kind"]).as_deref() == Some(kind);
    let rules = array(&case["effective_policies"]).iter().filter(of_kind);
    rules
        .flat_map(|policy| array(&policy["rules"]))
        .enumerate()
        .map(|(index, rule)| {
            let (service, resource) = (&rule["to"]["service"], &rule["to"]["resource"]);
            let mut to = match (service.is_string(), resource["type"].is_string()) {
                (true, _) => json!({"kind": "MeshService", "name": service}),
                (_, true) => json!({"kind": resource["type"], "name": resource["name"]}),
                _ => return Err(format!("a rule for {}", rule["to"])),
            };
            if resource["sectionName"].is_string() {
                to["sectionName"] = resource["sectionName"].clone();
            }
            let mut policy = policy_for_all(&format!("rule-{index}"), &to, &rule["conf"]);
            if kind != "MeshTCPRoute" {
                policy["spec"]["to"][0]["rules"] = json!([]);
            }
            Ok(policy)
        })
        .collect()
}

/// Makes a Dataplane of each endpoint of the services that outbounds name by tag.
fn endpoints(case: &Value, set: &mut PolicySet) -> Result<(), String> {
    for (service, of) in case["services"].as_object().ok_or("no services")? {
        for endpoint in array(&of["endpoints"]) {
            let address = text(&endpoint["address"]).and_then(|address| address.parse().ok());
            let (Some(address), false) = (address, endpoint["external"] == true) else { continue };
            let mut tags = tags(&endpoint["tags"])?;
            tags.insert(SERVICE_TAG.to_owned(), service.clone());
            let name = format!("endpoint-{}", set.dataplanes.len());
            let inbound = json!([{"port": endpoint["port"], "tags": tags}]);
            let stated = json!({"name": name, "networking": {"inbound": inbound}});
            set.dataplanes.push_back(Arc::new(dataplane(&stated, address)?));
        }
    }
    Ok(())
}

fn address(outbound: &Value) -> Result<SocketAddr, String> {
    let address = text(&outbound["address"]).unwrap_or_else(|| "127.0.0.1".to_owned());
    let ip: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let port = number(&outbound["port"]).and_then(|port| u16::try_from(port).ok());
    Ok(SocketAddr::new(ip, port.ok_or("an outbound without port")?))
}

/// What an outbound dials, and what is spoken there.
fn dialled(
    outbound: &Value,
    case: &Value,
    resolver: &Resolver<'_>,
) -> Result<(Destination, Protocol), String> {
    if let Some(service) = text(&outbound["tags"][SERVICE_TAG]) {
        let protocol = text(&case["services"][&service]["protocol"]);
        return Ok((Destination::tags("default", &service), Protocol::parse(protocol.as_deref())));
    }
    let resource = &outbound["resource"];
    let section = text(&resource["sectionName"]).unwrap_or_default();
    let (kind, name) = (text(&resource["type"]), text(&resource["name"]).unwrap_or_default());
    let kind = kind.as_deref().and_then(service_kind).ok_or("an outbound to nothing")?;
    let (destination, protocol) = port(&resolver.objects, kind, &name, &section)?;
    Ok((destination, Protocol::parse(Some(protocol))))
}

fn service_kind(name: &str) -> Option<ServiceKind> {
    match name {
        "MeshService" => Some(ServiceKind::MeshService),
        "MeshExternalService" => Some(ServiceKind::MeshExternalService),
        "MeshMultiZoneService" => Some(ServiceKind::MeshMultiZoneService),
        _ => None,
    }
}

/// A port of an object of the case, and its protocol.
fn port<'o>(
    objects: &'o Objects<'_>,
    kind: ServiceKind,
    name: &str,
    section: &str,
) -> Result<(Destination, &'o str), String> {
    let missing = || format!("no {kind:?} {name} with a port `{section}`");
    let object = objects.named("default", kind, name).ok_or_else(missing)?;
    let number = match section {
        "" => object.ports.first().map(|port| port.number),
        section => object.section(section),
    };
    let port = object.ports.iter().find(|port| Some(port.number) == number).ok_or_else(missing)?;
    Ok((Destination::port("default", kind, name, port.number), port.protocol))
}

/// What a backend means: an object's port by its name, a service by its endpoints.
fn meaning(backend: &Backend) -> String {
    match &backend.destination {
        Destination::Tags { .. } => {
            backend.reals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        other => other.called(),
    }
}

/// What a cluster means, in the same words.
fn cluster(cluster: &Value, objects: &Objects<'_>) -> Result<String, String> {
    let means = &cluster["means"];
    if let Some(kind) = text(&means["kind"]).as_deref().and_then(service_kind) {
        let name = text(&means["name"]).unwrap_or_default();
        let section = text(&means["port_or_section"]).unwrap_or_default();
        return Ok(port(objects, kind, &name, &section)?.0.called());
    }
    let mut endpoints = BTreeSet::new();
    for endpoint in array(&cluster["endpoints"]) {
        endpoints.insert(address(endpoint)?);
    }
    Ok(endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// Weights as millionths of their sum.
fn of_the_whole(mut weights: Shares) -> Shares {
    let sum: u64 = weights.values().sum();
    weights.values_mut().for_each(|weight| *weight = *weight * 1_000_000 / sum.max(1));
    weights
}
