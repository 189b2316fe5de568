//! `routing.jsonl`: policies, proxies and services in, routes out.
//!
//! Each family asks the room that decides it: which policy is picked (`route-per-outbound`),
//! what destinations come of it (`destinations`), the route of an outbound whose policy is given
//! (`outbounds`), what becomes of requests (`requests`), which rules are left of several policies
//! (`merge`, `merge-yaml`), the order of matches (`match-order`). Cases of other families, and
//! those of other kinds of policies or resources, are not built.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use balancer_user::{
    policy::{LoadBalancer, SERVICE_TAG, SplitEntry, Tags, TrafficRouteConf},
    resolve::{
        GATEWAY_CONTROLLER, Names, NoRoute, ResolveSettings, VipAssignments,
        selection::rank_routes, sources::tag_sets, split::substitute,
    },
};
use serde_json::Value;

use crate::{
    cases::Verdict,
    match_order, merging, outbounds, requests,
    resources::{array, dataplane, dialled, read_conf, tags, text, traffic_routes},
    traffic_route,
};

/// Kinds of resources that stand beside TrafficRoutes.
const KINDS: [&str; 3] = ["Mesh", "Dataplane", "TrafficRoute"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    let family = text(&case["family"]).unwrap_or_default();
    let judged = match (family.as_str(), text(&case["policy_kind"]).as_deref()) {
        ("match-order", _) => match_order::judge(case),
        ("merge" | "merge-yaml", _) => merging::judge(case),
        ("requests", _) => requests::judge(case),
        ("outbounds", Some("MeshHTTPRoute" | "MeshTCPRoute")) => outbounds::judge(case),
        (_, Some("TrafficRoute")) if !beside_traffic_routes(case) => Ok(Verdict::NotBuilt),
        ("outbounds", Some("TrafficRoute")) => traffic_route::judge(case),
        ("route-per-outbound", Some("TrafficRoute")) => route_per_outbound(case),
        ("destinations", Some("TrafficRoute")) => destinations(case),
        _ => Ok(Verdict::NotBuilt),
    };
    judged.unwrap_or_else(unreadable)
}

/// Whether a case holds only what TrafficRoutes know. An outbound without the tag names its
/// service by reference, which is another kind.
fn beside_traffic_routes(case: &Value) -> bool {
    let kind = |resource: &Value| text(&resource["type"]).or(text(&resource["kind"]));
    let known = |resource: &Value| kind(resource).is_some_and(|kind| KINDS.contains(&&*kind));
    let by_tag = |outbound: &Value| outbound["tags"][SERVICE_TAG].is_string();
    array(&case["resources"]).iter().all(known)
        && array(&case["source"]["networking"]["outbound"]).iter().all(by_tag)
}

fn unreadable(reason: String) -> Verdict {
    Verdict::Failed { expected: "a case that can be read".to_owned(), found: reason }
}

pub(crate) fn compared<T: PartialEq + std::fmt::Debug>(expected: T, found: T) -> Verdict {
    if expected == found {
        Verdict::Passed
    } else {
        Verdict::Failed { expected: format!("{expected:?}"), found: format!("{found:?}") }
    }
}

/// Which policy is picked for each outbound, and its conf with `*` replaced.
fn route_per_outbound(case: &Value) -> Result<Verdict, String> {
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let routes = traffic_routes(array(&case["resources"]))?;
    let sets = tag_sets([&source]);
    let mut expected = BTreeMap::new();
    let mut found = BTreeMap::new();
    let stated = case["expected_route_per_outbound"].as_object();
    for (addr, picked) in stated.ok_or("no expected_route_per_outbound")? {
        let conf = match &picked["conf_as_resolved"] {
            Value::Null => None,
            conf => Some(conf_parts(&read_conf(conf)?, None)),
        };
        let name = text(&picked["route"]).ok_or("a route without a name")?;
        expected.insert(addr.clone(), (name, conf));
    }
    for outbound in &source.outbounds {
        let service = &outbound.tags[SERVICE_TAG];
        let of_mesh = routes.iter().filter(|route| route.meta.mesh == source.meta.mesh);
        if let Some(winner) = rank_routes(of_mesh, &sets, service).winner {
            let addr = dialled(outbound).to_string();
            let conf = conf_parts(&winner.route.conf, Some(&outbound.tags));
            // Where the case does not say what the conf becomes, it is not compared.
            let stated = expected.get(&addr).is_none_or(|(_, conf)| conf.is_some());
            let name = winner.route.meta.name.clone();
            found.insert(addr, (name, stated.then_some(conf)));
        }
    }
    Ok(compared(expected, found))
}

/// What a conf says, without positions: load balancer, split, http entries. With the tags of an
/// outbound, wildcards are replaced.
type ConfParts = (Option<LoadBalancer>, Vec<(u32, Tags)>, Vec<(String, Vec<(u32, Tags)>)>);

fn conf_parts(conf: &TrafficRouteConf, outbound: Option<&Tags>) -> ConfParts {
    let split = |entries: &[SplitEntry]| -> Vec<(u32, Tags)> {
        entries
            .iter()
            .map(|entry| match outbound {
                Some(outbound) => (entry.weight, substitute(&entry.destination, outbound)),
                None => (entry.weight, entry.destination.clone()),
            })
            .collect()
    };
    let http = conf
        .http
        .iter()
        .map(|entry| (format!("{:?} {:?}", entry.matches, entry.modify), split(&entry.split)))
        .collect();
    (conf.load_balancer, split(&conf.split), http)
}

/// The destinations that the outbounds of a proxy lead to, by service.
fn destinations(case: &Value) -> Result<Verdict, String> {
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let mut found: BTreeMap<String, BTreeSet<Tags>> = BTreeMap::new();
    for outbound in &source.outbounds {
        let all = match &case["route_per_outbound"][dialled(outbound).to_string()] {
            Value::Null => vec![outbound.tags.clone()],
            route => {
                let conf = read_conf(if route["conf"].is_null() { route } else { &route["conf"] })?;
                let http = conf.http.iter().flat_map(|entry| &entry.split);
                let entries = conf.split.iter().chain(http).filter(|entry| entry.weight > 0);
                entries.map(|entry| substitute(&entry.destination, &outbound.tags)).collect()
            }
        };
        for tags in all {
            found.entry(tags[SERVICE_TAG].clone()).or_default().insert(tags);
        }
    }
    let stated = case["expected_destinations_by_service"].as_object();
    let mut expected = BTreeMap::new();
    for (service, sets) in stated.ok_or("no expected_destinations_by_service")? {
        let sets: Result<BTreeSet<Tags>, String> = array(sets).iter().map(tags).collect();
        expected.insert(service.clone(), sets?);
    }
    Ok(compared(expected, found))
}

pub(crate) fn settings() -> ResolveSettings {
    ResolveSettings {
        vips4: (Ipv4Addr::new(240, 0, 0, 0), 8),
        vips6: ("fd62:616c::".parse().unwrap_or(std::net::Ipv6Addr::UNSPECIFIED), 64),
        zone: None,
        no_route: NoRoute::Deny,
        gateway_controller: GATEWAY_CONTROLLER.to_owned(),
        allow_plain: false,
        protocols: Vec::new(),
        names: Names::default(),
        assigned: VipAssignments::new(),
    }
}
