//! Every reason has a case and a name.

use std::collections::BTreeSet;

use balancer_ebpf::{
    abi::{pick, real_flags, route_kind},
    reason::{Fate, Reason},
};
use harness::{
    Segment, Uplink,
    packet::flags::{ACK, RST, SYN},
    wire,
};

use crate::world::{
    FORWARD, FlowFound, Flows, HZ, Hook, LOOPBACK, REPLY, World, edge::uplink, proxy::OWN,
};

const CLIENT: &str = "10.0.0.1:40000";
const VIP: &str = "240.0.0.1:80";
const REAL: &str = "10.0.1.1:8080";

fn there(flags: u8) -> Segment {
    Segment::new(CLIENT, VIP).flags(flags)
}

/// Prepares the world, and sends the packet that must meet `reason`. A new reason does not
/// compile until it has a case here.
pub(crate) fn case(world: &mut World, reason: Reason) -> Reason {
    match reason {
        Reason::NonVip => world.reason(Hook::Ingress, &there(SYN).to("240.0.0.1:81")),
        Reason::NotTcp => {
            let mut frame = there(SYN).bytes();
            frame[23] = 132;
            world.run_frame(Hook::Ingress, &frame).reason
        }
        Reason::Malformed => world.run_frame(Hook::Ingress, &there(SYN).bytes()[..40]).reason,
        Reason::OtherHost => {
            let mut others = there(SYN);
            others.macs[1] = [2, 0, 0, 0, 0, 9];
            world.reason(Hook::Ingress, &others)
        }
        Reason::FragmentTail => {
            let tail = Segment { fragment_offset: 100, dont_fragment: false, ..there(ACK) };
            world.reason(Hook::Ingress, &tail.to("240.0.0.9:80"))
        }
        Reason::FragmentFollowed => {
            let whole = Segment { dont_fragment: false, ..there(SYN) };
            let first = Segment { more_fragments: true, ..whole.clone() };
            world.run_frame(Hook::Ingress, &first.bytes());
            let later = Segment { fragment_offset: 3, ..whole };
            world.run_frame(Hook::Ingress, &later.bytes()).reason
        }
        Reason::IcmpError => {
            world.connect(CLIENT, VIP);
            let about = Segment::new(VIP, CLIENT).flags(ACK).bytes();
            let [vip, client] = wire::addresses(&about[wire::IP_AT..]);
            let error = wire::icmp(client, vip, (3, 3), [0; 4], &about[wire::IP_AT..]);
            world.run_frame(Hook::Ingress, &wire::ethernet(there(ACK).macs, &error)).reason
        }
        Reason::Echo => {
            let packet = &there(SYN).bytes()[wire::IP_AT..];
            let [client, vip] = wire::addresses(packet);
            let request = wire::icmp(client, vip, (8, 0), [0, 1, 0, 1], b"ping");
            world.run_frame(Hook::Ingress, &wire::ethernet(there(ACK).macs, &request)).reason
        }
        Reason::MartianSource => world.reason(Hook::Ingress, &there(SYN).from("127.0.0.1:40000")),
        Reason::UnknownDestination => world.reason(Hook::Ingress, &there(SYN).to("240.0.0.2:80")),
        Reason::UnknownReply => {
            world.reason(Hook::Egress, &Segment::new(REAL, "10.0.0.1:40001").flags(ACK))
        }
        Reason::StackReply => {
            // Some other connection to that port is the node's own.
            world.answer_inward(8080);
            world.connect(CLIENT, VIP);
            world.reason(Hook::Ingress, &Segment::new(REAL, CLIENT).flags(ACK))
        }
        Reason::Established => {
            world.connect(CLIENT, VIP);
            world.reason(Hook::Ingress, &there(ACK))
        }
        Reason::Reply => {
            world.connect(CLIENT, VIP);
            world.reason(Hook::Egress, &Segment::new(REAL, CLIENT).flags(ACK))
        }
        Reason::NewFlow => world.reason(Hook::Ingress, &there(SYN)),
        Reason::HalfOpen => {
            world.reason(Hook::Ingress, &there(SYN));
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::Unanswered => {
            world.reason(Hook::Ingress, &there(SYN));
            world.change_flow(Flows::HalfOpen, (CLIENT, VIP, FORWARD), |state| {
                state.refreshed = state.refreshed.wrapping_sub(HZ);
            });
            world.reason(Hook::Ingress, &there(SYN))
        }
        // Nothing leads there: the test runs where no packet is routed.
        Reason::LeftToTc => world.reason(Hook::Edge, &there(SYN)),
        Reason::FlowAdopted => world.reason(Hook::Ingress, &there(ACK)),
        Reason::TupleClash => {
            world.service("240.0.0.3:80", &[2]);
            world.connect(CLIENT, "240.0.0.3:80");
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::TooBig => {
            let uplink = uplink(world, true);
            let [real, _] = Uplink::GATEWAYS;
            world.real(9, &format!("{real}:80"), 1);
            world.service("240.0.0.9:80", &[9]);
            uplink.ip(&format!("link set {} mtu 1000", Uplink::NAME));
            let long = there(SYN).to("240.0.0.9:80").payload(&[7; 1000]);
            world.run_frame(Hook::Link, &long.bytes()).reason
        }
        Reason::ToProxy => {
            // No test run hands over: the kernel lets that only where packets come in. Asking says
            // where one would be handed over; tests/e2e/proxy.rs has packets handed over.
            world.proxied(1);
            let _listener = world.listen(VIP.parse().expect("an address"));
            world.reason(Hook::Ask, &there(SYN))
        }
        Reason::Proxied => {
            world.proxied(1);
            world.mark = OWN;
            world.reason(Hook::Host, &there(SYN))
        }
        Reason::ProxyDown => {
            world.proxied(1);
            world.change_settings(|settings| settings.l7_reset = 1);
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::FlowLost => {
            world.change_route(1, |route| route.pick = pick::RANDOM);
            world.reason(Hook::Ingress, &there(ACK))
        }
        Reason::RealGone => {
            world.connect(CLIENT, VIP);
            world.settings(0);
            world.change_real(2, |real| real.flags = real_flags::GONE);
            world.reason(Hook::Ingress, &there(ACK))
        }
        Reason::Blackhole => {
            let table = world.equal_table(&[1], 16);
            world.change_route(1, |route| route.table = table);
            let reason = world.reason(Hook::Ingress, &there(SYN));
            assert_eq!(world.counter(1).connections, 1, "a refused share is counted too");
            reason
        }
        Reason::Denied => {
            world.change_route(1, |route| route.kind = route_kind::DENY);
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::StrayReset => world.reason(Hook::Ingress, &there(RST)),
        Reason::Fragment => {
            let later = Segment { fragment_offset: 3, dont_fragment: false, ..there(ACK) };
            world.reason(Hook::Ingress, &later)
        }
        Reason::SpoofedSource => {
            for half in 0..2 {
                world.source(half, "10.0.0.1", 5, 0, LOOPBACK + 1);
            }
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::EmptySlot => {
            let table = world.equal_table(&[0], 16);
            world.change_route(1, |route| route.table = table);
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::NewFlowLimit => {
            world.limit_new_flows(1);
            // One on each CPU that the test runs on, and no more before a second is over.
            let fresh = |port: u16| there(SYN).from(&format!("10.0.0.1:{port}"));
            let mut reasons = (1024..2024).map(|port| world.reason(Hook::Ingress, &fresh(port)));
            reasons.find(|reason| *reason != Reason::NewFlow).expect("some are refused")
        }
        Reason::FlowTableFull => {
            let reason = world.reason(Hook::Ingress, &there(SYN));
            assert_eq!(world.flows(), 0, "neither direction stays behind");
            reason
        }
        Reason::TuplesExhausted => {
            // Every port of this client at the real belongs to another live connection.
            let template = {
                world.service("240.0.0.3:80", &[2]);
                world.connect(CLIENT, "240.0.0.3:80");
                world.flow(Flows::Open, REAL, CLIENT, REPLY).expect("connected")
            };
            let mut state = template.state;
            state.last_seen = state.last_seen.wrapping_add(HZ);
            for port in 1024..=u16::MAX {
                let client = format!("10.0.0.1:{port}");
                world.put_flow(Flows::Open, REAL, &client, REPLY, &FlowFound { state, ..template });
            }
            world.reason(Hook::Ingress, &there(SYN))
        }
        Reason::SnatFailed => {
            // Nothing leads to the real: the test runs where no packet is routed.
            world.snat(61_000, 100);
            let reason = world.reason(Hook::Ingress, &there(SYN));
            assert_eq!(world.flows(), 0, "nothing is recorded of what cannot be sent");
            reason
        }
        Reason::RewriteFailed => {
            // The kernel refuses a change to a packet only when it has no memory for it, which a
            // test run cannot bring about. What follows from a refusal is in the verdict table
            // of the object; here it is only known that it drops.
            assert_eq!(reason.fate(), Fate::Drop);
            reason
        }
    }
}

#[test]
fn every_reason_has_a_case_that_meets_it() {
    for reason in Reason::ALL {
        let world = match reason {
            Reason::TuplesExhausted => World::with_flows(1 << 18),
            Reason::FlowTableFull => World::with_room_for_one_flow(),
            _ => World::new(),
        };
        let Some(mut world) = world else { return };
        world.real(2, REAL, 1);
        world.service(VIP, &[2]);
        assert_eq!(case(&mut world, *reason), *reason);
    }
}

#[test]
fn names_are_words_and_differ() {
    let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for name in names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
}
