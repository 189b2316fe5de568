//! What becomes of connections that are live.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use super::{
    RouteChange, Side,
    pairs::pair_of,
    routes::{Dialled, route_id},
    spread::reals,
};
use crate::resolve::VipKey;

/// A connection, as the maps know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFlow {
    /// Who connected.
    pub client: IpAddr,
    /// What was dialled.
    pub vip: VipKey,
    /// Where it ends; `None`: its real's id has been given to another one since.
    pub real: Option<SocketAddr>,
}

/// How many connections meet which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowFates {
    /// Stay as they are, those that drain already or whose real is gone already included.
    pub kept: u64,
    /// Stay, on a real that takes no new connections of theirs any more.
    pub draining: u64,
    /// End on a real that leaves the inventory.
    pub gone: u64,
}

/// Connections of one real that do not stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RealFlows {
    /// Address and port.
    pub address: String,
    /// How many of its connections.
    #[serde(flatten)]
    pub fates: FlowFates,
}

/// All connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LiveFlows {
    /// Of all routes.
    pub all: FlowFates,
    /// Reals with connections that drain or lose them, by address.
    pub reals: Vec<RealFlows>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Kept,
    Draining,
    Gone,
}

impl FlowFates {
    fn count(&mut self, fate: Fate) {
        *match fate {
            Fate::Kept => &mut self.kept,
            Fate::Draining => &mut self.draining,
            Fate::Gone => &mut self.gone,
        } += 1;
    }
}

/// A set as flows see it: which reals each route names. Filled as flows ask.
struct Named<'a> {
    side: Side<'a>,
    by_route: BTreeMap<u32, BTreeSet<SocketAddr>>,
}

impl<'a> Named<'a> {
    fn new(side: Side<'a>) -> Self {
        Self { side, by_route: BTreeMap::new() }
    }

    fn fate(&mut self, vip: VipKey, class: u32, real: SocketAddr) -> Fate {
        // Sorted, says `Resolved`.
        if self.side.resolved.inventory.binary_search(&real).is_err() {
            return Fate::Gone;
        }
        let Some(id) = route_id(self.side, vip, class) else { return Fate::Draining };
        let named = self.by_route.entry(id).or_insert_with(|| {
            let spec = self.side.tables.routes.get(&id);
            let table = spec.and_then(|spec| spec.table.as_deref());
            table.into_iter().flat_map(|t| reals(self.side.tables, t)).flatten().collect()
        });
        if named.contains(&real) { Fate::Kept } else { Fate::Draining }
    }
}

/// Counts the fates, and gives each route that changes those of its own flows.
pub(super) fn fates(
    before: Side<'_>,
    after: Side<'_>,
    flows: impl Iterator<Item = LiveFlow>,
    routes: &mut BTreeMap<Dialled, RouteChange>,
) -> LiveFlows {
    let (mut old, mut new) = (Named::new(before), Named::new(after));
    let mut all = FlowFates::default();
    let mut by_real: BTreeMap<SocketAddr, FlowFates> = BTreeMap::new();
    routes.values_mut().for_each(|route| route.flows = Some(FlowFates::default()));
    for flow in flows {
        let vip = flow.vip;
        let pair = pair_of(before, after, &flow.client);
        let fate = match flow.real {
            // What befalls a flow already is not this change's doing.
            Some(real) => match new.fate(vip, pair.1, real) {
                fate if fate <= old.fate(vip, pair.0, real) => Fate::Kept,
                fate => fate,
            },
            None => Fate::Kept,
        };
        all.count(fate);
        if let Some(real) = flow.real {
            by_real.entry(real).or_default().count(fate);
        }
        // A class without a route of its own is in everybody's.
        let route = match routes.contains_key(&(vip, pair)) {
            true => routes.get_mut(&(vip, pair)),
            false => routes.get_mut(&(vip, (0, 0))).filter(|_| {
                route_id(before, vip, pair.0) == route_id(before, vip, 0)
                    && route_id(after, vip, pair.1) == route_id(after, vip, 0)
            }),
        };
        if let Some(fates) = route.and_then(|route| route.flows.as_mut()) {
            fates.count(fate);
        }
    }
    by_real.retain(|_, fates| fates.draining + fates.gone > 0);
    LiveFlows {
        all,
        reals: by_real
            .into_iter()
            .map(|(address, fates)| RealFlows { address: address.to_string(), fates })
            .collect(),
    }
}
