//! Live connections, counted anew from the entries of the flow maps.

use std::net::SocketAddr;

use aya::maps::{Array, HashMap, Map, MapData};
use balancer_ebpf::abi::{
    Flow4, FlowKey4, FlowState, Settings, TCP, UDP, direction,
    flow_state::{CLIENT_FIN, ESTABLISHED, REAL_FIN, RESET, SYN_ACK},
};
use balancer_user::kernel::{Datapath, Recount};
use harness::root_or_skip;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    bed::{Bed, plain, small},
    world::{compiled, real, resolved, service},
};

const LIVE: u8 = SYN_ACK | ESTABLISHED;

fn flows(bed: &Bed, name: &str) -> HashMap<MapData, [u8; 16], [u8; size_of::<Flow4>()]> {
    let map = MapData::from_pin(bed.dir().join("maps").join(name)).expect("a map of flows");
    Map::LruHashMap(map).try_into().expect("a hash map")
}

/// Enters the way there of a flow, as a program would.
fn enter(bed: &Bed, map: &str, real: u32, port: u16, proto: u8, flow: FlowState) -> [u8; 16] {
    let key = FlowKey4 {
        src: [10, 0, 0, 1],
        dst: [240, 0, 0, 1],
        sport: port.to_be_bytes(),
        dport: [0, 80],
        proto,
        direction: direction::FORWARD,
        zero: [0; 2],
    };
    let flow = Flow4 { flow: FlowState { real, ..flow }, vip: [240, 0, 0, 1], ..Flow4::default() };
    let mut bytes = ([0; 16], [0; size_of::<Flow4>()]);
    bytes.0.copy_from_slice(key.as_bytes());
    bytes.1.copy_from_slice(flow.as_bytes());
    flows(bed, map).insert(bytes.0, bytes.1, 0).expect("room");
    bytes.0
}

fn in_state(state: u8) -> FlowState {
    FlowState { state, ..FlowState::default() }
}

fn active(datapath: &Datapath, addr: SocketAddr) -> u64 {
    let rows = datapath.reals().expect("reals");
    rows.iter().find(|row| row.addr == addr).expect("the real").active
}

fn loaded(bed: &Bed) -> (Datapath, [u32; 2]) {
    let mut datapath = bed.create(&small());
    let tables = compiled(&mut datapath, &resolved(&[service(1, &[1, 2])], &[]));
    datapath.publish(&tables, plain()).expect("publish");
    let rows = datapath.reals().expect("reals");
    let id = |n| rows.iter().find(|row| row.addr == real(n)).expect("the real").id;
    let ids = [id(1), id(2)];
    (datapath, ids)
}

#[test]
fn evicted_connections_are_counted_no_longer_and_lost_counts_come_back() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let (mut datapath, [first, second]) = loaded(&bed);
    let keys: Vec<_> = (0..50)
        .map(|port| enter(&bed, "FLOWS4", first, 1000 + port, TCP, in_state(LIVE)))
        .collect();
    enter(&bed, "FLOWS4", second, 2000, TCP, in_state(LIVE));
    let recount = datapath.recount().expect("recount");
    assert_eq!(recount, Recount { entries: 51, reals: 2 });
    assert_eq!((active(&datapath, real(1)), active(&datapath, real(2))), (50, 1));
    assert_eq!(datapath.recount().expect("recount").reals, 0, "nothing is wrong any more");
    // Evicted: gone without a word.
    for key in &keys[10..] {
        flows(&bed, "FLOWS4").remove(key).expect("it was there");
    }
    assert_eq!(datapath.recount().expect("recount").reals, 1);
    assert_eq!((active(&datapath, real(1)), active(&datapath, real(2))), (10, 1));
    for key in &keys[..10] {
        flows(&bed, "FLOWS4").remove(key).expect("it was there");
    }
    datapath.recount().expect("recount");
    assert_eq!(active(&datapath, real(1)), 0);
}

#[test]
fn only_established_connections_that_are_not_over_are_live() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let (mut datapath, [first, _]) = loaded(&bed);
    let states = [SYN_ACK, LIVE | RESET, LIVE | CLIENT_FIN | REAL_FIN];
    for (port, state) in (0..).zip(states) {
        enter(&bed, "FLOWS4", first, 1000 + port, TCP, in_state(state));
    }
    enter(&bed, "HALF_OPEN4", first, 1100, TCP, in_state(LIVE));
    datapath.recount().expect("recount");
    assert_eq!(active(&datapath, real(1)), 0);
    enter(&bed, "FLOWS4", first, 1200, TCP, in_state(LIVE | CLIENT_FIN));
    datapath.recount().expect("recount");
    assert_eq!(active(&datapath, real(1)), 1, "the real has not closed yet");
}

#[test]
fn silent_flows_of_udp_are_not_live() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let (mut datapath, [first, _]) = loaded(&bed);
    let map = MapData::from_pin(bed.dir().join("maps/SETTINGS")).expect("SETTINGS");
    let settings: Array<_, [u8; size_of::<Settings>()]> =
        Map::Array(map).try_into().expect("an array");
    let settings = settings.get(&0, 0).expect("the element");
    let settings = Settings::read_from_bytes(&settings).expect("settings");
    // Jiffies a second, and those at which the maps were made.
    let (hz, base) = (settings.hz, settings.base_jiffies);
    let seen =
        |seconds: u32| FlowState { last_seen: base.wrapping_sub(seconds * hz), ..in_state(LIVE) };
    enter(&bed, "FLOWS4", first, 1000, UDP, seen(0));
    enter(&bed, "FLOWS4", first, 1001, UDP, seen(3600));
    enter(&bed, "FLOWS4", first, 1002, TCP, seen(3600));
    datapath.recount().expect("recount");
    assert_eq!(active(&datapath, real(1)), 2, "silence ends no connection of TCP");
}
