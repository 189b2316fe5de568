//! `routing.jsonl`: policies, proxies and services in, routes out.
//!
//! Each family asks the room that decides it: which policy is picked (`route-per-outbound`),
//! what destinations come of it (`destinations`), the route of an outbound whose policy is given
//! (`outbounds`), the shares of real instances (`requests`), the order of matches (`match-order`). Cases of other families, and
//! those that only HTTP rules or other kinds of resources can satisfy, are not built.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use balancer_user::{
    compile::{Assignment, Limits, compile},
    explain::{Input, Query, explain},
    policy::{
        LoadBalancer, PROTOCOL_TAG, PolicySet, SERVICE_TAG, SplitEntry, Tags, TrafficRouteConf,
    },
    resolve::{
        Backend, Decision, GATEWAY_CONTROLLER, Names, NoRoute, ResolveSettings, Route,
        VipAssignments,
        effective::{EffectiveOutbound, effective_route},
        inventory::{Endpoint, Inventory, Protocol},
        resolve,
        selection::rank_routes,
        sources::tag_sets,
        split::{outer_split, substitute},
    },
};
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    match_order, mesh_tcp,
    resources::{array, dataplane, dialled, number, read_conf, tags, text, traffic_routes},
};

/// Kinds of resources that are carried out.
const KINDS: [&str; 3] = ["Mesh", "Dataplane", "TrafficRoute"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    if text(&case["family"]).as_deref() == Some("match-order") {
        return match_order::judge(case).unwrap_or_else(unreadable);
    }
    if text(&case["policy_kind"]).as_deref() == Some("MeshTCPRoute") {
        return mesh_tcp::judge(case).unwrap_or_else(unreadable);
    }
    let resources = array(&case["resources"]);
    let kind = |resource: &Value| text(&resource["type"]).or(text(&resource["kind"]));
    if !resources.iter().all(|r| kind(r).is_some_and(|kind| KINDS.contains(&kind.as_str()))) {
        return Verdict::NotBuilt;
    }
    // An outbound without the tag names its service by reference, which is another kind.
    let by_tag = |outbound: &Value| outbound["tags"][SERVICE_TAG].is_string();
    if !array(&case["source"]["networking"]["outbound"]).iter().all(by_tag) {
        return Verdict::NotBuilt;
    }
    let built = text(&case["policy_kind"]).as_deref() == Some("TrafficRoute");
    let judged = match text(&case["family"]).as_deref() {
        Some("route-per-outbound") if built => route_per_outbound(case),
        Some("destinations") if built => destinations(case),
        Some("outbounds") if built => outbounds(case),
        Some("requests") if built => requests(case),
        _ => return Verdict::NotBuilt,
    };
    judged.unwrap_or_else(unreadable)
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

/// A destination of a route: its share of the whole in millionths, the type of its load
/// balancer, its endpoints.
type Shares = BTreeMap<(BTreeSet<String>, &'static str), u64>;

/// The route of each outbound, given the policy that was picked for it.
fn outbounds(case: &Value) -> Result<Verdict, String> {
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let policies = array(&case["effective_policies"]);
    if policies.iter().any(|policy| text(&policy["kind"]).as_deref() != Some("TrafficRoute")) {
        return Ok(Verdict::NotBuilt);
    }
    let empty = json!({});
    let confs = policies.first().map_or(&empty, |policy| &policy["conf_per_outbound"]);
    let services = case["services"].as_object().ok_or("no services")?;
    let mut all = Vec::new();
    for (service, of) in services {
        for endpoint in array(&of["endpoints"]) {
            let external = endpoint["external"] == true;
            let address = text(&endpoint["address"]).ok_or("an endpoint without address")?;
            let port = number(&endpoint["port"]).and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or("an endpoint without port")?;
            let addr = address.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, port));
            all.push((service.clone(), addr, tags(&endpoint["tags"])?, external));
        }
    }
    let listed = all.iter().filter_map(|(service, addr, tags, _)| {
        Some((service.as_str(), Endpoint::new((*addr)?, tags, true)))
    });
    let inventory = Inventory::of_endpoints(&source.meta.mesh, listed);

    let mut found = BTreeMap::new();
    for outbound in &source.outbounds {
        let addr = dialled(outbound);
        let conf = match &confs[addr.to_string()] {
            Value::Null => None,
            conf => Some(read_conf(conf)?),
        };
        let service = &outbound.tags[SERVICE_TAG];
        let protocol =
            Protocol::parse(services.get(service).and_then(|of| text(&of["protocol"])).as_deref());
        let has_http = conf.as_ref().is_some_and(|conf| !conf.http.is_empty());
        if has_http && protocol.is_http_like() {
            return Ok(Verdict::NotBuilt);
        }
        let picked = EffectiveOutbound { addr, tags: &outbound.tags, conf: conf.as_ref() };
        // As the versions of these cases do: an outbound without a policy carries no traffic.
        let route = effective_route(&inventory, &source.meta.mesh, &picked, None, NoRoute::Deny);
        let called: BTreeSet<&str> =
            route.backends.iter().filter_map(|b| b.destination.tag_service()).collect();
        let foreign = |(service, addr, _, external): &(String, Option<SocketAddr>, Tags, bool)| {
            called.contains(service.as_str()) && (*external || addr.is_none())
        };
        if all.iter().any(foreign) {
            // An external service: another kind, with rewriting of its own.
            return Ok(Verdict::NotBuilt);
        }
        if route.decision != Decision::Reject {
            found.insert(addr.to_string(), found_shares(&route));
        }
    }
    let mut expected = BTreeMap::new();
    for stated in array(&case["expected"]) {
        let address = text(&stated["outbound"]["address"]).ok_or("an outbound without address")?;
        let ip: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
        let port = number(&stated["outbound"]["port"]).ok_or("an outbound without port")?;
        let route = sole_route(stated).ok_or_else(|| format!("an HTTP rule for {address}:{port}"));
        let addr = SocketAddr::new(ip, u16::try_from(port).map_err(|error| error.to_string())?);
        expected.insert(addr.to_string(), expected_shares(route?, &case["clusters"])?);
    }
    Ok(compared(expected, found))
}

