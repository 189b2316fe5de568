//! Family `requests`: policies and workloads in, who takes requests and what it sees of them out.
//!
//! Shares are exact, so what the peer sees in many tries must follow from them. Cases have no
//! addresses: each instance gets one. The project's own cases ask for more than the corpus does:
//! an "instance" `(500)` is the share that is answered with 500, `(refused)` the connections that
//! are; `redirect` and `mirrored_to` say where the client or a copy goes, `answer` which headers
//! the client sees where every backend answers with `backend_response_headers`;
//! `destination.resource` is dialled where the destination is an object; `refused` are the fields
//! for which the resources must not be loaded.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use balancer_user::{
    compile::{Assignment, Limits, Tables, compile},
    explain::{Input, Query, RequestQuery, explain},
    http::Decision,
    policy::{PROTOCOL_TAG, PolicySet, SERVICE_TAG, Tags},
    resolve::{Backend, Destination, HttpRules, ResolveSettings, Resolved, resolve},
};
use http::header::LOCATION;
use serde_json::{Value, json};

use crate::{
    cases::Verdict,
    clusters::service_kind,
    found::{Sent, decisions, headers, listed, router},
    outcome::Headers,
    resources::{array, dataplane, number, read, refused, tags, text, traffic_routes},
    routing::{compared, settings},
};

/// Kinds that cases of this family may hold.
const KINDS: [&str; 9] = [
    "Dataplane",
    "ExternalService",
    "Mesh",
    "MeshExternalService",
    "MeshHTTPRoute",
    "MeshMultiZoneService",
    "MeshService",
    "MeshTCPRoute",
    "TrafficRoute",
];

/// The workload that asks.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Everything that can become of a request.
#[derive(Debug, Default)]
struct Taken {
    /// Who takes which share.
    shares: BTreeMap<String, f64>,
    /// What backends see: target, host and headers.
    seen: Vec<(String, String, Headers)>,
    /// Headers of the answers of backends as the client sees them.
    answers: Vec<Headers>,
    /// Who gets copies of which share.
    copies: BTreeMap<String, f64>,
    /// Code and place of redirections.
    redirects: Vec<(u64, String)>,
}

struct World {
    set: PolicySet,
    settings: ResolveSettings,
    /// Address and port → instance.
    instances: BTreeMap<SocketAddr, String>,
    source: (String, String),
    called: Destination,
}

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Result<Verdict, String> {
    let known = |document: &Value| text(&document["type"]).is_some_and(|k| KINDS.contains(&&*k));
    if !array(&case["resources"]).iter().all(known) {
        return Ok(Verdict::NotBuilt);
    }
    if let Some(fields) = case["refused"].as_array() {
        let expected = fields.iter().filter_map(text).collect();
        return Ok(compared(expected, refused(array(&case["resources"]))));
    }
    let world = world(case)?;
    let resolved = resolve(&world.set, &world.settings);
    let vip = resolved.vips.iter().find(|vip| vip.destination == world.called);
    let vip = vip.ok_or_else(|| format!("{} has no VIP", world.called.called()))?;
    let source = resolved.sources.iter().find(|source| source.address == IpAddr::V4(SOURCE));
    let class = source.map_or(0, |source| source.class);
    let route = &resolved.routes[vip.class_routes.get(&class).copied().unwrap_or(vip.route)];
    let tables = compile(&resolved, &Assignment::default(), &Limits::default())
        .map_err(|error| error.to_string())?;
    for asked in array(&case["requests"]) {
        let request = &asked["request"];
        let sent = request_of(request)?;
        let answer = pairs(&asked["backend_response_headers"])?;
        let explained = explained(&world, &resolved, &tables, request)?;
        let taken = match &route.http {
            Some(rules) => by_rules(&world, rules, &sent, &answer)?,
            None => unchanged(explained.clone(), request, &answer)?,
        };
        let mut by_instances = taken.shares.clone();
        by_instances.retain(|name, _| !name.starts_with('('));
        if !same(&by_instances, &explained) {
            return Ok(Verdict::Failed {
                expected: format!("{request}: explained as it is decided: {by_instances:?}"),
                found: format!("{explained:?}"),
            });
        }
        if let Some(expected) = differs(&asked["expect"], number(&asked["times"]), &taken)? {
            let expected = format!("{request}: {expected}");
            return Ok(Verdict::Failed { expected, found: format!("{taken:?}") });
        }
    }
    Ok(Verdict::Passed)
}

