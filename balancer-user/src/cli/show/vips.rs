//! `show vips` and `show sources`.

use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet},
    resolve::{Decision, VipOrigin},
};

#[derive(Serialize)]
pub(super) struct VipLine {
    vip: String,
    protocol: &'static str,
    mesh: Option<String>,
    service: Option<String>,
    origin: Option<VipOrigin>,
    /// The policy that decides for everybody; `null` where none does.
    policy: Option<String>,
    decision: Option<Decision>,
    id: u32,
    route: u32,
}

pub(super) fn vips(live: &LiveSet) -> Result<Vec<VipLine>, Failure> {
    let rows = live.view.vips().map_err(failed)?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let vip = live.names.vip(row.key);
            let route = live.names.route(row.route);
            VipLine {
                vip: row.key.addr.to_string(),
                protocol: "tcp",
                mesh: vip.map(|vip| vip.mesh.clone()),
                service: vip.map(|vip| vip.service.clone()),
                origin: vip.map(|vip| vip.origin),
                policy: route.and_then(|route| Some(route.policy.as_ref()?.name.clone())),
                decision: route.map(|route| route.decision),
                id: row.id,
                route: row.route,
            }
        })
        .collect())
}

#[derive(Serialize)]
pub(super) struct SourceLine {
    address: String,
    /// `MESH/NAME`.
    dataplanes: Vec<String>,
    class: u32,
    /// The only interface that its packets may come from; `null`: not checked.
    interface: Option<String>,
    id: u32,
}

pub(super) fn sources(live: &LiveSet) -> Result<Vec<SourceLine>, Failure> {
    let names = &live.names.resolved.sources;
    let rows = live.view.sources().map_err(failed)?;
    Ok(rows
        .into_iter()
        .map(|row| SourceLine {
            address: row.address.to_string(),
            dataplanes: names
                .iter()
                .filter(|source| source.address == row.address)
                .flat_map(|source| &source.dataplanes)
                .map(|(mesh, name)| format!("{mesh}/{name}"))
                .collect(),
            class: row.class,
            interface: (row.ifindex != 0).then(|| interface(row.ifindex)),
            id: row.id,
        })
        .collect())
}

/// The name of an interface; its index where it is in another namespace or gone.
pub(crate) fn interface(index: u32) -> String {
    if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("#{index}"))
}
