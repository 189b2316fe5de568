//! `show routes`, `backends`, `tables` and `counters`: what each class does with each VIP.

use std::collections::BTreeMap;

use balancer_ebpf::abi::{Counter, Table, pick, route_flags, route_kind};
use serde::Serialize;

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet},
    kernel::{RouteRow, TableContent},
    policy::Tags,
    resolve::{BackendState, Decision, VipKey},
};

/// A route and whose it is.
struct Owned {
    vip: VipKey,
    class: u32,
    row: RouteRow,
}

/// Routes with their VIP and class, sorted by VIP, then class.
fn owned(live: &LiveSet) -> Result<Vec<Owned>, Failure> {
    let rows: BTreeMap<u32, RouteRow> =
        live.view.routes().map_err(failed)?.into_iter().map(|row| (row.id, row)).collect();
    let vips = live.view.vips().map_err(failed)?;
    let keys: BTreeMap<u32, VipKey> = vips.iter().map(|vip| (vip.id, vip.key)).collect();
    let defaults = vips.iter().map(|vip| (0, vip.id, vip.route));
    let classes = live.view.class_routes().map_err(failed)?;
    let mut routes: Vec<Owned> = defaults
        .chain(classes.iter().map(|row| (row.class, row.vip, row.route)))
        .filter_map(|(class, vip, route)| {
            Some(Owned { vip: *keys.get(&vip)?, class, row: *rows.get(&route)? })
        })
        .collect();
    routes.sort_by_key(|route| (route.vip, route.class));
    Ok(routes)
}

#[derive(Serialize)]
pub(super) struct RouteLine {
    vip: String,
    service: Option<String>,
    class: u32,
    /// Dataplanes of the class, `MESH/NAME`; `*`: everybody else.
    from: Vec<String>,
    policy: Option<String>,
    decision: Option<Decision>,
    load_balancer: Option<&'static str>,
    slots: u32,
    /// How many HTTP rules tell its requests apart; 0: none do.
    http_rules: usize,
    /// The proxy takes its connections.
    proxied: bool,
    id: u32,
}

pub(super) fn routes(live: &LiveSet) -> Result<Vec<RouteLine>, Failure> {
    let names = &live.names;
    Ok(owned(live)?
        .into_iter()
        .map(|Owned { vip, class, row }| {
            let route = names.route(row.id);
            RouteLine {
                vip: vip.to_string(),
                service: names.vip(vip).map(|vip| vip.destination.to_string()),
                class,
                from: names.sources_of(class),
                policy: route.and_then(|route| Some(route.policy.as_ref()?.name.clone())),
                decision: route.map(|route| route.decision),
                load_balancer: route.map(|route| route.load_balancer.name()),
                slots: row.entry.table.slots,
                http_rules: route
                    .and_then(|route| route.http.as_ref())
                    .map_or(0, |http| http.rules.rules.len()),
                proxied: row.entry.flags & route_flags::PROXY != 0,
                id: row.id,
            }
        })
        .collect())
}

#[derive(Serialize)]
pub(super) struct BackendLine {
    vip: String,
    class: u32,
    service: Option<String>,
    tags: Tags,
    weight: Option<u32>,
    /// Part of the table's slots.
    share: f64,
    /// Part of the route's connections counted; `null` while there are none.
    seen: Option<f64>,
    state: Option<BackendState>,
    reals: Vec<String>,
    connections: u64,
    route: u32,
}

