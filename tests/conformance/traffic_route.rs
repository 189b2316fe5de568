//! Family `outbounds` of TrafficRoute: the route of every outbound, given the policy that was
//! picked for it. Endpoints come only from the case.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use balancer_user::{
    policy::{PROTOCOL_TAG, Tags},
    resolve::{
        Decision, Names, NoRoute,
        effective::{EffectiveOutbound, effective_route},
        inventory::{Endpoint, Inventory},
    },
};
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    clusters::{address, endpoints_meant},
    listeners::{Leave, compare},
    resources::{array, dataplane, dialled, number, read_conf, tags, text},
    said::{Meaning, Said},
};

/// An endpoint of a case.
struct Stated {
    service: String,
    addr: SocketAddr,
    tags: Tags,
    /// The name that it is known by outside the mesh.
    host: Option<String>,
}

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    let source = dataplane(&case["source"], Ipv4Addr::new(10, 0, 0, 1))?;
    let policies = array(&case["effective_policies"]);
    if policies.iter().any(|policy| text(&policy["kind"]).as_deref() != Some("TrafficRoute")) {
        return Ok(Verdict::NotBuilt);
    }
    let empty = json!({});
    let confs = policies.first().map_or(&empty, |policy| &policy["conf_per_outbound"]);
    let mut names = Names::default();
    let all = endpoints(case, &mut names)?;
    let listed = all.iter().map(|one| {
        let endpoint = Endpoint::new(one.addr, &one.tags, true);
        (one.service.as_str(), Endpoint { host: one.host.as_deref(), ..endpoint })
    });
    let mesh = source.meta.mesh.as_str();
    let inventory = Inventory::of_endpoints(mesh, listed);
    let means = |name: &str| meaning(&case["clusters"][name], &names);

    let mut expected = BTreeMap::new();
    for listener in array(&case["expected"]) {
        expected.insert(address(&listener["outbound"])?, Said::read(listener, &means)?);
    }
    let mut decided = None;
    for outbound in &source.outbounds {
        let addr = dialled(outbound);
        let conf = match &confs[addr.to_string()] {
            Value::Null => None,
            conf => Some(read_conf(conf)?),
        };
        let picked = EffectiveOutbound { addr, tags: &outbound.tags, conf: conf.as_ref() };
        // As the versions of these cases do: an outbound without a policy carries no traffic.
        let route = effective_route(&inventory, mesh, &picked, None, NoRoute::Deny);
        let listener = addr.to_string();
        match (expected.remove(&addr), route.decision == Decision::Reject) {
            (None, true) => {}
            (Some(said), false) => {
                match compare(&listener, &said, &route, &inventory, Leave::of(case))? {
                    Verdict::Passed => {}
                    Verdict::Decided(decision) => decided = Some(decision),
                    other => return Ok(other),
                }
            }
            (said, refused) => {
                let word = |carried: bool| if carried { "traffic" } else { "no traffic" };
                return Ok(Verdict::Failed {
                    expected: format!("{listener}: {}", word(said.is_some())),
                    found: format!("{listener}: {}", word(!refused)),
                });
            }
        }
    }
    match expected.keys().next() {
        Some(unknown) => Err(format!("a listener for {unknown}, which is no outbound")),
        None => Ok(decided.map_or(Verdict::Passed, Verdict::Decided)),
    }
}

fn endpoints(case: &Value, names: &mut Names) -> Result<Vec<Stated>, String> {
    let mut all = Vec::new();
    for (service, of) in case["services"].as_object().ok_or("no services")? {
        let protocol = text(&of["protocol"]).filter(|name| name != "<unknown>");
        for endpoint in array(&of["endpoints"]) {
            let address = text(&endpoint["address"]).ok_or("an endpoint without address")?;
            let port = number(&endpoint["port"]).and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or("an endpoint without port")?;
            let (ip, host) = match address.parse::<IpAddr>() {
                Ok(ip) => (ip, None),
                Err(_) => {
                    let stands_for = Ipv4Addr::from_bits(0xc000_0264 + all.len() as u32).into();
                    names.insert(&address, [stands_for], None);
                    (stands_for, Some(address))
                }
            };
            let mut tags = tags(&endpoint["tags"])?;
            // What is stated of a service without HTTP is what came of tags like these.
            if let Some(protocol) = protocol.clone().filter(|protocol| protocol != "tcp") {
                tags.entry(PROTOCOL_TAG.to_owned()).or_insert(protocol);
            }
            let addr = SocketAddr::new(ip, port);
            all.push(Stated { service: service.clone(), addr, tags, host });
        }
    }
    Ok(all)
}

/// A cluster by its endpoints and its load balancer.
fn meaning(cluster: &Value, names: &Names) -> Result<Meaning, String> {
    let balancing = match text(&cluster["lb_policy"]).as_deref() {
        None | Some("ROUND_ROBIN") => "roundRobin",
        Some("LEAST_REQUEST") => "leastRequest",
        Some("RING_HASH") => "ringHash",
        Some("RANDOM") => "random",
        Some("MAGLEV") => "maglev",
        Some(other) => return Err(format!("load balancer {other}")),
    };
    endpoints_meant(array(&cluster["endpoints"]), balancing, names)
}
