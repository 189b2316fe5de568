//! Policies that give their backends other weights, and change nothing else.

use std::sync::Arc;

use super::super::{Backend, BackendState, Destination, HttpRules, PolicyRef, Resolved, Route};
use crate::{
    http::{self, Readiness, Rules},
    policy::{MeshHttpRoute, MeshHttpRule, MeshTcpRoute, Span, SplitEntry, TrafficRoute},
};

/// Weights in written order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// Of the connections.
    outer: Vec<u32>,
    /// Of each `http` entry of a TrafficRoute.
    http: Vec<Vec<u32>>,
}

/// The new weights of a TrafficRoute; `None` where it changed in other ways too.
pub(super) fn of_traffic_route(before: &TrafficRoute, after: &TrafficRoute) -> Option<Weights> {
    if before.conf.split.is_empty() {
        return None;
    }
    let plain = |route: &TrafficRoute| {
        let mut route = route.clone();
        route.meta.span = Span::default();
        route.meta.document = 0;
        route.conf.http_span = None;
        for entry in &mut route.conf.http {
            entry.span = Span::default();
            entry.split.iter_mut().for_each(|one| *one = plain_entry(one));
        }
        route.conf.split.iter_mut().for_each(|entry| *entry = plain_entry(entry));
        route
    };
    let weights = |split: &[SplitEntry]| split.iter().map(|entry| entry.weight).collect();
    (plain(before) == plain(after)).then(|| Weights {
        outer: weights(&after.conf.split),
        http: after.conf.http.iter().map(|entry| weights(&entry.split)).collect(),
    })
}

fn plain_entry(entry: &SplitEntry) -> SplitEntry {
    SplitEntry { span: Span::default(), weight: 0, ..entry.clone() }
}

/// The new weights of a MeshTCPRoute's backends, in written order; `None` where it changed in
/// other ways too, or has more than one list of them: equal lists have one route, which might be
/// two then.
pub(super) fn of_mesh_tcp_route(before: &MeshTcpRoute, after: &MeshTcpRoute) -> Option<Weights> {
    let [old] = before.to.as_slice() else { return None };
    let [new] = after.to.as_slice() else { return None };
    let (old, new) = (old.rule.as_ref()?, new.rule.as_ref()?);
    if old.backends.len() != new.backends.len() {
        return None;
    }
    let outer: Vec<u32> = new.backends.iter().map(|backend| backend.weight).collect();
    let mut same = after.clone();
    let rule = same.to[0].rule.as_mut()?;
    for (backend, old) in rule.backends.iter_mut().zip(&old.backends) {
        backend.weight = old.weight;
    }
    (same == *before).then_some(Weights { outer, http: Vec::new() })
}

/// Whether a MeshHTTPRoute differs from the one before in weights alone.
pub(super) fn only_weights(before: &MeshHttpRoute, after: &MeshHttpRoute) -> bool {
    let mut same = after.clone();
    for (to, old) in same.to.iter_mut().zip(&before.to) {
        for (rule, old) in to.rules.iter_mut().zip(&old.rules) {
            let (Some(new), Some(old)) = (&mut rule.backends, &old.backends) else { continue };
            for (backend, old) in new.iter_mut().zip(old) {
                backend.weight = old.weight;
            }
        }
    }
    same == *before
}

/// The routes in whose rules splits of a MeshHTTPRoute stand, with its weights. `None`: it cannot
/// be told by them alone what comes of it.
pub(super) fn weighed_http(
    resolved: &Resolved,
    policy: &MeshHttpRoute,
) -> Option<Vec<(usize, Route)>> {
    let of_policy = PolicyRef::of(&policy.meta);
    let mut routes = Vec::new();
    for (index, route) in resolved.routes.iter().enumerate() {
        let Some(http) = &route.http else { continue };
        let mut new = None;
        for (at, place) in http.splits.iter().enumerate() {
            let Some(place) = place.as_ref().filter(|place| place.policy == of_policy) else {
                continue;
            };
            let rule = &policy.to.get(place.to)?.rules.get(place.rule)?;
            let weights = weights_of(rule);
            let (route, rules) =
                new.get_or_insert_with(|| (route.clone(), Rules::clone(&http.rules)));
            let split = &mut rules.rules.get_mut(at)?.split;
            for (backend, weight) in split.backends().iter().zip(&weights) {
                // What was asked of nobody is asked now: it may have to be reported.
                if backend.weight == 0 && *weight > 0 && !is_ready(http, backend) {
                    return None;
                }
            }
            *split = split.weighed(&weights)?;
            if http.connections == Some(at) {
                *route = weighed_route(route, &weights)?;
            }
        }
        if let Some((mut route, rules)) = new {
            let rules = Arc::new(rules);
            route.http = Some(Arc::new(HttpRules { rules, ..HttpRules::clone(http) }));
            routes.push((index, route));
        }
    }
    (!routes.is_empty()).then_some(routes)
}

