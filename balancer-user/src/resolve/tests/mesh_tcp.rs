//! MeshTCPRoutes: whom they concern, which of them wins, and where they lead.

use super::world::{documents, settings};
use crate::{
    policy::PolicySet,
    resolve::{Decision, ResolveSettings, Resolved, resolve},
};

/// Redis in two versions, a cache, and somebody who dials them.
const WORLD: &str = "
type: Dataplane
mesh: default
name: redis-1
networking: {address: 10.0.0.21, inbound: [{port: 6379, tags: {kuma.io/service: redis, version: '1'}}]}
---
type: Dataplane
mesh: default
name: redis-2
networking: {address: 10.0.0.22, inbound: [{port: 6379, tags: {kuma.io/service: redis, version: '2'}}]}
---
type: Dataplane
mesh: default
name: cache-1
networking: {address: 10.0.0.31, inbound: [{port: 11211, tags: {kuma.io/service: cache}}]}
---
type: Dataplane
mesh: default
name: web-1
labels: {app: web}
networking: {address: 10.0.0.11, inbound: [{port: 80, tags: {kuma.io/service: web, zone: z}}]}
---
apiVersion: kuma.io/v1alpha1
kind: Dataplane
mesh: default
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {networking: {address: 10.0.0.12, inbound: [{port: 80, tags: {kuma.io/service: web-shop}}]}}
---
type: Dataplane
mesh: default
name: edge
networking: {address: 10.0.0.13, gateway: {tags: {kuma.io/service: edge}}}
---
";

const WEB: &str = "10.0.0.11";
const SHOP: &str = "10.0.0.12";
const EDGE: &str = "10.0.0.13";
const STRANGER: &str = "192.0.2.9";

/// A MeshTCPRoute of the Universal form for connections to `redis`.
fn route(name: &str, target: &str, backends: &str) -> String {
    format!(
        "type: MeshTCPRoute\nmesh: default\nname: {name}\nspec:\n  targetRef: {{{target}}}\n  to:\n  \
         - targetRef: {{kind: MeshService, name: redis}}\n    rules: [{{default: {{backendRefs: \
         [{backends}]}}}}]\n---\n"
    )
}

fn version(version: u8) -> String {
    format!("{{kind: MeshServiceSubset, name: redis, tags: {{version: '{version}'}}}}")
}

fn world(rest: &str) -> PolicySet {
    documents(&format!("{WORLD}{rest}"))
}

fn resolved(rest: &str) -> Resolved {
    resolve(&world(rest), &settings())
}

fn lines(resolved: &Resolved, from: &str) -> Vec<String> {
    resolved.route_from(from, "redis").lines()
}

/// Which of the four sources a policy with this target concerns.
fn concerned(target: &str) -> Vec<&'static str> {
    concerned_in(&route("p", target, &version(2)))
}

fn concerned_in(policy: &str) -> Vec<&'static str> {
    let resolved = resolved(policy);
    let is = |source: &&str| resolved.policy_from(source, "redis").is_some();
    [WEB, SHOP, EDGE, STRANGER].into_iter().filter(is).collect()
}

#[test]
fn split_by_subset_names_the_reals_of_each() {
    let split = "{kind: MeshServiceSubset, name: redis, tags: {version: '1'}, weight: 90}, \
                 {kind: MeshServiceSubset, name: redis, tags: {version: '2'}, weight: 10}";
    let resolved = resolved(&route("canary", "kind: MeshService, name: web", split));
    let route = resolved.route_from(WEB, "redis");
    assert_eq!(
        route.lines(),
        ["90 redis,version=1 ok 10.0.0.21:6379", "10 redis,version=2 ok 10.0.0.22:6379"]
    );
    assert_eq!(route.decision, Decision::Forward);
    let policy = route.policy.as_ref().unwrap();
    assert_eq!((policy.kind.as_str(), policy.name.as_str()), ("MeshTCPRoute", "canary"));
    assert_eq!(resolved.route_from(SHOP, "redis").decision, Decision::Direct);
    assert!(resolved.diagnostics.is_empty(), "{:?}", resolved.messages());
}

