use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    Diagnostic, Severity, SourceText,
    testing::{LENIENT, errors, finding, holds, nearly, reading, route, text, warnings},
};

const MESH: &str = "type: Mesh\nname: default\n---\n";
const ROUTE: &str = "{destination: {kuma.io/service: a}}";

/// (kind, mesh, namespace, name, document, valid) of each resource.
fn resources(reading: &Reading) -> Vec<String> {
    reading
        .resources()
        .iter()
        .map(|r| {
            let word = |w: &Option<String>| w.clone().unwrap_or_else(|| "-".to_owned());
            let (kind, mesh) = (word(&r.kind), word(&r.mesh));
            let (namespace, name) = (word(&r.namespace), word(&r.name));
            format!("{kind} {mesh} {namespace} {name} {} {}", r.document, r.valid())
        })
        .collect()
}

#[test]
fn one_policy_in_every_form_and_envelope_is_one_route() {
    let universal = "type: TrafficRoute
name: r
mesh: default
sources: [{match: {kuma.io/service: web}}]
destinations: [{match: {kuma.io/service: redis}}]
conf:
  split:
  - {weight: 90, destination: {kuma.io/service: redis, version: '1.0'}}
  - {weight: 10, destination: {kuma.io/service: redis, version: '2.0'}}
";
    let kubernetes = "apiVersion: kuma.io/v1alpha1
kind: TrafficRoute
mesh: default
metadata: {name: r, namespace: shop}
spec:
  sources: [{match: {kuma.io/service: web}}]
  destinations: [{match: {kuma.io/service: redis}}]
  conf:
    split:
    - {weight: 90, destination: {kuma.io/service: redis, version: '1.0'}}
    - {weight: 10, destination: {kuma.io/service: redis, version: '2.0'}}
";
    let old = |text: &str| {
        let list = text.replace("kuma.io/service", "service");
        // Without the line `split:` what is left is the list.
        list.lines().filter(|line| line.trim() != "split:").fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
    };
    let json = r#"{"type": "TrafficRoute", "name": "r", "mesh": "default",
      "sources": [{"match": {"kuma.io/service": "web"}}],
      "destinations": [{"match": {"kuma.io/service": "redis"}}],
      "conf": {"split": [
        {"weight": 90, "destination": {"kuma.io/service": "redis", "version": "1.0"}},
        {"weight": 10, "destination": {"kuma.io/service": "redis", "version": "2.0"}}]}}"#;
    // What a policy says, without where it says so.
    let meaning = |body: &str| {
        let mut reading = reading(body, &LENIENT);
        assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
        let route = Arc::unwrap_or_clone(reading.set.traffic_routes.remove(0));
        let split: Vec<_> =
            route.conf.split.into_iter().map(|entry| (entry.weight, entry.destination)).collect();
        (
            route.meta.name,
            route.meta.mesh,
            route.sources,
            route.destinations,
            split,
            route.conf.load_balancer,
        )
    };
    let expected = meaning(universal);
    assert_eq!(expected.4.len(), 2);
    for body in [kubernetes.to_owned(), old(universal), old(kubernetes), json.to_owned()] {
        assert_eq!(meaning(&body), expected, "{body}");
    }
}

#[test]
fn every_document_is_reported_and_nothing_of_an_invalid_one_is_kept() {
    let body = format!(
        "{MESH}{}---\na: [1\n---\n{}---\n- 1\n---\nkind: x\n",
        route("{}").replace("name: r", "name: bad"),
        route(ROUTE)
    );
    let reading = reading(&body, &LENIENT);
    assert_eq!(
        resources(&reading),
        [
            "Mesh - - default 0 true",
            "TrafficRoute default - bad 1 false",
            "- - - - 2 false",
            "TrafficRoute default - r 3 true",
            "- - - - 4 false",
            "- - - - 5 false",
        ]
    );
    assert!(!reading.report.valid());
    assert_eq!(reading.set.traffic_routes.len(), 1);
    let broken = &reading.resources()[2].violations;
    assert_eq!((broken.len(), broken[0].field.as_str()), (1, ""));
    assert!(broken[0].span.is_some());
}

