//! Rules of a TrafficRoute (semantics 3.8, 3.9).

use super::{
    filter::{BadHeader, Filter, HeaderChanges, header_name},
    key::{KeyOf, KeyPolicy},
    matcher::{HeaderMatch, Match, PathMatch, ValueMatch},
    pattern::{Pattern, PatternError, Substitution},
    precedence::Order,
    rewrite::{Host, HostRewrite, PathRewrite},
    rule::{Rule, Rules},
    split::{Backend, Split},
};
use crate::policy::{
    self, HttpEntry, HttpMatch, HttpModify, LoadBalancer, SplitEntry, TrafficRouteConf,
    http::StringMatcher,
};

/// Something of a policy that no request could be matched with or changed by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Refused {
    /// Field path in the document: `conf.http[0].match.path.regex`.
    pub field: String,
    /// Why, and what would be right.
    pub why: String,
}

/// The rules of a TrafficRoute, in its order; the outer split takes what no entry takes.
/// `backend` says what an entry of a split leads to: its tags are nothing to the rules.
///
/// # Errors
/// All that cannot be carried out, with its field. Validation refuses most of it before.
pub fn traffic_route(
    name: &str,
    conf: &TrafficRouteConf,
    mut backend: impl FnMut(&SplitEntry) -> Backend,
) -> Result<Rules, Vec<Refused>> {
    let mut refused = Vec::new();
    let keys = keys(conf.load_balancer.as_ref());
    let mut rules = Vec::with_capacity(conf.http.len());
    for (at, entry) in conf.http.iter().enumerate() {
        let field = format!("conf.http[{at}]");
        let mut reading = Reading { refused: &mut refused, field: &field };
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
    if !refused.is_empty() {
        return Err(refused);
    }
    Ok(Rules { order: Order::Listed, rules, otherwise })
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
        read.map_err(|why| {
            let field = format!("{}.{field}", self.field);
            self.refused.push(Refused { field, why: why.to_string() });
        })
        .ok()
    }

    fn matches(&mut self, entry: &HttpEntry) -> Vec<Match> {
        if !entry.has_match {
            return Vec::new();
        }
        let HttpMatch { method, path, headers } = &entry.matches;
        let mut lowered = Match::default();
        if let Some(method) = method {
            lowered.method = self.take("match.method.regex", value(method));
        }
        if let Some(path) = path {
            lowered.path = self.take("match.path.regex", path_match(path));
        }
        for (name, matcher) in headers {
            let field = format!("match.headers[\"{name}\"]");
            let name = self.take(&field, header_name(name));
            let value = self.take(&format!("{field}.regex"), value(matcher));
            if let (Some(name), Some(value)) = (name, value) {
                lowered.headers.push(HeaderMatch { name, value });
            }
        }
        vec![lowered]
    }

    fn filters(&mut self, modify: &HttpModify) -> Vec<Filter> {
        let mut filters = Vec::new();
        let request = self.headers("modify.requestHeaders", &modify.request_headers);
        if !request.is_empty() {
            filters.push(Filter::RequestHeaders(request));
        }
        if let Some(host) = &modify.host {
            let lowered = match host {
                policy::http::HostRewrite::Value(value) => {
                    let host = self.take("modify.host.value", Host::new(value));
                    host.map(HostRewrite::Value)
                }
                policy::http::HostRewrite::FromPath(from) => {
                    self.take("modify.host.fromPath", substitution(from)).map(HostRewrite::FromPath)
                }
            };
            filters.extend(lowered.map(Filter::Host));
        }
        if let Some(path) = &modify.path {
            let lowered = match path {
                policy::http::PathRewrite::Prefix(prefix) => {
                    Some(PathRewrite::Bytes(prefix.as_str().into()))
                }
                policy::http::PathRewrite::Regex(regex) => {
                    self.take("modify.path.regex", substitution(regex)).map(PathRewrite::Regex)
                }
            };
            filters.extend(lowered.map(Filter::Path));
        }
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
            let part = match &done {
                Err(BadHeader::Value { .. } | BadHeader::Host(_)) => "value",
                Err(BadHeader::Name(_)) | Ok(()) => "name",
            };
            self.take(&format!("{field}.add[{at}].{part}"), done);
        }
        lowered
    }
}

fn value(matcher: &StringMatcher) -> Result<ValueMatch, PatternError> {
    Ok(match matcher {
        StringMatcher::Prefix(prefix) => ValueMatch::Prefix(prefix.as_str().into()),
        StringMatcher::Exact(value) => ValueMatch::Exact(value.as_str().into()),
        StringMatcher::Regex(pattern) => ValueMatch::Regex(Pattern::new(pattern.as_str())?),
    })
}

fn path_match(matcher: &StringMatcher) -> Result<PathMatch, PatternError> {
    Ok(match matcher {
        StringMatcher::Prefix(prefix) => PathMatch::Bytes(prefix.as_str().into()),
        StringMatcher::Exact(path) => PathMatch::Exact(path.as_str().into()),
        StringMatcher::Regex(pattern) => PathMatch::Regex(Pattern::new(pattern.as_str())?),
    })
}

fn substitution(from: &policy::http::Substitution) -> Result<Substitution, PatternError> {
    Substitution::new(from.pattern.as_str(), &from.substitution)
}
