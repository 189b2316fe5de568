//! What the examples in `policies/` lead to.

use std::path::Path;

use super::world::settings;
use crate::{
    policy::{ReadOptions, gather, read},
    resolve::{ResolveSettings, Resolved, resolve},
};

const WEB: &str = "10.72.1.10";
const BATCH: &str = "10.72.1.20";

/// An example for MeshTCPRoutes, in its world.
fn example(name: &str) -> Resolved {
    in_world("worlds/redis", &format!("mesh-tcp-route/{name}.yaml"))
}

fn in_world(world: &str, file: &str) -> Resolved {
    of(&[world, file])
}

fn of(paths: &[&str]) -> Resolved {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let paths: Vec<_> = paths.iter().map(|path| policies.join(path)).collect();
    let texts = gather(&paths).expect("the example can be read");
    let reading = read(texts, &ReadOptions { deny_unknown: true, ..ReadOptions::default() });
    assert!(reading.report.valid(), "{:#?}", reading.report);
    resolve(&reading.set, &settings())
}

fn lines(resolved: &Resolved, from: &str) -> Vec<String> {
    resolved.route_from(from, "redis").lines()
}

#[test]
fn split_by_subset_is_for_web_alone() {
    let resolved = example("split-by-subset");
    assert_eq!(
        lines(&resolved, WEB),
        [
            "90 redis,version=1.0 ok 10.72.2.10:6379 10.72.2.11:6379",
            "10 redis,version=2.0 ok 10.72.2.20:6379"
        ]
    );
    assert_eq!(resolved.policy_from(BATCH, "redis"), None);
    assert!(resolved.messages().is_empty(), "{:?}", resolved.messages());
}

#[test]
fn split_by_mesh_service_names_ports_of_objects() {
    let resolved = example("split-by-mesh-service");
    for from in [WEB, BATCH, "192.0.2.1"] {
        assert_eq!(
            lines(&resolved, from),
            [
                "3 redis-v1:6379 ok 10.72.2.10:6379 10.72.2.11:6379",
                "1 redis-v2:6379 ok 10.72.2.20:6379"
            ]
        );
    }
    assert!(resolved.messages().is_empty(), "{:?}", resolved.messages());
}

#[test]
fn redirect_leads_to_another_service() {
    let resolved = example("redirect");
    assert_eq!(lines(&resolved, BATCH), ["1 redis-standby ok 10.72.3.10:6379"]);
    assert_eq!(resolved.policy_from(WEB, "redis"), None);
    assert!(resolved.messages().is_empty(), "{:?}", resolved.messages());
}

#[test]
fn beside_a_traffic_route_each_decides_for_its_own() {
    let resolved = example("beside-traffic-route");
    let kind = |service: &str| resolved.route_from(WEB, service).policy.clone().unwrap().kind;
    assert_eq!(
        lines(&resolved, WEB),
        [
            "1 redis,version=1.0 ok 10.72.2.10:6379 10.72.2.11:6379",
            "0 redis,version=2.0 drained 10.72.2.20:6379"
        ]
    );
    assert_eq!(
        (kind("redis"), kind("redis-standby")),
        ("MeshTCPRoute".to_owned(), "TrafficRoute".to_owned())
    );
    assert_eq!(
        resolved.messages(),
        ["TrafficRoute everything-by-hash has no effect on connections to `redis`, because of \
          MeshTCPRoute only-version-1"]
    );
}

/// An example that brings its own world, or is read in that of `redis`.
fn resolved(paths: &[&str], zone: Option<&str>) -> Resolved {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let paths: Vec<_> = paths.iter().map(|path| policies.join(path)).collect();
    let texts = gather(&paths).expect("the example can be read");
    let reading = read(texts, &ReadOptions { deny_unknown: true, ..ReadOptions::default() });
    assert!(reading.report.valid(), "{:#?}", reading.report);
    let zone = zone.map(str::to_owned);
    let resolved = resolve(&reading.set, &ResolveSettings { zone, ..settings() });
    assert!(resolved.messages().is_empty(), "{:?}", resolved.messages());
    resolved
}

