use std::sync::Arc;

use crate::policy::{
    Host, Tags,
    gateway::{AllowedNamespaces, Gateway, LabelOperator, ListenerProtocol},
    testing::{LENIENT, errors, finding, object, port, reading, warnings},
};

fn gateway(spec: &str) -> String {
    object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        "metadata: {name: edge, namespace: shop}",
        spec,
    )
}

/// A Gateway with these listeners, a flow list.
fn with(listeners: &str) -> String {
    gateway(&format!("{{gatewayClassName: node, listeners: {listeners}}}"))
}

fn read(body: &str) -> Gateway {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.gateways.remove(0))
}

fn refused(body: &str) -> Vec<String> {
    assert!(reading(body, &LENIENT).set.gateways.is_empty(), "{body}");
    errors(body, &LENIENT)
}

/// The errors of a Gateway with one listener that has these fields too.
fn one(fields: &str) -> Vec<String> {
    refused(&with(&format!("[{{name: a, {fields}}}]")))
}

#[test]
fn a_listener_is_read_with_its_defaults() {
    let gateway = read(&with(
        "[{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'},
          {name: redis, port: 6379, protocol: TCP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: TCPRoute}]}},
          {name: quic, port: 1, protocol: example.com/quic}]",
    ));
    assert_eq!(gateway.class, "node");
    assert!(gateway.addresses.is_empty());
    let [web, redis, quic] = gateway.listeners.as_slice() else { panic!("three listeners") };
    assert_eq!((web.port, web.hostname.as_deref()), (port(80), Some("*.example.com")));
    assert_eq!((&web.namespaces, web.kinds.len()), (&AllowedNamespaces::Same, 0));
    assert_eq!(
        (&redis.protocol, &redis.namespaces),
        (&ListenerProtocol::Tcp, &AllowedNamespaces::All)
    );
    let kind = ("gateway.networking.k8s.io".to_owned(), "TCPRoute".to_owned());
    assert_eq!(redis.kinds, [kind]);
    assert_eq!(quic.protocol, ListenerProtocol::Other("example.com/quic".to_owned()));
}

#[test]
fn addresses_are_kept_and_those_that_cannot_be_used_are_reported() {
    let body = |addresses: &str| {
        gateway(&format!(
            "{{gatewayClassName: node, addresses: {addresses}, listeners: [{{name: a, port: 1, protocol: TCP}}]}}"
        ))
    };
    let ip = |text: &str| Host::Ip(text.parse().unwrap());
    let two = read(&body("[{value: 192.0.2.7}, {type: IPAddress, value: '2001:db8::7'}]"));
    assert_eq!(two.addresses, [ip("192.0.2.7"), ip("2001:db8::7")]);
    let named =
        body("[{type: Hostname, value: a.example}, {type: example.com/pool, value: x}, {}]");
    assert_eq!(read(&named).addresses, [Host::Name("a.example".to_owned())]);
    assert_eq!(
        warnings(&named, &LENIENT),
        ["spec.addresses[0].value", "spec.addresses[1].type", "spec.addresses[2]"]
    );
    for (addresses, field) in [
        ("[{value: 192.0.2.300}]", "spec.addresses[0].value"),
        ("[{value: 0.0.0.0}]", "spec.addresses[0].value"),
        ("[{value: 224.0.0.1}]", "spec.addresses[0].value"),
        ("[{type: Hostname, value: A_b}]", "spec.addresses[0].value"),
        ("[{type: IP, value: 192.0.2.7}]", "spec.addresses[0].type"),
        ("[{value: 192.0.2.7}, {value: 192.0.2.7}]", "spec.addresses[1].value"),
        ("[{value: 'fd00::1'}, {value: 'fd00:0::1'}]", "spec.addresses[1].value"),
        ("{}", "spec.addresses"),
    ] {
        assert_eq!(refused(&body(addresses)), [field], "{addresses}");
    }
    let many = ["{type: example.com/pool, value: x}"; 17].join(", ");
    assert_eq!(refused(&body(&format!("[{many}]"))), ["spec.addresses"]);
}

