//! What would change if one set took the place of another.
//!
//! Belongs here: which VIPs, sources and classes come and go, what each route's backends and
//! reals get before and after, how much of a table moves, what becomes of live flows. Both sides
//! are values: a set that is live and one that was compiled from files look the same here. Does
//! not know files, the kernel or the clock.

#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use crate::{
    compile::Tables,
    policy::Tags,
    resolve::{BackendState, Decision, PolicyRef, Resolved},
};

mod flows;
mod pairs;
mod routes;
mod rules;
#[cfg(test)]
mod rules_tests;
mod spread;
#[cfg(test)]
mod tests;

pub use flows::{FlowFates, LiveFlow, LiveFlows, RealFlows};
pub use rules::{RuleBackend, RuleChange, RuleChanges, RuleFate};
pub use spread::Moved;

/// A set, resolved and compiled. Nothing at all is the default of both.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its VIPs, sources, classes and routes.
    pub resolved: &'a Resolved,
    /// Its ids and tables.
    pub tables: &'a Tables,
}

/// Something before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Both<T> {
    /// Of the set that is replaced.
    pub before: T,
    /// Of the set that takes its place.
    pub after: T,
}

impl<T: PartialEq> Both<T> {
    /// Whether the two are the same.
    pub fn same(&self) -> bool {
        self.before == self.after
    }
}

/// What became of something that a set names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the set after has it.
    Added,
    /// Only the set before has it.
    Removed,
    /// Both have it, not alike.
    Changed,
}

/// A VIP that comes or goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VipChange {
    /// Which of the two.
    pub change: Change,
    /// Address and port.
    pub vip: String,
    /// Its mesh.
    pub mesh: String,
    /// What it stands for.
    pub service: String,
}

/// A source that comes, goes, or changes its class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceChange {
    /// Which of the three.
    pub change: Change,
    /// Address.
    pub address: IpAddr,
    /// Its Dataplanes, `MESH/NAME`.
    pub dataplanes: Vec<String>,
    /// Class ids; 0: like everybody.
    pub class: Both<u32>,
}

/// What happens to the route of one VIP for sources that share their class before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteChange {
    /// Whether the VIP comes, goes, or stays.
    pub change: Change,
    /// Address and port.
    pub vip: String,
    /// Mesh of the VIP.
    pub mesh: String,
    /// What the VIP stands for.
    pub service: String,
    /// Class ids; 0: everybody.
    pub class: Both<u32>,
    /// Dataplanes whose route this is, `MESH/NAME`; `*`: everybody.
    pub from: Vec<String>,
    /// The policy that decides.
    pub policy: Both<Option<PolicyRef>>,
    /// What happens to connections; `null`: no VIP, or nothing that it could be sent to.
    pub decision: Both<Option<Decision>>,
    /// The load balancer's name.
    pub load_balancer: Both<Option<&'static str>>,
    /// Slots of the table.
    pub slots: Both<Option<u32>>,
    /// The table has another size: most connections without a flow entry find another real.
    pub rung_changes: bool,
    /// How much of the table names another real; `null` where one side has no table.
    pub moved: Option<Moved>,
    /// The backends of both sides, those of the set after first.
    pub backends: Vec<BackendChange>,
    /// What becomes of the flows of this route; `null` where no flows were looked at.
    pub flows: Option<FlowFates>,
    /// What changes about HTTP rules; `null` where neither side has any. No connection that lives
    /// is at risk by it: rules are for requests of connections that go through a proxy.
    pub http: Option<RuleChanges>,
}

impl RouteChange {
    /// Whether connections get anything else than before; else only HTTP rules change.
    pub fn of_connections(&self) -> bool {
        let of_backend = |backend: &BackendChange| {
            backend.weight.same()
                && backend.state.same()
                && backend.share.same()
                && backend.reals.iter().all(|real| real.share.same())
        };
        let same = self.change == Change::Changed
            && self.policy.same()
            && self.decision.same()
            && self.load_balancer.same()
            && self.slots.same()
            && self.moved.is_none_or(|moved| moved.share == 0.0)
            && self.backends.iter().all(of_backend);
        !same
    }
}

