//! Source translation: reals that have no route back to the clients answer the node.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use harness::{
    Connection, Instance,
    answerer::{Answerer, Asker},
    backends::anywhere,
    root_or_skip,
};

use crate::{
    bed::{Bed, LIMITS, MAGLEV, VIP4, VIP6, split, version_of, vip},
    edge::prepare,
};

const REALS: [&str; 4] = ["a", "b", "c", "d"];
const CLIENTS: [&str; 3] = ["web-1", "web-2", "guest"];
const PROTOCOLS: &str = "vips: {protocols: [{service: redis, protocol: udp}, \
                         {service: redis, protocol: tcp}]}\n";
const PORTS: RangeInclusive<u16> = 50_000..=50_199;
const CONFIGURED: &str = "snat: {ports: 50000-50199}\n";

/// The node's address at the interface of a real.
fn node_address(real: &str, like: IpAddr) -> IpAddr {
    let at = REALS.iter().position(|name| *name == real).expect("a real");
    let text = if like.is_ipv4() { format!("10.71.9.{at}") } else { format!("fd71:9::{at}") };
    text.parse().expect("an address")
}

/// Takes every route from the reals but the one to the node's address there.
pub(crate) fn cut_off(bed: &Bed) {
    for real in REALS {
        let host = bed.topology.host(real);
        let mut on_host = vec![
            "route del default via 169.254.1.1 dev eth0".to_owned(),
            "route del default via fe80::1 dev eth0".to_owned(),
        ];
        for address in &host.addresses {
            let node = node_address(real, *address);
            let (length, nodad) = if node.is_ipv4() { (32, "") } else { (128, " nodad") };
            let line = format!("addr add {node}/{length} dev {}{nodad}", host.interface);
            bed.topology.node.ip(&[line]).expect("an address of the node");
            on_host.push(format!("route add {node}/{length} dev eth0"));
        }
        host.ns.ip(&on_host).expect("routes of a real");
    }
}

/// `load` with one hook where clients are and another where reals are.
fn load_args(bed: &Bed, folder: &Path, weights: &[(&str, u32)]) -> Vec<String> {
    let config = folder.join("snat.yaml");
    std::fs::write(&config, format!("{LIMITS}{PROTOCOLS}{CONFIGURED}")).expect("a configuration");
    let policies = bed.policies(&split("redis", "*", "redis", weights, MAGLEV));
    let words = ["load", "-f", &policies.display().to_string(), "--config"].map(str::to_owned);
    words.into_iter().chain([config.display().to_string()]).collect()
}

fn attach(bed: &Bed, clients: &str, reals: &str) -> Vec<String> {
    let hooks = CLIENTS.iter().map(|name| (name, clients));
    let hooks = hooks.chain(REALS.iter().map(|name| (name, reals)));
    hooks
        .flat_map(|(name, hook)| {
            let interface = &bed.topology.host(name).interface;
            ["--attach".to_owned(), format!("{interface}={hook}")]
        })
        .collect()
}

fn run(instance: &Instance<'_>, args: &[String]) -> String {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    instance.balancer(&args).expect("load")
}

/// Whether a client gets no answer at all.
fn hangs(bed: &Bed, client: &str, to: &str) -> bool {
    let to = vip(to);
    let answer = bed
        .topology
        .host(client)
        .ns
        .run(|| TcpStream::connect_timeout(&to, Duration::from_millis(700)));
    matches!(answer, Err(e) if e.kind() == std::io::ErrorKind::TimedOut)
}

/// That the real sees its own end of the node, and a port of the range.
#[track_caller]
fn is_the_nodes(real: &str, peer: SocketAddr) {
    assert_eq!(peer.ip(), node_address(real, peer.ip()), "{real} sees the node there");
    assert!(PORTS.contains(&peer.port()), "{real} sees {peer}");
}

#[track_caller]
fn open(bed: &Bed, client: &str, to: &str) -> Connection {
    let connection = bed.open(client, to).expect("a connection");
    is_the_nodes(&connection.greeting.name, connection.greeting.peer);
    assert_eq!(connection.remote().expect("a peer"), vip(to), "the client sees the VIP");
    connection
}

