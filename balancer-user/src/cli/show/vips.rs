//! `show vips` and `show sources`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet},
    kernel::SourceRow,
    resolve::{Decision, Source, VipOrigin},
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
    /// The proxy takes connections to it, or did.
    proxied: bool,
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
                vip: row.key.to_string(),
                protocol: row.key.protocol.name(),
                mesh: vip
                    .map(|vip| vip.destination.mesh().to_owned())
                    .filter(|mesh| !mesh.is_empty()),
                service: vip.map(|vip| vip.destination.to_string()),
                origin: vip.map(|vip| vip.origin),
                policy: route.and_then(|route| Some(route.policy.as_ref()?.name.clone())),
                decision: route.map(|route| route.decision),
                proxied: row.proxied,
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
    /// `null`: the maps have no entry, since it is treated like everybody.
    id: Option<u32>,
}

pub(super) fn sources(live: &LiveSet) -> Result<Vec<SourceLine>, Failure> {
    let named: BTreeMap<IpAddr, &Source> =
        live.names.resolved.sources.iter().map(|source| (source.address, source)).collect();
    let rows: BTreeMap<IpAddr, SourceRow> =
        live.view.sources().map_err(failed)?.into_iter().map(|row| (row.address, row)).collect();
    let addresses: BTreeSet<&IpAddr> = named.keys().chain(rows.keys()).collect();
    Ok(addresses
        .into_iter()
        .map(|address| {
            let row = rows.get(address);
            SourceLine {
                address: address.to_string(),
                dataplanes: named
                    .get(address)
                    .into_iter()
                    .flat_map(|source| &source.dataplanes)
                    .map(|(mesh, name)| format!("{mesh}/{name}"))
                    .collect(),
                class: row.map_or(0, |row| row.class),
                interface: row.filter(|row| row.ifindex != 0).map(|row| interface(row.ifindex)),
                id: row.map(|row| row.id),
            }
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
