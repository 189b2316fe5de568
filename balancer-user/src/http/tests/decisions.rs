//! What is done with a request: rules whole, from the match to what backend and client see.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header::SET_COOKIE};

use super::{Asked, asked, evenly, exact, header, redirect};
use crate::http::{
    Answered, Backend, BackendId, Chance, Choice, Cookie, Cors, Decision, Destination, Filter,
    Forward, HeaderChanges, Host, HostRewrite, KeyOf, KeyPolicy, Match, Mirror, Nowhere, Order,
    Origin, PathMatch, PathRewrite, Readiness, Redirect, Router, Rule, Rules, Scheme, Segments,
    Sent, Share, Split, Timeouts,
};

const FIRST: Chance = Chance { backend: Choice::Turn(0), cookie: 7 };

fn prefix(path: &str) -> Match {
    Match { path: Some(PathMatch::Segments(Segments::new(path))), ..Match::default() }
}

fn backend(id: u32, weight: u32) -> Backend {
    Backend::new(Destination::Backend(BackendId(id)), weight)
}

fn rule(filters: Vec<Filter>) -> Rule {
    Rule {
        matches: vec![prefix("/old")],
        filters,
        split: Split::new(vec![backend(1, 1)]),
        ..Rule::default()
    }
}

fn router(order: Order, rules: Vec<Rule>) -> Router {
    Router::new(Rules { order, rules, otherwise: None }).unwrap()
}

fn one(rule: Rule) -> Router {
    router(Order::Gateway, vec![rule])
}

fn forward<'r>(router: &'r Router, asked: &Asked) -> Box<Forward<'r>> {
    match router.decide(&asked.request(), FIRST, |_| Readiness::Ready) {
        Decision::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn sent(rule: Rule, asked: &Asked) -> Sent {
    forward(&one(rule), asked).sent(&asked.request())
}

fn code(decision: &Decision<'_>) -> (Option<Nowhere>, u16) {
    match decision {
        Decision::Refuse(why, Answered { answer, .. }) => (Some(*why), answer.status.as_u16()),
        Decision::Redirect(Answered { answer, .. })
        | Decision::Respond(Answered { answer, .. }) => (None, answer.status.as_u16()),
        Decision::Forward(_) => (None, 200),
    }
}

fn changes(build: impl FnOnce(&mut HeaderChanges)) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    build(&mut changes);
    changes
}

#[test]
fn half_of_the_requests_to_an_invalid_backend_are_answered_with_500() {
    let split = Split::new(vec![backend(1, 50), Backend::new(Destination::Invalid, 50)]);
    let router = one(Rule { split, ..rule(vec![]) });
    let asked = asked("GET", "/old");
    let codes = evenly(100).map(|number| {
        let backend = Choice::Number(number);
        code(&router.decide(&asked.request(), Chance { backend, cookie: 0 }, |_| Readiness::Ready))
    });
    let (well, ill): (Vec<_>, Vec<_>) = codes.partition(|(_, code)| *code == 200);
    assert_eq!((well.len(), ill.len()), (50, 50));
    assert!(ill.iter().all(|one| *one == (Some(Nowhere::Invalid), 500)));
}

#[test]
fn what_leads_nowhere_has_its_code() {
    let split = |backends| Rule { split: Split::new(backends), ..rule(vec![]) };
    let of = |rule, path, ready| {
        code(&one(rule).decide(&asked("GET", path).request(), FIRST, |_| ready))
    };
    assert_eq!(
        of(split(vec![backend(1, 1)]), "/new", Readiness::Ready),
        (Some(Nowhere::NoRule), 404)
    );
    assert_eq!(of(split(vec![]), "/old", Readiness::Ready), (Some(Nowhere::NoBackend), 500));
    assert_eq!(
        of(split(vec![backend(1, 0)]), "/old", Readiness::Ready),
        (Some(Nowhere::NoBackend), 500)
    );
    assert_eq!(
        of(split(vec![backend(1, 1)]), "/old", Readiness::Empty),
        (Some(Nowhere::Empty), 503)
    );
    let invalid = of(split(vec![backend(1, 1)]), "/old", Readiness::Invalid);
    assert_eq!(invalid, (Some(Nowhere::Invalid), 500));
}

