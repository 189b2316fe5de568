//! What reals that answer clients by themselves ask of a set.

use std::{collections::BTreeMap, net::SocketAddr};

use super::NodeError;
use crate::{compile::Tables, resolve::VipKey};

/// A VIP with a real that has another port: whoever sends packets on as they are cannot change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherPort {
    /// What clients dial.
    pub vip: VipKey,
    /// Where their packets would have to go.
    pub real: SocketAddr,
}

/// Whether reals that answer by themselves can take this set, whose packets come in by `interfaces`.
///
/// # Errors
/// [`NodeError::OneWay`].
pub fn check_one_way(tables: &Tables, interfaces: Vec<String>) -> Result<(), NodeError> {
    if interfaces.is_empty() {
        return Ok(());
    }
    other_port(tables).map_or(Ok(()), |found| Err(NodeError::OneWay { found, interfaces }))
}

/// The first VIP, in the order of VIPs, that has such a real.
fn other_port(tables: &Tables) -> Option<OtherPort> {
    let mut own: BTreeMap<u32, Vec<&u32>> = BTreeMap::new();
    for ((_, vip), route) in &tables.class_routes {
        own.entry(*vip).or_default().push(route);
    }
    tables.vips.iter().find_map(|(vip, spec)| {
        let routes = own.get(&spec.id).into_iter().flatten().copied().chain([&spec.route]);
        let targets = routes
            .filter_map(|route| tables.routes.get(route)?.table.as_ref())
            .flat_map(|table| &table.targets);
        let reals = targets.filter_map(|target| tables.reals.get(&target.real));
        let wrong = reals.map(|real| real.addr).filter(|addr| addr.port() != vip.addr.port());
        wrong.min().map(|real| OtherPort { vip: *vip, real })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use balancer_ebpf::abi::TargetWord;

    use super::*;
    use crate::{
        compile::{CounterRun, RealSpec, RouteSpec, Table, VipSpec},
        resolve::VipProtocol,
    };

    fn route(owner: (u32, u32), reals: &[u32]) -> RouteSpec {
        let target = |real: &u32| TargetWord { real: *real, backend: 0 };
        let table = Table {
            backends: vec![0],
            runs: vec![(0, 0)],
            targets: reals.iter().map(target).collect(),
            slots: Arc::from([0u16]),
        };
        RouteSpec {
            owner,
            resolved: 0,
            deny: false,
            pick: 0,
            choices: 0,
            flags: 0,
            counters: CounterRun::default(),
            table: Some(Arc::new(table)),
        }
    }

    #[test]
    fn real_with_another_port_is_found_on_routes_of_classes_too() {
        let vip = VipKey { addr: ([240, 0, 0, 1], 80).into(), protocol: VipProtocol::Tcp };
        let real = |port| RealSpec { addr: ([10, 0, 1, 2], port).into(), generation: 1 };
        let spec = VipSpec { id: 7, route: 1, classes_agree: false, resolved: 0 };
        let mut tables = Tables {
            vips: BTreeMap::from([(vip, spec)]),
            routes: BTreeMap::from([(1, route((0, 7), &[1, 2])), (2, route((3, 7), &[3]))]),
            reals: BTreeMap::from([(2, real(80)), (3, real(8080))]),
            ..Tables::default()
        };
        assert_eq!(other_port(&tables), None, "no class uses the second route");
        tables.class_routes.insert((3, 7), 2);
        let real = "10.0.1.2:8080".parse().expect("an address");
        assert_eq!(other_port(&tables), Some(OtherPort { vip, real }));
    }
}
