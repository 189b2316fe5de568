//! Many services and many workloads cost their sum, not their product.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::world::{dataplane, route, set, settings};
use crate::{policy::PolicySet, resolve::resolve};

/// `services` services with one Dataplane each, every one of which declares two outbounds.
fn world(services: usize) -> PolicySet {
    let dataplanes = (0..services)
        .map(|n| {
            let (high, low) = (n / 250, n % 250 + 1);
            dataplane(&format!("dp-{n}"), &format!("10.{}.{}.{low}", high / 250, high % 250))
                .inbound(8080, &format!("service=s{n},version=v{},zone=z{}", n % 3, n % 5))
                .outbound("127.0.0.1:1001", &format!("service=s{}", (n + 1) % services))
        })
        .collect();
    let routes = vec![
        route("all").from("service=*").to("*").split(1, "service=*"),
        route("canary")
            .from("service=s1")
            .to("s2")
            .split(9, "service=s2,version=v2")
            .split(1, "service=s3"),
        route("east").from("zone=z1").to("s4").split(1, "service=s4"),
        route("versions").from("service=*,version=v2").to("s5").split(1, "service=s5,version=*"),
    ];
    set(dataplanes, routes)
}

fn time_to_resolve(services: usize) -> Duration {
    let (world, settings) = (world(services), settings());
    let start = cpu_time();
    let resolved = resolve(&world, &settings);
    let taken = cpu_time() - start;
    assert_eq!(resolved.vips.len(), services);
    assert_eq!(resolved.sources.len(), services);
    // By services s1, versions v2 and zones z1: fewer than their combinations.
    assert!(resolved.classes.len() <= 8, "{} classes", resolved.classes.len());
    taken
}

/// Of this thread: other work on the machine does not count.
fn cpu_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// Sixteen times the world takes nowhere near 256 times as long.
#[test]
fn cost_grows_with_the_sum_of_services_and_sources() {
    let small = (0..3).map(|_| time_to_resolve(500)).min().unwrap();
    let large = time_to_resolve(8_000);
    assert!(large < small * 100, "500 services: {small:?}; 8,000: {large:?}");
}