#[test]
fn a_call_that_no_rule_takes_is_unimplemented() {
    let router = router(Order::Gateway, vec![]);
    let call = asked("POST", "/a.B/Get").header("content-type", "application/grpc+proto");
    let decision = router.decide(&call.request(), FIRST, |_| Readiness::Ready);
    let Decision::Refuse(Nowhere::NoRule, Answered { answer, .. }) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (answer.status, &answer.headers["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("12"))
    );
}

#[test]
fn only_the_empty_backend_of_a_split_is_refused() {
    let split = Split::new(vec![backend(1, 1), backend(2, 1)]);
    let router = one(Rule { split, ..rule(vec![]) });
    let codes: Vec<_> = (0..2)
        .map(|turn| {
            let chance = Chance { backend: Choice::Turn(turn), cookie: 0 };
            code(&router.decide(&asked("GET", "/old").request(), chance, |id| {
                if id.0 == 1 { Readiness::Ready } else { Readiness::Empty }
            }))
            .1
        })
        .collect();
    assert!(codes.contains(&200) && codes.contains(&503), "{codes:?}");
}

#[test]
fn the_backend_sees_path_host_and_headers_as_filters_leave_them() {
    let filters = vec![
        Filter::RequestHeaders(changes(|it| {
            it.remove("x-debug").unwrap();
            it.set("x-env", "prod").unwrap();
            it.append("x-via", "edge").unwrap();
        })),
        Filter::Host(HostRewrite::Value(Host::new("b.internal").unwrap())),
        Filter::Path(PathRewrite::Segments("/v2".into())),
    ];
    let asked = asked("GET", "/old/x?y=z")
        .host("a.example")
        .header("x-debug", "1")
        .header("x-env", "dev")
        .header("x-via", "client");
    let sent = sent(rule(filters), &asked);
    assert_eq!((sent.path.as_str(), sent.host.as_deref()), ("/v2/x?y=z", Some("b.internal")));
    let mut headers = HeaderMap::new();
    headers.append("x-env", HeaderValue::from_static("prod"));
    headers.append("x-via", HeaderValue::from_static("client"));
    headers.append("x-via", HeaderValue::from_static("edge"));
    assert_eq!(sent.headers, headers);
}

#[test]
fn without_filters_the_backend_sees_what_was_asked() {
    let sent = sent(rule(vec![]), &asked("GET", "/old//x?").host("a.example:81"));
    assert_eq!((sent.path.as_str(), sent.host.as_deref()), ("/old//x?", Some("a.example:81")));
    assert!(sent.headers.is_empty());
}

#[test]
fn host_and_path_come_from_the_path_that_was_matched() {
    use crate::http::Substitution;
    let from = Substitution::new("^/old/([^/]+)/.*$", r"\1.internal").unwrap();
    let filters = vec![
        Filter::Path(PathRewrite::Full("/elsewhere".into())),
        Filter::Host(HostRewrite::FromPath(from)),
    ];
    let sent_to = |path: &str| sent(rule(filters.clone()), &asked("GET", path).host("a.example"));
    assert_eq!(sent_to("/old/t1/x").host.as_deref(), Some("t1.internal"));
    assert_eq!(sent_to("/old").host.as_deref(), Some("a.example"), "decision D8");
}

#[test]
fn a_changed_host_header_is_another_host() {
    let host = |build: fn(&mut HeaderChanges)| {
        let filters = vec![Filter::RequestHeaders(changes(build))];
        let sent = sent(rule(filters), &asked("GET", "/old").host("a.example"));
        assert!(!sent.headers.contains_key("host"));
        sent.host
    };
    assert_eq!(host(|it| it.set("HOST", "b").unwrap()).as_deref(), Some("b"));
    assert_eq!(host(|it| it.append("host", "b").unwrap()).as_deref(), Some("b"));
    assert_eq!(host(|it| it.remove("host").unwrap()).as_deref(), Some("a.example"));
}

#[test]
fn a_backend_outside_is_asked_for_by_its_own_name_unless_the_rule_names_one() {
    let outside = || Split::new(vec![Backend { own_host: true, ..backend(1, 1) }]);
    let asked = asked("GET", "/old").host("a.example");
    assert_eq!(sent(Rule { split: outside(), ..rule(vec![]) }, &asked).host, None);
    let named = Filter::Host(HostRewrite::Value(Host::new("b").unwrap()));
    let sent_named = sent(Rule { split: outside(), ..rule(vec![named]) }, &asked);
    assert_eq!(sent_named.host.as_deref(), Some("b"));
    let own = rule(vec![Filter::Host(HostRewrite::OfEndpoint)]);
    assert_eq!(sent(own, &asked).host, None);
}

#[test]
fn filters_of_the_chosen_backend_come_after_those_of_the_rule() {
    let set = |value: &str| Filter::RequestHeaders(changes(|it| it.set("x-a", value).unwrap()));
    let of = |id, value| Backend { filters: vec![set(value)], ..backend(id, 1) };
    let rule = Rule {
        split: Split::new(vec![of(1, "first"), of(2, "second")]),
        ..rule(vec![set("rule")])
    };
    let router = one(rule);
    let asked = asked("GET", "/old");
    for turn in 0..2 {
        let chance = Chance { backend: Choice::Turn(turn), cookie: 0 };
        let Decision::Forward(forward) =
            router.decide(&asked.request(), chance, |_| Readiness::Ready)
        else {
            panic!("both backends are ready")
        };
        let wanted = if forward.backend == BackendId(1) { "first" } else { "second" };
        assert_eq!(forward.sent(&asked.request()).headers["x-a"], wanted);
    }
}

#[test]
fn a_redirect_needs_no_backend() {
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        path: Some(PathRewrite::Segments("/new".into())),
        status: StatusCode::MOVED_PERMANENTLY,
        ..redirect()
    };
    let filters = vec![
        Filter::Redirect(redirect),
        Filter::ResponseHeaders(changes(|it| it.set("cache-control", "no-store").unwrap())),
    ];
    let router = one(Rule { split: Split::default(), ..rule(filters) });
    let asked = asked("GET", "/old/x?y").host("a.example");
    let decision = router.decide(&asked.request(), FIRST, |_| Readiness::Empty);
    let Decision::Redirect(Answered { answer, found }) = decision else { panic!("{decision:?}") };
    assert_eq!(answer.status, 301);
    assert_eq!(answer.headers["location"], "https://a.example/new/x?y");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(found.is_some());
}