#[test]
fn split_by_mesh_service_is_for_web_alone() {
    let resolved = resolved(&["mesh-service/split.yaml"], None);
    assert_eq!(
        resolved.route_from("10.40.0.11", "orders:5432").lines(),
        ["4 orders:5432 ok 10.40.0.21:15432", "1 orders-next:5432 ok 10.40.0.22:15432"]
    );
    let other = resolved.route_from("10.40.0.21", "orders:5432");
    assert_eq!(other.lines(), ["1 orders:5432 ok 10.40.0.21:15432"]);
}

#[test]
fn service_of_two_zones_prefers_the_node_s_own() {
    let carts = |zone| {
        let resolved = resolved(&["mesh-multi-zone-service/zones.yaml"], zone);
        resolved.route_from("10.41.0.11", "carts:80").lines()
    };
    assert_eq!(carts(None), ["1 carts:80 ok 10.41.0.21:8080 10.41.0.22:8080"]);
    assert_eq!(carts(Some("west")), ["1 carts:80 ok 10.41.0.22:8080"]);
}

#[test]
fn redirection_leads_out_of_the_mesh() {
    let resolved = resolved(&["mesh-external-service/redirect.yaml"], None);
    let mail = |from| resolved.route_from(from, "mail").lines();
    assert_eq!(mail("10.42.0.11"), ["1 relay:25 ok 192.0.2.25:25"]);
    assert_eq!(mail("10.42.0.21"), ["1 mail ok 10.42.0.21:25"]);
}

#[test]
fn share_of_an_external_service_is_dialled_outside() {
    let resolved = resolved(&["worlds/redis", "external-service/split.yaml"], None);
    let lines = lines(&resolved, WEB);
    assert_eq!(lines[1], "1 redis-hosted,plan=small ok 192.0.2.80:6380");
}

#[test]
fn connections_follow_a_rule_for_every_request_and_go_on_as_before_without_one() {
    const WEB: &str = "10.73.1.10";
    const OF_V1: &str = "backend,version=v1 ok 10.73.2.10:8080 10.73.2.11:8080";
    let routed = |file: &str| {
        let resolved = in_world("worlds/backend", file);
        let route = resolved.route_from(WEB, "backend");
        (route.policy.as_ref().map(|policy| policy.kind.clone()), route.lines())
    };
    let direct = routed("worlds/backend/mesh.yaml");
    assert_eq!(direct.0, None);
    for file in [
        "mesh-http-route/api-split.yaml",
        "mesh-http-route/modify.yaml",
        "mesh-http-route/redirect.yaml",
        "mesh-load-balancing-strategy/sticky.yaml",
    ] {
        assert_eq!(routed(file), direct, "{file}");
    }
    // A rule takes every request: connections follow it.
    for file in ["canary-by-header", "beside-mesh-tcp-route"] {
        let (kind, lines) = routed(&format!("mesh-http-route/{file}.yaml"));
        assert_eq!(kind.as_deref(), Some("MeshHTTPRoute"), "{file}");
        assert_eq!(lines, [format!("1 {OF_V1}")], "{file}");
    }
    for file in ["traffic-route/http-api-split.yaml", "traffic-route/http-canary.yaml"] {
        let (kind, lines) = routed(file);
        assert_eq!(kind.as_deref(), Some("TrafficRoute"), "{file}");
        assert_eq!(lines, [format!("1 {OF_V1}")], "{file}");
    }
}

#[test]
fn echo_is_split_by_connection_where_requests_are_not_told_apart() {
    let resolved = of(&["gateway-api/echo.yaml"]);
    let route = resolved.route_from("192.0.2.77", "front.demo/web");
    assert_eq!(
        route.lines(),
        ["50 echo-v1.demo:80 ok 10.244.9.9:1027", "50 echo-v2.demo:80 ok 10.244.10.9:1027"]
    );
    assert_eq!(route.http.as_ref().unwrap().rules.rules[0].split.sum(), 100);
    assert_eq!(resolved.messages(), [""; 0]);
}
