//! Next hops that flows remember on XDP, and an agent that keeps them fresh.

use harness::{Agent, Connection, Instance, root_or_skip};
use serde_json::Value;

use super::world::World;
use crate::{
    bed::{VIP4, VIP6},
    edge::prepare,
};

fn rows(instance: &Instance<'_>, map: &str) -> Vec<Value> {
    let rows = instance.json(&["maps", "dump", map]).expect("a dump");
    rows.as_array().expect("a list").clone()
}

fn generation(instance: &Instance<'_>) -> u64 {
    rows(instance, "HOPS").first().map_or(0, |row| row["generation"].as_u64().expect("a number"))
}

/// Whether both directions of each flow remember a next hop.
fn remembered(instance: &Instance<'_>) -> bool {
    ["FLOWS4", "FLOWS6"].iter().all(|map| {
        let rows = rows(instance, map);
        rows.len() == 2 && rows.iter().all(|row| row["hop"] != 0)
    })
}

#[track_caller]
fn talk(connections: &mut [Connection], word: &str) {
    for connection in connections {
        connection.talk(word).expect("an answer");
    }
}

/// Gives the real `a` another Ethernet address, and the node is told.
fn readdress(world: &World, ethernet: &str) {
    let real = world.bed.topology.host("a");
    real.ns.ip(&[format!("link set eth0 address {ethernet}")]).expect("an Ethernet address");
    let told = real.addresses.iter().map(|address| {
        format!("neigh replace {address} lladdr {ethernet} dev {} nud permanent", real.interface)
    });
    world.bed.topology.node.ip(&told.collect::<Vec<_>>()).expect("neighbours");
}

#[test]
fn a_neighbour_that_gets_another_ethernet_address_is_followed() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    prepare(&world.bed);
    let instance = world.bed.instance();
    // Flows as XDP alone makes them: those that TC begins past the stack are `direct`.
    let attach = "[{interface: 'v-*', hook: xdp}]";
    let config = world.config_for(&[world.policies()], attach, "forwarding: stack\n");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    agent.wait_logged(&["next hops are kept fresh for XDP"]).expect("said");
    let open = |to| world.bed.open("web-1", to).expect("a connection");
    let mut connections = [VIP4, VIP6].map(open);
    agent
        .wait("flows remember their next hops", || {
            talk(&mut connections, "again");
            remembered(&instance)
        })
        .expect("they do");
    let before = generation(&instance);
    readdress(&world, "02:00:00:00:77:01");
    talk(&mut connections, "elsewhere");
    assert!(generation(&instance) > before);
    agent
        .wait("the new one is remembered", || {
            talk(&mut connections, "again");
            remembered(&instance)
        })
        .expect("it is");
    let hops = rows(&instance, "HOP_IDS");
    let known = |ethernet: &str| hops.iter().any(|row| row["key"].to_string().contains(ethernet));
    assert!(known("02:00:00:00:77:01"), "{hops:?}");

    // Killed: nobody hears of the next change, and soon nobody relies on what is remembered.
    agent.kill().expect("killed");
    readdress(&world, "02:00:00:00:77:02");
    talk(&mut connections, "after a while");

    // The next agent begins anew.
    let before = generation(&instance);
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    agent.wait_logged(&["next hops are kept fresh for XDP"]).expect("said");
    assert!(generation(&instance) > before);
    agent
        .wait("flows remember again", || {
            talk(&mut connections, "again");
            remembered(&instance)
        })
        .expect("they do");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    super::world::replace(&config, &text.replace("hook: xdp", "hook: tc"));
    agent.wait_logged(&["no XDP program remembers next hops any more"]).expect("said");
    talk(&mut connections, "by TC");
    agent.stop().expect("an orderly end");
}