fn world(case: &Value) -> Result<World, String> {
    let mut settings = settings();
    let (routes, others): (Vec<Value>, Vec<Value>) = array(&case["resources"])
        .iter()
        .cloned()
        .partition(|document| text(&document["type"]).as_deref() == Some("TrafficRoute"));
    let mut others = others;
    let mut source = dataplane(&case["source"], SOURCE)?;
    source.meta.labels = tags(&case["source"]["labels"])?;
    let mesh = source.meta.mesh.clone();
    let protocol = text(&case["destination"]["protocol"]).unwrap_or_else(|| "http".to_owned());
    let called = called(&mesh, &case["destination"])?;
    let of_called = called.tag_service().map(str::to_owned);
    let mut instances = BTreeMap::new();
    let mut dataplanes = Vec::new();
    for (service, of) in case["instances"].as_object().ok_or("no instances")? {
        for (name, given) in of.as_object().ok_or("instances without names")? {
            let address = Ipv4Addr::from_bits(0x0a01_0001 + instances.len() as u32);
            let mut tags = tags(given)?;
            tags.insert(SERVICE_TAG.to_owned(), service.clone());
            if given["external"] == true {
                let port = outside(&mut others, &tags, address, &mut settings)?;
                if let Some(port) = port {
                    instances.insert(SocketAddr::new(address.into(), port), name.clone());
                }
                continue;
            }
            let speaks = match of_called.as_ref() == Some(service) {
                true => protocol.as_str(),
                false => "http",
            };
            tags.entry(PROTOCOL_TAG.to_owned()).or_insert_with(|| speaks.to_owned());
            let stated = json!({"name": name, "mesh": mesh, "networking": {"inbound": [
                {"port": 8080, "tags": tags}
            ]}});
            dataplanes.push(Arc::new(dataplane(&stated, address)?));
            instances.insert(SocketAddr::new(address.into(), 8080), name.clone());
        }
    }
    let mut set = read(&others)?;
    set.traffic_routes = traffic_routes(&routes)?.into_iter().map(Arc::new).collect();
    set.dataplanes.extend(dataplanes);
    let source_name = (mesh, source.meta.name.clone());
    set.dataplanes.push_back(Arc::new(source));
    Ok(World { set, settings, instances, source: source_name, called })
}

/// What is dialled.
fn called(mesh: &str, stated: &Value) -> Result<Destination, String> {
    if let Some(service) = text(&stated["service"]) {
        return Ok(Destination::tags(mesh, &service));
    }
    let resource = &stated["resource"];
    let kind = text(&resource["type"]).as_deref().and_then(service_kind);
    let port = number(&resource["port"]).and_then(|port| u16::try_from(port).ok());
    match (kind, text(&resource["name"]), port.and_then(NonZeroU16::new)) {
        (Some(kind), Some(name), Some(port)) => Ok(Destination::port(mesh, kind, &name, port)),
        _ => Err(format!("no destination: {stated}")),
    }
}

/// Gives the ExternalService that an instance stands for its address; its port. `None`: the case
/// has no such resource, and so nobody can reach the instance.
fn outside(
    documents: &mut [Value],
    of: &Tags,
    address: Ipv4Addr,
    settings: &mut ResolveSettings,
) -> Result<Option<u16>, String> {
    let meant = |document: &&mut Value| {
        text(&document["type"]).as_deref() == Some("ExternalService")
            && of.iter().all(|(key, value)| document["tags"][key] == *value)
    };
    let Some(document) = documents.iter_mut().find(meant) else { return Ok(None) };
    let stated = text(&document["networking"]["address"]).ok_or("no address outside")?;
    let (host, port) = match stated.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| "no port outside")?),
        None => (stated, 80),
    };
    if host.parse::<IpAddr>().is_ok() {
        document["networking"]["address"] = json!(format!("{address}:{port}"));
    } else {
        settings.names.insert(&host, [IpAddr::V4(address)], None);
        document["networking"]["address"] = json!(format!("{host}:{port}"));
    }
    Ok(Some(port))
}

