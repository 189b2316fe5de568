//! What is said about policies that do not do what their author may think.

use std::sync::Arc;

use super::world::{dataplane, route, set, settings};
use crate::{
    policy::{Dataplane, Diagnostic, Mesh, Severity, TrafficRoute},
    resolve::{ResolveSettings, resolve},
};

fn findings(dataplanes: Vec<Dataplane>, routes: Vec<TrafficRoute>) -> Vec<Diagnostic> {
    let resolved = resolve(&set(dataplanes, routes), &settings());
    resolved.diagnostics.into_iter().map(|(_, found)| found).collect()
}

fn redis(protocol: &str) -> Vec<Dataplane> {
    vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, &format!("service=redis{protocol}")),
        dataplane("redis-2", "10.0.0.22").inbound(6379, "service=redis,protocol=http"),
    ]
}

#[test]
fn world_in_order_has_no_findings() {
    let fine = route("fine").from("service=*").to("redis").split(1, "service=redis,version=*");
    assert_eq!(findings(redis(""), vec![fine]), []);
}

#[test]
fn http_section_on_an_http_service_gives_no_finding_of_its_own() {
    let http = route("http")
        .from("service=*")
        .to("redis")
        .http(true, "service=redis")
        .split(1, "service=redis");
    assert_eq!(findings(redis(",protocol=http"), vec![http]), []);
}

#[test]
fn http_section_on_an_l4_service_names_the_endpoint_to_blame() {
    let http = route("http")
        .from("service=*")
        .to("redis")
        .http(true, "service=redis")
        .split(1, "service=redis");
    let found = findings(redis(""), vec![http]);
    assert_eq!(found.len(), 1, "{found:?}");
    let of_protocol = found.iter().find(|found| found.message.contains("handled as tcp")).unwrap();
    assert_eq!(
        of_protocol.hint.as_deref(),
        Some("10.0.0.21:6379 has no tag kuma.io/protocol; every endpoint needs it")
    );
}

#[test]
fn unknown_service_in_a_split_asks_what_was_meant() {
    let split = route("typo").from("service=*").to("redis").split(1, "service=rediss");
    let found = findings(redis(""), vec![split]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].field, "conf.split[0].destination[\"kuma.io/service\"]");
    assert!(found[0].message.contains("no Dataplane of mesh default offers service `rediss`"));
    assert_eq!(found[0].hint.as_deref(), Some("did you mean redis"));
}

#[test]
fn a_destination_that_nobody_offers_asks_what_was_meant() {
    let dialled = |name: &str| {
        let route = route("typo").from("service=*").to(name).split(1, "service=*");
        let found = findings(redis(""), vec![route]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, "destinations[0].match[\"kuma.io/service\"]");
        found[0].hint.clone().expect("a hint")
    };
    assert_eq!(dialled("rediss"), "did you mean redis");
    let hint = dialled("payments");
    assert!(hint.starts_with("add a Dataplane with an inbound"), "{hint}");
}

#[test]
fn http_splits_that_lead_nowhere_are_told_as_the_outer_one_is() {
    let http = |to: &str| {
        let route = route("typo").from("service=*").to("redis").split(1, "service=redis");
        findings(redis(",protocol=http"), vec![route.http(true, to)])
    };
    assert_eq!(http("service=redis"), []);
    let found = http("service=rediss");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].field, "conf.http[0].destination[\"kuma.io/service\"]");
    assert!(found[0].message.ends_with("its share of the requests is answered with 500"));
    assert_eq!(found[0].hint.as_deref(), Some("did you mean redis"));
    let found = http("service=redis,version=v3");
    assert!(found[0].message.ends_with("its share of the requests is answered with 503"));
    assert_eq!(found[0].hint.as_deref(), Some("its endpoints have no tag version"));
}

#[test]
fn an_http_entry_that_stands_in_for_the_outer_split_is_told_once() {
    let always = route("typo").from("service=*").to("redis").http(false, "service=rediss");
    let found = findings(redis(",protocol=http"), vec![always]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.ends_with("its share of the connections is refused"));
}

