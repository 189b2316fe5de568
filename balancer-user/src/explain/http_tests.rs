//! Requests, and what is said of them.

use std::sync::Arc;

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Decision, Input, Layer, Query, QueryError, RequestQuery, explain};
use crate::{
    compile::{Assignment, Limits, compile},
    explain::tests::has_step,
    http::{
        self, BackendId, Destination, Filter, HeaderChanges, Host, Hostname, Match, Mirror, Order,
        PathMatch, PathRewrite, PortElse, Redirect, Rule, Rules, Scheme, Segments, Share, Split,
    },
    policy::PolicySet,
    resolve::{
        HttpRules, PolicyRef, Resolved, resolve,
        tests::world::{documents, settings},
    },
};

pub(super) const WORLD: &str = "
{type: Dataplane, mesh: default, name: web, networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: web, kuma.io/protocol: http}}]}}
---
{type: Dataplane, mesh: default, name: v1, networking: {address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v1}}]}}
---
{type: Dataplane, mesh: default, name: v2, networking: {address: 10.0.0.3, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v2}}]}}
---
{type: Dataplane, mesh: default, name: idle, networking: {address: 10.0.0.4, inbound: [{port: 80, state: NotReady, tags: {kuma.io/service: idle, kuma.io/protocol: http}}]}}
---
{type: Dataplane, mesh: default, name: plain, networking: {address: 10.0.0.5, inbound: [{port: 80, tags: {kuma.io/service: plain}}]}}
";

/// The world with a TrafficRoute of everybody to `backend`.
pub(super) fn with_conf(conf: &str) -> PolicySet {
    documents(&format!(
        "{WORLD}---\n{{type: TrafficRoute, mesh: default, name: shop, sources: [{{match: \
         {{kuma.io/service: '*'}}}}], destinations: [{{match: {{kuma.io/service: backend}}}}], \
         conf: {conf}}}\n"
    ))
}

pub(super) fn request(path: &str) -> RequestQuery {
    RequestQuery { path: Some(path.to_owned()), ..RequestQuery::default() }
}

pub(super) fn ask_resolved(
    set: &PolicySet,
    resolved: &Resolved,
    query: &Query,
) -> Result<Answer, QueryError> {
    let settings = settings();
    let tables = compile(resolved, &Assignment::default(), &Limits::default()).unwrap();
    explain(&Input { set, settings: &settings, resolved, tables: Some(&tables) }, query)
}

pub(super) fn query(request: Option<RequestQuery>) -> Query {
    Query { from: "web".into(), to: "backend".into(), request, ..Query::default() }
}

pub(super) fn ask(set: &PolicySet, request: impl Into<Option<RequestQuery>>) -> Answer {
    ask_resolved(set, &resolve(set, &settings()), &query(request.into())).unwrap()
}

/// The answer where every route has these rules, which lead to v1, v2, nobody's service and one
/// that has no endpoint that is ready.
pub(super) fn ask_rules(rules: Rules, query: &Query) -> Result<Answer, QueryError> {
    let to = |service: &str| format!("{{weight: 1, destination: {{kuma.io/service: {service}}}}}");
    let split: Vec<String> =
        ["'backend', version: v1", "'backend', version: v2", "nobody", "idle"].map(to).into();
    let set = with_conf(&format!(
        "{{destination: {{kuma.io/service: backend}}, http: [{{match: {{path: {{prefix: /}}}}, \
         split: [{}]}}]}}",
        split.join(", ")
    ));
    let mut resolved = resolve(&set, &settings());
    let policies = vec![policy("first"), policy("second")];
    let given_by = (0..rules.rules.len()).map(|at| at % 2).collect();
    let rules = Arc::new(rules);
    for route in &mut resolved.routes {
        if let Some(http) = &route.http {
            let (rules, policies) = (Arc::clone(&rules), policies.clone());
            let given_by = Vec::clone(&given_by);
            route.http =
                Some(Arc::new(HttpRules { policies, given_by, rules, ..HttpRules::clone(http) }));
        }
    }
    ask_resolved(&set, &resolved, query)
}

fn policy(name: &str) -> PolicyRef {
    PolicyRef { kind: "HTTPRoute".into(), mesh: String::new(), name: name.into() }
}

/// Names of [`ask_rules`]' backends by their number.
pub(super) const NAMES: [(&str, &str); 4] =
    [("backend", "v1"), ("backend", "v2"), ("nobody", ""), ("idle", "")];

