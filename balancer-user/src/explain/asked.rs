//! The HTTP rules of a route, asked about a request.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ::http::header::HeaderName;

use super::{
    Query, QueryError, Source,
    answer::{
        BackendAnswer, Decision, PolicyAnswer, RealAnswer, RequestAnswer, ResponseAnswer,
        RuleAnswer,
    },
    described::{self, Described},
};
use crate::{
    http::{
        self, Answered, Chance, Choice, Connection, Filter, Forward, Found, Host, Hostname,
        Language, Nowhere, Readiness, Request, Router, Rule, Scheme,
    },
    resolve::{BackendState, Destination, HttpRules, PolicyRef, Vip, VipProtocol},
};

/// The HTTP rules that a source's requests to a VIP meet.
pub(super) struct HttpRoute<'r> {
    pub(super) rules: &'r HttpRules,
    pub(super) router: Router,
    pub(super) connection: Connection,
    /// As described, with what was not said filled in.
    pub(super) described: Described,
}

/// What becomes of the request that was described.
pub(super) struct Asked {
    pub(super) policy: Option<PolicyAnswer>,
    pub(super) rule: Option<RuleAnswer>,
    pub(super) outcome: Outcome,
}

/// What becomes of a request, over all shares of the rule that takes it.
pub(super) struct Outcome {
    pub(super) decision: Decision,
    pub(super) backends: Vec<BackendAnswer>,
    /// The place of the backend that sees `request`, or that is why the answer is an error.
    pub(super) shown: Option<usize>,
    pub(super) request: Option<RequestAnswer>,
    pub(super) response: Option<ResponseAnswer>,
}

impl<'r> HttpRoute<'r> {
    /// The rules of a route; `None`: it has none, or no request can come this way. `listener`: the
    /// hosts of the one that the question names.
    pub(super) fn new(
        query: &Query,
        vip: &Vip,
        source: &'r Source<'_>,
        listener: Option<&Hostname>,
    ) -> Result<Option<Self>, QueryError> {
        let rules = source.route.http.as_deref();
        let Some(rules) = rules.filter(|_| vip.key.protocol == VipProtocol::Tcp) else {
            return Ok(None);
        };
        let router = Router::new(Arc::clone(&rules.rules))
            .map_err(|error| QueryError { message: error.to_string(), candidates: Vec::new() })?;
        let connection = Connection {
            client: source.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: vip.key.addr.port(),
            scheme: Scheme::Http,
        };
        let host = dialled_host(&query.to, vip, listener);
        let described = Described::new(&query.request.clone().unwrap_or_default(), &host)?;
        Ok(Some(Self { rules, router, connection, described }))
    }

    /// What becomes of the request that was described; `None`: none was.
    pub(super) fn ask(&self, query: &Query) -> Result<Option<Asked>, QueryError> {
        if query.request.is_none() {
            return Ok(None);
        }
        let request = self.request()?;
        let found = self.router.find(&request);
        let rule = found.and_then(|found| {
            let matches = Some(found.matched.clone());
            Some(RuleAnswer { index: found.place?.rule, matches })
        });
        Ok(Some(Asked {
            policy: found.and_then(|found| self.policy(found)).map(PolicyAnswer::from),
            rule,
            outcome: self.outcome(&self.router, &self.described)?,
        }))
    }

    /// In what answers to the request are understood that no backend gives.
    pub(super) fn language(&self) -> Language {
        Language::of(self.described.headers())
    }