/// The one route of a listener that decides connections: at L4, or an HTTP route for every path
/// that changes nothing.
pub(crate) fn sole_route(listener: &Value) -> Option<&Value> {
    if let [only] = array(&listener["routes"]) {
        return only["match"].is_null().then_some(only);
    }
    let [host] = array(&listener["hosts"]) else { return None };
    let [only] = array(&host["routes"]) else { return None };
    let plain = only["match"] == json!({"path": {"prefix": "/"}})
        && ["modifications", "mirrors", "redirect", "direct_response"]
            .iter()
            .all(|key| only[*key].is_null());
    plain.then_some(only)
}

fn expected_shares(route: &Value, clusters: &Value) -> Result<Shares, String> {
    let destinations = array(&route["destinations"]);
    let weight = |destination: &Value| match destination["only"] == true {
        true => Ok(1),
        false => number(&destination["weight"]).ok_or("a destination without weight"),
    };
    let mut shares = Shares::new();
    for destination in destinations {
        let name = text(&destination["cluster"]).ok_or("a destination without cluster")?;
        let cluster = &clusters[&name];
        let endpoints = array(&cluster["endpoints"])
            .iter()
            .map(|endpoint| {
                let address = text(&endpoint["address"]).unwrap_or_default();
                match address.contains(':') {
                    true => format!("[{address}]:{}", endpoint["port"]),
                    false => format!("{address}:{}", endpoint["port"]),
                }
            })
            .collect();
        let how = match text(&cluster["lb_policy"]).as_deref() {
            None | Some("ROUND_ROBIN") => "roundRobin",
            Some("LEAST_REQUEST") => "leastRequest",
            Some("RING_HASH") => "ringHash",
            Some("RANDOM") => "random",
            Some("MAGLEV") => "maglev",
            Some(other) => return Err(format!("load balancer {other}")),
        };
        if weight(destination)? > 0 {
            *shares.entry((endpoints, how)).or_default() += weight(destination)?;
        }
    }
    Ok(of_the_whole(shares))
}

fn found_shares(route: &Route) -> Shares {
    let how = match route.load_balancer {
        LoadBalancer::RoundRobin => "roundRobin",
        LoadBalancer::LeastRequest { .. } => "leastRequest",
        LoadBalancer::RingHash { .. } => "ringHash",
        LoadBalancer::Random => "random",
        LoadBalancer::Maglev => "maglev",
    };
    let mut shares = Shares::new();
    for Backend { reals, weight, .. } in route.backends.iter().filter(|b| b.weight > 0) {
        let endpoints = reals.iter().map(SocketAddr::to_string).collect();
        *shares.entry((endpoints, how)).or_default() += u64::from(*weight);
    }
    of_the_whole(shares)
}

/// Weights as millionths of their sum.
fn of_the_whole(mut weights: Shares) -> Shares {
    let sum: u64 = weights.values().sum();
    weights.values_mut().for_each(|weight| *weight = *weight * 1_000_000 / sum.max(1));
    weights
}

