//! The names for the ids of events.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    cli::{
        args::Global,
        failure::Failure,
        inputs,
        live::{self, LiveSet, backend_name},
    },
    policy::{Dataplane, List, suggest::suggest},
    resolve::{BackendState, Decision, Names, Route, VipKey, sources::workload_addresses},
};

/// What a route is called, and what becomes of its refused share.
pub(super) struct RouteNames {
    /// The policy, or how it was decided without one.
    pub(super) policy: String,
    /// The backend without usable reals, where there is only one.
    pub(super) blackhole: Option<String>,
}

/// The names of one epoch.
pub(super) struct Known {
    /// Low 32 bits of the epoch.
    pub(super) epoch: u32,
    /// The texts of the epoch are at hand: without them only reals are known.
    pub(super) recorded: bool,
    /// VIP → service.
    pub(super) services: BTreeMap<VipKey, String>,
    /// Route id → names.
    pub(super) routes: BTreeMap<u32, RouteNames>,
    /// Counter id → backend.
    pub(super) backends: BTreeMap<u32, String>,
    /// Real id and generation → address.
    pub(super) reals: BTreeMap<(u32, u32), SocketAddr>,
    /// Address → the Dataplanes that have it, `MESH/NAME`.
    pub(super) dataplanes: BTreeMap<IpAddr, Vec<String>>,
    /// The addresses that `--from` names.
    pub(super) wanted: Option<BTreeSet<IpAddr>>,
}

impl Known {
    /// Reads the names of the epoch that is live now. `from`: of `--from`.
    pub(super) fn read(global: &Global, from: Option<&str>) -> Result<Self, Failure> {
        live::read(global, |live| Self::of(live, from))
    }

    fn of(live: &LiveSet, from: Option<&str>) -> Result<Self, Failure> {
        let names = &live.names;
        let nowhere = Names::default();
        let hosts = names.settings.as_ref().map_or(&nowhere, |settings| &settings.names);
        let mut dataplanes: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for dataplane in &names.set.dataplanes {
            for address in workload_addresses(dataplane, hosts) {
                dataplanes.entry(address).or_default().push(full_name(dataplane));
            }
        }
        dataplanes.values_mut().for_each(|names| names.sort());
        let reals = live
            .addresses_of_reals()
            .map_err(|e| inputs::kernel(e, "cannot read the live maps"))?;
        Ok(Self {
            epoch: live.view.epoch() as u32,
            recorded: names.settings.is_some(),
            services: names
                .resolved
                .vips
                .iter()
                .map(|vip| (vip.key, vip.destination.to_string()))
                .collect(),
            routes: names
                .tables
                .routes
                .keys()
                .filter_map(|id| Some((*id, route_names(names.route(*id)?))))
                .collect(),
            backends: names.backends_of_counters(),
            reals,
            dataplanes,
            wanted: from.map(|from| addresses(&names.set.dataplanes, hosts, from)),
        })
    }

    /// Refuses a service that nothing stands for.
    pub(super) fn has_service(&self, service: &str) -> Result<(), Failure> {
        let known: BTreeSet<&str> = self.services.values().map(String::as_str).collect();
        if known.contains(service) {
            return Ok(());
        }
        Err(unknown(format!("no VIP stands for service `{service}`"), service, known))
    }

    /// Refuses a Dataplane that there is not.
    pub(super) fn has_source(&self, from: &str) -> Result<(), Failure> {
        if self.wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()) {
            return Ok(());
        }
        let names = self.dataplanes.values().flatten();
        let known = names.filter_map(|name| name.split_once('/')).map(|(_, name)| name).collect();
        Err(unknown(format!("no Dataplane with an address is named `{from}`"), from, known))
    }
}

fn unknown(message: String, name: &str, known: BTreeSet<&str>) -> Failure {
    let close = suggest(name, known);
    let hint = (!close.is_empty()).then(|| format!("did you mean {}?", close.join(", ")));
    Failure::usage(message).maybe_hint(hint)
}

fn full_name(dataplane: &Dataplane) -> String {
    format!("{}/{}", dataplane.meta.mesh, dataplane.meta.name)
}

/// The addresses that a word of `--from` names: itself, or those of the Dataplanes with that
/// name, which may have its mesh before it.
fn addresses(dataplanes: &List<Dataplane>, hosts: &Names, from: &str) -> BTreeSet<IpAddr> {
    if let Ok(address) = from.parse::<IpAddr>() {
        return BTreeSet::from([address.to_canonical()]);
    }
    let named = |dataplane: &&Arc<Dataplane>| {
        let meta = &dataplane.meta;
        meta.name == from || meta.display_name == from || full_name(dataplane) == from
    };
    let named = dataplanes.iter().filter(named);
    named.flat_map(|dataplane| workload_addresses(dataplane, hosts)).collect()
}

fn route_names(route: &Route) -> RouteNames {
    let mut hollow = route
        .backends
        .iter()
        .filter(|b| matches!(b.state, BackendState::Empty | BackendState::Invalid));
    let blackhole = match (hollow.next(), hollow.next()) {
        (Some(one), None) => Some(backend_name(one)),
        _ => None,
    };
    let policy = match (&route.policy, route.decision) {
        (Some(policy), _) => policy.name.clone(),
        (None, Decision::Reject) => "reject".to_owned(),
        (None, Decision::Direct | Decision::Forward) => "direct".to_owned(),
    };
    RouteNames { policy, blackhole }
}
