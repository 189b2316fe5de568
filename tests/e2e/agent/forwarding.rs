//! Packets that go past the stack while nobody misses them, and rules that come and go.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Agent, Connection, Instance, root_or_skip};
use serde_json::Value;

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
fn goes(world: &World, agent: &mut Agent, instance: &Instance<'_>, way: &str) -> String {
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

/// What `INTERFACES` says of each interface, without the time that is left.
fn allowed(instance: &Instance<'_>) -> Vec<(u64, String)> {
    let rows = instance.json(&["maps", "dump", "INTERFACES"]).expect("a dump");
    let rows = rows.as_array().expect("a list").clone();
    let row = |row: &Value| {
        let number = row["key"].as_u64().expect("a number");
        (number, row["flags"].to_string())
    };
    rows.iter().map(row).collect()
}

/// Waits until what the last agent said has ended by itself.
fn ends(world: &World, instance: &Instance<'_>) -> String {
    let interface = interface(world);
    let begun = Instant::now();
    loop {
        let (way, _, why) = told(instance, &interface);
        if way == "stack" {
            return why;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "packets still go past the stack");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_agent_that_ends_touches_nothing_and_soon_the_stack_has_the_packets() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    goes(&world, &mut agent, &instance, "direct");
    let mut connections = open(&world);
    let before = allowed(&instance);
    for killed in [false, true] {
        if killed {
            agent.kill().expect("killed");
        } else {
            agent.stop().expect("an orderly end");
        }
        assert_eq!(told(&instance, &interface(&world)).0, "direct", "for a while");
        live(&mut connections, "as before");
        assert_eq!(ends(&world, &instance), "no agent looks for rules that come");
        assert_eq!(allowed(&instance), before);
        live(&mut connections, "through the stack");
        // A rule that comes now is met.
        let node = &world.bed.topology.node;
        node.nft(
            "add table inet t
            add chain inet t passing { type filter hook forward priority 0; }
            add rule inet t passing tcp dport 6379 reject with tcp reset",
        )
        .expect("a firewall");
        assert!(world.bed.open("web-2", VIP4).is_err(), "the rule holds");
        node.nft("delete table inet t").expect("no firewall");
        agent = world.agent(&instance);
        goes(&world, &mut agent, &instance, "direct");
        live(&mut connections, "and past it again");
    }

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
    let rows = instance.json(&["maps", "dump", "INTERFACES"]).expect("a dump");
    assert!(rows.as_array().expect("a list").iter().all(|row| row["left_ms"].is_null()), "{rows}");
    assert_eq!(told(&instance, &interface(&world)).0, "direct");
    live(&mut connections, "forced");
}
