//! A workload that reaches itself through a VIP: the VIP is the other end, on both sides.

use balancer_ebpf::{abi::forwarding, reason::Reason};
use harness::{
    NetNs, Segment,
    packet::flags::{ACK, FIN, SYN},
};

use crate::world::{FORWARD, Flows, Hook, REPLY, World};

/// The workload as client, a VIP, the VIP as the workload's client, and the workload as real.
const ENDS: [[&str; 4]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "240.0.0.1:40000", "10.0.0.1:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd62:616c::1]:40000", "[fd00::1]:8080"],
];

/// Runs a test for each family and place: a workload's packets are met where they come in, the
/// node's own where they leave.
fn each(test: impl Fn(&mut World, Hook, [&str; 4]) + Sync) {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let netns = NetNs::new(root, "hairpin").expect("a namespace");
    for ends in ENDS {
        for hook in [Hook::Ingress, Hook::Host] {
            netns.run(|| {
                let Some(mut world) = World::new() else { return };
                world.real(2, ends[3], 1);
                world.service(ends[1], &[2]);
                test(&mut world, hook, ends);
            });
        }
    }
}

/// The packet from `sent.src` to `sent.dst`, turned round.
fn turned(sent: &Segment, src: &str, dst: &str) -> Segment {
    let [from, to] = sent.macs;
    Segment { macs: [to, from], ..sent.clone().from(src).to(dst) }
}

#[test]
fn both_sides_see_the_vip_as_the_other_end() {
    each(|world, hook, [client, vip, seen, real]| {
        let (there, back) = (Segment::new(client, vip), Segment::new(real, seen));
        for (sent, flags, reason, out) in [
            (&there, SYN, Reason::NewFlow, (seen, real)),
            (&there, SYN, Reason::HalfOpen, (seen, real)),
            (&back, SYN | ACK, Reason::Reply, (vip, client)),
            (&there, ACK, Reason::Established, (seen, real)),
            (&back, ACK, Reason::Reply, (vip, client)),
        ] {
            let sent = sent.clone().flags(flags).payload(b"data");
            world.expect_redirected(hook, &sent, reason, &turned(&sent, out.0, out.1));
        }
        assert_eq!((world.flows(), world.active(2)), (2, 1));
        for (src, dst, way) in [(client, vip, FORWARD), (real, seen, REPLY)] {
            let how = world.flow(Flows::Open, src, dst, way).expect("a flow").state.forwarding;
            let host = if hook == Hook::Host { forwarding::HOST } else { 0 };
            assert_eq!(how, forwarding::HAIRPIN | host);
        }
        world.reason(hook, &there.flags(FIN | ACK));
        world.reason(hook, &back.flags(FIN | ACK));
        assert_eq!(world.active(2), 0, "the real's FIN finds the connection");
    });
}

#[test]
fn a_client_port_that_the_vip_has_too_does_not_make_a_reply_a_request() {
    each(|world, hook, [client, vip, seen, real]| {
        let busy = |end: &str| end.replace("40000", "443");
        let (client, seen) = (busy(client), busy(seen));
        world.service(&vip.replace(":80", ":443"), &[2]);
        let syn = Segment::new(&client, vip).flags(SYN);
        world.expect_redirected(hook, &syn, Reason::NewFlow, &turned(&syn, &seen, real));
        for flags in [SYN | ACK, ACK] {
            let answer = Segment::new(real, &seen).flags(flags);
            let out = turned(&answer, vip, &client);
            world.expect_redirected(hook, &answer, Reason::Reply, &out);
        }
    });
}

#[test]
fn two_vips_of_one_address_do_not_share_a_tuple() {
    each(|world, hook, [client, vip, seen, real]| {
        world.service(&vip.replace(":80", ":81"), &[2]);
        world.reason(hook, &Segment::new(client, vip).flags(SYN));
        let second = Segment::new(client, &vip.replace(":80", ":81")).flags(SYN);
        let outcome = world.run_frame(hook, &second.bytes());
        assert_eq!(outcome.reason, Reason::TupleClash);
        let at = second.tcp_at();
        let port = u16::from_be_bytes([outcome.packet[at], outcome.packet[at + 1]]);
        assert_ne!(port, 40_000);
        let seen = seen.replace("40000", &port.to_string());
        assert_eq!(outcome.packet, turned(&second, &seen, real).bytes());
        let answer = Segment::new(real, &seen).flags(SYN | ACK);
        let out = turned(&answer, &vip.replace(":80", ":81"), client);
        world.expect_redirected(hook, &answer, Reason::Reply, &out);
    });
}

#[test]
fn a_real_at_another_port_of_another_workload_is_no_hairpin() {
    each(|world, hook, [client, vip, _, real]| {
        let other = real.replace("::1]", "::2]").replace("0.1:", "0.2:");
        world.real(2, &other, 1);
        let syn = Segment::new(client, vip).flags(SYN);
        world.expect(hook, &syn, Reason::NewFlow, &syn.clone().to(&other));
    });
}
