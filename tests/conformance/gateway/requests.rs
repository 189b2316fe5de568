//! What becomes of requests: the answer, what the backend sees, what the client sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use balancer_user::{
    http::{
        Answer, Chance, Choice, Connection, Decision, Forward, Request, Router, Scheme, header_name,
    },
    policy::{
        PolicySet,
        gateway::{Gateway, Listener, ListenerProtocol, ParentRef},
    },
    resolve::{Destination, HttpRules, Resolved, Resolver, VipKey, inventory::Family, resolve},
};
use http::{HeaderMap, HeaderValue, Method, Uri, header::LOCATION};
use serde_json::Value;

use super::{
    cluster::{cluster, gateway_address},
    tries::Behaviour,
};
use crate::{
    cases::Verdict,
    resources::{array, text},
    routing::settings,
};

/// How often a request is sent: every backend that it could go to must be right.
const TURNS: u64 = 4;

/// What is asked, and whom.
struct Front {
    rules: HttpRules,
    router: Router,
    connection: Connection,
    /// The host of a request that names none.
    host: String,
}

/// What becomes of one request.
struct Outcome {
    status: u16,
    backend: Option<Destination>,
    sent: Option<(String, Option<String>, HeaderMap)>,
    mirrors: BTreeMap<String, f64>,
    answer: HeaderMap,
}

/// Judges every request of a case.
pub(super) fn requests(
    case: &Value,
    manifests: &str,
    requests: &[&Value],
) -> Result<Verdict, String> {
    let set = cluster(manifests, &without_pods(case))?;
    let resolved = resolve(&set, &settings());
    for (at, request) in requests.iter().enumerate() {
        let front = front(&set, &resolved, request)?;
        for turn in 0..TURNS {
            let found = front.differences(request, turn)?;
            if !found.is_empty() {
                return Ok(Verdict::Failed {
                    expected: format!("request {at}: {}", request["expect"]),
                    found: found.join("; "),
                });
            }
        }
    }
    Ok(Verdict::Passed)
}

/// As many requests as the case makes, in turn: which Service takes which share. What no backend
/// answers goes by its code.
pub(super) fn distribution(
    case: &Value,
    manifests: &str,
    wanted: &Value,
) -> Result<Verdict, String> {
    let number = wanted["requests"].as_u64().ok_or("a distribution without requests")?;
    let tolerance = wanted["absolute_tolerance"].as_f64().ok_or("no absolute_tolerance")?;
    let shares = wanted["share"].as_object().ok_or("a distribution without share")?;
    let set = cluster(manifests, &without_pods(case))?;
    let resolved = resolve(&set, &settings());
    let front = front(&set, &resolved, wanted)?;
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for turn in 0..number {
        let outcome = front.outcome(wanted, turn)?;
        let name = outcome.backend.as_ref().and_then(service).map(|(_, name)| name);
        *taken.entry(name.unwrap_or_else(|| outcome.status.to_string())).or_default() += 1;
    }
    let share = |name: &str| taken.get(name).copied().unwrap_or(0) as f64 / number as f64;
    let right = shares.iter().all(|(name, wanted)| {
        let wanted = wanted.as_f64().unwrap_or(f64::NAN);
        // A weight of 0 takes nothing at all.
        if wanted == 0.0 { share(name) == 0.0 } else { (share(name) - wanted).abs() <= tolerance }
    });
    if right && taken.keys().all(|name| shares.contains_key(name)) {
        return Ok(Verdict::Passed);
    }
    Ok(Verdict::Failed { expected: format!("{shares:?}"), found: format!("{taken:?}") })
}

/// Services that the case leaves without pods.
fn without_pods(case: &Value) -> Vec<&str> {
    array(&case["services_without_pods"]).iter().filter_map(Value::as_str).collect()
}

