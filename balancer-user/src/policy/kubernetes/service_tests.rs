use std::sync::Arc;

use crate::policy::{
    Span,
    kubernetes::{Service, ServiceKind, ServicePort, TargetPort, Transport},
    testing::{LENIENT, errors, finding, object, port, reading, warnings},
};

/// A Service whose `spec` is this flow mapping.
fn service(spec: &str) -> String {
    object("v1", "Service", "metadata: {name: a, namespace: shop}", spec)
}

fn read(spec: &str) -> Service {
    let mut reading = reading(&service(spec), &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.services.remove(0))
}

fn refused(spec: &str) -> Vec<String> {
    let body = service(spec);
    let read = reading(&body, &LENIENT);
    assert!(read.set.services.is_empty(), "{body}");
    errors(&body, &LENIENT)
}

#[test]
fn every_port_of_a_service_is_kept_with_its_defaults() {
    let service = read(
        "{clusterIP: 10.96.14.7, selector: {app: echo}, ports: [
          {name: http, port: 80, targetPort: 1027, appProtocol: kubernetes.io/h2c, nodePort: 30080},
          {name: dns, protocol: UDP, port: 53, targetPort: dns-udp},
          {name: plain, port: 9000}]}",
    );
    assert_eq!(service.kind, ServiceKind::ClusterIp);
    assert_eq!(service.cluster_ips, ["10.96.14.7".parse::<std::net::IpAddr>().unwrap()]);
    assert!(!service.headless);
    assert_eq!(service.affinity_seconds, None);
    let ports: Vec<ServicePort> =
        service.ports.into_iter().map(|p| ServicePort { span: Span::default(), ..p }).collect();
    let tcp = |name: &str, number, target| ServicePort {
        span: Span::default(),
        name: name.to_owned(),
        protocol: Transport::Tcp,
        port: port(number),
        target,
        app_protocol: None,
    };
    let http = ServicePort {
        app_protocol: Some("kubernetes.io/h2c".to_owned()),
        ..tcp("http", 80, TargetPort::Number(port(1027)))
    };
    let dns = ServicePort {
        protocol: Transport::Udp,
        ..tcp("dns", 53, TargetPort::Name("dns-udp".to_owned()))
    };
    assert!(http.is_tcp() && !dns.is_tcp());
    assert_eq!(ports, [http, dns, tcp("plain", 9000, TargetPort::Number(port(9000)))]);
}

#[test]
fn a_service_is_known_by_namespace_and_name_and_is_in_no_mesh() {
    let service = read("{ports: [{port: 80}]}");
    assert_eq!((service.meta.mesh.as_str(), service.meta.name.as_str()), ("", "a"));
    assert_eq!(service.meta.namespace.as_deref(), Some("shop"));
    assert_eq!(service.meta.kind, "Service");
}

#[test]
fn addresses_of_both_families_are_kept_in_order() {
    let ips = |spec: &str| {
        read(&format!("{{{spec}, ports: [{{port: 80}}]}}"))
            .cluster_ips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ips("clusterIP: 'fd00::7', clusterIPs: ['fd00::7', 10.0.0.7]"),
        ["fd00::7", "10.0.0.7"]
    );
    assert_eq!(ips("clusterIPs: [10.0.0.7]"), ["10.0.0.7"]);
    assert_eq!(ips("clusterIP: ''"), [""; 0]);
    assert_eq!(ips("type: LoadBalancer"), [""; 0]);
}

#[test]
fn addresses_that_contradict_each_other_are_refused_at_their_place() {
    let cases = [
        ("clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2]", "spec.clusterIPs[0]"),
        ("clusterIPs: [10.0.0.1, 10.0.0.2]", "spec.clusterIPs[1]"),
        ("clusterIPs: [None, 'fd00::1']", "spec.clusterIPs[1]"),
        ("clusterIPs: [10.0.0.1, 'fd00::1', 10.0.0.2]", "spec.clusterIPs"),
        ("clusterIP: 10.0.0.300", "spec.clusterIP"),
        ("clusterIP: none", "spec.clusterIP"),
        ("clusterIP: '::ffff:10.0.0.1'", "spec.clusterIP"),
        ("clusterIP: 127.0.0.1", "spec.clusterIP"),
        ("clusterIP: 0.0.0.0", "spec.clusterIP"),
        ("clusterIP: [a]", "spec.clusterIP"),
        ("clusterIP: None, type: LoadBalancer", "spec.clusterIP"),
        ("clusterIP: None, type: NodePort", "spec.clusterIP"),
        ("clusterIP: 10.0.0.1, type: ExternalName, externalName: a.example", "spec.clusterIP"),
    ];
    for (spec, field) in cases {
        let found = refused(&format!("{{{spec}, ports: [{{port: 80}}]}}"));
        assert!(found.contains(&field.to_owned()), "{spec}: {found:?}");
    }
}

