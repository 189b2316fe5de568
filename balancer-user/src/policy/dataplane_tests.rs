use std::sync::Arc;

use crate::policy::{
    Api, Dataplane, Host, ReferredBy, SERVICE_TAG, ServiceKind,
    testing::{LENIENT, STRICT, dataplane, errors, exactly, finding, reading, warnings},
};

const IN: &str = "inbound: [{port: 80, tags: {kuma.io/service: a}}]";

fn read(networking: &str) -> Dataplane {
    let mut reading = reading(&dataplane(networking), &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.dataplanes.remove(0))
}

fn inbound(fields: &str) -> String {
    dataplane(&format!("{{address: 10.0.0.1, inbound: [{{{fields}}}]}}"))
}

fn outbound(fields: &str) -> String {
    dataplane(&format!("{{address: 10.0.0.1, {IN}, outbound: [{{{fields}}}]}}"))
}

#[test]
fn every_rule_is_a_violation_of_its_field() {
    const SERVICE: &str = "tags: {kuma.io/service: a}";
    let reference = |fields: &str| outbound(&format!("port: 1, backendRef: {{{fields}}}"));
    let cases: Vec<(String, &[&str])> = vec![
        ("type: Dataplane\nname: d\nmesh: default\n".to_owned(), &["networking"]),
        (dataplane(&format!("{{{IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: '', {IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: 0.0.0.0, {IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: '::', {IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: 'a b', {IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: 10.0.0.256, {IN}}}")), &["networking.address"]),
        (dataplane(&format!("{{address: 10.0.0, {IN}}}")), &["networking.address"]),
        (
            dataplane(&format!("{{address: a, advertisedAddress: '-', {IN}}}")),
            &["networking.advertisedAddress"],
        ),
        (dataplane("{address: 10.0.0.1}"), &["networking"]),
        (dataplane("{address: 10.0.0.1, inbound: []}"), &["networking"]),
        (
            dataplane(&format!("{{address: 10.0.0.1, gateway: {{{SERVICE}}}, {IN}}}")),
            &["networking.inbound"],
        ),
        (
            dataplane(&format!(
                "{{address: 10.0.0.1, gateway: {{type: BUILTIN, {SERVICE}}}, {IN}}}"
            )),
            &["networking.inbound"],
        ),
        (
            dataplane(&format!(
                "{{address: 10.0.0.1, gateway: {{type: BUILTIN, {SERVICE}}}, outbound: [{{port: 1, {SERVICE}}}]}}"
            )),
            &["networking.outbound"],
        ),
        (dataplane("{address: 10.0.0.1, gateway: {}}"), &["networking.gateway.tags"]),
        (
            dataplane("{address: 10.0.0.1, gateway: {type: OTHER, tags: {kuma.io/service: a}}}"),
            &["networking.gateway.type"],
        ),
        (
            dataplane(
                "{address: 10.0.0.1, gateway: {tags: {kuma.io/service: a, kuma.io/protocol: http}}}",
            ),
            &["networking.gateway.tags[\"kuma.io/protocol\"]"],
        ),
        (inbound(SERVICE), &["networking.inbound[0].port"]),
        (inbound(&format!("port: 0, {SERVICE}")), &["networking.inbound[0].port"]),
        (inbound(&format!("port: 65536, {SERVICE}")), &["networking.inbound[0].port"]),
        (inbound(&format!("port: -1, {SERVICE}")), &["networking.inbound[0].port"]),
        (inbound(&format!("port: http, {SERVICE}")), &["networking.inbound[0].port"]),
        (
            inbound(&format!("port: 80, servicePort: 65536, {SERVICE}")),
            &["networking.inbound[0].servicePort"],
        ),
        (inbound(&format!("port: 80, address: a, {SERVICE}")), &["networking.inbound[0].address"]),
        (
            inbound(&format!("port: 80, serviceAddress: a, {SERVICE}")),
            &["networking.inbound[0].serviceAddress"],
        ),
        (
            inbound(&format!("port: 80, serviceAddress: 10.0.0.1, {SERVICE}")),
            &["networking.inbound[0].serviceAddress"],
        ),
        (
            inbound(&format!(
                "port: 80, servicePort: 80, address: 10.0.0.2, serviceAddress: 10.0.0.2, {SERVICE}"
            )),
            &["networking.inbound[0].serviceAddress"],
        ),
        (inbound(&format!("port: 80, servicePort: 81, serviceAddress: 10.0.0.1, {SERVICE}")), &[]),
        (
            inbound("port: 80, tags: {kuma.io/service: a, kuma.io/protocol: smtp}"),
            &["networking.inbound[0].tags[\"kuma.io/protocol\"]"],
        ),
        (inbound("port: 80, tags: {kuma.io/service: a, kuma.io/protocol: HTTP}"), &[]),
        (
            inbound("port: 80, tags: {kuma.io/service: a, x: ''}"),
            &["networking.inbound[0].tags[\"x\"]"],
        ),
        (
            inbound("port: 80, tags: {kuma.io/service: a, x: a/b}"),
            &["networking.inbound[0].tags[\"x\"]"],
        ),
        (
            inbound("port: 80, tags: {kuma.io/service: a, x: '*'}"),
            &["networking.inbound[0].tags[\"x\"]"],
        ),
        (
            inbound("port: 80, tags: {kuma.io/service: a, 'x y': b}"),
            &["networking.inbound[0].tags[\"x y\"]"],
        ),
        (
            inbound(&format!("port: 80, state: Sleeping, {SERVICE}")),
            &["networking.inbound[0].state"],
        ),
        (
            inbound(&format!("port: 80, health: {{ready: maybe}}, {SERVICE}")),
            &["networking.inbound[0].health.ready"],
        ),
        (
            inbound(&format!(
                "port: 80, serviceProbe: {{interval: 0s, timeout: x, unhealthyThreshold: 0}}, {SERVICE}"
            )),
            &[
                "networking.inbound[0].serviceProbe.interval",
                "networking.inbound[0].serviceProbe.timeout",
                "networking.inbound[0].serviceProbe.unhealthyThreshold",
            ],
        ),
        (outbound(SERVICE), &["networking.outbound[0].port"]),
        (outbound(&format!("port: 1, address: a, {SERVICE}")), &["networking.outbound[0].address"]),
        (outbound("port: 1"), &["networking.outbound[0].tags"]),
        (outbound("port: 1, tags: {}"), &["networking.outbound[0].tags"]),
        (outbound("port: 1, tags: {version: a}"), &["networking.outbound[0].tags"]),
        (
            outbound(&format!(
                "port: 1, {SERVICE}, backendRef: {{kind: MeshService, name: a, port: 1}}"
            )),
            &["networking.outbound[0].backendRef"],
        ),
        (reference("kind: MeshService, name: a"), &["networking.outbound[0].backendRef.port"]),
        (reference("kind: MeshService, port: 1"), &["networking.outbound[0].backendRef"]),
        (reference("kind: Service, name: a, port: 1"), &["networking.outbound[0].backendRef.kind"]),
        (reference("kind: MeshExternalService, name: a"), &[]),
    ];
    for (body, expected) in &cases {
        assert_eq!(errors(body, &LENIENT), *expected, "{body}");
        assert_eq!(errors(body, &STRICT), *expected, "strict: {body}");
        if !body.contains("advertisedAddress") {
            assert_eq!(errors(body, &exactly(Api::Kuma29)), *expected, "kuma-2.9: {body}");
        }
    }
}

