use proptest::prelude::*;

use super::*;
use crate::policy::{
    Documents, PolicySet, Reading,
    testing::{LENIENT, errors, finding, object, reading, warnings},
};

/// One valid document of each kind, in the order of [`ObjectKind::ALL`].
const ALL: [&str; 9] = [
    "apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {clusterIP: 10.96.14.7, selector: {app: echo}, ports: [{name: http, protocol: TCP, port: 80, targetPort: 1027}]}
",
    "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-x7, namespace: shop, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{name: http, protocol: TCP, port: 1027}]
endpoints:
- {addresses: [10.244.1.9], conditions: {ready: true, serving: true, terminating: false}, zone: east-1}
",
    "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: node}
spec: {controllerName: balancer.example/gateway, description: x}
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: node
  addresses: [{value: 192.0.2.7}]
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: '*.shop.example.com'}
  - name: redis
    port: 6379
    protocol: TCP
    allowedRoutes:
      namespaces: {from: Selector, selector: {matchLabels: {team: a}, matchExpressions: [{key: b, operator: Exists}]}}
      kinds: [{kind: TCPRoute}]
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: canary, namespace: shop, creationTimestamp: '2026-03-01T10:00:00Z'}
spec:
  parentRefs: [{name: edge, sectionName: redis}]
  rules:
  - backendRefs:
    - {name: redis-v1, port: 6379, weight: 90}
    - {name: redis-v2, port: 6379, weight: 10}
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: storefront, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: web}]
  rules: [{matches: [{path: {value: /echo}}], backendRefs: [{name: echo, port: 80}]}]
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: catalog, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: web}]
  rules: [{matches: [{method: {service: shop.Catalog}}], backendRefs: [{name: catalog, port: 9000}]}]
",
    "apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: allow-shop, namespace: data}
spec:
  from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: shop}]
  to: [{group: '', kind: Service, name: redis-v1}]
",
];

/// How many of each kind were read.
fn counts(set: &PolicySet) -> [usize; 9] {
    [
        set.services.len(),
        set.endpoint_slices.len(),
        set.namespaces.len(),
        set.gateway_classes.len(),
        set.gateways.len(),
        set.tcp_routes.len(),
        set.http_routes.len(),
        set.grpc_routes.len(),
        set.reference_grants.len(),
    ]
}

/// Everything that a set holds of these kinds, without where it stands.
fn meaning(reading: &Reading) -> String {
    assert!(reading.report.valid(), "{:#?}", reading.report);
    let set = PolicySet { documents: Documents::default(), ..reading.set.clone() };
    let text = format!("{set:?}");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("Span {") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once('}').map_or("", |(_, after)| after);
    }
    out + rest
}

#[test]
fn every_kind_is_read() {
    for (index, (body, kind)) in ALL.into_iter().zip(ObjectKind::ALL).enumerate() {
        let reading = reading(body, &LENIENT);
        assert!(reading.report.valid(), "{:#?}", reading.report);
        let mut expected = [0; 9];
        expected[index] = 1;
        assert_eq!(counts(&reading.set), expected, "{body}");
        let resource = &reading.resources()[0];
        assert_eq!(resource.kind.as_deref(), Some(kind.name()));
        assert_eq!(warnings(body, &LENIENT), [""; 0], "{body}");
        assert_eq!(reading.report.notes().next(), None, "no mesh is named");
    }
}

#[test]
fn a_mesh_that_is_given_does_not_concern_kinds_without_one() {
    let body = format!("type: Mesh\nname: other\n---\n{}", ALL.join("---\n"));
    let reading = reading(&body, &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    assert_eq!(counts(&reading.set), [1; 9]);
}

#[test]
fn yaml_json_and_a_list_of_all_kinds_mean_the_same() {
    let yaml = reading(&ALL.join("---\n"), &LENIENT);
    let values: Vec<serde_json::Value> = ALL.iter().map(|body| json(body)).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values});
    let of_list = reading(&list.to_string(), &LENIENT);
    // Items of a list are numbered.
    let numbered = |reading: &Reading| {
        let text = meaning(reading);
        let mut parts = text.split("item: ");
        let first = parts.next().unwrap_or_default().to_owned();
        let digit = |c: char| c.is_ascii_digit();
        parts.fold(first, |out, part| out + part.trim_start_matches(digit))
    };
    assert_eq!(numbered(&yaml), numbered(&of_list));
    for (body, value) in ALL.iter().zip(&values) {
        assert_eq!(
            meaning(&reading(body, &LENIENT)),
            meaning(&reading(&value.to_string(), &LENIENT))
        );
    }
}