/// Connections and datagrams of both families, with these hooks.
fn passes(bed: &Bed, clients: &str, reals: &str) {
    let instance = bed.instance();
    let folder = tempfile::tempdir().expect("a directory");
    let mut answerers = Vec::new();
    for real in REALS {
        let host = bed.topology.host(real);
        for address in &host.addresses {
            let address = SocketAddr::new(*address, 6379);
            answerers.push(Answerer::start(&host.ns, address, real).expect("a server"));
        }
    }
    let mut args = load_args(bed, folder.path(), &[("1.0", 1)]);
    let without = clients.replace(":snat", "");
    run(&instance, &[args.clone(), attach(bed, &without, reals)].concat());
    for to in [VIP4, VIP6] {
        assert!(hangs(bed, "web-1", to), "{without}: {to} answers by some other way");
    }
    let said = run(&instance, &[args, attach(bed, clients, reals)].concat());
    let line = "snat: v-guest, v-web-1, v-web-2 with ports 50000-50199";
    assert!(said.contains(line), "{said}");

    let mut kept = Vec::new();
    for to in [VIP4, VIP6] {
        for client in CLIENTS {
            for _ in 0..10 {
                let connection = open(bed, client, to);
                assert_eq!(version_of(&connection.greeting.name), "1.0");
                connection.close().expect("the end");
            }
            kept.push(open(bed, client, to));
        }
    }
    shown(bed, &instance, &kept);

    // Nothing said of interfaces: they stay as they are.
    args = load_args(bed, folder.path(), &[("2.0", 1)]);
    run(&instance, &args);
    for connection in &mut kept {
        let name = connection.greeting.name.clone();
        // Several segments, in both directions.
        let word = "x".repeat(9_000);
        assert_eq!(connection.talk(&word).expect("an answer"), name, "it stays with its real");
    }
    for to in [VIP4, VIP6] {
        let connection = open(bed, "web-2", to);
        assert_eq!(version_of(&connection.greeting.name), "2.0");
        connection.close().expect("the end");
        let client = bed.topology.host("web-1");
        let asker = client.ns.run(|| Asker::open(anywhere(vip(to)), vip(to))).expect("a socket");
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (real, peer) = asker.ask().expect("an answer from the VIP");
            assert_eq!(version_of(&real), "2.0");
            is_the_nodes(&real, peer);
            peers.push(peer);
        }
        peers.dedup();
        assert_eq!(peers.len(), 1, "one flow has one port");
    }
    for connection in kept {
        connection.close().expect("the end");
    }
}

/// What commands tell of live connections.
fn shown(bed: &Bed, instance: &Instance<'_>, kept: &[Connection]) {
    let flows = instance.json(&["show", "flows", "--limit", "0"]).expect("flows");
    let flows = flows.as_array().expect("a list");
    for connection in kept {
        let client = connection.local().expect("an address");
        let (to, peer) = (connection.remote().expect("a peer"), connection.greeting.peer);
        let of_client = |row: &&serde_json::Value| row["client"] == client.to_string();
        let row = flows.iter().find(of_client).unwrap_or_else(|| panic!("no flow of {client}"));
        assert_eq!(row["seen_as"], peer.to_string(), "{row}");
        let map = if client.is_ipv4() { "FLOWS4" } else { "FLOWS6" };
        let lookup = |direction: &str, from: SocketAddr, to: SocketAddr| {
            let key = [direction.to_owned(), from.to_string(), to.to_string()];
            let args = ["maps", "lookup", map, &key[0], &key[1], &key[2]];
            instance.json(&args).expect("an entry")[0].clone()
        };
        let forward = lookup("forward", client, to);
        assert_eq!(forward["forwarding"], serde_json::json!(["snat"]));
        assert_eq!(
            (&forward["client"], &forward["client_port"]),
            (&peer.ip().to_string().into(), &peer.port().into())
        );
        let real = &bed.topology.host(&connection.greeting.name);
        let real = SocketAddr::new(real.address_like(client.ip()), 6379);
        let reply = lookup("reply", real, peer);
        assert_eq!(
            (&reply["client"], &reply["client_port"]),
            (&client.ip().to_string().into(), &client.port().into())
        );
        let tuple = format!("{client},{to}");
        let told = instance.json(&["explain", "--tuple", &tuple]).expect("an answer");
        assert_eq!(told["sent_to"], real.to_string(), "{told}");
        assert_eq!(told["seen_from"], peer.to_string(), "{told}");
    }
    let live = |name: &str| -> u64 {
        let reals = instance.json(&["show", "reals"]).expect("reals");
        let rows = reals.as_array().expect("a list").iter();
        rows.filter(|row| row["address"].as_str().is_some_and(|real| real.contains(name)))
            .filter_map(|row| row["active"].as_u64())
            .sum()
    };
    assert_eq!(live(":6379"), kept.len() as u64, "each is counted once");
    // A packet that has not come says nothing of the interface that it will come by.
    let tuple = format!("10.71.1.10:1,{VIP4}");
    let told = instance.json(&["explain", "--tuple", &tuple]).expect("an answer");
    assert_eq!((&told["reason"], &told["seen_from"]), (&"new_flow".into(), &().into()), "{told}");
    let status = instance.json(&["status"]).expect("status");
    assert_eq!(
        status["snat"],
        serde_json::json!({
            "ports": "50000-50199",
            "interfaces": ["v-guest", "v-web-1", "v-web-2"],
        })
    );
    let findings = status["findings"].to_string();
    for part in
        ["50000-50199 overlap", "snat on v-web-1: flows that begin there go past", "v-web-2"]
    {
        assert!(findings.contains(part), "{findings}");
    }
}

#[test]
fn reals_without_a_route_to_clients_answer_the_node_by_tc() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    cut_off(&bed);
    passes(&bed, "tc:snat", "tc");
}

#[test]
fn reals_without_a_route_to_clients_answer_the_node_by_generic_xdp() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    cut_off(&bed);
    passes(&bed, "xdp:generic:snat", "xdp:generic");
}

#[test]
fn reals_without_a_route_to_clients_answer_the_node_by_native_xdp() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    cut_off(&bed);
    prepare(&bed);
    passes(&bed, "xdp:snat", "xdp");
}

/// `xdp` where packets come in from clients and `tc` where reals are, and the other way round.
#[test]
fn both_hooks_carry_one_flow() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    cut_off(&bed);
    passes(&bed, "xdp:generic:snat", "tc");
    passes(&bed, "tc:snat", "xdp:generic");
}
