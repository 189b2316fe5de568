//! A MeshTCPRoute beside a TrafficRoute: whose connections it splits, and what a change of its
//! weights does to those that live.

use std::fmt::Write as _;

use harness::{Connection, root_or_skip, scaled};

use crate::bed::{Bed, MAGLEV, VIP4, VIP6, count, split, version_of};

/// A MeshTCPRoute of `web-1` for `redis`, split by version.
fn of_web_1(weights: &[(&str, u32)]) -> String {
    let mut yaml = "type: MeshTCPRoute\nmesh: default\nname: canary\nspec:\n  targetRef: {kind: \
                    MeshSubset, tags: {kuma.io/service: web-1}}\n  to:\n  - targetRef: {kind: \
                    MeshService, name: redis}\n    rules:\n    - default:\n        backendRefs:\n"
        .to_owned();
    for (version, weight) in weights {
        let _ = writeln!(
            yaml,
            "        - {{kind: MeshServiceSubset, name: redis, tags: {{version: '{version}'}}, \
             weight: {weight}}}"
        );
    }
    yaml
}

/// It, and a TrafficRoute that sends everybody to version 3.0.
fn both(weights: &[(&str, u32)]) -> String {
    format!("{}---\n{}", split("all", "*", "redis", &[("3.0", 1)], MAGLEV), of_web_1(weights))
}

/// Connections from `client` that met each version, of `number` in turn.
fn met(bed: &Bed, client: &str, first_port: u16, number: u16) -> [u64; 3] {
    let greetings = bed.dial(client, VIP4, first_port..first_port + number);
    let mut met = [0; 3];
    for (name, n) in count(greetings.iter().map(|(_, greeting)| greeting)) {
        let version = ["1.0", "2.0", "3.0"].iter().position(|v| *v == version_of(name));
        met[version.expect("a version")] += n;
    }
    met
}

#[test]
fn mesh_tcp_route_splits_for_its_target_and_the_traffic_route_for_the_others() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let number = scaled(2_000, 400);
    bed.load(&instance, &both(&[("1.0", 90), ("2.0", 10)]));
    let [first, second, third] = met(&bed, "web-1", 10_000, number);
    assert_eq!(third, 0, "the TrafficRoute has no effect on the target's connections");
    // Slots are taken in turn on each CPU, so shares are off by the slots of a table at most.
    let share = second as f64 / f64::from(number);
    assert!((0.06..=0.14).contains(&share), "10 % of {number}: {first} and {second}");
    for client in ["web-2", "guest"] {
        assert_eq!(met(&bed, client, 10_000, 100), [0, 0, 100], "{client} follows the other");
    }

    let explained = instance.json(&["explain", "--from", "web-1-v4", "--to", "redis"]);
    let explained = explained.expect("explain");
    assert_eq!(explained["policy"]["kind"], "MeshTCPRoute", "{explained}");
    assert_eq!(explained["policy"]["name"], "canary");
    assert_eq!(explained["rule"]["index"], 0);
}

#[test]
fn changed_weights_of_a_mesh_tcp_route_break_and_move_no_connection() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &both(&[("1.0", 50), ("2.0", 50)]));
    let live = scaled(200, 40);
    let mut connections: Vec<Connection> = (0..live)
        .map(|i| bed.open("web-1", if i % 2 == 0 { VIP4 } else { VIP6 }).expect("a connection"))
        .collect();
    let versions = |connections: &[Connection]| {
        let of = |version| {
            connections.iter().filter(|c| version_of(&c.greeting.name) == version).count()
        };
        (of("1.0"), of("2.0"))
    };
    let (first, second) = versions(&connections);
    assert!(first > 0 && second > 0, "both versions have connections: {first} and {second}");
    for weights in [[("1.0", 90), ("2.0", 10)], [("1.0", 0), ("2.0", 1)], [("1.0", 1), ("2.0", 0)]]
    {
        bed.load(&instance, &both(&weights));
        for connection in &mut connections {
            let name = connection.talk("still there").expect("no connection breaks");
            assert_eq!(name, connection.greeting.name, "no connection moves");
        }
    }
    assert_eq!(met(&bed, "web-1", 20_000, 100), [100, 0, 0], "new ones follow the last weights");
    // Where all weights are 0, new connections are refused and those that live stay.
    bed.load(&instance, &both(&[("1.0", 0), ("2.0", 0)]));
    assert!(bed.open("web-1", VIP4).is_err(), "no backend takes connections");
    for connection in &mut connections {
        connection.talk("still there").expect("an established connection stays");
    }
    // Without the policy the TrafficRoute decides.
    bed.load(&instance, &split("all", "*", "redis", &[("3.0", 1)], MAGLEV));
    assert_eq!(met(&bed, "web-1", 21_000, 100), [0, 0, 100]);
}
