//! `balancer schema`: what an editor gets.

use serde_json::Value;

use crate::run::balancer;

#[test]
fn a_schema_is_printed_whatever_the_case_of_the_kind_and_in_both_forms() {
    let json = balancer(&["schema", "trafficroute"]).exits(0);
    assert_eq!(json.stderr, "", "{json}");
    let schema: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(schema["title"], "TrafficRoute");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema.get("$id").is_none(), "it is nowhere to be fetched from");
    let yaml = balancer(&["schema", "TrafficRoute", "-o", "yaml"]).exits(0);
    let same: Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(same, schema);
    assert_eq!(balancer(&["schema", "TRAFFICROUTE", "-o", "json"]).exits(0).stdout, json.stdout);
}

#[test]
fn without_a_kind_the_schema_is_one_for_all() {
    let all = balancer(&["schema"]).exits(0);
    let schema: Value = serde_json::from_str(&all.stdout).expect("JSON");
    for kind in ["Mesh", "MeshHTTPRoute", "HTTPRoute", "Service", "List", "Namespace"] {
        let own = balancer(&["schema", kind]).exits(0);
        let own: Value = serde_json::from_str(&own.stdout).expect("JSON");
        assert_eq!(own["title"], kind);
        if kind != "List" {
            assert_eq!(schema["$defs"][kind]["description"], own["description"]);
        }
    }
}

#[test]
fn a_kind_that_has_no_schema_is_refused_with_those_that_have() {
    balancer(&["schema", "MeshHTTPRout"])
        .exits(2)
        .says(&["there is no schema of the kind `MeshHTTPRout`", "did you mean `MeshHTTPRoute`?"]);
    balancer(&["schema", "Deployment"]).exits(2).says(&["there are: ", "TrafficRoute", "List"]);
    balancer(&["schema", "Mesh", "-o", "hosts"]).exits(2).says(&["show vips"]);
}
