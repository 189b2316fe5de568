//! Who gets which part of a route's connections.

use std::collections::BTreeMap;

use super::answer::{BackendAnswer, RealAnswer};
use crate::{
    compile::{RouteSpec, Table, Tables},
    policy::LoadBalancer,
    resolve::{BackendState, Resolved, Route, Vip},
};

/// A route's backends with their parts.
pub(super) struct Shares {
    pub(super) backends: Vec<BackendAnswer>,
    /// Slots of the table, and how many of them each backend has; `None` without a table.
    pub(super) slots: Option<(usize, Vec<usize>)>,
}

/// The shares of `route` at `vip` as the weights ask for, and the slots of its table where there
/// is one. A table keeps a share to within a slot (or one in a hundred, decision 002); its steps
/// say the counts.
pub(super) fn shares(
    resolved: &Resolved,
    tables: Option<&Tables>,
    vip: &Vip,
    route: &Route,
) -> Shares {
    let table = tables.and_then(|tables| Some((tables, table_of(resolved, tables, vip, route)?)));
    match table {
        Some((tables, table)) => counted(tables, table, route),
        None => Shares { backends: by_weight(route), slots: None },
    }
}

/// The table that the route has at this VIP; else, for a source that does not exist, the one of
/// the same route anywhere, which has the same slots.
fn table_of<'t>(
    resolved: &Resolved,
    tables: &'t Tables,
    vip: &Vip,
    route: &Route,
) -> Option<&'t Table> {
    let index = resolved.routes.iter().position(|other| other == route)?;
    let id = tables.vips.get(&vip.key)?.id;
    let mut same: Vec<&RouteSpec> =
        tables.routes.values().filter(|spec| spec.resolved == index).collect();
    same.sort_by_key(|spec| spec.owner.1 != id);
    same.first()?.table.as_deref()
}

fn counted(tables: &Tables, table: &Table, route: &Route) -> Shares {
    let mut of_target = vec![0usize; table.targets.len()];
    for slot in table.slots.iter() {
        if let Some(count) = of_target.get_mut(usize::from(*slot)) {
            *count += 1;
        }
    }
    let mut of_backend = vec![0usize; route.backends.len()];
    let mut of_real: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for (target, count) in table.targets.iter().zip(of_target) {
        let Some(backend) = table.backends.get(target.backend as usize).copied() else { continue };
        of_backend[backend] += count;
        if let Some(real) = tables.reals.get(&target.real) {
            of_real.insert((backend, real.addr.to_string()), count);
        }
    }
    let mut backends = by_weight(route);
    if matches!(route.load_balancer, LoadBalancer::RingHash { .. }) {
        // The only fill that is uneven within a backend: a real's part is that of its arcs.
        for (index, backend) in backends.iter_mut().enumerate() {
            let slots = of_backend[index].max(1) as f64;
            for real in &mut backend.reals {
                let own = of_real.get(&(index, real.address.clone())).copied().unwrap_or(0);
                real.share = backend.share * own as f64 / slots;
            }
        }
    }
    Shares { backends, slots: Some((table.slots.len(), of_backend)) }
}

fn by_weight(route: &Route) -> Vec<BackendAnswer> {
    let sum: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    route
        .backends
        .iter()
        .map(|backend| {
            let share = if sum == 0 { 0.0 } else { f64::from(backend.weight) / sum as f64 };
            let each = share / backend.reals.len().max(1) as f64;
            let reals = match backend.state {
                BackendState::Drained => idle(backend.reals.iter()),
                BackendState::Ok | BackendState::Empty | BackendState::Invalid => backend
                    .reals
                    .iter()
                    .map(|real| RealAnswer { address: real.to_string(), share: each })
                    .collect(),
            };
            BackendAnswer {
                service: backend.destination.to_string(),
                kind: backend.destination.object_kind(),
                tags: backend.tags.clone(),
                weight: backend.weight,
                share,
                state: backend.state,
                reals,
            }
        })
        .collect()
}

fn idle<'r>(reals: impl Iterator<Item = &'r std::net::SocketAddr>) -> Vec<RealAnswer> {
    reals.map(|real| RealAnswer { address: real.to_string(), share: 0.0 }).collect()
}
