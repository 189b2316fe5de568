//! Gateways, TCPRoutes and Services that contradict each other, or name what is not there.

use std::{path::Path, process::Stdio};

use crate::{
    bad_input::{check, files},
    run::{Ended, balancer_in},
};

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: redis, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp, port: 6379}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: redis-1, namespace: shop, labels: {kubernetes.io/service-name: redis}}
addressType: IPv4
ports: [{name: tcp, port: 6379}]
endpoints: [{addresses: [10.0.0.1]}]
";

fn gateway(name: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  gatewayClassName: node\n  addresses: [{{value: 192.0.2.10}}]\n  listeners:\n{listeners}"
    )
}

const REDIS: &str = "  - {name: redis, port: 6379, protocol: TCP}\n";

fn route(parent: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec:\n  parentRefs:\n  - {parent}\n  rules:\n  - backendRefs:\n    - {backend}\n"
    )
}

const TO_REDIS: &str = "{name: redis, port: 6379}";

/// Checks a route beside the Services and a Gateway `edge`.
fn checked(parent: &str, backend: &str) -> Ended {
    let dir = files(&[
        ("services.yaml", SERVICES),
        ("edge.yaml", &gateway("edge", REDIS)),
        ("route.yaml", &route(parent, backend)),
    ]);
    check(dir.path(), &["-f", "."])
}

#[test]
fn listener_given_twice_is_refused_with_both_places() {
    for (listeners, what) in [
        (
            format!("{REDIS}  - {{name: redis, port: 7000, protocol: TCP}}\n"),
            "listeners named `redis`",
        ),
        (
            format!("{REDIS}  - {{name: other, port: 6379, protocol: TCP}}\n"),
            "listeners with port 6379",
        ),
    ] {
        let dir = files(&[("edge.yaml", &gateway("edge", &listeners))]);
        check(dir.path(), &["-f", "."]).exits(1).prints(&[
            "error",
            "edge.yaml:9:5",
            "edge.yaml:8:5",
            what,
        ]);
    }
}

#[test]
fn two_gateways_of_one_address_and_port_are_both_refused() {
    let dir = files(&[("a.yaml", &gateway("a", REDIS)), ("b.yaml", &gateway("b", REDIS))]);
    let ended = check(dir.path(), &["-f", "."]).exits(1).prints(&[
        "VIP 192.0.2.10:6379 is claimed for listener `a.shop/redis` here, and for listener \
         `b.shop/redis` at ./b.yaml:8:5",
        "VIP 192.0.2.10:6379 is claimed for listener `b.shop/redis` here, and for listener \
         `a.shop/redis` at ./a.yaml:8:5",
        "give one of them another address or port",
    ]);
    ended.says(&["2 resources in 2 files: 2 errors, 2 warnings"]);
}

#[test]
fn route_that_names_what_is_not_there_is_told_what_is() {
    checked("{name: edge}", TO_REDIS).exits(0).says(&["0 errors, 0 warnings"]);
    for (parent, backend, place, said, help) in [
        (
            "{name: egde}",
            TO_REDIS,
            "route.yaml:6:5",
            "not accepted (NoMatchingParent): there is no Gateway shop/egde",
            "did you mean edge",
        ),
        (
            "{name: edge, sectionName: radis}",
            TO_REDIS,
            "route.yaml:6:5",
            "not accepted (NoMatchingParent): no listener of shop/edge has the name `radis`",
            "its listeners are `redis` (6379)",
        ),
        (
            "{name: edge, port: 6380}",
            TO_REDIS,
            "route.yaml:6:5",
            "not accepted (NoMatchingParent): no listener of shop/edge has the port 6380",
            "its listeners are `redis` (6379)",
        ),
        (
            "{name: edge}",
            "{name: radis, port: 6379}",
            "route.yaml:9:7",
            "not resolved (BackendNotFound): there is no Service shop/radis; its share of the connections is refused",
            "did you mean redis",
        ),
        (
            "{name: edge}",
            "{name: redis, port: 6380}",
            "route.yaml:9:7",
            "not resolved (BackendNotFound): shop/redis has no port 6380",
            "its TCP ports are `tcp` (6379)",
        ),
        (
            "{name: edge}",
            "{name: redis, namespace: other, port: 6379}",
            "route.yaml:9:7",
            "not resolved (RefNotPermitted): no ReferenceGrant of `other` allows TCPRoutes of `shop`",
            "add a ReferenceGrant to the namespace other",
        ),
    ] {
        checked(parent, backend).exits(0).prints(&["warning", place, said, help]);
    }
}

#[test]
fn reasons_stand_in_the_form_of_the_contract() {
    let dir = files(&[
        ("edge.yaml", &gateway("edge", REDIS)),
        ("route.yaml", &route("{name: edge}", TO_REDIS)),
    ]);
    let ended = check(dir.path(), &["-f", ".", "-o", "json"]).exits(0);
    let output: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(output["valid"], true);
    let resources = output["resources"].as_array().expect("resources");
    let route = resources.iter().find(|one| one["kind"] == "TCPRoute").expect("the route");
    assert_eq!((&route["mesh"], &route["namespace"]), (&serde_json::Value::Null, &"shop".into()));
    assert_eq!(
        route["violations"],
        serde_json::json!([{
            "severity": "warning",
            "field": "spec.rules[0].backendRefs[0]",
            "message": "not resolved (BackendNotFound): there is no Service shop/redis; its share of \
                        the connections is refused",
            "line": 9,
            "column": 7,
        }])
    );
}

#[test]
fn finding_stands_at_the_object_of_its_namespace() {
    let service = |namespace: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": namespace},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}
        })
    };
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List", "items": [service("one"), service("two")]
    });
    let dir = files(&[("list.json", &list.to_string())]);
    let ended = check(dir.path(), &["-f", ".", "-o", "json"]).exits(1);
    let output: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    for (at, own, other) in [(0, "one", "two"), (1, "two", "one")] {
        let resource = &output["resources"][at];
        assert_eq!(resource["namespace"], own);
        let violations = resource["violations"].as_array().expect("violations");
        let [violation] = violations.as_slice() else { panic!("{own}: {violations:?}") };
        let message = violation["message"].as_str().expect("a message");
        let claims =
            format!("claimed for Service `a.{own}:80` here, and for Service `a.{other}:80`");
        assert!(message.contains(&claims), "{message}");
    }
}

#[test]
fn explain_names_the_route_that_carries_a_listener() {
    let dir = files(&[
        ("services.yaml", SERVICES),
        ("edge.yaml", &gateway("edge", REDIS)),
        ("route.yaml", &route("{name: edge}", TO_REDIS)),
    ]);
    let state = dir.path().join("state").display().to_string();
    explain(dir.path(), &state, "edge.shop/redis").exits(0).prints(&[
        "to edge.shop/redis (192.0.2.10:6379): forward",
        "by TCPRoute r.shop\n",
        "policy: one TCPRoute is attached to the listener edge.shop/redis; r of shop carries",
    ]);
    explain(dir.path(), &state, "edge.shop/radis")
        .exits(2)
        .says(&["did you mean edge.shop/redis?"]);
}

fn explain(dir: &Path, state: &str, to: &str) -> Ended {
    let args = ["explain", "-f", ".", "--state", state, "--from", "203.0.113.9", "--to", to];
    balancer_in(dir, &args, Stdio::null())
}
