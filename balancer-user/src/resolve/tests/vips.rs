//! Which addresses can be dialled.

use std::net::{IpAddr, Ipv4Addr};

use super::world::{dataplane, route, set, settings};
use crate::{
    policy::Severity,
    resolve::{
        AssignedVip, ResolveSettings, Resolved, VipAssignments, VipOrigin, VipOwner, port_in_name,
        resolve,
    },
};

fn addresses(resolved: &Resolved, service: &str) -> Vec<String> {
    resolved.vips_of(service).iter().map(|vip| vip.key.addr.to_string()).collect()
}

fn ports(resolved: &Resolved, service: &str) -> Vec<u16> {
    resolved.vips_of(service).iter().map(|vip| vip.key.addr.port()).collect()
}

fn errors(resolved: &Resolved) -> Vec<&str> {
    resolved
        .diagnostics
        .iter()
        .filter(|(_, found)| found.severity == Severity::Error)
        .map(|(_, found)| found.message.as_str())
        .collect()
}

#[test]
fn outbound_outside_of_loopback_is_the_vip() {
    let dataplanes = vec![
        dataplane("redis", "10.0.0.21").inbound(6379, "service=redis"),
        dataplane("web", "10.0.0.11")
            .inbound(80, "service=web")
            .outbound("10.9.9.9:16379", "service=redis"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    assert_eq!(addresses(&resolved, "redis"), ["10.9.9.9:16379"]);
    assert_eq!(resolved.vips_of("redis")[0].origin, VipOrigin::Outbound);
    assert_eq!(resolved.vips_of("web")[0].origin, VipOrigin::Allocated);
    assert!(!resolved.assigned.contains_key(&VipOwner::tags("default", "redis")));
}

#[test]
fn loopback_outbound_is_reported_and_a_vip_allocated() {
    let dataplanes = vec![
        dataplane("redis", "10.0.0.21").inbound(6379, "service=redis"),
        dataplane("web", "10.0.0.11")
            .inbound(80, "service=web")
            .outbound("127.0.0.1:16379", "service=redis,version=v1"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    let vip = &addresses(&resolved, "redis")[0];
    assert!(vip.starts_with("240.") && vip.ends_with(":6379"), "{vip}");
    let (meta, found) = &resolved.diagnostics[0];
    assert_eq!(meta.name, "web");
    assert_eq!(found.field, "networking.outbound[0]");
    assert!(found.span.is_some());
    assert!(found.message.contains("not carried out (needs the socket hook)"), "{}", found.message);
    assert!(found.message.contains(vip), "{}", found.message);
    assert!(found.message.contains("version=v1"), "{}", found.message);
}

#[test]
fn addresses_that_nobody_can_dial_are_refused() {
    for address in ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "[::]:80", "[ff02::1]:80"] {
        let web = dataplane("web", "10.0.0.11")
            .inbound(80, "service=web")
            .outbound(address, "service=web");
        let resolved = resolve(&set(vec![web], Vec::new()), &settings());
        assert_eq!(errors(&resolved).len(), 1, "{address}");
        assert_eq!(resolved.diagnostics[0].1.field, "networking.outbound[0].address");
        assert!(addresses(&resolved, "web").iter().all(|vip| vip != address));
    }
}

#[test]
fn mapped_addresses_are_their_ipv4_selves() {
    let web = dataplane("web", "::ffff:10.0.0.11")
        .inbound(80, "service=web")
        .outbound("[::ffff:10.9.9.9]:80", "service=web");
    let resolved = resolve(&set(vec![web], Vec::new()), &settings());
    assert_eq!(addresses(&resolved, "web"), ["10.9.9.9:80"]);
    assert_eq!(resolved.sources[0].address, "10.0.0.11".parse::<IpAddr>().unwrap());
    assert_eq!(resolved.route_from("10.0.0.11", "web").lines(), ["1 web ok 10.0.0.11:80"]);
}

#[test]
fn port_comes_from_the_name_then_inbounds_then_outbounds_then_backends() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1")
            .inbound(8080, "service=redis_shop_svc_6379")
            .inbound(8081, "service=redis.shop.svc:6380")
            .inbound(8082, "service=two")
            .inbound(8083, "service=two")
            .outbound("127.0.0.1:9999", "service=two")
            .outbound("127.0.0.1:9998", "service=gone"),
    ];
    let aside = route("aside").from("service=*").to("alias").split(1, "service=two");
    let nowhere = route("nowhere").from("service=*").to("nothing").split(1, "service=absent");
    let resolved = resolve(&set(dataplanes, vec![aside, nowhere]), &settings());
    assert_eq!(ports(&resolved, "redis_shop_svc_6379"), [6379]);
    assert_eq!(ports(&resolved, "redis.shop.svc:6380"), [6380]);
    assert_eq!(ports(&resolved, "two"), [8082, 8083]);
    assert_eq!(ports(&resolved, "gone"), [9998]);
    assert_eq!(ports(&resolved, "alias"), [8082, 8083]);
    assert!(ports(&resolved, "nothing").is_empty());
    let (_, found) = resolved
        .diagnostics
        .iter()
        .find(|(_, found)| found.message.contains("service `nothing` gets no VIP"))
        .unwrap();
    assert_eq!(found.field, "destinations[0].match[\"kuma.io/service\"]");
}

#[test]
fn port_in_a_name_is_a_port() {
    assert_eq!(port_in_name("redis_default_svc_6379"), Some(6379));
    assert_eq!(port_in_name("redis.default.svc:6379"), Some(6379));
    for name in ["redis", "redis_svc_", "redis_svc_0", "redis_svc_65536", "redis:+80", "a_svc_b"] {
        assert_eq!(port_in_name(name), None, "{name}");
    }
}

#[test]
fn service_without_endpoints_gets_the_family_of_its_backends() {
    let six = dataplane("six", "fd00::1").inbound(80, "service=six");
    let alias = route("alias").from("service=*").to("alias").split(1, "service=six");
    let resolved = resolve(&set(vec![six], vec![alias]), &settings());
    let vips = addresses(&resolved, "alias");
    assert_eq!(vips.len(), 1);
    assert!(vips[0].starts_with("[fd62:616c::"), "{vips:?}");
}

#[test]
fn assignments_stay_while_others_come_and_go() {
    let redis = dataplane("redis", "10.0.0.21").inbound(6379, "service=redis");
    let web = dataplane("web", "10.0.0.11").inbound(80, "service=web");
    let first = resolve(&set(vec![redis.clone(), web.clone()], Vec::new()), &settings());
    let before = addresses(&first, "redis");

    let kept = ResolveSettings { assigned: first.assigned.clone(), ..settings() };
    let without = resolve(&set(vec![web.clone()], Vec::new()), &kept);
    assert!(addresses(&without, "redis").is_empty());
    assert_eq!(without.assigned, first.assigned, "kept while its service is away");

    let elsewhere = AssignedVip { v4: Some(Ipv4Addr::new(240, 7, 7, 7)), v6: None };
    let mut assigned = VipAssignments::new();
    assigned.insert(VipOwner::tags("default", "redis"), elsewhere);
    let moved = ResolveSettings { assigned, ..settings() };
    let again = resolve(&set(vec![redis, web], Vec::new()), &moved);
    assert_eq!(addresses(&again, "redis"), ["240.7.7.7:6379"]);
    assert_ne!(before, ["240.7.7.7:6379"], "the assignment counts, not the hash");
}

#[test]
fn collisions_are_resolved_in_name_order_within_the_range() {
    // Six usable addresses, so some of six services collide.
    let settings = ResolveSettings { vips4: ("240.0.0.16".parse().unwrap(), 29), ..settings() };
    let dataplanes: Vec<_> = (1..=6)
        .map(|n| {
            dataplane(&format!("dp-{n}"), &format!("10.0.0.{n}"))
                .inbound(80, &format!("service=s{n}"))
        })
        .collect();
    let resolved = resolve(&set(dataplanes.clone(), Vec::new()), &settings);
    let mut last_octets: Vec<u8> = resolved
        .vips
        .iter()
        .map(|vip| match vip.key.addr.ip() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => panic!("{v6} is no IPv4 address"),
        })
        .collect();
    last_octets.sort_unstable();
    assert_eq!(last_octets, [17, 18, 19, 20, 21, 22], "never the network or broadcast address");

    let mut seven = dataplanes;
    seven.push(dataplane("dp-7", "10.0.0.7").inbound(80, "service=s7"));
    let full = resolve(&set(seven, Vec::new()), &settings);
    assert_eq!(
        errors(&full),
        ["no address is left in 240.0.0.16/29 for service `s7` of mesh default"]
    );
}

