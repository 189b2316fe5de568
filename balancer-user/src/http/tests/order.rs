//! Several rules and routes together: which one takes a request (semantics 5.1, 5.3, 5.7, 4.4).

use super::{Asked, asked, exact, header};
use crate::http::{
    GrpcMatch, GrpcName, Hostname, Match, Order, PathMatch, Router, Rule, Rules, Segments,
    precedence::Age,
};

fn prefix(path: &str) -> Match {
    Match { path: Some(PathMatch::Segments(Segments::new(path))), ..Match::default() }
}

fn rule(origin: &str, matches: &[Match]) -> Rule {
    Rule { origin: origin.to_owned(), matches: matches.to_vec(), ..Rule::default() }
}

fn at(hosts: &[&str], rule: Rule) -> Rule {
    let hostnames = hosts.iter().map(|host| Hostname::new(host).unwrap()).collect();
    Rule { hostnames, ..rule }
}

fn router(order: Order, rules: Vec<Rule>) -> Router {
    Router::new(Rules { order, rules, otherwise: None }).unwrap()
}

fn taken_by<'r>(router: &'r Router, asked: &Asked) -> Option<&'r str> {
    router.find(&asked.request()).map(|found| found.rule.origin.as_str())
}

#[test]
fn rules_of_a_longer_hostname_go_before_longer_paths() {
    let router = router(
        Order::Gateway,
        vec![
            at(&["*.example.com"], rule("wildcard", &[prefix("/a/b/c"), prefix("/")])),
            at(&["a.example.com"], rule("exact", &[prefix("/a")])),
            at(&["*.b.example.com"], rule("longer wildcard", &[prefix("/")])),
            rule("any", &[prefix("/")]),
        ],
    );
    let of = |host: &str, path| taken_by(&router, &asked("GET", path).host(host));
    assert_eq!(of("a.example.com", "/a/b/c"), Some("exact"));
    assert_eq!(of("A.Example.COM:8080", "/a"), Some("exact"));
    assert_eq!(of("x.b.example.com", "/"), Some("longer wildcard"));
    assert_eq!(of("x.example.com", "/"), Some("wildcard"));
    assert_eq!(of("example.com", "/"), Some("any"));
    assert_eq!(of("", "/"), Some("any"));
}

#[test]
fn a_request_that_its_hostname_does_not_take_goes_to_the_next_one() {
    let router = router(
        Order::Gateway,
        vec![
            at(&["*.example.com"], rule("wildcard", &[prefix("/")])),
            at(&["a.example.com"], rule("exact", &[prefix("/a")])),
        ],
    );
    let of = |path| taken_by(&router, &asked("GET", path).host("a.example.com"));
    assert_eq!(of("/a"), Some("exact"));
    assert_eq!(of("/b"), Some("wildcard"));
}

#[test]
fn a_rule_for_several_hosts_is_found_by_each() {
    let hosts = ["a.example", "b.example", "a.example"];
    let router = router(Order::Gateway, vec![at(&hosts, rule("one", &[prefix("/")]))]);
    for host in ["a.example", "b.example"] {
        assert_eq!(taken_by(&router, &asked("GET", "/").host(host)), Some("one"));
    }
    assert_eq!(taken_by(&router, &asked("GET", "/").host("c.example")), None);
}

#[test]
fn a_host_of_a_more_specific_listener_goes_to_no_rule_of_another() {
    let except = vec![Hostname::new("*.b.example").unwrap()];
    let any = Rule { except: except.clone(), ..rule("any", &[prefix("/")]) };
    // As exact as can be, and of the other listener all the same.
    let exact = Rule { except, ..at(&["x.b.example"], rule("exact", &[prefix("/")])) };
    let own = at(&["*.b.example"], rule("own", &[prefix("/own")]));
    let router = router(Order::Gateway, vec![any, exact, own]);
    let of = |host: &str, path| taken_by(&router, &asked("GET", path).host(host));
    assert_eq!(of("a.example", "/"), Some("any"));
    assert_eq!(of("x.b.example", "/own"), Some("own"));
    assert_eq!(of("x.b.example", "/"), None);
    let asked = asked("GET", "/").host("x.b.example");
    let why = router.why(&asked.request());
    assert_eq!(
        why[0].differs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["host x.b.example is that of the listener for *.b.example"]
    );
}

