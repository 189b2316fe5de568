use proptest::prelude::*;

use super::{
    super::http_testing::{
        KUMA_3, KUMA_27, KUMA_29, RULE, WITH_TAGS, doing, filtering, matching, of_gateway, of_rule,
        policy_of, read, remarks, request, ruled,
    },
    *,
};
use crate::policy::{
    http_route::{
        HeaderMatch, HeaderValueMatch, Method, PathMatch, PathModifier, QueryMatch, TextMatch,
        UrlRewrite,
    },
    testing::{LENIENT, errors, finding, holds, nearly, reading, refused},
};

#[test]
fn a_route_of_all_versions_is_read() {
    let spec = "
  targetRef: {kind: MeshSubset, tags: {app: web}}
  to:
  - targetRef: {kind: MeshService, name: backend, sectionName: http}
    rules:
    - matches:
      - path: {type: PathPrefix, value: /api}
        method: GET
        headers: [{name: x-beta, type: Present}]
        queryParams: [{type: Exact, name: dry, value: 'true'}]
      default:
        filters:
        - type: URLRewrite
          urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}
        backendRefs: [{kind: MeshService, name: backend-v2, port: 80, weight: 3}]
";
    let route = read(&policy_of(spec), &LENIENT);
    let rule = &route.to[0].rules[0];
    assert_eq!((rule.field.as_str(), rule.span.line), (RULE, 9));
    assert_eq!(rule.matches[0].field, "spec.to[0].rules[0].matches[0]");
    assert_eq!(
        rule.matches[0].value,
        RequestMatch {
            path: Some(PathMatch::Prefix("/api".to_owned())),
            method: Some(Method::Get),
            headers: vec![HeaderMatch {
                name: "x-beta".to_owned(),
                value: HeaderValueMatch::Present
            }],
            query: vec![QueryMatch {
                name: "dry".to_owned(),
                value: TextMatch::Exact("true".to_owned())
            }],
        }
    );
    let filters = rule.filters.as_ref().expect("filters");
    assert_eq!(filters[0].field, "spec.to[0].rules[0].default.filters[0]");
    assert_eq!(
        filters[0].value,
        RouteFilter::Rewrite(UrlRewrite {
            host: None,
            path: Some(PathModifier::Prefix("/v2".to_owned()))
        })
    );
    let backends = rule.backends.as_ref().expect("backends");
    assert_eq!(
        (backends[0].weight, backends[0].field.as_str()),
        (3, "spec.to[0].rules[0].default.backendRefs[0]")
    );
    let kubernetes = format!(
        "apiVersion: kuma.io/v1alpha1\nkind: MeshHTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {spec}"
    );
    assert_eq!(read(&kubernetes, &LENIENT).meta.name, "r.shop");
    assert_eq!(read(&policy_of(spec), &KUMA_29).to, route.to);

    assert_eq!(remarks(&policy_of(spec)), [""; 0]);
}

#[test]
fn the_form_of_kuma_3_refers_by_labels() {
    let body = policy_of(
        "{targetRef: {kind: Dataplane, labels: {app: web}}, to: [{targetRef: {kind: MeshService, labels: {a: b}}, rules: [{matches: [{path: {type: Exact, value: /a}}], default: {filters: [{type: RequestMirror, requestMirror: {backendRef: {kind: MeshMultiZoneService, labels: {c: d}, port: 80}}}], backendRefs: [{kind: MeshExternalService, labels: {e: f}}]}}]}]}",
    );
    assert_eq!(read(&body, &LENIENT), read(&body, &KUMA_3));
    let old = body.replace("MeshMultiZoneService, labels: {c: d}", "MeshServiceSubset, name: a");
    let field = format!("{RULE}.default.filters[0].requestMirror.backendRef.kind");
    assert_eq!(errors(&old, &KUMA_3), [field]);
}

