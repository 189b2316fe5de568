use proptest::prelude::*;

use super::{
    super::http_testing::{FIRST, filtering, grpc, matching, of_rule, read, remarks, route, ruled},
    *,
};
use crate::policy::{
    gateway::SessionToken,
    http_route::{HeaderMatch, HeaderValueMatch, Method, QueryMatch, TextMatch},
    testing::{LENIENT, errors, holds, nearly, object, port, reading},
};

#[test]
fn a_route_is_read_with_its_defaults() {
    let body = route(
        "hostnames: [www.shop.example.com, '*.example.org'], rules: [{name: canary, matches: [{path: {type: PathPrefix, value: /echo/}, headers: [{name: X-Canary, value: 'yes'}]}, {path: {type: Exact, value: /echo/canary}, queryParams: [{name: v, value: '2'}], method: GET}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Via, value: edge}]}}], timeouts: {request: 10s, backendRequest: 2s}, backendRefs: [{name: echo-v1, port: 80, weight: 50}, {name: echo-v2, namespace: data, port: 8080}]}]",
    );
    let read_route = read(&body);
    assert_eq!(read_route.hostnames, ["www.shop.example.com", "*.example.org"]);
    assert_eq!(read_route.parents[0].name, "edge");
    let rule = &read_route.rules[0];
    assert_eq!((rule.field.as_str(), rule.name.as_deref()), (FIRST, Some("canary")));
    assert_eq!(rule.matches[1].field, "spec.rules[0].matches[1]");
    assert_eq!(
        rule.matches[0].value,
        RequestMatch {
            path: Some(PathMatch::Prefix("/echo".to_owned())),
            method: None,
            headers: vec![HeaderMatch {
                name: "x-canary".to_owned(),
                value: HeaderValueMatch::Exact("yes".to_owned())
            }],
            query: vec![],
        }
    );
    assert_eq!(
        rule.matches[1].value,
        RequestMatch {
            path: Some(PathMatch::Exact("/echo/canary".to_owned())),
            method: Some(Method::Get),
            headers: vec![],
            query: vec![QueryMatch {
                name: "v".to_owned(),
                value: TextMatch::Exact("2".to_owned())
            }],
        }
    );
    let [first, second] = &rule.backends[..] else { panic!("two backends") };
    assert_eq!((first.to.weight, first.to.namespace.as_str()), (50, "shop"));
    assert_eq!((second.to.weight, second.to.namespace.as_str()), (1, "data"));
    assert_eq!(second.to.port, Some(port(8080)));
    assert_eq!(
        rule.timeouts,
        Timeouts { request_ms: Some(10_000), backend_request_ms: Some(2_000) }
    );
    assert_eq!(remarks(&body), [""; 0]);
    for version in ["v1beta1", "v1"] {
        let body = body.replace("io/v1\n", &format!("io/{version}\n"));
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{version}");
    }
    let old = body.replace("io/v1\n", "io/v1alpha2\n");
    assert_eq!(errors(&old, &LENIENT), ["apiVersion"]);
}

#[test]
fn what_is_not_given_takes_every_request() {
    let every = http_match::every_path();
    for body in [
        ruled("name: a"),
        matching("[]"),
        matching("[{}]"),
        matching("[{path: {}}]"),
        matching("[{path: {value: /}}]"),
        matching("[{path: {type: PathPrefix}}]"),
    ] {
        assert_eq!(read(&body).rules[0].matches[0].value, every, "{body}");
    }
    let absent = object(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        "metadata: {name: a}",
        "{parentRefs: [{name: e}]}",
    );
    let rules = read(&absent).rules;
    assert_eq!((rules[0].matches[0].value.clone(), rules[0].backends.len()), (every, 0));
    assert_eq!(remarks(&absent), ["spec.rules"]);
    assert_eq!(
        read(&matching("[{path: {type: Exact}}]")).rules[0].matches[0].value.path,
        Some(PathMatch::Exact("/".to_owned()))
    );
}