#[test]
fn every_form_of_target_concerns_whom_it_says() {
    let all = [WEB, SHOP, EDGE, STRANGER];
    assert_eq!(concerned("kind: Mesh"), all);
    assert_eq!(concerned("kind: Mesh, proxyTypes: [Sidecar]"), [WEB, SHOP, STRANGER]);
    assert_eq!(concerned("kind: Mesh, proxyTypes: [Gateway]"), [EDGE]);
    assert_eq!(concerned("kind: MeshSubset"), all);
    assert_eq!(concerned("kind: MeshSubset, tags: {zone: z}"), [WEB]);
    assert_eq!(concerned("kind: MeshSubset, tags: {kuma.io/service: edge}"), [EDGE]);
    let none: [&str; 0] = [];
    let sidecars = "kind: MeshSubset, tags: {kuma.io/service: edge}, proxyTypes: [Sidecar]";
    assert_eq!(concerned(sidecars), none);
    assert_eq!(concerned("kind: MeshService, name: web"), [WEB]);
    assert_eq!(concerned("kind: MeshServiceSubset, name: web, tags: {zone: z}"), [WEB]);
    assert_eq!(concerned("kind: MeshServiceSubset, name: web, tags: {zone: y}"), none);
    assert_eq!(concerned("kind: Dataplane"), [WEB, SHOP, EDGE], "a stranger has no Dataplane");
    assert_eq!(concerned("kind: Dataplane, labels: {app: web}"), [WEB, SHOP]);
    let displayed = "kind: Dataplane, labels: {app: web, kuma.io/display-name: web-1}";
    assert_eq!(concerned(displayed), [WEB]);
    let in_shop = "kind: Dataplane, labels: {k8s.kuma.io/namespace: shop}";
    assert_eq!(concerned(in_shop), [SHOP]);
    assert_eq!(concerned("kind: Dataplane, name: web-1"), [WEB]);
    assert_eq!(concerned("kind: Dataplane, name: web-2, namespace: shop"), [SHOP]);
    assert_eq!(concerned("kind: Dataplane, name: web-2"), none, "it is of a namespace");
    assert_eq!(concerned("kind: Dataplane, name: web-1, namespace: shop"), none);
}

#[test]
fn mesh_gateway_concerns_nobody() {
    let gateway = "type: MeshTCPRoute\nmesh: default\nname: g\nspec:\n  targetRef: {kind: \
                   MeshGateway, name: edge}\n  to: [{targetRef: {kind: Mesh}, rules: [{default: \
                   {backendRefs: [{kind: MeshService, name: cache}]}}]}]\n";
    let none: [&str; 0] = [];
    assert_eq!(concerned_in(gateway), none);
}

/// A route of namespace `shop` for `redis` in namespace `there`, with these labels.
fn of_shop(there: &str, labels: &str) -> String {
    format!(
        "apiVersion: kuma.io/v1alpha1\nkind: MeshTCPRoute\nmetadata: {{name: p, namespace: shop, \
         labels: {{{labels}}}}}\nspec: {{to: [{{targetRef: {{kind: MeshService, name: redis, \
         namespace: {there}}}, rules: [{{default: {{backendRefs: [{}]}}}}]}}]}}\n",
        version(2)
    )
}

#[test]
fn a_consumers_policy_reaches_no_further_than_its_namespace() {
    assert_eq!(concerned_in(&of_shop("shop", "")), [WEB, SHOP, EDGE, STRANGER], "a producer's");
    assert_eq!(concerned_in(&of_shop("data", "")), [SHOP], "a consumer's");
    let role = "kuma.io/policy-role: workload-owner";
    assert_eq!(concerned_in(&of_shop("shop", role)), [SHOP], "what the label says counts");
    let universal = route("p", "kind: Mesh}\n  # {", &version(2)).replace(
        "name: p\n",
        "name: p\nlabels: {kuma.io/policy-role: consumer, k8s.kuma.io/namespace: shop}\n",
    );
    assert_eq!(concerned_in(&universal), [SHOP]);
}

