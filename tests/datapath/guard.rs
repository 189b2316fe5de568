//! The guard: how many new flows a CPU lets in, and whom it asks nothing.

use balancer_ebpf::{
    abi::{pick, route_kind},
    reason::Reason,
};
use harness::{
    Datagram, Segment,
    packet::{
        assert_same,
        flags::{ACK, RST, SYN},
    },
};

use crate::world::{HZ, Hook, World, edge::uplink, fresh_port, pin_to_one_cpu};

/// Client, three VIPs and a real of each family.
const FAMILIES: [[&str; 5]; 2] = [
    ["10.0.0.1:1024", "240.0.0.1:80", "240.0.0.2:80", "240.0.0.3:80", "10.0.1.1:8080"],
    ["[fd00::1]:1024", "[fd62::1]:80", "[fd62::2]:80", "[fd62::3]:80", "[fd00:1::1]:8080"],
];

/// The VIPs have the ids 1, 2 and 3; the first has a fourth of UDP.
fn world([_, first, second, third, real]: [&str; 5]) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 1);
    for vip in [first, second, third] {
        world.service(vip, &[2]);
    }
    world.service(&format!("{first}/udp"), &[2]);
    Some(world)
}

fn syn(client: &str, vip: &str) -> Segment {
    Segment::new(client, vip).flags(SYN)
}

/// A client that nobody has heard of.
fn stranger(client: &str) -> String {
    client.replace("1024", &fresh_port().to_string())
}

/// Sends frames, each a stranger's, until one meets `refused`: where the machine pauses, another
/// flow may be let in before that. The reason of the last one.
#[track_caller]
fn at_last(world: &mut World, refused: Reason, mut frame: impl FnMut() -> Vec<u8>) {
    let mut last = None;
    for _ in 0..5 {
        let sent = frame();
        let outcome = world.run_frame(Hook::Ingress, &sent);
        last = Some(outcome.reason);
        if outcome.reason == refused {
            assert_same("a refused packet is as it came", &sent, &outcome.packet);
            return;
        }
    }
    panic!("{last:?} instead of {refused:?}");
}

#[test]
fn a_cpu_lets_in_as_many_as_the_limit_and_half_of_them_for_one_vip() {
    const LIMIT: u32 = 40;
    for family @ [client, first, second, third, _] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let cpu = pin_to_one_cpu();
        world.limit_new_flows(LIMIT);
        for _second in 0..3 {
            let begun = world.flood(Hook::Ingress, &syn(client, first));
            let start = world.new_flows(cpu, 0).at;
            let other = world.flood(Hook::Ingress, &syn(client, second));
            let third = world.flood(Hook::Ingress, &syn(client, third));
            // What comes back while the test runs, which may be paused.
            let passed = world.new_flows(cpu, 0).at.wrapping_sub(start);
            let back = passed * LIMIT / HZ;
            assert!(begun >= LIMIT / 2, "{begun} of the first VIP");
            assert!(other >= LIMIT / 2, "{other} of the second one");
            assert!(begun + other + third <= 2 * LIMIT + back, "{begun} + {other} + {third}");
            world.age_new_flows(&[0, 1, 2, 3], HZ);
        }
    }
}

#[test]
fn whatever_would_begin_a_flow_is_refused_and_nothing_else() {
    for family @ [client, first, _, _, real] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        pin_to_one_cpu();
        let open = stranger(client);
        world.connect(&open, first);
        let half = stranger(client);
        assert_eq!(world.reason(Hook::Ingress, &syn(&half, first)), Reason::NewFlow);

        world.limit_new_flows(1);
        let begun = |flags| move || Segment::new(&stranger(client), first).flags(flags).bytes();
        at_last(&mut world, Reason::NewFlowLimit, begun(SYN));
        at_last(&mut world, Reason::NewFlowLimit, begun(ACK));
        at_last(&mut world, Reason::NewFlowLimit, || {
            Datagram::new(&stranger(client), first).payload(b"first").bytes()
        });
        // Of a pick that could not find its real it is not answered either.
        world.change_route(1, |route| route.pick = pick::RANDOM);
        at_last(&mut world, Reason::NewFlowLimit, begun(ACK));

        let from = |client: &str, flags| Segment::new(client, first).flags(flags);
        for (sent, reason) in [
            (from(&open, ACK), Reason::Established),
            (from(&open, SYN), Reason::Established),
            (from(&half, SYN), Reason::HalfOpen),
            (from(&stranger(client), RST), Reason::StrayReset),
            (from(&stranger(client), SYN).to(&first.replace('1', "9")), Reason::UnknownDestination),
        ] {
            assert_eq!(world.reason(Hook::Ingress, &sent), reason, "{sent:?}");
        }
        let back = Segment::new(real, &open).flags(ACK);
        assert_eq!(world.reason(Hook::Egress, &back), Reason::Reply);
        let asked = from(&stranger(client), SYN);
        assert_eq!(world.reason(Hook::Ask, &asked), Reason::NewFlow, "who asks records nothing");
    }
}

#[test]
fn what_is_not_recorded_takes_nothing_away() {
    for family @ [client, first, second, third, _] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let cpu = pin_to_one_cpu();
        world.limit_new_flows(4);
        let empty = world.equal_table(&[0], 16);
        world.change_route(1, |route| route.table = empty);
        world.change_route(2, |route| route.kind = route_kind::DENY);
        world.change_route(3, |route| route.pick = pick::ROUND_ROBIN);
        for (vip, flags, reason) in [
            (first, SYN, Reason::EmptySlot),
            (second, SYN, Reason::Denied),
            (third, ACK, Reason::FlowLost),
        ] {
            for _ in 0..20 {
                let sent = Segment::new(&stranger(client), vip).flags(flags);
                assert_eq!(world.reason(Hook::Ingress, &sent), reason);
            }
        }
        assert_eq!(world.new_flows(cpu, 0).used, 0);
        assert_eq!(world.reason(Hook::Ingress, &syn(client, third)), Reason::NewFlow);
        assert_eq!(world.new_flows(cpu, 0).used, u64::from(HZ), "one flow");
        assert_eq!(world.new_flows(cpu, 3).used, 2 * u64::from(HZ), "it counts twice for its VIP");
        assert_eq!(world.new_flows(cpu, 1).used, 0, "nothing for others");
    }
}

#[test]
fn the_nodes_own_connections_and_xdp_are_asked_too() {
    for family @ [client, first, ..] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        pin_to_one_cpu();
        world.limit_new_flows(4);
        let let_in = world.flood(Hook::Host, &syn(client, first));
        assert!(let_in >= 2, "{let_in} of the node");
        world.age_new_flows(&[0, 1], HZ);
        let uplink = uplink(&mut world, true);
        let let_in = world.flood(Hook::Edge, &syn(client, first));
        assert!(let_in >= 2, "{let_in} by XDP");
        drop(uplink);
    }
}

#[test]
fn what_xdp_leaves_to_tc_takes_nothing_away() {
    for family @ [client, first, ..] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let cpu = pin_to_one_cpu();
        world.limit_new_flows(4);
        let _uplink = uplink(&mut world, false);
        for _ in 0..20 {
            let sent = syn(&stranger(client), first);
            assert_eq!(world.reason(Hook::Edge, &sent), Reason::LeftToTc);
        }
        assert_eq!(world.new_flows(cpu, 0).used, 0);
    }
}