#[test]
fn what_is_wrong_with_a_route_is_said_at_its_field() {
    let many = |what: &str, count: usize| vec![what; count].join(", ");
    let hosts = |hosts: &str| of_rule(&route(&format!("hostnames: [{hosts}]")));
    assert_eq!(hosts("10.0.0.1"), ["spec.hostnames[0]"]);
    assert_eq!(hosts("'2001:db8::1'"), ["spec.hostnames[0]"]);
    assert_eq!(hosts("'*'"), ["spec.hostnames[0]"]);
    assert_eq!(hosts("'a.*.com'"), ["spec.hostnames[0]"]);
    assert_eq!(hosts("A.com"), ["spec.hostnames[0]"]);
    assert_eq!(hosts("'a.com:80'"), ["spec.hostnames[0]"]);
    assert_eq!(hosts(&many("a.com", 17)), ["spec.hostnames"]);
    let rules = |rules: &str| of_rule(&route(&format!("rules: [{rules}]")));
    assert_eq!(rules(&many("{filters: []}", 17)), ["spec.rules"]);
    assert_eq!(rules("{name: a}, {name: a}"), ["spec.rules[1].name"]);
    assert_eq!(rules("{name: A}"), ["name"]);
    assert_eq!(rules("{backendRef: []}"), ["backendRef"]);
    let distinct = |count: usize, of: &str| {
        let all: Vec<String> =
            (0..count).map(|i| format!("{{path: {{value: /{of}{i}}}}}")).collect();
        format!("{{matches: [{}]}}", all.join(", "))
    };
    assert_eq!(rules(&distinct(65, "a")), ["matches"]);
    assert_eq!(rules(&format!("{}, {}", distinct(64, "a"), distinct(64, "b"))), [""; 0]);
    assert_eq!(
        rules(&format!("{}, {}, {}", distinct(64, "a"), distinct(64, "b"), distinct(1, "c"))),
        ["spec.rules"]
    );
    assert_eq!(of_rule(&route("hostname: a")), ["spec.hostname"]);
    assert_eq!(of_rule(&route("parentRef: a")), ["spec.parentRef"]);
    let twice = object(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        "metadata: {name: a}",
        "{parentRefs: [{name: e}, {name: e}]}",
    );
    assert_eq!(errors(&twice, &LENIENT), ["spec.parentRefs[1]"]);
}

#[test]
fn what_is_wrong_with_matches_is_said_at_their_field() {
    let cases: &[(&str, &[&str])] = &[
        ("[{path: {type: Prefix, value: /a}}]", &["path.type"]),
        ("[{path: {value: a}}]", &["path.value"]),
        ("[{path: {value: ''}}]", &["path.value"]),
        ("[{path: {value: /a//b}}]", &["path.value"]),
        ("[{path: {value: /a/./b}}]", &["path.value"]),
        ("[{path: {value: /a/../b}}]", &["path.value"]),
        ("[{path: {value: /a/..}}]", &["path.value"]),
        ("[{path: {value: /a/.}}]", &["path.value"]),
        ("[{path: {value: '/a%2fb'}}]", &["path.value"]),
        ("[{path: {value: '/a%2Fb'}}]", &["path.value"]),
        ("[{path: {value: '/a#b'}}]", &["path.value"]),
        ("[{path: {value: '/a?b'}}]", &["path.value"]),
        ("[{path: {value: '/a b'}}]", &["path.value"]),
        ("[{path: {value: '/a%zz'}}]", &["path.value"]),
        ("[{path: {value: '/a%2'}}]", &["path.value"]),
        ("[{path: {value: /ä}}]", &["path.value"]),
        ("[{path: {type: Exact, value: '/a%20b/...'}}]", &[]),
        ("[{path: {type: RegularExpression, value: '('}}]", &["path.value"]),
        ("[{path: {type: RegularExpression}}]", &["path.value"]),
        ("[{method: get}]", &["method"]),
        ("[{headers: [{value: a}]}]", &["headers[0].name"]),
        ("[{headers: [{name: a}]}]", &["headers[0].value"]),
        ("[{headers: [{name: a, value: ''}]}]", &["headers[0].value"]),
        ("[{headers: [{name: ':path', value: a}]}]", &["headers[0].name"]),
        ("[{headers: [{name: a, type: Present}]}]", &["headers[0].type", "headers[0].value"]),
        ("[{headers: [{name: a, type: RegularExpression, value: '('}]}]", &["headers[0].value"]),
        ("[{queryParams: [{name: 'a b', value: a}]}]", &["queryParams[0].name"]),
        ("[{queryParams: [{name: a}]}]", &["queryParams[0].value"]),
        ("[{queryParams: [{name: a, type: Prefix, value: b}]}]", &["queryParams[0].type"]),
        ("[{queryParam: []}]", &["queryParam"]),
    ];
    for (matches, fields) in cases {
        let found = of_rule(&matching(matches));
        let found: Vec<_> =
            found.iter().map(|f| f.strip_prefix("matches[0].").unwrap_or(f)).collect();
        assert_eq!(found, *fields, "{matches}");
    }
    let long = |path: usize| format!("[{{path: {{value: /{}}}}}]", "a".repeat(path));
    assert_eq!(of_rule(&matching(&long(1023))), [""; 0]);
    assert_eq!(of_rule(&matching(&long(1024))), ["matches[0].path.value"]);
    let header = format!("[{{headers: [{{name: a, value: {}}}]}}]", "a".repeat(4097));
    assert_eq!(of_rule(&matching(&header)), ["matches[0].headers[0].value"]);
    let query = format!("[{{queryParams: [{{name: a, value: {}}}]}}]", "a".repeat(1025));
    assert_eq!(of_rule(&matching(&query)), ["matches[0].queryParams[0].value"]);
    let headers: Vec<String> = (0..17).map(|i| format!("{{name: h{i}, value: a}}")).collect();
    for list in ["headers", "queryParams"] {
        let many = format!("[{{{list}: [{}]}}]", headers.join(", "));
        assert_eq!(of_rule(&matching(&many)), [format!("matches[0].{list}")]);
    }
}