/// Whom a request is sent to: a port of a Service, else a listener of a Gateway, else one that the
/// first route names.
fn front(set: &PolicySet, resolved: &Resolved, asked: &Value) -> Result<Front, String> {
    if asked["service"].is_object() {
        return service_front(set, asked);
    }
    let of = |value: &Value| text(value).unwrap_or_default();
    let named = &asked["gateway"];
    let parent = first_parent(set);
    let (namespace, name) = match (named.is_object(), parent) {
        (true, _) => (of(&named["namespace"]), of(&named["name"])),
        (false, Some(parent)) => (parent.namespace.clone(), parent.name.clone()),
        (false, None) => return Err("neither the case nor a route names a Gateway".to_owned()),
    };
    let at = set
        .gateways
        .iter()
        .position(|gateway| gateway.meta.object() == (namespace.as_str(), name.as_str()))
        .ok_or_else(|| format!("there is no Gateway {namespace}/{name}"))?;
    let section = parent.filter(|_| !named.is_object()).and_then(|one| one.section.as_deref());
    let listener = listener(&set.gateways[at], asked, section)?;
    let scheme = match listener.protocol {
        ListenerProtocol::Https => Scheme::Https,
        _ => Scheme::Http,
    };
    let addr = SocketAddr::new(gateway_address(at), listener.port.get());
    let rules = match scheme {
        Scheme::Http => {
            let vip = resolved.vips.iter().find(|vip| vip.key == VipKey::tcp(addr));
            let vip = vip.ok_or_else(|| format!("no VIP {addr} of {namespace}/{name}"))?;
            resolved.routes[vip.route].http.as_deref().cloned()
        }
        // Nothing is dialled there, as TLS is not terminated; what would become of requests is
        // resolved all the same.
        Scheme::Https => {
            let settings = settings();
            let resolver = Resolver::new(set, &settings);
            let destination = Destination::listener(&namespace, &name, &listener.name);
            let route = resolver.object_route(&destination, None, Family::V4);
            route.http.as_deref().cloned()
        }
    };
    Front::new(rules, addr, scheme)
}

fn first_parent(set: &PolicySet) -> Option<&ParentRef> {
    let http = set.http_routes.iter().flat_map(|route| &route.parents);
    let grpc = set.grpc_routes.iter().flat_map(|route| &route.parents);
    http.chain(grpc).next()
}

/// The listener that is meant; where none is said, the first that tells requests apart.
fn listener<'g>(
    gateway: &'g Gateway,
    asked: &Value,
    section: Option<&str>,
) -> Result<&'g Listener, String> {
    let name = array(&asked["gateway"]["listeners"]).first();
    let name = name.and_then(|one| text(one).or_else(|| text(&one["name"])));
    let name = name.or(section.map(str::to_owned));
    let https = text(&asked["request"]["scheme"]).as_deref() == Some("https");
    let means = |listener: &&Listener| match (&name, &listener.protocol) {
        (Some(name), _) => listener.name == *name,
        (None, ListenerProtocol::Https) => https,
        (None, ListenerProtocol::Http) => !https,
        _ => false,
    };
    let found = gateway.listeners.iter().find(means).or_else(|| gateway.listeners.first());
    found.ok_or_else(|| "a Gateway without listeners".to_owned())
}

/// A port of a Service as clients of a namespace reach it: `{namespace, name, port}`, `from`.
fn service_front(set: &PolicySet, asked: &Value) -> Result<Front, String> {
    let named = &asked["service"];
    let (namespace, name) = (text(&named["namespace"]), text(&named["name"]));
    let port = named["port"].as_u64().and_then(|port| u16::try_from(port).ok()?.try_into().ok());
    let (Some(namespace), Some(name), Some(port)) = (namespace, name, port) else {
        return Err(format!("{named} is no port of a Service"));
    };
    let settings = settings();
    let resolver = Resolver::new(set, &settings);
    let destination = Destination::service(&namespace, &name, port);
    let from = text(&asked["from"]);
    let route = resolver.object_route(&destination, from.as_deref(), Family::V4);
    let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), port.get());
    Front::new(route.http.as_deref().cloned(), addr, Scheme::Http)
}

