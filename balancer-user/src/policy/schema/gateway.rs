//! Kinds of the Gateway API.

use super::{
    super::{
        fields::Form::Schema as Closed,
        gateway::{
            GROUP,
            grant::ENTRIES_MAX,
            grpc::NAME_BYTES_MAX,
            listeners::{
                ADDRESSES_MAX, KINDS_MAX, LISTENERS_MAX, NAMESPACES_FROM, PROTOCOLS, TLS_MODES,
            },
            route::{BACKENDS_MAX, PARENTS_MAX, WEIGHT_MAX},
            rule::{
                BACKENDS_MAX as RULE_BACKENDS_MAX, HOSTNAMES_MAX, LIFETIMES, MATCHES_MAX, RETRIED,
                RULES_MAX, SESSION_NAME_MAX, SESSION_TYPES,
            },
        },
        http_route::matches::TEXT_TYPES,
        object::ObjectKind,
    },
    envelope::{label_selector, of_object},
    http::{headers, object_ref, with_port},
    names,
    write::{Member, Schema, any, list, may, must, object, of, port, text, whole, word},
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    let kind = |kind: ObjectKind, about, members| {
        (kind.name(), of_object(kind, about, vec![must("spec", object(Closed, members))]))
    };
    vec![
        kind(ObjectKind::GatewayClass, "Which controller carries out Gateways of a class", class()),
        kind(ObjectKind::Gateway, "Addresses and ports that routes attach to", gateway()),
        kind(
            ObjectKind::TcpRoute,
            "Where connections of listeners or to a Service go",
            tcp_route(),
        ),
        kind(
            ObjectKind::HttpRoute,
            "Where requests of listeners or to a Service go",
            requests(http_rule()),
        ),
        kind(
            ObjectKind::GrpcRoute,
            "Where calls of listeners or to a Service go",
            requests(grpc_rule()),
        ),
        kind(
            ObjectKind::ReferenceGrant,
            "Who may name objects of its namespace from another one",
            grant(),
        ),
        ("parentRefs", parents()),
        ("sessionPersistence", session()),
    ]
}

fn class() -> Vec<Member> {
    vec![
        must("controllerName", text().like(names::DOMAIN_PREFIXED)),
        may("parametersRef", any().about("Not carried out")),
        may("description", any()),
    ]
}

fn gateway() -> Vec<Member> {
    let address = vec![may("type", text().or("IPAddress")), may("value", text())];
    let addresses = list(object(Closed, address)).items(0..=ADDRESSES_MAX);
    let mut members = vec![
        must("gatewayClassName", names::subdomain()),
        may("addresses", addresses.about("Its VIPs")),
        must("listeners", list(listener()).items(1..=LISTENERS_MAX)),
        may("infrastructure", any()),
    ];
    for name in ["allowedListeners", "tls", "backendTLS", "defaultScope"] {
        members.push(may(name, any().about("Not carried out")));
    }
    members
}

fn listener() -> Schema {
    let protocol =
        vec![word(PROTOCOLS.iter().copied()).value(), text().like(names::DOMAIN_PREFIXED).value()];
    let tls = object(
        Closed,
        vec![
            may("mode", word(TLS_MODES.iter().copied()).or(TLS_MODES[0])),
            may("certificateRefs", any()),
            may("options", any()),
            may("frontendValidation", any()),
        ],
    );
    let from = word(NAMESPACES_FROM.iter().copied()).or(NAMESPACES_FROM[0]);
    let namespaces = object(Closed, vec![may("from", from), may("selector", label_selector())])
        .when("from", "Selector", &["selector"]);
    let kind =
        object(Closed, vec![may("group", names::group().or(GROUP)), must("kind", names::kind())]);
    let allowed = vec![
        may("namespaces", namespaces.about("From which namespaces routes may attach")),
        may("kinds", list(kind).items(0..=KINDS_MAX)),
    ];
    object(
        Closed,
        vec![
            must("name", names::subdomain()),
            must("port", port()),
            must("protocol", any().with("anyOf", protocol)),
            may(
                "hostname",
                any().with("anyOf", vec![names::hostname().value(), names::only("").value()]),
            ),
            may("tls", tls),
            may("allowedRoutes", object(Closed, allowed)),
        ],
    )
}

