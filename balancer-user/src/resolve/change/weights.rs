//! Policies that give their backends other weights, and change nothing else.

use super::super::{BackendState, Destination, Resolved, Route};
use crate::policy::{MeshTcpRoute, Span, SplitEntry, TrafficRoute};

/// The new weights of a TrafficRoute's split, in written order; `None` where it changed in other
/// ways too.
pub(super) fn of_traffic_route(before: &TrafficRoute, after: &TrafficRoute) -> Option<Vec<u32>> {
    if before.conf.split.len() != after.conf.split.len() || before.conf.split.is_empty() {
        return None;
    }
    let plain = |route: &TrafficRoute| {
        let mut route = route.clone();
        route.meta.span = Span::default();
        route.meta.document = 0;
        let entries = route.conf.split.iter_mut();
        entries.for_each(|entry| *entry = plain_entry(entry));
        route
    };
    let same = plain(before) == plain(after);
    same.then(|| after.conf.split.iter().map(|entry| entry.weight).collect())
}

fn plain_entry(entry: &SplitEntry) -> SplitEntry {
    SplitEntry { span: Span::default(), weight: 0, ..entry.clone() }
}

/// The new weights of a MeshTCPRoute's backends, in written order; `None` where it changed in
/// other ways too, or has more than one list of them: equal lists have one route, which might be
/// two then.
pub(super) fn of_mesh_tcp_route(before: &MeshTcpRoute, after: &MeshTcpRoute) -> Option<Vec<u32>> {
    let [old] = before.to.as_slice() else { return None };
    let [new] = after.to.as_slice() else { return None };
    let (old, new) = (old.rule.as_ref()?, new.rule.as_ref()?);
    if old.backends.len() != new.backends.len() {
        return None;
    }
    let weights: Vec<u32> = new.backends.iter().map(|backend| backend.weight).collect();
    let mut same = after.clone();
    let rule = same.to[0].rule.as_mut()?;
    for (backend, old) in rule.backends.iter_mut().zip(&old.backends) {
        backend.weight = old.weight;
    }
    (same == *before).then_some(weights)
}

/// The routes of a policy with other weights. `None`: it cannot be told by them alone what comes of
/// it.
pub(super) fn weighed(
    resolved: &Resolved,
    (kind, mesh, name): (&str, &str, &str),
    weights: &[u32],
) -> Option<Vec<(usize, Route)>> {
    let of_policy = |route: &Route| {
        route.policy.as_ref().is_some_and(|p| p.kind == kind && p.mesh == mesh && p.name == name)
    };
    let mut routes = Vec::new();
    // Backends that took nothing, and whether some route finds endpoints for them.
    let mut begins = vec![false; weights.len()];
    let mut found = vec![false; weights.len()];
    for (index, route) in resolved.routes.iter().enumerate().filter(|(_, r)| of_policy(r)) {
        // Weights stand in its HTTP rules too.
        if route.backends.len() != weights.len() || route.http.is_some() {
            return None;
        }
        let mut new = route.clone();
        for (place, (backend, weight)) in new.backends.iter_mut().zip(weights).enumerate() {
            let begun = backend.weight == 0 && *weight > 0;
            begins[place] |= begun;
            found[place] |= !backend.reals.is_empty();
            if begun {
                if backend.reals.is_empty()
                    || matches!(backend.destination, Destination::Missing { .. })
                {
                    return None;
                }
                backend.state = BackendState::Ok;
            } else if *weight == 0 {
                backend.state = BackendState::Drained;
            }
            backend.weight = *weight;
        }
        if closed(route) != closed(&new) {
            return None;
        }
        routes.push((index, new));
    }
    // One that wins nowhere has findings all the same.
    let all_found = begins.iter().zip(&found).all(|(begins, found)| !begins || *found);
    (!routes.is_empty() && all_found).then_some(routes)
}

fn closed(route: &Route) -> bool {
    route.backends.iter().all(|backend| backend.weight == 0)
}
