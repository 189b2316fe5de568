//! MeshLoadBalancingStrategy.

use super::{
    super::{
        fields::Form::Schema as Closed,
        mesh_kinds::MeshKind,
        strategy::{
            KINDS,
            algorithm::{
                CHOICES, CHOICES_MAX, HASH_FUNCTIONS, MAX_RING_SIZE, MIN_RING_SIZE, NAMES,
                TABLE_SIZE_MAX,
            },
            hash::TYPES,
            locality::{FAILOVERS, THRESHOLD_PERCENT},
        },
    },
    envelope::new,
    names,
    routes::{dialled, policy},
    write::{Schema, boolean, decimal, list, may, must, object, of, text, type_names, whole, word},
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    vec![
        (
            "MeshLoadBalancingStrategy",
            new(
                MeshKind::MeshLoadBalancingStrategy,
                "How connections and requests to services are spread, and to which zones",
                policy(to()),
                None,
            ),
        ),
        ("hashPolicies", list(hash_policy()).about("In this order; their hashes are combined")),
    ]
}

fn to() -> Schema {
    let default = object(
        Closed,
        vec![
            may("loadBalancer", load_balancer()),
            may("hashPolicies", of("hashPolicies")),
            may("localityAwareness", locality()),
        ],
    );
    object(Closed, vec![must("targetRef", dialled(KINDS)), may("default", default)])
}

fn load_balancer() -> Schema {
    let size = || whole(1..=u64::from(MAX_RING_SIZE));
    let least = vec![
        may("choiceCount", whole(2..=u64::from(CHOICES_MAX)).or(CHOICES)),
        may("activeRequestBias", decimal(0, None)),
    ];
    let ring = vec![
        may("hashFunction", word(HASH_FUNCTIONS).or(HASH_FUNCTIONS[0])),
        may("minRingSize", size().or(MIN_RING_SIZE)),
        may("maxRingSize", size().or(MAX_RING_SIZE)),
        may(
            "hashPolicies",
            of("hashPolicies").about("Until Kuma 2.14; newer ones have them beside"),
        ),
    ];
    let maglev = vec![
        may("tableSize", whole(1..=u64::from(TABLE_SIZE_MAX)).about("A prime number")),
        may(
            "hashPolicies",
            of("hashPolicies").about("Until Kuma 2.14; newer ones have them beside"),
        ),
    ];
    object(
        Closed,
        vec![
            must("type", word(NAMES.iter().copied())),
            may("roundRobin", object(Closed, Vec::new())),
            may("leastRequest", object(Closed, least)),
            may("ringHash", object(Closed, ring)),
            may("random", object(Closed, Vec::new())),
            may("maglev", object(Closed, maglev)),
        ],
    )
}

fn hash_policy() -> Schema {
    let cookie = vec![
        must("name", names::header_name(false)),
        may("ttl", text().about("Requests without the cookie get one for so long, e.g. 1h30m")),
        may("path", text().like("^/")),
    ];
    let named = |name: Schema| object(Closed, vec![must("name", name)]);
    object(
        Closed,
        vec![
            must("type", word(type_names(TYPES))),
            may("terminal", boolean().or(false).about("With a hash, those after it do not count")),
            may("header", named(names::header_name(false))),
            may("cookie", object(Closed, cookie)),
            may("connection", object(Closed, vec![may("sourceIP", boolean())])),
            may("queryParameter", named(text().not_empty())),
            may("filterState", object(Closed, vec![must("key", text().not_empty())])),
        ],
    )
    .body_of_type(TYPES)
}

fn locality() -> Schema {
    let zones = || list(text().not_empty());
    let tag = vec![
        must("key", text().not_empty()),
        may("weight", whole(1..=u64::from(u32::MAX)).about("All tags have one, or none has")),
    ];
    let to =
        object(Closed, vec![must("type", word(FAILOVERS.iter().copied())), may("zones", zones())])
            .when("type", "Only", &["zones"])
            .when("type", "AnyExcept", &["zones"]);
    let failover = vec![
        may("from", object(Closed, vec![must("zones", zones().items(1..=usize::MAX))])),
        must("to", to),
    ];
    let percentage = decimal(0, Some(100)).about("Above 0").or(THRESHOLD_PERCENT);
    let cross = vec![
        may("failover", list(object(Closed, failover)).about("In order of preference")),
        may("failoverThreshold", object(Closed, vec![must("percentage", percentage)])),
    ];
    let local = vec![may("affinityTags", list(object(Closed, tag)))];
    object(
        Closed,
        vec![
            may("disabled", boolean().or(false)),
            may("localZone", object(Closed, local)),
            may("crossZone", object(Closed, cross)),
        ],
    )
}