#[test]
fn whom_it_concerns_and_what_is_dialled_is_as_for_mesh_tcp_routes() {
    let to = "to: [{targetRef: {kind: MeshService, name: backend}}]";
    let cases: &[(&str, &[&str])] = &[
        (&format!("{{targetRef: {{}}, {to}}}"), &["spec.targetRef.kind"]),
        (
            &format!("{{targetRef: {{kind: MeshHTTPRoute, name: a}}, {to}}}"),
            &["spec.targetRef.kind"],
        ),
        (&format!("{{targetRef: {{kind: Mesh, name: a}}, {to}}}"), &["spec.targetRef.name"]),
        ("{targetRef: {kind: Mesh}, to: [{}]}", &["spec.to[0].targetRef.kind"]),
        (
            "{targetRef: {kind: Mesh}, to: [{targetRef: {kind: Mesh}}]}",
            &["spec.to[0].targetRef.kind"],
        ),
        (
            "{targetRef: {kind: Mesh}, to: [{targetRef: {kind: MeshService}}]}",
            &["spec.to[0].targetRef.name"],
        ),
        (
            "{targetRef: {kind: MeshGateway, name: e}, to: [{targetRef: {kind: MeshService, name: a}}]}",
            &["spec.to[0].targetRef.kind"],
        ),
    ];
    refused(cases, WITH_TAGS, policy_of);
    refused(&[(&format!("{{{to}}}"), &["spec.targetRef.kind"])], &[&KUMA_27], policy_of);
    assert_eq!(read(&policy_of(&format!("{{{to}}}")), &LENIENT).to[0].rules, []);
    refused(
        &[(
            "{targetRef: {kind: MeshGateway, labels: {a: b}}, to: [{targetRef: {kind: MeshService, labels: {a: b}}}]}",
            &["spec.targetRef.kind"],
        )],
        &[&KUMA_3],
        policy_of,
    );
}

#[test]
fn hostnames_are_for_mesh_gateways_only() {
    let to = |hosts: &str| {
        policy_of(&format!(
            "{{targetRef: {{kind: Mesh}}, to: [{{targetRef: {{kind: MeshService, labels: {{a: b}}}}, hostnames: {hosts}}}]}}"
        ))
    };
    for options in [&LENIENT, &KUMA_27, &KUMA_29, &KUMA_3] {
        assert_eq!(errors(&to("[a.com]"), options), ["spec.to[0].hostnames"]);
        assert_eq!(errors(&to("[]"), options), [""; 0]);
    }
    let gateway = of_gateway("[]");
    assert_eq!(read(&gateway, &LENIENT).to[0].hostnames, ["*.example.com", "*"]);
    let wrong = gateway.replace("'*'", "10.0.0.1");
    assert_eq!(errors(&wrong, &LENIENT), ["spec.to[0].hostnames[1]"]);
}

#[test]
fn rules_below_a_mesh_gateway_name_backends_or_redirect() {
    let all = "matches: [{path: {type: PathPrefix, value: /}}]";
    let cases: &[(&str, &[&str])] = &[
        (&format!("[{{{all}, default: {{}}}}]"), &["spec.to[0].rules[0].default.backendRefs"]),
        (
            &format!("[{{{all}, default: {{backendRefs: []}}}}]"),
            &["spec.to[0].rules[0].default.backendRefs"],
        ),
        (
            &format!(
                "[{{{all}, default: {{filters: [{{type: RequestRedirect, requestRedirect: {{port: 1}}}}]}}}}]"
            ),
            &[],
        ),
    ];
    refused(cases, WITH_TAGS, of_gateway);
    assert_eq!(errors(&ruled(cases[0].0), &LENIENT), [""; 0], "a service is its own backend");
}