#[test]
fn several_violations_are_all_collected() {
    let body = dataplane(
        "\n  address: 0.0.0.0\n  inbound:\n  - port: 0\n    tags: {kuma.io/service: ''}\n  - {port: 1, address: x, tags: {kuma.io/service: a}}\n  outbound:\n  - {port: 99999}",
    );
    assert_eq!(
        errors(&body, &LENIENT),
        [
            "networking.address",
            "networking.inbound[0].port",
            "networking.inbound[0].tags[\"kuma.io/service\"]",
            "networking.inbound[1].address",
            "networking.outbound[0].tags",
            "networking.outbound[0].port",
        ]
    );
}

#[test]
fn versions_differ_in_what_they_ask_of_inbounds_and_references() {
    let without_service = inbound("port: 80");
    let tag = "networking.inbound[0].tags[\"kuma.io/service\"]";
    assert_eq!(errors(&without_service, &exactly(Api::Kuma27)), [tag]);
    assert_eq!(errors(&without_service, &exactly(Api::Kuma29)), [tag]);
    assert_eq!(errors(&without_service, &exactly(Api::Kuma3)), [""; 0]);
    assert_eq!(errors(&without_service, &LENIENT), [""; 0]);
    assert_eq!(warnings(&without_service, &LENIENT), [tag]);

    let zone = outbound("port: 1, backendRef: {kind: MeshMultiZoneService, name: a, port: 1}");
    let kind = "networking.outbound[0].backendRef.kind";
    assert_eq!(errors(&zone, &exactly(Api::Kuma27)), [kind]);
    assert_eq!(errors(&zone, &exactly(Api::Kuma29)), [""; 0]);

    let dials =
        dataplane("{address: 10.0.0.1, transparentProxying: {redirectPortOutbound: 15001}}");
    assert_eq!(errors(&dials, &exactly(Api::Kuma29)), ["networking"]);
    assert_eq!(errors(&dials, &exactly(Api::Kuma3)), [""; 0]);
}