#[test]
fn what_comes_from_another_zone_stays_there() {
    let zoned = |role: &str| {
        route("p", "kind: Mesh", &version(2)).replace(
            "name: p\n",
            &format!("name: p\nlabels: {{kuma.io/origin: zone, kuma.io/zone: east{role}}}\n"),
        )
    };
    let concerns = |policy: &str, zone: Option<&str>| {
        let settings = ResolveSettings { zone: zone.map(str::to_owned), ..settings() };
        resolve(&world(policy), &settings).policy_from(WEB, "redis").is_some()
    };
    assert!(concerns(&zoned(""), Some("east")));
    assert!(!concerns(&zoned(""), Some("west")));
    assert!(concerns(&zoned(""), None), "a node that is in no zone takes all as its own");
    assert!(concerns(&zoned(", kuma.io/policy-role: producer"), Some("west")));
}

/// The name of the policy that wins for the workload `web-1`.
fn winner(policies: &[String]) -> String {
    let forwards = resolved(&policies.concat());
    let mut backwards = policies.to_vec();
    backwards.reverse();
    assert_eq!(forwards.routes, resolved(&backwards.concat()).routes);
    forwards.policy_from(WEB, "redis").unwrap().to_owned()
}

#[test]
fn narrower_targets_go_first() {
    let targets = [
        "kind: Mesh",
        "kind: Dataplane, labels: {app: web}",
        "kind: Dataplane, name: web-1",
        "kind: MeshSubset, tags: {zone: z}",
        "kind: MeshService, name: web",
        "kind: MeshServiceSubset, name: web, tags: {zone: z}",
    ];
    for (wide, narrow) in targets.iter().zip(&targets[1..]) {
        let policies = [route("a", wide, &version(1)), route("b", narrow, &version(2))];
        assert_eq!(winner(&policies), "b", "{narrow} goes before {wide}");
    }
    let tags = [
        route("b", "kind: MeshSubset, tags: {zone: z, kuma.io/service: web}", &version(1)),
        route("a", "kind: MeshSubset, tags: {zone: z}", &version(2)),
    ];
    assert_eq!(winner(&tags), "a", "the number of tags is no criterion");
}

#[test]
fn origin_then_role_then_the_smaller_name_decide() {
    let labelled = |name: &str, labels: &str| {
        route(name, "kind: Mesh", &version(1))
            .replace(&format!("name: {name}\n"), &format!("name: {name}\nlabels: {{{labels}}}\n"))
    };
    let shop = "k8s.kuma.io/namespace: shop, kuma.io/policy-role";
    let order = [
        labelled("e", &format!("kuma.io/origin: global, {shop}: producer")),
        labelled("d", ""),
        labelled("c", &format!("{shop}: producer")),
        labelled("b", "kuma.io/origin: zone"),
    ];
    for pair in order.windows(2) {
        let name = pair[1].split("name: ").nth(1).unwrap().split('\n').next().unwrap();
        assert_eq!(winner(pair), name);
    }
    assert_eq!(winner(&[labelled("b", ""), labelled("a", "")]), "a");
    let shown = labelled("z", "kuma.io/display-name: '0'");
    assert_eq!(winner(&[labelled("a", ""), shown]), "z", "what counts is the name that is shown");
}

#[test]
fn the_winner_replaces_all_backends() {
    let both = format!("{}, {{kind: MeshService, name: cache, weight: 3}}", version(1));
    let policies = route("wide", "kind: Mesh", &both)
        + &route("narrow", "kind: MeshService, name: web", &version(2));
    let resolved = resolved(&policies);
    assert_eq!(lines(&resolved, WEB), ["1 redis,version=2 ok 10.0.0.22:6379"]);
    assert_eq!(
        lines(&resolved, STRANGER),
        ["1 redis,version=1 ok 10.0.0.21:6379", "3 cache ok 10.0.0.31:11211"]
    );
}

