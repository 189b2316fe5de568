//! The sentences about HTTP rules: which was looked at, which took the request and why, and what it
//! does with it.

use super::{
    RequestQuery,
    answer::Decision,
    asked::{Asked, HttpRoute},
    backends::{code, percent},
    steps::{Told, counted},
};
use crate::{
    http::{Considered, Filter, Found, Nowhere, Order, Rule},
    resolve::{HttpRules, VipProtocol},
};

/// Matches that do not take a request, or rules, that are told one by one at most.
const TOLD: usize = 20;

impl Told<'_, '_> {
    /// What the HTTP rules of the route do: with the request that was described, or each of them.
    pub(super) fn http(&self, http: &HttpRoute<'_>, asked: Option<&Asked>) -> Vec<String> {
        let mut steps = vec![order(http.rules)];
        match (asked, http.request()) {
            (Some(asked), Ok(request)) => {
                steps.push(format!("request: {}", http.described.words(&request)));
                let why = http.router.why(&request);
                steps.extend(considered(&why));
                let found = http.router.find(&request);
                steps.push(taken(http, why.last(), found));
                if let Some(found) = found {
                    steps.extend(self.done(http, asked, found));
                }
            }
            _ => {
                steps.extend(listed(http));
                steps.push(
                    "http: describe a request to see what becomes of it: --method, --path, --host, \
                     --header"
                        .to_owned(),
                );
            }
        }
        steps
    }

    /// What the rule that takes the request does with it.
    fn done(&self, http: &HttpRoute<'_>, asked: &Asked, found: Found<'_>) -> Vec<String> {
        let rule = found.rule;
        let merged = self.merged(found);
        let words = rule.words(|to| http.name(to));
        let does = words.iter().map(|words| format!("does: {words}"));
        let mut steps: Vec<String> = merged.into_iter().chain(does).collect();
        match asked.outcome.decision {
            Decision::Redirect => return steps,
            Decision::Respond => {
                if !rule.filters.iter().any(|filter| matches!(filter, Filter::Respond(_))) {
                    steps.push(
                        "does: it is a preflight request (CORS), answered without a backend"
                            .to_owned(),
                    );
                }
                return steps;
            }
            Decision::Forward | Decision::Reject | Decision::Direct => {}
        }
        if let (Some(policy), Some(place)) = (self.source.traffic_route(), found.place) {
            let entry = policy.conf.http.get(place.rule);
            let split = entry.map_or(&[][..], |entry| &entry.split);
            steps.extend(split.iter().filter_map(|entry| self.wildcards(entry)));
        }
        steps.extend(self.http_backends(http, found, asked.outcome.shown));
        steps.extend(self.mirrors(http, found));
        if rule.split.sum() == 0 {
            let language = http.language();
            steps.push(format!(
                "http: {}, so it is answered with {}",
                Nowhere::NoBackend,
                code(Nowhere::NoBackend, language)
            ));
        }
        let led_to = rule.split.backends().iter().filter_map(|b| http.known(b.destination));
        let led_to: Vec<_> = led_to.cloned().collect();
        steps.extend(self.locality(&led_to));
        steps
    }

    /// Mirrors that a route is refused.
    fn mirrors(&self, http: &HttpRoute<'_>, found: Found<'_>) -> Vec<String> {
        let of_backends = found.rule.split.backends().iter().flat_map(|backend| &backend.filters);
        let mirrors =
            found.rule.filters.iter().chain(of_backends).filter_map(|filter| match filter {
                Filter::Mirror(mirror) => Some(mirror.destination),
                _ => None,
            });
        let refused = mirrors.filter_map(|to| {
            let why = self.why_refused(http.policy(found), &http.known(to)?.destination)?;
            Some(format!("mirror {}: {why}, so no copy of a request is sent", http.name(to)))
        });
        refused.collect()
    }

    /// What there is to say of requests where no HTTP rule applies.
    pub(super) fn no_http(&self) -> Vec<String> {
        let has_http = self.source.traffic_route().filter(|policy| !policy.conf.http.is_empty());
        let mut steps = Vec::new();
        if let Some(policy) = has_http {
            let service = self.resolver.inventory.endpoints(&self.vip.destination);
            let protocol = match self.vip.key.protocol {
                VipProtocol::Tcp => service.map_or("tcp", |service| service.protocol().name()),
                VipProtocol::Udp => "udp",
            };
            steps.push(format!(
                "http: the http section of {} ({}) has no effect: the service is handled as \
                 {protocol}",
                policy.meta.name,
                counted(policy.conf.http.len(), "entry", "entries")
            ));
        }
        steps.extend(self.query.request.as_ref().map(|request| {
            format!(
                "http: {} makes no difference: this route tells no requests apart",
                request_text(request)
            )
        }));
        steps
    }
}

