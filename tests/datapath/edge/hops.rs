//! Next hops that flows remember while user space says that those are fresh.

use std::net::SocketAddr;

use balancer_ebpf::reason::Reason;
use harness::{
    Segment, Uplink,
    packet::flags::{ACK, PSH, SYN},
};

use super::{FAMILIES, finished, untouched, world};
use crate::world::{FORWARD, FlowFound, Flows, REPLY, World, edge::uplink};

/// No jiffies that come soon.
const LONG: u64 = u64::MAX - 1;
/// Jiffies that are over: counting begins above.
const OVER: u64 = 1;
const GENERATION: u64 = 7;
const MTU: u32 = 1500;

/// Cuts the namespace off from everywhere: the kernel knows no way any more.
fn cut_off(uplink: &Uplink) {
    for next in Uplink::GATEWAYS {
        uplink.ip(&format!("route del default via {next}"));
    }
}

fn connect(uplink: &Uplink) {
    for next in Uplink::GATEWAYS {
        uplink.ip(&format!("route add default via {next}"));
    }
}

/// A request and a reply of an established connection of each family, each with what it becomes.
fn establish(world: &mut World) -> Vec<(Segment, Reason, Segment)> {
    let mut packets = Vec::new();
    for [client, vip, real] in FAMILIES {
        let (there, back) = (Segment::new(client, vip), Segment::new(real, client));
        let syn = there.clone().flags(SYN);
        finished(world, &syn, Reason::NewFlow, syn.clone().to(real));
        let answer = back.clone().flags(SYN | ACK);
        finished(world, &answer, Reason::Reply, answer.clone().from(vip));
        let ack = there.flags(ACK);
        finished(world, &ack, Reason::Established, ack.clone().to(real));
        packets.push((ack.clone(), Reason::Established, ack.to(real)));
        let data = back.flags(ACK | PSH).payload(b"answer");
        packets.push((data.clone(), Reason::Reply, data.from(vip)));
    }
    packets
}

/// XDP finishes each of them.
#[track_caller]
fn all_finished(world: &mut World, packets: &[(Segment, Reason, Segment)]) {
    for (sent, reason, expected) in packets {
        finished(world, sent, *reason, expected.clone());
    }
}

#[test]
fn a_flow_remembers_its_next_hop_for_as_long_as_somebody_looks_after_it() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    world.next_hop(5, uplink.index(), MTU);
    let packets = establish(&mut world);
    let all = |world: &mut World, remembered: bool| {
        for (sent, reason, expected) in &packets {
            if remembered {
                finished(world, sent, *reason, expected.clone());
            } else {
                untouched(world, &sent.bytes(), Reason::LeftToTc);
            }
        }
    };
    all(&mut world, true);
    cut_off(&uplink);
    all(&mut world, true);
    world.hops(OVER, GENERATION);
    all(&mut world, false);
    world.hops(LONG, GENERATION);
    all(&mut world, true);
    world.hops(LONG, GENERATION + 1);
    all(&mut world, false);
    connect(&uplink);
    all(&mut world, true);
    cut_off(&uplink);
    all(&mut world, true);
}

#[test]
fn a_new_flow_asks_once_and_is_born_with_its_next_hop() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    world.next_hop(1, uplink.index(), MTU);
    for [client, vip, real] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
        let stray: SocketAddr = client.parse().expect("an end");
        let stray = SocketAddr::new(stray.ip(), 41_000).to_string();
        let stray = Segment::new(&stray, vip).flags(ACK);
        finished(&mut world, &stray, Reason::FlowAdopted, stray.clone().to(real));
    }
    cut_off(&uplink);
    for [client, vip, real] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN);
        finished(&mut world, &syn, Reason::HalfOpen, syn.clone().to(real));
        let stray: SocketAddr = client.parse().expect("an end");
        let stray = SocketAddr::new(stray.ip(), 41_000).to_string();
        let stray = Segment::new(&stray, vip).flags(ACK);
        finished(&mut world, &stray, Reason::Established, stray.clone().to(real));
        let other = Segment::new(&client.replace("40000", "42000"), vip).flags(SYN);
        untouched(&mut world, &other.bytes(), Reason::LeftToTc);
    }
}

#[test]
fn what_is_too_long_or_has_no_hops_left_is_not_sent_by_a_remembered_way() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    world.next_hop(1, uplink.index(), MTU);
    let packets = establish(&mut world);
    all_finished(&mut world, &packets);
    cut_off(&uplink);
    for (sent, reason, expected) in &packets {
        let headers = if sent.src.is_ipv4() { 40 } else { 60 };
        let long =
            |segment: &Segment, len: u32| segment.clone().payload(&vec![7; len as usize - headers]);
        finished(&mut world, &long(sent, MTU), *reason, long(expected, MTU));
        untouched(&mut world, &long(sent, MTU + 1).bytes(), Reason::LeftToTc);
        let last = Segment { hops: 1, ..sent.clone() };
        untouched(&mut world, &last.bytes(), Reason::LeftToTc);
    }
}

#[test]
fn a_way_with_a_smaller_mtu_than_its_interface_is_not_remembered() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    world.next_hop(1, uplink.index(), MTU);
    cut_off(&uplink);
    for next in Uplink::GATEWAYS {
        uplink.ip(&format!("route add default via {next} mtu lock 1400"));
    }
    let packets = establish(&mut world);
    all_finished(&mut world, &packets);
    for [client, vip, real] in FAMILIES {
        let flow = world.flow(Flows::Open, client, vip, FORWARD).expect("a flow");
        assert_eq!(flow.hop, 0);
        let reply = world.flow(Flows::Open, real, client, REPLY).expect("a flow");
        assert_eq!(reply.hop, 0);
    }
}

#[test]
fn a_neighbour_that_nobody_looks_after_is_not_remembered() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    let packets = establish(&mut world);
    all_finished(&mut world, &packets);
    cut_off(&uplink);
    for (sent, _, _) in &packets {
        untouched(&mut world, &sent.bytes(), Reason::LeftToTc);
    }
}

#[test]
fn what_another_address_remembered_is_worth_nothing() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    world.hops(LONG, GENERATION);
    world.next_hop(1, uplink.index(), MTU);
    let packets = establish(&mut world);
    all_finished(&mut world, &packets);
    cut_off(&uplink);
    for [client, vip, real] in FAMILIES {
        let there = world.flow(Flows::Open, client, vip, FORWARD).expect("a flow").hop;
        assert_ne!(there, 0);
        let back = world.flow(Flows::Open, real, client, REPLY).expect("a flow");
        assert!(back.hop != 0 && back.hop != there);
        let mixed = FlowFound { hop: there, ..back };
        world.put_flow(Flows::Open, real, client, REPLY, &mixed);
        let reply = Segment::new(real, client).flags(ACK);
        untouched(&mut world, &reply.bytes(), Reason::LeftToTc);
    }
}
