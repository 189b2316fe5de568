//! What the examples in `policies/` lead to.

use std::path::Path;

use super::world::settings;
use crate::{
    policy::{ReadOptions, gather, read},
    resolve::{Resolved, resolve},
};

const WEB: &str = "10.72.1.10";
const BATCH: &str = "10.72.1.20";

/// An example for MeshTCPRoutes, in its world.
fn example(name: &str) -> Resolved {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let file = policies.join("mesh-tcp-route").join(format!("{name}.yaml"));
    let texts = gather(&[policies.join("worlds/redis"), file]).expect("the example can be read");
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
        ["has no effect on connections to `redis`, because of MeshTCPRoute only-version-1"]
    );
}