/// The shares of instances as `explain` has them.
fn explained(
    world: &World,
    resolved: &Resolved,
    tables: &Tables,
    request: &Value,
) -> Result<BTreeMap<String, f64>, String> {
    let World { set, settings, instances, source: (mesh, name), called } = world;
    let input = Input { set, settings, resolved, tables: Some(tables) };
    let described = RequestQuery {
        method: text(&request["method"]),
        path: text(&request["path"]),
        host: text(&request["host"]),
        headers: pairs(&request["headers"])?,
    };
    let query = Query {
        from: format!("{mesh}/{name}"),
        to: format!("{mesh}/{called}"),
        request: Some(described),
        ..Query::default()
    };
    let answer = explain(&input, &query).map_err(|error| error.to_string())?;
    let mut shares = BTreeMap::new();
    for real in answer.backends.iter().flat_map(|backend| &backend.reals) {
        let addr: SocketAddr = real.address.parse().map_err(|_| "a real without an address")?;
        let name = instances.get(&addr).ok_or("a real that is no instance")?;
        *shares.entry(name.clone()).or_default() += real.share;
    }
    shares.retain(|_, share| *share > 0.0);
    Ok(shares)
}

fn same(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> bool {
    a.keys().eq(b.keys()) && a.values().zip(b.values()).all(|(a, b)| (a - b).abs() < 1e-3)
}

/// What becomes of a request where only connections are decided about.
fn unchanged(
    mut shares: BTreeMap<String, f64>,
    request: &Value,
    answer: &Headers,
) -> Result<Taken, String> {
    let refused = 1.0 - shares.values().sum::<f64>();
    if refused > 1e-9 {
        shares.insert("(refused)".to_owned(), refused);
    }
    let target = text(&request["path"]).unwrap_or_else(|| "/".to_owned());
    let host = text(&request["host"]).unwrap_or_default();
    let seen = vec![(target, host, listed(&headers(&pairs(&request["headers"])?)))];
    Ok(Taken { shares, seen, answers: vec![listed(&headers(answer))], ..Taken::default() })
}

fn by_rules(
    world: &World,
    rules: &HttpRules,
    sent: &Sent,
    answer: &Headers,
) -> Result<Taken, String> {
    let router = router(rules)?;
    let request = sent.request()?;
    let of = |backend: &Backend| -> Result<Vec<String>, String> {
        let name = |real: &SocketAddr| world.instances.get(real).cloned();
        let names: Option<Vec<String>> = backend.reals.iter().map(name).collect();
        names.ok_or_else(|| "a real that is no instance".to_owned())
    };
    let mut taken = Taken::default();
    for (share, decision) in decisions(&router, &request, |id| rules.readiness(id)) {
        let status = match &decision {
            Decision::Forward(forward) => {
                let backend = &rules.backends[forward.backend.0 as usize];
                spread(&mut taken.shares, &of(backend)?, share);
                for (id, mirror) in &forward.mirrors {
                    let copied = share * mirror.share.as_f64();
                    spread(&mut taken.copies, &of(&rules.backends[id.0 as usize])?, copied);
                }
                let seen = forward.sent(&request);
                // Without a host of the rule's it is that of the endpoint.
                let own = || backend.reals.iter().find_map(|real| rules.outside_names.get(real));
                let host = seen.host.clone().or_else(|| own().cloned()).unwrap_or_default();
                taken.seen.push((seen.path.clone(), host, listed(&seen.headers)));
                let mut changed = headers(answer);
                forward.answer(&mut changed);
                taken.answers.push(listed(&changed));
                continue;
            }
            Decision::Redirect(answered) => {
                let location = answered.answer.headers.get(LOCATION);
                let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
                let status = u64::from(answered.answer.status.as_u16());
                taken.redirects.push((status, location.to_owned()));
                answered.answer.status
            }
            Decision::Respond(answered) | Decision::Refuse(_, answered) => answered.answer.status,
        };
        *taken.shares.entry(format!("({})", status.as_u16())).or_default() += share;
    }
    Ok(taken)
}

fn spread(shares: &mut BTreeMap<String, f64>, over: &[String], share: f64) {
    for name in over {
        *shares.entry(name.clone()).or_default() += share / over.len() as f64;
    }
}

fn request_of(stated: &Value) -> Result<Sent, String> {
    let word = |field: &str, absent: &str| text(&stated[field]).unwrap_or_else(|| absent.into());
    let (host, method) = (word("host", "called.example"), word("method", "GET"));
    Sent::to(&host, &method, &word("path", "/"), &pairs(&stated["headers"])?)
}

/// `{"name": "value"}`; a list has several values.
fn pairs(stated: &Value) -> Result<Headers, String> {
    let mut all = Headers::new();
    for (name, value) in stated.as_object().into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        let one = |value: &Value| text(value).ok_or_else(|| format!("no header: {value}"));
        match value.as_array() {
            Some(values) => {
                for value in values {
                    all.push((name.clone(), one(value)?));
                }
            }
            None => all.push((name, one(value)?)),
        }
    }
    Ok(all)
}

