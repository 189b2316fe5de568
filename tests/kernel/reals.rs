//! Reals that leave the inventory, come back, or give their ids to others.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::{Flow4, FlowKey4, FlowState, PortUse, direction, port_bit};
use balancer_user::kernel::{Datapath, PublishOptions, Published};
use harness::root_or_skip;
use zerocopy::IntoBytes as _;

use super::{
    bed::{Bed, plain, small},
    world::{compiled, described, expected, real, resolved, service, vip},
};

fn publish(datapath: &mut Datapath, reals: &[u16], more: &[u16], delay: Duration) -> Published {
    let more: Vec<SocketAddr> = more.iter().map(|n| real(*n)).collect();
    let world = resolved(&[service(1, reals)], &more);
    let tables = compiled(datapath, &world);
    let options =
        PublishOptions { gone_reset: Some(delay), previous_for: Duration::ZERO, ..plain() };
    let published = datapath.publish(&tables, options).expect("publish");
    assert_eq!(described(datapath).expect("described"), expected(&world));
    published
}

/// Address → (id, generation, gone).
fn reals(datapath: &Datapath) -> BTreeMap<SocketAddr, (u32, u32, bool)> {
    let rows = datapath.reals().expect("reals");
    rows.iter().map(|r| (r.addr, (r.id, r.generation, r.gone_for.is_some()))).collect()
}

/// Enters a flow of real `id`, as a program would.
fn enter_flow(bed: &Bed, id: u32, generation: u32, to: SocketAddr) -> FlowKey4 {
    let key = FlowKey4 {
        src: [10, 0, 0, 1],
        dst: [240, 0, 0, 1],
        sport: 1234u16.to_be_bytes(),
        dport: vip(1).port().to_be_bytes(),
        proto: 6,
        direction: direction::FORWARD,
        zero: [0; 2],
    };
    let flow = Flow4 {
        flow: FlowState { real: id, generation, counter: 1, ..FlowState::default() },
        vip: [240, 0, 0, 1],
        vip_port: vip(1).port().to_be_bytes(),
        ..Flow4::default()
    };
    assert!(to.is_ipv4());
    let mut bytes = ([0; 16], [0; size_of::<Flow4>()]);
    bytes.0.copy_from_slice(key.as_bytes());
    bytes.1.copy_from_slice(flow.as_bytes());
    flows(bed).insert(bytes.0, bytes.1, 0).expect("insert");
    key
}

fn flows(bed: &Bed) -> HashMap<MapData, [u8; 16], [u8; size_of::<Flow4>()]> {
    let map = MapData::from_pin(bed.dir().join("maps/FLOWS4")).expect("FLOWS4");
    Map::LruHashMap(map).try_into().expect("hash")
}

fn port_is_set(bed: &Bed, port: u16, used: PortUse) -> bool {
    let map = MapData::from_pin(bed.dir().join("maps/PORTS")).expect("PORTS");
    let ports: aya::maps::Array<_, u64> = Map::Array(map).try_into().expect("array");
    let (word, bit) = port_bit(port, used);
    ports.get(&word, 0).expect("word") & bit != 0
}

#[test]
fn real_out_of_the_inventory_is_gone_and_one_out_of_the_policy_is_not() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let hour = Duration::from_secs(3600);
    publish(&mut datapath, &[1, 2, 3], &[], hour);
    let first = reals(&datapath);
    // 2 drains (still in the inventory), 3 is gone.
    publish(&mut datapath, &[1], &[2], hour);
    let gone = |d: &Datapath, n| reals(d)[&real(n)].2;
    assert_eq!([1, 2, 3].map(|n| gone(&datapath, n)), [false, false, true]);
    // Marked once: another publish writes nothing.
    let again = publish(&mut datapath, &[1], &[2], hour);
    assert_eq!(again.written.reals, 0);
    // Back in the inventory, not yet in the policy.
    publish(&mut datapath, &[1], &[2, 3], hour);
    assert!(!gone(&datapath, 3));
    // Gone again, then back in the policy at once.
    publish(&mut datapath, &[1], &[2], hour);
    assert!(gone(&datapath, 3));
    publish(&mut datapath, &[1, 3], &[2], hour);
    assert_eq!(reals(&datapath), first);
}

#[test]
fn gone_real_keeps_its_id_while_a_flow_uses_it_or_its_delay_lasts() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    publish(&mut datapath, &[1, 2], &[], Duration::ZERO);
    let (id, generation, _) = reals(&datapath)[&real(2)];
    let key = enter_flow(&bed, id, generation, real(2));
    // Gone; the delay lasts.
    publish(&mut datapath, &[1], &[], Duration::from_secs(3600));
    assert_eq!(datapath.flows().expect("flows").len(), 1);
    // The delay is over, the flow is there.
    publish(&mut datapath, &[1], &[], Duration::ZERO);
    assert!(reals(&datapath).contains_key(&real(2)));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(key.as_bytes());
    flows(&bed).remove(&bytes).expect("remove");
    publish(&mut datapath, &[1], &[], Duration::ZERO);
    assert!(!reals(&datapath).contains_key(&real(2)));
    // The id goes to another real, with a generation of its own.
    drop(datapath);
    let mut datapath = Datapath::open(&bed.lock()).expect("open");
    publish(&mut datapath, &[1, 7], &[], Duration::ZERO);
    let (new_id, new_generation, _) = reals(&datapath)[&real(7)];
    assert_eq!(new_id, id);
    assert!(new_generation > generation, "{new_generation} after {generation}");
}

#[test]
fn port_bit_stays_until_no_flow_uses_the_port() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    publish(&mut datapath, &[1], &[], Duration::ZERO);
    let (id, generation, _) = reals(&datapath)[&real(1)];
    let used =
        |bed: &Bed| (port_is_set(bed, 80, PortUse::Vip), port_is_set(bed, 8080, PortUse::Real));
    assert_eq!(used(&bed), (true, true));
    let key = enter_flow(&bed, id, generation, real(1));
    let nothing = |datapath: &mut Datapath| {
        let tables = compiled(datapath, &resolved(&[], &[]));
        datapath.publish(&tables, plain()).expect("publish");
    };
    // The VIP is gone, its established connection is not.
    nothing(&mut datapath);
    nothing(&mut datapath);
    assert_eq!(used(&bed), (true, true));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(key.as_bytes());
    flows(&bed).remove(&bytes).expect("remove");
    nothing(&mut datapath);
    assert_eq!(used(&bed), (false, false));
}
