//! Rules that take no request are said, with what takes theirs.

use super::world::{documents, settings};
use crate::resolve::resolve;

const API: &str = "type: Dataplane\nmesh: default\nname: api\nnetworking:\n  address: 10.0.0.1\n  \
    inbound: [{port: 80, tags: {kuma.io/service: api, kuma.io/protocol: http}}]\n---\n";

/// Name, field and message of what is said of rules that take no request.
fn said(text: &str) -> Vec<String> {
    let resolved = resolve(&documents(text), &settings());
    let never = resolved.diagnostics.iter().filter(|(_, found)| found.message.contains("never"));
    never
        .map(|(meta, found)| {
            assert!(found.span.is_some() && found.related.is_some() && !found.is_error());
            format!("{} {}: {}", meta.name, found.field, found.message)
        })
        .collect()
}

fn traffic_route(entries: &[&str]) -> String {
    let to = "destination: {kuma.io/service: api}";
    let entries: Vec<String> = entries.iter().map(|m| format!("{{match: {m}, {to}}}")).collect();
    format!(
        "{API}type: TrafficRoute\nmesh: default\nname: shop\nsources: [{{match: {{kuma.io/service: \
         '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: api}}}}]\nconf: {{{to}, http: [{}]}}\n",
        entries.join(", ")
    )
}

/// A MeshHTTPRoute with rules of these lists of matches.
fn mesh_http(name: &str, target: &str, rules: &[&str]) -> String {
    let rules: Vec<String> =
        rules.iter().map(|matches| format!("{{matches: [{matches}], default: {{}}}}")).collect();
    format!(
        "type: MeshHTTPRoute\nmesh: default\nname: {name}\nspec:\n  targetRef: {target}\n  to: \
         [{{targetRef: {{kind: MeshService, name: api}}, rules: [{}]}}]\n---\n",
        rules.join(", ")
    )
}

const ALL: &str = "{kind: Mesh}";
const ROOT: &str = "{path: {type: PathPrefix, value: /}}";
const PATTERN: &str = "{path: {type: RegularExpression, value: '/a.*'}}";
const EXACT: &str = "{path: {type: Exact, value: /a}}";

#[test]
fn an_entry_of_a_traffic_route_behind_one_that_asks_for_less() {
    let get = "{path: {prefix: /api/v1}, method: {exact: GET}}";
    assert_eq!(
        said(&traffic_route(&["{path: {prefix: /api}}", "{method: {exact: PUT}}", get])),
        ["shop conf.http[2]: never takes a request: `conf.http[0]` takes all that it could and \
             goes first: it is listed first"]
    );
    assert_eq!(said(&traffic_route(&[get, "{path: {prefix: /api}}"])), [""; 0]);
    let behind_all = traffic_route(&["", get]).replace("match: , ", "");
    assert!(said(&behind_all)[0].starts_with("shop conf.http[1]: never takes a request: "));
    let asterisk = said(&traffic_route(&["{path: {prefix: /}}", "{method: {exact: PUT}}"]));
    assert!(asterisk[0].contains("never takes a request but `OPTIONS *`: "), "{asterisk:?}");
}

#[test]
fn a_pattern_of_a_mesh_http_route_behind_every_path_and_a_match_that_another_rule_has() {
    let rules = mesh_http("a", ALL, &[PATTERN, ROOT]);
    assert_eq!(
        said(&format!("{API}{rules}")),
        ["a spec.to[0].rules[0]: never takes a request: `spec.to[0].rules[1]` takes all that it \
             could and goes first: its path is more specific"]
    );
    let both = mesh_http("b", ALL, &[&format!("{EXACT}, {ROOT}")]);
    let rules = [mesh_http("a", ALL, &[EXACT]), both].concat();
    assert_eq!(
        said(&format!("{API}{rules}")),
        ["b spec.to[0].rules[0].matches[0]: never takes a request: `spec.to[0].rules[0]` of the \
             MeshHTTPRoute a takes all that it could and goes first: it is listed first"]
    );
}

#[test]
fn a_rule_that_some_clients_reach_is_not_said() {
    let of_web = "{kind: MeshSubset, tags: {kuma.io/service: web}}";
    let web = API.replace("name: api\n", "name: web\n").replace("service: api", "service: web");
    let web = web.replace("10.0.0.1", "10.0.0.9");
    let rules = [mesh_http("a", of_web, &[ROOT]), mesh_http("b", ALL, &[PATTERN])].concat();
    assert_eq!(said(&format!("{API}{web}{rules}")), [""; 0]);
    // Rules with equal matches are one, and the second gives its backends where the first has none.
    let rules = [mesh_http("a", of_web, &[ROOT, PATTERN]), mesh_http("b", ALL, &[ROOT, PATTERN])];
    assert_eq!(said(&format!("{API}{web}{}", rules.concat())), [""; 0]);
}

fn gateway(routes: &[(&str, &str, &str)]) -> String {
    let mut text = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {name: edge, namespace: shop}\nspec: {gatewayClassName: node, \
         addresses: [{value: 192.0.2.10}], listeners: [{name: any, port: 80, protocol: HTTP}, \
         {name: below, port: 80, protocol: HTTP, hostname: '*.b'}, {name: other, port: 81, protocol: HTTP}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: v1, namespace: shop}\n\
         spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n"
        .to_owned();
    for (name, parents, matches) in routes {
        text += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: {name}, namespace: shop}}\nspec: {{parentRefs: [{parents}], rules: \
             [{{matches: [{matches}], backendRefs: [{{name: v1, port: 80}}]}}]}}\n"
        );
    }
    text
}

#[test]
fn a_rule_of_a_route_behind_an_older_one_at_every_listener_that_it_has() {
    let any = "{name: edge, sectionName: any}";
    let equal = said(&gateway(&[("a", any, EXACT), ("b", any, EXACT)]));
    assert_eq!(
        equal,
        ["b spec.rules[0]: never takes a request: `spec.rules[0]` of the HTTPRoute shop/a takes \
             all that it could and goes first: its route is older, or first by name"]
    );
    for elsewhere in
        ["{name: edge, sectionName: below}", "{name: edge, sectionName: other}", "{name: edge}"]
    {
        let routes = [("a", any, EXACT), ("b", elsewhere, EXACT)];
        assert_eq!(said(&gateway(&routes)), [""; 0], "{elsewhere}");
    }
    let routes = [("a", any, &*format!("{EXACT}, {EXACT}"))];
    assert_eq!(said(&gateway(&routes)), [""; 0], "reading has said it");
    assert_eq!(said(&gateway(&[("a", any, &format!("{PATTERN}, {ROOT}"))])).len(), 1);
}