impl Front {
    fn new(rules: Option<HttpRules>, addr: SocketAddr, scheme: Scheme) -> Result<Self, String> {
        let rules = rules.ok_or_else(|| format!("requests to {addr} are not told apart"))?;
        let router =
            Router::new(std::sync::Arc::clone(&rules.rules)).map_err(|bad| bad.to_string())?;
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));
        let connection = Connection { client, port: addr.port(), scheme };
        let host = match addr.port() == scheme.port() {
            true => addr.ip().to_string(),
            false => addr.to_string(),
        };
        Ok(Self { rules, router, connection, host })
    }

    fn outcome(&self, case: &Value, turn: u64) -> Result<Outcome, String> {
        let asked = &case["request"];
        let method = text(&asked["method"]).unwrap_or_else(|| "GET".to_owned());
        let method: Method = method.parse().map_err(|_| format!("{method} is no method"))?;
        let path = text(&asked["path"]).unwrap_or_else(|| "/".to_owned());
        let target: Uri = path.parse().map_err(|_| format!("{path} is no path"))?;
        let mut headers = headers(&asked["headers"])?;
        let host = text(&asked["host"]).unwrap_or_else(|| self.host.clone());
        let host = HeaderValue::from_str(&host).map_err(|_| format!("{host} is no host"))?;
        headers.insert(http::header::HOST, host);
        let request = Request::new(&method, &target, &headers, self.connection)
            .map_err(|bad| bad.to_string())?;
        let chance = Chance { backend: Choice::Turn(turn), cookie: 0 };
        let decision = self.router.decide(&request, chance, |id| self.rules.readiness(id));
        Ok(match decision {
            Decision::Forward(forward) => self.forwarded(&forward, &request, case)?,
            Decision::Redirect(done) | Decision::Respond(done) | Decision::Refuse(_, done) => {
                let Answer { status, headers: answer } = done.answer;
                let status = status.as_u16();
                Outcome { status, backend: None, sent: None, mirrors: BTreeMap::new(), answer }
            }
        })
    }

    /// What comes of a request that a backend takes.
    fn forwarded(
        &self,
        forward: &Forward<'_>,
        request: &Request<'_>,
        case: &Value,
    ) -> Result<Outcome, String> {
        let destination = |id: balancer_user::http::BackendId| {
            self.rules.backends[id.0 as usize].destination.clone()
        };
        let sent = forward.sent(request);
        let mut answer = headers(&case["backend_response_headers"])?;
        forward.answer(&mut answer);
        let mirrors = forward.mirrors.iter().map(|(id, mirror)| {
            let (namespace, name) = service(&destination(*id)).unwrap_or_default();
            (format!("{namespace}/{name}"), mirror.share.as_f64() * 100.0)
        });
        let status = Behaviour::of(case, request.parameter("delay"))?.answers(forward);
        Ok(Outcome {
            status: status.as_u16(),
            backend: Some(destination(forward.backend)),
            sent: Some((sent.path, sent.host, sent.headers)),
            mirrors: mirrors.collect(),
            answer,
        })
    }

    /// In what the outcome differs from what the case expects.
    fn differences(&self, case: &Value, turn: u64) -> Result<Vec<String>, String> {
        let expect = &case["expect"];
        let outcome = self.outcome(case, turn)?;
        let mut found = Vec::new();
        let mut check = |what: &str, wanted: &dyn std::fmt::Debug, got: String, right: bool| {
            if !right {
                found.push(format!("{what}: {got}, not {wanted:?}"));
            }
        };
        let statuses: Vec<u64> =
            array(&expect["status_any_of"]).iter().filter_map(Value::as_u64).collect();
        let status = u64::from(outcome.status);
        // The suite takes either of them for a request that took too long.
        let late = statuses.contains(&408) && status == 504;
        let is_right = statuses.contains(&status) || late;
        check("status", &statuses, status.to_string(), is_right);
        let backend = outcome.backend.as_ref().and_then(service);
        if let Some(wanted) = text(&expect["backend"]) {
            let right = backend.as_ref().is_some_and(|(_, name)| *name == wanted);
            check("backend", &wanted, format!("{backend:?}"), right);
        }
        if let Some(wanted) = text(&expect["backend_namespace"]) {
            let right = backend.as_ref().is_some_and(|(namespace, _)| *namespace == wanted);
            check("backend's namespace", &wanted, format!("{backend:?}"), right);
        }
        let seen = &expect["seen_by_backend"];
        if seen.is_object() {
            match &outcome.sent {
                None => check("seen by the backend", seen, "nothing".to_owned(), false),
                Some((path, host, headers)) => {
                    if let Some(wanted) = text(&seen["path"]) {
                        check("path", &wanted, path.clone(), *path == wanted);
                    }
                    if let Some(wanted) = text(&seen["host"]) {
                        let right = host.as_ref() == Some(&wanted);
                        check("host", &wanted, format!("{host:?}"), right);
                    }
                    if let Some(wanted) = text(&seen["method"]) {
                        let own = text(&case["request"]["method"]);
                        let own = own.unwrap_or_else(|| "GET".to_owned());
                        check("method", &wanted, own.clone(), own == wanted);
                    }
                    header_differences(seen, headers, &mut check)?;
                }
            }
        }
        header_differences(&expect["response"], &outcome.answer, &mut check)?;
        if expect["redirect"].is_object() {
            redirect(&expect["redirect"], case, self, &outcome, &mut check)?;
        }
        if let Some(wanted) = expect["mirrored_to"].as_array() {
            let wanted: BTreeMap<String, f64> = wanted
                .iter()
                .map(|one| {
                    let of = |name: &str| text(&one[name]).unwrap_or_default();
                    let share = one["percent"].as_f64().unwrap_or(100.0);
                    (format!("{}/{}", of("namespace"), of("backend")), share)
                })
                .collect();
            let near = |name: &String, share: &f64| {
                outcome.mirrors.get(name).is_some_and(|own| (own - share).abs() < 0.001)
            };
            let right = wanted.len() == outcome.mirrors.len()
                && wanted.iter().all(|(name, share)| near(name, share));
            check("mirrors", &wanted, format!("{:?}", outcome.mirrors), right);
        }
        Ok(found)
    }
}

