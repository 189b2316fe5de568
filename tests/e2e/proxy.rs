//! Connections of routes with HTTP rules, handed to a proxy of the node.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use balancer_user::kernel::{self, Datapath, Delivery, Listeners, UpstreamMark};
use harness::{
    Agent, Connection, EchoServer, Instance,
    backends::{self, anywhere},
    root_or_skip,
};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
    },
};

use crate::bed::{Bed, LIMITS, MAGLEV, OTHER_VIP4, VIP4, VIP6, inventory, split, version_of, vip};

const DELIVERY: Delivery = Delivery { handed: 0x0400_0000, own: 0x0800_0000, table: 2977 };

/// Writes the inventory, whose service speaks HTTP, with these policies.
fn write(bed: &Bed, policies: &str) -> PathBuf {
    let path = bed.policies("");
    let speaks = inventory().replace(
        "{kuma.io/service: redis, version",
        "{kuma.io/service: redis, kuma.io/protocol: http, version",
    );
    std::fs::write(&path, format!("{speaks}---\n{policies}")).expect("write policies");
    path
}

fn load(bed: &Bed, instance: &Instance<'_>, policies: &str) {
    let path = write(bed, policies);
    let args = bed.load_args(&path);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    instance.balancer(&args).expect("load");
}

/// A route whose requests are told apart; the split beside it holds while nobody does that.
fn with_rules(name: &str, source: &str, weights: &[(&str, u32)]) -> String {
    split(name, source, "redis", weights, MAGLEV)
        + "  http:\n  - match: {path: {prefix: /}}\n    destination: {kuma.io/service: redis}\n"
}

/// Who accepts what is handed over, in the node.
struct Proxy {
    servers: Vec<EchoServer>,
    upstream: UpstreamMark,
}

/// Listens as the agent would.
fn listen(bed: &Bed, instance: &Instance<'_>, shards: u32) -> Listeners {
    let bpffs = instance.bpffs();
    bed.topology.node.run(|| {
        let lock = kernel::lock(&bpffs).expect("nobody else writes");
        let mut datapath = Datapath::open(&lock).expect("loaded");
        let shards = NonZeroU32::new(shards).expect("some");
        datapath.listen(shards, &DELIVERY, Vec::new()).expect("listeners")
    })
}

impl Proxy {
    fn start(bed: &Bed, instance: &Instance<'_>, shards: u32) -> Self {
        let Listeners { ipv4, ipv6, upstream, .. } = listen(bed, instance, shards);
        assert_eq!((ipv4.len(), ipv6.len()), (shards as usize, shards as usize));
        let start = |listener| EchoServer::on(listener, "proxy").expect("a server");
        Self { servers: ipv4.into_iter().chain(ipv6).map(start).collect(), upstream }
    }

    /// How many connections each listener got.
    fn accepted(&self) -> Vec<u64> {
        self.servers.iter().map(EchoServer::accepted).collect()
    }
}

/// Connects, and has who answers say whom he sees.
#[track_caller]
fn open(bed: &Bed, client: &str, to: &str) -> Connection {
    let connection = bed.open(client, to).expect("a connection");
    assert_eq!(connection.remote().expect("a peer"), vip(to), "the client sees the VIP");
    assert_eq!(connection.greeting.peer, connection.local().expect("an end"), "it is seen itself");
    connection
}

/// Who answers a new connection.
#[track_caller]
fn answers(bed: &Bed, client: &str, to: &str) -> String {
    let connection = open(bed, client, to);
    let name = connection.greeting.name.clone();
    connection.close().expect("the end");
    name
}

/// Packets counted under a reason.
fn counted(instance: &Instance<'_>, reason: &str) -> u64 {
    let rows = instance.json(&["show", "reasons"]).expect("reasons");
    let rows = rows.as_array().expect("a list");
    let row = rows.iter().find(|row| row["reason"] == reason);
    row.and_then(|row| row["packets"].as_u64()).unwrap_or_else(|| panic!("no {reason}: {rows:?}"))
}

