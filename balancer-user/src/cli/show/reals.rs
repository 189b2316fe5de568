//! `show reals` and `show reasons`.

use std::collections::BTreeSet;

use balancer_ebpf::{abi::route_kind, reason::Reason};
use serde::Serialize;

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet},
    kernel::View,
};

#[derive(Serialize)]
pub(super) struct RealLine {
    address: String,
    services: Vec<String>,
    /// `ok`: takes new connections; `draining`: in no table, keeps those that it has; `gone`:
    /// out of the inventory.
    state: &'static str,
    gone_for_s: Option<u64>,
    /// Live connections.
    active: u64,
    id: u32,
    generation: u32,
}

pub(super) fn reals(live: &LiveSet) -> Result<Vec<RealLine>, Failure> {
    let mut in_tables = BTreeSet::new();
    for row in live.view.routes().map_err(failed)? {
        if row.entry.kind == route_kind::TABLE {
            let content = live.view.table(&row.entry.table).map_err(failed)?;
            in_tables.extend(content.targets.iter().map(|target| target.real));
        }
    }
    let services = live.names.services_of_reals();
    let mut rows = live.view.reals().map_err(failed)?;
    rows.sort_by_key(|row| row.addr);
    Ok(rows
        .into_iter()
        .map(|row| RealLine {
            address: row.addr.to_string(),
            services: services.get(&row.addr).cloned().unwrap_or_default(),
            state: match row.gone_for {
                Some(_) => "gone",
                None if in_tables.contains(&row.id) => "ok",
                None => "draining",
            },
            gone_for_s: row.gone_for.map(|gone| gone.as_secs()),
            active: row.active,
            id: row.id,
            generation: row.generation,
        })
        .collect())
}

#[derive(Serialize)]
pub(super) struct ReasonLine {
    reason: &'static str,
    fate: &'static str,
    packets: u64,
    meaning: &'static str,
}

/// Every reason, those that no packet had included.
pub(super) fn reasons(view: &View) -> Result<Vec<ReasonLine>, Failure> {
    let rows = view.reasons().map_err(failed)?;
    Ok(rows.into_iter().map(|(reason, packets)| line(reason, packets)).collect())
}

fn line(reason: Reason, packets: u64) -> ReasonLine {
    ReasonLine {
        reason: reason.name(),
        fate: reason.fate().name(),
        packets,
        meaning: reason.text().trim_end_matches('.'),
    }
}