#[test]
fn a_fixed_answer_is_given_without_a_backend() {
    let router = one(Rule {
        split: Split::default(),
        ..rule(vec![Filter::Respond(StatusCode::IM_A_TEAPOT)])
    });
    let decision = router.decide(&asked("GET", "/old").request(), FIRST, |_| Readiness::Ready);
    assert_eq!(code(&decision), (None, 418));
}

fn cors() -> Filter {
    Filter::Cors(Cors {
        origins: vec![Origin::new("https://shop.example")],
        methods: vec!["PUT".to_owned()],
        ..Cors::default()
    })
}

#[test]
fn a_preflight_request_is_answered_before_anything_else_is_done() {
    let router = one(rule(vec![Filter::Redirect(redirect()), cors()]));
    let preflight = asked("OPTIONS", "/old")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "PUT");
    let decision = router.decide(&preflight.request(), FIRST, |_| Readiness::Ready);
    let Decision::Respond(Answered { answer, .. }) = decision else { panic!("{decision:?}") };
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-methods"], "PUT");
}

#[test]
fn an_answer_says_who_may_read_it_whoever_gives_it() {
    let router = one(rule(vec![cors()]));
    let asked = asked("GET", "/old").header("origin", "https://shop.example");
    let mut headers = HeaderMap::new();
    forward(&router, &asked).answer(&mut headers);
    assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
    let decision = router.decide(&asked.request(), FIRST, |_| Readiness::Empty);
    let Decision::Refuse(Nowhere::Empty, Answered { answer, .. }) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(answer.headers["access-control-allow-origin"], "https://shop.example");
}