#[test]
fn the_proxy_sees_the_client_and_the_vip_it_dialled() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, &with_rules("redis", "*", &[("1.0", 1)]));
    for to in [VIP4, VIP6] {
        assert_eq!(version_of(&answers(&bed, "web-1", to)), "1.0", "nobody listens yet");
    }
    let Listeners { ipv4, ipv6, .. } = listen(&bed, &instance, 1);
    for (listener, to) in [(&ipv4[0], VIP4), (&ipv6[0], VIP6)] {
        listener.set_nonblocking(false).expect("a flag");
        let client = bed.topology.host("web-1");
        let mut stream =
            client.ns.run(|| backends::dial(anywhere(vip(to)), vip(to))).expect("a connection");
        let (mut accepted, peer) = listener.accept().expect("a connection");
        assert_eq!(accepted.local_addr().expect("an end"), vip(to));
        assert_eq!(peer, stream.local_addr().expect("an end"));
        assert_eq!(peer.ip(), client.address_like(peer.ip()));
        let mark = getsockopt(&accepted, sockopt::Mark).expect("an option");
        assert_eq!(mark, DELIVERY.own, "what it sends is known for the proxy's");
        // More than a segment, both ways.
        exchange(&mut stream, &mut accepted);
        exchange(&mut accepted, &mut stream);
    }
    drop((ipv4, ipv6));

    let proxy = Proxy::start(&bed, &instance, 3);
    for to in [VIP4, VIP6] {
        // From workloads, and from somewhere else.
        for client in ["web-1", "web-2", "guest"] {
            for _ in 0..20 {
                assert_eq!(answers(&bed, client, to), "proxy");
            }
        }
    }
    let accepted = proxy.accepted();
    assert_eq!(accepted.iter().sum::<u64>(), 120);
    assert!(accepted.iter().all(|one| *one > 0), "each listener gets some: {accepted:?}");
    assert!(counted(&instance, "to_proxy") >= 120);
    assert!(counted(&instance, "proxied") > counted(&instance, "to_proxy"));
    let flows = instance.json(&["show", "flows", "--limit", "0"]).expect("flows");
    let of_proxy = |row: &&serde_json::Value| row["real"].is_null();
    assert_eq!(flows.as_array().expect("a list").iter().filter(of_proxy).count(), 0);
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let mut got = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).expect("sent"));
        to.read_exact(&mut got).expect("received");
    });
    assert!(sent == got, "what was sent has come");
}

#[test]
fn one_class_goes_to_the_proxy_and_another_to_reals() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let own = with_rules("own", "web-1", &[("1.0", 1)]);
    let all = split("all", "*", "redis", &[("2.0", 1)], MAGLEV);
    load(&bed, &instance, &format!("{own}---\n{all}"));
    let proxy = Proxy::start(&bed, &instance, 2);
    for to in [VIP4, VIP6] {
        for _ in 0..5 {
            assert_eq!(answers(&bed, "web-1", to), "proxy");
            for client in ["web-2", "guest"] {
                assert_eq!(version_of(&answers(&bed, client, to)), "2.0");
            }
        }
    }
    // Another VIP of the same hosts.
    assert_ne!(answers(&bed, "web-1", OTHER_VIP4), "proxy");
    assert_eq!(proxy.accepted().iter().sum::<u64>(), 10);
}

#[test]
fn no_connection_breaks_when_a_route_gets_rules_or_loses_them() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let plain = split("redis", "*", "redis", &[("2.0", 1)], MAGLEV);
    let rules = with_rules("redis", "*", &[("1.0", 1)]);
    load(&bed, &instance, &plain);
    let _proxy = Proxy::start(&bed, &instance, 2);
    let mut kept: Vec<Connection> = Vec::new();
    for (policies, expected) in [(&plain, "c"), (&rules, "proxy"), (&plain, "c"), (&rules, "proxy")]
    {
        load(&bed, &instance, policies);
        for to in [VIP4, VIP6] {
            for client in ["web-1", "guest"] {
                let connection = open(&bed, client, to);
                assert_eq!(connection.greeting.name, expected);
                kept.push(connection);
            }
        }
        for connection in &mut kept {
            let name = connection.greeting.name.clone();
            assert_eq!(connection.talk(&"x".repeat(5_000)).expect("an answer"), name);
        }
    }
    for connection in kept {
        connection.close().expect("the end");
    }
}

