use super::{
    super::http_testing::{
        KUMA_27, KUMA_29, WITH_TAGS, filter, filtering, of_gateway, of_rule, read, ruled,
    },
    *,
};
use crate::policy::{
    BackendTarget,
    http_route::{HeaderField, HeaderModifier, PathModifier, Redirect, Scheme},
    testing::LENIENT,
};

#[test]
fn every_filter_is_read() {
    let header =
        |name: &str, value: &str| HeaderField { name: name.to_owned(), value: value.to_owned() };
    let modifier = "{set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [E]}";
    let expected = HeaderModifier {
        set: vec![header("a", "b")],
        add: vec![header("c", "d")],
        remove: vec!["E".to_owned()],
    };
    assert_eq!(
        filter(&format!("{{type: RequestHeaderModifier, requestHeaderModifier: {modifier}}}")),
        RouteFilter::RequestHeaders(expected.clone())
    );
    assert_eq!(
        filter(&format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {modifier}}}")),
        RouteFilter::ResponseHeaders(expected)
    );
    assert_eq!(
        filter(
            "{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example.com, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /}, statusCode: 308}}"
        ),
        RouteFilter::Redirect(Redirect {
            scheme: Some(Scheme::Https),
            hostname: Some("new.example.com".to_owned()),
            port: std::num::NonZeroU16::new(8443),
            path: Some(PathModifier::Full("/".to_owned())),
            status: 308,
        })
    );
    let RouteFilter::Redirect(redirect) = filter("{type: RequestRedirect, requestRedirect: {}}")
    else {
        panic!("no redirection")
    };
    assert_eq!((redirect.status, redirect.scheme, redirect.port), (302, None, None));
    assert_eq!(
        filter("{type: URLRewrite, urlRewrite: {hostname: a.example.com}}"),
        RouteFilter::Rewrite(UrlRewrite {
            host: Some(HostChange::To("a.example.com".to_owned())),
            path: None
        })
    );
    for (percentage, share) in
        [("", 1.0), ("percentage: 50, ", 0.5), ("percentage: '0.5', ", 0.005)]
    {
        let RouteFilter::Mirror(mirror) = filter(&format!(
            "{{type: RequestMirror, requestMirror: {{{percentage}backendRef: {{kind: MeshServiceSubset, name: a, tags: {{b: c}}}}}}}}"
        )) else {
            panic!("no mirror")
        };
        assert!((mirror.share - share).abs() < 1e-12, "{percentage}");
        assert!(matches!(mirror.backend.target, BackendTarget::Subset { .. }));
    }
    let gateway = of_gateway(
        "[{matches: [{method: GET}], default: {filters: [{type: URLRewrite, urlRewrite: {hostToBackendHostname: true}}], backendRefs: [{kind: MeshService, name: a}]}}]",
    );
    let route = read(&gateway, &LENIENT);
    assert_eq!(
        route.to[0].rules[0].filters.as_ref().expect("filters")[0].value,
        RouteFilter::Rewrite(UrlRewrite { host: Some(HostChange::Backend), path: None })
    );
}

