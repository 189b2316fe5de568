//! Live connections, as least request counts them.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Connection, Instance, patience, root_or_skip, scaled};

use crate::bed::{Bed, VIP4, VIP6, split};

/// Live connections of all reals.
fn live(instance: &Instance<'_>) -> u64 {
    let shown = instance.json(&["show", "reals"]).expect("show reals");
    let rows = shown.as_array().expect("a list");
    rows.iter().map(|row| row["active"].as_u64().expect("a number")).sum()
}

/// Waits until so many connections live: the last packets may still be on their way.
#[track_caller]
fn become_live(instance: &Instance<'_>, expected: u64) {
    let begun = Instant::now();
    while live(instance) != expected {
        let found = live(instance);
        assert!(begun.elapsed() < patience(Duration::from_secs(10)), "{found}, not {expected}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn live_connections_are_counted_up_and_down_and_are_zero_at_the_end() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let weights = [("1.0", 50), ("2.0", 50)];
    bed.load(&instance, &split("redis", "*", "redis", &weights, "{leastRequest: {}}"));
    let number = scaled(200, 40);
    let mut connections: Vec<Connection> = Vec::new();
    for to in [VIP4, VIP6] {
        connections.extend((0..number).map(|_| bed.open("web-1", to).expect("a connection")));
    }
    become_live(&instance, 2 * number);
    // Half end by a FIN of both sides, of the rest the client's half is reset with its socket.
    for connection in connections.drain(..connections.len() / 2) {
        connection.close().expect("an end");
    }
    become_live(&instance, number);
    drop(connections);
    become_live(&instance, 0);
}