/// What of an expectation is not met.
fn differs(expect: &Value, times: Option<u64>, taken: &Taken) -> Result<Option<String>, String> {
    let times = times.unwrap_or(1) as f64;
    let Taken { shares, seen, answers, copies, redirects } = taken;
    let all = expect.as_object().ok_or("a request without expect")?;
    for (what, wanted) in all {
        let met = match what.as_str() {
            "distinct_instances" => {
                let distinct = shares.keys().filter(|name| !name.starts_with('(')).count();
                number(wanted) == Some(distinct as u64)
            }
            "instances" => {
                let each = wanted.as_object().into_iter().flatten();
                let mut met = true;
                for (name, bound) in each {
                    let share = shares.get(name).copied().unwrap_or(0.0);
                    met &= within(bound, times, times * share)?;
                }
                met
            }
            "seen_by_backend" => {
                let mut met = !seen.is_empty();
                for (target, host, headers) in seen {
                    met &= sees(wanted, Some((target, host)), headers)?;
                }
                met
            }
            "answer" => {
                let mut met = !answers.is_empty();
                for headers in answers {
                    met &= sees(wanted, None, headers)?;
                }
                met
            }
            "redirect" => redirects.iter().any(|(status, location)| {
                number(&wanted["status"]) == Some(*status) && wanted["location"] == **location
            }),
            "mirrored_to" => {
                let stated = wanted.as_object().ok_or("mirrored_to without instances")?;
                stated.len() == copies.len()
                    && stated.iter().all(|(name, share)| {
                        let copied = copies.get(name).copied().unwrap_or(0.0);
                        share.as_f64().is_some_and(|share| (share - copied).abs() < 1e-6)
                    })
            }
            other => return Err(format!("an unknown expectation: {other}")),
        };
        if !met {
            return Ok(Some(format!("{what} {wanted}")));
        }
    }
    Ok(None)
}

/// Whether a mean number of requests can come to what is seen in so many tries.
fn within(bound: &Value, times: f64, mean: f64) -> Result<bool, String> {
    let mut met = true;
    for (part, value) in bound.as_object().into_iter().flatten() {
        let value = value.as_f64().ok_or_else(|| format!("no bound: {bound}"))?;
        met &= match part.as_str() {
            "min" => value <= 0.0 || (mean > 0.0 && value <= times),
            "max" => mean <= value + 1e-6,
            "about" => (mean - value).abs() <= bound["tolerance"].as_f64().unwrap_or(1e-6),
            "tolerance" => true,
            other => return Err(format!("an unknown bound: {other}")),
        };
    }
    Ok(met)
}

fn sees(wanted: &Value, line: Option<(&str, &str)>, headers: &Headers) -> Result<bool, String> {
    let values = |name: &str| -> Vec<&str> {
        let name = name.to_ascii_lowercase();
        headers.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.as_str()).collect()
    };
    let mut met = true;
    for (part, value) in wanted.as_object().into_iter().flatten() {
        met &= match (part.as_str(), line) {
            ("path", Some((target, _))) => value == target,
            ("host", Some((_, host))) => value == host,
            ("headers_in_order", _) => {
                let mut all = value.as_object().into_iter().flatten();
                all.all(|(name, wanted)| *wanted == json!(values(name)))
            }
            ("absent_headers", _) => {
                array(value).iter().filter_map(Value::as_str).all(|name| values(name).is_empty())
            }
            (other, _) => return Err(format!("an unknown part of what is seen: {other}")),
        };
    }
    Ok(met)
}