#[test]
fn documents_that_say_not_what_they_are_are_refused() {
    assert_eq!(errors("name: a\n", &LENIENT), ["type"]);
    assert_eq!(errors("- a\n", &LENIENT), [""]);
    assert_eq!(errors("hello\n", &LENIENT), [""]);
    assert_eq!(errors("apiVersion: kuma.io/v1alpha1\n", &LENIENT), ["kind"]);
    assert_eq!(errors("type: [a]\n", &LENIENT), ["type"]);
    assert_eq!(errors("apiVersion: kuma.io/v9\nkind: Mesh\n", &LENIENT), ["apiVersion"]);
}

#[test]
fn unknown_kinds_of_our_groups_are_errors_with_a_suggestion() {
    let cases = [
        ("type: TraficRoute\nname: a\nmesh: default\n", "type", Some("TrafficRoute")),
        ("type: dataplane\nname: a\n", "type", Some("Dataplane")),
        ("type: Zebra\nname: a\n", "type", None),
        ("apiVersion: kuma.io/v1alpha1\nkind: TrafficRout\n", "kind", Some("TrafficRoute")),
        ("apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\n", "kind", Some("HTTPRoute")),
    ];
    for (body, field, meant) in cases {
        let finding = finding(body, &LENIENT, field);
        assert!(finding.is_error(), "{body}");
        let hint = finding.hint.unwrap();
        match meant {
            Some(meant) => assert_eq!(hint, format!("did you mean `{meant}`?"), "{body}"),
            None => assert!(hint.contains("TrafficRoute"), "{body}"),
        }
    }
}

#[test]
fn a_kind_of_another_group_of_ours_says_which() {
    for (body, field, write) in [
        ("type: HTTPRoute\nname: a\n", "type", "gateway.networking.k8s.io/v1"),
        ("apiVersion: kuma.io/v1alpha1\nkind: GRPCRoute\n", "kind", "gateway.networking.k8s.io/v1"),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: MeshHTTPRoute\n",
            "kind",
            "kuma.io/v1alpha1",
        ),
    ] {
        let hint = finding(body, &LENIENT, field).hint.unwrap_or_default();
        assert!(hint.contains(&format!("apiVersion: {write}`")), "{hint}");
    }
}

#[test]
fn known_kinds_that_are_not_carried_out_are_warnings_at_their_place() {
    for body in [
        "type: MeshTimeout\nname: a\nmesh: default\nspec: {}\n",
        "apiVersion: kuma.io/v1alpha1\nkind: MeshRetry\nmetadata: {name: a}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: a}\n",
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: UDPRoute\nmetadata: {name: a}\n",
    ] {
        let reading = reading(body, &LENIENT);
        assert!(reading.report.valid(), "{body}");
        let findings = &reading.resources()[0].violations;
        assert_eq!(findings.len(), 1, "{body}");
        assert!(findings[0].message.contains("not carried out yet"), "{body}");
        assert!(findings[0].span.is_some(), "{body}");
    }
}

#[test]
fn foreign_documents_are_skipped_with_a_note() {
    let body = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\n";
    let reading = reading(body, &LENIENT);
    assert_eq!(resources(&reading), [""; 0]);
    let notes: Vec<&str> = reading.report.notes().map(|n| n.message.as_str()).collect();
    assert_eq!(
        notes,
        [
            "skipped Deployment of apps/v1: not a kind of this tool",
            "skipped ConfigMap of v1: not a kind of this tool",
        ]
    );
}

#[test]
fn items_of_a_list_are_resources_of_their_own() {
    let body = "apiVersion: v1
kind: List
items:
- apiVersion: kuma.io/v1alpha1
  kind: Mesh
  metadata: {name: default}
- apiVersion: kuma.io/v1alpha1
  kind: Dataplane
  mesh: default
  metadata: {name: d, namespace: shop}
  spec:
    networking: {address: 10.0.0.1, address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: a}}]}