/// How the rules are ordered.
fn order(rules: &HttpRules) -> String {
    let list = &rules.rules;
    let matches = list.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    let how = match list.order {
        Order::Listed => "tried as they are written",
        Order::Mesh => {
            "tried by path (exact, long prefix, long pattern), method, number of headers and of \
             query parameters, then as they are merged"
        }
        Order::Gateway => {
            "tried by hostname, path (exact, long prefix, long pattern; of calls the length of service \
             and of method), method, number of headers and of query parameters, then by age and \
             name of their route"
        }
    };
    format!(
        "http: {} with {}, {how}",
        counted(list.rules.len(), "rule", "rules"),
        counted(matches, "match", "matches")
    )
}

/// The matches that do not take the request, in the order in which they are tried.
fn considered(why: &[Considered<'_>]) -> Vec<String> {
    let not: Vec<&Considered<'_>> = why.iter().filter(|one| !one.differs.is_empty()).collect();
    let mut steps: Vec<String> = not
        .iter()
        .take(TOLD)
        .map(|one| {
            let differs: Vec<String> = one.differs.iter().map(ToString::to_string).collect();
            format!("http: not {}: {}", which(one.listed.found), differs.join("; "))
        })
        .collect();
    if not.len() > TOLD {
        steps.push(format!("http: {} more do not take it", not.len() - TOLD));
    }
    steps
}

/// Who takes the request, and why it is asked before the next one.
fn taken(http: &HttpRoute<'_>, last: Option<&Considered<'_>>, found: Option<Found<'_>>) -> String {
    let language = http.language();
    match (found, last) {
        (None, _) => {
            let answer = code(Nowhere::NoRule, language);
            format!("http: {}, so it is answered with {answer}", Nowhere::NoRule)
        }
        (Some(Found { place: Some(_), matched, .. }), Some(last)) => {
            let before = match last.listed.before_next {
                Some(criterion) => format!("; it is tried before the next one: {criterion}"),
                None => String::new(),
            };
            format!("http: {} takes it ({matched}){before}", which(last.listed.found))
        }
        (Some(found), _) => {
            format!("http: no match takes it; for the rest there is {}", which(found))
        }
    }
}

/// `rule 0 (TrafficRoute shop: conf.http[0])`.
fn which(found: Found<'_>) -> String {
    let origin = &found.rule.origin;
    match found.place {
        Some(place) if found.rule.matches.len() > 1 => {
            format!("rule {}, match {} ({origin})", place.rule, place.at)
        }
        Some(place) => format!("rule {} ({origin})", place.rule),
        None => origin.clone(),
    }
}

/// Every match in the order in which they are tried, and what becomes of its requests.
fn listed(http: &HttpRoute<'_>) -> Vec<String> {
    let mut all = 0;
    let mut steps = Vec::new();
    for listed in http.router.listed() {
        all += 1;
        if all > TOLD {
            continue;
        }
        let host = match listed.hostname {
            crate::http::Hostname::Any => String::new(),
            name => format!("host {name}, "),
        };
        steps.push(format!(
            "http: {} takes {host}{}: {}",
            which(listed.found),
            listed.found.matched,
            outcome(http, listed.found.rule)
        ));
    }
    if all > TOLD {
        steps.push(format!("http: {} more come after these; --all has them", all - TOLD));
    }
    steps.push(match &http.rules.rules.otherwise {
        Some(rule) => format!("http: {} takes the rest: {}", rule.origin, outcome(http, rule)),
        None => {
            let answer = code(Nowhere::NoRule, http.language());
            format!("http: a request that none of them takes is answered with {answer}")
        }
    });
    steps
}

/// Who gets which share of a rule's requests, or what answers them.
fn outcome(http: &HttpRoute<'_>, rule: &Rule) -> String {
    let answers = |filter: &&Filter| matches!(filter, Filter::Redirect(_) | Filter::Respond(_));
    if let Some(filter) = rule.filters.iter().find(answers) {
        return filter.words(|to| http.name(to));
    }
    let split = rule.split.backends().iter().zip(rule.split.shares());
    let parts: Vec<String> = split
        .map(|(backend, share)| format!("{} {}", http.name(backend.destination), percent(share)))
        .collect();
    if parts.is_empty() { Nowhere::NoBackend.to_string() } else { parts.join(", ") }
}

fn request_text(request: &RequestQuery) -> String {
    let parts = [
        request.method.as_ref().map(|method| format!("method {method}")),
        request.path.as_ref().map(|path| format!("path {path}")),
        request.host.as_ref().map(|host| format!("host {host}")),
    ];
    let headers = request.headers.iter().map(|(name, value)| format!("header {name}: {value}"));
    let all: Vec<String> = parts.into_iter().flatten().chain(headers).collect();
    if all.is_empty() { "the request".to_owned() } else { all.join(", ") }
}
