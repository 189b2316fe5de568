use crate::policy::testing::{LENIENT, errors, object, reading};

fn grant(spec: &str) -> String {
    object(
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        "metadata: {name: allow, namespace: data}",
        spec,
    )
}

const FROM: &str = "{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: shop}";
const TO: &str = "{group: '', kind: Service}";

#[test]
fn a_grant_names_who_may_refer_to_what() {
    let body = grant(&format!(
        "{{from: [{FROM}], to: [{TO}, {{group: '', kind: Service, name: a}}, {{group: '', kind: Service, name: ''}}]}}"
    ));
    let mut reading = reading(&body, &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    let grant = reading.set.reference_grants.remove(0);
    let from = &grant.from[0];
    assert_eq!((from.kind.as_str(), from.namespace.as_str()), ("TCPRoute", "shop"));
    assert_eq!(from.group, crate::policy::gateway::GROUP);
    let names: Vec<_> = grant.to.iter().map(|to| to.name.as_deref()).collect();
    assert_eq!(names, [None, Some("a"), None]);
}

#[test]
fn rules_of_grants_are_held_at_their_place() {
    for (spec, fields) in [
        ("{}".to_owned(), ["spec.from", "spec.to"].as_slice()),
        (format!("{{from: [], to: [{TO}]}}"), &["spec.from"]),
        (format!("{{from: [{FROM}], to: []}}"), &["spec.to"]),
        (format!("{{from: [{{kind: A, namespace: b}}], to: [{TO}]}}"), &["spec.from[0].group"]),
        (format!("{{from: [{{group: a, namespace: b}}], to: [{TO}]}}"), &["spec.from[0].kind"]),
        (format!("{{from: [{{group: a, kind: A}}], to: [{TO}]}}"), &["spec.from[0].namespace"]),
        (format!("{{from: [{FROM}], to: [{{kind: Service}}]}}"), &["spec.to[0].group"]),
        (
            format!("{{from: [{FROM}], to: [{{group: '', kind: Service, name: A}}]}}"),
            &["spec.to[0].name"],
        ),
        (
            format!("{{from: [{FROM}], to: [{{group: '', kind: Service, namespace: a}}]}}"),
            &["spec.to[0].namespace"],
        ),
        (format!("{{from: [{}], to: [{TO}]}}", [FROM; 17].join(", ")), &["spec.from"]),
    ] {
        let body = grant(&spec);
        assert_eq!(errors(&body, &LENIENT), fields, "{spec}");
        assert!(reading(&body, &LENIENT).set.reference_grants.is_empty());
    }
}