#[test]
fn without_a_listener_the_split_beside_the_rules_holds() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    for _ in 0..2 {
        let proxy = Proxy::start(&bed, &instance, 2);
        let next = Proxy::start(&bed, &instance, 1);
        assert_eq!(answers(&bed, "web-1", VIP4), "proxy");
        assert_eq!(answers(&bed, "web-1", VIP6), "proxy");
        assert_eq!(proxy.accepted().iter().sum::<u64>(), 0, "the next one has taken its place");
        assert_eq!(next.accepted(), [1, 1]);
        drop(proxy);
        assert_eq!(answers(&bed, "web-1", VIP4), "proxy", "the next one is still there");
        drop(next);
        assert_eq!(answers(&bed, "web-1", VIP4), "c");
        assert_eq!(answers(&bed, "web-1", VIP6), "c");
    }
}

#[test]
fn handshakes_with_syn_cookies_end_at_the_listener_that_began_them() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.topology.node.sysctl("net/ipv4/tcp_syncookies", "2").expect("a sysctl");
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    let _proxy = Proxy::start(&bed, &instance, 7);
    for to in [VIP4, VIP6] {
        for _ in 0..20 {
            assert_eq!(answers(&bed, "web-1", to), "proxy");
        }
    }
}

#[test]
fn strict_reverse_path_filters_let_connections_through() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    for interface in ["all", "default", "v-web-1", "v-guest"] {
        let key = format!("net/ipv4/conf/{interface}/rp_filter");
        bed.topology.node.sysctl(&key, "1").expect("a sysctl");
    }
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    let _proxy = Proxy::start(&bed, &instance, 1);
    assert_eq!(answers(&bed, "web-1", VIP4), "proxy");
    assert_eq!(answers(&bed, "guest", VIP4), "proxy");
}

#[test]
fn a_client_takes_its_port_again_though_the_proxy_closed_first() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    let Listeners { ipv4, ipv6, .. } = listen(&bed, &instance, 1);
    for (listener, to) in [(&ipv4[0], VIP4), (&ipv6[0], VIP6)] {
        listener.set_nonblocking(false).expect("a flag");
        let client = bed.topology.host("web-1");
        let from = SocketAddr::new(client.address_like(vip(to).ip()), 23_456);
        for _ in 0..3 {
            let mut stream = client.ns.run(|| backends::dial(from, vip(to))).expect("a connection");
            // The end that closes first waits.
            drop(listener.accept().expect("a connection"));
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        }
    }
}

#[test]
fn the_proxys_own_connections_are_not_handed_over() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    // The VIP is the address of somebody whom no policy names.
    let guest = bed.topology.host("guest");
    let mut servers = Vec::new();
    let mut policies = with_rules("redis", "*", &[("1.0", 1)]);
    for address in &guest.addresses {
        let end = SocketAddr::new(*address, 6379);
        servers.push(EchoServer::start(&guest.ns, end, "itself").expect("a server"));
        let family = if address.is_ipv4() { 4 } else { 6 };
        policies += &format!(
            "---\ntype: Dataplane\nmesh: default\nname: dials-v{family}\nnetworking:\n  address: \
             '{}'\n  inbound: [{{port: 1, tags: {{kuma.io/service: dials}}}}]\n  outbound: \
             [{{address: '{address}', port: 6379, tags: {{kuma.io/service: redis}}}}]\n",
            if family == 4 { "10.71.3.1" } else { "fd71:3::1" }
        );
    }
    load(&bed, &instance, &policies);
    let proxy = Proxy::start(&bed, &instance, 1);
    bed.topology
        .node
        .ip(&["addr add 10.71.9.1/32 dev lo".into(), "addr add fd71:9::1/128 dev lo nodad".into()])
        .expect("addresses of the node");
    for address in &guest.addresses {
        let to = SocketAddr::new(*address, 6379);
        assert_eq!(answers(&bed, "web-1", &to.to_string()), "proxy");
        let name = |mark: Option<UpstreamMark>| greeted(&bed, to, mark);
        assert_eq!(name(Some(proxy.upstream)), "itself", "where it wanted to");
        assert_eq!(version_of(&name(None)), "1.0", "other processes follow the split");
    }
}