/// A document as JSON. Its YAML is simple enough for the reader of this room.
fn json(body: &str) -> serde_json::Value {
    fn value(node: &crate::policy::yaml::Node) -> serde_json::Value {
        use crate::policy::{
            scalar::{Meaning, meaning},
            yaml::{Scalar, Value},
        };
        match &node.value {
            Value::Sequence(items) => items.iter().map(value).collect(),
            Value::Mapping(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect(),
            ),
            Value::Scalar(Scalar { text, plain: true }) if meaning(text) != Meaning::String => {
                serde_json::from_str(text).expect("a number, a boolean or null")
            }
            Value::Scalar(Scalar { text, .. }) => serde_json::Value::String(text.clone()),
        }
    }
    let document = crate::policy::yaml::documents(body, 0).remove(0);
    value(&document.root.expect("a document"))
}

#[test]
fn versions_that_are_read_are_those_of_the_api() {
    let body = |version: &str, kind: &str| {
        let kind = ObjectKind::ALL.iter().position(|known| known.name() == kind).unwrap();
        let (_, rest) = ALL[kind].split_once('\n').unwrap();
        format!("apiVersion: {version}\n{rest}")
    };
    for (version, kind, known) in [
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", true),
        ("gateway.networking.k8s.io/v1beta1", "TCPRoute", false),
        ("gateway.networking.k8s.io/v1beta1", "Gateway", true),
        ("gateway.networking.k8s.io/v1alpha2", "Gateway", false),
        ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", true),
        ("gateway.networking.k8s.io/v1alpha2", "HTTPRoute", false),
        ("gateway.networking.k8s.io/v1alpha2", "GRPCRoute", true),
        ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", true),
        ("gateway.networking.k8s.io/v1beta1", "GatewayClass", true),
        ("v2", "Service", false),
        ("discovery.k8s.io/v1beta1", "EndpointSlice", false),
    ] {
        let body = body(version, kind);
        assert_eq!(errors(&body, &LENIENT).is_empty(), known, "{version} {kind}");
        if !known {
            let finding = finding(&body, &LENIENT, "apiVersion");
            assert!(finding.message.contains(version), "{}", finding.message);
            assert!(
                finding
                    .hint
                    .is_some_and(|hint| hint.contains("/v1") || hint.contains("`apiVersion: v1`"))
            );
        }
    }
    // Of another group it is another kind.
    let knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n";
    assert_eq!(reading(knative, &LENIENT).report.notes().count(), 1);
}

#[test]
fn kinds_of_the_gateway_api_that_are_nearly_right_are_recognised() {
    for (written, meant) in
        [("TcpRoute", "TCPRoute"), ("Gatway", "Gateway"), ("GRPCRout", "GRPCRoute")]
    {
        let body = format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {written}\n");
        let finding = finding(&body, &LENIENT, "kind");
        assert!(finding.is_error());
        assert_eq!(finding.hint, Some(format!("did you mean `{meant}`?")));
    }
}

