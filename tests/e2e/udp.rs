//! UDP through real sockets: DNS-like questions and longer conversations.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::Duration,
};

use harness::{
    Instance,
    answerer::{Answerer, Asker},
    root_or_skip, scaled,
};

use crate::bed::{Bed, LIMITS, MAGLEV, VIP4, VIP6, name_of, split, version_of, vip};

/// The services that are dialled with UDP too.
const PROTOCOLS: &str = "vips: {protocols: [{service: redis, protocol: udp}, \
                         {service: redis, protocol: tcp}]}\n";
/// A Service of DNS with an endpoint of its own.
const DNS: &str = "apiVersion: v1
kind: Service
metadata: {name: dns, namespace: kube-system}
spec: {clusterIP: 10.99.0.53, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-a, namespace: kube-system, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 1053, protocol: UDP}]
endpoints: [{addresses: [10.71.2.10]}]
";

/// A server of datagrams on every real, beside those of TCP.
fn answerers(bed: &Bed) -> Vec<Answerer> {
    let mut answerers = Vec::new();
    for real in ["a", "b", "c", "d"] {
        let host = bed.topology.host(real);
        for address in &host.addresses {
            let address = SocketAddr::new(*address, 6379);
            answerers.push(Answerer::start(&host.ns, address, real).expect("a server"));
        }
    }
    answerers
}

fn load(bed: &Bed, instance: &Instance<'_>, folder: &Path, routes: &str) {
    let config = folder.join("udp.yaml");
    std::fs::write(&config, format!("{LIMITS}{PROTOCOLS}")).expect("a configuration");
    let mut args = bed.load_args(&bed.policies(routes));
    let at = args.iter().position(|arg| arg == "--config").expect("a configuration is given");
    args[at + 1] = config.display().to_string();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    instance.balancer(&args).expect("load");
}

fn weights(first: u32, second: u32) -> String {
    split("redis", "*", "redis", &[("1.0", first), ("2.0", second)], MAGLEV)
}

fn asker(bed: &Bed, port: u16, to: &str) -> Asker {
    let host = bed.topology.host("web-1");
    let to = vip(to);
    let from = SocketAddr::new(host.address_like(to.ip()), port);
    host.ns.run(|| Asker::open(from, to)).expect("a socket")
}

/// Who answers; on the way that the real sees the client.
#[track_caller]
fn ask(asker: &Asker) -> String {
    let (name, peer) = asker.ask().expect("an answer from the VIP");
    assert_eq!(peer, asker.address().expect("an address"), "the real sees the client");
    name
}

#[test]
fn questions_are_split_by_weight_and_answered_by_the_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let (_answerers, instance) = (answerers(&bed), bed.instance());
    let folder = tempfile::tempdir().expect("a directory");
    load(&bed, &instance, folder.path(), &weights(90, 10));
    let number = scaled(1_000, 200);
    for to in [VIP4, VIP6] {
        let mut met: BTreeMap<&str, u16> = BTreeMap::new();
        for port in 20_000..20_000 + number {
            let name = ask(&asker(&bed, port, to));
            *met.entry(version_of(&name)).or_default() += 1;
        }
        // The hash decides and the ports are fixed, so this is the same in every run.
        let share = f64::from(met["2.0"]) / f64::from(number);
        assert!((0.06..=0.14).contains(&share), "{to}: {met:?}");
        assert_eq!(met.keys().copied().collect::<Vec<_>>(), ["1.0", "2.0"]);
    }
    // The same address and port goes on with TCP.
    let greetings = bed.dial("web-1", VIP4, [30_000]);
    assert_eq!(greetings.len(), 1);
    let shown = instance.json(&["show", "vips"]).expect("show vips");
    let shown: Vec<String> = shown
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| format!("{} {}", row["vip"].as_str().unwrap_or("?"), row["protocol"]))
        .collect();
    for line in [format!("{VIP4} \"tcp\""), format!("{VIP4}/udp \"udp\"")] {
        assert!(shown.contains(&line), "{line} is not in {shown:?}");
    }
    let tuple = format!("10.71.1.10:20000,{VIP4}");
    let told = ["explain", "--tuple", &tuple, "--protocol", "udp"];
    let told = instance.json(&told).expect("the program's answer");
    assert_eq!(told["reason"], "half_open", "asked once, answered once");
    let real: SocketAddr = told["sent_to"].as_str().expect("a real").parse().expect("an address");
    assert_eq!(ask(&asker(&bed, 20_000, VIP4)), name_of(real.ip()));
}