#[test]
fn allocation_avoids_addresses_that_others_have() {
    let redis = dataplane("redis", "10.0.0.21").inbound(6379, "service=redis");
    let plain = resolve(&set(vec![redis.clone()], Vec::new()), &settings());
    let hashed = plain.vips_of("redis")[0].key.addr.ip().to_string();
    let squatter = dataplane("web", "10.0.0.11")
        .inbound(80, "service=web")
        .outbound(&format!("{hashed}:1"), "service=web");
    let fresh = resolve(&set(vec![redis.clone(), squatter.clone()], Vec::new()), &settings());
    assert_ne!(fresh.vips_of("redis")[0].key.addr.ip().to_string(), hashed);

    let kept = ResolveSettings { assigned: plain.assigned, ..settings() };
    let moved = resolve(&set(vec![redis, squatter], Vec::new()), &kept);
    assert_ne!(moved.vips_of("redis")[0].key.addr.ip().to_string(), hashed);
    assert!(
        moved.messages().iter().any(|message| message.contains(&format!("moves from {hashed}"))),
        "{:?}",
        moved.messages()
    );
}

#[test]
fn vip_claimed_for_two_services_names_both_places() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1").inbound(80, "service=a").outbound("10.9.9.9:80", "service=a"),
        dataplane("b", "10.0.0.2").inbound(80, "service=b").outbound("10.9.9.9:80", "service=b"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    let errors = errors(&resolved);
    assert_eq!(errors.len(), 2, "one at each place: {errors:?}");
    assert!(
        errors[0].contains("service `a`") && errors[0].contains("Dataplane b (world.yaml:20:1)")
    );
    assert!(
        errors[1].contains("service `b`") && errors[1].contains("Dataplane a (world.yaml:20:1)")
    );
    assert!(resolved.diagnostics.iter().all(|(_, found)| found.related.is_some()));
}

#[test]
fn one_service_may_be_declared_by_many() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1").inbound(80, "service=a").outbound("10.9.9.9:80", "service=a"),
        dataplane("b", "10.0.0.2").inbound(80, "service=a").outbound("10.9.9.9:80", "service=a"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    assert!(resolved.diagnostics.is_empty(), "{:?}", resolved.messages());
    assert_eq!(addresses(&resolved, "a"), ["10.9.9.9:80"]);
}

#[test]
fn vip_that_is_a_real_is_refused() {
    let dataplanes = vec![
        dataplane("redis", "10.0.0.21").inbound(6379, "service=redis").not_ready(),
        dataplane("web", "10.0.0.11")
            .inbound(80, "service=web")
            .outbound("10.0.0.21:6379", "service=redis"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    let errors = errors(&resolved);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("inbound 0 of Dataplane redis is dialled at (world.yaml:10:1)"));
}