#[test]
fn every_kind_of_match_is_read() {
    let path = |path: &str| request(&format!("[{{path: {path}}}]")).path.expect("a path");
    assert_eq!(path("{type: Exact, value: /a/}"), PathMatch::Exact("/a/".to_owned()));
    assert_eq!(path("{type: PathPrefix, value: /}"), PathMatch::Prefix("/".to_owned()));
    let PathMatch::Regex(regex) = path("{type: RegularExpression, value: '/a.*'}") else {
        panic!("no regular expression")
    };
    assert!(regex.matches(b"/abc") && !regex.matches(b"/b/abc"));
    for name in Method::NAMES {
        let method = request(&format!("[{{method: {name}}}]")).method.expect("a method");
        assert_eq!(method.name(), *name);
    }
    let header = |header: &str| request(&format!("[{{headers: [{header}]}}]")).headers[0].clone();
    let value = |text: &str| header(text).value;
    assert_eq!(value("{name: a, value: b}"), HeaderValueMatch::Exact("b".to_owned()));
    assert_eq!(value("{name: a, type: Exact, value: b}"), HeaderValueMatch::Exact("b".to_owned()));
    assert_eq!(
        value("{name: a, type: Prefix, value: b}"),
        HeaderValueMatch::Prefix("b".to_owned())
    );
    assert_eq!(value("{name: a, type: Prefix}"), HeaderValueMatch::Present);
    assert_eq!(value("{name: a, type: Prefix, value: ''}"), HeaderValueMatch::Present);
    assert_eq!(value("{name: a, type: Absent, value: ''}"), HeaderValueMatch::Absent);
    let HeaderValueMatch::Regex(regex) = value("{name: a, type: RegularExpression, value: 'a|b'}")
    else {
        panic!("no regular expression")
    };
    assert!(regex.matches(b"b") && !regex.matches(b"ab"));
    let query = request("[{queryParams: [{type: RegularExpression, name: a, value: 'b+'}, {type: Exact, name: A, value: ''}]}]").query;
    assert!(matches!(&query[0].value, TextMatch::Regex(regex) if regex.text() == "b+"));
    assert_eq!(
        query[1],
        QueryMatch { name: "A".to_owned(), value: TextMatch::Exact(String::new()) }
    );
}

#[test]
fn what_is_wrong_with_matches_is_said_at_their_field() {
    let cases: &[(&str, &[&str])] = &[
        ("[]", &["matches"]),
        ("{}", &["matches"]),
        ("[{paths: {}}]", &["matches[0].paths"]),
        ("[{path: {}}]", &["matches[0].path.type", "matches[0].path.value"]),
        ("[{path: {value: /a}}]", &["matches[0].path.type"]),
        ("[{path: {type: Exact}}]", &["matches[0].path.value"]),
        ("[{path: {type: Prefix, value: /a}}]", &["matches[0].path.type"]),
        ("[{path: {type: Exact, value: ''}}]", &["matches[0].path.value"]),
        ("[{path: {type: PathPrefix, value: ''}}]", &["matches[0].path.value"]),
        ("[{path: {type: RegularExpression, value: ''}}]", &["matches[0].path.value"]),
        ("[{path: {type: Exact, value: a}}]", &["matches[0].path.value"]),
        ("[{path: {type: PathPrefix, value: a}}]", &["matches[0].path.value"]),
        ("[{path: {type: PathPrefix, value: /a/}}]", &["matches[0].path.value"]),
        (
            "[{path: {type: PathPrefix, value: a/}}]",
            &["matches[0].path.value", "matches[0].path.value"],
        ),
        ("[{path: {type: Exact, value: 1}}]", &["matches[0].path.value"]),
        ("[{method: get}]", &["matches[0].method"]),
        ("[{method: LINK}]", &["matches[0].method"]),
        ("[{headers: [{value: a}]}]", &["matches[0].headers[0].name"]),
        ("[{headers: [{name: '', value: a}]}]", &["matches[0].headers[0].name"]),
        ("[{headers: [{name: X-A, value: a}]}]", &["matches[0].headers[0].name"]),
        ("[{headers: [{name: 'a b', value: a}]}]", &["matches[0].headers[0].name"]),
        ("[{headers: [{name: ':path', value: a}]}]", &["matches[0].headers[0].name"]),
        ("[{headers: [{type: Suffix, name: a, value: a}]}]", &["matches[0].headers[0].type"]),
        ("[{headers: [{type: Present, name: a, value: b}]}]", &["matches[0].headers[0].value"]),
        ("[{headers: [{type: Absent, name: a, value: b}]}]", &["matches[0].headers[0].value"]),
        ("[{headers: [{type: RegularExpression, name: a}]}]", &["matches[0].headers[0].value"]),
        ("[{headers: [{name: a, value: \"b\\nc\"}]}]", &["matches[0].headers[0].value"]),
        ("[{headers: [{name: a, value: true}]}]", &["matches[0].headers[0].value"]),
        (
            "[{queryParams: [{}]}]",
            &[
                "matches[0].queryParams[0].name",
                "matches[0].queryParams[0].type",
                "matches[0].queryParams[0].value",
            ],
        ),
        (
            "[{queryParams: [{type: Prefix, name: a, value: b}]}]",
            &["matches[0].queryParams[0].type"],
        ),
        (
            "[{queryParams: [{type: Exact, name: '', value: b}]}]",
            &["matches[0].queryParams[0].name"],
        ),
        (
            "[{queryParams: [{type: Exact, name: a, value: b}, {type: Exact, name: a, value: c}]}]",
            &["matches[0].queryParams[1].name"],
        ),
    ];
    for (matches, fields) in cases {
        for options in WITH_TAGS {
            let mut found = of_rule(&matching(matches), options);
            found.sort();
            assert_eq!(found, *fields, "{matches} {:?}", options.api);
        }
    }
    assert_eq!(of_rule(&ruled("[{default: {}}]"), &LENIENT), ["matches"]);
    let hint =
        finding(&matching("[{method: get}]"), &LENIENT, &format!("{RULE}.matches[0].method"));
    assert_eq!(hint.hint.as_deref(), Some("did you mean `GET`?"));
    let long = format!("[{{headers: [{{name: {}, value: a}}]}}]", "a".repeat(257));
    assert_eq!(of_rule(&matching(&long), &LENIENT), ["matches[0].headers[0].name"]);
}