#[test]
fn drained_real_keeps_its_flows_of_udp_and_gets_no_new_ones() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let (_answerers, instance) = (answerers(&bed), bed.instance());
    let folder = tempfile::tempdir().expect("a directory");
    load(&bed, &instance, folder.path(), &weights(1, 1));
    let number = scaled(60, 20);
    let askers: Vec<Asker> = (0..number).map(|n| asker(&bed, 21_000 + n, VIP4)).collect();
    let before: Vec<String> = askers.iter().map(ask).collect();
    let drains = before.iter().filter(|name| version_of(name) == "1.0").count();
    assert!(drains > 0, "some met the version that drains");
    load(&bed, &instance, folder.path(), &weights(0, 1));
    let after: Vec<String> = askers.iter().map(ask).collect();
    assert_eq!(before, after);
    for port in 22_000..22_000 + number {
        assert_eq!(version_of(&ask(&asker(&bed, port, VIP4))), "2.0");
    }
    let shown = instance.json(&["show", "flows", "--limit", "0"]).expect("flows");
    let udp = format!("{VIP4}/udp");
    let of_udp = shown.as_array().expect("a list").iter().filter(|row| row["vip"] == *udp);
    assert_eq!(of_udp.count(), usize::from(2 * number), "each conversation is one flow");
}

#[test]
fn silence_of_thirty_seconds_ends_a_flow_and_a_shorter_one_does_not() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let (_answerers, instance) = (answerers(&bed), bed.instance());
    let folder = tempfile::tempdir().expect("a directory");
    load(&bed, &instance, folder.path(), &weights(1, 0));
    let askers: Vec<Asker> = (0..4).map(|n| asker(&bed, 23_000 + n, VIP4)).collect();
    let (silent, talking) = askers.split_at(2);
    askers.iter().for_each(|asker| assert_eq!(version_of(&ask(asker)), "1.0"));
    // One of each has been meant, the other asked once.
    ask(&silent[0]);
    ask(&talking[0]);
    load(&bed, &instance, folder.path(), &weights(0, 1));
    for _step in 0..3 {
        thread::sleep(Duration::from_secs(11));
        talking.iter().for_each(|asker| assert_eq!(version_of(&ask(asker)), "1.0"));
    }
    silent.iter().for_each(|asker| assert_eq!(version_of(&ask(asker)), "2.0"));
}

#[test]
fn a_service_of_kubernetes_answers_datagrams() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let host = bed.topology.host("a");
    let address = SocketAddr::new(IpAddr::from([10, 71, 2, 10]), 1053);
    let _dns = Answerer::start(&host.ns, address, "dns").expect("a server");
    let folder = tempfile::tempdir().expect("a directory");
    load(&bed, &instance, folder.path(), DNS);
    assert_eq!(ask(&asker(&bed, 24_000, "10.99.0.53:53")), "dns");
    let asked = ["explain", "--from", "10.71.1.10", "--to", "dns.kube-system:53"];
    let told = instance.json(&asked).expect("explain");
    assert_eq!(told["protocol"], "udp");
    assert_eq!(told["destination"]["service"], "dns.kube-system:53/udp");
    assert_eq!(told["backends"][0]["reals"][0]["address"], "10.71.2.10:1053");
}
