//! Which VIPs the programs look for sockets of the proxy for.

use balancer_ebpf::abi::route_flags;
use balancer_user::{
    compile::{Patch, Tables},
    kernel::{Datapath, PublishOptions},
};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{Service, compiled, real, resolved, service},
};

/// The VIPs with the flag, and the routes, by last number of their VIP's address.
fn proxied(datapath: &Datapath) -> (Vec<u8>, Vec<u8>) {
    let number = |addr: std::net::SocketAddr| match addr.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => panic!("there are none"),
    };
    let vips = datapath.view().vips().expect("read back");
    let routes = datapath.view().routes().expect("read back");
    let flagged = routes.iter().filter(|row| row.entry.flags & route_flags::PROXY != 0);
    let flagged: Vec<u32> = flagged.map(|row| row.id).collect();
    let own = datapath.view().class_routes().expect("read back");
    let of = |vip: &u32, route: &u32| {
        flagged.contains(route)
            || own.iter().any(|row| row.vip == *vip && flagged.contains(&row.route))
    };
    let by_routes = vips.iter().filter(|vip| of(&vip.id, &vip.route));
    (
        vips.iter().filter(|vip| vip.proxied).map(|vip| number(vip.key.addr)).collect(),
        by_routes.map(|vip| number(vip.key.addr)).collect(),
    )
}

/// Has the proxy take the connections of these routes.
fn with_proxy(mut tables: Tables, routes: &[u32]) -> Tables {
    for (id, spec) in &mut tables.routes {
        spec.flags = if routes.contains(id) { route_flags::PROXY } else { 0 };
    }
    tables
}

#[test]
fn a_vip_stays_proxied_for_as_long_as_it_is_there() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let client = "10.0.0.9".parse().expect("an address");
    let services = [
        service(1, &[1]),
        service(2, &[2]),
        Service { own: Some((client, vec![(1, vec![real(3)])])), ..service(3, &[4]) },
    ];
    let all = resolved(&services, &[]);
    let tables = with_proxy(compiled(&mut datapath, &all), &[]);
    datapath.publish(&tables, plain()).expect("publish");
    assert_eq!(proxied(&datapath), (vec![], vec![]));
    let first = tables.vips.values().next().expect("three").route;
    let own = *tables.class_routes.values().next().expect("a class's own route");

    // A whole set: a default route, then a class's own.
    let publish = |datapath: &mut Datapath, routes: &[u32]| {
        datapath.publish(&with_proxy(tables.clone(), routes), plain()).expect("publish");
        proxied(datapath)
    };
    assert_eq!(publish(&mut datapath, &[first]), (vec![1], vec![1]));
    assert_eq!(publish(&mut datapath, &[own]), (vec![1, 3], vec![3]));
    assert_eq!(publish(&mut datapath, &[]), (vec![1, 3], vec![]));

    // A small change.
    let second = tables.vips.values().nth(1).expect("three").route;
    for (routes, expected) in [(vec![second], vec![2]), (vec![], vec![])] {
        let patch = Patch { routes: vec![second], ..Patch::default() };
        let options = PublishOptions { interfaces_as_before: true, ..plain() };
        let tables = with_proxy(tables.clone(), &routes);
        datapath.publish_patch(&tables, &patch, options).expect("publish");
        assert_eq!(proxied(&datapath), (vec![1, 2, 3], expected));
    }

    // Another process reads what is there; what comes back has had no connection.
    drop(datapath);
    let mut datapath = Datapath::open(&bed.lock()).expect("pinned");
    for (here, expected) in [(&services[1..], vec![2, 3]), (&services[..], vec![2, 3])] {
        let tables = with_proxy(compiled(&mut datapath, &resolved(here, &[])), &[]);
        datapath.publish(&tables, plain()).expect("publish");
        assert_eq!(proxied(&datapath), (expected, vec![]));
    }
}

#[test]
fn what_holds_without_a_proxy_is_told_with_each_publish() {
    let Some(_) = root_or_skip("kernel") else { return };
    let bed = Bed::new();
    let mut datapath = bed.create(&small());
    let tables = compiled(&mut datapath, &resolved(&[service(1, &[1])], &[]));
    for reset in [true, false] {
        datapath.publish(&tables, PublishOptions { l7_reset: reset, ..plain() }).expect("publish");
        let rows = datapath.view().array("SETTINGS", 0..1).expect("read back");
        let [balancer_user::kernel::Element::Settings(settings)] = rows[..] else {
            panic!("{rows:?}")
        };
        assert_eq!(settings.l7_reset, u32::from(reset));
        assert_eq!((settings.shards, datapath.view().delivery()), (0, None));
    }
}