#[test]
fn metadata_is_checked_under_the_names_of_the_cluster() {
    let service = |metadata: &str| object("v1", "Service", metadata, "{ports: [{port: 80}]}");
    let cases = [
        ("metadata: {}", "metadata.name"),
        ("metadata: {name: ''}", "metadata.name"),
        ("metadata: {name: A}", "metadata.name"),
        ("metadata: {name: a.b}", "metadata.name"),
        ("metadata: {name: 1}", "metadata.name"),
        ("metadata: {name: a, namespace: a.b}", "metadata.namespace"),
        ("metadata: {name: a, labels: {'a b': c}}", "metadata.labels[\"a b\"]"),
        ("metadata: {name: a, labels: {a: 'b c'}}", "metadata.labels[\"a\"]"),
        ("metadata: {name: a, labels: {a: true}}", "metadata.labels[\"a\"]"),
        ("metadata: {name: a, labels: [a]}", "metadata.labels"),
        ("metadata: {name: a, creationTimestamp: now}", "metadata.creationTimestamp"),
        ("metadata: a", "metadata"),
    ];
    for (metadata, field) in cases {
        let body = service(metadata);
        assert!(
            errors(&body, &LENIENT).contains(&field.to_owned()),
            "{metadata}: {:?}",
            errors(&body, &LENIENT)
        );
        assert_eq!(counts(&reading(&body, &LENIENT).set), [0; 9], "{metadata}");
    }
    let gateway = object(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        "metadata: {name: a, namespace: b}",
        "{controllerName: a/b}",
    );
    assert_eq!(errors(&gateway, &LENIENT), ["metadata.namespace"]);
    let without = service("metadata: {name: a}");
    let set = reading(&without, &LENIENT).set;
    assert_eq!(set.services[0].meta.namespace.as_deref(), Some("default"));
    let mut body = service("metadata: {name: a}\nmesh: default");
    assert_eq!(warnings(&body, &LENIENT), ["mesh"]);
    body = object(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        "mesh: default\nmetadata: {name: a, extra: 1}",
        "{controllerName: a/b}",
    );
    assert_eq!(errors(&body, &LENIENT), ["mesh", "metadata.extra"]);
}

#[test]
fn two_of_one_name_are_refused_in_one_namespace_only() {
    let service = |namespace: &str| {
        object(
            "v1",
            "Service",
            &format!("metadata: {{name: a, namespace: {namespace}}}"),
            "{ports: [{port: 80}]}",
        )
    };
    let two = format!("{}---\n{}", service("one"), service("two"));
    assert!(reading(&two, &LENIENT).report.valid());
    let same = format!("{}---\n{}", service("one"), service("one"));
    let finding = finding(&same, &LENIENT, "metadata.name");
    assert_eq!(finding.message, "there are two of Service `a` in the namespace `one`");
    assert!(finding.related.is_some());
    // A namespace of the same name is something else.
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    assert!(reading(&format!("{}---\n{namespace}", service("one")), &LENIENT).report.valid());
}

#[test]
fn objects_are_sorted_by_namespace_then_name() {
    let body: Vec<String> = [("b", "a"), ("a", "z"), ("a", "b")]
        .iter()
        .map(|(namespace, name)| {
            object(
                "v1",
                "Service",
                &format!("metadata: {{name: {name}, namespace: {namespace}}}"),
                "{clusterIP: None}",
            )
        })
        .collect();
    let set = reading(&body.join("---\n"), &LENIENT).set;
    let names: Vec<_> = set
        .services
        .iter()
        .map(|one| (one.meta.namespace.as_deref().unwrap(), one.meta.name.as_str()))
        .collect();
    assert_eq!(names, [("a", "b"), ("a", "z"), ("b", "a")]);
}

#[test]
fn a_namespace_has_the_label_that_the_cluster_gives_it() {
    let set = reading(ALL[2], &LENIENT).set;
    let labels = &set.namespaces[0].meta.labels;
    assert_eq!(labels.get(kubernetes::NAMESPACE_NAME_LABEL).map(String::as_str), Some("shop"));
    assert_eq!(labels.get("team").map(String::as_str), Some("a"));
}

#[test]
fn a_key_that_is_written_twice_is_found_under_its_path() {
    let body = ALL[3].replace("description: x", "description: x, description: y");
    assert_eq!(errors(&body, &LENIENT), ["spec.description"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn reading_never_panics_on_documents_that_are_nearly_right(
        document in prop::sample::select(ALL.to_vec()),
        from in any::<prop::sample::Index>(),
        cut in 0..40usize,
        instead in "[ -~\n]{0,8}",
    ) {
        let from = from.index(document.len());
        let body = format!("{}{instead}{}", &document[..from], &document[(from + cut).min(document.len())..]);
        let reading = reading(&body, &LENIENT);
        let lines = crate::policy::text::lines(&body).count();
        for finding in reading.report.violations() {
            prop_assert!(!finding.message.ends_with('.'), "{}", finding.message);
            if let Some(span) = finding.span {
                prop_assert!(span.line as usize <= lines + 1);
            }
        }
        // Nothing of a document that has an error is kept.
        if !reading.report.valid() {
            let valid = reading.resources().iter().filter(|one| one.valid()).count();
            prop_assert!(counts(&reading.set).iter().sum::<usize>() <= valid);
        }
    }
}
