//! MeshHTTPRoutes: how several are merged, and before which other policies they go.

use std::sync::Arc;

use super::world::{documents, settings};
use crate::{
    http::{
        Chance, Choice, Decision as Done, KeyOf, Router, Rules,
        tests::{Asked, asked},
    },
    policy::PolicySet,
    resolve::{Decision, ResolveSettings, Resolved, Route, resolve},
};

/// A service of HTTP in two versions, one that is empty, one of TCP, and somebody who calls them.
const WORLD: &str = "
type: Dataplane
mesh: default
name: backend-1
networking: {address: 10.0.0.21, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: '1', kuma.io/zone: east}}]}
---
type: Dataplane
mesh: default
name: backend-2
networking: {address: 10.0.0.22, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: '2', kuma.io/zone: west}}]}
---
type: Dataplane
mesh: default
name: offers-1
networking: {address: 10.0.0.31, inbound: [{port: 80, tags: {kuma.io/service: offers, kuma.io/protocol: http}}]}
---
type: Dataplane
mesh: default
name: idle-1
networking: {address: 10.0.0.41, inbound: [{port: 80, state: NotReady, tags: {kuma.io/service: idle, kuma.io/protocol: http}}]}
---
type: Dataplane
mesh: default
name: redis-1
networking: {address: 10.0.0.51, inbound: [{port: 6379, tags: {kuma.io/service: redis}}]}
---
type: Dataplane
mesh: default
name: web-1
networking: {address: 10.0.0.11, inbound: [{port: 80, tags: {kuma.io/service: web}}]}
---
";

const WEB: &str = "10.0.0.11";
const STRANGER: &str = "192.0.2.9";

const V1: &str = "{kind: MeshServiceSubset, name: backend, tags: {version: '1'}}";
const V2: &str = "{kind: MeshServiceSubset, name: backend, tags: {version: '2'}}";

fn policy(kind: &str, name: &str, target: &str, to: &str, rules: &str) -> String {
    format!(
        "type: {kind}\nmesh: default\nname: {name}\nspec:\n  targetRef: {{{target}}}\n  to:\n  - \
         targetRef: {{{to}}}\n    {rules}\n---\n"
    )
}

/// A MeshHTTPRoute for everybody who calls `backend`.
fn route(name: &str, rules: &str) -> String {
    let to = "kind: MeshService, name: backend";
    policy("MeshHTTPRoute", name, "kind: Mesh", to, &format!("rules: [{rules}]"))
}

/// A rule for paths that begin so.
fn below(path: &str, default: &str) -> String {
    format!("{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], default: {{{default}}}}}")
}

fn to(backends: &str) -> String {
    format!("backendRefs: [{backends}]")
}

fn world(rest: &str) -> PolicySet {
    documents(&format!("{WORLD}{rest}"))
}

fn resolved(rest: &str) -> Resolved {
    resolve(&world(rest), &settings())
}

fn rules_of(route: &Route) -> &Rules {
    &route.http.as_ref().expect("HTTP rules").rules
}

/// What becomes of a request: who gets it, or the code of the answer.
fn asks(route: &Route, asked: &Asked) -> String {
    let http = route.http.as_ref().expect("HTTP rules");
    let router = Router::new(Arc::clone(&http.rules)).unwrap();
    let chance = Chance { backend: Choice::Turn(0), cookie: 0 };
    match router.decide(&asked.request(), chance, |id| http.readiness(id)) {
        Done::Forward(forward) => {
            let backend = &http.backends[forward.backend.0 as usize];
            let reals: Vec<String> = backend.reals.iter().map(ToString::to_string).collect();
            format!("{} {}", reals.join(" "), forward.sent(&asked.request()).path)
        }
        Done::Redirect(done) | Done::Respond(done) | Done::Refuse(_, done) => {
            done.answer.status.as_u16().to_string()
        }
    }
}

fn get(route: &Route, path: &str) -> String {
    asks(route, &asked("GET", path).host("backend.mesh"))
}

