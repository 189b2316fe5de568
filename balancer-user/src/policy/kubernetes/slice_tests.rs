use std::sync::Arc;

use crate::policy::{
    Host,
    kubernetes::{AddressType, EndpointSlice, Transport},
    testing::{LENIENT, errors, finding, object, port, reading, warnings},
};

const META: &str =
    "metadata: {name: a-x1, namespace: shop, labels: {kubernetes.io/service-name: a}}";

fn slice(rest: &str) -> String {
    object("discovery.k8s.io/v1", "EndpointSlice", META, "").replace("spec: \n", rest)
}

fn read(rest: &str) -> EndpointSlice {
    let mut reading = reading(&slice(rest), &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.endpoint_slices.remove(0))
}

/// The errors of a slice with these endpoints.
fn refused(address_type: &str, endpoints: &str) -> Vec<String> {
    let body = slice(&format!("addressType: {address_type}\nendpoints: {endpoints}\n"));
    assert!(reading(&body, &LENIENT).set.endpoint_slices.is_empty(), "{body}");
    errors(&body, &LENIENT)
}

#[test]
fn an_endpoint_has_its_address_zone_node_and_conditions() {
    let read = read(
        "addressType: IPv4
ports: [{name: http, protocol: TCP, port: 1027, appProtocol: http}, {name: dns, protocol: UDP, port: 53}, {}]
endpoints:
- {addresses: [10.244.1.9], conditions: {ready: true, serving: true, terminating: false}, zone: east-1, nodeName: n1}
- {addresses: [10.244.1.10], conditions: {ready: false}, targetRef: {kind: Pod, name: p}}
- {addresses: [10.244.1.11], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.244.1.12], conditions: {ready: null}}
- {addresses: [10.244.1.13]}
",
    );
    assert_eq!((read.service.as_deref(), read.address_type), (Some("a"), AddressType::Ipv4));
    let ports: Vec<_> = read.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
    let expected = [
        ("http", Transport::Tcp, Some(port(1027))),
        ("dns", Transport::Udp, Some(port(53))),
        ("", Transport::Tcp, None),
    ];
    assert_eq!(ports, expected);
    let first = &read.endpoints[0];
    assert_eq!(first.address, Host::Ip("10.244.1.9".parse().unwrap()));
    assert_eq!((first.zone.as_deref(), first.node.as_deref()), (Some("east-1"), Some("n1")));
    let conditions: Vec<_> =
        read.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(
        conditions,
        [
            (true, true, false),
            (false, false, false),
            (false, true, true),
            (true, true, false),
            (true, true, false),
        ]
    );
}

#[test]
fn addresses_that_are_no_endpoints_are_refused_at_their_place() {
    let at = |address: &str| format!("[{{addresses: [{address}]}}]");
    for (kind, address) in [
        ("IPv4", "10.0.0.300"),
        ("IPv4", "'fd00::1'"),
        ("IPv6", "10.0.0.1"),
        ("IPv4", "127.0.0.1"),
        ("IPv4", "0.0.0.0"),
        ("IPv4", "169.254.1.1"),
        ("IPv4", "224.0.0.1"),
        ("IPv6", "'::'"),
        ("IPv6", "'::1'"),
        ("IPv6", "'fe80::1'"),
        ("IPv6", "'ff02::1'"),
        ("IPv6", "'::ffff:10.0.0.1'"),
        ("FQDN", "a_b"),
        ("IPv4", "[]"),
    ] {
        assert_eq!(refused(kind, &at(address)), ["endpoints[0].addresses[0]"], "{kind} {address}");
    }
}

#[test]
fn rules_of_slices_are_held_at_their_place() {
    assert_eq!(refused("IPv4", "[{addresses: []}]"), ["endpoints[0].addresses"]);
    assert_eq!(refused("IPv4", "[{}]"), ["endpoints[0].addresses"]);
    assert_eq!(refused("IPv4", "[{addresses: x}]"), ["endpoints[0].addresses"]);
    assert_eq!(refused("IPv5", "[]"), ["addressType"]);
    let many = |count: usize, item: &str| format!("[{}]", vec![item; count].join(", "));
    assert_eq!(refused("IPv4", &many(1_001, "{addresses: [10.0.0.1]}")), ["endpoints"]);
    let addresses = format!("[{{addresses: {}}}]", many(101, "10.0.0.1"));
    assert_eq!(refused("IPv4", &addresses), ["endpoints[0].addresses"]);
    let conditions = "[{addresses: [10.0.0.1], conditions: {ready: 1}}]";
    assert_eq!(refused("IPv4", conditions), ["endpoints[0].conditions.ready"]);

    assert_eq!(errors(&slice(""), &LENIENT), ["addressType"]);
    // As the cluster writes the slice of a Service that has no endpoints.
    assert!(read("addressType: IPv4\nendpoints: null\nports: null\n").endpoints.is_empty());
    let ports = |ports: &str| {
        errors(&slice(&format!("addressType: IPv4\nendpoints: []\nports: {ports}\n")), &LENIENT)
    };
    assert_eq!(ports("[{name: a, port: 1}, {name: a, port: 2}]"), ["ports[1].name"]);
    assert_eq!(ports("[{port: 1}, {name: '', port: 2}]"), ["ports[1].name"]);
    assert_eq!(ports("[{port: 0}]"), ["ports[0].port"]);
    assert_eq!(ports("[{port: 1, protocol: XDP}]"), ["ports[0].protocol"]);
    assert_eq!(ports("[{port: 1, name: A}]"), ["ports[0].name"]);
}

#[test]
fn what_of_a_slice_has_no_effect_says_so() {
    let body = slice(
        "addressType: IPv4
endpoints:
- {addresses: [10.0.0.1, 10.0.0.2], hints: {forZones: [{name: a}]}, hostname: h, extra: 1}
ports: [{name: a}]
",
    );
    assert!(reading(&body, &LENIENT).report.valid());
    assert_eq!(
        warnings(&body, &LENIENT),
        ["endpoints[0].addresses", "endpoints[0].hints", "endpoints[0].extra", "ports[0].port",]
    );
    let stray = slice("addressType: FQDN\nendpoints: [{addresses: [a.example]}]\n")
        .replace(", labels: {kubernetes.io/service-name: a}", "");
    let said = finding(&stray, &LENIENT, "metadata.labels[\"kubernetes.io/service-name\"]");
    assert!(said.message.contains("belongs to no Service"), "{}", said.message);
    assert!(!finding(&stray, &LENIENT, "addressType").is_error());
}
