//! Who shares routes with whom.

use super::world::{dataplane, route, set, settings, tags};
use crate::{
    policy::Dataplane,
    resolve::{Decision, resolve},
};

fn world_of(names: &[(&str, &str, &str)]) -> Vec<Dataplane> {
    let mut dataplanes: Vec<Dataplane> =
        names.iter().map(|(name, address, of)| dataplane(name, address).inbound(80, of)).collect();
    dataplanes.push(dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis,version=1.0"));
    dataplanes.push(dataplane("redis-2", "10.0.0.22").inbound(6379, "service=redis,version=2.0"));
    dataplanes
}

#[test]
fn sources_with_equal_routes_share_a_class() {
    let dataplanes = world_of(&[
        ("web-1", "10.0.0.11", "service=web,version=a"),
        ("web-2", "10.0.0.12", "service=web,version=b"),
        ("batch", "10.0.0.13", "service=batch"),
        ("other", "10.0.0.14", "service=other"),
    ]);
    let of_web = route("web").from("service=web").to("redis").split(1, "service=redis,version=1.0");
    let of_batch =
        route("batch").from("service=batch").to("redis").split(1, "service=redis,version=2.0");
    let resolved = resolve(&set(dataplanes, vec![of_web, of_batch]), &settings());
    let class = |address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        resolved.sources.iter().find(|source| source.address == address).unwrap().class
    };
    assert_eq!(class("10.0.0.11"), class("10.0.0.12"));
    assert_ne!(class("10.0.0.11"), class("10.0.0.13"));
    assert_eq!(class("10.0.0.14"), 0, "routed like an unknown address");
    assert_eq!(resolved.classes.len(), 3);
    assert!(resolved.classes[0].sources.is_empty());
    let listed: Vec<String> = resolved.classes[1].sources.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["10.0.0.11", "10.0.0.12"], "classes are in the order of their sources");
    assert_eq!(resolved.policy_from("10.0.0.13", "redis"), Some("batch"));
}

#[test]
fn selectors_of_one_policy_put_their_services_into_one_class() {
    let dataplanes = world_of(&[("a", "10.0.0.11", "service=a"), ("b", "10.0.0.12", "service=b")]);
    let either =
        route("either").from("service=a").from("service=b").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![either]), &settings());
    assert_eq!(resolved.classes.len(), 2);
}

#[test]
fn unknown_source_matches_wildcards_and_its_own_name() {
    let dataplanes = world_of(&[("web", "10.0.0.11", "service=web")]);
    let any = route("any").from("service=*").to("redis").split(1, "service=redis,version=1.0");
    let unknown = route("strangers")
        .from("service=unknown")
        .to("redis")
        .split(1, "service=redis,version=2.0");
    let resolved = resolve(&set(dataplanes.clone(), vec![any.clone()]), &settings());
    assert_eq!(resolved.policy_from("192.0.2.1", "redis"), Some("any"));
    let resolved = resolve(&set(dataplanes, vec![any, unknown]), &settings());
    assert_eq!(resolved.policy_from("192.0.2.1", "redis"), Some("strangers"));
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("any"));
}

#[test]
fn tags_of_two_inbounds_are_never_combined() {
    let mut dataplanes = world_of(&[]);
    dataplanes.push(
        dataplane("both", "10.0.0.11")
            .inbound(80, "service=web,version=a")
            .inbound(81, "service=admin,region=eu"),
    );
    let mixed = route("mixed")
        .from("version=a,region=eu")
        .to("redis")
        .split(1, "service=redis,version=1.0");
    let one = route("one").from("service=admin,region=eu").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes.clone(), vec![mixed]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), None);
    let resolved = resolve(&set(dataplanes, vec![one]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("one"));
}

#[test]
fn gateway_tags_make_a_source() {
    let mut gateway = dataplane("edge", "10.0.0.11");
    gateway.gateway = Some(tags("service=edge"));
    let mut dataplanes = world_of(&[]);
    dataplanes.push(gateway);
    let edge = route("edge").from("service=edge").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![edge]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("edge"));
    assert!(resolved.vips_of("edge").is_empty(), "a gateway is no endpoint");
}

#[test]
fn two_dataplanes_with_one_address_are_one_workload() {
    let dataplanes = world_of(&[
        ("web", "10.0.0.11", "service=web"),
        ("sidekick", "10.0.0.11", "service=sidekick"),
    ]);
    let of_web = route("of-web").from("service=web").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![of_web]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("of-web"));
    let source =
        resolved.sources.iter().find(|source| source.address.to_string() == "10.0.0.11").unwrap();
    let names: Vec<&str> = source.dataplanes.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["sidekick", "web"]);
}

#[test]
fn every_address_of_a_dataplane_is_a_source() {
    let mut dataplanes = world_of(&[]);
    dataplanes.push(
        dataplane("web", "10.0.0.11")
            .inbound(80, "service=web")
            .at("fd00::11")
            .advertised("203.0.113.9"),
    );
    let of_web = route("of-web").from("service=web").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![of_web]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("of-web"));
    assert_eq!(resolved.policy_from("fd00::11", "redis"), Some("of-web"));
    assert_eq!(resolved.policy_from("203.0.113.9", "redis"), None);
}

#[test]
fn source_is_unknown_to_the_vips_of_other_meshes() {
    let mut dataplanes = world_of(&[("web", "10.0.0.11", "service=web")]);
    dataplanes.push(dataplane("db", "10.0.0.31").inbound(5432, "service=db").mesh("prod"));
    let named = route("named").from("service=web").to("db").split(1, "service=db").in_mesh("prod");
    let any = route("any").from("service=*").to("db").split(1, "service=db").in_mesh("prod");
    let resolved = resolve(&set(dataplanes.clone(), vec![named, any]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "db"), Some("any"));
    // The same address in the other mesh too: there it is somebody.
    dataplanes.push(dataplane("web", "10.0.0.11").inbound(80, "service=web").mesh("prod"));
    let named = route("named").from("service=web").to("db").split(1, "service=db").in_mesh("prod");
    let here = route("here").from("service=web").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![named, here]), &settings());
    assert_eq!(resolved.policy_from("10.0.0.11", "db"), Some("named"));
    assert_eq!(resolved.policy_from("10.0.0.11", "redis"), Some("here"));
}

#[test]
fn policies_of_another_mesh_do_not_count() {
    let dataplanes = world_of(&[("web", "10.0.0.11", "service=web")]);
    let elsewhere =
        route("elsewhere").from("service=*").to("*").split(1, "service=*").in_mesh("prod");
    let resolved = resolve(&set(dataplanes, vec![elsewhere]), &settings());
    assert_eq!(resolved.route_from("10.0.0.11", "redis").decision, Decision::Direct);
}

#[test]
fn own_outbound_tags_make_a_class_of_their_own() {
    let mut dataplanes = world_of(&[("plain", "10.0.0.11", "service=web")]);
    for (name, address) in [("tagged-1", "10.0.0.12"), ("tagged-2", "10.0.0.13")] {
        dataplanes.push(
            dataplane(name, address)
                .inbound(80, "service=web")
                .outbound("10.9.9.9:6379", "service=redis,version=2.0"),
        );
    }
    let all = route("all").from("service=*").to("*").split(1, "service=*");
    let resolved = resolve(&set(dataplanes, vec![all]), &settings());
    assert_eq!(resolved.classes.len(), 2);
    assert_eq!(resolved.classes[1].sources.len(), 2);
    assert_eq!(
        resolved.route_from("10.0.0.12", "redis").lines(),
        ["1 redis,version=2.0 ok 10.0.0.22:6379"]
    );
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379"]
    );
}