- {apiVersion: v1, kind: List, items: []}
- 7
";
    let reading = reading(body, &LENIENT);
    assert_eq!(
        resources(&reading),
        [
            "Mesh - - default 0 true",
            "Dataplane default shop d 0 false",
            "List - - - 0 false",
            "- - - - 0 false",
        ]
    );
    let duplicate = &reading.resources()[1].violations[0];
    assert_eq!(duplicate.field, "networking.address", "as in the Universal form");
}

#[test]
fn a_list_that_contains_itself_through_aliases_ends() {
    let body =
        "apiVersion: v1\nkind: List\nitems: [&x {apiVersion: v1, kind: List, items: []}, *x]\n";
    assert_eq!(errors(body, &LENIENT), ["kind", "kind"]);
}

#[test]
fn names_in_kubernetes_carry_the_namespace_only_where_kinds_are_namespaced() {
    let body = "apiVersion: kuma.io/v1alpha1
kind: Dataplane
mesh: default
metadata: {name: d, namespace: shop, labels: {kuma.io/display-name: shown}}
spec: {networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: a}}]}}
---
apiVersion: kuma.io/v1alpha1
kind: TrafficRoute
mesh: default
metadata: {name: r, namespace: shop, creationTimestamp: '1970-01-01T00:01:00Z'}
spec: {sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: a}}], conf: {destination: {kuma.io/service: a}}}
";
    let set = reading(body, &LENIENT).set;
    let dataplane = &set.dataplanes[0].meta;
    assert_eq!((dataplane.name.as_str(), dataplane.display_name.as_str()), ("d.shop", "shown"));
    let route = &set.traffic_routes[0].meta;
    assert_eq!((route.name.as_str(), route.display_name.as_str()), ("r", "r"));
    assert_eq!(route.created, Some(60.0));
}

#[test]
fn names_and_meshes_are_checked() {
    let named = |name: &str| format!("type: Mesh\nname: {name}\n");
    for wrong in
        ["''", "Upper", "a_b", "-a", "a-", "a..b", "a b", "é", "1", "~", "true", &"a".repeat(254)]
    {
        assert_eq!(errors(&named(wrong), &LENIENT), ["name"], "{wrong}");
    }
    for fine in ["a", "a-1.b", "'1'", &"a".repeat(253)] {
        assert_eq!(errors(&named(fine), &LENIENT), [""; 0], "{fine}");
    }
    assert_eq!(errors("type: Mesh\n", &LENIENT), ["name"]);
    let in_mesh = |mesh: &str| route(ROUTE).replace("mesh: default", mesh);
    for wrong in ["mesh: ''", "mesh: A", "mesh: 'a b'", "", "mesh: 1"] {
        assert_eq!(errors(&in_mesh(wrong), &LENIENT), ["mesh"], "{wrong}");
    }
    assert_eq!(errors(&in_mesh("mesh: a_b.c-1"), &LENIENT), [""; 0]);
}

#[test]
fn times_and_labels_are_checked() {
    let with = |more: &str| format!("{}{more}\n", route(ROUTE));
    assert_eq!(errors(&with("creationTime: yesterday"), &LENIENT), ["creationTime"]);
    assert_eq!(errors(&with("labels: {a: 1.0}"), &LENIENT), ["labels[\"a\"]"]);
    assert_eq!(errors(&with("labels: [a]"), &LENIENT), ["labels"]);
    let set = reading(&with("creationTime: 1970-01-01T00:00:01.5Z\nlabels: {a: ''}"), &LENIENT).set;
    assert_eq!(set.traffic_routes[0].meta.created, Some(1.5));
    assert_eq!(set.traffic_routes[0].meta.labels["a"], "");
}

#[test]
fn two_resources_of_one_name_are_refused_with_both_places() {
    let body = format!(
        "{}---\n{}---\n{}",
        route(ROUTE),
        route(ROUTE),
        route(ROUTE).replace("mesh: default", "mesh: other")
    );
    assert_eq!(errors(&body, &LENIENT), ["name"]);
    let reading = reading(&body, &LENIENT);
    let finding = reading.report.violations().next().unwrap();
    assert_eq!(finding.message, "there are two of TrafficRoute `r` in the mesh `default`");
    assert_eq!(places(&reading, finding), ["a.yaml:9:7", "a.yaml:2:7"]);
}

