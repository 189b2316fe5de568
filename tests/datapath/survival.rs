//! Connections outlive what changes around them.

use balancer_ebpf::{
    abi::{Table, flow_state, pick, real_flags, route_kind},
    reason::Reason,
};
use harness::{
    Segment,
    packet::flags::{ACK, FIN, RST, SYN},
};

use crate::world::{FORWARD, Flows, Hook, REPLY, World, fresh_port};

const CLIENT: &str = "10.0.0.1:40000";
const VIP: &str = "240.0.0.1:80";
const OLD: &str = "10.0.1.2:8080";
const NEW: &str = "10.0.1.3:8080";

/// A VIP whose connections go to the old real (id 2); the new one has id 3.
fn world() -> Option<World> {
    let mut world = World::new()?;
    world.real(2, OLD, 1);
    world.real(3, NEW, 1);
    world.service(VIP, &[2]);
    Some(world)
}

/// Publishes: new connections go to the new real. The table before.
fn publish(world: &mut World) -> Table {
    let table = world.equal_table(&[3], 16);
    let mut before = Table::default();
    world.change_route(1, |route| {
        before = route.table;
        route.table = table;
    });
    before
}

fn packet(flags: u8) -> Segment {
    Segment::new(CLIENT, VIP).flags(flags)
}

#[test]
fn retransmitted_syn_keeps_its_real_across_an_epoch() {
    let Some(mut world) = world() else { return };
    assert_eq!(world.forwarded(&packet(SYN), Reason::NewFlow).to_string(), OLD);
    publish(&mut world);
    world.epoch(1);
    assert_eq!(world.forwarded(&packet(SYN), Reason::HalfOpen).to_string(), OLD);
    let other = Segment::new("10.0.0.1:40001", VIP).flags(SYN);
    assert_eq!(world.forwarded(&other, Reason::NewFlow).to_string(), NEW);
}

#[test]
fn draining_real_keeps_established_flow() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, VIP);
    publish(&mut world);
    assert_eq!(world.forwarded(&packet(ACK), Reason::Established).to_string(), OLD);
    let reply = Segment::new(OLD, CLIENT).flags(ACK);
    world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(VIP));
}

#[test]
fn flow_outlives_its_vip() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, VIP);
    for half in 0..2 {
        world.vip_entry(half, 1, 0, 0);
    }
    assert_eq!(world.forwarded(&packet(ACK), Reason::Established).to_string(), OLD);
    let other = Segment::new("10.0.0.1:40001", VIP).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &other), Reason::UnknownDestination);
}

#[test]
fn gone_real_keeps_its_flows_until_the_grace_is_over() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, VIP);
    world.settings(u64::MAX);
    world.change_real(2, |real| real.flags = real_flags::GONE);
    assert_eq!(
        world.forwarded(&packet(ACK), Reason::Established).to_string(),
        OLD,
        "kept for ever"
    );
    world.settings(3_600_000_000_000);
    world.change_real(2, |real| real.gone_at_ns = now_ns());
    assert_eq!(world.forwarded(&packet(ACK), Reason::Established).to_string(), OLD, "an hour left");
    world.settings(0);
    let sent = packet(ACK).payload(b"data");
    world.expect(Hook::Ingress, &sent, Reason::RealGone, &sent.answering_reset());
    assert_eq!((world.flows(), world.active(2)), (0, 0), "forgotten, both ways");
}

#[test]
fn rst_to_a_gone_real_is_not_answered() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, VIP);
    world.settings(0);
    world.change_real(2, |real| real.flags = real_flags::GONE);
    assert_eq!(world.reason(Hook::Ingress, &packet(RST)), Reason::StrayReset);
    assert_eq!(world.flows(), 0);
}

#[test]
fn syn_on_a_flow_of_a_gone_real_is_decided_anew() {
    for half_open in [false, true] {
        let Some(mut world) = world() else { return };
        if half_open {
            world.forwarded(&packet(SYN), Reason::NewFlow);
        } else {
            world.connect(CLIENT, VIP);
        }
        publish(&mut world);
        world.change_real(2, |real| real.flags = real_flags::GONE);
        assert_eq!(world.forwarded(&packet(SYN), Reason::NewFlow).to_string(), NEW);
        assert!(world.flow(Flows::Open, OLD, CLIENT, REPLY).is_none());
        assert!(world.flow(Flows::HalfOpen, OLD, CLIENT, REPLY).is_none());
        assert_eq!((world.flows(), world.active(2)), (2, 0));
    }
}

#[test]
fn reused_real_id_is_never_taken_for_its_predecessor() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, VIP);
    world.real(2, "10.0.1.9:8080", 2);
    world.expect(Hook::Ingress, &packet(ACK), Reason::RealGone, &packet(ACK).answering_reset());
    assert!(world.flow(Flows::Open, CLIENT, VIP, FORWARD).is_none());
    let to = world.forwarded(&packet(SYN), Reason::NewFlow);
    assert_eq!(to.to_string(), "10.0.1.9:8080");
}

#[test]
fn syn_after_the_end_is_decided_anew_and_the_old_reply_entry_goes() {
    for last in [FIN | ACK, RST] {
        let Some(mut world) = world() else { return };
        world.connect(CLIENT, VIP);
        publish(&mut world);
        assert_eq!(world.forwarded(&packet(last), Reason::Established).to_string(), OLD);
        assert_eq!(world.forwarded(&packet(SYN), Reason::NewFlow).to_string(), NEW);
        assert!(world.flow(Flows::Open, OLD, CLIENT, REPLY).is_none());
        assert_eq!((world.flows(), world.active(2)), (2, 0));
    }
}