#[test]
fn regular_expressions_are_compiled_and_kuma_does_not_look() {
    for part in [
        "path: {type: RegularExpression, value: '('}",
        "headers: [{type: RegularExpression, name: a, value: '('}]",
        "queryParams: [{type: RegularExpression, name: a, value: '('}]",
    ] {
        let body = matching(&format!("[{{{part}}}]"));
        assert_eq!(errors(&body, &LENIENT).len(), 1, "{part}");
        assert!(errors(&body, &LENIENT)[0].ends_with(".value"), "{part}");
        assert_eq!(errors(&body, &KUMA_29), [""; 0], "{part}");
    }
}

#[test]
fn of_a_header_that_is_matched_twice_the_first_counts() {
    let body = matching("[{headers: [{name: a, value: b}, {name: a, type: Absent}]}]");
    assert_eq!(remarks(&body), [format!("{RULE}.matches[0].headers[1]")]);
    let headers = read(&body, &LENIENT).to[0].rules[0].matches[0].value.headers.clone();
    assert_eq!(headers.len(), 1);
    assert_eq!(headers[0].value, HeaderValueMatch::Exact("b".to_owned()));
}

#[test]
fn what_can_never_match_or_is_surely_not_meant_is_a_warning() {
    let same = "matches: [{method: GET}, {path: {type: Exact, value: /a}}], default: {}";
    let twice =
        ruled(&format!("[{{{same}}}, {{matches: [{{method: PUT}}], default: {{}}}}, {{{same}}}]"));
    let said = finding(&twice, &LENIENT, "spec.to[0].rules[2]");
    assert!(!said.is_error() && said.related.is_some());
    assert!(said.message.contains("never takes a request"), "{}", said.message);
    let cases = [
        (matching("[{method: GET}, {method: GET}]"), "matches[1]"),
        (matching("[{path: {type: Exact, value: '/a?b=c'}}]"), "matches[0].path.value"),
        (matching("[{headers: [{name: a}]}]"), "matches[0].headers[0].value"),
        (doing("{backendRefs: [{kind: MeshService, name: a, weight: 0}]}"), "default.backendRefs"),
        (
            doing(
                "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}], backendRefs: [{kind: MeshService, name: a}]}",
            ),
            "default.backendRefs",
        ),
        (filtering("[{type: URLRewrite, urlRewrite: {}}]"), "default.filters[0].urlRewrite"),
        (
            filtering("[{type: RequestHeaderModifier, requestHeaderModifier: {set: []}}]"),
            "default.filters[0].requestHeaderModifier",
        ),
        (
            filtering(
                "[{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}, urlRewrite: {}}]",
            ),
            "default.filters[0].urlRewrite",
        ),
        (
            filtering(
                "[{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: a}}}]",
            ),
            "default.filters[0].urlRewrite.path.replaceFullPath",
        ),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{body}");
        assert_eq!(remarks(&body), [format!("{RULE}.{field}")], "{body}");
    }
}

