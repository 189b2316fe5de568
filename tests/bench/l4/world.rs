//! Where it all happens: a client, a router and four servers, made anew for each contender, so
//! that nothing of one is left for the next.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Result, anyhow, ensure};
use harness::{Cgroup, Root, Topology};

use crate::{
    bed::{CLIENT, Part, SERVER_PORT, SERVERS, VIP, VIP_PORT, leave_no_remains},
    cost::{Cost, Meter},
    talk::{Order, Outcome, Served},
};

/// On the other end of what a node's default route names.
const UPLINK: &str = "10.72.9.1";
/// A server that gets less than this part of its share of many connections was not balanced to.
const FAIR: f64 = 0.7;
/// What follows the last answer belongs to the cost too: a proxy still has to close.
const SETTLE: Duration = Duration::from_millis(20);
/// So many connections show how they are shared.
const MANY: u64 = 1000;

/// Where the load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind a router that has the balancer: a client elsewhere, or a workload of a node.
    Router,
    /// On the node that has the balancer, as a process of that node itself.
    Node,
}

impl Place {
    pub(crate) const ALL: [Self; 2] = [Self::Router, Self::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Node => "node",
        }
    }
}

/// The namespaces, and the group of everything that runs in them.
pub(crate) struct World {
    // Dropped in this order: everything that runs, then where it ran.
    pub(crate) group: Cgroup,
    pub(crate) topology: Topology,
    pub(crate) place: Place,
}

/// The servers and what asks them, in a world.
pub(crate) struct Traffic<'a> {
    world: &'a World,
    load: Part,
    servers: Vec<Part>,
}

impl World {
    pub(crate) fn new(root: Root, place: Place) -> Result<Self> {
        let mut builder = Topology::builder().fixed_neighbours();
        builder = match place {
            Place::Router => builder.host("client", &[CLIENT]),
            Place::Node => builder.host("uplink", &[UPLINK]),
        };
        for (number, address) in SERVERS.iter().enumerate() {
            builder = builder.host(&format!("server-{number}"), &[address]);
        }
        let topology = builder.build(root)?;
        let node = &topology.node;
        if place == Place::Node {
            let mut lines = vec![
                format!("addr add {CLIENT}/32 dev lo"),
                format!("route add default via {UPLINK} dev v-uplink src {CLIENT}"),
            ];
            for (number, address) in SERVERS.iter().enumerate() {
                lines
                    .push(format!("route replace {address}/32 dev v-server-{number} src {CLIENT}"));
            }
            node.ip(&lines)?;
        }
        leave_no_remains(&topology)?;
        Ok(Self { group: Cgroup::new(root, "l4")?, topology, place })
    }
}

/// Every server: where connections go without a balancer.
pub(crate) fn direct() -> Result<Vec<SocketAddr>> {
    SERVERS.iter().map(|address| Ok(format!("{address}:{SERVER_PORT}").parse()?)).collect()
}

/// The VIP: where connections go with one.
pub(crate) fn vip() -> Result<Vec<SocketAddr>> {
    Ok(vec![format!("{VIP}:{VIP_PORT}").parse()?])
}

impl<'a> Traffic<'a> {
    /// Starts the servers and what will ask them.
    pub(crate) fn start(world: &'a World) -> Result<Self> {
        let World { group, topology, place } = world;
        let mut servers = Vec::new();
        for (number, address) in SERVERS.iter().enumerate() {
            let ns = &topology.host(&format!("server-{number}")).ns;
            let mut server = Part::start(group, ns, &format!("serve {address}:{SERVER_PORT}"))?;
            let _: Served = server.answer()?;
            servers.push(server);
        }
        let ns = match *place {
            Place::Router => &topology.host("client").ns,
            Place::Node => &topology.node,
        };
        let load = Part::start(group, ns, "load")?;
        Ok(Self { world, load, servers })
    }

    /// Carries out an order and says what it cost; fails unless every connection and request of
    /// it was answered, and every server got its share.
    pub(crate) fn carry_out(&mut self, order: &Order) -> Result<Cost> {
        let before = self.served()?;
        let meter = Meter::new(&self.world.group)?;
        let begun = meter.read()?;
        let outcome: Outcome = self.load.ask(order)?;
        outcome.map_err(|fault| anyhow!("the load failed: {fault}"))?;
        thread::sleep(SETTLE);
        let cost = meter.since(&begun)?;
        let after = self.served()?;

        let each = |what: fn(&Served) -> u64| -> Vec<u64> {
            after.iter().zip(&before).map(|(after, before)| what(after) - what(before)).collect()
        };
        let (accepted, answered, broken) =
            (each(|s| s.accepted), each(|s| s.answered), each(|s| s.broken));
        let sum = |numbers: &[u64]| numbers.iter().sum::<u64>();
        ensure!(
            sum(&accepted) == order.connections
                && sum(&answered) == order.connections * order.requests
                && sum(&broken) == 0,
            "the servers accepted {accepted:?} connections, answered {answered:?} requests and \
             had {broken:?} that broke, of {} connections with {} requests each",
            order.connections,
            order.requests
        );
        let share = order.connections as f64 / SERVERS.len() as f64;
        ensure!(
            order.connections < MANY || accepted.iter().all(|n| *n as f64 > share * FAIR),
            "{accepted:?} connections are no even shares"
        );
        Ok(cost)
    }

    fn served(&mut self) -> Result<Vec<Served>> {
        self.servers.iter_mut().map(|server| server.ask(&())).collect()
    }
}