#[test]
fn what_is_wrong_with_filters_is_said_at_their_field() {
    let modifier =
        |body: &str| format!("[{{type: RequestHeaderModifier, requestHeaderModifier: {body}}}]");
    let redirect = |body: &str| format!("[{{type: RequestRedirect, requestRedirect: {body}}}]");
    let rewrite = |body: &str| format!("[{{type: URLRewrite, urlRewrite: {body}}}]");
    let mirror = |body: &str| format!("[{{type: RequestMirror, requestMirror: {body}}}]");
    let a = "{name: a, value: b}";
    let many: Vec<String> = (0..17).map(|i| format!("{{name: h{i}, value: b}}")).collect();
    let cases: &[(String, &[&str])] = &[
        ("[{}]".to_owned(), &["[0].type"]),
        ("[{type: Mirror}]".to_owned(), &["[0].type"]),
        ("[{type: CORS}]".to_owned(), &["[0].type"]),
        ("[{type: RequestHeaderModifier}]".to_owned(), &["[0].requestHeaderModifier"]),
        ("[{type: ResponseHeaderModifier}]".to_owned(), &["[0].responseHeaderModifier"]),
        ("[{type: RequestRedirect}]".to_owned(), &["[0].requestRedirect"]),
        ("[{type: URLRewrite}]".to_owned(), &["[0].urlRewrite"]),
        ("[{type: RequestMirror}]".to_owned(), &["[0].requestMirror"]),
        (modifier("{}"), &["[0].requestHeaderModifier"]),
        (modifier(&format!("{{set: [{a}, {a}]}}")), &["[0].requestHeaderModifier.set[1].name"]),
        (
            modifier(&format!("{{set: [{a}], add: [{a}]}}")),
            &["[0].requestHeaderModifier.add[0].name"],
        ),
        (
            modifier(&format!("{{add: [{a}], remove: [a]}}")),
            &["[0].requestHeaderModifier.remove[0].name"],
        ),
        (modifier("{set: [{value: a}]}"), &["[0].requestHeaderModifier.set[0].name"]),
        (modifier("{add: [{name: a}]}"), &["[0].requestHeaderModifier.add[0].value"]),
        (modifier("{set: [{name: A, value: b}]}"), &["[0].requestHeaderModifier.set[0].name"]),
        (modifier("{remove: ['a:']}"), &["[0].requestHeaderModifier.remove[0]"]),
        (
            modifier("{set: [{name: a, value: \"b\\r\\nc: d\"}]}"),
            &["[0].requestHeaderModifier.set[0].value"],
        ),
        (modifier(&format!("{{set: [{}]}}", many.join(", "))), &["[0].requestHeaderModifier.set"]),
        (redirect("{scheme: ftp}"), &["[0].requestRedirect.scheme"]),
        (redirect("{hostname: 127.0.0.1}"), &["[0].requestRedirect.hostname"]),
        (redirect("{hostname: 010.000.0.1}"), &["[0].requestRedirect.hostname"]),
        (redirect("{hostname: '2001:db8::1'}"), &["[0].requestRedirect.hostname"]),
        (redirect("{hostname: a..b}"), &["[0].requestRedirect.hostname"]),
        (redirect("{hostname: '*.example.com'}"), &["[0].requestRedirect.hostname"]),
        (redirect("{hostname: A.example.com}"), &["[0].requestRedirect.hostname"]),
        (
            redirect(&format!("{{hostname: {}}}", "a.".repeat(127) + "aa")),
            &["[0].requestRedirect.hostname"],
        ),
        (redirect("{port: 0}"), &["[0].requestRedirect.port"]),
        (redirect("{port: 65536}"), &["[0].requestRedirect.port"]),
        (redirect("{statusCode: 300}"), &["[0].requestRedirect.statusCode"]),
        (redirect("{path: {replaceFullPath: /}}"), &["[0].requestRedirect.path.type"]),
        (redirect("{path: {type: Full, replaceFullPath: /}}"), &["[0].requestRedirect.path.type"]),
        (rewrite("{hostname: 10.0.0.1}"), &["[0].urlRewrite.hostname"]),
        (rewrite("{host: a}"), &["[0].urlRewrite.host"]),
        (rewrite("{hostToBackendHostname: true}"), &["[0].urlRewrite.hostToBackendHostname"]),
        (
            rewrite("{hostToBackendHostname: true, hostname: a}"),
            &["[0].urlRewrite.hostToBackendHostname", "[0].urlRewrite.hostToBackendHostname"],
        ),
        (rewrite("{hostToBackendHostname: false, hostname: a}"), &[]),
        (mirror("{}"), &["[0].requestMirror.backendRef"]),
        (mirror("{backendRef: {}}"), &["[0].requestMirror.backendRef.kind"]),
        (mirror("{backendRef: {kind: Mesh}}"), &["[0].requestMirror.backendRef.kind"]),
        (mirror("{backendRef: {kind: MeshService}}"), &["[0].requestMirror.backendRef.name"]),
        (
            mirror("{percentage: many, backendRef: {kind: MeshService, name: a}}"),
            &["[0].requestMirror.percentage"],
        ),
        (
            mirror("{percentage: 1e2, backendRef: {kind: MeshService, name: a}}"),
            &["[0].requestMirror.percentage"],
        ),
    ];
    for (filters, fields) in cases {
        for options in WITH_TAGS {
            let found = of_rule(&filtering(filters), options);
            let found: Vec<_> =
                found.iter().map(|f| f.strip_prefix("default.filters").unwrap_or(f)).collect();
            assert_eq!(found, *fields, "{filters} {:?}", options.api);
        }
    }
}

