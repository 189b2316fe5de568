//! Rules of a TrafficRoute (semantics 3.8, 3.9).

use super::{
    super::{
        PolicyRef,
        split::{Place, substitute},
    },
    Backends, HttpRules,
    changes::{Refused, part, take},
};
use crate::{
    http::{
        Backend, Destination, Filter, HeaderChanges, HeaderMatch, Host, HostRewrite, KeyOf,
        KeyPolicy, Match, Order, PathMatch, PathRewrite, Rule, Rules, Split, ValueMatch,
        header_name,
    },
    policy::{
        self, HttpEntry, HttpMatch, HttpModify, LoadBalancer, SplitEntry, Tags, TrafficRouteConf,
        http::StringMatcher,
    },
};

impl Place<'_> {
    /// The HTTP rules of a conf that was picked for an outbound; `None`: it has none, or what is
    /// called does not speak HTTP (decision D4).
    pub(in crate::resolve) fn traffic_rules(
        &self,
        policy: Option<&PolicyRef>,
        conf: &TrafficRouteConf,
        outbound: &Tags,
    ) -> Option<HttpRules> {
        let (called, _) = self.subset(outbound.clone());
        let speaks_http =
            || self.inventory.endpoints(&called)?.protocol().is_http_like().then_some(());
        if conf.http.is_empty() {
            return None;
        }
        speaks_http()?;
        let mut backends = Backends::new(*self, false);
        let name = policy.map_or("", |policy| policy.name.as_str());
        // What is refused is said of the policy, once (`check`).
        let rules = traffic_route(name, conf, &mut Vec::new(), |entry| {
            let (destination, tags) = self.subset(substitute(&entry.destination, outbound));
            backends.weighted(entry.weight, destination, tags)
        });
        let given_by = vec![0; rules.rules.len()];
        Some(backends.finish(policy.cloned().into_iter().collect(), given_by, rules))
    }
}

/// The rules of a TrafficRoute, in its order; the outer split takes what no entry takes.
/// `backend` says what an entry of a split leads to: its tags are nothing to the rules.
///
/// What cannot be carried out is left out, and added to `refused` with its field. Validation
/// refuses most of it before.
pub fn traffic_route(
    name: &str,
    conf: &TrafficRouteConf,
    refused: &mut Vec<Refused>,
    mut backend: impl FnMut(&SplitEntry) -> Backend,
) -> Rules {
    let keys = keys(conf.load_balancer.as_ref());
    let mut rules = Vec::with_capacity(conf.http.len());
    for (at, entry) in conf.http.iter().enumerate() {
        let field = format!("conf.http[{at}]");
        let mut reading = Reading { refused, field: &field };
        rules.push(Rule {
            origin: format!("TrafficRoute {name}: {field}"),
            matches: reading.matches(entry),
            filters: reading.filters(&entry.modify),
            split: split(&entry.split, &mut backend),
            keys: keys.clone(),
            ..Rule::default()
        });
    }
    let otherwise = (!conf.split.is_empty()).then(|| Rule {
        origin: format!("TrafficRoute {name}: conf"),
        split: split(&conf.split, &mut backend),
        keys: keys.clone(),
        ..Rule::default()
    });
    Rules { order: Order::Listed, rules, otherwise }
}

/// The rules of a conf alone: they lead nowhere.
///
/// # Errors
/// What of it cannot be carried out.
pub fn rules_alone(conf: &TrafficRouteConf) -> Result<Rules, Vec<Refused>> {
    let mut refused = Vec::new();
    let nowhere = |entry: &SplitEntry| Backend::new(Destination::Invalid, entry.weight);
    let rules = traffic_route("", conf, &mut refused, nowhere);
    if refused.is_empty() { Ok(rules) } else { Err(refused) }
}

fn split(entries: &[SplitEntry], backend: &mut impl FnMut(&SplitEntry) -> Backend) -> Split {
    Split::new(entries.iter().map(backend).collect())
}

