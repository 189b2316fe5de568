//! Packets as devices hand them over, through the stack between two of them: still to be cut into
//! segments, still without checksum, in frames with VLAN tags.

use balancer_ebpf::reason::Reason;
use harness::{
    NetNs, Segment,
    packet::{
        assert_same,
        flags::{ACK, PSH, SYN},
        verify_checksums,
    },
    tap::{Received, Tap},
    wire,
};

use crate::{
    partial::unfinished,
    world::{Hook, World},
};

/// Client, VIP, its real, and a VIP without one, of each family.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.2:8080", "240.0.0.9:80"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::2]:8080", "[fd62:616c::9]:80"],
];
/// The node's ends of both links, and who is behind them.
const IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 1, 2];
const OUT: [u8; 6] = [2, 0, 0, 0, 2, 1];
const REAL: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// A node that forwards between two devices, with the programs on the client's.
struct Node {
    world: World,
    toward_client: Tap,
    toward_real: Tap,
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs a test with devices that finish packets themselves, and with such that do not.
fn each(test: impl Fn(&mut Node, bool) + Sync) {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let test = &test;
    for offload in [true, false] {
        let netns = NetNs::new(root, "devices").expect("a namespace");
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            netns.sysctl(key, "1").expect("a sysctl");
        }
        let [toward_client, toward_real] =
            ["in0", "out0"].map(|name| netns.run(|| Tap::new(name, offload)).expect("a device"));
        let mut lines = Vec::new();
        for (name, own) in [("in0", IN), ("out0", OUT)] {
            lines.push(format!("link set {name} address {} up", mac(own)));
        }
        for [client, _, real, _] in FAMILIES {
            for (end, name, behind) in [(client, "in0", CLIENT), (real, "out0", REAL)] {
                let address = end.parse::<std::net::SocketAddr>().expect("an end").ip();
                lines.push(format!("route add {address} dev {name}"));
                lines.push(format!("neigh add {address} lladdr {} dev {name}", mac(behind)));
            }
        }
        netns.ip(&lines).expect("routes");
        netns.run(move || {
            let Some(mut world) = World::new() else { return };
            for (id, [_, vip, real, hole]) in [2, 3].into_iter().zip(FAMILIES) {
                world.real(id, real, 1);
                world.service(vip, &[id]);
                world.service(hole, &[1]);
            }
            world.attach(&[Hook::Ingress, Hook::Egress], "in0");
            test(&mut Node { world, toward_client, toward_real }, offload);
        });
    }
}

/// Sends a segment, cut or not, finished or not, from one device to the other; the packets on the wire.
fn through(
    [from, to]: [&mut Tap; 2],
    sent: &Segment,
    how: (bool, u16),
    receiver: [u8; 6],
) -> Vec<Received> {
    let (partial, segment) = how;
    let frame = if partial { unfinished(sent) } else { sent.bytes() };
    from.send_whole(&frame, partial.then(|| sent.tcp_at()), segment).expect("sent");
    let mut all: Vec<Received> = Vec::new();
    let mut payload = 0;
    while payload < sent.payload.len() {
        let got = to.receive(|frame| frame.starts_with(&receiver)).expect("a packet");
        payload += got.frame.len() - sent.tcp_at() - 20;
        all.push(got);
    }
    all
}

/// What came out says what was sent, one hop further and between other ends.
fn check(all: &[Received], expected: &Segment, what: &str) {
    let mut payload: Vec<u8> = Vec::new();
    for got in all {
        verify_checksums(&got.frame).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        let headers = expected.tcp_at() + 20;
        payload.extend(&got.frame[headers..]);
        // Addresses and ports: sequence number, length and flags are of each piece.
        let ends = expected.bytes();
        assert_eq!(got.frame[..14], ends[..14], "{what}");
        let addresses = |frame: &[u8]| wire::addresses(&frame[14..]);
        assert_eq!(addresses(&got.frame), addresses(&ends), "{what}");
        let ports = expected.tcp_at()..expected.tcp_at() + 4;
        assert_eq!(got.frame[ports.clone()], ends[ports], "{what}");
    }
    assert_eq!(payload, expected.payload, "{what}");
}