fn to(id: u32, weight: u32) -> http::Backend {
    http::Backend::new(Destination::Backend(BackendId(id)), weight)
}

fn rule(origin: &str, path: &str, backends: Vec<http::Backend>) -> Rule {
    Rule {
        origin: origin.to_owned(),
        matches: vec![Match {
            path: Some(PathMatch::Segments(Segments::new(path))),
            ..Match::default()
        }],
        split: Split::new(backends),
        ..Rule::default()
    }
}

fn gateway(rules: Vec<Rule>) -> Rules {
    Rules { order: Order::Gateway, rules, otherwise: None }
}

fn answer(rules: Rules, request: RequestQuery) -> Answer {
    ask_rules(rules, &query(Some(request))).unwrap()
}

pub(super) fn value(answer: &Answer) -> Value {
    serde_json::to_value(answer).unwrap()
}

const OFFERS: &str = "{destination: {kuma.io/service: backend}, http: [
  {match: {method: {exact: GET}, path: {prefix: /offers}, headers: {x-canary: {exact: 'yes'}}},
   modify: {path: {rewritePrefix: /v2/offers}, host: {value: offers.internal},
            requestHeaders: {add: [{name: x-route, value: canary}, {name: x-b, value: '2', append: true}], remove: [{name: x-debug}]},
            responseHeaders: {add: [{name: cache-control, value: no-store}], remove: [{name: server}]}},
   split: [{weight: 9, destination: {kuma.io/service: '*', version: v1}}, {weight: 1, destination: {kuma.io/service: '*', version: v2}}, {weight: 0, destination: {kuma.io/service: plain}}]},
  {match: {path: {prefix: /offers}}, destination: {kuma.io/service: backend, version: v2}}]}";