#[test]
fn of_equivalent_names_the_first_counts() {
    let body = matching(
        "[{headers: [{name: A, value: b}, {name: a, value: c}], queryParams: [{name: A, value: b}, {name: a, value: c}, {name: A, value: d}]}]",
    );
    assert_eq!(
        remarks(&body),
        [format!("{FIRST}.matches[0].headers[1]"), format!("{FIRST}.matches[0].queryParams[2]")]
    );
    let request = read(&body).rules[0].matches[0].value.clone();
    assert_eq!(request.headers.len(), 1);
    assert_eq!(request.headers[0].value, HeaderValueMatch::Exact("b".to_owned()));
    assert_eq!(request.query.len(), 2);
}

#[test]
fn what_is_wrong_with_backends_is_said_at_their_field() {
    let backends =
        |backends: &str| of_rule(&route(&format!("rules: [{{backendRefs: [{backends}]}}]")));
    let field = |name: &str| vec![format!("backendRefs[0]{name}")];
    assert_eq!(backends("{port: 80}"), field(".name"));
    assert_eq!(backends("{name: a}"), field(".port"));
    assert_eq!(backends("{name: a, port: 0}"), field(".port"));
    assert_eq!(backends("{name: a, port: 80, weight: 1000001}"), field(".weight"));
    assert_eq!(backends("{name: a, port: 80, weight: -1}"), field(".weight"));
    assert_eq!(backends("{name: a, port: 80, namespace: A}"), field(".namespace"));
    assert_eq!(backends("{name: a, port: 80, filters: [{type: CORS}]}"), field(".filters[0].cors"));
    assert_eq!(backends("{kind: Pool, group: example.com, name: a}"), [""; 0]);
    let many: Vec<String> = (0..17).map(|i| format!("{{name: a{i}, port: 80}}")).collect();
    assert_eq!(backends(&many.join(", ")), ["backendRefs"]);
    let route = read(&route(
        "rules: [{backendRefs: [{name: a, port: 80, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Server]}}]}]}]",
    ));
    assert_eq!(route.rules[0].backends[0].filters.len(), 1);
}

#[test]
fn what_is_surely_not_meant_is_a_warning() {
    let cases = [
        (route("rules: [{}]"), "spec.rules[0].backendRefs"),
        (route("rules: []"), "spec.rules"),
        (
            route("rules: [{backendRefs: [{name: a, port: 80, weight: 0}]}]"),
            "spec.rules[0].backendRefs",
        ),
        (
            route(
                "rules: [{matches: [{method: GET}], backendRefs: [{name: a, port: 80}]}, {matches: [{method: PUT}, {method: GET}], backendRefs: [{name: b, port: 80}]}]",
            ),
            "spec.rules[1].matches[1]",
        ),
        (ruled("sessionPersistence: {sessionName: s}"), "spec.rules[0].sessionPersistence"),
        (
            ruled("filters: [{type: URLRewrite, urlRewrite: {}}]"),
            "spec.rules[0].filters[0].urlRewrite",
        ),
        (
            ruled("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]"),
            "spec.rules[0].filters[0].requestHeaderModifier",
        ),
        (
            ruled(
                "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: a}}]",
            ),
            "spec.rules[0].filters[0].extensionRef",
        ),
        (
            ruled("filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]"),
            "spec.rules[0].filters[0].externalAuth",
        ),
        (ruled("filters: [{type: CORS, cors: {}}]"), "spec.rules[0].filters[0].cors"),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{body}");
        assert_eq!(remarks(&body), [field], "{body}");
    }
    let redirect = filtering("[{type: RequestRedirect, requestRedirect: {scheme: https}}]");
    assert_eq!(remarks(&redirect), [""; 0], "it needs no backend");
}

