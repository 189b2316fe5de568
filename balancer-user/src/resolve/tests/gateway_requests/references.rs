//! What rules lead to: references, and what becomes of those that lead nowhere (semantics 5.4).

use super::*;

#[test]
fn what_a_reference_cannot_lead_to_is_answered_for_its_share() {
    let of = |backends: &str, more: &str| {
        let route = http("r", EDGE, &format!("rules: [{{backendRefs: [{backends}]}}]"));
        let resolved = resolved(&[&edge(WEB), &route, more]);
        let mut took = answers(at(&resolved, NOBODY, FRONT), &asked("GET", "/"), 2);
        took.sort();
        took
    };
    let both = |backend: &str| of(&format!("{{name: v1, port: 80}}, {backend}"), "");
    let half = |code: &str| vec![code.to_owned(), "v1.shop:80".to_owned()];
    assert_eq!(both("{name: nobody, port: 80}"), half("500"));
    assert_eq!(both("{name: v2, port: 81}"), half("500"));
    assert_eq!(both("{name: v2, kind: Pool, port: 80}"), half("500"));
    assert_eq!(both("{name: tls, port: 80}"), half("500"));
    assert_eq!(both("{name: empty, port: 80}"), half("503"));
    let far = "{name: far, namespace: data, port: 80}";
    assert_eq!(both(far), half("500"));
    let grant = |kind: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: data}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}], to: [{{group: '', kind: Service}}]}}\n---\n"
        )
    };
    assert_eq!(of(far, &grant("HTTPRoute")), ["far.data:80"; 2]);
    assert_eq!(of(far, &grant("TCPRoute")), ["500"; 2]);
    assert_eq!(of("", ""), ["500"; 2]);
    assert_eq!(of("{name: v1, port: 80, weight: 0}", ""), ["500"; 2]);
}

#[test]
fn every_reference_of_a_route_is_resolved_mirrors_among_them() {
    let mirror = |name: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 80}}}}}}"
        )
    };
    let rest = format!(
        "rules: [{{backendRefs: [{{name: v1, port: 80, filters: [{}]}}], filters: [{}, {}]}}]",
        mirror("gone"),
        mirror("v2"),
        mirror("lost")
    );
    let services = services();
    let set = set(&[&services, &edge(WEB), &http("r", EDGE, &rest)]);
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let status = &attached.routes[0];
    let fields: Vec<_> = status.references.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.rules[0].backendRefs[0]",
            "spec.rules[0].filters[0].requestMirror.backendRef",
            "spec.rules[0].filters[1].requestMirror.backendRef",
            "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef",
        ]
    );
    let parent = &status.parents[0];
    assert_eq!(parent.resolved.reason, ConditionReason::BackendNotFound);
    assert_eq!(
        parent.resolved.message,
        "there is no Service shop/lost; there is no Service shop/gone"
    );
    let resolved = resolve(&set, &settings());
    assert_eq!(answer(at(&resolved, NOBODY, FRONT), &asked("GET", "/")), "v1.shop:80");
    let said = resolved.messages();
    let lost = "not resolved (BackendNotFound): there is no Service shop/lost; no copy of a request is sent there";
    assert!(said.contains(&lost), "{said:?}");
}

#[test]
fn a_port_says_what_no_route_of_a_kind_is_sent_to() {
    let of = |kind: &str, service: &str| {
        let services = services();
        let set = set(&[&services, &edge(WEB), &route(kind, "r", 0, EDGE, &to(service))]);
        let attached = attach(&set, GATEWAY_CONTROLLER);
        attached.routes[0].parents[0].resolved.reason
    };
    use ConditionReason::{ResolvedRefs, UnsupportedProtocol};
    assert_eq!(of("HTTPRoute", "v1"), ResolvedRefs);
    assert_eq!(of("HTTPRoute", "ws"), ResolvedRefs);
    assert_eq!(of("GRPCRoute", "ws"), UnsupportedProtocol);
    assert_eq!(of("HTTPRoute", "tls"), UnsupportedProtocol);
    assert_eq!(of("TCPRoute", "tls"), ResolvedRefs, "bytes are bytes");
}

#[test]
fn timeouts_are_kept_and_zero_is_none() {
    let rest = "rules: [{timeouts: {request: 2s, backendRequest: 500ms}, backendRefs: [{name: v1, port: 80}]},\
                {matches: [{path: {value: /b}}], timeouts: {request: 0s}, backendRefs: [{name: v1, port: 80}]}]";
    let resolved = resolved(&[&edge(WEB), &http("r", EDGE, rest)]);
    let rules = &at(&resolved, NOBODY, FRONT).http.as_ref().unwrap().rules.rules;
    let milliseconds = |at: usize| {
        let of = |one: Option<std::time::Duration>| one.map(|one| one.as_millis());
        (of(rules[at].timeouts.request), of(rules[at].timeouts.backend_request))
    };
    assert_eq!(milliseconds(0), (Some(2000), Some(500)));
    assert_eq!(milliseconds(1), (None, None));
}

#[test]
fn a_filter_that_is_not_known_lets_no_request_pass() {
    let unknown = "{type: ExtensionRef, extensionRef: {group: a.b, kind: Magic, name: m}}";
    let of_rule =
        format!("rules: [{{filters: [{unknown}], backendRefs: [{{name: v1, port: 80}}]}}]");
    let of_backend =
        format!("rules: [{{backendRefs: [{{name: v1, port: 80, filters: [{unknown}]}}]}}]");
    for rest in [of_rule, of_backend] {
        let resolved = resolved(&[&edge(WEB), &http("r", EDGE, &rest)]);
        assert_eq!(answer(at(&resolved, NOBODY, FRONT), &asked("GET", "/")), "500", "{rest}");
    }
}