#[test]
fn requests_go_by_rule_and_what_no_rule_speaks_of_to_the_service_itself() {
    let rules =
        [below("/api", &to(V2)), below("/offers", &to("{kind: MeshService, name: offers}"))];
    let resolved = resolved(&route("split", &rules.join(", ")));
    let route = resolved.route_from(WEB, "backend");
    assert_eq!(get(route, "/api/x"), "10.0.0.22:80 /api/x");
    assert_eq!(get(route, "/offers"), "10.0.0.31:80 /offers");
    assert_eq!(get(route, "/else"), "10.0.0.21:80 10.0.0.22:80 /else");
    assert_eq!(route.decision, Decision::Direct, "no rule takes every request");
    assert_eq!(route.http.as_ref().unwrap().policies[0].name, "split");
    assert_eq!(resolved.route_from(STRANGER, "backend"), route, "the target is the mesh");
    assert!(resolved.route_from(WEB, "offers").http.is_none());
}

#[test]
fn policies_with_equal_matches_give_filters_and_backends_each_for_itself() {
    let filters = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, \
                   replacePrefixMatch: /v2}}}]";
    let both = route("b", &below("/api", &to(V2))) + &route("c", &below("/api", filters));
    let one = resolved(&both);
    assert_eq!(get(one.route_from(WEB, "backend"), "/api/x"), "10.0.0.22:80 /v2/x");
    let http = one.route_from(WEB, "backend").http.clone().unwrap();
    assert_eq!(http.policies[0].name, "b", "the smaller name goes first");
    let overruled = resolved(&(both + &route("a", &below("/api", &to(V1)))));
    let route = overruled.route_from(WEB, "backend");
    assert_eq!(get(route, "/api/x"), "10.0.0.21:80 /v2/x", "backends of a, filters of c");
    assert_eq!(rules_of(route).rules.len(), 1);
}

#[test]
fn rules_of_the_narrower_policy_come_first_and_do_not_hide_others() {
    let to_backend = "kind: MeshService, name: backend";
    let rules = format!("rules: [{}]", below("/api", &to(V2)));
    let narrow = policy(
        "MeshHTTPRoute",
        "z",
        "kind: MeshSubset, tags: {kuma.io/service: web}",
        to_backend,
        &rules,
    );
    let wide = [below("/api", &to(V1)), below("/more", &to(V1))].join(", ");
    let resolved = resolved(&(narrow + &route("a", &wide)));
    let web = resolved.route_from(WEB, "backend");
    assert_eq!(get(web, "/api"), "10.0.0.22:80 /api");
    assert_eq!(get(web, "/more"), "10.0.0.21:80 /more");
    assert_eq!(get(resolved.route_from(STRANGER, "backend"), "/api"), "10.0.0.21:80 /api");
}

#[test]
fn within_one_policy_the_first_of_two_rules_with_equal_matches_wins() {
    let rules = [below("/api", ""), below("/api", &to(V2))].join(", ");
    let resolved = resolved(&route("twice", &rules));
    let route = resolved.route_from(WEB, "backend");
    assert_eq!(get(route, "/api"), "10.0.0.21:80 10.0.0.22:80 /api", "the service itself");
}

#[test]
fn a_share_that_leads_nowhere_is_answered_with_500_and_an_empty_one_with_503() {
    let answer = |backends: &str| {
        let resolved = resolved(&route("r", &below("/", &to(backends))));
        get(resolved.route_from(WEB, "backend"), "/")
    };
    assert_eq!(answer("{kind: MeshService, name: nobody}"), "500");
    assert_eq!(answer("{kind: MeshService, name: nobody, port: 80}"), "500");
    assert_eq!(answer("{kind: MeshService, name: redis}"), "500", "it does not speak HTTP");
    assert_eq!(answer("{kind: MeshService, name: idle}"), "503");
    assert_eq!(answer("{kind: MeshService, name: offers, weight: 0}"), "500");
}