/// What is told of a difference: what, what was wanted, what was found, and whether it is right.
type Check<'c> = dyn FnMut(&str, &dyn std::fmt::Debug, String, bool) + 'c;

/// `headers`, `headers_any_of` and `absent_headers`.
fn header_differences(
    expect: &Value,
    found: &HeaderMap,
    check: &mut Check<'_>,
) -> Result<(), String> {
    let loosely = expect["ignore_whitespace"].as_bool().unwrap_or(false);
    let plain = |value: &str| match loosely {
        true => value.chars().filter(|c| !c.is_whitespace()).collect(),
        false => value.to_owned(),
    };
    let joined = |name: &str| -> Result<Option<String>, String> {
        let name = header_name(name).map_err(|bad| bad.to_string())?;
        let values: Vec<String> = found
            .get_all(&name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        Ok((!values.is_empty()).then(|| plain(&values.join(","))))
    };
    let one = expect["headers"].as_object().into_iter().flatten();
    let any = expect["headers_any_of"].as_object().into_iter().flatten();
    for (name, wanted) in one.chain(any) {
        let wanted: BTreeSet<String> = match wanted.as_array() {
            Some(several) => several.iter().filter_map(text).map(|one| plain(&one)).collect(),
            None => text(wanted).map(|one| plain(&one)).into_iter().collect(),
        };
        let own = joined(name)?;
        let right = own.as_ref().is_some_and(|own| wanted.contains(own));
        check(name, &wanted, format!("{own:?}"), right);
    }
    for name in array(&expect["absent_headers"]).iter().filter_map(text) {
        let own = joined(&name)?;
        check(&name, &"absent", format!("{own:?}"), own.is_none());
    }
    Ok(())
}

/// Where a client is sent: what is absent is that of the request.
fn redirect(
    expect: &Value,
    case: &Value,
    front: &Front,
    outcome: &Outcome,
    check: &mut Check<'_>,
) -> Result<(), String> {
    let location = outcome.answer.get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        check("location", expect, "none".to_owned(), false);
        return Ok(());
    };
    let uri: Uri = location.parse().map_err(|_| format!("{location} is no location"))?;
    let asked_host = text(&case["request"]["host"]).unwrap_or_else(|| front.host.clone());
    let asked_host = asked_host.split(':').next().unwrap_or_default().to_owned();
    let asked_path = text(&case["request"]["path"]).unwrap_or_else(|| "/".to_owned());
    let asked_path = asked_path.split('?').next().unwrap_or_default().to_owned();
    let scheme = text(&expect["scheme"]).unwrap_or_else(|| front.connection.scheme.to_string());
    let own = scheme.to_ascii_lowercase();
    check("scheme", &own, location.to_owned(), uri.scheme_str() == Some(&own));
    let host = text(&expect["host"]).unwrap_or(asked_host);
    check("host", &host, location.to_owned(), uri.host() == Some(&host));
    let path = text(&expect["path"]).unwrap_or(asked_path);
    check("path", &path, location.to_owned(), uri.path() == path);
    let usual = if own == "https" { 443 } else { 80 };
    let wanted = text(&expect["port"]).filter(|port| !port.is_empty());
    let wanted = wanted.or_else(|| expect["port"].as_u64().map(|port| port.to_string()));
    let right = match (&wanted, uri.port_u16()) {
        (Some(wanted), Some(port)) => *wanted == port.to_string(),
        (Some(wanted), None) => *wanted == usual.to_string(),
        (None, port) => port.is_none_or(|port| port == usual),
    };
    check("port", &wanted, location.to_owned(), right);
    if let Some(query) = text(&expect["query"]) {
        check("query", &query, location.to_owned(), uri.query() == Some(&query));
    }
    Ok(())
}

/// Namespace and name of a Service.
fn service(destination: &Destination) -> Option<(String, String)> {
    match destination {
        Destination::Service { namespace, name, .. } => {
            Some((namespace.to_string(), name.to_string()))
        }
        _ => None,
    }
}

fn headers(written: &Value) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in written.as_object().into_iter().flatten() {
        let name = header_name(name).map_err(|bad| bad.to_string())?;
        let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in several.iter().filter_map(text) {
            let value = HeaderValue::from_str(&value).map_err(|bad| bad.to_string())?;
            headers.append(&name, value);
        }
    }
    Ok(headers)
}
