//! TrafficRoutes as they are read, carried out (semantics 3.8, 3.9).

use crate::{
    http::{
        Backend, BackendId, Chance, Choice, Decision, Destination, Readiness, Router, Rules, Sent,
        tests::{Asked, asked},
    },
    policy::{
        ReadOptions, SourceText, SplitEntry, TrafficRouteConf,
        http::{HeaderAdd, HostRewrite, HttpMatch, StringMatcher},
        read,
    },
    resolve::http::{Refused, traffic_route::traffic_route},
};

const CHANCE: Chance = Chance { backend: Choice::Turn(0), cookie: 0 };

fn conf(text: &str) -> TrafficRouteConf {
    let body = format!(
        "type: TrafficRoute\nname: shop\nmesh: default\n\
         sources: [{{match: {{kuma.io/service: '*'}}}}]\n\
         destinations: [{{match: {{kuma.io/service: shop}}}}]\nconf: {text}\n"
    );
    let text = SourceText { name: "shop.yaml".into(), text: body.into() };
    let reading = read(vec![text], &ReadOptions::default());
    assert!(reading.report.valid(), "{:#?}", reading.report);
    reading.set.traffic_routes[0].conf.clone()
}

/// A service is called by one letter, and its backend is numbered by it.
fn by_letter(entry: &SplitEntry) -> Backend {
    let letter = entry.destination["kuma.io/service"].as_bytes()[0];
    let destination = match letter {
        b'x' => Destination::Invalid,
        letter => Destination::Backend(BackendId(u32::from(letter))),
    };
    Backend::new(destination, entry.weight)
}

fn lowered(conf: &TrafficRouteConf) -> (Rules, Vec<Refused>) {
    let mut refused = Vec::new();
    let rules = traffic_route("shop", conf, &mut refused, by_letter);
    (rules, refused)
}

fn router(text: &str) -> Router {
    Router::new(lowered(&conf(text)).0).unwrap()
}

/// The letter of the service that takes a request, and what it sees.
fn taken(router: &Router, asked: &Asked) -> (char, Sent) {
    match router.decide(&asked.request(), CHANCE, |_| Readiness::Ready) {
        Decision::Forward(to) => (char::from_u32(to.backend.0).unwrap(), to.sent(&asked.request())),
        other => panic!("{other:?}"),
    }
}

const SHOP: &str = r"
  destination: {kuma.io/service: z}
  http:
  - match: {method: {exact: GET}, path: {prefix: /offers}, headers: {X-Canary: {regex: '^(yes|1)$'}}}
    modify:
      path: {rewritePrefix: /v2/offers}
      host: {value: offers.internal}
      requestHeaders:
        add:
        - {name: x-route, value: canary}
        - {name: x-trace, value: hop, append: true}
        remove: [{name: x-debug}, {name: x-route}]
      responseHeaders: {add: [{name: cache-control, value: no-store}]}
    destination: {kuma.io/service: a}
  - match: {path: {regex: '/tenants/[^/]+/.*'}}
    modify:
      path: {regex: {pattern: '^/tenants/([^/]+)(/.*)$', substitution: '/t-\1\2'}}
      host: {fromPath: {pattern: '^/tenants/([^/]+)/.*$', substitution: '\1.tenant.internal'}}
    destination: {kuma.io/service: b}
  - match: {path: {prefix: /offers}}
    modify: {path: {rewritePrefix: /}}
    destination: {kuma.io/service: c}
";

#[test]
fn the_first_entry_that_matches_takes_the_request_and_the_outer_split_the_rest() {
    let router = router(SHOP);
    let of = |asked: &Asked| taken(&router, asked).0;
    assert_eq!(of(&asked("GET", "/offers/7").header("x-canary", "yes")), 'a');
    assert_eq!(of(&asked("GET", "/offers/7").header("x-canary", "yes!")), 'c');
    assert_eq!(of(&asked("PUT", "/offers/7").header("x-canary", "yes")), 'c');
    assert_eq!(of(&asked("GET", "/offersale")), 'c');
    assert_eq!(of(&asked("GET", "/tenants/t1/x")), 'b');
    assert_eq!(of(&asked("GET", "/tenants/t1")), 'z');
    assert_eq!(of(&asked("GET", "/")), 'z');
}

