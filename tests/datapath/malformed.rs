//! Packets that are cut short or contradict themselves pass untouched: the stack decides.

use balancer_ebpf::{abi::PortUse, reason::Reason};
use harness::{Segment, packet::flags::SYN};

use crate::world::{Hook, World, fresh_port};

fn world() -> Option<World> {
    let mut world = World::new()?;
    world.real(2, "10.0.1.1:8080", 1);
    world.service("240.0.0.1:80", &[2]);
    world.real(3, "[fd00:1::1]:8080", 1);
    world.service("[fd62:616c::1]:80", &[3]);
    Some(world)
}

fn segments() -> Vec<Segment> {
    let v4 = Segment::new("10.0.0.1:40000", "240.0.0.1:80").flags(SYN);
    let v6 = Segment::new("[fd00::1]:40000", "[fd62:616c::1]:80").flags(SYN);
    let mut all = vec![v4.clone(), v6.clone()];
    all.push(Segment { ip_options: vec![1; 40], tcp_options: vec![1; 40], ..v4.clone() });
    for vlans in [vec![5], vec![5, 6]] {
        all.push(Segment { vlans: vlans.clone(), ..v4.clone() });
        all.push(Segment { vlans, ..v6.clone() });
    }
    all
}

#[track_caller]
fn untouched(world: &mut World, frame: &[u8], reason: Reason, what: &str) {
    let outcome = world.run_frame(Hook::Ingress, frame);
    assert_eq!(outcome.reason, reason, "{what}");
    assert_eq!(outcome.packet, frame, "{what}");
    let outcome = world.run_frame(Hook::Egress, frame);
    assert_eq!(outcome.reason, reason, "{what}, egress");
    assert_eq!(outcome.packet, frame, "{what}, egress");
}

#[test]
fn a_packet_cut_anywhere_passes() {
    let Some(mut world) = world() else { return };
    for segment in segments() {
        let mut segment = segment.payload(b"payload");
        let port = fresh_port();
        segment.src.set_port(port);
        // Else egress would let it pass for its port, before it looks at the lengths.
        world.port(port, PortUse::Real);
        let frame = segment.bytes();
        // A test run wants a whole IP header behind an untagged Ethernet header, and one byte
        // behind a tagged one.
        let ip_len = if segment.src.is_ipv4() { 20 } else { 40 };
        let shortest = if segment.vlans.is_empty() { 14 + ip_len } else { 15 };
        for len in shortest..frame.len() {
            let what = format!("{len} of {} bytes, {:?}", frame.len(), segment.vlans);
            untouched(&mut world, &frame[..len], Reason::Malformed, &what);
        }
        assert_eq!(world.reason(Hook::Ingress, &segment), Reason::NewFlow, "whole");
    }
}

#[test]
fn lengths_and_versions_that_contradict_each_other_pass() {
    let Some(mut world) = world() else { return };
    world.port(40_001, PortUse::Real);
    let v4 = Segment::new("10.0.0.1:40001", "240.0.0.1:80").flags(SYN);
    let v6 = Segment::new("[fd00::1]:40001", "[fd62:616c::1]:80").flags(SYN);
    let mut broken: Vec<(String, Vec<u8>)> = Vec::new();
    let mut breaks = |what: String, segment: &Segment, at: usize, bytes: &[u8]| {
        let mut frame = segment.bytes();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        broken.push((what, frame));
    };
    for version in (0..16).filter(|version| *version != 4) {
        breaks(format!("IPv4 version {version}"), &v4, 14, &[version << 4 | 5]);
    }
    for version in (0..16).filter(|version| *version != 6) {
        breaks(format!("IPv6 version {version}"), &v6, 14, &[version << 4]);
    }
    for words in 0..5 {
        breaks(format!("IHL {words}"), &v4, 14, &[0x40 | words]);
    }
    for len in [0u16, 1, 19, 20, 39, 41, 1000, u16::MAX] {
        breaks(format!("total length {len}"), &v4, 16, &len.to_be_bytes());
    }
    for len in [0u16, 1, 19, 21, 1000, u16::MAX] {
        breaks(format!("payload length {len}"), &v6, 18, &len.to_be_bytes());
    }
    for words in [0u8, 1, 4, 6, 15] {
        breaks(format!("data offset {words}, IPv4"), &v4, 14 + 20 + 12, &[words << 4]);
        breaks(format!("data offset {words}, IPv6"), &v6, 14 + 40 + 12, &[words << 4]);
    }
    for (what, frame) in &broken {
        untouched(&mut world, frame, Reason::Malformed, what);
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn what_is_neither_tcp_nor_udp_passes() {
    let Some(mut world) = world() else { return };
    for segment in segments() {
        // IPv6 extension headers are looked through: they have fixtures.
        let extensions: &[u8] = if segment.src.is_ipv6() { &[0, 43, 44, 60] } else { &[] };
        for protocol in (0..=255).filter(|p| ![6, 17].contains(p) && !extensions.contains(p)) {
            let mut frame = segment.bytes();
            let at = segment.ip_at() + if segment.src.is_ipv4() { 9 } else { 6 };
            frame[at] = protocol;
            untouched(&mut world, &frame, Reason::NotTcp, &format!("protocol {protocol}"));
        }
        for ether_type in [0x0000u16, 0x0806, 0x88cc, 0x0801, 0xffff] {
            let mut frame = segment.bytes();
            let at = segment.ip_at() - 2;
            frame[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
            untouched(&mut world, &frame, Reason::NotTcp, &format!("{ether_type:#06x}"));
        }
    }
    let three = Segment { vlans: vec![1, 2], ..segments()[0].clone() };
    let mut frame = three.bytes();
    frame[20..22].copy_from_slice(&0x8100u16.to_be_bytes());
    untouched(&mut world, &frame, Reason::NotTcp, "a third tag");
}
