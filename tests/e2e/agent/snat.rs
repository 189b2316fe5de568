//! An agent whose configuration asks for source translation.

use std::fs;

use harness::{Agent, root_or_skip};

use super::world::{World, replace};
use crate::{
    bed::{VIP4, VIP6},
    snat::cut_off,
};

const ASKED: &str = "[{interface: 'v-*', hook: tc, snat: true}]";
const NOT_ASKED: &str = "[{interface: 'v-*', hook: tc}]";

#[test]
fn interfaces_that_ask_and_ports_follow_the_configuration() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    cut_off(&world.bed);
    let instance = world.bed.instance();
    let config = world.config_for(&[world.policies()], ASKED, "snat: {ports: 50000-50099}\n");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    agent.wait_logged(&["WARN", "50000-50099 overlap"]).expect("said");
    let port = |to: &str| {
        let connection = world.bed.open("web-1", to).expect("a connection");
        let port = connection.greeting.peer.port();
        connection.close().expect("the end");
        port
    };
    for to in [VIP4, VIP6] {
        assert!((50_000..50_100).contains(&port(to)), "{to}");
    }
    let mut kept = world.bed.open("web-1", VIP4).expect("a connection");

    let text = fs::read_to_string(&config).expect("the configuration");
    replace(&config, &text.replace("50000-50099", "61000-61009"));
    agent.wait_logged(&["INFO", "reals see other ports", "61000-61009"]).expect("said");
    assert!((61_000..61_010).contains(&port(VIP4)));
    kept.talk("on").expect("the connection keeps its port");

    // What it asks for is wrong: what runs stays.
    replace(&config, &text.replace("50000-50099", "40000-39999"));
    agent.wait_logged(&["ERROR", "config.yaml", "`40000-39999` is empty"]).expect("said");
    assert!((61_000..61_010).contains(&port(VIP4)));

    // Addresses of the node's interfaces are followed, and one that is missing is told. Where clients
    // are reals of services of their own there is none in any case.
    let status = || instance.json(&["status"]).expect("status");
    assert_eq!(status()["snat"]["ports"], "61000-61009");
    let (node, interface) = (&world.bed.topology.node, &world.bed.topology.host("c").interface);
    let address = |verb: &str| {
        node.ip(&[format!("addr {verb} 10.71.9.2/32 dev {interface}")]).expect("an address");
    };
    let line = "snat: the node has no IPv4 address at v-c,";
    assert!(!status()["findings"].to_string().contains(line));
    address("del");
    agent.wait_logged(&["WARN", line]).expect("said");
    assert!(status()["findings"].to_string().contains(line));
    address("add");
    let told = || status()["findings"].to_string().contains(line);
    agent.wait("the address is noted", || !told()).expect("followed");

    replace(&config, &text.replace(ASKED, NOT_ASKED));
    agent.wait("nobody asks any more", || status()["snat"].is_null()).expect("followed");
    kept.talk("still").expect("a flow stays what it was begun as");
    kept.close().expect("the end");
    agent.stop().expect("an orderly end");
}
