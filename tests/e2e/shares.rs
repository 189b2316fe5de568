//! 10,000 connections for each algorithm (1,000 in a guest without KVM), against what its table
//! says.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range};

use harness::{Greeting, root_or_skip, scaled};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    bed::{Bed, MAGLEV, VIP4, VIP6, count, split, version_of, vip},
    expected::ExpectedTable,
};

/// The clients' ports. Fixed, so that hash picks are the same in every run.
fn ports() -> Range<u16> {
    10_000..10_000 + scaled(10_000, 1_000)
}

const WEIGHTS: [(&str, u32); 3] = [("1.0", 60), ("2.0", 30), ("3.0", 10)];
/// A right implementation fails a random test once in a million runs.
const P_MIN: f64 = 1e-6;
/// The two-sided quantile of the normal distribution for [`P_MIN`].
const Z_MAX: f64 = 4.892;

fn load(bed: &Bed, instance: &harness::Instance<'_>, load_balancer: &str) -> ExpectedTable {
    let routes = split("redis-canary", "*", "redis", &WEIGHTS, load_balancer);
    bed.load(instance, &routes);
    ExpectedTable::compile(&bed.policies(&routes), vip("10.71.1.10:0"), vip(VIP4))
}

/// Each connection meets the real that hash and table name.
fn follows_the_hash(load_balancer: &str) {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let routes = split("redis-canary", "*", "redis", &WEIGHTS, load_balancer);
    bed.load(&instance, &routes);
    let path = bed.policies(&routes);
    for to in [VIP4, VIP6] {
        let greetings = bed.dial("web-1", to, ports());
        assert_eq!(greetings.len(), ports().len());
        let table = ExpectedTable::compile(&path, greetings[0].0, vip(to));
        for (from, greeting) in &greetings {
            assert_eq!(greeting.name, table.by_hash(*from, vip(to)), "{from} to {to}");
        }
        near_the_weights(&greetings);
        counters_agree(&instance, to, &greetings);
    }
}

#[test]
fn maglev_connections_meet_the_real_of_their_slot() {
    follows_the_hash(MAGLEV);
}

#[test]
fn ring_hash_connections_meet_the_real_of_their_slot() {
    follows_the_hash(
        "{ringHash: {hashFunction: MURMUR_HASH_2, minRingSize: 64, maxRingSize: 4096}}",
    );
}

#[test]
fn random_connections_follow_the_weights() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, "{random: {}}");
    let greetings = bed.dial("web-1", VIP4, ports());
    near_the_weights(&greetings);
    even_within_the_first_version(&greetings);
    counters_agree(&instance, VIP4, &greetings);
}

#[test]
fn least_request_connections_follow_the_weights() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, "{leastRequest: {choiceCount: 2}}");
    near_the_weights(&bed.dial("web-1", VIP4, ports()));
}

#[test]
fn round_robin_takes_the_slots_of_each_cpu_in_turn() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let table = load(&bed, &instance, "{roundRobin: {}}");
    let slots = table.slots();
    let mine = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this thread");
    let cpus: Vec<_> =
        (0..CpuSet::count()).filter(|cpu| mine.is_set(*cpu).is_ok_and(|set| set)).collect();
    let per_cpu = ports().len() / cpus.len();
    for (index, cpu) in cpus.iter().enumerate() {
        // A SYN meets the program on the CPU that sent it: veth hands packets over there.
        let first = ports().start + u16::try_from(index * per_cpu).expect("a port");
        let ports = first..first + u16::try_from(per_cpu).expect("a port");
        let pinned = ports.inspect(|_| {
            let mut one = CpuSet::new();
            one.set(*cpu).expect("a CPU");
            sched_setaffinity(Pid::from_raw(0), &one).expect("move to the CPU");
        });
        let seen: Vec<_> =
            bed.dial("web-1", VIP4, pinned).into_iter().map(|(_, g)| g.name).collect();
        let in_turn_from = |start: &usize| {
            seen.iter().enumerate().all(|(k, name)| name == slots[(start + k) % slots.len()])
        };
        let counts = seen.iter().fold(BTreeMap::new(), |mut counts, name| {
            *counts.entry(name).or_insert(0) += 1;
            counts
        });
        assert!(
            (0..slots.len()).any(|start| in_turn_from(&start)),
            "CPU {cpu} did not take its {} slots in turn: {counts:?}, begins with {:?}",
            slots.len(),
            &seen[..20]
        );
    }
}

/// `show backends` counted each connection, for the version that it met.
fn counters_agree(
    instance: &harness::Instance<'_>,
    to: &str,
    greetings: &[(SocketAddr, Greeting)],
) {
    let mut met: BTreeMap<String, u64> = BTreeMap::new();
    for (_, greeting) in greetings {
        *met.entry(version_of(&greeting.name).into()).or_default() += 1;
    }
    let rows = instance.json(&["show", "backends"]).expect("show backends");
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows.as_array().expect("rows").iter().filter(|row| row["vip"] == to) {
        let version = row["tags"]["version"].as_str().expect("a version").to_owned();
        *counted.entry(version).or_default() += row["connections"].as_u64().expect("a number");
    }
    counted.retain(|_, connections| *connections > 0);
    assert_eq!(counted, met, "{rows}");
}

/// Pearson's test of the versions against the weights, two degrees of freedom.
fn near_the_weights(greetings: &[(SocketAddr, Greeting)]) {
    let total = greetings.len() as f64;
    let mut by_version: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, n) in count(greetings.iter().map(|(_, greeting)| greeting)) {
        *by_version.entry(version_of(name)).or_default() += n as f64;
    }
    let chi_squared: f64 = WEIGHTS
        .iter()
        .map(|(version, weight)| {
            let expected = total * f64::from(*weight) / 100.0;
            let seen = by_version.get(version).copied().unwrap_or_default();
            (seen - expected).powi(2) / expected
        })
        .sum();
    // The chi-squared distribution with two degrees of freedom is exponential.
    let p = (-chi_squared / 2.0).exp();
    assert!(p > P_MIN, "{by_version:?} of {total} for weights {WEIGHTS:?}: p = {p:e}");
}

/// The two reals of version 1.0 share its connections evenly.
fn even_within_the_first_version(greetings: &[(SocketAddr, Greeting)]) {
    let counts = count(greetings.iter().map(|(_, greeting)| greeting));
    let (a, b) = (counts["a"] as f64, counts["b"] as f64);
    let z = (a - b) / (a + b).sqrt();
    assert!(z.abs() < Z_MAX, "a: {a}, b: {b}, z = {z}");
}