#[test]
fn what_a_listener_needs_is_asked_for_at_its_place() {
    for (fields, field) in [
        ("protocol: TCP", "spec.listeners[0].port"),
        ("port: 0, protocol: TCP", "spec.listeners[0].port"),
        ("port: 1", "spec.listeners[0].protocol"),
        ("port: 1, protocol: tcp", "spec.listeners[0].protocol"),
        ("port: 1, protocol: TCP, hostname: a.example", "spec.listeners[0].hostname"),
        ("port: 1, protocol: UDP, hostname: a.example", "spec.listeners[0].hostname"),
        ("port: 1, protocol: HTTP, hostname: 'a.*.example'", "spec.listeners[0].hostname"),
        ("port: 1, protocol: HTTP, hostname: 192.0.2.1", "spec.listeners[0].hostname"),
        ("port: 1, protocol: TCP, extra: 1", "spec.listeners[0].extra"),
        ("port: 1, protocol: TCP, allowed_routes: {}", "spec.listeners[0].allowed_routes"),
        ("port: 1, protocol: TCP, tls: {mode: Terminate}", "spec.listeners[0].tls"),
        ("port: 1, protocol: HTTP, tls: {}", "spec.listeners[0].tls"),
        ("port: 1, protocol: TLS", "spec.listeners[0].tls"),
        ("port: 1, protocol: TLS, tls: {options: {a: b}}", "spec.listeners[0].tls.mode"),
        ("port: 1, protocol: HTTPS, tls: {mode: Passthrough}", "spec.listeners[0].tls.mode"),
        ("port: 1, protocol: HTTPS, tls: {}", "spec.listeners[0].tls"),
        ("port: 1, protocol: TLS, tls: {mode: Pass}", "spec.listeners[0].tls.mode"),
    ] {
        assert_eq!(one(fields), [field], "{fields}");
    }
    read(&with("[{name: a, port: 1, protocol: TLS, tls: {mode: Passthrough}}]"));
    read(&with("[{name: a, port: 1, protocol: TCP, hostname: ''}]"));
    assert_eq!(refused(&with("[{name: A, port: 1, protocol: TCP}]")), ["spec.listeners[0].name"]);
    assert_eq!(refused(&with("[{port: 1, protocol: TCP}]")), ["spec.listeners[0].name"]);
    assert_eq!(refused(&with("[]")), ["spec.listeners"]);
    assert_eq!(refused(&gateway("{}")), ["spec.gatewayClassName", "spec.listeners"]);
    let hint = finding(
        &with("[{name: a, port: 1, protocol: tpc}]"),
        &LENIENT,
        "spec.listeners[0].protocol",
    )
    .hint;
    assert_eq!(hint.as_deref(), Some("did you mean `TCP`?"));
}

#[test]
fn two_listeners_that_cannot_be_told_apart_are_refused() {
    let two = |a: &str, b: &str| with(&format!("[{{name: a, {a}}}, {{name: b, {b}}}]"));
    let clash = two("port: 1, protocol: TCP", "port: 1, protocol: TCP");
    assert_eq!(refused(&clash), ["spec.listeners[1]"]);
    assert!(finding(&clash, &LENIENT, "spec.listeners[1]").related.is_some());
    let hosts = "port: 1, protocol: HTTP, hostname: a.example";
    assert_eq!(refused(&two(hosts, hosts)), ["spec.listeners[1]"]);
    read(&two(hosts, "port: 1, protocol: HTTP"));
    read(&two("port: 1, protocol: TCP", "port: 1, protocol: UDP"));
    read(&two("port: 1, protocol: TCP", "port: 2, protocol: TCP"));
    let named = "[{name: a, port: 1, protocol: TCP}, {name: a, port: 2, protocol: TCP}]";
    assert_eq!(refused(&with(named)), ["spec.listeners[1].name"]);
    let many: Vec<String> =
        (0..65).map(|n| format!("{{name: n{n}, port: {}, protocol: TCP}}", n + 1)).collect();
    assert_eq!(refused(&with(&format!("[{}]", many.join(", ")))), ["spec.listeners"]);
}

