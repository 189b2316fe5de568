//! Which packets are the proxy's. That they get to its sockets is shown by `tests/e2e/proxy.rs`: a
//! test run has no place where packets come in.

use std::net::{SocketAddr, TcpListener, TcpStream};

use balancer_ebpf::{
    abi::{route_flags, route_kind, vip_flags},
    reason::Reason,
};
use harness::{
    Segment, backends,
    packet::flags::{ACK, FIN, RST, SYN},
};

use crate::world::{
    Hook, World,
    edge::uplink,
    proxy::{HANDED, OWN},
};

/// Client, VIP, real, source with a class of its own.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.1:8080", "10.0.0.7:40000"],
    ["[fd00::1]:40000", "[fd62::1]:80", "[fd00:1::1]:8080", "[fd00::7]:40000"],
];

fn world([_, vip, real, _]: [&str; 4]) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 1);
    world.service(vip, &[2]);
    world.proxied(1);
    Some(world)
}

fn parsed(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

#[test]
fn connections_that_begin_are_the_proxys_while_it_listens() {
    for family in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let [client, vip, ..] = family;
        let there = |flags| Segment::new(client, vip).flags(flags);
        let listener = world.listen(parsed(vip));
        // The ACK too: it may answer a SYN cookie.
        for flags in [SYN, ACK, ACK | FIN] {
            assert_eq!(world.reason(Hook::Ask, &there(flags)), Reason::ToProxy);
        }
        assert_eq!(world.reason(Hook::Ask, &there(RST)), Reason::StrayReset);
        // Where it cannot be handed over, what holds without a proxy does.
        assert_eq!(world.reason(Hook::Ingress, &there(SYN)), Reason::NewFlow);
        assert_eq!(world.reason(Hook::Ask, &there(SYN)), Reason::HalfOpen, "its entry decides");
        drop(listener);
        let other = Segment::new(&client.replace("40000", "40001"), vip);
        assert_eq!(world.reason(Hook::Ask, &other.clone().flags(SYN)), Reason::NewFlow);
        world.change_settings(|settings| settings.l7_reset = 1);
        for hook in [Hook::Ask, Hook::Ingress, Hook::Host] {
            assert_eq!(world.reason(hook, &other.clone().flags(SYN)), Reason::ProxyDown);
            assert_eq!(world.reason(hook, &other.clone().flags(RST)), Reason::StrayReset);
        }
        assert_eq!(world.reason(Hook::Ingress, &other.flags(ACK)), Reason::ProxyDown);
    }
}

#[test]
fn a_route_without_a_table_has_one_all_the_same_while_the_proxy_listens() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, ..] = FAMILIES[0];
    let syn = Segment::new(client, vip).flags(SYN);
    world.change_route(1, |route| route.kind = route_kind::DENY);
    let _listener = world.listen(parsed(vip));
    assert_eq!(world.reason(Hook::Ask, &syn), Reason::ToProxy);
    assert_eq!(world.reason(Hook::Host, &syn), Reason::Denied);
}

#[test]
fn each_class_has_its_own_way() {
    for family in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let [client, vip, real, source] = family;
        let _listener = world.listen(parsed(vip));
        let own = world.service(&vip.replace(":80", ":81"), &[2]);
        for half in 0..2 {
            world.source(half, &parsed(source).ip().to_string(), 1, 5, 0);
        }
        world.class_route(5, 1, own);
        let syn = |from| Segment::new(from, vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ask, &syn(client)), Reason::ToProxy);
        assert_eq!(world.reason(Hook::Ingress, &syn(source)), Reason::NewFlow, "{real}");
        // The other way round.
        world.change_route(1, |route| route.flags = 0);
        world.change_route(own, |route| route.flags = route_flags::PROXY);
        let source = source.replace("40000", "40001");
        assert_eq!(world.reason(Hook::Ingress, &syn(client)), Reason::NewFlow);
        assert_eq!(world.reason(Hook::Ask, &syn(&source)), Reason::ToProxy);
    }
}

