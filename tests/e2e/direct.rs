//! `load --forwarding`: past the stack where nobody misses packets, and who would.

use harness::{Instance, NetNs, root_or_skip, shell::checked};
use serde_json::Value;

use crate::bed::{Bed, MAGLEV, VIP4, VIP6, count, small_maps, split};

/// Loads the split that the tests here share, forwarding as said.
fn load(bed: &Bed, instance: &Instance<'_>, forwarding: &[&str]) -> String {
    let path = bed.policies(&split("redis", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV));
    let args = bed.load_args(&path);
    let args: Vec<&str> =
        args.iter().map(String::as_str).chain(forwarding.iter().copied()).collect();
    let output = instance.output(&args).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = checked("load", output).expect("load");
    format!("{text}{said}")
}

/// What `status` says of an interface: how, whether into the other namespace, why.
pub(crate) fn told(instance: &Instance<'_>, interface: &str) -> (String, bool, String) {
    let status = instance.json(&["status"]).expect("status");
    let lines = status["forwarding"]["interfaces"].as_array().expect("a list").clone();
    let line = lines.iter().find(|line| line["interface"] == interface);
    let line = line.unwrap_or_else(|| panic!("{interface} is not in {status:#}"));
    let why = line["why"].as_array().expect("a list").iter().map(text).collect::<Vec<_>>();
    (text(&line["way"]), line["peer"].as_bool().expect("a boolean"), why.join("; "))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Connections of both families through VIPs, `ports` each; every one is answered.
pub(crate) fn dial(bed: &Bed, ports: std::ops::Range<u16>) {
    for to in [VIP4, VIP6] {
        let greetings = bed.dial("web-1", to, ports.clone());
        let served = count(greetings.iter().map(|(_, greeting)| greeting));
        assert_eq!(served.values().sum::<u64>(), ports.len() as u64);
    }
}

/// A table that counts what the node forwards and stands in nobody's way.
const COUNTS: &str = "add table inet t
    add counter inet t seen
    add chain inet t passing { type filter hook forward priority 0; }
    add rule inet t passing counter name seen";

/// Packets that the table has counted.
fn seen(node: &NetNs) -> u64 {
    let output = node.command("nft").args(["list", "counter", "inet", "t", "seen"]).output();
    let text = checked("nft list", output.expect("nft runs")).expect("a counter");
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn connections_go_past_the_stack_into_namespaces_and_to_neighbours() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    // What shapes packets at egress must see them: the way by the neighbour.
    let node = &bed.topology.node;
    for host in ["web-1", "a"] {
        let interface = &bed.topology.host(host).interface;
        let line = format!("tc qdisc add dev {interface} root pfifo");
        node.run(|| harness::Shell::silent().run(&line)).expect("a queueing discipline");
    }
    let instance = bed.instance();
    let said = load(&bed, &instance, &["--forwarding", "auto"]);
    assert!(said.contains("forwarding: ") && said.contains(" direct\n"), "{said}");
    assert!(said.contains("no agent looks for firewall rules"), "{said}");
    for (host, peer) in [("web-1", false), ("web-2", true), ("a", false), ("b", true)] {
        let interface = &bed.topology.host(host).interface;
        assert_eq!(told(&instance, interface), ("direct".to_owned(), peer, String::new()));
    }
    for client in ["web-1", "web-2"] {
        for to in [VIP4, VIP6] {
            assert_eq!(bed.dial(client, to, 24_000..24_020).len(), 20);
            let mut connection = bed.open(client, to).expect("a connection");
            let name = connection.greeting.name.clone();
            let long = "x".repeat(60_000);
            assert_eq!(connection.talk(&long).expect("many packets at once"), name);
            connection.close().expect("closed");
        }
    }
    let flows = instance.balancer(&["maps", "dump", "FLOWS4"]).expect("flows");
    assert!(flows.contains("direct"), "{flows}");
}

#[test]
fn forced_direct_passes_rules_by_and_says_so_and_auto_does_not() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let node = &bed.topology.node;
    let interface = &bed.topology.host("web-1").interface;
    node.nft(COUNTS).expect("a firewall");
    let instance = bed.instance();
    let said = load(&bed, &instance, &["--forwarding", "direct"]);
    let why = "rules of nftables at forward, in the chain inet t passing";
    assert!(said.contains(&format!("past this: {why}")), "{said}");
    assert_eq!(told(&instance, interface), ("direct".to_owned(), true, why.to_owned()));
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains("Forwarding (direct)") && status.contains("past this"), "{status}");
    dial(&bed, 25_000..25_010);
    assert_eq!(seen(node), 0, "the rule was passed by");
    let mut live = bed.open("web-1", VIP4).expect("a connection");

    let said = load(&bed, &instance, &["--forwarding", "auto"]);
    assert!(said.contains(&format!("stack: {why}")), "{said}");
    assert_eq!(told(&instance, interface), ("stack".to_owned(), false, why.to_owned()));
    live.talk("still there").expect("the connection goes on");
    let before = seen(node);
    assert!(before > 0, "also what began past the stack");
    dial(&bed, 25_010..25_020);
    assert!(seen(node) > before + 20 * 6, "the rule sees every packet");
    live.close().expect("closed");
}

