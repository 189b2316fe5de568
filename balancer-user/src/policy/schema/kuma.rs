//! Kuma's older kinds: Mesh, Dataplane, TrafficRoute, ExternalService.

use serde_json::json;

use super::{
    super::{
        dataplane::{self, aside, inbound, outbound},
        fields::Form::Proto,
        kinds::Kind,
        mesh,
        mesh_kinds::MeshKind,
        traffic_route::load_balancer::{
            CHOICES, CHOICES_MAX, HASH_FUNCTIONS, MAX_RING_SIZE, MIN_RING_SIZE,
        },
    },
    envelope::old,
    names,
    write::{
        Member, Schema, any, boolean, list, long, map, may, must, object, of, port, text, whole,
        word,
    },
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    vec![
        ("Mesh", old(Kind::Mesh, "A name space of services, Dataplanes and policies", mesh())),
        ("Dataplane", old(Kind::Dataplane, "One workload: what it offers and dials", dataplane())),
        ("Dataplane.networking", networking()),
        (
            "TrafficRoute",
            old(Kind::TrafficRoute, "Where connections of some sources to a service go", route()),
        ),
        ("TrafficRoute.conf", conf()),
        ("TrafficRoute.split", split()),
        ("TrafficRoute.http", list(http_entry())),
        ("TrafficRoute.loadBalancer", load_balancer()),
        (
            "ExternalService",
            old(
                Kind::Kuma(MeshKind::ExternalService),
                "A service outside the mesh; until Kuma 2.14",
                external_service(),
            ),
        ),
    ]
}

fn mesh() -> Vec<Member> {
    let routing = vec![
        may(
            "localityAwareLoadBalancing",
            boolean()
                .or(false)
                .about("Endpoints of other zones are used only where one's own has none"),
        ),
        may("zoneEgress", boolean().about("Not carried out")),
        may("defaultForbidMeshExternalServiceAccess", boolean().about("Not carried out")),
    ];
    let modes = word(mesh::MODES.iter().copied()).or("Disabled");
    let mut members = vec![
        may("routing", object(Proto, routing)),
        may("meshServices", object(Proto, vec![may("mode", modes.about("Not carried out"))])),
    ];
    for name in ["mtls", "networking"] {
        members.push(may(name, any().about("Not carried out")));
    }
    members.extend(mesh::WITHOUT_EFFECT.iter().map(|name| may(name, any())));
    members
}

fn dataplane() -> Vec<Member> {
    let endpoint =
        vec![must("inboundPort", port()), must("inboundPath", text()), must("path", text())];
    let probes =
        object(Proto, vec![must("port", port()), may("endpoints", list(object(Proto, endpoint)))]);
    let metrics =
        vec![must("type", names::only("prometheus")), may("name", any()), may("conf", any())];
    vec![
        must("networking", of("Dataplane.networking")),
        may("probes", probes),
        may("metrics", object(Proto, metrics)),
    ]
}

fn host() -> Schema {
    text().not_empty().about("An IP address or a DNS name")
}

fn address() -> Schema {
    text().about("An IP address")
}

fn networking() -> Schema {
    let gateway = vec![
        may("type", word(dataplane::GATEWAY_TYPES.iter().copied()).or("DELEGATED")),
        must("tags", with_service(names::tags())),
    ];
    let admin = object(Proto, vec![may("port", whole(0..=u64::from(u32::MAX)))]);
    let mut listener = vec![
        may("type", word(aside::LISTENER_TYPES.iter().copied())),
        must("address", host()),
        must("port", port()),
        may("name", text()),
    ];
    listener.extend(["tags", "state", "protocol"].map(|name| may(name, any())));
    let members = vec![
        must("address", host()),
        may("advertisedAddress", host().about("What others dial instead of `address`")),
        may("gateway", object(Proto, gateway).about("It is a gateway, not a workload")),
        may("inbound", list(inbound()).about("What it offers")),
        may("outbound", list(outbound()).about("What it dials")),
        may("listeners", list(object(Proto, listener)).about("Of zone proxies; Kuma 3")),
        may("admin", admin),
        may("transparentProxying", any().about("Without effect")),
    ];
    object(Proto, members)
}

fn with_service(tags: Schema) -> Schema {
    tags.with("required", vec![super::super::SERVICE_TAG])
}

fn inbound() -> Schema {
    let probe_of = |name| may(name, whole(1..=u64::from(u32::MAX)));
    let probe = vec![
        may("interval", text()),
        may("timeout", text()),
        probe_of("unhealthyThreshold"),
        probe_of("healthyThreshold"),
        may("tcp", any()),
    ];
    let health = object(Proto, vec![may("ready", boolean().or(false))]);
    object(
        Proto,
        vec![
            must("port", port().about("The port that others dial")),
            may("address", address()),
            may("serviceAddress", address().about("Where the workload itself listens")),
            may(
                "servicePort",
                whole(0..=u64::from(u16::MAX)).about("Where the workload itself listens"),
            ),
            may("tags", names::tags().about("`kuma.io/service` names the service that it is of")),
            may("state", word(inbound::STATES.iter().copied()).or("Ready")),
            may("health", health.about("Absent: healthy; `{}`: not")),
            may("serviceProbe", object(Proto, probe)),
            may("name", text().about("What a MeshService's `targetPort` may give")),
        ],
    )
}