#[test]
fn what_is_wrong_with_backends_is_said_at_their_field() {
    let backed = |backend: &str| doing(&format!("{{backendRefs: [{backend}]}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["default.backendRefs[0].kind"]),
        ("{kind: MeshService}", &["default.backendRefs[0].name"]),
        ("{kind: MeshService, name: a, weight: -1}", &["default.backendRefs[0].weight"]),
        ("{kind: MeshService, name: a, weight: 4294967296}", &["default.backendRefs[0].weight"]),
        ("{kind: MeshService, name: a, filters: []}", &["default.backendRefs[0].filters"]),
    ];
    for (backend, fields) in cases {
        for options in WITH_TAGS {
            assert_eq!(of_rule(&backed(backend), options), *fields, "{backend}");
        }
    }
    let mirrored = filtering(
        "[{type: RequestMirror, requestMirror: {backendRef: {kind: MeshMultiZoneService, name: a}}}]",
    );
    assert_eq!(of_rule(&mirrored, &LENIENT), ["default.filters[0].requestMirror.backendRef.port"]);
    assert_eq!(of_rule(&mirrored, &KUMA_29), ["default.filters[0].requestMirror.backendRef.kind"]);
    assert_eq!(of_rule(&doing("{backendRef: []}"), &LENIENT), ["default.backendRef"]);
    let absent = ruled("[{matches: [{method: GET}]}]");
    assert_eq!(of_rule(&absent, &LENIENT), ["default"]);
}

#[test]
fn a_shadow_route_is_kept_apart() {
    let body =
        matching("[{method: GET}]").replace("spec:", "labels: {kuma.io/effect: shadow}\nspec:");
    let reading = reading(&body, &LENIENT);
    assert_eq!(reading.set.shadowed_mesh_http_routes.len(), 1);
    assert!(reading.set.mesh_http_routes.is_empty());
}

#[test]
fn many_rules_take_no_more_than_their_number() {
    let rules: Vec<String> = (0..20_000)
        .map(|i| format!("{{matches: [{{path: {{type: Exact, value: /{i}}}}}], default: {{}}}}"))
        .collect();
    // Comparing each rule with each would need minutes.
    let route = read(&ruled(&format!("[{}]", rules.join(", "))), &LENIENT);
    assert_eq!(route.to[0].rules.len(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_a_route(body in nearly(vec![
        matching("[{path: {type: PathPrefix, value: /api}, method: GET, headers: [{name: x-beta, type: Prefix, value: a}], queryParams: [{type: RegularExpression, name: dry, value: 'a+'}]}]"),
        filtering("[{type: URLRewrite, urlRewrite: {hostname: a, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}, {type: RequestMirror, requestMirror: {percentage: '1.5', backendRef: {kind: MeshService, name: a}}}]"),
        filtering("[{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}}, {type: RequestRedirect, requestRedirect: {port: 80, statusCode: 301}}]"),
    ])) {
        holds(&body)?;
    }
}