#[test]
fn refused_connection_is_decided_anew_at_the_next_syn() {
    let Some(mut world) = world() else { return };
    world.forwarded(&packet(SYN), Reason::NewFlow);
    let refusal = Segment::new(OLD, CLIENT).flags(RST | ACK);
    world.expect(Hook::Egress, &refusal, Reason::Reply, &refusal.clone().from(VIP));
    publish(&mut world);
    assert_eq!(world.forwarded(&packet(SYN), Reason::NewFlow).to_string(), NEW);
}

#[test]
fn packet_without_entry_is_adopted_by_the_previous_table_where_the_slot_moved() {
    let Some(mut world) = world() else { return };
    let before = publish(&mut world);
    world.change_route(1, |route| {
        route.previous = before;
        route.previous_counters = 30;
        route.previous_until_ns = u64::MAX;
    });
    let sent = packet(ACK).payload(b"data");
    assert_eq!(world.forwarded(&sent, Reason::FlowAdopted).to_string(), OLD);
    let found = world.flow(Flows::Open, CLIENT, VIP, FORWARD).expect("recorded");
    assert_eq!(found.state.state, flow_state::ADOPTED | flow_state::ESTABLISHED);
    assert_eq!((world.active(2), world.counter(30).packets_in), (1, 1));
    let reply = Segment::new(OLD, CLIENT).flags(ACK);
    world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(VIP));
    assert_eq!(world.forwarded(&packet(ACK), Reason::Established).to_string(), OLD);
    // A SYN always goes by the current table.
    let other = Segment::new("10.0.0.1:40001", VIP).flags(SYN);
    assert_eq!(world.forwarded(&other, Reason::NewFlow).to_string(), NEW);
}

#[test]
fn previous_table_does_not_count_when_it_is_over_or_its_real_is_gone() {
    let cases: [fn(&mut World, Table); 3] = [
        |world, before| {
            world.change_route(1, |route| {
                route.previous = before;
                route.previous_until_ns = 1;
            });
        },
        |world, before| {
            world.change_real(2, |real| real.flags = real_flags::GONE);
            world.change_route(1, |route| {
                route.previous = before;
                route.previous_until_ns = u64::MAX;
            });
        },
        |world, _| {
            let blackhole = world.equal_table(&[1], 16);
            world.change_route(1, |route| {
                route.previous = blackhole;
                route.previous_until_ns = u64::MAX;
            });
        },
    ];
    for case in cases {
        let Some(mut world) = world() else { return };
        let before = publish(&mut world);
        case(&mut world, before);
        assert_eq!(world.forwarded(&packet(ACK), Reason::FlowAdopted).to_string(), NEW);
    }
}

#[test]
fn packet_without_entry_is_reset_where_the_route_cannot_tell_its_real() {
    for pick in [pick::RANDOM, pick::ROUND_ROBIN, pick::LEAST_REQUEST] {
        let Some(mut world) = world() else { return };
        world.change_route(1, |route| route.pick = pick);
        for flags in [ACK, ACK | FIN, 0, FIN, SYN | ACK] {
            let sent = packet(flags).payload(b"data");
            world.expect(Hook::Ingress, &sent, Reason::FlowLost, &sent.answering_reset());
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn refusals_are_resets_of_both_families_with_tags_and_options() {
    let ends = [(CLIENT, VIP), ("[fd00::1]:40000", "[fd62:616c::1]:80")];
    for (client, vip) in ends {
        let Some(mut world) = World::new() else { return };
        world.service(vip, &[1]);
        for (kind, reason) in
            [(route_kind::TABLE, Reason::Blackhole), (route_kind::DENY, Reason::Denied)]
        {
            world.change_route(1, |route| route.kind = kind);
            for vlans in [vec![], vec![5], vec![5, 6]] {
                for options in [0, 4, 40] {
                    for flags in [SYN, ACK, FIN, 0, SYN | FIN, SYN | ACK] {
                        let mut sent = Segment::new(client, vip).flags(flags).payload(b"payload");
                        sent.vlans.clone_from(&vlans);
                        sent.tcp_options = vec![1; options];
                        if client.starts_with("10.") {
                            sent.ip_options = vec![1; options];
                        }
                        sent.seq = u32::MAX - 2;
                        world.expect(Hook::Ingress, &sent, reason, &sent.answering_reset());
                    }
                    let mut rst = Segment::new(client, vip).flags(RST);
                    rst.vlans.clone_from(&vlans);
                    assert_eq!(world.reason(Hook::Ingress, &rst), Reason::StrayReset);
                }
            }
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn padding_is_not_acknowledged() {
    let Some(mut world) = World::new() else { return };
    world.service(VIP, &[1]);
    let sent = packet(SYN);
    let mut frame = sent.bytes();
    frame.resize(60, 0);
    let outcome = world.run_frame(Hook::Ingress, &frame);
    assert_eq!(outcome.packet, sent.answering_reset().bytes());
}

#[test]
fn a_full_flow_table_forgets_the_oldest_and_takes_the_new() {
    let Some(mut world) = world() else { return };
    // Four maps of 1,024: more connections than they hold.
    for _ in 0..3000 {
        let syn = Segment::new(&format!("10.0.0.1:{}", fresh_port()), VIP).flags(SYN);
        world.forwarded(&syn, Reason::NewFlow);
    }
}

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