#[test]
fn copies_go_to_mirrors_with_the_changes_and_a_shadow_behind_the_host() {
    let mirror = |destination, shadow| {
        Filter::Mirror(Mirror { destination, share: Share::new(1, 4).unwrap(), shadow })
    };
    let filters = vec![
        mirror(Destination::Backend(BackendId(8)), true),
        mirror(Destination::Backend(BackendId(9)), false),
        mirror(Destination::Invalid, false),
        Filter::RequestHeaders(changes(|it| it.set("x-a", "1").unwrap())),
    ];
    let router = one(rule(filters));
    let asked = asked("GET", "/old").host("a.example:81");
    let forward = forward(&router, &asked);
    let copies: Vec<(u32, Option<String>, HeaderValue)> = forward
        .mirrors
        .iter()
        .map(|(id, mirror)| {
            let sent = forward.mirrored(mirror, &asked.request());
            (id.0, sent.host, sent.headers["x-a"].clone())
        })
        .collect();
    let one = HeaderValue::from_static("1");
    let shadow = Some("a.example-shadow:81".to_owned());
    assert_eq!(copies, [(8, shadow, one.clone()), (9, Some("a.example:81".to_owned()), one)]);
    assert!(forward.mirrors[0].1.share.takes(u64::MAX / 5));
}

#[test]
fn a_new_client_is_sent_its_cookie_beside_the_headers_of_the_rule() {
    let cookie = Cookie::new("sid", Some(Duration::ZERO), None).unwrap();
    let filters = vec![Filter::ResponseHeaders(changes(|it| {
        it.remove("server").unwrap();
        it.set("x-a", "1").unwrap();
    }))];
    let keys = vec![KeyPolicy { of: KeyOf::Cookie(cookie), terminal: false }];
    let router = one(Rule { keys, ..rule(filters) });
    let forward = forward(&router, &asked("GET", "/old"));
    assert!(forward.key.is_some());
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("x"));
    headers.insert(SET_COOKIE, HeaderValue::from_static("of=backend"));
    forward.answer(&mut headers);
    let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(cookies, ["of=backend", "sid=0000000000000007; HttpOnly"]);
    assert_eq!(headers["x-a"], "1");
    assert!(!headers.contains_key("server"));
}

#[test]
fn timeouts_of_the_rule_are_those_of_the_request() {
    let timeouts = Timeouts { request: Some(Duration::from_secs(10)), backend_request: None };
    let router = one(Rule { timeouts, ..rule(vec![]) });
    assert_eq!(forward(&router, &asked("GET", "/old")).timeouts, timeouts);
}

#[test]
fn a_prefix_that_was_not_matched_cannot_be_replaced() {
    let of = |matches: Vec<Match>| {
        let origin = "HTTPRoute shop/a: rule 0".to_owned();
        let filters = vec![Filter::Path(PathRewrite::Segments("/v2".into()))];
        let rules = vec![Rule { origin, matches, ..rule(filters) }];
        Router::new(Rules { order: Order::Gateway, rules, otherwise: None })
    };
    assert!(of(vec![prefix("/a"), prefix("/b")]).is_ok());
    let by_header = Match { headers: vec![header("x-a", exact("1"))], ..Match::default() };
    for matches in [vec![], vec![prefix("/a"), by_header]] {
        let error = of(matches).unwrap_err().to_string();
        assert!(
            error.starts_with("HTTPRoute shop/a: rule 0: a prefix is to be replaced"),
            "{error}"
        );
    }
}