pub(super) fn backends(live: &LiveSet) -> Result<Vec<BackendLine>, Failure> {
    let names = &live.names;
    let mut lines = Vec::new();
    for Owned { vip, class, row } in owned(live)? {
        let line = |backend: Option<&crate::resolve::Backend>| BackendLine {
            vip: vip.to_string(),
            class,
            service: backend.map(|backend| backend.destination.to_string()),
            tags: backend.map(|backend| backend.tags.clone()).unwrap_or_default(),
            weight: backend.map(|backend| backend.weight),
            share: 0.0,
            seen: None,
            state: backend.map(|backend| backend.state),
            reals: backend
                .map(|backend| backend.reals.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            connections: 0,
            route: row.id,
        };
        let table = row.entry.table;
        if row.entry.kind == route_kind::TABLE {
            let slots = slots_of_backends(&live.view.table(&table).map_err(failed)?, &table);
            let counters = counters_of(live, &row)?;
            let total: u64 = counters.iter().map(|counter| counter.connections).sum();
            for (ordinal, slots) in slots.into_iter().enumerate() {
                let connections = counters.get(ordinal).map_or(0, |counter| counter.connections);
                lines.push(BackendLine {
                    share: f64::from(slots) / f64::from(table.slots.max(1)),
                    seen: (total > 0).then(|| connections as f64 / total as f64),
                    connections,
                    ..line(names.backend(row.id, ordinal))
                });
            }
        }
        // Those of weight 0 are in no table, but the policy names them: established
        // connections may still be theirs.
        let drained = names.route(row.id).into_iter().flat_map(|route| &route.backends);
        lines.extend(
            drained.filter(|backend| backend.state == BackendState::Drained).map(|b| line(Some(b))),
        );
    }
    Ok(lines)
}

/// Number of slots of each backend of a table.
fn slots_of_backends(content: &TableContent, table: &Table) -> Vec<u32> {
    let mut slots = vec![0; table.backends as usize];
    for (target, count) in content.targets.iter().zip(content.slots_per_target()) {
        if let Some(backend) = slots.get_mut(target.backend as usize) {
            *backend += count;
        }
    }
    slots
}

/// The counters of a route's backends, in the order of the table.
fn counters_of(live: &LiveSet, row: &RouteRow) -> Result<Vec<Counter>, Failure> {
    if row.entry.counters == 0 {
        return Ok(Vec::new());
    }
    let rows = live.view.counters(row.entry.counters, row.entry.table.backends).map_err(failed)?;
    Ok(rows.into_iter().map(|row| row.counter).collect())
}

#[derive(Serialize)]
pub(super) struct CounterLine {
    vip: String,
    class: u32,
    service: Option<String>,
    tags: Tags,
    connections: u64,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    route: u32,
    id: u32,
}

pub(super) fn counters(live: &LiveSet) -> Result<Vec<CounterLine>, Failure> {
    let mut lines = Vec::new();
    for Owned { vip, class, row } in owned(live)? {
        for (ordinal, counter) in counters_of(live, &row)?.into_iter().enumerate() {
            let backend = live.names.backend(row.id, ordinal);
            lines.push(CounterLine {
                vip: vip.to_string(),
                class,
                service: backend.map(|backend| backend.destination.to_string()),
                tags: backend.map(|backend| backend.tags.clone()).unwrap_or_default(),
                connections: counter.connections,
                packets_in: counter.packets_in,
                bytes_in: counter.bytes_in,
                packets_out: counter.packets_out,
                bytes_out: counter.bytes_out,
                route: row.id,
                id: row.entry.counters + ordinal as u32,
            });
        }
    }
    Ok(lines)
}

#[derive(Serialize)]
pub(super) struct TableLine {
    vip: String,
    class: u32,
    load_balancer: Option<&'static str>,
    /// How a slot is found.
    pick: &'static str,
    slots: u32,
    targets: u32,
    backends: u32,
    /// First word in the arena.
    offset: u32,
    /// Words in the arena, 8 bytes each.
    words: u32,
    /// Slots of the table before the last change, while it still counts.
    previous_slots: Option<u32>,
    /// How long it still counts, seconds.
    previous_for_s: Option<u64>,
    route: u32,
}

pub(super) fn tables(live: &LiveSet) -> Result<Vec<TableLine>, Failure> {
    Ok(owned(live)?
        .into_iter()
        .filter(|route| route.row.entry.kind == route_kind::TABLE)
        .map(|Owned { vip, class, row }| {
            let table = row.entry.table;
            TableLine {
                vip: vip.to_string(),
                class,
                load_balancer: live.names.route(row.id).map(|r| r.load_balancer.name()),
                pick: match row.entry.pick {
                    pick::HASH => "hash",
                    pick::RANDOM => "random",
                    pick::ROUND_ROBIN => "turn",
                    pick::LEAST_REQUEST => "least busy",
                    _ => "unknown",
                },
                slots: table.slots,
                targets: table.targets,
                backends: table.backends,
                offset: table.offset,
                words: table.words(),
                previous_slots: row.previous_for.map(|_| row.entry.previous.slots),
                previous_for_s: row.previous_for.map(|left| left.as_secs()),
                route: row.id,
            }
        })
        .collect())
}