#[test]
fn timeouts_are_durations_of_which_the_inner_is_not_the_longer() {
    let timeouts = |timeouts: &str| of_rule(&ruled(&format!("timeouts: {{{timeouts}}}")));
    assert_eq!(timeouts("request: 10"), ["timeouts.request"]);
    assert_eq!(timeouts("request: 10.5s"), ["timeouts.request"]);
    assert_eq!(timeouts("request: 1s, backendRequest: 2s"), ["timeouts.backendRequest"]);
    assert_eq!(timeouts("request: 0s, backendRequest: 2s"), [""; 0]);
    assert_eq!(timeouts("backendRequest: 2s"), [""; 0]);
    assert_eq!(timeouts("requests: 2s"), ["timeouts.requests"]);
}

#[test]
fn retries_and_sessions_are_kept() {
    let rule = |rest: &str| read(&ruled(rest)).rules[0].clone();
    assert_eq!(
        rule("retry: {codes: [500], attempts: 3, backoff: 100ms}").retry,
        Some(Retry { codes: vec![500], attempts: Some(3), backoff_ms: Some(100) })
    );
    assert_eq!(
        rule("sessionPersistence: {sessionName: s, absoluteTimeout: 1h, idleTimeout: 1m, cookieConfig: {lifetimeType: Permanent}}").session,
        Some(SessionPersistence {
            name: Some("s".to_owned()),
            absolute_ms: Some(3_600_000),
            idle_ms: Some(60_000),
            token: SessionToken::Cookie { permanent: true },
        })
    );
    let header = rule("sessionPersistence: {type: Header}").session.expect("a session");
    assert_eq!(header.token, SessionToken::Header);
    let wrong = |rest: &str| of_rule(&ruled(rest));
    assert_eq!(wrong("retry: {codes: [399]}"), ["retry.codes[0]"]);
    assert_eq!(wrong("retry: {codes: [600]}"), ["retry.codes[0]"]);
    assert_eq!(wrong("retry: {attempts: -1}"), ["retry.attempts"]);
    assert_eq!(wrong("retry: {backoff: soon}"), ["retry.backoff"]);
    let session = |rest: &str| wrong(&format!("sessionPersistence: {{{rest}}}"));
    assert_eq!(session("type: Query"), ["sessionPersistence.type"]);
    assert_eq!(session("sessionName: 'a b'"), ["sessionPersistence.sessionName"]);
    assert_eq!(
        session(&format!("sessionName: {}", "a".repeat(129))),
        ["sessionPersistence.sessionName"]
    );
    assert_eq!(session("type: Header, cookieConfig: {}"), ["sessionPersistence.cookieConfig"]);
    assert_eq!(
        session("cookieConfig: {lifetimeType: Permanent}"),
        ["sessionPersistence.absoluteTimeout"]
    );
    assert_eq!(
        session("cookieConfig: {lifetimeType: Long}"),
        ["sessionPersistence.cookieConfig.lifetimeType"]
    );
}

#[test]
fn a_route_on_a_service_is_read_alike() {
    let body = object(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        "metadata: {name: a}",
        "{parentRefs: [{group: '', kind: Service, name: echo, port: 80}], rules: [{backendRefs: [{name: echo-v2, port: 80}]}]}",
    );
    let read_route = read(&body);
    assert_eq!(
        (read_route.parents[0].kind.as_str(), read_route.parents[0].namespace.as_str()),
        ("Service", "default")
    );
    assert_eq!(reading(&grpc("rules: []"), &LENIENT).set.http_routes.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_a_route(body in nearly(vec![
        matching("[{path: {type: RegularExpression, value: '/a+'}, headers: [{name: A, value: b}], queryParams: [{name: v, value: '2'}], method: GET}]"),
        filtering("[{type: CORS, cors: {allowOrigins: ['https://*.a.com:8443'], allowMethods: [GET], maxAge: 5}}, {type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, fraction: {numerator: 1, denominator: 3}}}]"),
        ruled("timeouts: {request: 10s, backendRequest: 2s}, retry: {codes: [500], backoff: 1ms}, sessionPersistence: {cookieConfig: {lifetimeType: Session}}"),
        grpc("rules: [{matches: [{method: {type: Exact, service: shop.Catalog, method: Get}, headers: [{name: version, value: '2'}]}], backendRefs: [{name: catalog-v2, port: 9000}]}]"),
    ])) {
        holds(&body)?;
    }
}
