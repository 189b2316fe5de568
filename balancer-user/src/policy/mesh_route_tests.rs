use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    ReadOptions, ServiceKind,
    testing::{LENIENT, errors, exactly, finding, holds, nearly, reading, refused, warnings},
};

const KUMA_27: ReadOptions = exactly(Api::Kuma27);
const KUMA_29: ReadOptions = exactly(Api::Kuma29);
const KUMA_3: ReadOptions = exactly(Api::Kuma3);
/// The forms of versions with tags, and of all of them.
const WITH_TAGS: &[&ReadOptions] = &[&LENIENT, &KUMA_27, &KUMA_29];
const SINCE_29: &[&ReadOptions] = &[&LENIENT, &KUMA_29];

/// A MeshTCPRoute whose `spec` is this flow mapping.
fn policy(spec: &str) -> String {
    format!("type: MeshTCPRoute\nname: r\nmesh: default\nspec: {spec}\n")
}

/// One whose `targetRef` is this.
fn targeting(target: &str) -> String {
    let to = if target.contains("MeshGateway") { "Mesh" } else { "MeshService, name: redis" };
    policy(&format!("{{targetRef: {target}, to: [{{targetRef: {{kind: {to}}}}}]}}"))
}

/// One whose only item of `to` has this `targetRef`.
fn dialling(target: &str) -> String {
    policy(&format!("{{targetRef: {{kind: Mesh}}, to: [{{targetRef: {target}}}]}}"))
}

/// One with these `rules`.
fn ruled(rules: &str) -> String {
    policy(&format!(
        "{{targetRef: {{kind: Mesh}}, to: [{{targetRef: {{kind: MeshService, name: redis}}, rules: {rules}}}]}}"
    ))
}

/// One with these `backendRefs`.
fn backed(backends: &str) -> String {
    ruled(&format!("[{{default: {{backendRefs: {backends}}}}}]"))
}

fn read(body: &str, options: &ReadOptions) -> MeshTcpRoute {
    let mut reading = reading(body, options);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    reading.set.mesh_tcp_routes.pop_back().map(Arc::unwrap_or_clone).expect("a MeshTCPRoute")
}