/// A TrafficRoute has no hash policy: what is chosen by hash is chosen by the client's address
/// (decision D7).
fn keys(load_balancer: Option<&LoadBalancer>) -> Vec<KeyPolicy> {
    match load_balancer {
        Some(LoadBalancer::RingHash { .. } | LoadBalancer::Maglev) => {
            vec![KeyPolicy { of: KeyOf::Source, terminal: true }]
        }
        _ => Vec::new(),
    }
}

struct Reading<'a> {
    refused: &'a mut Vec<Refused>,
    field: &'a str,
}

impl Reading<'_> {
    /// The value, or a refusal of the field below the entry.
    fn take<T>(&mut self, field: &str, read: Result<T, impl ToString>) -> Option<T> {
        take(self.refused, || format!("{}.{field}", self.field), read)
    }

    fn matches(&mut self, entry: &HttpEntry) -> Vec<Match> {
        if !entry.has_match {
            return Vec::new();
        }
        let HttpMatch { method, path, headers } = &entry.matches;
        let mut matched = Match {
            method: method.as_ref().map(value),
            path: path.as_ref().map(path_match),
            ..Match::default()
        };
        for (name, matcher) in headers {
            let field = format!("match.headers[\"{name}\"]");
            if let Some(name) = self.take(&field, header_name(name)) {
                matched.headers.push(HeaderMatch { name, value: value(matcher) });
            }
        }
        vec![matched]
    }

    fn filters(&mut self, modify: &HttpModify) -> Vec<Filter> {
        let mut filters = Vec::new();
        let request = self.headers("modify.requestHeaders", &modify.request_headers);
        if !request.is_empty() {
            filters.push(Filter::RequestHeaders(request));
        }
        match &modify.host {
            Some(policy::http::HostRewrite::Value(value)) => {
                let host = self.take("modify.host.value", Host::new(value));
                filters.extend(host.map(|host| Filter::Host(HostRewrite::Value(host))));
            }
            Some(policy::http::HostRewrite::FromPath(from)) => {
                filters.push(Filter::Host(HostRewrite::FromPath(from.clone())));
            }
            None => {}
        }
        filters.extend(modify.path.as_ref().map(|path| {
            Filter::Path(match path {
                policy::http::PathRewrite::Prefix(prefix) => {
                    PathRewrite::Bytes(prefix.as_str().into())
                }
                policy::http::PathRewrite::Regex(regex) => PathRewrite::Regex(regex.clone()),
            })
        }));
        let response = self.headers("modify.responseHeaders", &modify.response_headers);
        if !response.is_empty() {
            filters.push(Filter::ResponseHeaders(response));
        }
        filters
    }

    /// Removals, then additions, which replace unless told to append.
    fn headers(&mut self, field: &str, changes: &policy::http::HeaderChanges) -> HeaderChanges {
        let mut lowered = HeaderChanges::default();
        for (at, name) in changes.remove.iter().enumerate() {
            self.take(&format!("{field}.remove[{at}].name"), lowered.remove(name));
        }
        for (at, add) in changes.add.iter().enumerate() {
            let done = if add.append {
                lowered.append(&add.name, &add.value)
            } else {
                lowered.set(&add.name, &add.value)
            };
            self.take(&format!("{field}.add[{at}].{}", part(&done)), done);
        }
        lowered
    }
}

fn value(matcher: &StringMatcher) -> ValueMatch {
    match matcher {
        StringMatcher::Prefix(prefix) => ValueMatch::Prefix(prefix.as_str().into()),
        StringMatcher::Exact(value) => ValueMatch::Exact(value.as_str().into()),
        StringMatcher::Regex(pattern) => ValueMatch::Regex(pattern.clone()),
    }
}

fn path_match(matcher: &StringMatcher) -> PathMatch {
    match matcher {
        StringMatcher::Prefix(prefix) => PathMatch::Bytes(prefix.as_str().into()),
        StringMatcher::Exact(path) => PathMatch::Exact(path.as_str().into()),
        StringMatcher::Regex(pattern) => PathMatch::Regex(pattern.clone()),
    }
}