#[test]
fn a_prefix_is_replaced_only_where_every_match_has_one() {
    let replacing = |matches: &str, what: &str| {
        let (filter, field) = if what == "redirect" {
            ("RequestRedirect", "requestRedirect")
        } else {
            ("URLRewrite", "urlRewrite")
        };
        ruled(&format!(
            "[{{matches: {matches}, default: {{filters: [{{type: {filter}, {field}: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}]}}}}]"
        ))
    };
    let prefix = "{path: {type: PathPrefix, value: /a}}";
    for (matches, right) in [
        (format!("[{prefix}]"), true),
        (format!("[{prefix}, {}]", prefix.replace("/a", "/c")), true),
        (format!("[{prefix}, {{method: GET}}]"), false),
        ("[{path: {type: Exact, value: /a}}]".to_owned(), false),
        ("[{path: {type: RegularExpression, value: /a}}]".to_owned(), false),
    ] {
        for (what, field) in [("redirect", "requestRedirect"), ("rewrite", "urlRewrite")] {
            for options in WITH_TAGS {
                let found = of_rule(&replacing(&matches, what), options);
                let wrong = format!("default.filters[0].{field}.path.replacePrefixMatch");
                assert_eq!(found, if right { vec![] } else { vec![wrong] }, "{matches}");
            }
        }
    }
}

#[test]
fn what_kuma_leaves_to_the_proxy_is_an_error_unless_its_rules_are_asked_for() {
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a}}";
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, name: a}}}";
    let path = |path: &str| format!("[{{type: URLRewrite, urlRewrite: {{path: {path}}}}}]");
    let cases = [
        (format!("[{redirect}, {rewrite}]"), "[1]"),
        (format!("[{redirect}, {mirror}]"), "[1]"),
        (format!("[{redirect}, {redirect}]"), "[1]"),
        (
            mirror.replace("backendRef", "percentage: 101, backendRef").replace("{type", "[{type")
                + "]",
            "[0].requestMirror.percentage",
        ),
        (path("{type: ReplaceFullPath}"), "[0].urlRewrite.path.replaceFullPath"),
        (
            path("{type: ReplacePrefixMatch, replaceFullPath: /, replacePrefixMatch: /}"),
            "[0].urlRewrite.path.replaceFullPath",
        ),
        (
            path("{type: ReplaceFullPath, replaceFullPath: '/a?b'}"),
            "[0].urlRewrite.path.replaceFullPath",
        ),
    ];
    for (filters, field) in cases {
        let body = filtering(&filters);
        assert_eq!(of_rule(&body, &LENIENT), [format!("default.filters{field}")], "{filters}");
        assert_eq!(of_rule(&body, &KUMA_29), [""; 0], "{filters}");
        assert_eq!(of_rule(&body, &KUMA_27), [""; 0], "{filters}");
    }
    let before = format!("[{rewrite}, {mirror}, {redirect}]");
    assert_eq!(of_rule(&filtering(&before), &LENIENT), [""; 0]);
}