/// Who greets a connection that the node opens.
fn greeted(bed: &Bed, to: SocketAddr, mark: Option<UpstreamMark>) -> String {
    bed.topology.node.run(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket =
            socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        if let Some(mark) = mark {
            mark.set(&socket).expect("a mark");
        }
        let from = if to.is_ipv4() { "10.71.9.1:0" } else { "[fd71:9::1]:0" };
        let from: SocketAddr = from.parse().expect("an address");
        nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).expect("bound");
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
        let mut line = [0; 64];
        let read = TcpStream::from(socket).read(&mut line).expect("a greeting");
        let line = String::from_utf8_lossy(&line[..read]).into_owned();
        line.split_once(' ').expect("a name").0.to_owned()
    })
}

#[test]
fn unload_takes_rules_and_routes_along_and_leaves_those_of_others() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let node = &bed.topology.node;
    let foreign = [
        "rule add pref 2977 fwmark 0x1/0x1 lookup 2977",
        "route add local 198.51.100.0/24 dev lo table 2977",
    ];
    node.ip(&foreign.map(str::to_owned)).expect("rules of others");
    let listed = || {
        let show = |args: &[&str]| {
            let output = node.command("ip").args(args).output().expect("ip");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        [show(&["rule"]), show(&["-6", "rule"]), show(&["route", "show", "table", "all"])].concat()
    };
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    let before = listed();
    let held = listen(&bed, &instance, 1);
    let made = listed();
    let line = "from all fwmark 0x4000000/0xc000000 lookup 2977 proto 98";
    assert_eq!(made.matches(line).count(), 2, "{made}");
    assert!(made.contains("local default dev lo table 2977 proto 98"), "{made}");
    drop(listen(&bed, &instance, 1));
    assert_eq!(listed(), made, "made once");
    let said = instance.balancer(&["unload"]).expect("unload");
    assert!(said.contains("removed: rule fwmark 0x4000000/0xc000000 lookup 2977"), "{said}");
    assert_eq!(listed(), before);
    drop(held);
}

#[test]
fn a_namespace_without_the_interfaces_hands_nothing_over() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    load(&bed, &instance, &with_rules("redis", "*", &[("2.0", 1)]));
    let elsewhere: Vec<TcpListener> = bed.topology.host("guest").ns.run(|| {
        let lock = kernel::lock(&instance.bpffs()).expect("nobody else writes");
        let mut datapath = Datapath::open(&lock).expect("loaded");
        datapath.listen(NonZeroU32::MIN, &DELIVERY, Vec::new()).expect("listeners").ipv4
    });
    assert_eq!(answers(&bed, "web-1", VIP4), "c", "as if nobody listened");
    drop(elsewhere);
}

#[test]
fn where_asked_for_connections_are_refused_while_nobody_listens() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let home = tempfile::tempdir().expect("a directory");
    let path = write(&bed, &with_rules("redis", "*", &[("2.0", 1)]));
    let config = home.path().join("config.yaml");
    let configure = |fallback: &str| {
        let text = format!(
            "policies: ['{}']\nattach: [{{interface: 'v-*', hook: tc}}]\n{LIMITS}l7_fallback: \
             {fallback}\n",
            path.display()
        );
        let beside = home.path().join("beside");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(beside, &config).expect("renamed");
    };
    // What an agent said last holds when it has ended, and its proxy with it.
    let run = |fallback: &str| {
        configure(fallback);
        let agent = Agent::start(&instance, &config, &[]).expect("an agent");
        agent.stop().expect("an orderly end");
    };
    run("reset");
    for to in [VIP4, VIP6] {
        let refused = bed.open("web-1", to).expect_err("nobody listens");
        let os = refused.downcast_ref::<Errno>().copied();
        assert_eq!(os, Some(Errno::ECONNREFUSED), "{refused:#}");
    }
    assert!(counted(&instance, "proxy_down") >= 2);
    assert_ne!(answers(&bed, "web-1", OTHER_VIP4), "proxy", "a route without rules");
    run("l4");
    assert_eq!(answers(&bed, "web-1", VIP4), "c");
    assert_eq!(answers(&bed, "web-1", VIP6), "c");
}
