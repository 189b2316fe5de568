//! balancer itself: the agent, as it runs on a node.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use harness::{Agent, Instance, Root, shell::checked};

use crate::{
    bed::{CLIENT, SERVER_PORT, SERVERS, VIP, VIP_PORT},
    rules::further,
    world::World,
};

/// How packets go on after translation, and where they are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// TC, then the stack.
    Stack,
    /// TC, then the other interface.
    Direct,
    /// XDP, then the other interface.
    Xdp,
}

/// Words with which the agent refuses what it cannot do yet.
const UNDONE: &str = "not carried out yet";

/// Starts an agent and waits until packets meet the services; without one where it cannot do
/// what is asked for, and then with its own words for that.
pub(crate) fn start<'a>(
    root: Root,
    world: &'a World,
    home: &Path,
    way: Way,
    others: u32,
) -> Result<Result<(Agent, Instance<'a>), String>> {
    if way == Way::Xdp {
        offloads_for_xdp(world)?;
    }
    let policies = home.join("policies.yaml");
    fs::write(&policies, self::policies(others))
        .with_context(|| format!("cannot write {}", policies.display()))?;
    let (hook, forwarding) = match way {
        Way::Stack => ("tc", "stack"),
        Way::Direct => ("tc", "direct"),
        Way::Xdp => ("xdp", "auto"),
    };
    let config = home.join("config.yaml");
    // A table of four reals has 1,021 slots; each real is a workload.
    let text = format!(
        "policies: ['{}']\nattach: [{{interface: 'v-*', hook: {hook}}}]\nforwarding: \
         {forwarding}\nlimits: {{arena_slots: {}, sources: {}}}\n",
        policies.display(),
        4_194_304.max((others + 1) * 1100),
        16_384.max((others + 2) * SERVERS.len() as u32)
    );
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let instance = Instance::new(root, &world.topology.node)?;
    match Agent::start(&instance, &config, &[]) {
        Ok(agent) => {
            world.group.add(agent.pid())?;
            Ok(Ok((agent, instance)))
        }
        Err(error) => {
            let text = format!("{error:#}");
            match text.lines().find(|line| line.contains(UNDONE)) {
                Some(line) => Ok(Err(line.trim_start_matches("error: ").to_owned())),
                None => Err(error),
            }
        }
    }
}

/// Offloads with which packets that XDP sends on arrive: checksums whole, as XDP cannot say
/// that one is still to be filled in, and GRO, without which a veth end takes no redirected frame.
fn offloads_for_xdp(world: &World) -> Result<()> {
    for (_, host) in world.topology.hosts() {
        for (ns, interface) in [(&world.topology.node, host.interface.as_str()), (&host.ns, "eth0")]
        {
            let output = ns
                .command("ethtool")
                .args(["-K", interface, "tx", "off", "gro", "on"])
                .output()
                .context("cannot run ethtool")?;
            checked("ethtool -K", output)?;
        }
    }
    Ok(())
}

/// A Mesh, the client, the servers behind their VIP, and other services of as many reals.
fn policies(others: u32) -> String {
    let mut text = format!(
        "type: Mesh\nname: default\n---\ntype: Dataplane\nmesh: default\nname: \
         client\nnetworking:\n  address: {CLIENT}\n  inbound:\n  - {{port: 1, tags: \
         {{kuma.io/service: client}}}}\n  outbound:\n  - {{address: {VIP}, port: {VIP_PORT}, \
         tags: {{kuma.io/service: server}}}}\n---\ntype: TrafficRoute\nmesh: default\nname: \
         server\nsources: [{{match: {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: \
         {{kuma.io/service: server}}}}]\nconf:\n  loadBalancer: {{maglev: {{}}}}\n  split: \
         [{{weight: 1, destination: {{kuma.io/service: server}}}}]\n"
    );
    let mut real = |service: &str, number: usize, address: &str| {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\ntype: Dataplane\nmesh: default\nname: {service}-{number}\nnetworking:\n  \
             address: {address}\n  inbound:\n  - {{port: {SERVER_PORT}, tags: {{kuma.io/service: \
             {service}}}}}\n"
        );
    };
    for (number, address) in SERVERS.iter().enumerate() {
        real("server", number, address);
    }
    for other in 0..others {
        for (number, address) in further(other).reals.iter().enumerate() {
            real(&format!("other-{other}"), number, &address.to_string());
        }
    }
    text
}
