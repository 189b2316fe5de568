//! Families `merge` and `merge-yaml` of MeshTCPRoute and MeshHTTPRoute: the rules that are left
//! where several policies speak of one destination.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
    sync::Arc,
};

use balancer_user::{
    policy::{
        BackendRef, BackendTarget, MeshHttpRule, Meta, PolicySet, SERVICE_TAG, ServiceRef,
        ToTarget,
        http_route::{Located, RequestMatch, RouteFilter},
    },
    resolve::{Destination, Resolver, mesh_http::merge, mesh_policy::Proxy},
};
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    resources::{array, dataplane, read, text},
    routing::{compared, settings},
};

const OBJECTS: [&str; 3] = ["MeshService", "MeshExternalService", "MeshMultiZoneService"];

/// A rule by what it says: its matches (none of a MeshTCPRoute), filters and backends; `None`
/// where it does not say.
type Rule = (Vec<String>, Option<Vec<String>>, Option<Vec<String>>);

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    match text(&case["policy_kind"]).as_deref() {
        Some("MeshTCPRoute" | "MeshHTTPRoute") => {}
        _ => return Ok(Verdict::NotBuilt),
    }
    match text(&case["family"]).as_deref() {
        Some("merge") => merged(case),
        Some("merge-yaml") => merged_yaml(case),
        _ => Ok(Verdict::NotBuilt),
    }
}

fn backends(all: &[BackendRef]) -> Vec<String> {
    let one = |backend: &BackendRef| match &backend.target {
        BackendTarget::Service(ServiceRef { kind, by, section, port, .. }) => {
            format!("{} {kind:?} {by:?} {section:?} {port:?}", backend.weight)
        }
        BackendTarget::Subset { name, tags } => format!("{} {name} {tags:?}", backend.weight),
    };
    all.iter().map(one).collect()
}

fn filters(all: &[Located<RouteFilter<BackendRef>>]) -> Vec<String> {
    let one = |filter: &Located<RouteFilter<BackendRef>>| match &filter.value {
        RouteFilter::Mirror(mirror) => {
            format!("Mirror {} {:?}", mirror.share, backends(std::slice::from_ref(&mirror.backend)))
        }
        other => format!("{other:?}"),
    };
    all.iter().map(one).collect()
}

fn matches(all: &[Located<RequestMatch>]) -> Vec<String> {
    all.iter().map(|one| format!("{:?}", one.value)).collect()
}

fn http_rule(rule: &MeshHttpRule) -> Rule {
    let of = |all: &Vec<_>| filters(all);
    (matches(&rule.matches), rule.filters.as_ref().map(of), rule.backends.as_deref().map(backends))
}

/// A filter without a type, which some cases have where any will do, as one that has it.
fn with_filters(document: &Value) -> Value {
    let mut document = document.clone();
    fill(&mut document);
    document
}

fn fill(value: &mut Value) {
    if let Some(filters) = value.get_mut("filters").and_then(Value::as_array_mut) {
        for filter in filters.iter_mut().filter(|filter| **filter == json!({})) {
            *filter = json!({"type": "RequestHeaderModifier",
                "requestHeaderModifier": {"remove": ["x-any"]}});
        }
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(fill),
        Value::Array(items) => items.iter_mut().for_each(fill),
        _ => {}
    }
}

/// The rules of a conf, read as those of a policy.
fn said(kind: &str, conf: &Value) -> Result<Vec<Rule>, String> {
    let rules = match kind {
        "MeshTCPRoute" => json!([{"default": conf["default"]}]),
        _ => conf["rules"].clone(),
    };
    let policy = json!({"type": kind, "mesh": "default", "name": "conf", "spec": {
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "MeshService", "name": "any"}, "rules": rules}]
    }});
    let set = read(&[with_filters(&policy)])?;
    let of_tcp = set.mesh_tcp_routes.front().and_then(|policy| policy.to[0].rule.as_ref());
    let of_tcp = of_tcp.map(|rule| (Vec::new(), None, Some(backends(&rule.backends))));
    let of_http = set.mesh_http_routes.front().map_or(&[][..], |policy| &policy.to[0].rules);
    Ok(of_tcp.into_iter().chain(of_http.iter().map(http_rule)).collect())
}

