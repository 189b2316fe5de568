//! Full maps: each is found before anything is written, and named with its setting.

use std::net::{IpAddr, SocketAddr};

use balancer_user::{
    compile::Limits, kernel::KernelError, policy::LoadBalancer, resolve::Resolved,
};
use harness::root_or_skip;

use super::{
    bed::{Bed, plain, small},
    world::{Service, compiled, described, expected, real, resolved, service},
};

fn refused(limits: Limits, world: &Resolved, map: &str, setting: &str) {
    let bed = Bed::new();
    let mut datapath = bed.create(&limits);
    let before = resolved(&[service(1, &[1])], &[]);
    let tables = compiled(&mut datapath, &before);
    datapath.publish(&tables, plain()).expect("fits");
    let tables = compiled(&mut datapath, world);
    let error = datapath.publish(&tables, plain()).expect_err("full");
    let KernelError::Full { map: full, setting: named, needed, capacity } = &error else {
        panic!("{error}")
    };
    assert_eq!((*full, *named), (map, setting), "{error}");
    assert!(needed > capacity, "{error}");
    assert!(error.to_string().contains(setting), "{error}");
    assert_eq!(datapath.epoch(), 1);
    assert_eq!(described(&datapath).expect("described"), expected(&before));
    // What fits is published still.
    let tables = compiled(&mut datapath, &resolved(&[service(1, &[2])], &[]));
    datapath.publish(&tables, plain()).expect("fits");
}

fn services(n: u16) -> Resolved {
    let services: Vec<Service> = (1..=n).map(|n| service(n, &[1])).collect();
    resolved(&services, &[])
}

#[test]
fn too_many_vips_name_limits_services() {
    let Some(_) = root_or_skip("kernel") else { return };
    refused(Limits { services: 8, ..small() }, &services(9), "VIPS", "limits.services");
}

#[test]
fn too_many_routes_name_limits_routes() {
    let Some(_) = root_or_skip("kernel") else { return };
    refused(Limits { routes: 8, ..small() }, &services(9), "ROUTES", "limits.routes");
}

#[test]
fn too_many_sources_name_limits_sources() {
    let Some(_) = root_or_skip("kernel") else { return };
    let many: Vec<Service> = (1..=9)
        .map(|n| {
            let client = IpAddr::from([10, 0, 0, n as u8]);
            Service { own: Some((client, vec![(1, vec![real(50 + n)])])), ..service(n, &[1]) }
        })
        .collect();
    let limits = Limits { sources: 8, ..small() };
    refused(limits, &resolved(&many, &[]), "SOURCES", "limits.sources");
}

#[test]
fn too_many_reals_name_limits_reals() {
    let Some(_) = root_or_skip("kernel") else { return };
    let reals: Vec<u16> = (1..=9).collect();
    let world = resolved(&[service(1, &reals)], &[]);
    refused(Limits { reals: 8, ..small() }, &world, "REALS", "limits.reals");
}

#[test]
fn too_many_counters_name_limits_counters() {
    let Some(_) = root_or_skip("kernel") else { return };
    let backends: Vec<(u32, Vec<SocketAddr>)> = (1..=9).map(|n| (1, vec![real(n)])).collect();
    let load_balancer = LoadBalancer::Maglev;
    let world = resolved(&[Service { backends, load_balancer, ..service(1, &[]) }], &[]);
    refused(Limits { counters: 8, ..small() }, &world, "COUNTERS", "limits.counters");
}

#[test]
fn too_many_slots_name_limits_arena_slots() {
    let Some(_) = root_or_skip("kernel") else { return };
    // 200 reals take 65,537 slots a table; one chunk holds 65,536.
    let reals: Vec<u16> = (1..=200).collect();
    let world = resolved(&[service(1, &reals)], &[]);
    refused(Limits { arena_slots: 65_536, ..small() }, &world, "ARENA", "limits.arena_slots");
}