#[test]
fn admin_ports_must_differ_from_ports_on_loopback() {
    let body = |admin: u16| {
        dataplane(&format!(
            "{{address: 10.0.0.1, admin: {{port: {admin}}}, inbound: [{{port: 80, serviceAddress: 127.0.0.1, servicePort: 8080, tags: {{kuma.io/service: a}}}}], outbound: [{{port: 3333, tags: {{kuma.io/service: b}}}}]}}"
        ))
    };
    assert_eq!(errors(&body(80), &LENIENT), [""; 0]);
    assert_eq!(errors(&body(8080), &LENIENT), ["networking.admin.port"]);
    assert_eq!(errors(&body(3333), &LENIENT), ["networking.admin.port"]);
}

#[test]
fn listeners_of_kuma_3_are_validated_and_earlier_versions_know_none() {
    let body = dataplane(
        "{address: 10.0.0.1, listeners: [{type: ZoneIngress, port: 0, name: a}, {type: ZoneEgress, address: 10.0.0.1, port: 1, name: a}, {type: ZoneIngress, address: 10.0.0.1, port: 1}]}",
    );
    let listener = "networking.listeners";
    assert_eq!(
        errors(&body, &exactly(Api::Kuma3)),
        [
            format!("{listener}[0].address"),
            format!("{listener}[0].port"),
            format!("{listener}[1].name"),
            format!("{listener}[2]"),
        ]
    );
    assert_eq!(errors(&body, &exactly(Api::Kuma29)), ["networking"]);
}

#[test]
fn the_whole_of_a_dataplane_is_read() {
    let dataplane = read(
        "{address: 10.0.0.1, advertisedAddress: 203.0.113.1, inbound: [
           {port: 80, address: 10.0.0.2, servicePort: 8080, serviceAddress: 127.0.0.1, tags: {kuma.io/service: a, version: v1}},
           {port: 81, state: NotReady, tags: {kuma.io/service: b}},
           {port: 82, health: {ready: false}, tags: {kuma.io/service: b}},
           {port: 83, health: {}, tags: {kuma.io/service: b}},
           {port: 84, health: {ready: true}, state: Ready, tags: {kuma.io/service: b}}],
         outbound: [{port: 1, tags: {kuma.io/service: c}},
                    {port: 2, backendRef: {kind: MeshService, name: x, port: 1}},
                    {port: 3, address: '::1', service: d}]}",
    );
    assert_eq!(dataplane.address, Host::Ip("10.0.0.1".parse().unwrap()));
    assert_eq!(dataplane.advertised, Some(Host::Ip("203.0.113.1".parse().unwrap())));
    let first = &dataplane.inbounds[0];
    assert_eq!(first.address, Some("10.0.0.2".parse().unwrap()));
    assert_eq!(first.service_port.map(|port| port.get()), Some(8080));
    let ready: Vec<bool> = dataplane.inbounds.iter().map(|inbound| inbound.ready).collect();
    assert_eq!(ready, [true, false, false, false, true]);
    let outbounds: Vec<(u32, String, &str)> = dataplane
        .outbounds
        .iter()
        .map(|o| (o.index, o.address.to_string(), o.tags[SERVICE_TAG].as_str()))
        .collect();
    assert_eq!(outbounds, [(0, "127.0.0.1".to_owned(), "c"), (2, "::1".to_owned(), "d")]);
    let [referring] = dataplane.referring.as_slice() else { panic!("{:?}", dataplane.referring) };
    assert_eq!((referring.index, referring.port.get()), (1, 2));
    assert_eq!(referring.to.kind, ServiceKind::MeshService);
    assert_eq!(referring.to.field, "networking.outbound[1].backendRef");
    assert_eq!(referring.to.port.map(|port| port.get()), Some(1));
    let by = ReferredBy::Name { name: "x".to_owned(), namespace: None };
    assert_eq!(referring.to.by, by);
}

