use proptest::prelude::*;

use super::*;
use crate::policy::{
    PolicySet, ReadOptions, Severity, TargetPort,
    testing::{LENIENT, errors, exactly, finding, holds, nearly, reading, refused, warnings},
};

const KUMA_27: ReadOptions = exactly(Api::Kuma27);
const KUMA_29: ReadOptions = exactly(Api::Kuma29);
const KUMA_3: ReadOptions = exactly(Api::Kuma3);
const ALL: &[&ReadOptions] = &[&LENIENT, &KUMA_27, &KUMA_29, &KUMA_3];
const KUMA_2: &[&ReadOptions] = &[&LENIENT, &KUMA_27, &KUMA_29];

/// A document of this kind whose `spec` is this flow mapping.
fn document(kind: &str, spec: &str) -> String {
    format!("type: {kind}\nname: backend\nmesh: default\nspec: {spec}\n")
}

fn service(spec: &str) -> String {
    document("MeshService", spec)
}

fn external(spec: &str) -> String {
    document("MeshExternalService", spec)
}

fn multi_zone(spec: &str) -> String {
    document("MeshMultiZoneService", spec)
}

/// A MeshExternalService with this after its `match`.
fn matched(more: &str) -> String {
    external(&format!("{{match: {{port: 443}}, {more}}}"))
}

/// One with this `tls`.
fn secured(tls: &str) -> String {
    matched(&format!("endpoints: [{{address: a.example.com, port: 443}}], tls: {tls}"))
}

/// A MeshMultiZoneService with these `ports`.
fn zones(ports: &str) -> String {
    multi_zone(&format!("{{selector: {{meshService: {{matchLabels: {{a: b}}}}}}, ports: {ports}}}"))
}

fn read(body: &str, options: &ReadOptions) -> PolicySet {
    let reading = reading(body, options);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    reading.set
}