/// A backend before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendChange {
    /// What it names.
    pub service: String,
    /// The tags that its endpoints must have.
    pub tags: Tags,
    /// Weight; `null`: not named.
    pub weight: Both<Option<u32>>,
    /// State; `null`: not named.
    pub state: Both<Option<BackendState>>,
    /// Part of the table's slots.
    pub share: Both<f64>,
    /// Its reals, by address.
    pub reals: Vec<RealChange>,
}

/// A real of a backend before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RealChange {
    /// Address and port.
    pub address: String,
    /// Part of the table's slots.
    pub share: Both<f64>,
}

/// Everything that would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Changes {
    /// VIPs that come or go, by address.
    pub vips: Vec<VipChange>,
    /// Sources that come, go or change their class, by address.
    pub sources: Vec<SourceChange>,
    /// Ids of classes that come.
    pub classes_added: Vec<u32>,
    /// Ids of classes that go.
    pub classes_removed: Vec<u32>,
    /// Routes that change, by VIP and class.
    pub routes: Vec<RouteChange>,
    /// Routes that stay as they are.
    pub routes_unchanged: usize,
    /// What becomes of live flows; `null` where none were looked at.
    pub flows: Option<LiveFlows>,
}

impl Changes {
    /// Whether the two sets do the same.
    pub fn none(&self) -> bool {
        self.vips.is_empty() && self.sources.is_empty() && self.routes.is_empty()
    }
}

/// Compares two sets. The ids of `after` must have been given out with those of `before` in
/// mind (`compile` with its assignment), so that a class of both is known by its id. `flows` are
/// those that are live, where that was asked for.
pub fn compare(
    before: Side<'_>,
    after: Side<'_>,
    flows: Option<impl Iterator<Item = LiveFlow>>,
) -> Changes {
    let (mut changed, unchanged) = routes::changes(before, after);
    let flows = flows.map(|flows| flows::fates(before, after, flows, &mut changed));
    let classes = |side: Side<'_>| -> BTreeSet<u32> {
        side.tables.sources.values().map(|spec| spec.class).filter(|class| *class != 0).collect()
    };
    let (old, new) = (classes(before), classes(after));
    Changes {
        vips: vips(before, after),
        sources: sources(before, after),
        classes_added: new.difference(&old).copied().collect(),
        classes_removed: old.difference(&new).copied().collect(),
        routes: changed.into_values().collect(),
        routes_unchanged: unchanged,
        flows,
    }
}

fn vips(before: Side<'_>, after: Side<'_>) -> Vec<VipChange> {
    let mut changes = BTreeMap::new();
    for (change, side, other) in [(Change::Removed, before, after), (Change::Added, after, before)]
    {
        for vip in side.resolved.vips.iter().filter(|vip| !other.tables.vips.contains_key(&vip.key))
        {
            let line = VipChange {
                change,
                vip: vip.key.to_string(),
                mesh: vip.destination.mesh().to_owned(),
                service: vip.destination.to_string(),
            };
            changes.insert(vip.key, line);
        }
    }
    changes.into_values().collect()
}

fn sources(before: Side<'_>, after: Side<'_>) -> Vec<SourceChange> {
    let class =
        |side: Side<'_>, address: &IpAddr| side.tables.sources.get(address).map(|spec| spec.class);
    let dataplanes = pairs::dataplanes(before, after);
    dataplanes
        .into_iter()
        .filter_map(|(address, dataplanes)| {
            let (old, new) = (class(before, &address), class(after, &address));
            let change = match (old, new) {
                (None, None) => return None,
                (None, Some(_)) => Change::Added,
                (Some(_), None) => Change::Removed,
                (old, new) if old != new => Change::Changed,
                _ => return None,
            };
            let class = Both { before: old.unwrap_or(0), after: new.unwrap_or(0) };
            Some(SourceChange { change, address, dataplanes, class })
        })
        .collect()
}
