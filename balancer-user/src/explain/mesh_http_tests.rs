//! MeshHTTPRoutes, and what is said of several.

use serde_json::json;

use super::{
    Decision, Layer, Query,
    http_tests::{WORLD, ask, ask_resolved, query, request, value},
    tests::has_step,
};
use crate::resolve::{
    resolve,
    tests::world::{documents, settings},
};

/// A MeshHTTPRoute of everybody to `backend`.
fn mesh_http(name: &str, target: &str, rules: &str) -> String {
    format!(
        "---\n{{type: MeshHTTPRoute, mesh: default, name: {name}, spec: {{targetRef: {{{target}}}, to: \
         [{{targetRef: {{kind: MeshService, name: backend}}, rules: [{rules}]}}]}}}}\n"
    )
}

#[test]
fn merged_rules_say_whose_they_are_and_who_adds_what() {
    let api = "matches: [{path: {type: PathPrefix, value: /api}}]";
    let away = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: '1'}]}}]";
    let v2 = "backendRefs: [{kind: MeshServiceSubset, name: backend, tags: {version: v2}}]";
    let traffic = "---\n{type: TrafficRoute, mesh: default, name: all, sources: [{match: \
                   {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: '*'}}], conf: \
                   {destination: {kuma.io/service: '*'}}}\n";
    let set = documents(
        &[
            WORLD.to_owned(),
            mesh_http("b", "kind: Mesh", &format!("{{{api}, default: {{{v2}}}}}")),
            mesh_http(
                "a",
                "kind: MeshService, name: web",
                &format!("{{{api}, default: {{{away}}}}}"),
            ),
            mesh_http("c", "kind: MeshService, name: nobody", ""),
            traffic.to_owned(),
        ]
        .concat(),
    );
    let answer = ask(&set, request("/api/x"));
    assert_eq!((answer.layer, answer.decision), (Layer::L7, Decision::Forward));
    assert_eq!(
        value(&answer)["policy"],
        json!({"kind": "MeshHTTPRoute", "mesh": "default", "name": "a"})
    );
    assert_eq!(value(&answer)["rule"]["match"], json!({"path": {"segment_prefix": "/api"}}));
    assert_eq!(answer.backends[0].tags["version"], "v2");
    assert_eq!(answer.request.as_ref().unwrap().headers, [("x-a".to_owned(), "1".to_owned())]);
    for words in [
        "2 items of MeshHTTPRoutes are for this source and destination, and they are merged; a \
         goes first: a spec.to[0]",
        "b spec.to[0] adds what others leave open; a spec.to[0] goes first: a targetRef of kind \
         MeshService goes before one of kind Mesh",
        "MeshHTTPRoutes not matching: c (source)",
        "TrafficRoute all would match and has no effect here: MeshHTTPRoute a goes before every \
         TrafficRoute",
        "the rule says no backends; they are those of b spec.to[0]",
    ] {
        has_step(&answer, words);
    }
    let rest = ask(&set, request("/"));
    assert_eq!((rest.decision, &rest.rule), (Decision::Forward, &None));
    has_step(&rest, "no match takes it; for the rest there is service `backend`");
    // A workload that does not exist is asked about by its tags.
    let tagged =
        Query { from: "kuma.io/service=web,version=9".into(), ..query(Some(request("/api"))) };
    let tagged = ask_resolved(&set, &resolve(&set, &settings()), &tagged).unwrap();
    assert_eq!((&tagged.rule, &tagged.backends), (&answer.rule, &answer.backends));
}

#[test]
fn a_mesh_http_route_on_what_speaks_no_http_has_no_effect_and_that_is_said() {
    let route = mesh_http("r", "kind: Mesh", "").replace("name: backend", "name: plain");
    let set = documents(&format!("{WORLD}{route}"));
    let query = Query { to: "plain".into(), ..query(Some(request("/"))) };
    let answer = ask_resolved(&set, &resolve(&set, &settings()), &query).unwrap();
    assert_eq!((answer.layer, answer.decision), (Layer::L4, Decision::Direct));
    has_step(
        &answer,
        "1 item of a MeshHTTPRoute is for this source and destination and has no effect",
    );
    has_step(&answer, "path / makes no difference: this route tells no requests apart");
}

#[test]
fn a_mesh_tcp_route_beside_says_where_connections_go_meanwhile() {
    let tcp = "---\n{type: MeshTCPRoute, mesh: default, name: t, spec: {targetRef: {kind: Mesh}, to: \
               [{targetRef: {kind: MeshService, name: backend}, rules: [{default: {backendRefs: \
               [{kind: MeshServiceSubset, name: backend, tags: {version: v1}}]}}]}]}}\n";
    let with = |rules: &str| {
        let set = documents(&format!("{WORLD}{tcp}{}", mesh_http("h", "kind: Mesh", rules)));
        ask(&set, None)
    };
    let api = with("{matches: [{path: {type: PathPrefix, value: /api}}], default: {}}");
    assert_eq!(api.policy.as_ref().unwrap().name, "h");
    assert_eq!(api.backends[0].tags["version"], "v1");
    has_step(&api, "MeshTCPRoute t says where connections go while no proxy listens");
    let all = with("{matches: [{path: {type: PathPrefix, value: /}}], default: {}}");
    assert!(all.backends[0].tags.is_empty());
    has_step(
        &all,
        "MeshTCPRoute t would match and has no effect here: MeshHTTPRoute h goes before",
    );
}