#[test]
fn what_does_not_speak_http_is_left_to_connections() {
    let to_redis = "kind: MeshService, name: redis";
    let rules = format!("rules: [{}]", below("/", &to("{kind: MeshService, name: offers}")));
    let resolved = resolved(&policy("MeshHTTPRoute", "r", "kind: Mesh", to_redis, &rules));
    let route = resolved.route_from(WEB, "redis");
    assert!(route.http.is_none());
    assert_eq!(route.lines(), ["1 redis ok 10.0.0.51:6379"]);
    let said = resolved.messages().join("\n");
    assert!(
        said.contains("service `redis` is handled as tcp, so these rules have no effect"),
        "{said}"
    );
}

/// Semantics 4.7: a row for each kind of protocol and which policies speak of it.
#[test]
fn for_http_a_mesh_http_route_goes_first_and_else_a_mesh_tcp_route_decides() {
    let tcp = |name: &str| {
        let backend = format!("{{kind: MeshService, name: {name}}}");
        let rules = format!("rules: [{{default: {{{}}}}}]", to(&backend));
        policy(
            "MeshTCPRoute",
            "t",
            "kind: Mesh",
            &format!("kind: MeshService, name: {name}"),
            &rules,
        )
    };
    let http = |name: &str| {
        let rules = format!("rules: [{}]", below("/api", &to(V2)));
        policy(
            "MeshHTTPRoute",
            "h",
            "kind: Mesh",
            &format!("kind: MeshService, name: {name}"),
            &rules,
        )
    };
    let of = |set: String, service: &str| {
        let resolved = resolved(&set);
        let route = resolved.route_from(WEB, service);
        (route.http.is_some(), route.policy.as_ref().map(|policy| policy.kind.clone()))
    };
    let tcp_route = Some("MeshTCPRoute".to_owned());
    let both = |name: &str| http(name) + &tcp(name);
    assert_eq!(of(both("backend"), "backend"), (true, tcp_route.clone()), "L4 meanwhile");
    assert_eq!(of(http("backend"), "backend"), (true, None));
    assert_eq!(of(tcp("backend"), "backend"), (false, tcp_route.clone()));
    assert_eq!(of(String::new(), "backend"), (false, None));
    assert_eq!(of(both("redis"), "redis"), (false, tcp_route));
    assert_eq!(of(http("redis"), "redis"), (false, None));
}

#[test]
fn an_item_without_rules_sends_all_to_the_service_before_other_kinds() {
    let traffic = "
type: TrafficRoute
mesh: default
name: old
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: backend}}]
conf: {destination: {kuma.io/service: offers}}
---
";
    let none = policy(
        "MeshHTTPRoute",
        "none",
        "kind: Mesh",
        "kind: MeshService, name: backend",
        "rules: []",
    );
    let resolved = resolved(&(none + traffic));
    let route = resolved.route_from(WEB, "backend");
    assert!(route.http.is_none());
    assert_eq!(route.lines(), ["1 backend ok 10.0.0.21:80 10.0.0.22:80"]);
    let said = resolved.messages().join("\n");
    assert!(said.contains("TrafficRoute old has no effect on connections to `backend`"), "{said}");
}

#[test]
fn connections_follow_the_rule_that_takes_every_request() {
    let rules = [below("/api", &to(V2)), below("/", &to(&format!("{V1}, {V2}")))].join(", ");
    let resolved = resolved(&route("canary", &rules));
    let route = resolved.route_from(WEB, "backend");
    assert_eq!(
        route.lines(),
        ["1 backend,version=1 ok 10.0.0.21:80", "1 backend,version=2 ok 10.0.0.22:80"]
    );
    assert_eq!(route.policy.as_ref().unwrap().name, "canary");
    assert!(rules_of(route).otherwise.is_none(), "nothing is left for the service itself");
}

fn strategy(name: &str, to: &str, default: &str) -> String {
    let rules = format!("default: {{{default}}}");
    policy("MeshLoadBalancingStrategy", name, "kind: Mesh", to, &rules)
}