#[test]
fn empty_subset_says_which_values_there_are() {
    let dataplanes = vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis,version=v1"),
        dataplane("redis-2", "10.0.0.22").inbound(6379, "service=redis,version=v2").not_ready(),
    ];
    let split = route("split")
        .from("service=*")
        .to("redis")
        .split(1, "service=redis,version=v2")
        .split(1, "service=redis,version=v3")
        .split(0, "service=redis,version=v4");
    let found = findings(dataplanes, vec![split]);
    assert_eq!(found.len(), 2, "a weight of 0 asks for nothing: {found:?}");
    assert!(found[0].message.contains("no ready endpoint with version=v2"), "{found:?}");
    assert!(found[1].message.contains("no endpoint with version=v3"), "{found:?}");
    assert_eq!(found[1].hint.as_deref(), Some("its endpoints have version=v1, version=v2"));
    assert_eq!(found[1].field, "conf.split[1].destination");
}

#[test]
fn names_as_addresses_are_neither_source_nor_endpoint() {
    let named = dataplane("web", "web.example.com").inbound(80, "service=web");
    let resolved = resolve(&set(vec![named], Vec::new()), &settings());
    assert!(resolved.sources.is_empty() && resolved.inventory.is_empty());
    assert_eq!(resolved.diagnostics, [], "the name is reported where it is read");
}

#[test]
fn inbound_on_loopback_is_reported() {
    let local = dataplane("web", "10.0.0.11").inbound(80, "service=web").at("127.0.0.1");
    let found = findings(vec![local], Vec::new());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].field, "networking.inbound[0]");
}

#[test]
fn second_declaration_with_other_tags_is_reported() {
    let twice = dataplane("web", "10.0.0.11")
        .inbound(80, "service=web")
        .outbound("10.9.9.9:80", "service=web,version=1")
        .outbound("10.9.9.9:80", "service=web,version=2");
    let found = findings(vec![twice], Vec::new());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].field, "networking.outbound[1]");
}

#[test]
fn unknown_mesh_is_reported_where_meshes_are_given() {
    let mut world = set(vec![dataplane("web", "10.0.0.11").inbound(80, "service=web")], Vec::new());
    assert_eq!(resolve(&world, &settings()).diagnostics, [], "no Mesh is given");
    let mut meta = world.dataplanes[0].meta.clone();
    meta.kind = "Mesh";
    meta.name = "defaults".to_owned();
    world.meshes.push_back(Arc::new(Mesh { meta, locality_aware: false }));
    let resolved = resolve(&world, &settings());
    let (_, found) = &resolved.diagnostics[0];
    assert_eq!(found.field, "mesh");
    assert_eq!(found.hint.as_deref(), Some("did you mean defaults"));
}

#[test]
fn full_range_is_an_error() {
    let tiny = ResolveSettings { vips4: ("240.0.0.0".parse().unwrap(), 32), ..settings() };
    let resolved = resolve(&set(redis(""), Vec::new()), &tiny);
    let (_, found) = &resolved.diagnostics[0];
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(found.hint.as_deref(), Some("configure a larger `vips.ipv4`"));
}

#[test]
fn a_wildcard_for_a_tag_that_nobody_has_selects_nobody_and_is_told() {
    let from = |selector: &str| route("r").from(selector).to("redis").split(1, "service=redis");
    let found = findings(redis(",zone=east"), vec![from("service=*,region=*")]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].field, "sources[0].match[\"region\"]");
    assert!(found[0].message.starts_with("no Dataplane of mesh default has the tag `region`"));
    assert_eq!(findings(redis(",zone=east"), vec![from("service=*,zone=*")]), []);
    let nobody_yet = findings(Vec::new(), vec![from("service=*,region=*")]);
    assert!(nobody_yet.iter().all(|found| !found.message.contains("region")), "{nobody_yet:?}");
}
