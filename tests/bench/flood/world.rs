//! A client, a node with the balancer, the reals of two services, and whoever floods one of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use harness::{Flood, Instance, Root, Topology};

use crate::{LIMIT, write};

const CLIENT: [&str; 2] = ["10.72.1.10", "fd72:1::10"];
pub(crate) const REAL_A: [&str; 2] = ["10.72.2.10:8080", "[fd72:2::10]:8080"];
const REAL_B: &str = "10.72.2.11";
const ATTACKER: &str = "10.72.3.10";

/// What the downloads go through.
pub(crate) const VIPS_A: [&str; 2] = ["10.99.0.1:80", "[fd99::1]:80"];
/// What is flooded.
pub(crate) const VIP_B: &str = "10.99.0.2:80";
/// No VIP, with a port that VIPs have.
pub(crate) const NO_VIP: &str = "10.99.0.3:80";

/// The namespaces.
pub(crate) struct World {
    pub(crate) topology: Topology,
}

impl World {
    pub(crate) fn new(root: Root) -> Result<Self> {
        let [a4, a6] = REAL_A.map(|end| end.parse::<SocketAddr>().map(|end| end.ip().to_string()));
        let topology = Topology::builder()
            .fixed_neighbours()
            .host("client", &CLIENT)
            .host("real-a", &[&a4?, &a6?])
            .host("real-b", &[REAL_B])
            .host("attacker", &[ATTACKER])
            .build(root)?;
        // Answers to the flood go back to where it came from, and are lost there.
        let (no_vip, _) = NO_VIP.split_once(':').context("an address and a port")?;
        topology.node.ip(&[
            format!("route add {} via {ATTACKER} dev v-attacker onlink", Flood::SOURCES),
            format!("route add blackhole {no_vip}/32"),
        ])?;
        Ok(Self { topology })
    }

    /// Loads the two services and attaches to all interfaces of the node.
    pub(crate) fn balancer(&self, root: Root, home: &Path) -> Result<Balancer<'_>> {
        let instance = Instance::new(root, &self.topology.node)?;
        let balancer = Balancer {
            instance,
            policies: write(home.join("policies.yaml"), &policies())?,
            home: home.to_owned(),
        };
        let attach: Vec<String> =
            self.topology.hosts().map(|(_, host)| format!("{}=tc", host.interface)).collect();
        balancer.load(true, &attach)?;
        Ok(balancer)
    }
}

/// What is loaded, and what it is loaded from.
pub(crate) struct Balancer<'a> {
    instance: Instance<'a>,
    policies: String,
    home: PathBuf,
}

impl Balancer<'_> {
    /// Switches the guard.
    pub(crate) fn guard(&self, on: bool) -> Result<()> {
        self.load(on, &[])
    }

    fn load(&self, guard: bool, attach: &[String]) -> Result<()> {
        let limit = if guard { LIMIT.to_string() } else { "off".to_owned() };
        let text = format!("limits: {{new_flows: {limit}}}\n");
        let config = write(self.home.join("config.yaml"), &text)?;
        let mut args = vec!["load", "-f", &self.policies, "--config", &config];
        for interface in attach {
            args.extend(["--attach", interface]);
        }
        self.instance.balancer(&args)?;
        let limit = &self.instance.json(&["status"])?["new_flows_limit"];
        ensure!(limit.is_null() != guard, "the limit is {limit}");
        Ok(())
    }

    /// Packets that the guard has refused so far.
    pub(crate) fn refused(&self) -> Result<u64> {
        let reasons = self.instance.json(&["show", "reasons"])?;
        let rows = reasons.as_array().context("a list of reasons")?;
        let row = rows.iter().find(|row| row["reason"] == "new_flow_limit");
        // Reasons that nothing met may be left out.
        Ok(row.and_then(|row| row["packets"].as_u64()).unwrap_or(0))
    }

    /// Whether the flow tables still know a connection, both ways.
    pub(crate) fn has_both_entries(&self, (client, vip): (SocketAddr, SocketAddr)) -> Result<()> {
        let (map, real) = if vip.is_ipv4() { ("FLOWS4", 0) } else { ("FLOWS6", 1) };
        let (client, vip) = (client.to_string(), vip.to_string());
        for [way, from, to] in [["forward", &client, &vip], ["reply", REAL_A[real], &client]] {
            self.instance
                .balancer(&["maps", "lookup", map, way, from, to])
                .with_context(|| format!("the {way} entry of {client} – {vip} was evicted"))?;
        }
        Ok(())
    }
}

/// A Mesh, the client, and two services of a real each: A by both families.
fn policies() -> String {
    let mut text = "type: Mesh\nname: default\n".to_owned();
    let mut outbound = String::new();
    for (service, vips) in [("a", &VIPS_A[..]), ("b", &[VIP_B])] {
        for vip in vips {
            let (address, port) = vip.rsplit_once(':').unwrap_or((vip, "80"));
            let address = address.trim_matches(['[', ']']);
            outbound += &format!(
                "  - {{address: '{address}', port: {port}, tags: {{kuma.io/service: {service}}}}}\n"
            );
        }
    }
    let mut dataplane = |name: &str, address: &str, service: &str, port: u16, rest: &str| {
        text += &format!(
            "---\ntype: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: \
             '{address}'\n  inbound:\n  - {{port: {port}, tags: {{kuma.io/service: \
             {service}}}}}\n{rest}"
        );
    };
    dataplane("client", CLIENT[0], "client", 1, &format!("  outbound:\n{outbound}"));
    for (number, real) in REAL_A.iter().enumerate() {
        let address = real.trim_end_matches(":8080").trim_matches(['[', ']']);
        dataplane(&format!("a-{number}"), address, "a", 8080, "");
    }
    dataplane("b", REAL_B, "b", 8080, "");
    for service in ["a", "b"] {
        text += &format!(
            "---\ntype: TrafficRoute\nmesh: default\nname: {service}\nsources: [{{match: \
             {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: \
             {service}}}}}]\nconf:\n  loadBalancer: {{maglev: {{}}}}\n  split: [{{weight: 1, \
             destination: {{kuma.io/service: {service}}}}}]\n"
        );
    }
    text
}
