//! Objects that stand for services: MeshService, MeshExternalService, MeshMultiZoneService.

use super::{
    super::{
        fields::Form::Schema as Closed,
        mesh_kinds::MeshKind,
        mesh_service::{
            STATES,
            external::{MATCH_TYPES, NAME_TYPES, PRIORITY_MAX, PROTOCOLS, VERIFICATIONS, VERSIONS},
        },
        tags,
    },
    envelope::{new, service_status},
    names,
    write::{Member, Schema, any, boolean, list, may, must, object, of, port, text, whole, word},
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    vec![
        (
            "MeshService",
            new(
                MeshKind::MeshService,
                "A service of one zone: ports, and the Dataplanes behind them",
                mesh_service(),
                Some(of("status")),
            ),
        ),
        (
            "MeshExternalService",
            new(
                MeshKind::MeshExternalService,
                "A service outside the mesh",
                external_service(),
                Some(of("status")),
            ),
        ),
        (
            "MeshMultiZoneService",
            new(
                MeshKind::MeshMultiZoneService,
                "One service made of MeshServices in several zones",
                multi_zone(),
                Some(of("status")),
            ),
        ),
        ("status", service_status()),
    ]
}

fn mesh_service() -> Vec<Member> {
    let by_labels = object(Closed, vec![may("matchLabels", names::labels())]);
    let selector = vec![
        may("dataplaneTags", names::tags().about("One inbound has all these")),
        may("dataplaneLabels", by_labels.about("The Dataplane has all these labels")),
        may("dataplaneRef", object(Closed, vec![must("name", text())])),
    ];
    let target = any().with("anyOf", vec![port().value(), text().not_empty().value()]);
    let ports = vec![
        must("port", port().about("What clients dial")),
        may("name", text().about("A sectionName means it; absent: the decimal port")),
        may("targetPort", target.about("`port` or `name` of the inbounds; absent: none")),
        may("appProtocol", text().with("examples", tags::PROTOCOLS.to_vec()).or("tcp")),
    ];
    vec![
        may("selector", object(Closed, selector).about("Which Dataplanes are behind it")),
        may("ports", list(object(Closed, ports))),
        may("state", word(STATES.iter().copied())),
        may("identities", any()),
    ]
}

fn multi_zone() -> Vec<Member> {
    let services = vec![must("matchLabels", names::labels().some())];
    let selector = vec![must("meshService", object(Closed, services))];
    let ports = vec![
        must("port", port().about("What clients dial")),
        may("name", text().not_empty()),
        may("appProtocol", names::word_in_any_case(tags::PROTOCOLS).or("tcp")),
    ];
    vec![
        must("selector", object(Closed, selector).about("MeshServices that have all these labels")),
        must("ports", list(object(Closed, ports)).items(1..=usize::MAX)),
    ]
}

fn external_service() -> Vec<Member> {
    let matched = vec![
        may("type", word(MATCH_TYPES.iter().copied())),
        must("port", port().about("What clients dial")),
        may("protocol", word(PROTOCOLS.iter().copied()).or("tcp")),
    ];
    let extension = vec![must("type", text().not_empty()), may("config", any())];
    let endpoint = vec![
        must("address", text().not_empty().about("An IP address or a DNS name")),
        must("port", port()),
        may("priority", whole(0..=u64::from(PRIORITY_MAX)).or(0).about("Greater ones take over")),
    ];
    vec![
        must("match", object(Closed, matched)),
        may("endpoints", list(object(Closed, endpoint))),
        may("tls", tls()),
        may("extension", object(Closed, extension).about("Not carried out")),
    ]
}

fn tls() -> Schema {
    let version = || word(VERSIONS.iter().copied()).or(VERSIONS[0]);
    let name = object(
        Closed,
        vec![may("type", word(NAME_TYPES.iter().copied()).or("Exact")), must("value", text())],
    );
    let verification = object(
        Closed,
        vec![
            may("mode", word(VERIFICATIONS.iter().copied())),
            may("serverName", text()),
            may("subjectAltNames", list(name)),
            may("clientCert", any()),
            may("clientKey", any()),
            may("caCert", any()),
        ],
    )
    .with(
        "dependentRequired",
        serde_json::json!({"clientCert": ["clientKey"], "clientKey": ["clientCert"]}),
    );
    object(
        Closed,
        vec![
            may("enabled", boolean().or(false).about("Endpoints expect TLS")),
            may("allowRenegotiation", boolean()),
            may("version", object(Closed, vec![may("min", version()), may("max", version())])),
            may("verification", verification),
        ],
    )
}
