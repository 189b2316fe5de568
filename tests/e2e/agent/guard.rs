//! The limit of new flows, changed while the agent runs.

use std::{net::TcpStream, time::Duration};

use harness::{Instance, patience, root_or_skip};
use serde_json::Value;

use super::world::{World, replace};
use crate::bed::{VIP4, vip};

/// Packets that the guard has refused.
fn refused(instance: &Instance<'_>) -> u64 {
    let rows = instance.json(&["show", "reasons"]).expect("reasons");
    let row = rows.as_array().expect("rows").iter().find(|row| row["reason"] == "new_flow_limit");
    row.and_then(|row| row["packets"].as_u64()).unwrap_or(0)
}

fn limit(instance: &Instance<'_>) -> Value {
    instance.json(&["status"]).expect("status")["new_flows_limit"].clone()
}

/// Connections of `web-1` to the VIP; how many were there at once. The others are given up before
/// their SYN is sent again.
fn connects(world: &World, number: usize) -> usize {
    let to = vip(VIP4);
    world.bed.topology.host("web-1").ns.run(|| {
        let open = |_| TcpStream::connect_timeout(&to, patience(Duration::from_millis(300)));
        (0..number).map(open).filter(Result::is_ok).count()
    })
}

#[test]
fn a_changed_limit_of_new_flows_is_applied_at_once() {
    let Some(root) = root_or_skip("e2e") else { return };
    let world = World::new(root);
    let instance = world.bed.instance();
    let mut agent = world.agent(&instance);
    let config = world.config("");
    let unlimited = std::fs::read_to_string(&config).expect("the configuration");
    let with = |limit: &str| {
        let text = unlimited.replace(", new_flows: off", limit);
        assert_ne!(text, unlimited, "a limit is there to be changed");
        replace(&config, &text);
    };
    assert_eq!(limit(&instance), Value::Null);
    assert_eq!((connects(&world, 20), refused(&instance)), (20, 0));
    let mut known = world.bed.open("web-1", VIP4).expect("a connection");

    with(", new_flows: 1");
    agent.wait_logged(&["INFO", "limits.new_flows"]).expect("told");
    agent.wait("it is live", || limit(&instance) == 1).expect("applied");
    let come = connects(&world, 10);
    let refused_then = refused(&instance);
    assert!(come < 10 && refused_then > 0, "{come} came, {refused_then} were refused");
    known.talk("still there").expect("a known flow is asked nothing");

    // Left out: half of the room for half-open flows, which is 4,096 here.
    with("");
    agent.wait("the default is live", || limit(&instance) == 2048).expect("applied");
    let before = refused(&instance);
    assert_eq!((connects(&world, 20), refused(&instance)), (20, before));
    agent.stop().expect("an orderly end");
}
