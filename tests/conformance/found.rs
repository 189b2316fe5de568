//! What a resolved route makes of a request.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use balancer_user::{
    http::{
        Answered, BackendId, Chance, Choice, Connection, Decision, Filter, Forward, Precedence,
        Readiness, Request, Router, Scheme,
    },
    policy::LoadBalancer,
    resolve::{self, Backend, BackendState, Destination, HttpRules, Route, inventory::Inventory},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::LOCATION};

use crate::{
    asked::{Asked, Asks},
    outcome::{
        HOST, Headers, NOWHERE, OWN_HOST, Outcome, Seen, answered, by_name, of_backend, redirected,
    },
};

/// A route, ready to be asked.
pub(crate) struct Found<'r> {
    route: &'r Route,
    http: Option<(&'r HttpRules, Router)>,
    inventory: &'r Inventory<'r>,
    /// Connections to what is known by a name outside the mesh are taken for requests, which ask
    /// for that name.
    own_hosts: bool,
}

impl<'r> Found<'r> {
    pub(crate) fn new(
        route: &'r Route,
        inventory: &'r Inventory<'r>,
        own_hosts: bool,
    ) -> Result<Self, String> {
        let http = match &route.http {
            Some(rules) => Some((&**rules, router(rules)?)),
            None => None,
        };
        Ok(Self { route, http, inventory, own_hosts })
    }

    /// What its rules ask, in order of precedence.
    pub(crate) fn asks(&self) -> Result<Vec<Asks>, String> {
        let Some((_, router)) = &self.http else { return Ok(vec![Asks::default()]) };
        let rules = router.rules();
        let mut placed = Vec::new();
        for (at, rule) in rules.rules.iter().enumerate() {
            if rule.matches.is_empty() {
                let anything = balancer_user::http::Match::default();
                let place = Precedence::new(rules.order, &anything, &rule.age, at, 0);
                placed.push((place, Asks::default()));
            }
            for (nth, matched) in rule.matches.iter().enumerate() {
                let written = serde_json::to_value(matched).map_err(|error| error.to_string())?;
                let place = Precedence::new(rules.order, matched, &rule.age, at, nth);
                placed.push((place, Asks::read(&written)?));
            }
        }
        placed.sort_by(|a, b| a.0.cmp(&b.0));
        let mut asks: Vec<Asks> = placed.into_iter().map(|(_, asks)| asks).collect();
        asks.extend(rules.otherwise.as_ref().map(|_| Asks::default()));
        Ok(asks)
    }

    /// Headers of requests and of answers that some rule changes.
    pub(crate) fn touched(&self) -> [BTreeSet<String>; 2] {
        let mut touched = [BTreeSet::new(), BTreeSet::new()];
        let rules = self
            .http
            .iter()
            .flat_map(|(_, router)| router.rules().rules.iter().chain(&router.rules().otherwise));
        for filter in rules.flat_map(|rule| &rule.filters) {
            let (at, changes) = match filter {
                Filter::RequestHeaders(changes) => (0, changes),
                Filter::ResponseHeaders(changes) => (1, changes),
                _ => continue,
            };
            touched[at].extend(changes.iter().map(|change| change.name().to_string()));
        }
        touched
    }

    /// What becomes of a request.
    pub(crate) fn outcome(
        &self,
        asked: &Asked,
        touched: &BTreeSet<String>,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let Some((rules, router)) = &self.http else {
            self.connections(&mut outcome, asked, touched);
            return Ok(outcome);
        };
        let sent = Sent::new(asked)?;
        let request = sent.request()?;
        let readiness = |id: BackendId| match rules.backends.get(id.0 as usize) {
            // What is there has endpoints, or `nobody` is what it comes to in any case.
            Some(backend) if !self.is_invalid(backend) => Readiness::Ready,
            _ => Readiness::Invalid,
        };
        for (share, decision) in decisions(router, &request, readiness) {
            match decision {
                Decision::Forward(forward) => {
                    let to = self.meaning(&rules.backends[forward.backend.0 as usize]);
                    if to == NOWHERE {
                        outcome.add(NOWHERE, share);
                        continue;
                    }
                    let mirrors = forward.mirrors.iter().map(|(id, mirror)| {
                        (self.meaning(&rules.backends[id.0 as usize]), mirror.share.as_f64())
                    });
                    let mirrors: Vec<_> = mirrors.filter(|(to, _)| to != NOWHERE).collect();
                    outcome.add(seen(to, &forward, &request, touched, mirrors), share);
                }
                Decision::Redirect(answer) => outcome.add(redirect(&answer), share),
                Decision::Respond(answer) | Decision::Refuse(_, answer) => {
                    outcome.add(answered(answer.answer.status.as_u16()), share);
                }
            }
        }
        Ok(outcome)
    }