fn merged(case: &Value) -> Result<Verdict, String> {
    let kind = text(&case["policy_kind"]).ok_or("no policy_kind")?;
    let known = |document: &&Value| {
        let of = text(&document["type"]).unwrap_or_default();
        of == kind || OBJECTS.contains(&of.as_str())
    };
    let documents: Vec<Value> =
        array(&case["resources"]).iter().filter(known).map(with_filters).collect();
    let mut set = read(&documents)?;
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
        expected.insert(name, said(&kind, &rule["conf"])?);
    }
    Ok(compared(expected, found(&set)))
}

/// The rules for the first Dataplane, by what is dialled, of everything that some policy speaks
/// of.
fn found(set: &PolicySet) -> BTreeMap<String, Vec<Rule>> {
    let settings = settings();
    let resolver = Resolver::new(set, &settings);
    let proxies: Vec<Proxy<'_>> =
        set.dataplanes.iter().take(1).map(|dataplane| Proxy::of(dataplane)).collect();
    let of_tcp = set
        .mesh_tcp_routes
        .iter()
        .flat_map(|policy| policy.to.iter().map(move |to| (&policy.meta, &to.target)));
    let of_http = set
        .mesh_http_routes
        .iter()
        .flat_map(|policy| policy.to.iter().map(move |to| (&policy.meta, &to.target)));
    let mut found = BTreeMap::new();
    for (policy, target) in of_tcp.chain(of_http) {
        let ToTarget::Service(reference) = target else { continue };
        for (name, destination) in dialled(&resolver, policy, reference) {
            let rules = effective(&resolver, &proxies, &destination);
            if !rules.is_empty() {
                found.insert(name, rules);
            }
        }
    }
    found
}

/// What a reference speaks of, as cases call it.
fn dialled(
    resolver: &Resolver<'_>,
    policy: &Meta,
    reference: &ServiceRef,
) -> Vec<(String, Destination)> {
    let mesh = policy.mesh.as_str();
    let objects = resolver.objects.all_meant(reference, policy).into_iter();
    let mut dialled: Vec<(String, Destination)> = objects
        .map(|object| {
            // An object without ports is spoken of as a whole.
            let port = object.ports.first().map_or(NonZeroU16::MIN, |port| port.number);
            let name = &object.meta.name;
            let destination = Destination::port(mesh, object.kind, name, port);
            (format!("{:?} {name}", object.kind), destination)
        })
        .collect();
    if let Some(service) = reference.tag_service().filter(|_| dialled.is_empty()) {
        dialled.push((format!("service {service}"), Destination::tags(mesh, service)));
    }
    dialled
}

fn effective(resolver: &Resolver<'_>, proxies: &[Proxy<'_>], to: &Destination) -> Vec<Rule> {
    let of_tcp = resolver.rank_mesh_tcp(proxies, to).winner;
    let of_tcp = of_tcp.map(|item| {
        let backends = item.to().rule.as_ref().map(|rule| backends(&rule.backends));
        (Vec::new(), None, backends)
    });
    let ranking = resolver.rank_mesh_http(proxies, to);
    let losers = ranking.losers.into_iter().map(|(item, _)| item);
    let items: Vec<_> = ranking.winner.into_iter().chain(losers).collect();
    let of_http = merge(&items).into_iter().map(|merged| {
        let filters = merged.filters.map(|(_, all)| filters(all));
        (
            matches(&merged.rule.matches),
            filters,
            merged.backends.map(|given| backends(given.backends)),
        )
    });
    of_tcp.into_iter().chain(of_http).collect()
}

/// The same from the peer's own YAML. Every policy selects the proxy and every object that is
/// spoken of exists, so the proxy and the objects are made to fit.
fn merged_yaml(case: &Value) -> Result<Verdict, String> {
    let kind = text(&case["policy_kind"]).ok_or("no policy_kind")?;
    let input = text(&case["input_yaml"]).ok_or("no input_yaml")?;
    let mut documents = Vec::new();
    for document in input.split("\n---\n") {
        let mut document: Value =
            serde_yaml::from_str(document).map_err(|error| error.to_string())?;
        document["mesh"] = json!("default");
        documents.push(with_filters(&document));
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
        confs.insert(said(&kind, &rule["Conf"])?);
    }
    Ok(compared(confs, found(&set).into_values().collect()))
}