#[test]
fn without_a_rule_connections_go_to_what_is_dialled() {
    let own = "type: MeshTCPRoute\nmesh: default\nname: own\nspec:\n  targetRef: {kind: \
               MeshService, name: web}\n  to: [{targetRef: {kind: MeshService, name: redis}}]\n---\n";
    let resolved = resolved(&(route("wide", "kind: Mesh", &version(2)) + own));
    assert_eq!(lines(&resolved, WEB), ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379"]);
    assert_eq!(resolved.policy_from(WEB, "redis"), Some("own"));
}

#[test]
fn a_rule_without_backends_leaves_them_to_others_and_refuses_where_there_is_none() {
    let empty = route("empty", "kind: MeshService, name: web", "");
    let alone = resolved(&empty);
    let refused = alone.route_from(WEB, "redis");
    assert_eq!((refused.decision, refused.backends.len()), (Decision::Reject, 0));
    assert_eq!(refused.policy.as_ref().unwrap().name, "empty");
    let with = resolved(&(empty + &route("wide", "kind: Mesh", &version(2))));
    assert_eq!(with.policy_from(WEB, "redis"), Some("wide"));
}

#[test]
fn weight_zero_drains_and_all_zero_closes() {
    let weighted = |one: u32, two: u32| {
        format!(
            "{{kind: MeshServiceSubset, name: redis, tags: {{version: '1'}}, weight: {one}}}, \
             {{kind: MeshServiceSubset, name: redis, tags: {{version: '2'}}, weight: {two}}}"
        )
    };
    let drained = resolved(&route("p", "kind: Mesh", &weighted(0, 7)));
    assert_eq!(
        lines(&drained, WEB),
        ["0 redis,version=1 drained 10.0.0.21:6379", "7 redis,version=2 ok 10.0.0.22:6379"]
    );
    assert_eq!(drained.route_from(WEB, "redis").decision, Decision::Forward);
    let closed = resolved(&route("p", "kind: Mesh", &weighted(0, 0)));
    assert_eq!(closed.route_from(WEB, "redis").decision, Decision::Reject);
    assert_eq!(lines(&closed, WEB).len(), 2, "drained backends are still shown");
}

#[test]
fn what_is_not_there_keeps_its_share_and_is_told_with_a_suggestion() {
    let services = "type: MeshService\nmesh: default\nname: backend\nspec: {ports: [{port: 80, \
                    name: http}, {port: 81}]}\n---\n";
    let backends = "{kind: MeshService, name: redi}, {kind: MeshService, name: bakend, port: 80}, \
                    {kind: MeshService, name: backend, port: 82}, \
                    {kind: MeshService, labels: {kuma.io/display-name: backend}}, \
                    {kind: MeshMultiZoneService, labels: {app: x}, port: 1}, \
                    {kind: MeshServiceSubset, name: redis, tags: {version: '3'}}, \
                    {kind: MeshService, name: nothing, weight: 0}, \
                    {kind: MeshService, name: cache, weight: 2}";
    let resolved = resolved(&(services.to_owned() + &route("p", "kind: Mesh", backends)));
    assert_eq!(
        lines(&resolved, WEB),
        [
            "1 redi invalid",
            "1 bakend:80 invalid",
            "1 backend:82 invalid",
            "1 kuma.io/display-name=backend invalid",
            "1 app=x:1 invalid",
            "1 redis,version=3 empty",
            "0 nothing drained",
            "2 cache ok 10.0.0.31:11211"
        ]
    );
    let refused = "its share of the connections is refused";
    let field = |index: usize, part: &str| {
        format!("spec.to[0].rules[0].default.backendRefs[{index}]{part}")
    };
    let expected = [
        (
            field(0, ".name"),
            format!("no Dataplane of mesh default offers service `redi`: {refused}"),
            "did you mean redis",
        ),
        (
            field(1, ".name"),
            format!("mesh default has no MeshService `bakend`: {refused}"),
            "did you mean backend",
        ),
        (
            field(2, ".port"),
            format!("MeshService `backend` has no port `82`: {refused}"),
            "it has http (80), 81",
        ),
        (
            field(3, ""),
            format!("MeshService `backend` has 2 ports and this names none of them: {refused}"),
            "add `port` or `sectionName`; it has http (80), 81",
        ),
        (
            field(4, ".labels"),
            format!("mesh default has no MeshMultiZoneService `app=x`: {refused}"),
            "",
        ),
        (
            field(5, ""),
            format!("service `redis` has no endpoint with version=3: {refused}"),
            "its endpoints have version=1, version=2",
        ),
    ];
    let found: Vec<(String, String, String)> = resolved
        .diagnostics
        .iter()
        .filter(|(meta, _)| meta.kind == "MeshTCPRoute")
        .map(|(_, found)| {
            assert!(found.span.is_some_and(|span| span.line > 1), "{found:?}");
            (found.field.clone(), found.message.clone(), found.hint.clone().unwrap_or_default())
        })
        .collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(field, message, hint)| (field, message, hint.to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_item_that_speaks_of_nothing_is_told() {
    let policy = "type: MeshTCPRoute\nmesh: default\nname: p\nspec:\n  to:\n  - targetRef: {kind: \
                  MeshExternalService, name: api}\n  - targetRef: {kind: MeshService, name: redis, \
                  sectionName: tcp}\n";
    assert_eq!(
        resolved(policy).messages(),
        [
            "mesh default has no MeshExternalService `api`: this item has no effect",
            "mesh default has no MeshService `redis`: this item has no effect"
        ]
    );
}

#[test]
fn a_port_of_a_tag_is_told_how_to_name_the_tag() {
    let resolved =
        resolved(&route("p", "kind: Mesh", "{kind: MeshService, name: redis, port: 6379}"));
    let hint = resolved.diagnostics[0].1.hint.as_deref();
    assert_eq!(hint, Some("`redis` is a kuma.io/service: leave `port` out for it"));
}

#[test]
fn a_policy_between_producer_and_consumer_is_refused() {
    let mixed = of_shop("shop", "").replace(
        "spec: {to: [",
        "spec: {to: [{targetRef: {kind: MeshService, name: cache, namespace: data}}, ",
    );
    let resolved = resolved(&mixed);
    let error = resolved.diagnostics.iter().find(|(_, found)| found.is_error()).unwrap();
    assert_eq!(error.1.field, "spec.to[1].targetRef");
}

#[test]
fn it_goes_before_traffic_routes_where_it_speaks_and_says_so() {
    let traffic = "type: TrafficRoute\nmesh: default\nname: all\nsources: [{match: \
                   {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: \
                   {destination: {kuma.io/service: cache}}\n---\n";
    let with = |target: &str| resolved(&(traffic.to_owned() + &route("p", target, &version(2))));
    let of_all = with("kind: Mesh");
    assert_eq!(of_all.policy_from(WEB, "redis"), Some("p"));
    assert_eq!(of_all.policy_from(WEB, "web"), Some("all"), "decided for each destination");
    assert_eq!(
        of_all.messages(),
        ["TrafficRoute all has no effect on connections to `redis`, because of MeshTCPRoute p"]
    );
    let of_some = with("kind: MeshService, name: web");
    assert_eq!(of_some.policy_from(WEB, "redis"), Some("p"));
    assert_eq!(of_some.policy_from(SHOP, "redis"), Some("all"));
    assert_eq!(
        of_some.messages(),
        [
            "TrafficRoute all has no effect on connections of some sources to `redis`, because of MeshTCPRoute p"
        ]
    );
}

#[test]
fn tags_of_an_outbound_do_not_narrow_its_backends() {
    let dialler = "type: Dataplane\nmesh: default\nname: dialler\nnetworking: {address: 10.0.0.14, \
                   inbound: [{port: 80, tags: {kuma.io/service: web}}], outbound: [{address: \
                   10.9.9.9, port: 1, tags: {kuma.io/service: redis, version: '1'}}]}\n---\n";
    let all = route("p", "kind: Mesh", "{kind: MeshService, name: redis}");
    let resolved = resolved(&(dialler.to_owned() + &all));
    assert_eq!(lines(&resolved, "10.0.0.14"), ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379"]);
}

#[test]
fn a_destination_that_nobody_offers_is_dialled_at_the_ports_of_its_backends() {
    let virtual_service = route("p", "kind: MeshService, name: web", &version(2))
        .replace("{kind: MeshService, name: redis}", "{kind: MeshService, name: store}");
    let resolved = resolved(&virtual_service);
    let vips: Vec<u16> = resolved.vips_of("store").iter().map(|vip| vip.key.addr.port()).collect();
    assert_eq!(vips, [6379]);
    assert_eq!(resolved.route_from(WEB, "store").lines(), ["1 redis,version=2 ok 10.0.0.22:6379"]);
}

#[test]
fn the_last_item_of_a_policy_for_a_destination_counts() {
    let two = route("p", "kind: Mesh", &version(1)).replace(
        "  to:\n",
        "  to:\n  - targetRef: {kind: MeshService, name: redis}\n    rules: [{default: \
         {backendRefs: [{kind: MeshService, name: cache}]}}]\n",
    );
    assert_eq!(lines(&resolved(&two), WEB), ["1 redis,version=1 ok 10.0.0.21:6379"]);
}
