//! Small changes of what requests follow.

use super::{
    change::{followed, parts},
    world::documents,
};
use crate::{
    policy::PolicySet,
    resolve::{Change, HttpRules, Resolved},
};

const WEB: &str = "10.0.0.9";

/// Policies, and workloads of `api` in two versions, each at 10.0.0.N.
fn world(workloads: &[(u8, u8)], policies: &str) -> PolicySet {
    let workload = |(n, version): &(u8, u8)| {
        format!(
            "type: Dataplane\nmesh: default\nname: api-{n}\nnetworking:\n  address: 10.0.0.{n}\n  \
             inbound: [{{port: 80, tags: {{kuma.io/service: api, kuma.io/protocol: http, version: \
             v{version}}}}}]\n---\n"
        )
    };
    documents(&(policies.to_owned() + &workloads.iter().map(workload).collect::<String>()))
}

const TWO: [(u8, u8); 2] = [(1, 1), (2, 2)];

/// A TrafficRoute that splits everything and what is below /a, each with a weight for v2.
fn traffic(outer: u32, http: u32) -> String {
    let split = |weight: u32| {
        format!(
            "[{{weight: 9, destination: {{kuma.io/service: api, version: v1}}}}, {{weight: {weight}, \
             destination: {{kuma.io/service: api, version: v2}}}}]"
        )
    };
    format!(
        "type: TrafficRoute\nmesh: default\nname: canary\nsources: [{{match: {{kuma.io/service: \
         '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: api}}}}]\nconf:\n  split: {}\n  http: \
         [{{match: {{path: {{prefix: /a}}}}, split: {}}}]\n---\n",
        split(outer),
        split(http)
    )
}

/// A MeshHTTPRoute likewise; everything else is the rule for every request.
fn mesh_http(outer: u32, below: u32) -> String {
    let backends = |weight: u32| {
        format!(
            "[{{kind: MeshServiceSubset, name: api, tags: {{version: v1}}, weight: 9}}, {{kind: \
             MeshServiceSubset, name: api, tags: {{version: v2}}, weight: {weight}}}]"
        )
    };
    format!(
        "type: MeshHTTPRoute\nmesh: default\nname: canary\nspec:\n  to:\n  - targetRef: {{kind: \
         MeshService, name: api}}\n    rules:\n    - matches: [{{path: {{type: PathPrefix, value: \
         /a}}}}]\n      default: {{backendRefs: {}}}\n    - matches: [{{path: {{type: PathPrefix, value: \
         /}}}}]\n      default: {{backendRefs: {}}}\n---\n",
        backends(below),
        backends(outer)
    )
}

fn http(resolved: &Resolved) -> &HttpRules {
    resolved.route_from(WEB, "api").http.as_ref().expect("HTTP rules")
}

/// The weights of the rule below /a.
fn below(resolved: &Resolved) -> Vec<u32> {
    http(resolved).rules.rules[0].split.backends().iter().map(|one| one.weight).collect()
}

#[test]
fn weights_of_rules_follow_without_a_look_at_the_whole() {
    for policy in [traffic, mesh_http] {
        let (before, after) = (world(&TWO, &policy(1, 1)), world(&TWO, &policy(3, 7)));
        let (change, resolved) = followed(&before, &after);
        assert_eq!(parts(change).routes.len(), 1);
        assert_eq!(below(&resolved), [9, 7]);
        let lines = resolved.route_from(WEB, "api").lines();
        assert_eq!(lines[1], "3 api,version=v2 ok 10.0.0.2:80");
    }
}

#[test]
fn a_weight_that_falls_to_0_and_rises_again_follows_too() {
    for policy in [traffic, mesh_http] {
        let (some, none) = (world(&TWO, &policy(1, 1)), world(&TWO, &policy(0, 0)));
        let (change, resolved) = followed(&some, &none);
        assert_eq!(parts(change).routes.len(), 1);
        assert_eq!(below(&resolved), [9, 0]);
        let (change, resolved) = followed(&none, &some);
        assert_eq!(parts(change).routes.len(), 1);
        assert_eq!(below(&resolved), [9, 1]);
    }
}

#[test]
fn endpoints_that_come_and_go_change_what_rules_lead_to() {
    for policy in [traffic, mesh_http] {
        let of = |workloads: &[(u8, u8)]| world(workloads, &policy(1, 1));
        let (change, resolved) = followed(&of(&[(1, 1), (2, 2)]), &of(&[(1, 1), (2, 2), (3, 2)]));
        assert_eq!(parts(change).routes.len(), 1);
        let reals: Vec<usize> = http(&resolved).backends.iter().map(|b| b.reals.len()).collect();
        assert_eq!(reals, [1, 2]);
    }
}

#[test]
fn what_changes_more_than_weights_is_resolved_as_a_whole() {
    let other = mesh_http(1, 1).replace("value: /a", "value: /b");
    let (change, resolved) = followed(&world(&TWO, &mesh_http(1, 1)), &world(&TWO, &other));
    assert_eq!(change, Change::Whole);
    assert_eq!(below(&resolved), [9, 1]);
    // A subset without endpoints is reported once it is asked for.
    let (one, asked) = (world(&[(1, 1)], &mesh_http(0, 0)), world(&[(1, 1)], &mesh_http(1, 0)));
    let (change, resolved) = followed(&one, &asked);
    assert_eq!(change, Change::Whole);
    assert!(resolved.messages().iter().any(|said| said.contains("version=v2")));
}
