//! Matches and filters of the kinds that route requests.

use serde_json::json;

use super::{
    super::{
        fields::Form::Schema as Closed,
        gateway::{
            http_filter::{
                FILTERS_MAX, GRPC_TYPES, HEADERS_MAX as CORS_HEADERS_MAX, HTTP_TYPES,
                MAX_AGE_SECONDS, METHODS_MAX, ORIGINS_MAX,
            },
            http_match::{HEADERS_MAX, PARAMETER_BYTES_MAX, PARAMETERS_MAX, PATH_BYTES_MAX},
        },
        http_route::{
            Method,
            filters::{
                HEADERS_MAX as CHANGES_MAX, PATH_BYTES_MAX as NEW_PATH_MAX, PATH_MODIFIERS,
                SCHEMES, STATUS,
            },
            matches::{PATH_TYPES, TEXT_TYPES},
        },
        mesh_route::{http_filter::TYPES as MESH_TYPES, http_match::HEADER_TYPES},
    },
    names,
    write::{
        Member, Schema, any, boolean, decimal, list, may, must, object, of, port, text, type_names,
        whole, word,
    },
};

pub(super) fn definitions() -> Vec<(&'static str, Schema)> {
    let gateway = |types| list(filter(types, false)).items(0..=FILTERS_MAX);
    vec![
        ("MeshHTTPRoute.matches", list(mesh_match()).items(1..=usize::MAX).about("Any of these")),
        ("MeshHTTPRoute.filters", list(filter(MESH_TYPES, true)).about("Done in this order")),
        ("HTTPRoute.match", gateway_match()),
        ("HTTPRoute.filters", gateway(HTTP_TYPES).about("Done in this order")),
        ("GRPCRoute.filters", gateway(GRPC_TYPES).about("Done in this order")),
        ("MeshHTTPRoute.headers", header_modifier(true)),
        ("HTTPRoute.headers", header_modifier(false)),
        ("HTTPRoute.mirror", mirror()),
        ("path", path_modifier()),
    ]
}

fn methods() -> Schema {
    word(Method::NAMES.iter().copied())
}

fn mesh_match() -> Schema {
    let path = object(
        Closed,
        vec![must("type", word(PATH_TYPES.iter().copied())), must("value", text().not_empty())],
    );
    let header = object(
        Closed,
        vec![
            may("type", word(HEADER_TYPES.iter().copied()).or("Exact")),
            must("name", names::header_name(true)),
            may("value", text()),
        ],
    );
    let parameter = object(
        Closed,
        vec![
            must("type", word(TEXT_TYPES.iter().copied())),
            must("name", text().not_empty()),
            must("value", text()),
        ],
    );
    object(
        Closed,
        vec![
            may("path", path.about("A PathPrefix is of whole elements")),
            may("method", methods()),
            may("headers", list(header)),
            may("queryParams", list(parameter)),
        ],
    )
    .about("All parts must hold")
}

fn gateway_match() -> Schema {
    let path = object(
        Closed,
        vec![
            may("type", word(PATH_TYPES.iter().copied()).or("PathPrefix")),
            may("value", text().characters(0..=PATH_BYTES_MAX).or("/")),
        ],
    );
    let parameter = object(
        Closed,
        vec![
            may("type", word(TEXT_TYPES.iter().copied()).or("Exact")),
            must("name", names::header_name(false)),
            must("value", text().characters(1..=PARAMETER_BYTES_MAX)),
        ],
    );
    object(
        Closed,
        vec![
            may("path", path.about("A PathPrefix is of whole elements")),
            may("method", methods()),
            may("headers", headers()),
            may("queryParams", list(parameter).items(0..=PARAMETERS_MAX)),
        ],
    )
    .about("All parts must hold")
}

/// `headers` of a match of the Gateway API.
pub(super) fn headers() -> Schema {
    let header = object(
        Closed,
        vec![
            may("type", word(TEXT_TYPES.iter().copied()).or("Exact")),
            must("name", names::header_name(false)),
            must("value", names::header_value().not_empty()),
        ],
    );
    list(header).items(0..=HEADERS_MAX)
}

/// A filter of one of these types.
fn filter(types: &[(&'static str, &'static str)], mesh: bool) -> Schema {
    let mut members = vec![must("type", word(type_names(types)))];
    members.extend(types.iter().map(|(_, field)| may(field, body(field, mesh))));
    object(Closed, members).body_of_type(types)
}

