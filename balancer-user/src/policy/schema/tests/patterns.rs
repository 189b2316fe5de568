use jsonschema::Validator;
use serde_json::{Value, json};

use super::super::{names, write::Schema};
use crate::policy::testing::{LENIENT, errors, object};

/// Texts at the edges of what names may be.
fn texts() -> Vec<String> {
    let long = |n: usize| "a".repeat(n);
    let mut texts: Vec<String> = [
        "",
        "a",
        "a-b",
        "a.b",
        "a_b",
        "a/b",
        "a:b",
        "A",
        "aB",
        "-a",
        "a-",
        ".a",
        "a.",
        "a..b",
        "1",
        "1a",
        "a--b",
        "*",
        "*.a",
        "*.",
        "a*",
        "a.*.b",
        "example.com/a",
        "example.com/",
        "/a",
        "a b",
        "ä",
        "a\tb",
        "a\n",
        "x-a",
        "a%b",
        "a~b",
        "10.0.0.1",
        "a.b.c.d",
        "Service",
        "1s",
        "1h30m",
        "1.5s",
        "100000s",
        "1s1s1s1s1s",
        "0s",
        "10ms",
    ]
    .map(str::to_owned)
    .into();
    texts.extend([15, 16, 63, 64, 253, 254, 256, 257].map(long));
    texts
}

/// Holds that a schema takes the texts that the reader takes in the field of this path.
fn holds(schema: Schema, path: &str, body: impl Fn(&str) -> String) {
    let validator: Validator = super::validator(&schema.value());
    for text in texts() {
        let quoted = Value::from(text.as_str()).to_string();
        let at_path = |field: &String| *field == path || field.starts_with(&format!("{path}["));
        let read = !errors(&body(&quoted), &LENIENT).iter().any(at_path);
        let fits = validator.is_valid(&json!(text));
        assert_eq!(fits, read, "{path}: {text:?} fits the schema: {fits}, the reader: {read}");
    }
}

fn gateway_route(kind: &str, spec: &str) -> String {
    object("gateway.networking.k8s.io/v1", kind, "metadata: {name: a}", spec)
}

#[test]
fn patterns_are_what_the_reader_checks() {
    let metadata = |kind: &str| {
        let kind = kind.to_owned();
        move |text: &str| {
            object(
                "gateway.networking.k8s.io/v1",
                &kind,
                &format!("metadata: {{name: {text}}}"),
                "{}",
            )
        }
    };
    holds(names::subdomain(), "metadata.name", metadata("TCPRoute"));
    holds(names::label(), "metadata.name", |text| {
        object("v1", "Service", &format!("metadata: {{name: {text}}}"), "{ports: [{port: 1}]}")
    });
    let parent = |field: &'static str| {
        move |text: &str| {
            gateway_route("TCPRoute", &format!("{{parentRefs: [{{{field}: {text}}}], rules: []}}"))
        }
    };
    holds(names::group(), "spec.parentRefs[0].group", parent("group"));
    holds(names::kind(), "spec.parentRefs[0].kind", parent("kind"));
    let rule = |fields: &'static str| {
        move |text: &str| {
            gateway_route("HTTPRoute", &format!("{{rules: [{}]}}", fields.replace('@', text)))
        }
    };
    holds(names::duration(), "spec.rules[0].timeouts.request", rule("{timeouts: {request: @}}"));
    holds(
        names::header_name(false),
        "spec.rules[0].matches[0].headers[0].name",
        rule("{matches: [{headers: [{name: @, value: a}]}]}"),
    );
    holds(
        super::super::write::text().like(names::DOMAIN_PREFIXED).characters(0..=253),
        "spec.controllerName",
        |text| gateway_route("GatewayClass", &format!("{{controllerName: {text}}}")),
    );
    holds(
        super::super::write::text().like(names::SERVICE_NAME).characters(1..=15),
        "spec.ports[0].targetPort",
        |text| {
            let spec = format!("{{ports: [{{port: 1, targetPort: {text}}}]}}");
            object("v1", "Service", "metadata: {name: a}", &spec)
        },
    );
}

#[test]
fn patterns_of_kuma_are_what_the_reader_checks() {
    let plain = |pattern| super::super::write::text().like(pattern);
    let route = |part: &'static str| {
        move |text: &str| {
            let spec = part.replace('@', text);
            format!("type: MeshHTTPRoute\nname: a\nmesh: default\nspec: {spec}\n")
        }
    };
    holds(plain(names::MESH), "mesh", |text| {
        format!("type: TrafficRoute\nname: a\nmesh: {text}\n")
    });
    holds(
        plain(names::REFERRED),
        "spec.to[0].targetRef.name",
        route("{to: [{targetRef: {kind: MeshService, name: @}}]}"),
    );
    holds(
        names::header_name(true),
        "spec.to[0].rules[0].matches[0].headers[0].name",
        route(
            "{to: [{targetRef: {kind: MeshService, name: a}, rules: [{matches: [{headers: [{name: @, value: a}]}], default: {}}]}]}",
        ),
    );
    holds(plain(names::TAG_VALUE), "networking.inbound[0].tags[\"a\"]", |text| {
        format!(
            "type: Dataplane\nname: a\nmesh: default\nnetworking: {{address: 10.0.0.1, inbound: [{{port: 1, tags: {{a: {text}}}}}]}}\n"
        )
    });
    holds(plain(names::SELECTED_VALUE), "sources[0].match[\"a\"]", |text| {
        format!("type: TrafficRoute\nname: a\nmesh: default\nsources: [{{match: {{a: {text}}}}}]\n")
    });
}