/// Instances that take requests. At L4 shares are exact, so what the peer sees in many tries
/// must follow from them.
fn requests(case: &Value) -> Result<Verdict, String> {
    let mut set = PolicySet {
        traffic_routes: traffic_routes(array(&case["resources"]))?
            .into_iter()
            .map(Arc::new)
            .collect(),
        ..PolicySet::default()
    };
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let mesh = source.meta.mesh.clone();
    let called = text(&case["destination"]["service"]).ok_or("no destination.service")?;
    let protocol = text(&case["destination"]["protocol"]).unwrap_or_else(|| "http".to_owned());
    let instances = case["instances"].as_object().ok_or("no instances")?;
    let mut names = BTreeMap::new();
    for (service, of) in instances {
        for (name, given) in of.as_object().ok_or("instances without names")? {
            if given["external"] == true {
                continue;
            }
            let address = Ipv4Addr::from_bits(0x0a01_0001 + names.len() as u32);
            let mut tags = tags(given)?;
            tags.insert(SERVICE_TAG.to_owned(), service.clone());
            let speaks = if *service == called { protocol.as_str() } else { "http" };
            tags.entry(PROTOCOL_TAG.to_owned()).or_insert_with(|| speaks.to_owned());
            let stated = json!({"name": name, "mesh": mesh, "networking": {"inbound": [
                {"port": 8080, "tags": tags}
            ]}});
            set.dataplanes.push_back(Arc::new(dataplane(&stated, address)?));
            names.insert(format!("{address}:8080"), name.clone());
        }
    }
    let from = format!("{mesh}/{}", source.meta.name);
    set.dataplanes.push_back(Arc::new(source));
    let settings = settings();
    let resolved = resolve(&set, &settings);
    let tables = compile(&resolved, &Assignment::default(), &Limits::default())
        .map_err(|error| error.to_string())?;
    let input =
        Input { set: &set, settings: &settings, resolved: &resolved, tables: Some(&tables) };
    let query = Query { from, to: format!("{mesh}/{called}"), ..Query::default() };
    let answer = explain(&input, &query).map_err(|error| error.to_string())?;

    let winner = answer.policy.as_ref().map(|policy| policy.name.as_str());
    let picked = set.traffic_routes.iter().find(|route| Some(route.meta.name.as_str()) == winner);
    let has_http = picked.is_some_and(|route| !route.conf.http.is_empty());
    if has_http && Protocol::parse(Some(&protocol)).is_http_like() {
        return Ok(Verdict::NotBuilt);
    }
    let external = |tags: &Tags| {
        let of = tags.get(SERVICE_TAG).and_then(|service| instances.get(service));
        of.and_then(Value::as_object)
            .is_some_and(|of| of.values().any(|given| given["external"] == true))
    };
    let split = picked.map_or(&[][..], |route| outer_split(&route.conf));
    if split.iter().any(|entry| entry.weight > 0 && external(&entry.destination)) {
        return Ok(Verdict::NotBuilt);
    }
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for real in answer.backends.iter().flat_map(|backend| &backend.reals) {
        let name = names.get(&real.address).ok_or("a real that is no instance")?;
        *shares.entry(name.as_str()).or_default() += real.share;
    }
    shares.retain(|_, share| *share > 0.0);
    for request in array(&case["requests"]) {
        let expect = &request["expect"];
        if !expect["seen_by_backend"].is_null() {
            return Ok(Verdict::NotBuilt);
        }
        if !agrees(expect, number(&request["times"]).unwrap_or(1), &shares) {
            let (expected, found) = (expect.to_string(), format!("shares {shares:?}"));
            return Ok(Verdict::Failed { expected, found });
        }
    }
    Ok(Verdict::Passed)
}

fn agrees(expect: &Value, times: u64, shares: &BTreeMap<&str, f64>) -> bool {
    let distinct = number(&expect["distinct_instances"]);
    let each = expect["instances"].as_object();
    distinct.is_none_or(|distinct| distinct == shares.len() as u64)
        && each.into_iter().flatten().all(|(name, bound)| {
            let mean = times as f64 * shares.get(name.as_str()).copied().unwrap_or(0.0);
            let at_least = bound["min"].as_f64().is_none_or(|min| min <= 0.0 || mean > 0.0);
            let about = bound["about"].as_f64().is_none_or(|about| {
                (mean - about).abs() <= bound["tolerance"].as_f64().unwrap_or(0.0)
            });
            at_least && about
        })
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