#[test]
fn routes_of_both_kinds_stand_beside_each_other() {
    let call = GrpcMatch { service: Some(GrpcName::Exact("a.B".into())), method: None };
    let call = Match { path: Some(PathMatch::Grpc(call)), ..Match::default() };
    let any_call = rule("any call", &[Match::default()]);
    let router = router(
        Order::Gateway,
        vec![
            at(&["grpc.example"], any_call),
            at(&["grpc.example"], rule("call", &[call])),
            at(&["www.example"], rule("path", &[prefix("/a.B")])),
        ],
    );
    let of = |host| taken_by(&router, &asked("POST", "/a.B/Get").host(host));
    assert_eq!((of("grpc.example"), of("www.example")), (Some("call"), Some("path")));
    let other = asked("POST", "/other/Get").host("grpc.example");
    assert_eq!(taken_by(&router, &other), Some("any call"));
}

#[test]
fn between_equal_matches_the_older_route_takes_requests_then_the_first_name() {
    let aged = |origin: &str, created, name: &str| Rule {
        age: Age { created: Some(created), name: name.to_owned() },
        ..rule(origin, &[prefix("/")])
    };
    let of =
        |rules| taken_by(&router(Order::Gateway, rules), &asked("GET", "/")).map(str::to_owned);
    assert_eq!(
        of(vec![aged("young", 2.0, "a/a"), aged("old", 1.0, "b/b")]).as_deref(),
        Some("old")
    );
    assert_eq!(of(vec![aged("b", 1.0, "a/b"), aged("a", 1.0, "a/a")]).as_deref(), Some("a"));
    assert_eq!(of(vec![aged("1", 1.0, "a/a"), aged("2", 1.0, "a/a")]).as_deref(), Some("1"));
}

#[test]
fn the_matches_of_a_rule_are_placed_one_by_one() {
    let slow = Match { headers: vec![header("x-a", exact("1"))], ..prefix("/") };
    let router = router(
        Order::Mesh,
        vec![rule("both", &[slow, prefix("/a/b")]), rule("middle", &[prefix("/a")])],
    );
    let of = |path| taken_by(&router, &asked("GET", path).header("x-a", "1"));
    assert_eq!(of("/a/b"), Some("both"));
    assert_eq!(of("/a"), Some("middle"));
    assert_eq!(of("/"), Some("both"));
}

#[test]
fn a_traffic_route_takes_the_first_entry_however_special_the_others_are() {
    let bytes =
        |path: &str| Match { path: Some(PathMatch::Bytes(path.into())), ..Match::default() };
    let exactly = Match { path: Some(PathMatch::Exact("/a/b".into())), ..Match::default() };
    let router =
        router(Order::Listed, vec![rule("first", &[bytes("/a")]), rule("second", &[exactly])]);
    assert_eq!(taken_by(&router, &asked("GET", "/a/b")), Some("first"));
    assert_eq!(taken_by(&router, &asked("GET", "/abc")), Some("first"));
    assert_eq!(taken_by(&router, &asked("GET", "/b")), None);
}

#[test]
fn what_no_rule_takes_goes_where_the_rules_say() {
    let rules = |otherwise| Rules {
        order: Order::Mesh,
        rules: vec![rule("one", &[prefix("/a")])],
        otherwise,
    };
    let router = Router::new(rules(Some(rule("the service", &[])))).unwrap();
    assert_eq!(taken_by(&router, &asked("GET", "/b")), Some("the service"));
    assert_eq!(taken_by(&Router::new(rules(None)).unwrap(), &asked("GET", "/b")), None);
}

#[test]
fn dot_segments_lead_into_no_rule_that_they_only_seem_to_ask_for() {
    let rules = vec![rule("public", &[prefix("/public")]), rule("admin", &[prefix("/admin")])];
    let router = router(Order::Mesh, rules);
    for path in ["/public/../admin/x", "/public/%2e%2E/admin", "/./admin"] {
        assert_eq!(taken_by(&router, &asked("GET", path)), Some("admin"), "{path}");
    }
}

#[test]
fn calls_of_grpc_go_to_the_longest_service_and_method() {
    let call = |service: Option<&str>, method: Option<&str>| {
        let name = |text: &str| GrpcName::Exact(text.into());
        let call = GrpcMatch { service: service.map(name), method: method.map(name) };
        Match { path: Some(PathMatch::Grpc(call)), ..Match::default() }
    };
    let router = router(
        Order::Gateway,
        vec![
            rule("method", &[call(None, Some("Get"))]),
            rule("service", &[call(Some("shop.Catalog"), None)]),
            rule("both", &[call(Some("shop.Catalog"), Some("Get"))]),
        ],
    );
    let of = |path| taken_by(&router, &asked("POST", path));
    assert_eq!(of("/shop.Catalog/Get"), Some("both"));
    assert_eq!(of("/shop.Catalog/List"), Some("service"));
    assert_eq!(of("/shop.Cart/Get"), Some("method"));
    assert_eq!(of("/shop.Cart/List"), None);
    assert_eq!(of("/shop.Catalog/"), None);
}