fn tags(name: &str, value: &str) -> Tags {
    Tags::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn a_service_is_read_in_both_envelopes() {
    let body = "
spec:
  state: Available
  selector: {dataplaneTags: {kuma.io/service: backend, version: v1}}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: HTTP}
  - {port: 9000, targetPort: grpc-port}
status:
  vips: [{ip: 241.0.0.4}, {}]
  addresses: [{hostname: backend.svc.east.mesh.local, origin: x}]
  tls: {status: Ready}
";
    let universal = format!("type: MeshService\nname: backend\nmesh: m{body}");
    let kubernetes = format!(
        "apiVersion: kuma.io/v1alpha1\nkind: MeshService\nmetadata: {{name: backend, namespace: shop, labels: {{kuma.io/mesh: m}}}}{body}"
    );
    for (text, name) in [(universal, "backend"), (kubernetes, "backend.shop")] {
        let read = read(&text, &LENIENT).mesh_services.remove(0);
        assert_eq!((read.meta.mesh.as_str(), read.meta.name.as_str()), ("m", name));
        assert!(read.available);
        let DataplaneSelector::Tags(tags) = &read.selector else { panic!("{read:?}") };
        assert_eq!(tags.len(), 2);
        let [first, second] = read.ports.as_slice() else { panic!("{read:?}") };
        assert_eq!((first.name.as_deref(), first.port.get()), (Some("http"), 80));
        assert_eq!(first.target, Some(TargetPort::Number(8080.try_into().unwrap())));
        assert_eq!((first.protocol.as_str(), second.protocol.as_str()), ("http", "tcp"));
        assert_eq!(second.target, Some(TargetPort::Name("grpc-port".to_owned())));
        assert_eq!(second.field, "spec.ports[1]");
        assert_eq!(read.status.vips, ["241.0.0.4".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(read.status.hostnames, ["backend.svc.east.mesh.local"]);
    }
}

#[test]
fn a_service_with_nothing_in_it_is_valid_and_has_no_endpoints() {
    for options in ALL {
        for body in [service("{}"), "type: MeshService\nname: a\nmesh: m\n".to_owned()] {
            let service = read(&body, options).mesh_services.remove(0);
            assert_eq!(service.selector, DataplaneSelector::Nothing);
            assert!(service.ports.is_empty() && !service.available);
            assert!(warnings(&body, options).is_empty());
        }
    }
}

#[test]
fn each_form_of_selector_is_read_where_it_exists() {
    let selector = |text: &str, options: &ReadOptions| {
        let body = service(&format!("{{selector: {text}}}"));
        reading(&body, options).set.mesh_services.pop_back().map(|service| service.selector.clone())
    };
    let by_tags = Some(DataplaneSelector::Tags(tags("a", "b")));
    let by_labels = Some(DataplaneSelector::Labels(tags("a", "b")));
    let by_name = Some(DataplaneSelector::Name("redis-01".to_owned()));
    for options in ALL {
        assert_eq!(selector("{dataplaneRef: {name: redis-01}}", options), by_name);
        assert_eq!(selector("{dataplaneTags: {}}", &LENIENT), Some(DataplaneSelector::Nothing));
    }
    let with_tags = "{dataplaneTags: {a: b}}";
    assert_eq!(selector(with_tags, &KUMA_29), by_tags);
    assert_eq!(selector(with_tags, &LENIENT), by_tags);
    assert_eq!(selector(with_tags, &KUMA_3), None);
    let with_labels = "{dataplaneLabels: {matchLabels: {a: b}}}";
    assert_eq!(selector(with_labels, &KUMA_3), by_labels);
    assert_eq!(selector(with_labels, &LENIENT), by_labels);
    assert_eq!(selector(with_labels, &KUMA_29), None);
}

#[test]
fn several_forms_of_selector_are_refused_in_kuma_3_and_the_name_wins_before() {
    let body =
        service("{selector: {dataplaneRef: {name: a}, dataplaneLabels: {matchLabels: {b: c}}}}");
    assert_eq!(errors(&body, &KUMA_3), ["spec.selector"]);
    assert_eq!(warnings(&body, &LENIENT), ["spec.selector.dataplaneLabels"]);
    let body = service("{selector: {dataplaneTags: {b: c}, dataplaneRef: {name: a}}}");
    for options in KUMA_2 {
        let read = read(&body, options).mesh_services.remove(0);
        assert_eq!(read.selector, DataplaneSelector::Name("a".to_owned()));
    }
}

#[test]
fn what_is_wrong_with_a_service_is_said_at_its_field() {
    let port = |fields: &str| service(&format!("{{ports: [{{{fields}}}]}}"));
    refused(
        &[
            ("targetPort: 1", &["spec.ports[0].port"]),
            ("port: 0, targetPort: 1", &["spec.ports[0].port"]),
            ("port: 65536, targetPort: 1", &["spec.ports[0].port"]),
            ("port: 80, targetPort: 65536", &["spec.ports[0].targetPort"]),
            ("port: 80, targetPort: ''", &["spec.ports[0].targetPort"]),
            ("port: 80, targetPort: true", &["spec.ports[0].targetPort"]),
            ("port: 80, targetPort: 80, appProtocol: 1", &["spec.ports[0].appProtocol"]),
            ("port: 80, targetPort: 80, protocol: TCP", &["spec.ports[0].protocol"]),
        ],
        ALL,
        port,
    );
    let kafka = port("port: 9092, targetPort: 1, appProtocol: kafka");
    assert_eq!(errors(&kafka, &KUMA_3), ["spec.ports[0].appProtocol"]);
    assert_eq!(read(&kafka, &KUMA_29).mesh_services[0].ports[0].protocol, "kafka");
    let mongo = port("port: 9092, targetPort: 1, appProtocol: mongo");
    assert_eq!(errors(&mongo, &KUMA_3), ["spec.ports[0].appProtocol"]);
    assert_eq!(warnings(&mongo, &KUMA_29), ["spec.ports[0].appProtocol"]);
    assert_eq!(warnings(&port("port: 80"), &LENIENT), ["spec.ports[0].targetPort"]);
    refused(
        &[
            ("{state: Maybe}", &["spec.state"]),
            ("{selector: {dataplaneRef: {}}}", &["spec.selector.dataplaneRef.name"]),
            ("{selector: {dataplane: {}}}", &["spec.selector.dataplane"]),
            ("{selectors: {}}", &["spec.selectors"]),
        ],
        ALL,
        service,
    );
    let bad = service("{}").replace("spec: {}", "status: {vips: [{ip: x}]}");
    assert_eq!(errors(&bad, &LENIENT), ["status.vips[0].ip"]);
    let hint = finding(&service("{selectors: {}}"), &LENIENT, "spec.selectors").hint;
    assert_eq!(hint.as_deref(), Some("did you mean `selector`?"));
}

#[test]
fn a_port_with_its_protocol_stands_once() {
    let two = |first: &str, second: &str| {
        service(&format!(
            "{{ports: [{{port: 80, targetPort: 1, {first}}}, {{port: 80, targetPort: 2, {second}}}]}}"
        ))
    };
    let body = two("name: a", "appProtocol: tcp");
    let found = finding(&body, &LENIENT, "spec.ports[1]");
    assert_eq!((found.severity, found.related.is_some()), (Severity::Error, true));
    assert_eq!(errors(&two("appProtocol: http", "appProtocol: tcp"), &LENIENT), [""; 0]);
}

#[test]
fn names_of_services_are_short_and_labels_in_kuma_3() {
    let long = "a".repeat(64);
    for kind in ["MeshService", "MeshExternalService", "MeshMultiZoneService"] {
        let named = |name: &str| {
            let spec = "{match: {port: 1}, selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 1, targetPort: 1}]}";
            document(kind, spec).replace("backend", name)
        };
        let at_name = |name: &str, options: &ReadOptions| {
            errors(&named(name), options).contains(&"name".to_owned())
        };
        for options in ALL {
            assert!(at_name(&long, options), "{kind} {:?}", options.api);
            assert!(!at_name(&long[1..], options), "{kind} {:?}", options.api);
        }
        for (name, label) in [("1backend", false), ("back.end", false), ("b-1", true)] {
            assert_eq!(at_name(name, &KUMA_3), !label, "{kind} {name}");
            assert!(!at_name(name, &KUMA_29), "{kind} {name}");
        }
    }
    let body = format!(
        "apiVersion: kuma.io/v1alpha1\nkind: MeshService\nmetadata: {{name: a, namespace: {}}}\n",
        &long[1..]
    );
    assert_eq!(errors(&body, &KUMA_3), [""; 0], "the namespace is no part of the label");
    let shown =
        service("{}").replace("spec:", &format!("labels: {{kuma.io/display-name: {long}}}\nspec:"));
    assert_eq!(errors(&shown, &LENIENT), ["name"]);
}

#[test]
fn an_external_service_is_read_with_its_defaults() {
    let body = external(
        "\n  match: {port: 443}\n  endpoints:\n  - {address: 192.0.2.1, port: 1}\n  - {address: api.example.com, port: 8443, priority: 1}\n  tls:\n    enabled: true\n    version: {min: TLS12, max: TLS13}\n    verification:\n      mode: Secured\n      serverName: x\n      subjectAltNames: [{type: Prefix, value: a}, {value: b}]\n      caCert: {inline: dGVzdA==}\n      clientCert: {secret: '1'}\n      clientKey: {secret: '1'}\nstatus: {vip: {ip: 242.0.0.1}, addresses: []}",
    );
    for options in ALL {
        let read = read(&body, options).mesh_external_services.remove(0);
        assert_eq!((read.port.get(), read.protocol.as_str(), read.tls), (443, "tcp", true));
        let [first, second] = read.endpoints.as_slice() else { panic!("{read:?}") };
        assert_eq!(first.address, Host::Ip("192.0.2.1".parse().unwrap()));
        assert_eq!(
            (&second.address, second.priority),
            (&Host::Name("api.example.com".to_owned()), 1)
        );
        assert_eq!(read.status.vips.len(), 1);
        assert!(warnings(&body, options).is_empty());
    }
}

#[test]
fn what_is_wrong_with_an_external_service_is_said_at_its_field() {
    refused(
        &[
            ("{}", &["spec.match.port"]),
            ("{match: {}}", &["spec.match.port"]),
            ("{match: {port: 0}}", &["spec.match.port"]),
            ("{match: {port: 1, protocol: kafka}}", &["spec.match.protocol"]),
            ("{match: {port: 1, type: Host}}", &["spec.match.type"]),
            ("{match: {port: 1, ports: 2}}", &["spec.match.ports"]),
        ],
        ALL,
        external,
    );
    refused(
        &[
            ("endpoints: [{port: 1}]", &["spec.endpoints[0].address"]),
            ("endpoints: [{address: a.example.com}]", &["spec.endpoints[0].port"]),
            ("endpoints: [{address: 192.0.2.1}]", &["spec.endpoints[0].port"]),
            ("endpoints: [{address: a, port: 65536}]", &["spec.endpoints[0].port"]),
            ("endpoints: [{address: '', port: 1}]", &["spec.endpoints[0].address"]),
            ("endpoints: [{address: 'a b', port: 1}]", &["spec.endpoints[0].address"]),
            ("endpoints: [{address: 0.0.0.0, port: 1}]", &["spec.endpoints[0].address"]),
            ("endpoints: [{address: 'unix:///a', port: 1}]", &["spec.endpoints[0].address"]),
            ("endpoints: [{address: a, port: 1, priority: 129}]", &["spec.endpoints[0].priority"]),
            ("endpoints: [{address: a, port: 1, weight: 1}]", &["spec.endpoints[0].weight"]),
        ],
        ALL,
        matched,
    );
    refused(
        &[
            ("{version: {min: TLS13, max: TLS12}}", &["spec.tls.version.min"]),
            ("{version: {min: TLS13, max: TLSAuto}}", &[]),
            ("{version: {min: SSL}}", &["spec.tls.version.min"]),
            ("{version: {max: SSL}}", &["spec.tls.version.max"]),
            ("{verification: {mode: Never}}", &["spec.tls.verification.mode"]),
            (
                "{verification: {subjectAltNames: [{type: Regex, value: a}]}}",
                &["spec.tls.verification.subjectAltNames[0].type"],
            ),
            ("{verification: {clientCert: {}}}", &["spec.tls.verification.clientKey"]),
            ("{verification: {clientKey: {}}}", &["spec.tls.verification.clientCert"]),
            ("{enabled: 1}", &["spec.tls.enabled"]),
        ],
        ALL,
        secured,
    );
}

#[test]
fn an_extension_knows_the_endpoints_itself() {
    let body = matched("endpoints: [{address: ''}], extension: {type: Lambda, config: {a: [1]}}");
    for options in ALL {
        let read = read(&body, options).mesh_external_services.remove(0);
        assert_eq!(read.extension.as_deref(), Some("Lambda"));
        assert!(read.endpoints.is_empty());
        assert_eq!(warnings(&body, options), ["spec.extension"]);
    }
    let body = matched("extension: {config: {a: b}}");
    assert_eq!(errors(&body, &KUMA_29), ["spec.extension.type"]);
    assert_eq!(warnings(&matched("tls: {}"), &LENIENT), ["spec.endpoints"]);
}

#[test]
fn a_service_of_several_zones_is_read_with_its_defaults() {
    let body = zones("[{port: 123}, {name: grpc, port: 124, appProtocol: grpc}]");
    for options in ALL {
        let read = read(&body, options).mesh_multi_zone_services.remove(0);
        assert_eq!(read.match_labels, tags("a", "b"));
        let protocols: Vec<&str> = read.ports.iter().map(|port| port.protocol.as_str()).collect();
        assert_eq!(protocols, ["tcp", "grpc"]);
        assert_eq!(read.ports[0].target, None);
    }
}

#[test]
fn what_is_wrong_with_a_service_of_several_zones_is_said_at_its_field() {
    const LABELS: &str = "spec.selector.meshService.matchLabels";
    let selecting =
        |selector: &str| multi_zone(&format!("{{selector: {selector}, ports: [{{port: 1}}]}}"));
    refused(
        &[
            ("{}", &[LABELS]),
            ("{meshService: {}}", &[LABELS]),
            ("{meshService: {matchLabels: {}}}", &[LABELS]),
            ("{meshService: {labels: {a: b}}}", &[LABELS, "spec.selector.meshService.labels"]),
        ],
        ALL,
        |selector| selecting(selector),
    );
    refused(&[("{}", &[LABELS, "spec.ports"])], ALL, multi_zone);
    refused(
        &[
            ("[]", &["spec.ports"]),
            ("[{port: 123, name: ''}]", &["spec.ports[0].name"]),
            ("[{port: 123, appProtocol: not_supported}]", &["spec.ports[0].appProtocol"]),
            ("[{port: 123, targetPort: 1}]", &["spec.ports[0].targetPort"]),
            ("[{name: a}]", &["spec.ports[0].port"]),
        ],
        ALL,
        zones,
    );
    let kafka = zones("[{port: 1, appProtocol: kafka}]");
    assert_eq!(errors(&kafka, &KUMA_29), [""; 0]);
    assert_eq!(errors(&kafka, &KUMA_3), ["spec.ports[0].appProtocol"]);
}

#[test]
fn objects_of_an_unknown_mesh_are_refused_and_the_others_sorted() {
    let kinds = "type: Mesh\nname: default\n---\n".to_owned()
        + &[("b", "default"), ("a", "default"), ("c", "elsewhere")]
            .map(|(name, mesh)| format!("type: MeshService\nname: {name}\nmesh: {mesh}\n"))
            .join("---\n");
    let reading = reading(&kinds, &LENIENT);
    let names: Vec<&str> = reading.set.mesh_services.iter().map(|s| s.meta.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(errors(&kinds, &LENIENT), ["mesh"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_a_service(body in nearly(vec![
        service("\n  selector: {dataplaneTags: {a: b}, dataplaneRef: {name: a}}\n  ports:\n  - {name: a, port: 80, targetPort: b, appProtocol: http}\nstatus: {vips: [{ip: 1.2.3.4}], addresses: [{hostname: a}]}"),
        secured("\n    {version: {min: TLS10, max: TLS12}, verification: {subjectAltNames: [{value: a}], clientCert: {a: b}, clientKey: {}}}"),
        zones("\n  [{port: 1, name: a, appProtocol: grpc}]"),
    ])) {
        holds(&body)?;
    }
}
