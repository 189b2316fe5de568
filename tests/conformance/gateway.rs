//! `gatewayapi.jsonl`: manifests in, the conditions of routes and the shares of backends out.
//!
//! Judged are cases of TCPRoutes. Cases with other kinds of route count as of kinds not built,
//! after their manifests have been read: what the suite applies to a cluster has to be valid
//! here. What a cluster would add is added: to each Service an EndpointSlice with one pod of its
//! own, to each Gateway an address.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use balancer_user::{
    compile::{Assignment, Limits, compile},
    policy::{
        self, Host, PolicySet, ReadOptions, SourceText,
        kubernetes::{Service, TargetPort},
    },
    resolve::{
        GATEWAY_CONTROLLER, VipKey,
        gateway::{Condition, attach},
        resolve,
    },
};
use serde_json::Value;

use crate::{
    cases::{Verdict, corpus_place},
    routing::settings,
};

/// Kinds of route that are not carried out.
const OTHER_ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "UDPRoute"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    judged(case).unwrap_or_else(|found| Verdict::Failed {
        expected: "manifests that are valid".to_owned(),
        found,
    })
}

fn judged(case: &Value) -> Result<Verdict, String> {
    let own = case["manifests_yaml"].as_str().ok_or("the case has no manifests_yaml")?;
    let mut manifests = match case["base_manifests"].as_str() {
        Some(name) => {
            let path = corpus_place().join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => String::new(),
    };
    manifests.push_str("\n---\n");
    manifests.push_str(own);
    let manifests = manifests.replace("{GATEWAY_CLASS_NAME}", "balancer");
    let set = read(&manifests)?;
    let is_other = |line: &str| {
        line.trim().strip_prefix("kind: ").is_some_and(|kind| OTHER_ROUTES.contains(&kind))
    };
    let asks_for = |what: &str| case[what].as_array().is_some_and(|list| !list.is_empty());
    if own.lines().any(is_other) || asks_for("requests") {
        return Ok(Verdict::NotBuilt);
    }
    let mut verdicts = Vec::new();
    if let Some(wanted) = case["route_conditions_mentioned"].as_array() {
        verdicts.push(conditions(&set, wanted));
    }
    for wanted in case["distributions"].as_array().into_iter().flatten() {
        verdicts.push(distribution(&manifests, wanted)?);
    }
    let failed = verdicts.iter().position(|verdict| !matches!(verdict, Verdict::Passed));
    match failed {
        Some(failed) => Ok(verdicts.swap_remove(failed)),
        None if verdicts.is_empty() => Err("the case asks for nothing".to_owned()),
        None => Ok(Verdict::Passed),
    }
}

fn read(manifests: &str) -> Result<PolicySet, String> {
    let text = SourceText { name: "manifests.yaml".to_owned(), text: manifests.into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    if !reading.report.valid() {
        return Err(policy::render::report(&reading.set.texts, &reading.report, false));
    }
    Ok(reading.set)
}

fn conditions(set: &PolicySet, wanted: &[Value]) -> Verdict {
    let mut expected: Vec<String> = wanted.iter().map(wanted_condition).collect();
    let attached = attach(set, GATEWAY_CONTROLLER);
    let parents = attached.routes.iter().flat_map(|status| &status.parents);
    let mut found: Vec<String> = parents
        .flat_map(|parent| {
            [condition("Accepted", &parent.accepted), condition("ResolvedRefs", &parent.resolved)]
        })
        .collect();
    found.sort();
    expected.sort();
    if !expected.is_empty() && expected.iter().all(|condition| found.contains(condition)) {
        return Verdict::Passed;
    }
    Verdict::Failed { expected: expected.join(", "), found: found.join(", ") }
}

fn wanted_condition(condition: &Value) -> String {
    let word = |name: &str| condition[name].as_str().unwrap_or("?");
    format!("{}={} {}", word("type"), word("status"), word("reason"))
}

fn condition(kind: &str, condition: &Condition) -> String {
    let status = if condition.holds { "True" } else { "False" };
    format!("{kind}={status} {}", condition.reason)
}

/// As many connections as the case makes, in turn through the table of the one listener that the
/// case's own route is attached to: which Service's pods take which share.
fn distribution(manifests: &str, wanted: &Value) -> Result<Verdict, String> {
    let requests = wanted["requests"].as_u64().ok_or("a distribution without requests")?;
    let tolerance = wanted["absolute_tolerance"].as_f64().ok_or("no absolute_tolerance")?;
    let shares = wanted["share"].as_object().ok_or("a distribution without share")?;

    let set = cluster(manifests)?;
    let resolved = resolve(&set, &settings());
    let (Some(route), 1) = (set.tcp_routes.front(), set.tcp_routes.len()) else {
        return Err("not one TCPRoute".to_owned());
    };
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let listener = attached.points.keys().next().ok_or("the route is attached nowhere")?;
    let gateway = set.gateways.iter().position(|gateway| {
        route.parents.iter().any(|parent| {
            gateway.meta.object() == (parent.namespace.as_str(), parent.name.as_str())
        })
    });
    let gateway = gateway.ok_or_else(|| format!("{listener} is of no Gateway"))?;
    let address = gateway_address(gateway);
    let vip = resolved.vips.iter().find(|vip| vip.key.addr.ip() == address);
    let vip: VipKey = vip.ok_or_else(|| format!("{listener} has no VIP"))?.key;
    let tables = compile(&resolved, &Assignment::default(), &Limits::default())
        .map_err(|error| error.to_string())?;
    let table = tables.routes[&tables.vips[&vip].route].table.as_ref().ok_or("no table")?;

    let pods: BTreeMap<IpAddr, &Service> = set
        .services
        .iter()
        .enumerate()
        .map(|(at, service)| (pod_address(at), &**service))
        .collect();
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    for slot in table.slots.iter().cycle().take(usize::try_from(requests).unwrap_or(usize::MAX)) {
        let real = tables.reals.get(&table.targets[usize::from(*slot)].real);
        // As the own cases call what is refused.
        let name = real.map_or("(refused)", |real| &pods[&real.addr.ip()].meta.name);
        *taken.entry(name).or_default() += 1;
    }
    let share = |name: &str| taken.get(name).copied().unwrap_or(0) as f64 / requests as f64;
    let right = shares.iter().all(|(name, wanted)| {
        let wanted = wanted.as_f64().unwrap_or(f64::NAN);
        let none = wanted == 0.0 && share(name) == 0.0;
        none || (wanted > 0.0 && (share(name) - wanted).abs() <= tolerance)
    });
    let of_these: u64 = shares.keys().filter_map(|name| taken.get(name.as_str())).sum();
    if right && of_these == requests {
        return Ok(Verdict::Passed);
    }
    Ok(Verdict::Failed { expected: format!("{shares:?}"), found: format!("{taken:?}") })
}

/// The manifests as a cluster completes them.
fn cluster(manifests: &str) -> Result<PolicySet, String> {
    let bare = read(manifests)?;
    let mut all = manifests.to_owned();
    for (at, service) in bare.services.iter().enumerate() {
        let (namespace, name) = service.meta.object();
        let ports: Vec<String> = service
            .ports
            .iter()
            .filter(|port| port.is_tcp())
            .map(|port| {
                let number = match port.target {
                    TargetPort::Number(number) => number,
                    TargetPort::Name(_) => port.port,
                };
                format!("{{name: '{}', port: {number}}}", port.name)
            })
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(
            all,
            "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-pods, \
             namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{}]\nendpoints: [{{addresses: ['{}']}}]\n",
            ports.join(", "),
            pod_address(at),
        );
    }
    let mut set = read(&all)?;
    for (at, gateway) in set.gateways.iter_mut().enumerate() {
        Arc::make_mut(gateway).addresses = vec![Host::Ip(gateway_address(at))];
    }
    Ok(set)
}

fn pod_address(service: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 1).to_bits() + service as u32))
}

fn gateway_address(gateway: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 1).to_bits() + gateway as u32))
}