#[test]
fn a_strategy_chooses_the_load_balancer_and_parts_are_merged() {
    let backend = "kind: MeshService, name: backend";
    let maglev = strategy("m", backend, "loadBalancer: {type: Maglev, maglev: {tableSize: 1021}}");
    let source = "hashPolicies: [{type: Connection, connection: {sourceIP: true}}]";
    let one = resolved(&(maglev + &strategy("h", "kind: Mesh", source)));
    let route = one.route_from(WEB, "backend");
    assert_eq!(route.load_balancer.name(), "maglev");
    assert_eq!((route.hashing.slots, route.hashing.by_source), (Some(1021), true));
    assert!(route.http.is_none(), "an address needs no proxy");
    let other = one.route_from(WEB, "offers");
    assert_eq!(other.load_balancer.name(), "roundRobin");
    assert!(!other.hashing.by_source, "nothing goes by a hash");
}

#[test]
fn what_is_hashed_of_a_request_tells_requests_apart() {
    let backend = "kind: MeshService, name: backend";
    let by_header = "loadBalancer: {type: RingHash}, hashPolicies: [{type: Header, header: {name: x-user}, \
                     terminal: true}, {type: Connection, connection: {sourceIP: true}}]";
    let own = "type: MeshLoadBalancingStrategy\nmesh: default\nname: own\nspec:\n  targetRef: {kind: \
               Mesh}\n  to:\n  - targetRef: {kind: MeshHTTPRoute, name: api}\n    default: {hashPolicies: \
               [{type: QueryParameter, queryParameter: {name: u}}]}\n---\n";
    let alone = resolved(&strategy("s", backend, by_header));
    let rules = rules_of(alone.route_from(WEB, "backend"));
    assert!(rules.rules.is_empty());
    assert!(matches!(rules.otherwise.as_ref().unwrap().keys[0].of, KeyOf::Header(_)));
    let beside =
        resolved(&(strategy("s", backend, by_header) + own + &route("api", &below("/a", &to(V1)))));
    let rules = rules_of(beside.route_from(WEB, "backend"));
    assert_eq!(rules.rules[0].keys[0].of, KeyOf::Query("u".to_owned()));
    assert_eq!(rules.otherwise.as_ref().unwrap().keys.len(), 2);
    let redis = resolved(&strategy("s", "kind: MeshService, name: redis", by_header));
    let route = redis.route_from(WEB, "redis");
    assert_eq!((route.http.is_some(), route.hashing.by_source), (false, true));
}

#[test]
fn zones_are_used_in_the_order_of_the_failover_and_others_not_at_all() {
    let reals = |locality: &str| {
        let policy = strategy(
            "z",
            "kind: MeshService, name: backend",
            &format!("localityAwareness: {{{locality}}}"),
        );
        let in_zone = |zone: &str| {
            let settings = ResolveSettings { zone: Some(zone.to_owned()), ..settings() };
            resolve(&world(&policy), &settings).route_from(WEB, "backend").lines().remove(0)
        };
        [in_zone("east"), in_zone("north")]
    };
    let (east, both) = ("1 backend ok 10.0.0.21:80", "1 backend ok 10.0.0.21:80 10.0.0.22:80");
    let west = "1 backend ok 10.0.0.22:80";
    assert_eq!(reals("disabled: true"), [both, both]);
    assert_eq!(reals("crossZone: {failover: [{to: {type: Any}}]}"), [east, both]);
    let only = "crossZone: {failover: [{to: {type: Only, zones: [west]}}, {to: {type: Any}}]}";
    assert_eq!(reals(only), [east, west]);
    let none = "crossZone: {failover: [{from: {zones: [north]}, to: {type: None}}]}";
    assert_eq!(reals(none), [east, "1 backend empty"]);
    let except = "crossZone: {failover: [{to: {type: AnyExcept, zones: [west]}}]}";
    assert_eq!(reals(except), [east, east]);
}
