//! Packets that do not fit, and the errors that say so.

use balancer_ebpf::reason::Reason;
use harness::{
    Segment, Uplink,
    packet::{
        assert_same,
        flags::{ACK, PSH, SYN},
    },
    wire,
};

use super::{FAMILIES, HOOKS, around, finished, ip, untouched, world};
use crate::world::{Hook, TC_ACT_REDIRECT};

/// The error that answers a packet: from the VIP, with nothing of the packet changed in it.
fn error(sent: &[u8], mtu: u16) -> Vec<u8> {
    let [client, vip] = wire::addresses(&sent[wire::IP_AT..]);
    let [high, low] = mtu.to_be_bytes();
    let (told, quoted) = if client.is_ipv4() { ((3, 4), 128) } else { ((2, 0), 512) };
    let quoted = &sent[wire::IP_AT..wire::IP_AT + quoted];
    let mut packet = wire::icmp(vip, client, told, [0, 0, high, low], quoted);
    if client.is_ipv4() {
        packet[4..9].copy_from_slice(&[0, 0, 0x40, 0, 64]);
        wire::sum_ipv4(&mut packet);
    } else {
        packet[7] = 64;
    }
    let [from, to] = wire::MACS;
    wire::ethernet([to, from], &packet)
}

#[test]
fn sender_of_a_packet_beyond_the_mtu_is_told_what_fits() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        uplink.ip(&format!("link set {} mtu 1400", Uplink::NAME));
        for [client, vip, real] in FAMILIES {
            let v4 = ip(client).is_ipv4();
            let header = if v4 { 20 } else { 40 };
            let fits = if hook == Hook::Tunnel { 1400 - header } else { 1400 };
            let there = Segment::new(client, vip);
            finished(&mut world, hook, &there.clone().flags(SYN), Reason::NewFlow, real);
            let of =
                |len: usize| there.clone().flags(ACK | PSH).payload(&vec![7; len - header - 20]);
            finished(&mut world, hook, &of(fits), Reason::Established, real);
            let long = of(fits + 1).bytes();
            let outcome = world.run_frame(hook, &long);
            assert_eq!(outcome.reason, Reason::TooBig);
            let expected = error(&long, fits.try_into().expect("an MTU"));
            assert_same("the error", &expected, &outcome.packet);
        }
    }
}

#[test]
fn no_ipv6_sender_is_told_less_than_every_link_must_carry() {
    let Some((mut world, uplink)) = world() else { return };
    uplink.ip(&format!("link set {} mtu 1280", Uplink::NAME));
    let [client, vip, _] = FAMILIES[1];
    let long = Segment::new(client, vip).flags(ACK).payload(&[7; 1200]).bytes();
    let outcome = world.run_frame(Hook::Tunnel, &long);
    assert_eq!(outcome.reason, Reason::TooBig);
    assert_same("the error", &error(&long, 1280), &outcome.packet);
}

/// Before generic XDP the kernel puts packets together, which must not be taken for long ones.
#[test]
fn what_no_frame_of_the_interface_can_be_is_left_to_tc() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        // Test runs come in by this one.
        uplink.ip("link set lo mtu 1350");
        uplink.ip(&format!("link set {} mtu 1320", Uplink::NAME));
        for [client, vip, real] in FAMILIES {
            let header = if ip(client).is_ipv4() { 20 } else { 40 };
            let there = Segment::new(client, vip);
            let of =
                |len: usize| there.clone().flags(ACK | PSH).payload(&vec![7; len - header - 20]);
            finished(&mut world, hook, &there.clone().flags(SYN), Reason::NewFlow, real);
            finished(&mut world, hook, &there.clone().flags(ACK), Reason::Established, real);
            let outcome = world.run_frame(hook, &of(1350).bytes());
            assert_eq!(outcome.reason, Reason::TooBig, "a frame that the interface takes");
            untouched(&mut world, hook, &of(1351).bytes(), Reason::LeftToTc);
        }
    }
}

/// Routers on the way of the answers know the VIP alone.
#[test]
fn errors_about_answers_go_to_the_real_as_they_are() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        for ([client, vip, real], router) in FAMILIES.into_iter().zip(["10.0.0.9", "fd00::9"]) {
            let syn = Segment::new(client, vip).flags(SYN);
            finished(&mut world, hook, &syn, Reason::NewFlow, real);
            let answer = Segment::new(vip, client).flags(SYN | ACK).bytes();
            let router = router.parse().expect("an address");
            let kind = if ip(vip).is_ipv4() { (3, 4) } else { (2, 0) };
            let packet = |hops| {
                let quoted = &answer[wire::IP_AT..];
                let mut told = wire::icmp(router, ip(vip), kind, [0, 0, 5, 0], quoted);
                if router.is_ipv4() {
                    told[8] = hops;
                    wire::sum_ipv4(&mut told);
                } else {
                    told[7] = hops;
                }
                told
            };
            let frame = wire::ethernet(wire::MACS, &packet(9));
            untouched(&mut world, hook, &frame, Reason::NotTcp);
            let on = match hook {
                Hook::Tunnel => around(&packet(8), ip(real)),
                _ => packet(8),
            };
            let outcome = world.run_frame(Hook::Ingress, &frame);
            assert_eq!((outcome.reason, outcome.verdict), (Reason::IcmpError, TC_ACT_REDIRECT));
            assert_same("the error", &wire::ethernet(wire::MACS, &on), &outcome.packet);
            // Nobody sends it in circles.
            let last = wire::ethernet(wire::MACS, &packet(1));
            untouched(&mut world, Hook::Ingress, &last, Reason::RewriteFailed);
        }
        uplink.ip(&format!("link set {} down", Uplink::NAME));
    }
}