#[test]
fn allowed_routes_are_read_and_their_rules_held() {
    let allowed = |fields: &str| {
        with(&format!("[{{name: a, port: 1, protocol: TCP, allowedRoutes: {{{fields}}}}}]"))
    };
    let at = |rest: &str| format!("spec.listeners[0].allowedRoutes.{rest}");
    for (fields, field) in [
        ("namespaces: {from: None}", "namespaces.from"),
        ("namespaces: {from: Selector}", "namespaces.selector"),
        (
            "namespaces: {from: Selector, selector: {matchLabels: {a: 'b c'}}}",
            "namespaces.selector.matchLabels[\"a\"]",
        ),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Is}]}}",
            "namespaces.selector.matchExpressions[0].operator",
        ),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: In}]}}",
            "namespaces.selector.matchExpressions[0].values",
        ),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}",
            "namespaces.selector.matchExpressions[0].values",
        ),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "namespaces.selector.matchExpressions[0].values",
        ),
        (
            "namespaces: {from: Selector, selector: {matchExpressions: [{operator: Exists}]}}",
            "namespaces.selector.matchExpressions[0].key",
        ),
        ("namespaces: {from: Same, selector: {labels: {}}}", "namespaces.selector.labels"),
        ("kinds: [{group: a}]", "kinds[0].kind"),
        ("kinds: [{kind: 1a}]", "kinds[0].kind"),
        ("kinds: [{kind: A, group: B}]", "kinds[0].group"),
    ] {
        assert_eq!(refused(&allowed(fields)), [at(field)], "{fields}");
    }
    let nine = ["{kind: A}"; 9].join(", ");
    assert_eq!(refused(&allowed(&format!("kinds: [{nine}]"))), [at("kinds")]);
    let unused = allowed("namespaces: {from: Same, selector: {matchLabels: {a: b}}}");
    assert_eq!(warnings(&unused, &LENIENT), [at("namespaces.selector")]);
}

#[test]
fn a_selector_matches_as_its_requirements_say() {
    let gateway = read(&with(
        "[{name: a, port: 1, protocol: TCP, allowedRoutes: {namespaces: {from: Selector, selector: {
          matchLabels: {team: x},
          matchExpressions: [{key: env, operator: In, values: [dev, test]}, {key: old, operator: DoesNotExist},
            {key: tier, operator: NotIn, values: [gold]}, {key: owner, operator: Exists}]}}}}]",
    ));
    let AllowedNamespaces::Selector(selector) = &gateway.listeners[0].namespaces else {
        panic!("a selector was written")
    };
    assert_eq!(selector.expressions[1].operator, LabelOperator::DoesNotExist);
    let matches = |labels: &[(&str, &str)]| {
        let labels: Tags =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selector.matches(&labels)
    };
    let right = [("team", "x"), ("env", "dev"), ("owner", "")];
    assert!(matches(&right));
    assert!(matches(&[&right[..], &[("tier", "iron")]].concat()));
    assert!(!matches(&right[1..]));
    assert!(!matches(&right[..2]));
    assert!(!matches(&[("team", "x"), ("env", "prod"), ("owner", "")]));
    assert!(!matches(&[&right[..], &[("old", "1")]].concat()));
    assert!(!matches(&[&right[..], &[("tier", "gold")]].concat()));
}

#[test]
fn fields_of_a_gateway_are_refused_or_say_that_they_have_no_effect() {
    let body = gateway(
        "{gatewayClassName: node, infrastructure: {labels: {a: b}}, tls: {frontend: {}}, extra: 1,
          allowedListeners: {namespaces: {from: All}}, listeners: [{name: a, port: 1, protocol: TCP}]}",
    );
    assert_eq!(refused(&body), ["spec.extra"]);
    assert_eq!(warnings(&body, &LENIENT), ["spec.tls", "spec.allowedListeners"]);
    let class = |spec: &str| {
        errors(
            &object("gateway.networking.k8s.io/v1", "GatewayClass", "metadata: {name: a}", spec),
            &LENIENT,
        )
    };
    assert_eq!(class("{}"), ["spec.controllerName"]);
    assert_eq!(class("{controllerName: a}"), ["spec.controllerName"]);
    assert_eq!(
        class("{controllerName: example.com/, extra: 1}"),
        ["spec.controllerName", "spec.extra"]
    );
}