#[test]
fn two_resources_of_one_name_are_found_across_files() {
    let named = |name: &str| SourceText { name: name.to_owned(), ..text(&route(ROUTE)) };
    let reading = read(vec![named("a"), named("b")], &LENIENT);
    let finding = reading.report.violations().next().unwrap();
    assert_eq!(places(&reading, finding), ["b:2:7", "a:2:7"]);
}

/// Where a finding is, and what it points at.
fn places(reading: &Reading, finding: &Diagnostic) -> Vec<String> {
    let spans = finding.span.into_iter().chain(finding.related.iter().map(|(span, _)| *span));
    let position = |span| reading.report.documents().position(span).expect("a document");
    spans.map(|span| position(span).to_string()).collect()
}

#[test]
fn an_unknown_mesh_is_refused_once_any_mesh_is_given() {
    let body = format!("type: Mesh\nname: defualt\n---\n{}", route(ROUTE));
    assert_eq!(errors(&body, &LENIENT), ["mesh"]);
    assert_eq!(finding(&body, &LENIENT, "mesh").hint.unwrap(), "did you mean `defualt`?");
    assert!(reading(&body, &LENIENT).set.traffic_routes.is_empty());
    let alone = reading(&route(ROUTE), &LENIENT);
    assert!(alone.report.valid());
    assert_eq!(alone.report.notes().count(), 1);
    let with = reading(&format!("{MESH}{}", route(ROUTE)), &LENIENT);
    assert!(with.report.valid() && with.report.notes().next().is_none());
}

#[test]
fn a_shadow_policy_is_kept_and_not_applied() {
    let body = format!("{}labels: {{kuma.io/effect: shadow}}\n", route(ROUTE));
    let reading = reading(&body, &LENIENT);
    assert!(reading.report.valid());
    assert!(reading.set.traffic_routes.is_empty());
    assert_eq!(reading.set.shadowed.len(), 1);
    assert_eq!(warnings(&body, &LENIENT), ["labels[\"kuma.io/effect\"]"]);
}

#[test]
fn unknown_fields_warn_and_are_errors_on_request() {
    let body = format!("{}confg: 1\n", route("{destination: {kuma.io/service: a}, splt: []}"));
    assert_eq!(errors(&body, &LENIENT), [""; 0]);
    assert_eq!(warnings(&body, &LENIENT), ["conf.splt", "confg"]);
    assert_eq!(finding(&body, &LENIENT, "confg").hint.unwrap(), "did you mean `conf`?");
    let deny = ReadOptions { deny_unknown: true, ..LENIENT };
    assert_eq!(errors(&body, &deny), ["conf.splt", "confg"]);
}

#[test]
fn both_spellings_of_a_field_are_one_field() {
    let snake = route(
        "{destination: {kuma.io/service: a}, load_balancer: {least_request: {choice_count: 3}}}",
    );
    assert_eq!(errors(&snake, &LENIENT), [""; 0]);
    assert_eq!(warnings(&snake, &LENIENT), [""; 0]);
    let both = route(
        "{destination: {kuma.io/service: a}, load_balancer: {random: {}}, loadBalancer: {random: {}}}",
    );
    assert_eq!(errors(&both, &LENIENT), ["conf.loadBalancer"]);
}

#[test]
fn wrong_types_are_errors_that_name_what_is_there() {
    let cases = [
        ("sources: {}", "sources", "must be a list, not a mapping"),
        ("sources: web", "sources", "must be a list, not `web`"),
        ("sources: [web]", "sources[0]", "must be a mapping, not `web`"),
        ("sources: [{match: [a]}]", "sources[0].match", "must be a mapping, not a list"),
    ];
    for (field_text, field, message) in cases {
        let body = route(ROUTE).replace("sources: [{match: {kuma.io/service: web}}]", field_text);
        let finding = finding(&body, &LENIENT, field);
        assert_eq!((finding.severity, finding.message.as_str()), (Severity::Error, message));
    }
}

