//! `validation.jsonl`: a resource in, its violations out.
//!
//! Compared are validity and the set of field paths; messages are the peer's wording. The rules
//! are those of the version behind the `@` of the case's id.

use std::collections::BTreeSet;

use balancer_user::policy::{self, Api, ReadOptions, SourceText};
use serde_json::Value;

use crate::cases::Verdict;

/// Kinds that are validated completely.
const KINDS: [&str; 10] = [
    "Mesh",
    "Dataplane",
    "TrafficRoute",
    "ExternalService",
    "MeshTCPRoute",
    "MeshHTTPRoute",
    "MeshLoadBalancingStrategy",
    "MeshService",
    "MeshExternalService",
    "MeshMultiZoneService",
];
/// Those of them whose fields stand beside `type` and `name`; of others they stand under `spec`.
const INLINED: [&str; 4] = ["Mesh", "Dataplane", "TrafficRoute", "ExternalService"];

/// How messages begin about what a schema refuses, before Kuma's validators see it: fields that it
/// does not name, and fields that it asks for. Cases have none of these.
const OF_A_SCHEMA: [&str; 2] = ["unknown field", "must be given"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    let kind = case["kind"].as_str().unwrap_or_default();
    if !KINDS.contains(&kind) {
        return Verdict::NotBuilt;
    }
    let expected = expected(case);
    let found = match found(case, kind) {
        Ok(found) => found,
        Err(reason) => return Verdict::Failed { expected: shown(&expected), found: reason },
    };
    if found == expected {
        Verdict::Passed
    } else {
        Verdict::Failed { expected: shown(&expected), found: shown(&found) }
    }
}

/// Field paths; none: valid.
type Fields = BTreeSet<String>;

fn expected(case: &Value) -> Fields {
    let violations = case["violations"].as_array().map(Vec::as_slice).unwrap_or_default();
    violations
        .iter()
        .filter_map(|violation| violation["field"].as_str())
        .map(str::to_owned)
        .collect()
}

fn found(case: &Value, kind: &str) -> Result<Fields, String> {
    let id = case["id"].as_str().unwrap_or_default();
    let api = api(id).ok_or_else(|| format!("no rules for the version of {id}"))?;
    let yaml = case["input_yaml"].as_str().ok_or("the case has no input_yaml")?;
    let name = case["resource_name"].as_str().unwrap_or("a-valid-name");
    let text = SourceText { name: id.to_owned(), text: resource(yaml, kind, name)?.into() };
    let options = ReadOptions { api: Some(api), ..ReadOptions::default() };
    let reading = policy::read(vec![text], &options);
    if reading.report.len() != 1 {
        return Err(format!("{} resources instead of one", reading.report.len()));
    }
    let of_a_schema = |message: &str| OF_A_SCHEMA.iter().any(|begin| message.starts_with(begin));
    let violations = reading.report.violations();
    let errors = violations.filter(|finding| finding.is_error() && !of_a_schema(&finding.message));
    Ok(errors.map(|finding| finding.field.clone()).collect())
}

fn api(id: &str) -> Option<Api> {
    let (_, version) = id.rsplit_once('@')?;
    match version {
        "head" => Some(Api::Kuma3),
        _ if version.starts_with("v2.7.") => Some(Api::Kuma27),
        _ if version.starts_with("v2.9.") => Some(Api::Kuma29),
        _ => None,
    }
}

/// The specification with its envelope: Universal documents carry `type`, `mesh` and `name`
/// beside the fields of the specification or beside `spec`. What the case already has stays as
/// it is.
fn resource(yaml: &str, kind: &str, name: &str) -> Result<String, String> {
    let value: serde_yaml::Value =
        serde_yaml::from_str(yaml).map_err(|error| format!("the case's YAML: {error}"))?;
    let mut mapping = match value {
        serde_yaml::Value::Null => serde_yaml::Mapping::new(),
        serde_yaml::Value::Mapping(mapping) => mapping,
        _ => return Err("the case's YAML is no mapping".to_owned()),
    };
    if !INLINED.contains(&kind) {
        let beside = ["type", "name", "mesh", "labels"];
        let (envelope, spec): (serde_yaml::Mapping, serde_yaml::Mapping) = mapping
            .into_iter()
            .partition(|(key, _)| key.as_str().is_some_and(|key| beside.contains(&key)));
        mapping = envelope;
        mapping.insert("spec".into(), spec.into());
    }
    let mut envelope = vec![("type", kind), ("name", name)];
    if kind != "Mesh" {
        envelope.push(("mesh", "default"));
    }
    for (key, value) in envelope {
        if !mapping.contains_key(key) {
            mapping.insert(key.into(), value.into());
        }
    }
    serde_yaml::to_string(&mapping).map_err(|error| error.to_string())
}

fn shown(fields: &Fields) -> String {
    if fields.is_empty() {
        "valid".to_owned()
    } else {
        format!("violations of {}", fields.iter().cloned().collect::<Vec<_>>().join(", "))
    }
}
