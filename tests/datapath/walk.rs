//! The walk of ordinary packets, both ways and in both families.

use balancer_ebpf::reason::Reason;
use harness::{
    Segment,
    packet::flags::{ACK, SYN},
};

use crate::world::{Hook, World};

#[test]
fn handshake_goes_to_one_real_and_its_replies_come_from_the_vip() {
    let Some(mut world) = World::new() else { return };
    world.real(2, "10.0.1.1:8080", 1);
    world.service("240.0.0.1:80", &[2]);
    let syn = Segment::new("10.0.0.1:40000", "240.0.0.1:80").flags(SYN);
    world.expect(Hook::Ingress, &syn, Reason::NewFlow, &syn.clone().to("10.0.1.1:8080"));
    let back = Segment::new("10.0.1.1:8080", "10.0.0.1:40000").flags(SYN | ACK);
    world.expect(Hook::Egress, &back, Reason::Reply, &back.clone().from("240.0.0.1:80"));
    let ack = Segment::new("10.0.0.1:40000", "240.0.0.1:80").flags(ACK).payload(b"hello");
    world.expect(Hook::Ingress, &ack, Reason::Established, &ack.clone().to("10.0.1.1:8080"));
}
