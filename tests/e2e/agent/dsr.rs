//! An agent on interfaces where reals answer clients by themselves.

use std::fs;

use harness::{Agent, root_or_skip};

use super::world::{World, problems, replace, status};
use crate::{
    bed::{VIP4, inventory, version_of},
    dsr::prepare,
};

const LINK: &str = "[{interface: 'v-*', hook: xdp, mode: dsr-l2}]";
const TUNNEL: &str = "[{interface: 'v-*', hook: xdp, mode: dsr-ipip}]";

#[test]
fn port_that_comes_to_differ_is_told_and_what_runs_stays() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let _servers = prepare(&world.bed);
    let instance = world.bed.instance();
    let config = world.config_for(&[world.policies()], LINK, "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    agent.wait_logged(&["attached", "v-web-1", "dsr-l2"]).expect("said");
    let mut kept = world.bed.open("web-1", VIP4).expect("a connection");
    let epoch = || instance.json(&["status"]).expect("status")["epoch"].clone();
    let before = epoch();

    let other = inventory().replace("- port: 6379\n    tags", "- port: 6380\n    tags");
    assert_ne!(other, inventory());
    replace(&world.policies().join("inventory.yaml"), &other);
    agent
        .wait_logged(&["ERROR", "cannot change ports", "10.99.0.1:6379", ":6380", "v-a"])
        .expect("said");
    agent.wait("status says so", || status(&instance)["set"]["good"] == false).expect("told");
    let told = problems(&status(&instance)).join("\n");
    assert!(told.contains("direct server return cannot change ports"), "{told}");
    assert_eq!(epoch(), before, "nothing was written");
    kept.talk("still").expect("the connection goes on");
    assert_eq!(world.version().expect("a new one too"), "1.0");

    replace(&world.policies().join("inventory.yaml"), &inventory());
    agent.wait("it fits again", || status(&instance)["set"]["good"] == true).expect("told");
    let name = kept.talk("on").expect("an answer");
    assert_eq!(version_of(&name), "1.0");
    kept.close().expect("the end");
    agent.stop().expect("an orderly end");
}

#[test]
fn mode_and_where_tunnels_begin_follow_the_configuration_and_the_addresses() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let _servers = prepare(&world.bed);
    let instance = world.bed.instance();
    let config = world.config_for(&[world.policies()], LINK, "");
    let mut agent = Agent::start(&instance, &config, &[]).expect("an agent");
    assert_eq!(world.version().expect("a connection"), "1.0");

    let text = fs::read_to_string(&config).expect("the configuration");
    replace(&config, &text.replace(LINK, TUNNEL));
    let line = "dsr-ipip on v-web-1: the interface has no IPv4 address";
    agent.wait_logged(&["WARN", line]).expect("said");
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains(line) && status.contains("xdp, dsr-ipip"), "{status}");
    // Until there is one, addresses are translated.
    assert_eq!(world.version().expect("a connection"), "1.0");

    let node = &world.bed.topology.node;
    node.ip(&["addr add 10.71.0.9/32 dev v-web-1".to_owned()]).expect("an address");
    let source = || {
        let devices = instance.json(&["maps", "dump", "DEVICES"]).expect("a dump");
        let text = devices.to_string();
        text.contains(r#""source4":"10.71.0.9""#)
    };
    agent.wait("tunnels begin there", source).expect("followed");
    let status = instance.balancer(&["status"]).expect("status");
    assert!(!status.contains(line), "{status}");
    agent.stop().expect("an orderly end");
}
