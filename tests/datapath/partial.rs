//! Resets sent by a real device, also for packets whose checksum is still to be filled in.

use balancer_ebpf::{abi::TCP, reason::Reason};
use harness::{
    NetNs, Segment,
    packet::{
        assert_same,
        flags::{ACK, SYN},
        verify_checksums,
    },
    tap::{Tap, ones_complement_sum},
};

use crate::world::{Hook, World};

/// The tap device's address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MAC_TEXT: &str = "02:00:00:00:00:02";

/// The frame with the pseudo-header's sum alone in its checksum, as a stack leaves it to a
/// device that can sum.
pub(crate) fn unfinished(segment: &Segment) -> Vec<u8> {
    let mut frame = segment.bytes();
    let (ip, tcp) = (segment.ip_at(), segment.tcp_at());
    let addresses = if segment.src.is_ipv4() { ip + 12..ip + 20 } else { ip + 8..ip + 40 };
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend([0, TCP]);
    pseudo.extend(u16::try_from(frame.len() - tcp).expect("short").to_be_bytes());
    frame[tcp + 16..tcp + 18].copy_from_slice(&ones_complement_sum(&pseudo).to_be_bytes());
    frame
}

#[test]
fn resets_have_right_checksums_whoever_is_to_fill_them_in() {
    let ends = [("10.0.0.1:40000", "240.0.0.1:80"), ("[fd00::1]:40000", "[fd62:616c::1]:80")];
    let Some(root) = harness::root_or_skip("datapath") else { return };
    for offload in [false, true] {
        let Some(mut world) = World::new() else { return };
        for (_, vip) in ends {
            world.service(vip, &[1]);
        }
        let netns = NetNs::new(root, "tap").expect("a namespace");
        let mut tap = netns.run(|| Tap::new("tap0", offload)).expect("a tap device");
        netns.sysctl("net/ipv6/conf/tap0/disable_ipv6", "1").expect("a sysctl");
        let address = format!("link set tap0 address {MAC_TEXT}");
        netns.ip(&[address, "link set tap0 up".to_owned()]).expect("the device comes up");
        netns.run(|| world.attach(&[Hook::Ingress], "tap0"));
        for (client, vip) in ends {
            for flags in [SYN, ACK] {
                for options in [0, 8] {
                    let mut sent = Segment::new(client, vip).flags(flags).payload(b"payload");
                    sent.macs[1] = MAC;
                    if sent.src.is_ipv4() {
                        sent.ip_options = vec![1; options];
                    }
                    for partial in [false, true] {
                        if partial {
                            tap.send(&unfinished(&sent), Some(sent.tcp_at())).expect("sent");
                        } else {
                            tap.send(&sent.bytes(), None).expect("sent");
                        }
                        let ours = |frame: &[u8]| frame.starts_with(&sent.macs[0]);
                        let answer = tap.receive(ours).expect("an answer");
                        let what = format!("offload {offload}, partial {partial}, {client}");
                        verify_checksums(&answer.frame).unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert_same(&what, &sent.answering_reset().bytes(), &answer.frame);
                        assert_eq!(answer.left, offload && partial, "{what}: who fills it in");
                    }
                }
            }
        }
        // 2 families × 2 flags × 2 lengths × 2 checksums.
        assert_eq!(world.counted(Reason::Blackhole), 16);
        netns.run(|| drop(world));
    }
}