    pub(super) fn request(&self) -> Result<Request<'_>, QueryError> {
        self.described.request(self.connection)
    }

    /// The policy that gave what takes a request. What is there for the rest is there because of
    /// the one that goes first.
    pub(super) fn policy(&self, found: Found<'_>) -> Option<&'r PolicyRef> {
        match found.place {
            Some(place) => self.rules.policy_of(place.rule),
            None => self.rules.policies.first(),
        }
    }

    /// What becomes of a request by the rules of `router`, which lead where those of the route do.
    pub(super) fn outcome(
        &self,
        router: &Router,
        described: &Described,
    ) -> Result<Outcome, QueryError> {
        let request = described.request(self.connection)?;
        let rule = router.find(&request).map(|found| found.rule);
        let backends = rule.map(|rule| self.backends(rule)).unwrap_or_default();
        let largest = |is: &dyn Fn(BackendState) -> bool| {
            let mut largest: Option<usize> = None;
            for (at, backend) in backends.iter().enumerate().filter(|(_, b)| is(b.state)) {
                // Of several alike the first.
                if largest.is_none_or(|largest| backend.weight > backends[largest].weight) {
                    largest = Some(at);
                }
            }
            largest
        };
        let shown = largest(&|state| state == BackendState::Ok)
            .or_else(|| largest(&|state| state != BackendState::Drained));
        let choice = rule.zip(shown).and_then(|(rule, at)| rule.split.choice(at));
        let chance = Chance { backend: choice.unwrap_or(Choice::Number(0)), cookie: 0 };
        let answered = |decision, answered: &Answered<'_>, why: Option<Nowhere>| {
            let headers = &answered.answer.headers;
            let response = ResponseAnswer {
                status: Some(answered.answer.status.as_u16()),
                location: described::location(headers),
                headers: described::pairs(headers),
                removed: Vec::new(),
                why: why.map(|why| why.to_string()),
            };
            (decision, None, Some(response))
        };
        let readiness = |id| self.rules.readiness(id);
        let decided = router.decide(&request, chance, readiness);
        let (decision, seen, response) = match &decided {
            http::Decision::Forward(to) => {
                (Decision::Forward, Some(self.seen(to, &request, described)), changed(to))
            }
            http::Decision::Redirect(answer) => answered(Decision::Redirect, answer, None),
            http::Decision::Respond(answer) => answered(Decision::Respond, answer, None),
            http::Decision::Refuse(why, answer) => answered(Decision::Reject, answer, Some(*why)),
        };
        let asks_nobody = matches!(decision, Decision::Redirect | Decision::Respond);
        Ok(Outcome {
            decision,
            shown: shown.filter(|_| !asks_nobody),
            backends: if asks_nobody { Vec::new() } else { backends },
            request: seen,
            response,
        })
    }

    /// The backends of a rule with their shares; none of a rule that answers by itself.
    pub(super) fn backends(&self, rule: &Rule) -> Vec<BackendAnswer> {
        if rule.filters.iter().any(|f| matches!(f, Filter::Redirect(_) | Filter::Respond(_))) {
            return Vec::new();
        }
        let split = rule.split.backends().iter().zip(rule.split.shares());
        split
            .map(|(backend, share)| {
                let known = self.known(backend.destination);
                let state = match backend.destination {
                    _ if backend.weight == 0 => BackendState::Drained,
                    http::Destination::Invalid => BackendState::Invalid,
                    http::Destination::Backend(id) => match self.rules.readiness(id) {
                        Readiness::Ready => BackendState::Ok,
                        Readiness::Empty => BackendState::Empty,
                        Readiness::Invalid => BackendState::Invalid,
                    },
                };
                let shown = matches!(state, BackendState::Ok | BackendState::Drained);
                let reals = known.filter(|_| shown).map_or(&[][..], |known| &known.reals);
                let each = share / reals.len().max(1) as f64;
                let real =
                    |real: &SocketAddr| RealAnswer { address: real.to_string(), share: each };
                BackendAnswer {
                    service: known.map_or(String::new(), |known| known.destination.to_string()),
                    kind: known.and_then(|known| known.destination.object_kind()),
                    tags: known.map(|known| known.tags.clone()).unwrap_or_default(),
                    weight: backend.weight,
                    share,
                    state,
                    reals: reals.iter().map(real).collect(),
                }
            })
            .collect()
    }

    /// What a reference of a rule leads to.
    pub(super) fn known(
        &self,
        destination: http::Destination,
    ) -> Option<&'r crate::resolve::Backend> {
        match destination {
            http::Destination::Backend(id) => self.rules.backends.get(id.0 as usize),
            http::Destination::Invalid => None,
        }
    }

    fn seen(
        &self,
        to: &Forward<'_>,
        request: &Request<'_>,
        described: &Described,
    ) -> RequestAnswer {
        let sent = to.sent(request);
        let own_name = || {
            let known = self.known(http::Destination::Backend(to.backend));
            let real = known.and_then(|known| known.reals.first());
            real.map_or(String::new(), |real| match self.rules.outside_names.get(real) {
                Some(name) => name.clone(),
                None => real.to_string(),
            })
        };
        let added: Vec<&HeaderName> = to.request_headers.iter().map(|c| c.name()).collect();
        RequestAnswer {
            method: request.method.to_owned(),
            headers: described.in_order(&sent.headers, &added),
            path: sent.path,
            host: sent.host.unwrap_or_else(own_name),
        }
    }
}

/// How a backend's answer is changed; `None`: it is not.
fn changed(to: &Forward<'_>) -> Option<ResponseAnswer> {
    let mut headers = ::http::HeaderMap::new();
    to.answer(&mut headers);
    let mut response = ResponseAnswer::default();
    let mut done: Vec<&HeaderName> = Vec::new();
    for change in &to.response_headers {
        let name = change.name();
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let values = described::values(&headers, name);
        if values.is_empty() {
            response.removed.push(name.to_string());
        }
        response.headers.extend(values);
    }
    (!to.response_headers.is_empty()).then_some(response)
}

/// The host of a request whose host was not said: the name that was dialled, one that a listener of
/// that name is for, or the address.
fn dialled_host(to: &str, vip: &Vip, listener: Option<&Hostname>) -> String {
    let bare = to.trim_start_matches('[').trim_end_matches(']');
    let by_address = to.parse::<crate::resolve::VipKey>().is_ok() || bare.parse::<IpAddr>().is_ok();
    let named = match &vip.destination {
        _ if by_address => None,
        Destination::Tags { service, .. } => Some(service.to_string()),
        Destination::Port { name, .. } => Some(name.to_string()),
        Destination::Service { namespace, name, .. } => Some(format!("{name}.{namespace}")),
        Destination::Listener { .. } => match listener {
            Some(Hostname::Exact(name)) => Some(name.to_string()),
            Some(Hostname::Below(name)) => Some(format!("any.{name}")),
            Some(Hostname::Any) | None => None,
        },
        Destination::Missing { .. } => None,
    };
    named.filter(|name| Host::new(name).is_ok()).unwrap_or_else(|| {
        let addr = vip.key.addr;
        match (addr.ip(), addr.port()) {
            (IpAddr::V4(ip), 80) => ip.to_string(),
            (IpAddr::V6(ip), 80) => format!("[{ip}]"),
            _ => addr.to_string(),
        }
    })
}