#[test]
fn names_of_inbounds_are_kept_for_the_ports_of_mesh_services() {
    let dataplane = read(
        "{address: 10.0.0.1, inbound: [{port: 80, name: web, tags: {kuma.io/service: a}},
           {port: 81, name: '', tags: {kuma.io/service: a}}]}",
    );
    let names: Vec<_> = dataplane.inbounds.iter().map(|inbound| inbound.name.as_deref()).collect();
    assert_eq!(names, [Some("web"), None]);
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
    let dataplane = read(&format!("{{address: '0:0:0:0:0:FFFF:C0A8:0001', {IN}}}"));
    assert_eq!(dataplane.address, Host::Ip("192.168.0.1".parse().unwrap()));
}

#[test]
fn a_dns_name_is_valid() {
    let body = dataplane(&format!("{{address: db.example.com, {IN}}}"));
    assert_eq!(errors(&body, &LENIENT), [""; 0]);
    assert!(warnings(&body, &LENIENT).is_empty());
    assert_eq!(
        reading(&body, &LENIENT).set.dataplanes[0].address,
        Host::Name("db.example.com".to_owned())
    );
}

#[test]
fn labels_of_a_reference_have_no_effect_next_to_its_name() {
    let body = outbound("port: 1, backendRef: {kind: MeshService, labels: {a: b}, port: 1}");
    assert!(warnings(&body, &LENIENT).is_empty());
    let both = body.replace("labels:", "name: a, labels:");
    assert_eq!(warnings(&both, &LENIENT), ["networking.outbound[0].backendRef.labels"]);
}

#[test]
fn tags_of_kuma_0_5_are_read_with_a_warning() {
    let body = dataplane(
        "{address: 10.0.0.1, inbound: [{port: 80, tags: {service: a, protocol: http}}], outbound: [{port: 1, service: b}]}",
    );
    let set = reading(&body, &LENIENT).set;
    assert_eq!(set.dataplanes[0].inbounds[0].tags[SERVICE_TAG], "a");
    assert_eq!(set.dataplanes[0].inbounds[0].tags["kuma.io/protocol"], "http");
    assert_eq!(warnings(&body, &LENIENT), ["networking.inbound[0].tags[\"service\"]"]);
    let exact = errors(&body, &exactly(Api::Kuma29));
    assert_eq!(exact, ["networking.inbound[0].tags[\"kuma.io/service\"]"]);
}

#[test]
fn tag_values_are_strings_and_uncertain_ones_must_be_quoted() {
    let value =
        |value: &str| inbound(&format!("port: 80, tags: {{kuma.io/service: a, x: {value}}}"));
    let field = "networking.inbound[0].tags[\"x\"]";
    for wrong in ["1.0", "true", "False", "~", "null", "010", "0x1", "1e3", ".inf", "[a]", "{}"] {
        let finding = finding(&value(wrong), &LENIENT, field);
        assert!(finding.is_error(), "{wrong}");
        assert!(
            wrong.starts_with(['[', '{']) || finding.hint.unwrap().contains("quote"),
            "{wrong}"
        );
    }
    for number in ["6000", "-1", "0"] {
        assert_eq!(warnings(&value(number), &LENIENT), [field], "{number}");
        let set = reading(&value(number), &LENIENT).set;
        assert_eq!(set.dataplanes[0].inbounds[0].tags["x"], number);
    }
    for fine in ["'1.0'", "\"true\"", "v1", "1.0.0", "!!str 1.0"] {
        assert_eq!(errors(&value(fine), &LENIENT), [""; 0], "{fine}");
        assert_eq!(warnings(&value(fine), &LENIENT), [""; 0], "{fine}");
    }
}

#[test]
fn fields_without_effect_are_accepted_in_silence_and_unknown_ones_are_not() {
    let body = dataplane(&format!(
        "{{address: 10.0.0.1, admin: {{port: 9901}}, transparentProxying: {{redirectPortInbound: 1}}, {IN}, inbuond: []}}\nmetrics: {{type: prometheus}}\nprobes: {{port: 9000}}"
    ));
    assert_eq!(warnings(&body, &LENIENT), ["networking.inbuond"]);
    assert_eq!(
        finding(&body, &LENIENT, "networking.inbuond").hint.unwrap(),
        "did you mean `inbound`?"
    );
}
