use super::{
    super::http_testing::{filter, filtering, of_rule, route, ruled},
    *,
};
use crate::policy::http_route::{HeaderField, PathModifier, Scheme};

#[test]
fn every_filter_is_read() {
    let header = |name: &str| HeaderField { name: name.to_owned(), value: "v".to_owned() };
    let RouteFilter::RequestHeaders(modifier) = filter(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: v}], add: [{name: b, value: v}], remove: [C]}}",
    ) else {
        panic!("no modifier")
    };
    assert_eq!((modifier.set, modifier.add), (vec![header("X-A")], vec![header("b")]));
    assert_eq!(modifier.remove, ["C"]);
    let RouteFilter::Redirect(redirect) = filter(
        "{type: RequestRedirect, requestRedirect: {scheme: http, port: 8080, statusCode: 307}}",
    ) else {
        panic!("no redirection")
    };
    assert_eq!((redirect.scheme, redirect.status), (Some(Scheme::Http), 307));
    let RouteFilter::Rewrite(rewrite) = filter(
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}",
    ) else {
        panic!("no rewriting")
    };
    assert_eq!(rewrite.path, Some(PathModifier::Prefix(String::new())));
    for (part, share) in [
        ("", 1.0),
        (", percent: 20", 0.2),
        (", percent: 0", 0.0),
        (", fraction: {numerator: 25}", 0.25),
        (", fraction: {numerator: 1, denominator: 4}", 0.25),
    ] {
        let RouteFilter::Mirror(mirror) = filter(&format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: echo, port: 80}}{part}}}}}"
        )) else {
            panic!("no mirror")
        };
        assert!((mirror.share - share).abs() < 1e-12, "{part}");
        assert_eq!(
            (mirror.backend.name.as_str(), mirror.backend.namespace.as_str()),
            ("echo", "shop")
        );
    }
    let cors = filter(
        "{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com:8443', 'http://[2001:db8::1]:80', 'http://*'], allowMethods: [GET, OPTIONS], allowHeaders: [x-a], exposeHeaders: ['*'], allowCredentials: true, maxAge: 3600}}",
    );
    let RouteFilter::Cors(cors) = cors else { panic!("no CORS") };
    assert_eq!(cors.origins.len(), 4);
    assert_eq!(
        (cors.methods, cors.headers),
        (vec!["GET".to_owned(), "OPTIONS".to_owned()], vec!["x-a".to_owned()])
    );
    assert_eq!(
        (cors.exposed, cors.credentials, cors.max_age_seconds),
        (vec!["*".to_owned()], true, 3600)
    );
    let RouteFilter::Cors(cors) = filter("{type: CORS, cors: {allowOrigins: ['*']}}") else {
        panic!("no CORS")
    };
    assert_eq!((cors.credentials, cors.max_age_seconds), (false, 5));
    assert_eq!(
        filter("{type: ExtensionRef, extensionRef: {group: example.com, kind: Limit, name: a}}"),
        RouteFilter::Unsupported("Limit.example.com/a".to_owned())
    );
}