#[test]
fn a_program_of_somebody_else_still_sees_every_packet() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let (instance, other) = (bed.instance(), bed.instance());
    load(&bed, &instance, &["--forwarding", "auto"]);
    let interface = &bed.topology.host("web-1").interface;
    assert_eq!(told(&instance, interface).0, "direct");
    // Behind ours: another instance, which knows no VIP and so counts and passes all.
    let folder = tempfile::tempdir().expect("a directory");
    let policies = folder.path().join("elsewhere.yaml");
    std::fs::write(&policies, "type: Mesh\nname: elsewhere\n").expect("write");
    let (policies, small) = (policies.display().to_string(), small_maps(folder.path()));
    let (small, hook) = (small.display().to_string(), format!("{interface}=tc"));
    let args = ["load", "-f", &policies, "--config", &small, "--attach", &hook];
    other.balancer(&args).expect("load the other");

    load(&bed, &instance, &["--forwarding", "auto"]);
    let (way, _, why) = told(&instance, interface);
    assert_eq!(way, "stack");
    assert!(why.contains("the program balancer_in of somebody else (ingress, "), "{why}");
    let passed = || {
        let reasons = other.json(&["show", "reasons"]).expect("reasons");
        let rows = reasons.as_array().expect("a list").clone();
        rows.iter().filter_map(|row| row["packets"].as_u64()).sum::<u64>()
    };
    let before = passed();
    dial(&bed, 26_000..26_010);
    // A connection has at least a SYN, an ACK, a FIN and an ACK from the client, and as much back.
    assert!(passed() >= before + 20 * 7, "{} of 20 connections", passed() - before);
}

#[test]
fn stack_lets_no_packet_past() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    bed.topology.node.nft(COUNTS).expect("a firewall");
    let instance = bed.instance();
    let interface = &bed.topology.host("web-1").interface;
    load(&bed, &instance, &["--forwarding", "direct"]);
    for (round, forwarding) in [&["--forwarding", "stack"][..], &[]].into_iter().enumerate() {
        let said = load(&bed, &instance, forwarding);
        assert!(said.contains("forwarding: stack\n"), "{said}");
        let rows = instance.json(&["maps", "dump", "INTERFACES"]).expect("a dump");
        assert_eq!(rows, serde_json::json!([]));
        let expected = ("stack".to_owned(), false, "forwarding is `stack`".to_owned());
        assert_eq!(told(&instance, interface), expected);
        let before = seen(&bed.topology.node);
        let ports = 27_000 + 20 * round as u16;
        dial(&bed, ports..ports + 10);
        assert!(seen(&bed.topology.node) >= before + 20 * 6);
    }
}
