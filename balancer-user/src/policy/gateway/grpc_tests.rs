use super::{
    super::http_testing::{grpc, of_rule, read_grpc, remarks},
    *,
};
use crate::policy::{
    http_route::HeaderValueMatch,
    testing::{LENIENT, errors},
};

/// A GRPCRoute with these matches.
fn matching(matches: &str) -> String {
    grpc(&format!("rules: [{{matches: {matches}, backendRefs: [{{name: a, port: 9000}}]}}]"))
}

fn request(matches: &str) -> GrpcMatch {
    read_grpc(&matching(matches)).rules[0].matches[0].value.clone()
}

#[test]
fn a_route_is_read() {
    let exact = |text: &str| Some(TextMatch::Exact(text.to_owned()));
    let body = grpc(
        "hostnames: [grpc.example.com], rules: [{name: get, matches: [{method: {service: shop.Catalog, method: Get}, headers: [{name: Version, value: '2'}]}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}}}], backendRefs: [{name: catalog-v2, port: 9000, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]}]}]",
    );
    let route = read_grpc(&body);
    assert_eq!(route.hostnames, ["grpc.example.com"]);
    let rule = &route.rules[0];
    let one = &rule.matches[0];
    assert_eq!(one.field, "spec.rules[0].matches[0]");
    assert_eq!((&one.value.service, &one.value.method), (&exact("shop.Catalog"), &exact("Get")));
    assert_eq!(one.value.headers[0].name, "version");
    assert_eq!(one.value.headers[0].value, HeaderValueMatch::Exact("2".to_owned()));
    assert_eq!((rule.filters.len(), rule.backends[0].filters.len()), (1, 1));
    assert_eq!(remarks(&body), [""; 0]);
    let old = body.replace("io/v1\n", "io/v1alpha2\n");
    assert_eq!(errors(&old, &LENIENT), [""; 0]);
    let beta = body.replace("io/v1\n", "io/v1beta1\n");
    assert_eq!(errors(&beta, &LENIENT), ["apiVersion"]);
}

#[test]
fn what_is_not_given_takes_every_request() {
    for matches in ["[]", "[{}]"] {
        assert_eq!(request(matches), GrpcMatch::default(), "{matches}");
    }
    let only = request("[{method: {method: Get, service: ''}}]");
    assert_eq!(only.service, None);
    let Some(TextMatch::Regex(regex)) =
        request("[{method: {type: RegularExpression, service: 'shop\\..*'}}]").service
    else {
        panic!("no regular expression")
    };
    assert!(regex.matches(b"shop.Catalog"));
}

#[test]
fn what_is_wrong_is_said_at_its_field() {
    let cases: &[(&str, &[&str])] = &[
        ("[{method: {}}]", &["method"]),
        ("[{method: {type: Exact}}]", &["method"]),
        ("[{method: {service: '', method: ''}}]", &["method"]),
        ("[{method: {type: Prefix, service: a}}]", &["method.type"]),
        ("[{method: {service: a/b}}]", &["method.service"]),
        ("[{method: {service: a..b}}]", &["method.service"]),
        ("[{method: {service: 1a}}]", &["method.service"]),
        ("[{method: {service: .a.b}}]", &[]),
        ("[{method: {method: a.b}}]", &["method.method"]),
        ("[{method: {method: a-b}}]", &["method.method"]),
        ("[{method: {type: RegularExpression, method: '('}}]", &["method.method"]),
        ("[{method: GET}]", &["method"]),
        ("[{path: {value: /}}]", &["path"]),
        ("[{headers: [{name: a}]}]", &["headers[0].value"]),
    ];
    for (matches, fields) in cases {
        let found = of_rule(&matching(matches));
        let found: Vec<_> =
            found.iter().map(|f| f.strip_prefix("matches[0].").unwrap_or(f)).collect();
        assert_eq!(found, *fields, "{matches}");
    }
    let filters = |filters: &str| {
        of_rule(&grpc(&format!("rules: [{{filters: [{filters}], backendRefs: []}}]")))
    };
    assert_eq!(filters("{type: RequestRedirect, requestRedirect: {}}"), ["filters[0].type"]);
    assert_eq!(filters("{type: CORS, cors: {}}"), ["filters[0].type"]);
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}";
    assert_eq!(filters(&format!("{headers}, {headers}")), ["filters[1]"]);
    assert_eq!(of_rule(&grpc("rules: [{timeouts: {}}]")), ["timeouts"]);
    assert_eq!(of_rule(&grpc("rules: [{name: a}, {name: a}]")), ["spec.rules[1].name"]);
}

#[test]
fn what_is_surely_not_meant_is_a_warning() {
    let cases = [
        (grpc("hostnames: []"), "spec.rules"),
        (grpc("rules: []"), "spec.rules"),
        (grpc("rules: [{}]"), "spec.rules[0].backendRefs"),
        (
            matching("[{method: {method: Get}}, {method: {method: Get}}]"),
            "spec.rules[0].matches[1]",
        ),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{body}");
        assert_eq!(remarks(&body), [field], "{body}");
    }
}