#[test]
fn a_mesh_is_read_and_what_it_asks_in_vain_is_reported() {
    let body = "type: Mesh
name: default
routing: {localityAwareLoadBalancing: true, zoneEgress: true}
meshServices: {mode: Exclusive}
mtls: {enabledBackend: ca-1}
logging: {backends: []}
";
    let reading = reading(body, &LENIENT);
    assert!(reading.report.valid());
    assert!(reading.set.meshes[0].locality_aware);
    assert_eq!(warnings(body, &LENIENT), ["routing.zoneEgress", "meshServices.mode", "mtls"]);
    assert_eq!(
        errors("type: Mesh\nname: a\nmeshServices: {mode: Sometimes}\n", &LENIENT),
        ["meshServices.mode"]
    );
}

#[test]
fn the_set_does_not_depend_on_the_order_of_files() {
    let one = text(&route(ROUTE));
    let other = text(&route(ROUTE).replace("name: r", "name: a"));
    let names = |texts: Vec<SourceText>| {
        let set = read(texts, &LENIENT).set;
        set.traffic_routes.into_iter().map(|route| route.meta.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(vec![one.clone(), other.clone()]), ["a", "r"]);
    assert_eq!(names(vec![other, one]), ["a", "r"]);
}

#[test]
fn many_findings_take_no_more_than_their_number() {
    // A quadratic count of errors would need minutes for this.
    let inbounds = "{port: 0, tags: {a: ''}},".repeat(20_000);
    let body = format!(
        "type: Dataplane\nname: d\nmesh: default\nnetworking: {{address: 10.0.0.1, inbound: [{inbounds}]}}\n"
    );
    assert_eq!(errors(&body, &LENIENT).len(), 40_000);
}

/// Texts that are nearly policies: pieces of YAML in random order, and mutilated policies.
fn nearly_a_policy() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "type: TrafficRoute\n",
        "type: Dataplane\n",
        "apiVersion: kuma.io/v1alpha1\nkind: Mesh\n",
        "name: a\n",
        "mesh: default\n",
        "conf:\n",
        "  split:\n",
        "  - weight: 1\n",
        "---\n",
        "...\n",
        "    destination: {kuma.io/service: '*'}\n",
        "sources:\n",
        "- match:\n",
        "&x ",
        "*x",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "\t",
        "\r\n",
        "\u{feff}",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "# c\n",
        "%YAML 1.2\n",
        "? ",
        "!!str ",
        "!x ",
        "<<: ",
        "~",
        "é",
        "\u{0}",
        "networking: {address: 10.0.0.1}\n",
        ",",
        "  http: [{match: {path: {regex: '('}}}]\n",
        "  loadBalancer: {ringHash: {}}\n",
    ]);
    let mixed = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    let cut = nearly(vec![
        route(
            "\n  loadBalancer: {leastRequest: {choiceCount: 3}}\n  http:\n  - match: {method: GET, headers: {x: {exact: a}}}\n    modify: {host: {value: h}}\n    destination: {kuma.io/service: a}\n  split:\n  - {weight: 1, destination: {kuma.io/service: a, v: '1'}}",
        ),
        crate::policy::testing::dataplane(
            "\n  address: 10.0.0.1\n  admin: {port: 1}\n  inbound:\n  - {port: 80, health: {}, tags: {kuma.io/service: a}}\n  outbound:\n  - {port: 1, backendRef: {kind: MeshService, name: a}}\n  gateway: {type: BUILTIN}",
        ),
    ]);
    prop_oneof![mixed, cut]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn reading_never_panics_on_texts_that_are_nearly_policies(body in nearly_a_policy()) {
        holds(&body)?;
    }

    #[test]
    fn reading_never_panics_on_any_text(body in "\\PC{0,200}") {
        holds(&body)?;
    }

    #[test]
    fn reading_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        holds(&String::from_utf8_lossy(&bytes))?;
    }
}