fn parents() -> Schema {
    let parent = object(
        Closed,
        vec![
            may("group", names::group().or(GROUP)),
            may("kind", names::kind().or("Gateway")),
            may("namespace", names::label()),
            must("name", names::subdomain()),
            may("sectionName", names::subdomain().about("A listener, or a Service's port")),
            may("port", port()),
        ],
    );
    list(parent).items(0..=PARENTS_MAX).about("What it attaches to")
}

fn attached() -> Vec<Member> {
    vec![
        may("parentRefs", of("parentRefs")),
        may("useDefaultGateways", any().about("Not carried out")),
    ]
}

fn weighted() -> Vec<Member> {
    let weight = whole(0..=u64::from(WEIGHT_MAX)).or(1);
    let mut members = vec![may("weight", weight.about("Relative to the others; 0 takes nothing"))];
    members.extend(object_ref());
    members
}

fn tcp_route() -> Vec<Member> {
    let backends = list(with_port(object(Closed, weighted()))).items(1..=BACKENDS_MAX);
    let rule = vec![may("name", names::subdomain()), must("backendRefs", backends)];
    let mut members = attached();
    members.push(must("rules", list(object(Closed, rule)).items(1..=1)));
    members
}

fn requests(rule: Schema) -> Vec<Member> {
    let mut members = attached();
    members.extend([
        may("hostnames", list(names::hostname()).items(0..=HOSTNAMES_MAX)),
        may("rules", list(rule).items(0..=RULES_MAX)),
    ]);
    members
}

/// `backendRefs` of a rule, with the filters of this name.
fn backends(filters: &str) -> Schema {
    let mut backend = weighted();
    backend.push(may("filters", of(filters)));
    list(with_port(object(Closed, backend))).items(0..=RULE_BACKENDS_MAX)
}

fn session() -> Schema {
    let cookie = vec![may("lifetimeType", word(LIFETIMES.iter().copied()).or("Session"))];
    object(
        Closed,
        vec![
            may("sessionName", text().like(names::TOKEN).characters(1..=SESSION_NAME_MAX)),
            may("absoluteTimeout", names::duration()),
            may("idleTimeout", names::duration()),
            may("type", word(SESSION_TYPES.iter().copied()).or(SESSION_TYPES[0])),
            may("cookieConfig", object(Closed, cookie)),
        ],
    )
    .about("Not carried out")
}

fn http_rule() -> Schema {
    let timeouts =
        vec![may("request", names::duration()), may("backendRequest", names::duration())];
    let retry = vec![
        may("codes", list(whole(u64::from(RETRIED.start)..=u64::from(RETRIED.end) - 1))),
        may("attempts", whole(0..=u64::from(u32::MAX))),
        may("backoff", names::duration()),
    ];
    object(
        Closed,
        vec![
            may("name", names::subdomain()),
            may(
                "matches",
                list(of("HTTPRoute.match")).items(0..=MATCHES_MAX).about("Any of these"),
            ),
            may("filters", of("HTTPRoute.filters")),
            may("backendRefs", backends("HTTPRoute.filters")),
            may("timeouts", object(Closed, timeouts)),
            may("retry", object(Closed, retry).about("Not carried out")),
            may("sessionPersistence", of("sessionPersistence")),
        ],
    )
}

fn grpc_rule() -> Schema {
    let name = || text().characters(0..=NAME_BYTES_MAX);
    let method = object(
        Closed,
        vec![
            may("type", word(TEXT_TYPES.iter().copied()).or(TEXT_TYPES[0])),
            may("service", name().about("With its package, e.g. shop.Catalog")),
            may("method", name()),
        ],
    )
    .at_least_one(&["service", "method"]);
    let matched = object(Closed, vec![may("method", method), may("headers", headers())]);
    object(
        Closed,
        vec![
            may("name", names::subdomain()),
            may("matches", list(matched).items(0..=MATCHES_MAX).about("Any of these")),
            may("filters", of("GRPCRoute.filters")),
            may("backendRefs", backends("GRPCRoute.filters")),
            may("sessionPersistence", of("sessionPersistence")),
        ],
    )
}

fn grant() -> Vec<Member> {
    let entries = |last: Member| {
        let entry = vec![must("group", names::group()), must("kind", names::kind()), last];
        list(object(Closed, entry)).items(1..=ENTRIES_MAX)
    };
    let name = any().with("anyOf", vec![names::subdomain().value(), names::only("").value()]);
    vec![
        must("from", entries(must("namespace", names::label())).about("Any of these may")),
        must("to", entries(may("name", name)).about("Any of these may be named")),
    ]
}