#[test]
fn what_is_wrong_with_filters_is_said_at_their_field() {
    let modifier =
        |body: &str| format!("{{type: RequestHeaderModifier, requestHeaderModifier: {body}}}");
    let redirect = |body: &str| format!("{{type: RequestRedirect, requestRedirect: {body}}}");
    let rewrite = |body: &str| format!("{{type: URLRewrite, urlRewrite: {body}}}");
    let mirror = |rest: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: a, port: 80}}, {rest}}}}}"
        )
    };
    let cors = |body: &str| format!("{{type: CORS, cors: {{allowOrigins: ['*'], {body}}}}}");
    let origin = |origin: &str| format!("{{type: CORS, cors: {{allowOrigins: [{origin}]}}}}");
    let a = "{name: a, value: b}";
    let cases: &[(String, &[&str])] = &[
        ("{}".to_owned(), &["[0].type"]),
        ("{type: Cors}".to_owned(), &["[0].type"]),
        ("{type: CORS}".to_owned(), &["[0].cors"]),
        ("{type: ExtensionRef}".to_owned(), &["[0].extensionRef"]),
        ("{type: ExternalAuth}".to_owned(), &["[0].externalAuth"]),
        ("{type: URLRewrite, urlRewrite: {hostname: a}, cors: {}}".to_owned(), &["[0].cors"]),
        (
            modifier(&format!("{{set: [{a}], add: [{{name: A, value: b}}]}}")),
            &["[0].requestHeaderModifier.add[0].name"],
        ),
        (
            modifier(&format!("{{set: [{a}], remove: [A]}}")),
            &["[0].requestHeaderModifier.remove[0]"],
        ),
        (modifier("{set: [{name: 'a:', value: b}]}"), &["[0].requestHeaderModifier.set[0].name"]),
        (redirect("{scheme: HTTP}"), &["[0].requestRedirect.scheme"]),
        (redirect("{hostname: '*.a.com'}"), &["[0].requestRedirect.hostname"]),
        (redirect("{statusCode: 304}"), &["[0].requestRedirect.statusCode"]),
        (
            redirect("{path: {type: ReplaceFullPath}}"),
            &["[0].requestRedirect.path.replaceFullPath"],
        ),
        (
            redirect("{path: {type: ReplaceFullPath, replacePrefixMatch: /}}"),
            &[
                "[0].requestRedirect.path.replaceFullPath",
                "[0].requestRedirect.path.replacePrefixMatch",
            ],
        ),
        (rewrite("{hostToBackendHostname: true}"), &["[0].urlRewrite.hostToBackendHostname"]),
        (rewrite("{path: {type: Replace, replaceFullPath: /}}"), &["[0].urlRewrite.path.type"]),
        (
            rewrite(&format!(
                "{{path: {{type: ReplaceFullPath, replaceFullPath: /{}}}}}",
                "a".repeat(1024)
            )),
            &["[0].urlRewrite.path.replaceFullPath"],
        ),
        (mirror("percent: 101"), &["[0].requestMirror.percent"]),
        (mirror("percent: 1.5"), &["[0].requestMirror.percent"]),
        (mirror("percent: 1, fraction: {numerator: 1}"), &["[0].requestMirror.fraction"]),
        (mirror("fraction: {}"), &["[0].requestMirror.fraction.numerator"]),
        (mirror("fraction: {numerator: 101}"), &["[0].requestMirror.fraction"]),
        (
            mirror("fraction: {numerator: 1, denominator: 0}"),
            &["[0].requestMirror.fraction.denominator"],
        ),
        ("{type: RequestMirror, requestMirror: {}}".to_owned(), &["[0].requestMirror.backendRef"]),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a}}}".to_owned(),
            &["[0].requestMirror.backendRef.port"],
        ),
        (cors("allowMethods: [get]"), &["[0].cors.allowMethods[0]"]),
        (cors("allowMethods: [GET, '*']"), &["[0].cors.allowMethods"]),
        (cors("allowHeaders: ['a b']"), &["[0].cors.allowHeaders[0]"]),
        (cors("allowHeaders: ['*', a]"), &["[0].cors.allowHeaders"]),
        (cors("exposeHeaders: [a, a]"), &["[0].cors.exposeHeaders[1]"]),
        (cors("maxAge: 0"), &["[0].cors.maxAge"]),
        (cors("allowCredentials: 1"), &["[0].cors.allowCredentials"]),
        (origin("'*', 'https://a.com'"), &["[0].cors.allowOrigins"]),
        (origin("a.com"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://'"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://a.com/'"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://a.*.com'"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://a.com:0'"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://a.com:65536'"), &["[0].cors.allowOrigins[0]"]),
        (origin("'https://[2001:db8::]x'"), &["[0].cors.allowOrigins[0]"]),
        (
            "{type: ExtensionRef, extensionRef: {kind: Limit, name: a}}".to_owned(),
            &["[0].extensionRef.group"],
        ),
    ];
    for (one, fields) in cases {
        let found = of_rule(&filtering(&format!("[{one}]")));
        let found: Vec<_> = found.iter().map(|f| f.strip_prefix("filters").unwrap_or(f)).collect();
        assert_eq!(found, *fields, "{one}");
    }
}

#[test]
fn filters_that_exclude_each_other_are_refused() {
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}";
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a}}";
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}";
    let twice = |one: &str| of_rule(&filtering(&format!("[{one}, {one}]")));
    assert_eq!(twice(headers), ["filters[1]"]);
    assert_eq!(twice(redirect), ["filters[1]"]);
    assert_eq!(twice(rewrite), ["filters[1]"]);
    assert_eq!(twice("{type: CORS, cors: {allowOrigins: ['*']}}"), ["filters[1]"]);
    assert_eq!(twice(mirror), [""; 0]);
    assert_eq!(of_rule(&filtering(&format!("[{redirect}, {rewrite}]"))), ["filters"]);
    assert_eq!(of_rule(&ruled(&format!("filters: [{redirect}]"))), ["backendRefs"]);
    let many = vec![mirror; 17].join(", ");
    assert_eq!(of_rule(&filtering(&format!("[{many}]"))), ["filters"]);
}

#[test]
fn a_prefix_is_replaced_only_in_a_rule_with_one_match_of_a_prefix() {
    let replacing = |matches: &str| {
        let path = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}";
        route(&format!(
            "rules: [{{{matches}, filters: [{{type: URLRewrite, urlRewrite: {{{path}}}}}], backendRefs: [{{name: a, port: 80}}]}}]"
        ))
    };
    let wrong = ["filters[0].urlRewrite.path.replacePrefixMatch"];
    assert_eq!(of_rule(&replacing("matches: [{path: {value: /a}}]")), [""; 0]);
    assert_eq!(of_rule(&replacing("name: a")), [""; 0]);
    assert_eq!(of_rule(&replacing("matches: [{path: {value: /a}}, {path: {value: /c}}]")), wrong);
    assert_eq!(of_rule(&replacing("matches: [{path: {type: Exact, value: /a}}]")), wrong);
}
