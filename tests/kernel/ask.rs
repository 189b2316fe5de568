//! Asking the loaded program agrees with the tables.

use std::net::SocketAddr;

use balancer_ebpf::{
    abi::{FlowKey4, direction},
    hash,
    reason::Reason,
};
use balancer_user::{kernel::Tuple, resolve::VipProtocol};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{compiled, described, resolved, service, vip},
};

#[test]
fn loaded_program_picks_the_real_that_the_table_says_and_records_nothing() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let tables = compiled(&mut datapath, &resolved(&[service(1, &[1, 2, 3])], &[]));
    datapath.publish(&tables, plain()).expect("publish");
    let slots = described(&datapath).expect("described").remove(&(None, vip(1))).expect("VIP");
    for port in 2000..2050u16 {
        let src = SocketAddr::from(([10, 0, 0, 7], port));
        let answer =
            datapath.ask(&Tuple { src, dst: vip(1), protocol: VipProtocol::Tcp }).expect("answer");
        let key = FlowKey4 {
            src: [10, 0, 0, 7],
            dst: [240, 0, 0, 1],
            sport: port.to_be_bytes(),
            dport: vip(1).port().to_be_bytes(),
            proto: 6,
            direction: direction::FORWARD,
            zero: [0; 2],
        };
        let slot = hash::slot(hash::flow4(&key, false), slots.len() as u32);
        assert_eq!(answer.reason, Reason::NewFlow);
        assert_eq!(Some(answer.destination), slots[slot as usize]);
        assert_eq!(answer.source, src);
    }
    let other = Tuple {
        src: vip(9),
        dst: SocketAddr::from(([10, 9, 9, 9], 99)),
        protocol: VipProtocol::Tcp,
    };
    let answer = datapath.ask(&other).expect("answer");
    assert_eq!((answer.reason, answer.destination), (Reason::NonVip, other.dst));
    assert!(datapath.flows().expect("flows").is_empty());
    assert!(datapath.reasons().expect("reasons").iter().all(|(_, n)| *n == 0));
}