    fn connections(&self, outcome: &mut Outcome, asked: &Asked, touched: &BTreeSet<String>) {
        let taking = || self.route.backends.iter().filter(|backend| backend.weight > 0);
        let sum: u64 = taking().map(|backend| u64::from(backend.weight)).sum();
        if sum == 0 || self.route.decision == resolve::Decision::Reject {
            outcome.add(NOWHERE, 1.0);
            return;
        }
        for backend in taking() {
            let share = f64::from(backend.weight) / sum as f64;
            let to = self.meaning(backend);
            if to == NOWHERE {
                outcome.add(NOWHERE, share);
                continue;
            }
            let names = self.inventory.outside_names(&backend.destination, &backend.tags);
            let own = self.own_hosts && !names.is_empty();
            let seen = Seen {
                to,
                target: asked.target(),
                host: if own { OWN_HOST } else { HOST }.to_owned(),
                headers: by_name(asked.headers.clone()),
                answer: by_name(of_backend(touched)),
                mirrors: Vec::new(),
            };
            outcome.add(seen, share);
        }
    }

    fn is_invalid(&self, backend: &Backend) -> bool {
        is_invalid(backend, self.inventory)
    }

    /// What a backend means: an object's port by its name, a service by its endpoints.
    fn meaning(&self, backend: &Backend) -> String {
        if self.is_invalid(backend) {
            return NOWHERE.to_owned();
        }
        let called = match &backend.destination {
            Destination::Tags { .. } if backend.reals.is_empty() => return NOWHERE.to_owned(),
            Destination::Tags { .. } => {
                backend.reals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            other => other.called(),
        };
        format!("{called} by {}", balancing(&self.route.load_balancer))
    }
}

/// There is no such thing, or it speaks something else. A service that is only a tag is there as
/// far as any case can tell.
pub(crate) fn is_invalid(backend: &Backend, inventory: &Inventory<'_>) -> bool {
    let known = || inventory.endpoints(&backend.destination).is_some();
    let tag = backend.destination.tag_service().is_some();
    backend.state == BackendState::Invalid && (!tag || known())
}

pub(crate) fn router(rules: &HttpRules) -> Result<Router, String> {
    Router::new(std::sync::Arc::clone(&rules.rules)).map_err(|error| error.to_string())
}

/// Every decision that can be made about a request, with its share.
pub(crate) fn decisions<'r>(
    router: &'r Router,
    request: &Request<'_>,
    readiness: impl Fn(BackendId) -> Readiness,
) -> Vec<(f64, Decision<'r>)> {
    let found = router.find(request);
    let split = found.map(|found| &found.rule.split);
    let shares: Vec<f64> = split.map(|split| split.shares().collect()).unwrap_or_default();
    let decide = |point: f64| {
        // The middle of a backend's part is far from where the parts meet.
        let choice = Choice::Number((point * 2f64.powi(64)) as u64);
        router.decide(request, Chance { backend: choice, cookie: 0 }, &readiness)
    };
    let whole: f64 = shares.iter().sum();
    if whole == 0.0 {
        return vec![(1.0, decide(0.0))];
    }
    let mut before = 0.0;
    let mut all = Vec::new();
    for share in shares.into_iter().filter(|share| *share > 0.0) {
        all.push((share, decide(before + share / 2.0)));
        before += share;
    }
    all
}

fn seen(
    to: String,
    forward: &Forward<'_>,
    request: &Request<'_>,
    touched: &BTreeSet<String>,
    mirrors: Vec<(String, f64)>,
) -> Seen {
    let sent = forward.sent(request);
    let mut answer = headers(&of_backend(touched));
    forward.answer(&mut answer);
    Seen {
        to,
        target: sent.path,
        host: sent.host.unwrap_or_else(|| OWN_HOST.to_owned()),
        headers: listed(&sent.headers),
        answer: listed(&answer),
        mirrors,
    }
}

fn redirect(answered: &Answered<'_>) -> String {
    let location = answered.answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    redirected(answered.answer.status.as_u16(), location.unwrap_or("nowhere"))
}

/// A request as a server holds it.
pub(crate) struct Sent {
    method: Method,
    target: Uri,
    headers: HeaderMap,
}

impl Sent {
    pub(crate) fn new(asked: &Asked) -> Result<Self, String> {
        Self::to(HOST, &asked.method, &asked.target(), &asked.headers)
    }

    /// A request to a host.
    pub(crate) fn to(
        host: &str,
        method: &str,
        target: &str,
        given: &[(String, String)],
    ) -> Result<Self, String> {
        let mut headers = headers(given);
        let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
        headers.insert(http::header::HOST, host);
        Ok(Self {
            method: Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?,
            target: target.parse().map_err(|error| format!("{target}: {error}"))?,
            headers,
        })
    }

    pub(crate) fn request(&self) -> Result<Request<'_>, String> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection { client, port: 80, scheme: Scheme::Http };
        Request::new(&self.method, &self.target, &self.headers, connection)
            .map_err(|error| error.to_string())
    }
}

/// As a map. What cannot stand in a header does not come up in cases.
pub(crate) fn headers(all: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in all {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// As a list, by name.
pub(crate) fn listed(map: &HeaderMap) -> Headers {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    by_name(map.iter().map(|(name, value)| (name.to_string(), shown(value))).collect())
}

/// How connections are spread, as cases say it.
pub(crate) fn balancing(load_balancer: &LoadBalancer) -> &'static str {
    match load_balancer {
        LoadBalancer::RoundRobin => "roundRobin",
        LoadBalancer::LeastRequest { .. } => "leastRequest",
        LoadBalancer::RingHash { .. } => "ringHash",
        LoadBalancer::Random => "random",
        LoadBalancer::Maglev => "maglev",
    }
}
