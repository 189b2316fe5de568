//! All 64 combinations of TCP flags in every state of a connection.

use balancer_ebpf::reason::Reason;
use harness::{
    Segment,
    packet::flags::{ACK, FIN, RST, SYN},
};

use crate::world::{Hook, World, fresh_port};

/// What the maps know of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    HalfOpen,
    Answered,
    Established,
    Closing,
    Closed,
}

/// What the design says (section 4), in its own words and not in the programs'.
fn expected(known: Known, flags: u8) -> Reason {
    let has = |bits| flags & bits == bits;
    let opens = has(SYN) && !has(ACK) && !has(RST);
    match known {
        Known::Nothing if has(RST) => Reason::StrayReset,
        Known::Nothing if opens => Reason::NewFlow,
        Known::Nothing => Reason::FlowAdopted,
        Known::HalfOpen => Reason::HalfOpen,
        Known::Answered if has(ACK) && !has(SYN) && !has(RST) => Reason::Established,
        Known::Answered => Reason::HalfOpen,
        Known::Closing | Known::Closed if opens => Reason::NewFlow,
        Known::Established | Known::Closing | Known::Closed => Reason::Established,
    }
}

#[test]
fn every_combination_of_flags_meets_its_reason_in_every_state() {
    let families = [
        ("10.0.0.1", "240.0.0.1:80", "10.0.1.1:8080"),
        ("[fd00::1]", "[fd62:616c::1]:80", "[fd00:1::1]:8080"),
    ];
    let states = [
        Known::Nothing,
        Known::HalfOpen,
        Known::Answered,
        Known::Established,
        Known::Closing,
        Known::Closed,
    ];
    for (address, vip, real) in families {
        let Some(mut world) = World::new() else { return };
        world.real(2, real, 1);
        world.service(vip, &[2]);
        for known in states {
            for flags in 0..64 {
                let client = format!("{address}:{}", fresh_port());
                let there = |flags| Segment::new(&client, vip).flags(flags);
                let back = |flags| Segment::new(real, &client).flags(flags);
                if known != Known::Nothing {
                    world.forwarded(&there(SYN), Reason::NewFlow);
                }
                if !matches!(known, Known::Nothing | Known::HalfOpen) {
                    world.reason(Hook::Egress, &back(SYN | ACK));
                }
                if matches!(known, Known::Established | Known::Closing | Known::Closed) {
                    world.forwarded(&there(ACK), Reason::Established);
                }
                if matches!(known, Known::Closing | Known::Closed) {
                    world.forwarded(&there(FIN | ACK), Reason::Established);
                }
                if known == Known::Closed {
                    world.reason(Hook::Egress, &back(FIN | ACK));
                }
                let reason = world.reason(Hook::Ingress, &there(flags));
                assert_eq!(reason, expected(known, flags), "{known:?} {flags:#08b} {vip}");
            }
        }
    }
}

#[test]
fn a_syn_on_an_established_flow_changes_nothing() {
    let Some(mut world) = World::new() else { return };
    let (client, vip) = ("10.0.0.1:40000", "240.0.0.1:80");
    world.real(2, "10.0.1.1:8080", 1);
    world.service(vip, &[2]);
    world.connect(client, vip);
    let entry = |world: &mut World| {
        world.flow(crate::world::Flows::Open, client, vip, crate::world::FORWARD)
    };
    let before = entry(&mut world);
    // The real's challenge ACK settles it.
    world.forwarded(&Segment::new(client, vip).flags(SYN), Reason::Established);
    assert_eq!(entry(&mut world), before);
    assert_eq!((world.flows(), world.active(2)), (2, 1));
}
