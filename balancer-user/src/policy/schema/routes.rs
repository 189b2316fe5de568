//! MeshTCPRoute and MeshHTTPRoute, and references as all policies of Kuma's newer kinds write them.

use serde_json::json;

use super::{
    super::{
        fields::Form::Schema as Closed,
        mesh_kinds::MeshKind,
        mesh_route::{
            SERVICES,
            backend::KINDS,
            target::{ALL_KINDS, PROXY_TYPES},
        },
    },
    envelope::new,
    names,
    write::{Member, Schema, any, list, may, must, never, object, of, port, text, whole, word},
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    vec![
        ("targetRef", reference(ALL_KINDS, Vec::new()).about("Whose traffic it concerns")),
        ("backendRef", backend()),
        (
            "MeshTCPRoute",
            new(
                MeshKind::MeshTcpRoute,
                "Where connections of some workloads to services go",
                policy(tcp_to()),
                None,
            ),
        ),
        (
            "MeshHTTPRoute",
            new(
                MeshKind::MeshHttpRoute,
                "Where requests of some workloads to services go, and what is done with them",
                policy(http_to()),
                None,
            ),
        ),
    ]
}

/// What all policies of this form have.
pub(super) fn policy(to: Schema) -> Vec<Member> {
    vec![
        may("targetRef", of("targetRef")),
        may("to", list(to).about("What is dialled, and what then happens")),
    ]
}

/// What is dialled, below anything but a MeshGateway one of `kinds`.
pub(super) fn dialled(kinds: &[&'static str]) -> Schema {
    let mut all = vec!["Mesh"];
    all.extend(kinds.iter().filter(|kind| **kind != "Mesh"));
    reference(&all, Vec::new()).about("What is dialled; Mesh only below a MeshGateway")
}

/// A reference of one of these kinds. Which of its fields belong to which kind is left to reading.
fn reference(kinds: &[&'static str], more: Vec<Member>) -> Schema {
    let named = |kind: &&&str| {
        matches!(
            **kind,
            "MeshService" | "MeshExternalService" | "MeshMultiZoneService" | "MeshHTTPRoute"
        )
    };
    let mut members = vec![
        must("kind", word(kinds.iter().copied())),
        may("name", text().like(names::REFERRED)),
        may("namespace", text()),
        may("labels", names::labels().about("Instead of the name; with several the oldest")),
        may(
            "tags",
            names::tags().about("Exact values; of a MeshSubset, MeshServiceSubset, MeshGateway"),
        ),
        may("mesh", never().about("No kind has it here")),
        may(
            "sectionName",
            any().with("type", vec!["string", "integer"]).about("Name or number of a port"),
        ),
        may("proxyTypes", list(word(PROXY_TYPES.iter().copied())).items(1..=usize::MAX)),
    ];
    members.extend(more);
    let needs_name = json!({"anyOf": [{"required": ["name"]}, {"required": ["labels"]}]});
    let by_tags = ["MeshServiceSubset", "MeshGateway"];
    let by_tags = by_tags.iter().filter(|kind| kinds.contains(kind));
    let schema =
        by_tags.fold(object(Closed, members), |schema, kind| schema.when("kind", kind, &["name"]));
    kinds.iter().filter(named).fold(schema, |schema, kind| {
        schema.and(json!({
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": needs_name,
        }))
    })
}

fn backend() -> Schema {
    let more = vec![
        may("port", port().about("A port of the service, not of its endpoints")),
        may(
            "weight",
            whole(0..=u64::from(u32::MAX)).or(1).about("Relative to the others; 0 takes nothing"),
        ),
    ];
    let needs_port = &["port"];
    reference(KINDS, more).when("kind", "MeshMultiZoneService", needs_port)
}

fn tcp_to() -> Schema {
    let default = vec![may("backendRefs", list(of("backendRef")))];
    let rule = object(Closed, vec![may("default", object(Closed, default))]);
    object(
        Closed,
        vec![
            must("targetRef", dialled(SERVICES)),
            may("rules", list(rule).items(0..=1).about("None: connections go to what is dialled")),
        ],
    )
}

fn http_to() -> Schema {
    let default = object(
        Closed,
        vec![
            may("filters", of("MeshHTTPRoute.filters")),
            may("backendRefs", list(of("backendRef"))),
        ],
    );
    let rule = object(
        Closed,
        vec![
            must("matches", of("MeshHTTPRoute.matches")),
            must("default", default.about("What is done with the requests")),
        ],
    );
    let host = any().with("anyOf", vec![names::only("*").value(), names::hostname().value()]);
    object(
        Closed,
        vec![
            must("targetRef", dialled(SERVICES)),
            may("hostnames", list(host).about("Only below a MeshGateway")),
            may("rules", list(rule)),
        ],
    )
}