fn outbound() -> Schema {
    let kinds = outbound::REFERRED.iter().map(|(kind, _)| *kind);
    let reference = object(
        Proto,
        vec![
            must("kind", word(kinds)),
            may("name", text()),
            may("namespace", text()),
            may("labels", names::labels()),
            may("port", any().about("A port of the object; a MeshExternalService needs none")),
        ],
    )
    .at_least_one(&["name", "labels"])
    .and(json!({
        "if": {"properties": {"kind": {"const": "MeshExternalService"}}},
        "else": {"required": ["port"], "properties": {"port": port().value()}},
    }));
    object(
        Proto,
        vec![
            must("port", port()),
            may("address", address().or("127.0.0.1")),
            may("tags", names::tags().about("`kuma.io/service` names what is dialled")),
            may("service", text().about("The same in Kuma 0.5")),
            may("backendRef", reference.about("An object that stands for a service")),
        ],
    )
    .at_least_one(&["tags", "service", "backendRef"])
}

fn route() -> Vec<Member> {
    let selector =
        |tags: Schema| list(object(Proto, vec![must("match", tags)])).items(1..=usize::MAX);
    vec![
        must("sources", selector(destination()).about("Whose connections; any of these")),
        must(
            "destinations",
            selector(destination().with("maxProperties", 1))
                .about("To which service; any of these"),
        ),
        must("conf", of("TrafficRoute.conf")),
    ]
}

/// Tags, `kuma.io/service` among them; `service` in Kuma 0.5.
fn destination() -> Schema {
    names::selected().at_least_one(&[super::super::SERVICE_TAG, "service"])
}

fn conf() -> Schema {
    let today = object(
        Proto,
        vec![
            may("split", of("TrafficRoute.split")),
            may("destination", destination().about("All of it goes here")),
            may(
                "http",
                of("TrafficRoute.http").about("The first entry that matches a request counts"),
            ),
            may("loadBalancer", of("TrafficRoute.loadBalancer")),
        ],
    )
    .not_both("split", "destination")
    .at_least_one(&["split", "destination", "http"]);
    let old =
        list(object(Proto, vec![may("weight", weight()), must("destination", destination())]))
            .items(1..=usize::MAX)
            .about("Kuma 0.5: the split");
    any().with("if", json!({"type": "array"})).with("then", old.value()).with("else", today.value())
}

fn weight() -> Schema {
    whole(0..=u64::from(u32::MAX)).about("Relative to the others; 0 takes nothing")
}

fn split() -> Schema {
    let entry = vec![may("weight", weight()), must("destination", destination())];
    list(object(Proto, entry))
        .items(1..=usize::MAX)
        .and(json!({"if": {"minItems": 2}, "then": {"items": {"required": ["weight"]}}}))
        .about("Weighted destinations")
}

fn load_balancer() -> Schema {
    let least = vec![may(
        "choiceCount",
        whole(0..=u64::from(CHOICES_MAX)).with("not", json!({"const": 1})).or(CHOICES),
    )];
    let ring = vec![
        may("hashFunction", word(HASH_FUNCTIONS)),
        may("minRingSize", long(MAX_RING_SIZE).or(MIN_RING_SIZE)),
        may("maxRingSize", long(MAX_RING_SIZE).or(MAX_RING_SIZE)),
    ];
    object(
        Proto,
        vec![
            may("roundRobin", object(Proto, Vec::new())),
            may("leastRequest", object(Proto, least)),
            may("ringHash", object(Proto, ring)),
            may("random", object(Proto, Vec::new())),
            may("maglev", object(Proto, Vec::new())),
        ],
    )
    .with("maxProperties", 1)
}

fn http_entry() -> Schema {
    let matches = object(
        Proto,
        vec![
            may("method", matcher()),
            may("path", matcher().about("Without the query")),
            may("headers", map(matcher()).keys(text().not_empty()).some()),
        ],
    )
    .at_least_one(&["method", "path", "headers"]);
    object(
        Proto,
        vec![
            may("match", matches.about("All parts must hold")),
            may("modify", modify()),
            may("split", of("TrafficRoute.split")),
            may("destination", destination().about("All of it goes here")),
        ],
    )
    .exactly_one(&["split", "destination"])
}

fn matcher() -> Schema {
    object(
        Proto,
        vec![
            may("prefix", text().not_empty()),
            may("exact", text()),
            may("regex", text().not_empty().about("RE2; the whole value must match")),
        ],
    )
    .exactly_one(&["prefix", "exact", "regex"])
}

fn modify() -> Schema {
    let substitution = || {
        object(
            Proto,
            vec![
                must("pattern", text().not_empty().about("RE2; every match anywhere is replaced")),
                must("substitution", text().not_empty().about(r"`\1` is the first group")),
            ],
        )
    };
    let path =
        object(Proto, vec![may("rewritePrefix", text().not_empty()), may("regex", substitution())])
            .exactly_one(&["rewritePrefix", "regex"]);
    let host =
        object(Proto, vec![may("value", text().not_empty()), may("fromPath", substitution())])
            .exactly_one(&["value", "fromPath"]);
    let name = || must("name", text().like("^(?!:)(?!(host|Host)$)").not_empty());
    let headers = || {
        let add = vec![
            name(),
            must("value", text().not_empty()),
            may("append", boolean().or(false).about("Keep the values that are there")),
        ];
        object(
            Proto,
            vec![
                may("add", list(object(Proto, add))),
                may("remove", list(object(Proto, vec![name()]))),
            ],
        )
    };
    object(
        Proto,
        vec![
            may("path", path),
            may("host", host),
            may("requestHeaders", headers()),
            may("responseHeaders", headers()),
        ],
    )
}

fn external_service() -> Vec<Member> {
    let mut tls = vec![may("enabled", boolean().or(false)), may("serverName", text().not_empty())];
    tls.extend(
        super::super::external_service::TLS_WITHOUT_EFFECT.iter().map(|name| may(name, any())),
    );
    let networking = object(
        Proto,
        vec![
            must("address", text().like(":[0-9]+$").about("HOST:PORT")),
            may("tls", object(Proto, tls)),
        ],
    );
    vec![must("tags", with_service(names::tags())), must("networking", networking)]
}