fn weights_of(rule: &MeshHttpRule) -> Vec<u32> {
    rule.backends.iter().flatten().map(|backend| backend.weight).collect()
}

fn is_ready(rules: &HttpRules, backend: &http::Backend) -> bool {
    match backend.destination {
        http::Destination::Backend(id) => rules.readiness(id) == Readiness::Ready,
        http::Destination::Invalid => false,
    }
}

/// The routes of a policy with other weights. `None`: it cannot be told by them alone what comes of
/// it.
pub(super) fn weighed(
    resolved: &Resolved,
    (kind, mesh, name): (&str, &str, &str),
    weights: &Weights,
) -> Option<Vec<(usize, Route)>> {
    let of_policy = |route: &Route| {
        route.policy.as_ref().is_some_and(|p| p.kind == kind && p.mesh == mesh && p.name == name)
    };
    let mut routes = Vec::new();
    // Backends that took nothing, and whether some route finds endpoints for them.
    let mut begins = vec![false; weights.outer.len()];
    let mut found = vec![false; weights.outer.len()];
    for (index, route) in resolved.routes.iter().enumerate().filter(|(_, r)| of_policy(r)) {
        for (place, (backend, weight)) in route.backends.iter().zip(&weights.outer).enumerate() {
            begins[place] |= backend.weight == 0 && *weight > 0;
            found[place] |= !backend.reals.is_empty();
        }
        let mut new = weighed_route(route, &weights.outer)?;
        if let Some(http) = &route.http
            && http.policies.iter().any(|p| p.kind == kind && p.mesh == mesh && p.name == name)
        {
            new.http = Some(Arc::new(weighed_rules(http, weights)?));
        }
        routes.push((index, new));
    }
    // One that wins nowhere has findings all the same.
    let all_found = begins.iter().zip(&found).all(|(begins, found)| !begins || *found);
    (!routes.is_empty() && all_found).then_some(routes)
}

/// The rules of a TrafficRoute, or those that stand for a route that tells no requests apart, with
/// other weights.
fn weighed_rules(http: &HttpRules, weights: &Weights) -> Option<HttpRules> {
    let mut rules = Rules::clone(&http.rules);
    if rules.rules.len() != weights.http.len() {
        return None;
    }
    let outer = rules.otherwise.as_mut().map(|rule| (rule, &weights.outer));
    for (rule, weights) in rules.rules.iter_mut().zip(&weights.http).chain(outer) {
        for (backend, weight) in rule.split.backends().iter().zip(weights) {
            if backend.weight == 0 && *weight > 0 && !is_ready(http, backend) {
                return None;
            }
        }
        rule.split = rule.split.weighed(weights)?;
    }
    Some(HttpRules { rules: Arc::new(rules), ..http.clone() })
}

/// A route whose backends have other weights.
fn weighed_route(route: &Route, weights: &[u32]) -> Option<Route> {
    if route.backends.len() != weights.len() {
        return None;
    }
    let mut new = route.clone();
    for (backend, weight) in new.backends.iter_mut().zip(weights) {
        let Backend { state, reals, destination, .. } = backend;
        if backend.weight == 0 && *weight > 0 {
            if reals.is_empty() || matches!(destination, Destination::Missing { .. }) {
                return None;
            }
            *state = BackendState::Ok;
        } else if *weight == 0 {
            *state = BackendState::Drained;
        }
        backend.weight = *weight;
    }
    (closed(route) == closed(&new)).then_some(new)
}

fn closed(route: &Route) -> bool {
    route.backends.iter().all(|backend| backend.weight == 0)
}