#[test]
fn headless_services_and_external_names_need_no_ports() {
    let headless = read("{clusterIP: None}");
    assert!(headless.headless && headless.cluster_ips.is_empty());
    let external = read("{type: ExternalName, externalName: db.example.com}");
    assert_eq!(external.kind, ServiceKind::ExternalName("db.example.com".to_owned()));
    assert_eq!(refused("{type: ExternalName}"), ["spec.externalName"]);
    assert_eq!(refused("{type: ExternalName, externalName: a_b}"), ["spec.externalName"]);
    let ignored = service("{externalName: db.example.com, ports: [{port: 1}]}");
    assert_eq!(warnings(&ignored, &LENIENT), ["spec.externalName"]);
}

#[test]
fn rules_of_ports_are_held_at_the_port() {
    let cases = [
        ("[]", "spec.ports"),
        ("[{name: a}]", "spec.ports[0].port"),
        ("[{port: 0}]", "spec.ports[0].port"),
        ("[{port: 70000}]", "spec.ports[0].port"),
        ("[{port: '80'}]", "spec.ports[0].port"),
        ("[{port: 80, protocol: tcp}]", "spec.ports[0].protocol"),
        ("[{port: 80, targetPort: 0}]", "spec.ports[0].targetPort"),
        ("[{port: 80, targetPort: '8080'}]", "spec.ports[0].targetPort"),
        ("[{port: 80, targetPort: much-too-long-name}]", "spec.ports[0].targetPort"),
        ("[{port: 80, targetPort: a--b}]", "spec.ports[0].targetPort"),
        ("[{port: 80, name: Web}]", "spec.ports[0].name"),
        ("[{port: 80, appProtocol: a/b/c}]", "spec.ports[0].appProtocol"),
        ("[{port: 80, name: a}, {port: 81}]", "spec.ports[1].name"),
        ("[{port: 80, name: a}, {port: 81, name: a}]", "spec.ports[1].name"),
        ("[{port: 80, name: a}, {port: 80, name: b}]", "spec.ports[1].port"),
        ("x", "spec.ports"),
    ];
    for (ports, field) in cases {
        assert_eq!(refused(&format!("{{ports: {ports}}}")), [field], "{ports}");
    }
    // The same number is another port in another protocol.
    read("{ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]}");
    assert_eq!(refused("{}"), ["spec.ports"]);
    assert_eq!(errors("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", &LENIENT), ["spec"]);
}

#[test]
fn session_affinity_is_kept_with_its_timeout_and_reported() {
    let affine = "{ports: [{port: 1}], sessionAffinity: ClientIP";
    assert_eq!(read(&format!("{affine}}}")).affinity_seconds, Some(10_800));
    let with = |seconds: &str| {
        format!("{affine}, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}}}")
    };
    assert_eq!(read(&with("90")).affinity_seconds, Some(90));
    let said = finding(&service(&with("90")), &LENIENT, "spec.sessionAffinity").message;
    assert!(said.contains("90 s") && said.contains("not carried out yet"), "{said}");
    for seconds in ["0", "86401", "x"] {
        assert_eq!(
            refused(&with(seconds)),
            ["spec.sessionAffinityConfig.clientIP.timeoutSeconds"],
            "{seconds}"
        );
    }
    let without = "{ports: [{port: 1}], sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}}";
    assert_eq!(refused(without), ["spec.sessionAffinityConfig"]);
    assert_eq!(refused("{ports: [{port: 1}], sessionAffinity: Client}"), ["spec.sessionAffinity"]);
}

#[test]
fn what_is_read_and_not_carried_out_says_so_and_unknown_fields_warn() {
    let body = service(
        "{ports: [{port: 1}], externalIPs: [192.0.2.1], internalTrafficPolicy: Local,
          trafficDistribution: PreferClose, externalTrafficPolicy: Local, ipFamilies: [IPv4],
          newField: 1, cluster_ip: x}",
    );
    assert!(reading(&body, &LENIENT).report.valid());
    assert_eq!(
        warnings(&body, &LENIENT),
        [
            "spec.externalIPs",
            "spec.internalTrafficPolicy",
            "spec.trafficDistribution",
            "spec.newField",
            "spec.cluster_ip",
        ]
    );
    let refused = errors(&body, &crate::policy::ReadOptions { deny_unknown: true, ..LENIENT });
    assert_eq!(refused, ["spec.newField", "spec.cluster_ip"]);
}