#[test]
fn packets_to_be_cut_and_to_be_summed_up_come_out_right_both_ways() {
    each(|node, offload| {
        for [client, vip, real, _] in FAMILIES {
            let data: Vec<u8> = (0..4000u32).map(|n| (n * 7) as u8).collect();
            for (partial, segment) in [(false, 0), (true, 0), (true, 1000)] {
                let payload = if segment == 0 { &data[..900] } else { &data[..] };
                let what = format!("{vip}, offload {offload}, partial {partial}, {segment}");
                let there = Segment::new(client, vip).flags(ACK | PSH).payload(payload);
                let there = Segment { macs: [CLIENT, IN], ..there };
                let expected = Segment { macs: [OUT, REAL], ..there.clone().to(real) };
                let taps = [&mut node.toward_client, &mut node.toward_real];
                let all = through(taps, &there, (partial, segment), REAL);
                check(&all, &expected, &what);
                let left = offload && partial;
                let pieces = if segment == 0 || left { 1 } else { 4 };
                assert_eq!(all.len(), pieces, "{what}: who cuts it");
                assert!(all.iter().all(|got| got.left == left), "{what}: who fills it in");
                let size = if left { segment } else { 0 };
                assert!(all.iter().all(|got| got.segment == size), "{what}: how long each is");

                let back = Segment::new(real, client).flags(ACK | PSH).payload(payload);
                let back = Segment { macs: [REAL, OUT], ..back };
                let expected = Segment { macs: [IN, CLIENT], ..back.clone().from(vip) };
                let taps = [&mut node.toward_real, &mut node.toward_client];
                let all = through(taps, &back, (partial, segment), CLIENT);
                check(&all, &expected, &format!("{what}, back"));
                assert_eq!(all.len(), pieces, "{what}: who cuts what goes back");
            }
        }
        for vip in [1, 3] {
            let counted = node.world.counter(vip);
            let headers = if vip == 1 { 54 } else { 74 };
            assert_eq!(counted.bytes_in, 900 + 900 + 4000 + 3 * headers);
            assert_eq!(counted.bytes_out, counted.bytes_in);
        }
    });
}

#[test]
fn frames_with_vlan_tags_are_answered_with_their_tags() {
    each(|node, offload| {
        for [client, _, _, hole] in FAMILIES {
            for vlans in [vec![7], vec![4095], vec![7, 42]] {
                for flags in [SYN, ACK] {
                    let what = format!("{hole}, offload {offload}, tags {vlans:?}");
                    let vlans = vlans.clone();
                    let sent = Segment::new(client, hole).flags(flags);
                    let sent = Segment { macs: [CLIENT, IN], vlans, ..sent };
                    node.toward_client.send(&sent.bytes(), None).expect("sent");
                    let ours = |frame: &[u8]| frame.starts_with(&CLIENT);
                    let answer = node.toward_client.receive(ours).expect("an answer");
                    assert_same(&what, &sent.answering_reset().bytes(), &answer.frame);
                }
            }
        }
        assert_eq!(node.world.counted(Reason::Blackhole), 12);
    });
}

/// The tag says how urgent the frame is, and of no network that it is (IEEE 802.1Q, 9.6): the stack
/// routes what it holds.
#[test]
fn frames_of_no_vlan_but_with_a_tag_reach_the_real() {
    each(|node, offload| {
        for [client, vip, real, _] in FAMILIES {
            let syn = Segment::new(client, vip).flags(SYN);
            let sent = Segment { macs: [CLIENT, IN], vlans: vec![0], ..syn.clone() };
            node.toward_client.send(&sent.bytes(), None).expect("sent");
            let got = node.toward_real.receive(|frame| frame.starts_with(&REAL)).expect("a SYN");
            let hops = syn.hops - 1;
            let expected = Segment { macs: [OUT, REAL], hops, ..syn.to(real) };
            assert_same(&format!("{vip}, offload {offload}"), &expected.bytes(), &got.frame);
        }
        assert_eq!(node.world.counted(Reason::NewFlow), 2);
    });
}