fn body(field: &str, mesh: bool) -> Schema {
    match field {
        "requestHeaderModifier" | "responseHeaderModifier" if mesh => of("MeshHTTPRoute.headers"),
        "requestHeaderModifier" | "responseHeaderModifier" => of("HTTPRoute.headers"),
        "requestRedirect" => object(
            Closed,
            vec![
                may("scheme", word(SCHEMES.iter().copied())),
                may("hostname", names::subdomain()),
                may("path", of("path")),
                may("port", port()),
                may("statusCode", any().with("enum", STATUS.to_vec()).or(302)),
            ],
        ),
        "urlRewrite" => {
            let mut members = vec![may("hostname", names::subdomain()), may("path", of("path"))];
            if mesh {
                let about = "Only below a MeshGateway, and without `hostname`";
                members.push(may("hostToBackendHostname", boolean().about(about)));
            }
            object(Closed, members)
        }
        "requestMirror" if mesh => object(
            Closed,
            vec![
                may("percentage", decimal(0, Some(100)).or(100)),
                must("backendRef", of("backendRef")),
            ],
        ),
        "requestMirror" => of("HTTPRoute.mirror"),
        "cors" => cors(),
        "extensionRef" => object(
            Closed,
            vec![
                must("group", names::group()),
                must("kind", names::kind()),
                must("name", names::subdomain()),
            ],
        ),
        _ => any().with("type", "object").about("Not carried out"),
    }
}

fn header_modifier(mesh: bool) -> Schema {
    let changes = || {
        let header = object(
            Closed,
            vec![must("name", names::header_name(mesh)), must("value", names::header_value())],
        );
        list(header).items(0..=CHANGES_MAX)
    };
    let removed = list(names::header_name(false)).items(0..=CHANGES_MAX);
    let schema = object(
        Closed,
        vec![
            may("set", changes().about("These values in place of all there are")),
            may("add", changes().about("These values too")),
            may("remove", removed),
        ],
    );
    if mesh { schema.at_least_one(&["set", "add", "remove"]) } else { schema }
}

fn mirror() -> Schema {
    let fraction = object(
        Closed,
        vec![
            must("numerator", whole(0..=u64::from(u32::MAX))),
            may("denominator", whole(1..=u64::from(u32::MAX)).or(100)),
        ],
    );
    object(
        Closed,
        vec![
            must("backendRef", with_port(object(Closed, object_ref()))),
            may("percent", whole(0..=100).or(100)),
            may("fraction", fraction),
        ],
    )
    .not_both("percent", "fraction")
}

/// A reference of the Gateway API to where traffic goes.
pub(super) fn object_ref() -> Vec<Member> {
    vec![
        may("group", names::group().or("")),
        may("kind", names::kind().or("Service")),
        may("namespace", names::label()),
        must("name", names::subdomain()),
        may("port", port().about("The port of the Service, not of its endpoints")),
    ]
}

/// The same where a Service, which is what an absent kind means, needs a port.
pub(super) fn with_port(reference: Schema) -> Schema {
    reference.and(json!({
        "if": {"properties": {"group": {"const": ""}, "kind": {"const": "Service"}}},
        "then": {"required": ["port"]},
    }))
}

fn cors() -> Schema {
    let name = || list(names::header_name(false)).items(0..=CORS_HEADERS_MAX);
    let methods = Method::NAMES.iter().copied().chain(["*"]);
    let origin = text().like(r"^(\*|[A-Za-z][A-Za-z0-9+\-.]*://.+)$");
    object(
        Closed,
        vec![
            may("allowOrigins", list(origin).items(0..=ORIGINS_MAX)),
            may("allowMethods", list(word(methods)).items(0..=METHODS_MAX)),
            may("allowHeaders", name()),
            may("exposeHeaders", name()),
            may("allowCredentials", boolean().or(false)),
            may("maxAge", whole(1..=u64::from(u32::MAX)).or(MAX_AGE_SECONDS).about("Seconds")),
        ],
    )
}

fn path_modifier() -> Schema {
    let path = || text().characters(0..=NEW_PATH_MAX);
    let [full, prefix] = [PATH_MODIFIERS[0], PATH_MODIFIERS[1]];
    object(
        Closed,
        vec![
            must("type", word([full, prefix])),
            may("replaceFullPath", path()),
            may("replacePrefixMatch", path()),
        ],
    )
    .body_of_type(&[(full, "replaceFullPath"), (prefix, "replacePrefixMatch")])
    .not_both("replaceFullPath", "replacePrefixMatch")
}
