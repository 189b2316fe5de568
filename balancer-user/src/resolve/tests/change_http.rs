//! Small changes of what requests follow.

use proptest::prelude::*;

use super::{
    change::{followed, parts},
    gateway_changes::texts,
    world::documents,
};
use crate::{
    policy::PolicySet,
    resolve::{Change, HttpRules, Resolved},
};

const WEB: &str = "10.0.0.9";

fn workload((n, version): &(u8, u8)) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: api-{n}\nnetworking:\n  address: 10.0.0.{n}\n  \
         inbound: [{{port: 80, tags: {{kuma.io/service: api, kuma.io/protocol: http, version: \
         v{version}}}}}]\n---\n"
    )
}

/// Policies, and workloads of `api` in two versions, each at 10.0.0.N.
fn world(workloads: &[(u8, u8)], policies: &str) -> PolicySet {
    documents(&(policies.to_owned() + &workloads.iter().map(workload).collect::<String>()))
}

/// The same, with the policies at the end.
fn world_before(workloads: &[(u8, u8)], policies: &str) -> PolicySet {
    documents(&(workloads.iter().map(workload).collect::<String>() + policies))
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
fn other_matches_filters_and_backends_follow_too() {
    let add = |policy: String, from: &str, to: &str| {
        assert!(policy.contains(from), "{policy}");
        policy.replace(from, to)
    };
    let traffic = traffic(1, 1);
    let header = "modify: {requestHeaders: {add: [{name: x-env, value: b}]}}, split:";
    let mesh = mesh_http(1, 1);
    let others = [
        (&traffic, add(traffic.clone(), "prefix: /a", "exact: /bcd")),
        (&traffic, add(traffic.clone(), "}}, split:", &format!("}}}}, {header}"))),
        (&mesh, add(mesh.clone(), "value: /a", "value: /bcd")),
        (
            &mesh,
            add(
                mesh.clone(),
                "    - matches: [{path: {type: PathPrefix, value: /a}}]",
                "\
         \x20   - matches: [{path: {type: Exact, value: /new}}]\n      default: {}\n    - matches: \
         [{path: {type: PathPrefix, value: /a}}]",
            ),
        ),
    ];
    for (before, after) in others {
        // The policy is the last document, so that no other resource stands elsewhere then.
        let world = |policy: &str| world_before(&TWO, policy);
        let (change, resolved) = followed(&world(before), &world(&after));
        assert_eq!(parts(change).routes.len(), 1, "{after}");
        let (change, back) = followed(&world(&after), &world(before));
        assert_eq!(parts(change).routes.len(), 1, "{before}");
        assert_ne!(http(&resolved).rules, http(&back).rules);
    }
}

#[test]
fn what_is_about_something_else_or_has_to_be_reported_is_resolved_as_a_whole() {
    let other = mesh_http(1, 1).replace(
        "targetRef: {kind: MeshService, name: api}",
        "\
        targetRef: {kind: MeshService, name: ape}",
    );
    let (change, _) = followed(&world(&TWO, &mesh_http(1, 1)), &world(&TWO, &other));
    assert_eq!(change, Change::Whole);
    // A subset without endpoints is reported once it is asked for.
    let (one, asked) = (world(&[(1, 1)], &mesh_http(0, 0)), world(&[(1, 1)], &mesh_http(1, 0)));
    let (change, resolved) = followed(&one, &asked);
    assert_eq!(change, Change::Whole);
    assert!(resolved.messages().iter().any(|said| said.contains("version=v2")));
}

/// Rules of a MeshHTTPRoute, one for each match at most.
fn any_rules() -> impl Strategy<Value = String> {
    let backends = prop::sample::select(
        &[
            "{}",
            "{backendRefs: [{kind: MeshServiceSubset, name: api, tags: {version: v1}, weight: 3}, \
             {kind: MeshServiceSubset, name: api, tags: {version: v2}}]}",
            "{backendRefs: [{kind: MeshService, name: web}]}",
            "{backendRefs: [{kind: MeshService, name: gone}, {kind: MeshService, name: api, weight: 0}]}",
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]}",
        ][..],
    );
    prop::collection::btree_map(prop::sample::select(&["/", "/a", "/b"][..]), backends, 0..3)
        .prop_map(|rules| {
            let rule = |(path, default): (&str, &str)| {
                format!(
                    "{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], default: {default}}}"
                )
            };
            rules.into_iter().map(rule).collect::<Vec<_>>().join(", ")
        })
}

prop_compose! {
    /// Whom a MeshHTTPRoute concerns and what it speaks of, and two lists of rules.
    fn any_mesh_http()(
        whom in prop::sample::select(&[
            "{kind: Mesh}", "{kind: MeshSubset, tags: {kuma.io/service: web}}",
        ][..]),
        to in prop::sample::select(&["api", "api", "web"][..]),
        rules in [any_rules(), any_rules()],
    ) -> (String, [String; 2]) {
        (format!("targetRef: {whom}\n  to:\n  - targetRef: {{kind: MeshService, name: {to}}}"), rules)
    }
}

proptest! {
    #[test]
    fn following_policies_that_say_something_else_gives_the_whole(
        policies in prop::collection::vec(any_mesh_http(), 1..4),
        edited in prop::collection::vec(any::<bool>(), 4),
        weights in [0..3u32, 0..3u32, 0..3u32, 0..3u32],
    ) {
        let web = "type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: 10.0.0.9\n  \
                   inbound: [{port: 80, tags: {kuma.io/service: web, kuma.io/protocol: http}}]\n";
        let fixed: Vec<String> =
            TWO.iter().map(workload).chain([web.to_owned()]).collect();
        let world = |edited: &dyn Fn(usize) -> bool| {
            let at = usize::from(edited(3));
            let traffic = traffic(weights[at], weights[at + 2]);
            let of = |(at, (about, rules)): (usize, &(String, [String; 2]))| {
                let rules = &rules[usize::from(edited(at))];
                format!(
                    "type: MeshHTTPRoute\nmesh: default\nname: p{at}\nspec:\n  {about}\n    rules: [{rules}]\n"
                )
            };
            let policies = policies.iter().enumerate().map(of);
            texts(&fixed.iter().cloned().chain([traffic]).chain(policies).collect::<Vec<_>>())
        };
        followed(&world(&|_| false), &world(&|at| edited[at]));
        followed(&world(&|_| false), &world(&|at| at == 0));
    }
}