#[test]
fn a_described_request_is_answered_by_the_rule_that_takes_it_in_the_words_of_the_contract() {
    let described = RequestQuery {
        method: Some("GET".into()),
        path: Some("/offers/7?page=2".into()),
        host: Some("shop.example".into()),
        headers: [("x-b", "1"), ("x-debug", "on"), ("X-Canary", "yes"), ("x-a", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let answer = ask(&with_conf(OFFERS), described);
    let mut value = value(&answer);
    let backends = value["backends"].take();
    value["steps"].take();
    assert_eq!(
        value,
        json!({
            "source": {"dataplane": "web", "address": "10.0.0.1"},
            "destination": {"service": "backend", "address": answer.destination.address},
            "protocol": "http", "layer": "l7",
            "policy": {"kind": "TrafficRoute", "mesh": "default", "name": "shop"},
            "rule": {"index": 0, "match": {
                "method": {"exact": "GET"}, "path": {"prefix": "/offers"},
                "headers": [{"name": "x-canary", "value": {"exact": "yes"}}]
            }},
            "decision": "forward",
            "backends": null,
            "load_balancer": {"type": "roundRobin", "slots": null},
            "request": {"method": "GET", "path": "/v2/offers/7?page=2", "host": "offers.internal",
                "headers": [["x-b", "1"], ["x-b", "2"], ["x-canary", "yes"], ["x-a", "1"], ["x-route", "canary"]]},
            "response": {"status": null, "headers": [["cache-control", "no-store"]], "removed": ["server"]},
            "steps": null
        })
    );
    assert_eq!(
        backends,
        json!([
            {"service": "backend", "tags": {"version": "v1"}, "weight": 9, "share": 0.9, "state": "ok",
             "reals": [{"address": "10.0.0.2:80", "share": 0.9}]},
            {"service": "backend", "tags": {"version": "v2"}, "weight": 1, "share": 0.1, "state": "ok",
             "reals": [{"address": "10.0.0.3:80", "share": 0.1}]},
            {"service": "plain", "tags": {}, "weight": 0, "share": 0.0, "state": "drained",
             "reals": [{"address": "10.0.0.5:80", "share": 0.0}]}
        ])
    );
    for words in [
        "request: GET /offers/7?page=2, host shop.example, header x-b: 1",
        "http: 2 rules with 2 matches, tried as they are written",
        "rule 0 (TrafficRoute shop: conf.http[0]) takes it (path beginning with `/offers`, method \
         `GET`, header x-canary `yes`); it is tried before the next one: it is listed first",
        "does: path: the matched bytes become `/v2/offers`",
        "conf.http[0].split[0].destination: kuma.io/service=* is the service called, backend",
        "weight 9 of 10, 90.00 %; 1 real: 10.0.0.2:80; the request is shown as it sees it",
        "backend plain: weight 0 of 10, so it takes no requests",
        "connections: this version has no proxy that carries HTTP rules out",
        "backend backend: weight 1 of 1, 251 of 251 slots; 2 reals",
    ] {
        has_step(&answer, words);
    }
}

#[test]
fn what_a_request_differs_in_is_said_of_every_match_before_the_one_that_takes_it() {
    let set = with_conf(OFFERS);
    let second = ask(&set, RequestQuery { method: Some("PUT".into()), ..request("/offersale") });
    assert_eq!(second.rule.as_ref().map(|rule| rule.index), Some(1));
    assert_eq!(second.backends[0].tags["version"], "v2");
    has_step(
        &second,
        "not rule 0 (TrafficRoute shop: conf.http[0]): method PUT is not `GET`; header x-canary is \
         not there",
    );
    let rest = ask(&set, request("/"));
    assert_eq!((rest.layer, rest.decision, &rest.rule), (Layer::L7, Decision::Forward, &None));
    assert_eq!(rest.policy.as_ref().unwrap().name, "shop");
    assert_eq!(rest.backends.len(), 1);
    has_step(&rest, "no match takes it; for the rest there is TrafficRoute shop: conf");
    let seen = rest.request.unwrap();
    assert_eq!((seen.method.as_str(), seen.host.as_str()), ("GET", "backend"));
    assert_eq!(rest.response, None);
}

#[test]
fn without_a_request_the_rules_are_listed_and_connections_are_answered_for() {
    let answer = ask(&with_conf(OFFERS), None);
    assert_eq!((answer.layer, answer.decision), (Layer::L7, Decision::Forward));
    assert_eq!((&answer.rule, &answer.request, &answer.response), (&None, &None, &None));
    assert_eq!(answer.backends.len(), 1);
    assert!(answer.load_balancer.as_ref().unwrap().slots.is_some(), "that of the table");
    for words in [
        "rule 1 (TrafficRoute shop: conf.http[1]) takes path beginning with `/offers`: backend \
         version=v2 100.00 %",
        "TrafficRoute shop: conf takes the rest: backend 100.00 %",
        "describe a request to see what becomes of it",
    ] {
        has_step(&answer, words);
    }
}

#[test]
fn the_host_of_a_request_that_names_none_is_what_was_dialled() {
    let set = with_conf(OFFERS);
    let resolved = resolve(&set, &settings());
    let host = |to: &str| {
        let query = Query { to: to.to_owned(), ..query(Some(request("/"))) };
        ask_resolved(&set, &resolved, &query).unwrap().request.unwrap().host
    };
    assert_eq!(host("backend"), "backend");
    assert_eq!(host("default/backend:80"), "backend");
    let vip = resolved.vips_of("backend")[0].key.addr;
    assert_eq!(host(&vip.to_string()), vip.ip().to_string(), "80 goes without saying");
}

#[test]
fn a_backend_that_is_not_there_keeps_its_share_and_is_answered_with_an_error() {
    let answer = |backends| {
        answer(gateway(vec![rule("HTTPRoute a: spec.rules[0]", "/", backends)]), request("/x"))
    };
    let states = |answer: &Answer| -> Vec<Value> {
        answer.backends.iter().map(|b| serde_json::to_value(b.state).unwrap()).collect()
    };
    let mixed = answer(vec![to(2, 6), to(0, 3), to(3, 1)]);
    assert_eq!(mixed.decision, Decision::Forward);
    assert_eq!(states(&mixed), ["invalid", "ok", "empty"]);
    assert!((mixed.backends[0].share - 0.6).abs() < 1e-9);
    assert_eq!(mixed.policy.as_ref().unwrap().name, "first");
    assert!(mixed.request.is_some(), "as v1 sees it");
    for words in [
        "no Dataplane of mesh default offers the service, so this share is answered with 500",
        "no ready IPv4 endpoint, so this share is answered with 503",
    ] {
        has_step(&mixed, words);
    }
    let refused = |answer: &Answer| {
        let response = answer.response.clone().unwrap();
        assert_eq!((answer.decision, &answer.request), (Decision::Reject, &None));
        (response.status.unwrap(), response.why.unwrap())
    };
    let empty = answer(vec![to(3, 1), to(0, 0)]);
    assert_eq!(refused(&empty), (503, "the backend has no endpoint that is ready".into()));
    let invalid = answer(vec![to(2, 2), to(3, 1)]);
    assert_eq!(refused(&invalid).0, 500);
    let none = answer(vec![to(0, 0)]);
    assert_eq!(refused(&none), (500, "the rule has no backend with a weight".into()));
    assert_eq!(none.load_balancer, None);
    has_step(&none, "the rule has no backend with a weight, so it is answered with 500");
    let broken = answer(vec![http::Backend::new(Destination::Invalid, 1)]);
    assert_eq!((refused(&broken).0, broken.backends[0].service.as_str()), (500, ""));
}

#[test]
fn what_no_rule_takes_is_answered_with_404_or_in_grpc() {
    let rules = || gateway(vec![rule("r", "/api", vec![to(0, 1)])]);
    let http = answer(rules(), request("/other"));
    assert_eq!((http.decision, &http.policy, &http.rule), (Decision::Reject, &None, &None));
    assert_eq!(http.response.as_ref().unwrap().status, Some(404));
    has_step(&http, "not rule 0 (r): path /other is neither `/api` nor below it");
    has_step(&http, "no rule takes the request, so it is answered with 404");
    let headers = vec![("content-type".into(), "application/grpc".into())];
    let grpc = answer(rules(), RequestQuery { headers, ..request("/other") });
    let response = grpc.response.as_ref().unwrap();
    assert_eq!(response.status, Some(200));
    assert!(response.headers.contains(&("grpc-status".to_owned(), "12".to_owned())));
    has_step(&grpc, "answered with status 12 of gRPC");
}

#[test]
fn a_redirect_says_where_it_leads_and_asks_no_backend() {
    let mut away = rule("r", "/old", Vec::new());
    away.filters.push(Filter::Redirect(Redirect {
        scheme: Some(Scheme::Https),
        host: Some(Host::new("new.example").unwrap()),
        port: None,
        port_else: PortElse::Listener,
        path: Some(PathRewrite::Segments("/new".into())),
        status: StatusCode::MOVED_PERMANENTLY,
    }));
    let answer = answer(gateway(vec![away]), request("/old/x?y=1"));
    assert_eq!(answer.decision, Decision::Redirect);
    assert!(answer.backends.is_empty() && answer.request.is_none());
    assert_eq!(answer.load_balancer, None);
    let location = "https://new.example/new/x?y=1".to_owned();
    let response = answer.response.as_ref().unwrap();
    assert_eq!((response.status, response.location.as_ref()), (Some(301), Some(&location)));
    assert_eq!(response.headers, [("location".to_owned(), location)]);
    has_step(&answer, "does: redirect: 301 with scheme https, host `new.example`");
}

#[test]
fn fixed_answers_and_preflight_requests_are_answered_without_a_backend() {
    let mut fixed = rule("r", "/", vec![to(0, 1)]);
    fixed.filters.push(Filter::Respond(StatusCode::IM_A_TEAPOT));
    let answered = answer(gateway(vec![fixed]), request("/"));
    assert_eq!(answered.decision, Decision::Respond);
    assert_eq!(answered.response.as_ref().unwrap().status, Some(418));
    let mut cors = rule("r", "/", vec![to(0, 1)]);
    let origins = vec![http::Origin::new("https://a.example")];
    cors.filters.push(Filter::Cors(http::Cors { origins, ..http::Cors::default() }));
    let preflight = RequestQuery {
        method: Some("OPTIONS".into()),
        headers: vec![
            ("origin".into(), "https://a.example".into()),
            ("access-control-request-method".into(), "PUT".into()),
        ],
        ..request("/")
    };
    let answered = answer(gateway(vec![cors]), preflight);
    assert_eq!((answered.decision, answered.backends.len()), (Decision::Respond, 0));
    assert_eq!(answered.response.as_ref().unwrap().status, Some(204));
    has_step(&answered, "it is a preflight request (CORS), answered without a backend");
}

#[test]
fn the_request_is_shown_as_the_backend_with_the_largest_share_sees_it() {
    let own = |value: &str| {
        let mut changes = HeaderChanges::default();
        changes.set("x-v", value).unwrap();
        vec![Filter::RequestHeaders(changes)]
    };
    let mut split = rule(
        "r",
        "/",
        vec![
            http::Backend { filters: own("1"), ..to(0, 1) },
            http::Backend { filters: own("2"), ..to(1, 3) },
        ],
    );
    split.filters.push(Filter::Mirror(Mirror {
        destination: Destination::Backend(BackendId(0)),
        share: Share::ALL,
        shadow: false,
    }));
    let answer = answer(gateway(vec![split]), request("/"));
    assert_eq!(answer.request.as_ref().unwrap().headers, [("x-v".to_owned(), "2".to_owned())]);
    has_step(&answer, "does: mirror: a copy of every request goes to backend version=v1");
    has_step(&answer, "10.0.0.2:80; of its own: request headers: x-v becomes `1`");
    has_step(
        &answer,
        "10.0.0.3:80; of its own: request headers: x-v becomes `2`; the request is shown as it \
         sees it, since its share is the largest",
    );
}

#[test]
fn all_lists_every_match_in_order_of_precedence_with_what_its_rule_does_to_a_request_it_takes() {
    let host =
        |rule: Rule, host: &str| Rule { hostnames: vec![Hostname::new(host).unwrap()], ..rule };
    let mut long = rule("b", "/api/v2", vec![to(0, 1), to(1, 1)]);
    long.filters.push(Filter::Path(PathRewrite::Segments("/".into())));
    let two = rule("c", "/x", vec![to(2, 1)]).matches;
    let mut first = rule("a", "/api", vec![to(0, 1)]);
    first.matches.extend(two);
    let rules = Rules {
        otherwise: Some(Rule { split: Split::new(vec![to(3, 1)]), ..Rule::default() }),
        ..gateway(vec![
            first,
            host(long, "*.example"),
            host(rule("d", "/", vec![]), "shop.example"),
        ])
    };
    let query = Query { all: true, ..query(Some(request("/api/7?q=1"))) };
    let answer = ask_rules(rules, &query).unwrap();
    let routes = answer.routes.as_ref().unwrap();
    let told: Vec<(String, String, Option<usize>, Option<&str>)> = routes
        .iter()
        .map(|route| {
            let rule = route.rule.as_ref().unwrap();
            (
                rule.hostname.clone(),
                route.matches.as_ref().map_or("-".to_owned(), ToString::to_string),
                rule.rule,
                route.request.as_ref().map(|request| request.path.as_str()),
            )
        })
        .collect();
    let line = |hostname: &str, matched: &str, rule, path| {
        (hostname.to_owned(), matched.to_owned(), rule, path)
    };
    assert_eq!(
        told,
        [
            line("shop.example", "path `/` and below", Some(2), None),
            line("*.example", "path `/api/v2` and below", Some(1), Some("/?q=1")),
            line("*", "path `/api` and below", Some(0), Some("/api/7?q=1")),
            line("*", "path `/x` and below", Some(0), Some("/x?q=1")),
            line("*", "-", None, None),
        ]
    );
    let seen = routes[1].request.as_ref().unwrap();
    assert_eq!(seen.host, "any.example");
    let rule = routes[1].rule.as_ref().unwrap();
    assert_eq!(rule.filters, ["path: the matched segments become `/`"]);
    assert_eq!(rule.policy.as_ref().unwrap().name, "second");
    assert_eq!(routes[1].backends.len(), 2);
    let decision = |at: usize| routes[at].rule.as_ref().unwrap().decision;
    assert_eq!((decision(0), decision(4)), (Some(Decision::Reject), Some(Decision::Reject)));
    assert_eq!(routes[4].response.as_ref().unwrap().status, Some(503));
}

#[test]
fn many_rules_are_told_in_part_and_counted() {
    let rules = gateway((0..30).map(|n| rule("r", &format!("/p{n}"), vec![to(0, 1)])).collect());
    let asked = answer(rules.clone(), request("/"));
    has_step(&asked, "http: 10 more do not take it");
    let listed = ask_rules(rules, &query(None)).unwrap();
    has_step(&listed, "http: 10 more come after these; --all has them");
    has_step(&listed, "a request that none of them takes is answered with 404");
}

#[test]
fn a_request_that_no_client_could_send_is_refused_whatever_is_dialled() {
    let set = with_conf(OFFERS);
    let resolved = resolve(&set, &settings());
    for to in ["backend", "web", "192.0.2.1:80"] {
        let query = Query { to: to.into(), ..query(Some(request("offers"))) };
        let error = ask_resolved(&set, &resolved, &query).unwrap_err();
        assert!(error.message.contains("must begin with /"), "{error}");
    }
}
