//! Names in policies: answers that change, fail, and hold many addresses.

use std::{collections::BTreeMap, fs, net::Ipv4Addr};

use harness::{Agent, root_or_skip};

use super::{
    dns::{DnsServer, Zone},
    world::{World, status},
};
use crate::bed::VIP4;

/// An external service `store` whose endpoint is a name, and all of `redis` sent to it.
const EXTERNAL: &str = "\
type: ExternalService
mesh: default
name: store
tags: {kuma.io/service: store}
networking: {address: 'store.example:6379'}
---
type: TrafficRoute
mesh: default
name: redis-canary
sources:
- match: {kuma.io/service: '*'}
destinations:
- match: {kuma.io/service: redis}
conf:
  destination: {kuma.io/service: store}
";

const STORE: &str = "store.example";

fn zone(addresses: &[Ipv4Addr]) -> Zone {
    Zone { names: BTreeMap::from([(STORE.to_owned(), addresses.to_vec())]), ttl: 1, failing: false }
}

/// Addresses of the bed's reals.
fn real(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 71, 2, last)
}

#[test]
fn names_are_followed_as_their_answers_change_fail_and_grow() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    fs::write(world.policies().join("route.yaml"), EXTERNAL).expect("write");
    let at = "127.0.0.1:5353".parse().expect("an address");
    let server = DnsServer::start(&world.bed.topology.node, at, zone(&[real(10)]));
    let config = world.config("dns: {servers: ['127.0.0.1:5353']}\n");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    let met = || {
        let connection = world.bed.open("web-1", VIP4).ok()?;
        let greeting = connection.greeting.name.clone();
        connection.close().ok()?;
        Some(greeting)
    };
    assert_eq!(met().as_deref(), Some("a"), "the set waited for its first answer");

    // Another answer is met once the time to live of the one before is over.
    server.change(|now| *now = zone(&[real(11)]));
    agent.wait("the new answer is met", || met().as_deref() == Some("b")).expect("follow");

    // An equal answer changes nothing.
    let epoch = || instance.json(&["status"]).expect("status")["epoch"].clone();
    let (before, asked) = (epoch(), server.asked());
    agent.wait("it is asked again", || server.asked() >= asked + 4).expect("asked");
    assert_eq!(epoch(), before);

    // A failure keeps the last answer, and says so.
    server.change(|now| now.failing = true);
    agent.wait_logged(&["WARN", STORE, "does not resolve"]).expect("said");
    agent
        .wait("status says so", || status(&instance)["names"][0]["problem"].is_string())
        .expect("told");
    assert_eq!(met().as_deref(), Some("b"), "the last answer stays");
    // Also over the end of the agent.
    agent.stop().expect("an orderly end");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent while DNS fails");
    assert_eq!(met().as_deref(), Some("b"), "the answer of the agent before stays");

    server.change(|now| *now = zone(&[real(12)]));
    agent.wait("it resolves again", || met().as_deref() == Some("c")).expect("follow");

    // A hundred addresses, in another order each time: one set.
    let many: Vec<Ipv4Addr> = (1..=100).map(|last| Ipv4Addr::new(10, 73, 0, last)).collect();
    server.change(|now| *now = zone(&many));
    agent
        .wait("all of them are known", || {
            status(&instance)["names"][0]["addresses"].as_array().map(Vec::len) == Some(100)
        })
        .expect("told");
    agent
        .wait("all of them are reals", || {
            let backends = instance.json(&["show", "reals"]).expect("reals");
            let rows = backends.as_array().expect("rows").clone();
            let of_name = |row: &&serde_json::Value| row.to_string().contains("10.73.0.");
            rows.iter().filter(of_name).count() == 100
        })
        .expect("carried out");
    let before = epoch();
    let asked = server.asked();
    server.change(|now| {
        now.names.values_mut().for_each(|addresses| addresses.reverse());
    });
    agent.wait("it is asked again", || server.asked() >= asked + 4).expect("asked");
    assert_eq!(epoch(), before, "another order is the same answer");
    agent.stop().expect("an orderly end");
}
