//! Documents that route requests, as `check` meets them: what is wrong is said where it stands.

use std::fs;

use crate::bad_input::{check, files};

const WORLD: &str = "type: Mesh
name: default
---
type: Dataplane
mesh: default
name: web
networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: web}}]}
---
type: Dataplane
mesh: default
name: backend
networking: {address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http}}]}
";

/// A MeshHTTPRoute with this rule, which begins in line 8, column 7.
fn mesh_http(rule: &str) -> String {
    format!(
        "type: MeshHTTPRoute\nmesh: default\nname: r\nspec:\n  to:\n  - targetRef: {{kind: MeshService, name: backend}}\n    rules:\n    - {rule}\n"
    )
}

/// An HTTPRoute with this rule, which begins in line 7, column 5. Its kind is not written as the
/// debugging output is that no message may have.
fn http(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\"kind\" : HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - {rule}\n"
    )
}

#[track_caller]
fn refused(document: &str, place: &str, parts: &[&str]) {
    let dir = files(&[("world.yaml", WORLD), ("bad.yaml", document)]);
    let place = format!("bad.yaml:{place}");
    check(dir.path(), &["-f", "."]).exits(1).prints(&["error", &place]).prints(parts);
}

#[test]
fn what_is_wrong_with_a_route_is_said_at_its_place_with_what_is_meant() {
    refused(
        &mesh_http("{matches: [{path: {type: Prefix, value: /a}}], default: {}}"),
        "8:32",
        &["spec.to[0].rules[0].matches[0].path.type", "did you mean `PathPrefix`?"],
    );
    refused(
        &mesh_http("{matches: [{method: get}], defaults: {}}"),
        "8:27",
        &["did you mean `GET`?", "unknown field `defaults`", "did you mean `default`?"],
    );
    refused(
        &http("{filters: [{type: RequestHeaderModifer}]}"),
        "7:23",
        &["spec.rules[0].filters[0].type", "did you mean `RequestHeaderModifier`?"],
    );
    refused(
        &http("{backendRefs: [{name: a, port: 80}], timeouts: {request: 1.5s}}"),
        "7:62",
        &["spec.rules[0].timeouts.request", "1m30s"],
    );
    refused(
        "type: MeshLoadBalancingStrategy\nmesh: default\nname: s\nspec:\n  to:\n  - targetRef: {kind: Mesh}\n    default: {loadBalancer: {type: ringHash}}\n",
        "7:36",
        &["did you mean `RingHash`?"],
    );
}

#[test]
fn a_regular_expression_is_refused_with_the_part_that_is_wrong() {
    let path = |regex: &str| {
        mesh_http(&format!(
            "{{matches: [{{path: {{type: RegularExpression, value: '{regex}'}}}}], default: {{}}}}"
        ))
    };
    refused(&path("/a/(b"), "8:62", &["is no regular expression: unclosed group"]);
    refused(&path("(a{1,1000}){1,1000}"), "8:58", &["is too large a regular expression"]);
}

#[test]
fn texts_that_are_made_to_harm_end_with_what_they_are() {
    let deep = format!("{{matches: {}{}}}", "[".repeat(300), "]".repeat(300));
    refused(&mesh_http(&deep), "8:", &["nested deeper than 100 levels"]);
    let mut bomb = mesh_http("{matches: [], default: {}}");
    bomb.push_str("  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("  a{level}: &a{level} [{aliases}]\n"));
    }
    refused(&bomb, "1", &["aliases expand to more than 100000 values"]);
    refused(&mesh_http("{matches: []}").replace("    - {", "\t- {"), "8:1", &["a tab"]);

    let dir = files(&[("world.yaml", WORLD)]);
    let mut latin = mesh_http("{matches: []}").into_bytes();
    latin.extend(b"# caf\xe9\n");
    fs::write(dir.path().join("latin.yaml"), latin).expect("the file can be written");
    check(dir.path(), &["-f", "."]).exits(1).says(&["latin.yaml", "is not UTF-8", "line 9"]);
}

#[test]
fn line_ends_and_a_byte_order_mark_move_no_finding() {
    let document = mesh_http("{matches: [{path: {type: Exact, value: a}}], default: {}}");
    let parts = &["must be an absolute path", "write /a"];
    refused(&document, "8:46", parts);
    refused(&document.replace('\n', "\r\n"), "8:46", parts);
    refused(&format!("\u{feff}{document}"), "8:46", parts);
}
