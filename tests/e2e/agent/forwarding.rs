//! Packets that go past the stack while nobody misses them, and rules that come and go.

use harness::{Agent, Connection, root_or_skip};

use super::world::World;
use crate::{
    bed::{VIP4, VIP6},
    direct::{dial, told},
};

/// Interface of the client.
fn interface(world: &World) -> String {
    world.bed.topology.host("web-1").interface.clone()
}

/// Waits until packets of the client go this way.
fn goes(world: &World, agent: &mut Agent, instance: &harness::Instance<'_>, way: &str) -> String {
    let interface = interface(world);
    agent
        .wait(&format!("packets of {interface} go by {way}"), || {
            told(instance, &interface).0 == way
        })
        .expect("judged anew");
    told(instance, &interface).2
}

fn open(world: &World) -> Vec<Connection> {
    let one = |to| world.bed.open("web-1", to).expect("a connection");
    (0..5).flat_map(|_| [VIP4, VIP6]).map(one).collect()
}

#[track_caller]
fn live(connections: &mut [Connection], word: &str) {
    for connection in connections {
        let name = connection.greeting.name.clone();
        assert_eq!(connection.talk(word).expect("the connection goes on"), name);
    }
}

#[test]
fn a_rule_that_comes_later_holds() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    goes(&world, &mut agent, &instance, "direct");
    dial(&world.bed, 28_000..28_005);
    let mut connections = open(&world);
    let node = &world.bed.topology.node;
    // Of one client only: everybody's packets go through the stack now, and live.
    let refuse = world.bed.topology.host("web-2").addresses.iter().map(|address| {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let what = format!("{family} saddr {address} tcp dport 6379");
        format!("add rule inet t passing {what} reject with tcp reset\n")
    });
    node.nft(&format!(
        "add table inet t\nadd chain inet t passing {{ type filter hook forward priority 0; }}\n{}",
        refuse.collect::<String>()
    ))
    .expect("a firewall");
    let why = goes(&world, &mut agent, &instance, "stack");
    assert_eq!(why, "rules of nftables at forward, in the chain inet t passing");
    for to in [VIP4, VIP6] {
        let refused = world.bed.open("web-2", to).expect_err("the rule holds");
        let os = refused.downcast_ref::<nix::errno::Errno>().copied();
        assert_eq!(os, Some(nix::errno::Errno::ECONNREFUSED), "{refused:#}");
    }
    live(&mut connections, "with the rule");
    agent.wait_logged(&["through the stack", "inet t passing"]).expect("said");

    node.nft("delete table inet t").expect("no firewall");
    goes(&world, &mut agent, &instance, "direct");
    live(&mut connections, "without it");
    world.bed.open("web-2", VIP4).expect("not refused any more").close().expect("closed");
    agent.stop().expect("an orderly end");
    live(&mut connections, "without an agent");
}

#[test]
fn connections_live_where_conntrack_drops_invalid_packets() {
    const DROPS: &str = "add table inet t
        add chain inet t passing { type filter hook forward priority 0; }
        add rule inet t passing ct state invalid drop";
    let Some(root) = root_or_skip("e2e") else { return };
    // There before the agent, and while connections live that began past the stack.
    for later in [false, true] {
        let world = World::new(root);
        let instance = world.bed.instance();
        let node = &world.bed.topology.node;
        if !later {
            node.nft(DROPS).expect("a firewall");
        }
        let mut agent = world.agent(&instance);
        let mut connections = Vec::new();
        if later {
            goes(&world, &mut agent, &instance, "direct");
            connections = open(&world);
            let flows = instance.balancer(&["maps", "dump", "FLOWS4"]).expect("flows");
            assert!(flows.contains("direct"), "{flows}");
            node.nft(DROPS).expect("a firewall");
        }
        let why = goes(&world, &mut agent, &instance, "stack");
        assert!(why.contains("inet t passing"), "{why}");
        live(&mut connections, "followed from now on");
        dial(&world.bed, 29_000..29_010);
        connections.extend(open(&world));
        // Without a rule conntrack still follows what it knows.
        node.nft("delete table inet t").expect("no firewall");
        agent
            .wait("conntrack is what is left", || {
                told(&instance, &interface(&world)).2 == "conntrack follows connections"
            })
            .expect("judged anew");
        live(&mut connections, "without a rule");
        agent.stop().expect("an orderly end");
    }
}

#[test]
fn an_agent_that_ends_leaves_packets_to_the_stack() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    goes(&world, &mut agent, &instance, "direct");
    let mut connections = open(&world);
    let log = agent.stop().expect("an orderly end");
    assert!(log.contains("the stack routes until an agent looks after rules again"), "{log}");
    let rows = instance.json(&["maps", "dump", "INTERFACES"]).expect("a dump");
    assert_eq!(rows, serde_json::json!([]));
    live(&mut connections, "through the stack");
    let mut agent = world.agent(&instance);
    goes(&world, &mut agent, &instance, "direct");
    live(&mut connections, "and past it again");

    // What is forced stays: no rule would end it.
    world.config("forwarding: direct\n");
    agent.wait_logged(&["forwarding", "the configuration has changed"]).expect("applied");
    agent
        .wait("it is forced", || {
            let rows = instance.balancer(&["maps", "dump", "INTERFACES"]).expect("a dump");
            rows.contains("forced")
        })
        .expect("applied");
    agent.stop().expect("an orderly end");
    assert_eq!(told(&instance, &interface(&world)).0, "direct");
    live(&mut connections, "forced");
}
