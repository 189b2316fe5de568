//! Kinds of Kubernetes itself.

use super::{
    super::{
        fields::Form::Core,
        kubernetes::{
            TRANSPORTS,
            service::{
                AFFINITIES, AFFINITY_SECONDS, AFFINITY_SECONDS_MAX, TRAFFIC_POLICIES, TYPES,
                WITHOUT_EFFECT,
            },
            slice::{ADDRESS_TYPES, ADDRESSES_MAX, ENDPOINTS_MAX, PORTS_MAX},
        },
        object::ObjectKind,
    },
    envelope::of_object,
    names,
    write::{Member, Schema, any, boolean, list, may, must, object, port, text, whole, word},
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    let spec = object(Core, service()).when("type", "ExternalName", &["externalName"]);
    vec![
        (
            "Service",
            of_object(
                ObjectKind::Service,
                "What clients dial in a cluster",
                vec![must("spec", spec)],
            ),
        ),
        (
            "EndpointSlice",
            of_object(ObjectKind::EndpointSlice, "Some of a Service's endpoints", slice()),
        ),
        (
            "Namespace",
            of_object(ObjectKind::Namespace, "A namespace: its labels", vec![may("spec", any())]),
        ),
    ]
}

fn transport() -> Schema {
    word(TRANSPORTS.iter().copied()).or(TRANSPORTS[0])
}

fn app_protocol() -> Schema {
    text().like(names::QUALIFIED).about("E.g. http, kubernetes.io/h2c")
}

fn service() -> Vec<Member> {
    let target = any().with(
        "anyOf",
        vec![port().value(), text().like(names::SERVICE_NAME).characters(1..=15).value()],
    );
    let ports = vec![
        may("name", any().with("anyOf", vec![names::label().value(), names::only("").value()])),
        may("protocol", transport()),
        must("port", port().about("What clients dial")),
        may("targetPort", target.about("Where the workload listens; absent: the same")),
        may("appProtocol", app_protocol()),
        may("nodePort", any()),
    ];
    let seconds = whole(1..=u64::from(AFFINITY_SECONDS_MAX)).or(AFFINITY_SECONDS);
    let client = object(Core, vec![may("timeoutSeconds", seconds)]);
    let mut members = vec![
        may("type", word(TYPES.iter().copied()).or(TYPES[0])),
        may("externalName", text()),
        may("clusterIP", text().about("An IP address, `None`, or empty where there is none yet")),
        may("clusterIPs", list(text()).items(0..=2)),
        may("ports", list(object(Core, ports))),
        may("selector", names::object_labels()),
        may("externalIPs", any().about("Not carried out")),
        may("internalTrafficPolicy", word(TRAFFIC_POLICIES.iter().copied())),
        may("trafficDistribution", any().about("Not carried out")),
        may("sessionAffinity", word(AFFINITIES.iter().copied()).or("None")),
        may("sessionAffinityConfig", object(Core, vec![may("clientIP", client)])),
    ];
    members.extend(WITHOUT_EFFECT.iter().map(|name| may(name, any())));
    members
}

/// The cluster writes null where there are none.
fn perhaps(items: Schema, most: usize) -> Schema {
    list(items).items(0..=most).with("type", vec!["array", "null"])
}

fn slice() -> Vec<Member> {
    let port_of = vec![
        may("name", any().with("anyOf", vec![names::label().value(), names::only("").value()])),
        may("protocol", transport()),
        may("port", port()),
        may("appProtocol", app_protocol()),
    ];
    let conditions = ["ready", "serving", "terminating"].map(|name| may(name, boolean()));
    let mut endpoint = vec![
        must("addresses", list(text()).items(1..=ADDRESSES_MAX)),
        may("conditions", object(Core, conditions.into())),
        may("zone", text()),
        may("nodeName", text()),
        may("hints", any().about("Not carried out")),
    ];
    endpoint.extend(["hostname", "targetRef", "deprecatedTopology"].map(|name| may(name, any())));
    vec![
        must("addressType", word(ADDRESS_TYPES.iter().copied())),
        may("ports", perhaps(object(Core, port_of), PORTS_MAX)),
        may("endpoints", perhaps(object(Core, endpoint), ENDPOINTS_MAX)),
    ]
}