fn tags(name: &str, value: &str) -> Tags {
    Tags::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn the_two_envelopes_hold_the_same_route() {
    let spec = "
  targetRef: {kind: MeshSubset, tags: {kuma.io/service: backend}}
  to:
  - targetRef: {kind: MeshService, name: redis}
    rules:
    - default:
        backendRefs:
        - {kind: MeshServiceSubset, name: redis, tags: {version: '1.0'}, weight: 90}
        - {kind: MeshService, name: redis-v2, namespace: shop, port: 6379}
";
    let universal = read(&policy(spec), &LENIENT);
    let kubernetes = read(
        &format!(
            "apiVersion: kuma.io/v1alpha1\nkind: MeshTCPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {spec}"
        ),
        &LENIENT,
    );
    assert_eq!((universal.meta.name.as_str(), kubernetes.meta.name.as_str()), ("r", "r.shop"));
    assert_eq!(kubernetes.meta.mesh, "default");
    assert_eq!(universal.target, kubernetes.target);
    assert_eq!(
        universal.target,
        RouteTarget::MeshSubset {
            tags: tags("kuma.io/service", "backend"),
            proxies: Proxies::default()
        }
    );
    let rule = |route: &MeshTcpRoute| route.to[0].rule.clone().expect("a rule");
    let backends = rule(&universal).backends;
    assert_eq!(rule(&kubernetes).backends.len(), 2);
    assert_eq!((backends[0].weight, backends[1].weight), (90, 1));
    assert_eq!(
        backends[0].target,
        BackendTarget::Subset { name: "redis".to_owned(), tags: tags("version", "1.0") }
    );
    let BackendTarget::Service(second) = &backends[1].target else { panic!("{backends:?}") };
    assert_eq!(second.port.map(u16::from), Some(6379));
    assert_eq!(second.field, "spec.to[0].rules[0].default.backendRefs[1]");
    assert_eq!(second.tag_service(), None);
    let ToTarget::Service(dialled) = &universal.to[0].target else { panic!("no service") };
    assert_eq!(dialled.tag_service(), Some("redis"));
}

#[test]
fn the_form_of_kuma_3_refers_by_labels() {
    let body = policy(
        "{targetRef: {kind: Dataplane, labels: {app: web}}, to: [{targetRef: {kind: MeshMultiZoneService, labels: {kuma.io/display-name: redis}, sectionName: 6379}, rules: [{default: {backendRefs: [{kind: MeshExternalService, labels: {a: b}}]}}]}]}",
    );
    for options in [&LENIENT, &KUMA_3] {
        let route = read(&body, options);
        assert_eq!(
            route.target,
            RouteTarget::Dataplane(Some(ReferredBy::Labels(tags("app", "web"))))
        );
        let ToTarget::Service(dialled) = &route.to[0].target else { panic!("no service") };
        assert_eq!(dialled.kind, ServiceKind::MeshMultiZoneService);
        assert_eq!(dialled.by, ReferredBy::Labels(tags("kuma.io/display-name", "redis")));
        assert_eq!(dialled.section.as_deref(), Some("6379"));
    }
}

#[test]
fn a_sound_route_has_no_finding() {
    let body = dialling("{kind: MeshService, name: redis}");
    assert_eq!(warnings(&body, &LENIENT), Vec::<String>::new());
}

#[test]
fn an_absent_target_is_the_whole_mesh_since_2_9() {
    let body = policy("{to: [{targetRef: {kind: MeshService, name: redis}}]}");
    let route = read(&body, &KUMA_29);
    assert_eq!(route.target, RouteTarget::Mesh { proxies: Proxies::default() });
    assert_eq!(route.to[0].rule, None);
    assert_eq!(errors(&body, &KUMA_27), ["spec.targetRef.kind"]);
}

#[test]
fn every_kind_of_target_is_read_where_it_exists() {
    let service = "{kind: MeshService, name: web}";
    let cases = [
        ("{kind: Mesh, proxyTypes: [Sidecar]}", [true, true, false]),
        ("{kind: MeshSubset, tags: {app: web}}", [true, true, false]),
        (service, [true, true, false]),
        ("{kind: MeshServiceSubset, name: web, tags: {v: a}}", [true, true, false]),
        ("{kind: MeshGateway, name: edge, tags: {port: a}}", [true, true, false]),
        ("{kind: Dataplane, labels: {app: web}}", [false, false, true]),
        ("{kind: Dataplane}", [false, false, true]),
        ("{kind: Dataplane, name: web-1, namespace: shop}", [false, false, false]),
    ];
    for (target, exists) in cases {
        let body = targeting(target);
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{target}");
        for (options, exists) in [&KUMA_27, &KUMA_29].into_iter().zip(exists) {
            assert_eq!(errors(&body, options).is_empty(), exists, "{target} {:?}", options.api);
        }
        // In this version `to` of these cases is by name too.
        let found = errors(&body, &KUMA_3);
        let top: Vec<_> = found.iter().filter(|f| f.starts_with("spec.targetRef")).collect();
        assert_eq!(top.is_empty(), exists[2], "{target} {found:?}");
    }
    assert_eq!(
        read(&targeting("{kind: Mesh, proxyTypes: [Gateway]}"), &LENIENT).target,
        RouteTarget::Mesh { proxies: Proxies { sidecars: false, gateways: true } }
    );
    assert_eq!(
        read(&targeting(service), &LENIENT).target,
        RouteTarget::MeshService { name: "web".to_owned() }
    );
    assert_eq!(
        read(&targeting("{kind: Dataplane}"), &LENIENT).target,
        RouteTarget::Dataplane(None)
    );
}

#[test]
fn what_is_wrong_with_a_target_is_said_at_its_field() {
    let kind: &[&str] = &["spec.targetRef.kind"];
    refused(
        &[
            ("{}", kind),
            ("{kind: ''}", kind),
            ("{kind: BlahBlah, name: web}", kind),
            ("{kind: MeshExternalService, name: web}", kind),
            ("{kind: MeshHTTPRoute, name: web}", kind),
            ("{kind: Mesh, name: default}", &["spec.targetRef.name"]),
            ("{kind: Mesh, tags: {a: b}}", &["spec.targetRef.tags"]),
            ("{kind: Mesh, mesh: other}", &["spec.targetRef.mesh"]),
            ("{kind: Mesh, labels: {a: b}}", &["spec.targetRef.labels"]),
            ("{kind: Mesh, namespace: a}", &["spec.targetRef.namespace"]),
            ("{kind: Mesh, sectionName: a}", &["spec.targetRef.sectionName"]),
            ("{kind: Mesh, proxyTypes: []}", &["spec.targetRef.proxyTypes"]),
            ("{kind: Mesh, proxyTypes: [Ingress]}", &["spec.targetRef.proxyTypes[0]"]),
            ("{kind: Mesh, what: x}", &["spec.targetRef.what"]),
            ("{kind: MeshSubset, name: a}", &["spec.targetRef.name"]),
            ("{kind: MeshSubset, tags: {'': b}}", &["spec.targetRef.tags"]),
            ("{kind: MeshSubset, tags: {'a*': b}}", &["spec.targetRef.tags[\"a*\"]"]),
            ("{kind: MeshSubset, tags: {a: '*'}}", &["spec.targetRef.tags[\"a\"]"]),
            ("{kind: MeshSubset, tags: {a: ''}}", &["spec.targetRef.tags[\"a\"]"]),
            ("{kind: MeshService}", &["spec.targetRef.name"]),
            ("{kind: MeshService, name: ''}", &["spec.targetRef.name"]),
            ("{kind: MeshService, name: 'Web!'}", &["spec.targetRef.name"]),
            ("{kind: MeshService, name: web, tags: {a: b}}", &["spec.targetRef.tags"]),
            (
                "{kind: MeshService, name: web, proxyTypes: [Sidecar]}",
                &["spec.targetRef.proxyTypes"],
            ),
            ("{kind: MeshServiceSubset, tags: {a: b}}", &["spec.targetRef.name"]),
            ("{kind: MeshGateway}", &["spec.targetRef.name"]),
            ("{kind: MeshGateway, name: a, mesh: b}", &["spec.targetRef.mesh"]),
        ],
        WITH_TAGS,
        targeting,
    );
    refused(
        &[
            ("{kind: Dataplane, sectionName: a}", &["spec.targetRef.sectionName"]),
            ("{kind: Dataplane, tags: {a: b}}", &["spec.targetRef.tags"]),
            ("{kind: Dataplane, name: a, labels: {b: c}}", &["spec.targetRef.labels"]),
            ("{kind: Dataplane, namespace: a}", &["spec.targetRef.name"]),
        ],
        &[&LENIENT],
        targeting,
    );
    let hint = finding(&targeting("{kind: MeshServce, name: a}"), &LENIENT, kind[0]).hint;
    assert_eq!(hint.as_deref(), Some("did you mean `MeshService`?"));
}

#[test]
fn a_gateway_is_reported_and_dials_the_mesh() {
    let body = targeting("{kind: MeshGateway, name: edge, tags: {port: '6379'}}");
    assert_eq!(warnings(&body, &LENIENT), ["spec.targetRef.kind"]);
    let route = read(&body, &LENIENT);
    assert_eq!(route.to[0].target, ToTarget::Mesh);
    let body = body
        .replace("to: [{targetRef: {kind: Mesh}", "to: [{targetRef: {kind: MeshService, name: a}");
    refused(&[("", &["spec.to[0].targetRef.kind"])], WITH_TAGS, |_| body.clone());
}

#[test]
fn in_2_9_only_policies_of_the_system_have_gateways() {
    let labelled = |role: &str| {
        targeting("{kind: MeshGateway, name: edge}")
            .replace("spec:", &format!("labels: {{kuma.io/policy-role: {role}}}\nspec:"))
    };
    assert_eq!(errors(&labelled("system"), &KUMA_29), [""; 0]);
    assert_eq!(errors(&labelled("consumer"), &KUMA_29), ["spec.targetRef.kind"]);
    assert_eq!(errors(&labelled("consumer"), &KUMA_27), [""; 0]);
}

#[test]
fn what_is_wrong_with_what_is_dialled_is_said_at_its_field() {
    let kind: &[&str] = &["spec.to[0].targetRef.kind"];
    refused(
        &[
            ("{kind: Mesh}", kind),
            ("{kind: MeshSubset}", kind),
            ("{kind: MeshServiceSubset, name: a}", kind),
            ("{kind: MeshService}", &["spec.to[0].targetRef.name"]),
            ("{kind: MeshService, name: a, labels: {b: c}}", &["spec.to[0].targetRef.labels"]),
            ("{kind: MeshService, namespace: a, labels: {b: c}}", &["spec.to[0].targetRef.labels"]),
            ("{kind: MeshService, labels: {b: 1.5}}", &["spec.to[0].targetRef.labels[\"b\"]"]),
            ("{kind: MeshService, name: a, tags: {b: c}}", &["spec.to[0].targetRef.tags"]),
            ("{kind: MeshService, name: a, port: 80}", &["spec.to[0].targetRef.port"]),
        ],
        WITH_TAGS,
        dialling,
    );
    refused(
        &[
            ("{kind: MeshExternalService}", &["spec.to[0].targetRef.name"]),
            (
                "{kind: MeshExternalService, name: a, sectionName: b}",
                &["spec.to[0].targetRef.sectionName"],
            ),
            ("{kind: MeshExternalService, labels: {a: b}}", &[]),
            ("{kind: MeshMultiZoneService, name: a, sectionName: b}", &[]),
        ],
        SINCE_29,
        dialling,
    );
    refused(&[("{kind: MeshExternalService, name: a}", kind)], &[&KUMA_27], dialling);
    let without = policy("{targetRef: {kind: Mesh}, to: [{}]}");
    refused(&[("", kind)], &[&LENIENT, &KUMA_27, &KUMA_29, &KUMA_3], |_| without.clone());
}

#[test]
fn kuma_3_knows_no_names() {
    let cases: [(&str, &[&str]); 4] = [
        ("{kind: MeshService, name: a}", &["spec.to[0].targetRef.name"]),
        ("{kind: MeshService}", &["spec.to[0].targetRef.labels"]),
        ("{kind: MeshService, labels: {a: b}, mesh: x}", &["spec.to[0].targetRef.mesh"]),
        ("{kind: MeshService, labels: {a: b}}", &[]),
    ];
    refused(&cases, &[&KUMA_3], dialling);
    let said = finding(&dialling(cases[0].0), &KUMA_3, cases[0].1[0]);
    assert!(said.message.starts_with("unknown field `name`"), "{}", said.message);
}

#[test]
fn what_is_wrong_with_rules_is_said_at_their_field() {
    let one = "{default: {backendRefs: [{kind: MeshService, name: a}]}}";
    let rules = |rules: &str| errors(&ruled(rules), &LENIENT);
    assert_eq!(rules(&format!("[{one}]")), [""; 0]);
    assert_eq!(rules(&format!("[{one}, {one}]")), ["spec.to[0].rules"]);
    assert_eq!(rules("{}"), ["spec.to[0].rules"]);
    assert_eq!(rules("[{defaults: {}}]"), ["spec.to[0].rules[0].defaults"]);
    assert_eq!(rules("[{default: {backendRef: []}}]"), ["spec.to[0].rules[0].default.backendRef"]);
    assert_eq!(read(&ruled("[]"), &LENIENT).to[0].rule, None);
}

#[test]
fn a_rule_without_backends_refuses_connections_where_it_is_accepted() {
    const FIELD: &str = "spec.to[0].rules[0].default.backendRefs";
    for rules in ["[{}]", "[{default: {}}]", "[{default: {backendRefs: []}}]"] {
        let body = ruled(rules);
        assert_eq!(warnings(&body, &KUMA_29), [FIELD], "{rules}");
        let rule = read(&body, &LENIENT).to[0].rule.clone().expect("a rule");
        assert_eq!(rule.backends, []);
        let body = body.replace("name: redis", "labels: {a: b}");
        assert_eq!(errors(&body, &KUMA_3), [FIELD], "{rules}");
    }
}

#[test]
fn what_is_wrong_with_backends_is_said_at_their_field() {
    const FIRST: &str = "spec.to[0].rules[0].default.backendRefs[0]";
    let check = |backend: &str, part: &str, options: &[&ReadOptions]| {
        for options in options {
            let found = errors(&backed(&format!("[{backend}]")), options);
            assert_eq!(found, [format!("{FIRST}.{part}")], "{backend} {:?}", options.api);
        }
    };
    check("{}", "kind", WITH_TAGS);
    check("{kind: Mesh}", "kind", WITH_TAGS);
    check("{kind: MeshService}", "name", WITH_TAGS);
    check("{kind: MeshService, name: a, weight: -1}", "weight", WITH_TAGS);
    check("{kind: MeshService, name: a, weight: 4294967296}", "weight", WITH_TAGS);
    check("{kind: MeshService, name: a, weight: '1'}", "weight", WITH_TAGS);
    check("{kind: MeshService, name: a, port: 0}", "port", WITH_TAGS);
    check("{kind: MeshService, name: a, port: 65536}", "port", WITH_TAGS);
    check("{kind: MeshService, name: a, tags: {b: c}}", "tags", WITH_TAGS);
    check("{kind: MeshService, name: a, labels: {b: c}}", "labels", WITH_TAGS);
    check("{kind: MeshService, name: a, weigth: 1}", "weigth", WITH_TAGS);
    check("{kind: MeshServiceSubset, tags: {b: c}}", "name", WITH_TAGS);
    check("{kind: MeshServiceSubset, name: a, tags: {b: '*'}}", "tags[\"b\"]", WITH_TAGS);
    check("{kind: MeshServiceSubset, name: a, labels: {b: c}}", "labels", WITH_TAGS);
    check("{kind: MeshMultiZoneService, name: a}", "port", SINCE_29);
    check("{kind: MeshExternalService, name: a, sectionName: b}", "sectionName", SINCE_29);
    check("{kind: MeshExternalService, name: a}", "kind", &[&KUMA_27]);
    let body = backed("[{kind: MeshServiceSubset}]").replace("name: redis", "labels: {a: b}");
    assert_eq!(errors(&body, &KUMA_3), [format!("{FIRST}.kind")]);
    let hint = finding(
        &backed("[{kind: MeshService, name: a, weigth: 1}]"),
        &LENIENT,
        &format!("{FIRST}.weigth"),
    );
    assert_eq!(hint.hint.as_deref(), Some("did you mean `weight`?"));
}

#[test]
fn weights_that_sum_to_more_than_32_bits_are_refused() {
    let two = "[{kind: MeshService, name: a, weight: 4294967295}, {kind: MeshService, name: b}]";
    assert_eq!(errors(&backed(two), &LENIENT), ["spec.to[0].rules[0].default.backendRefs"]);
    let zero = "[{kind: MeshService, name: a, weight: 0}]";
    let rule = read(&backed(zero), &LENIENT).to[0].rule.clone().expect("a rule");
    assert_eq!(rule.backends[0].weight, 0);
    assert_eq!(warnings(&backed(zero), &LENIENT), ["spec.to[0].rules[0].default.backendRefs"]);
}

#[test]
fn fields_beside_the_specification_are_errors() {
    let body = "type: MeshTCPRoute\nname: r\nmesh: default\ntargetRef: {kind: Mesh}\nspec: {}\n";
    assert_eq!(errors(body, &LENIENT), ["targetRef"]);
    let body = "apiVersion: kuma.io/v1alpha1\nkind: MeshTCPRoute\nmesh: default\nmetadata: {name: r}\nspec: {to: 1}\n";
    assert_eq!(errors(body, &LENIENT), ["mesh"]);
    let body = body.replace("mesh: default\n", "");
    assert_eq!(errors(&body, &LENIENT), ["spec.to"]);
    assert_eq!(warnings(&policy("{}"), &LENIENT), ["spec.to"]);
}

#[test]
fn a_shadow_route_is_kept_apart() {
    let body = dialling("{kind: MeshService, name: redis}")
        .replace("spec:", "labels: {kuma.io/effect: shadow}\nspec:");
    let reading = reading(&body, &LENIENT);
    assert_eq!(reading.set.shadowed_mesh_tcp_routes.len(), 1);
    assert!(reading.set.mesh_tcp_routes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_a_route(body in nearly(vec![
        policy("\n  targetRef: {kind: MeshSubset, tags: {a: b}, proxyTypes: [Sidecar]}\n  to:\n  - targetRef: {kind: MeshService, name: redis, sectionName: a}\n    rules:\n    - default:\n        backendRefs:\n        - {kind: MeshServiceSubset, name: redis, tags: {version: '1.0'}, weight: 90}\n        - {kind: MeshService, labels: {a: b}, port: 6379}"),
        backed("[{kind: MeshMultiZoneService, name: a, port: 1}, {kind: MeshExternalService, labels: {a: b}}]"),
    ])) {
        holds(&body)?;
    }
}