#[test]
fn a_socket_that_has_the_connection_keeps_it() {
    for (address, client) in [("10.255.0.1", "10.255.0.9"), ("fdff::1", "fdff::9")] {
        let Some(mut world) = World::new() else { return };
        let uplink = uplink(&mut world, false);
        let nodad = if client.contains(':') { " nodad" } else { "" };
        uplink.ip(&format!("addr add {client} dev lo{nodad}"));
        let end = |address: &str| SocketAddr::new(address.parse().expect("an address"), 0);
        let server = TcpListener::bind(end(address)).expect("a server");
        let vip = server.local_addr().expect("an address").to_string();
        let bound = TcpListener::bind(end(client)).expect("a free port");
        let client = bound.local_addr().expect("an address");
        drop(bound);
        world.real(2, if client.is_ipv4() { "10.0.1.1:8080" } else { "[fd00:1::1]:8080" }, 1);
        let id = world.service(&vip, &[2]);
        let packet = |flags| Segment::new(&client.to_string(), &vip).flags(flags);
        let expect = |world: &mut World, reasons: [Reason; 2]| {
            for (flags, reason) in [SYN, ACK].into_iter().zip(reasons) {
                assert_eq!(world.reason(Hook::Ask, &packet(flags)), reason, "{client}");
            }
        };
        // What listens has no connection.
        world.proxied(id);
        expect(&mut world, [Reason::NewFlow, Reason::FlowAdopted]);
        let stream = connect(client, vip.parse().expect("an address"));
        expect(&mut world, [Reason::Proxied; 2]);
        // However it goes on with the VIP.
        world.change_route(id, |route| route.flags = 0);
        expect(&mut world, [Reason::Proxied; 2]);
        for half in 0..2 {
            world.vip_entry(half, id, id, 0);
        }
        expect(&mut world, [Reason::NewFlow, Reason::FlowAdopted]);
        for half in 0..2 {
            world.vip_entry(half, id, id, vip_flags::PROXIED);
        }
        let (accepted, _) = server.accept().expect("a connection");
        drop((accepted, stream));
    }
}

/// Connects from this address and port.
fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    backends::dial(from, to).expect("a connection")
}

#[test]
fn what_the_proxy_sends_is_left_alone() {
    for family in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let [client, vip, real, _] = family;
        let connection = Segment::new(client, vip).flags(SYN);
        // From a port that some real has.
        let answer = Segment::new(&real.replace("1.1", "9.9").replace("1::1", "9::9"), client);
        for sent in [connection.clone(), answer.flags(ACK)] {
            world.mark = OWN | 1;
            assert_eq!(world.reason(Hook::Host, &sent), Reason::Proxied);
            for mark in [0, HANDED, OWN | HANDED] {
                world.mark = mark;
                assert_ne!(world.reason(Hook::Host, &sent), Reason::Proxied, "{mark:#x}");
            }
        }
        // A mark says nothing of a packet that comes in.
        world.mark = OWN;
        let other = Segment::new(&client.replace("40000", "40001"), vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ingress, &other), Reason::NewFlow);
        world.change_settings(|settings| settings.mark_own = 0);
        let third = Segment::new(&client.replace("40000", "40002"), vip).flags(SYN);
        assert_eq!(world.reason(Hook::Host, &third), Reason::NewFlow, "no proxy, no mark");
    }
}

#[test]
fn xdp_leaves_connections_of_such_a_vip_to_tc_and_carries_flows() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [_, vip, ..] = FAMILIES[0];
    let uplink = uplink(&mut world, true);
    let there = |port: u16| Segment::new(&format!("10.255.0.2:{port}"), vip);
    for hook in [Hook::Edge, Hook::Tunnel, Hook::Link] {
        assert_eq!(world.reason(hook, &there(1).flags(SYN)), Reason::LeftToTc);
        assert_eq!(world.reason(hook, &there(1).flags(ACK)), Reason::LeftToTc);
    }
    world.real(3, "10.255.0.2:80", 1);
    let table = world.equal_table(&[3], 16);
    world.change_route(1, |route| route.table = table);
    world.connect("10.255.0.3:2", vip);
    let known = Segment::new("10.255.0.3:2", vip).flags(ACK);
    assert_eq!(world.reason(Hook::Edge, &known), Reason::Established);
    drop(uplink);
}

#[test]
fn the_guard_is_not_asked_about_what_is_the_proxys() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, ..] = FAMILIES[0];
    world.limit_new_flows(1);
    let syn = Segment::new(client, vip).flags(SYN);
    // What falls back records something.
    let let_in = world.flood(Hook::Ingress, &syn);
    assert!(let_in > 0);
    world.change_settings(|settings| settings.l7_reset = 1);
    let other = Segment::new("10.0.0.2:40000", vip).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &other), Reason::ProxyDown);
}