#[test]
fn an_entry_changes_headers_host_and_path_in_this_order() {
    let asked = asked("GET", "/offers/7?q")
        .host("shop.example")
        .header("x-canary", "1")
        .header("x-debug", "1")
        .header("x-route", "client")
        .header("x-route", "client too")
        .header("x-trace", "first");
    let (_, sent) = taken(&router(SHOP), &asked);
    assert_eq!(sent.path, "/v2/offers/7?q");
    assert_eq!(sent.host.as_deref(), Some("offers.internal"));
    let values = |name: &str| sent.headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values("x-route"), ["canary"]);
    assert_eq!(values("x-trace"), ["first", "hop"]);
    assert!(values("x-debug").is_empty());
}

#[test]
fn a_prefix_is_rewritten_as_text_and_a_pattern_by_its_groups() {
    let router = router(SHOP);
    let path = |path: &str| taken(&router, &asked("GET", path).host("h")).1.path;
    assert_eq!(path("/offers/7"), "//7");
    assert_eq!(path("/tenants/t1/a/b?c=d"), "/t-t1/a/b?c=d");
    let host = taken(&router, &asked("GET", "/tenants/t1/a").host("h")).1.host;
    assert_eq!(host.as_deref(), Some("t1.tenant.internal"));
}

#[test]
fn an_entry_without_match_takes_everything() {
    let router = router("{http: [{destination: {kuma.io/service: a}}]}");
    assert_eq!(taken(&router, &asked("GET", "/any")).0, 'a');
    assert!(router.rules().otherwise.is_none());
}

#[test]
fn weights_are_those_of_the_split_and_invalid_ones_keep_their_share() {
    let (rules, _) = lowered(&conf(
        "{split: [{weight: 3, destination: {kuma.io/service: a}}, \
          {weight: 0, destination: {kuma.io/service: b}}, \
          {weight: 1, destination: {kuma.io/service: x}}]}",
    ));
    let split = &rules.otherwise.as_ref().unwrap().split;
    assert_eq!(split.shares().collect::<Vec<_>>(), [0.75, 0.0, 0.25]);
    assert_eq!(split.backends()[2].destination, Destination::Invalid);
}

#[test]
fn what_is_chosen_by_hash_is_chosen_by_the_address_of_the_client() {
    let key = |load_balancer: &str, client: &str| {
        let conf =
            format!("{{destination: {{kuma.io/service: a}}, loadBalancer: {load_balancer}}}");
        let router = router(&conf);
        match router
            .decide(&asked("GET", "/").client(client).request(), CHANCE, |_| Readiness::Ready)
        {
            Decision::Forward(to) => to.key,
            other => panic!("{other:?}"),
        }
    };
    for hashed in ["{maglev: {}}", "{ringHash: {hashFunction: XX_HASH}}"] {
        assert!(key(hashed, "10.0.0.1").is_some());
        assert_ne!(key(hashed, "10.0.0.1"), key(hashed, "10.0.0.2"));
    }
    assert_eq!(key("{roundRobin: {}}", "10.0.0.1"), None);
}

/// What validation lets pass.
#[test]
fn what_cannot_be_carried_out_is_refused_with_its_field() {
    let mut broken = conf(SHOP);
    let first = &mut broken.http[0];
    let exact = |text: &str| StringMatcher::Exact(text.to_owned());
    first.matches = HttpMatch {
        headers: [("a b".to_owned(), exact("")), ("x-a".to_owned(), exact("1"))].into(),
        ..HttpMatch::default()
    };
    let add = |name: &str, value: &str| HeaderAdd {
        name: name.to_owned(),
        value: value.to_owned(),
        append: true,
    };
    first.modify.request_headers.add = vec![add("ä", "1"), add("x-a", "1\n2")];
    first.modify.response_headers.remove = vec!["a b".to_owned()];
    first.modify.host = Some(HostRewrite::Value("a b".to_owned()));
    let (rules, refused) = lowered(&broken);
    let fields: Vec<&str> = refused.iter().map(|refused| refused.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "conf.http[0].match.headers[\"a b\"]",
            "conf.http[0].modify.requestHeaders.add[0].name",
            "conf.http[0].modify.requestHeaders.add[1].value",
            "conf.http[0].modify.host.value",
            "conf.http[0].modify.responseHeaders.remove[0].name",
        ]
    );
    assert!(refused[0].why.starts_with("`a b` is no name of a header"), "{}", refused[0]);
    assert_eq!(rules.rules[0].matches[0].headers.len(), 1, "the others are carried out");
}
