use std::sync::Arc;

use crate::policy::{
    gateway::TcpRoute,
    testing::{LENIENT, errors, finding, object, port, reading, warnings},
};

fn route(spec: &str) -> String {
    object(
        "gateway.networking.k8s.io/v1",
        "TCPRoute",
        "metadata: {name: canary, namespace: shop}",
        spec,
    )
}

fn read(body: &str) -> TcpRoute {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.tcp_routes.remove(0))
}

fn refused(body: &str) -> Vec<String> {
    assert!(reading(body, &LENIENT).set.tcp_routes.is_empty(), "{body}");
    errors(body, &LENIENT)
}

/// A route with these `backendRefs`.
fn to(backends: &str) -> String {
    route(&format!("{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: {backends}}}]}}"))
}

/// A route with these `parentRefs`.
fn from(parents: &str) -> String {
    route(&format!("{{parentRefs: {parents}, rules: [{{backendRefs: [{{name: a, port: 1}}]}}]}}"))
}

#[test]
fn references_are_read_with_their_defaults() {
    let route = read(&route(
        "{parentRefs: [{name: edge, sectionName: redis, port: 6379}, {group: '', kind: Service, name: db, namespace: data}],
          rules: [{name: only, backendRefs: [{name: v1, port: 6379, weight: 90}, {name: v2, namespace: data, port: 6380},
            {group: example.com, kind: Pool, name: v3, weight: 0}]}]}",
    ));
    let [edge, service] = route.parents.as_slice() else { panic!("two parents") };
    assert_eq!((edge.group.as_str(), edge.kind.as_str()), ("gateway.networking.k8s.io", "Gateway"));
    assert_eq!((edge.namespace.as_str(), edge.name.as_str()), ("shop", "edge"));
    assert_eq!((edge.section.as_deref(), edge.port), (Some("redis"), Some(port(6379))));
    assert_eq!((service.group.as_str(), service.kind.as_str()), ("", "Service"));
    assert_eq!(
        (service.namespace.as_str(), service.section.as_deref(), service.port),
        ("data", None, None)
    );
    let backends: Vec<_> = route
        .backends
        .iter()
        .map(|b| {
            (
                b.group.as_str(),
                b.kind.as_str(),
                b.namespace.as_str(),
                b.name.as_str(),
                b.port,
                b.weight,
            )
        })
        .collect();
    assert_eq!(
        backends,
        [
            ("", "Service", "shop", "v1", Some(port(6379)), 90),
            ("", "Service", "data", "v2", Some(port(6380)), 1),
            ("example.com", "Pool", "shop", "v3", None, 0),
        ]
    );
}

#[test]
fn rules_of_backends_are_held_at_their_place() {
    let at = |rest: &str| vec![format!("spec.rules[0].backendRefs{rest}")];
    for (backends, rest) in [
        ("[]", ""),
        ("[{port: 1}]", "[0].name"),
        ("[{name: a}]", "[0].port"),
        ("[{name: a, group: '', kind: Service}]", "[0].port"),
        ("[{name: a, port: 0}]", "[0].port"),
        ("[{name: a_b, port: 1}]", "[0].name"),
        ("[{name: a, port: 1, namespace: a.b}]", "[0].namespace"),
        ("[{name: a, port: 1, weight: 1000001}]", "[0].weight"),
        ("[{name: a, port: 1, weight: -1}]", "[0].weight"),
        ("[{name: a, port: 1, weight: '1'}]", "[0].weight"),
        ("[{name: a, port: 1, wieght: 1}]", "[0].wieght"),
        ("[{name: a, port: 1, kind: ''}]", "[0].kind"),
        ("[{name: a, port: 1, group: A}]", "[0].group"),
        ("[{name: a, port: 1}, {name: b}]", "[1].port"),
    ] {
        assert_eq!(refused(&to(backends)), at(rest), "{backends}");
    }
    read(&to("[{name: a, port: 1, weight: 1000000}, {name: b, port: 1, weight: 0}]"));
    let many = ["{name: a, port: 1}"; 17].join(", ");
    assert_eq!(refused(&to(&format!("[{many}]"))), at(""));
    let hint = finding(
        &to("[{name: a, port: 1, wieght: 1}]"),
        &LENIENT,
        "spec.rules[0].backendRefs[0].wieght",
    )
    .hint;
    assert_eq!(hint.as_deref(), Some("did you mean `weight`?"));
}

#[test]
fn a_route_has_exactly_one_rule() {
    let rules =
        |rules: &str| refused(&route(&format!("{{parentRefs: [{{name: a}}], rules: {rules}}}")));
    assert_eq!(rules("[]"), ["spec.rules"]);
    let one = "{backendRefs: [{name: a, port: 1}]}";
    assert_eq!(rules(&format!("[{one}, {one}]")), ["spec.rules"]);
    assert_eq!(rules("[{}]"), ["spec.rules[0].backendRefs"]);
    assert_eq!(
        rules("[{backendRefs: [{name: a, port: 1}], matches: []}]"),
        ["spec.rules[0].matches"]
    );
    assert_eq!(refused(&route("{parentRefs: [{name: a}]}")), ["spec.rules"]);
}

#[test]
fn references_to_one_parent_must_differ() {
    for parents in [
        "[{name: a}, {name: a}]",
        "[{name: a, sectionName: x}, {name: a}]",
        "[{name: a}, {name: a, port: 1}]",
        "[{name: a, sectionName: x}, {name: a, sectionName: x}]",
        "[{name: a, port: 1}, {name: a, port: 1}]",
        "[{name: a, sectionName: x, port: 1}, {name: a, namespace: shop, sectionName: x, port: 1}]",
    ] {
        assert_eq!(refused(&from(parents)), ["spec.parentRefs[1]"], "{parents}");
    }
    for parents in [
        "[{name: a, sectionName: x}, {name: a, sectionName: y}]",
        "[{name: a, sectionName: x, port: 1}, {name: a, sectionName: x, port: 2}]",
        "[{name: a}, {name: a, namespace: other}]",
        "[{name: a}, {name: a, group: '', kind: Service}]",
    ] {
        assert_eq!(read(&from(parents)).parents.len(), 2, "{parents}");
    }
    assert_eq!(refused(&from("[{sectionName: a}]")), ["spec.parentRefs[0].name"]);
    assert_eq!(refused(&from("[{name: a, section: b}]")), ["spec.parentRefs[0].section"]);
    let many: Vec<String> = (0..33).map(|n| format!("{{name: a{n}}}")).collect();
    assert_eq!(refused(&from(&format!("[{}]", many.join(", ")))), ["spec.parentRefs"]);
}

#[test]
fn a_route_that_leads_from_or_to_nowhere_says_so() {
    let body = route("{rules: [{backendRefs: [{name: a, port: 1}]}]}");
    assert!(read(&body).parents.is_empty());
    let nothing = to("[{name: a, port: 1, weight: 0}, {name: b, port: 1, weight: 0}]");
    assert_eq!(read(&nothing).backends.len(), 2);
    assert_eq!(warnings(&nothing, &LENIENT), ["spec.rules[0].backendRefs"]);
    assert_eq!(warnings(&body, &LENIENT), ["spec.parentRefs"]);
}
