//! JSON schemas of what is read, for editors (draft 2020-12): structure, words and bounds. What
//! depends on several fields at once is left to reading, which says it better.
//!
//! Words and bounds are the readers' own constants. That a schema has the fields that its reader
//! takes, and refuses what its reader refuses, is held by the tests.

mod envelope;
mod gateway;
mod http;
mod kubernetes;
mod kuma;
mod names;
mod routes;
mod services;
mod strategy;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::write::Schema;
use super::{
    gateway::GROUP,
    kinds::{self, Kind},
    words::nearest,
};

/// The dialect of all schemas.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A list of documents, as `kubectl get -o yaml` prints it.
const LIST: &str = "List";

/// There is no schema of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no schema of the kind `{kind}`")]
pub struct NoSchema {
    /// As it was asked for.
    pub kind: String,
    /// What was probably meant.
    pub meant: Option<&'static str>,
}

/// The kinds that have a schema, in the order of the alphabet: those that are read, and `List`.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = kinds::read().chain(kinds::objects()).map(Kind::name).collect();
    names.push(LIST);
    names.sort_unstable();
    names
}

/// The schema of a kind, whatever the case of its letters.
///
/// # Errors
/// There is no such kind, or it is not read.
pub fn of_kind(kind: &str) -> Result<Value, NoSchema> {
    let names = names();
    let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(kind)) else {
        return Err(NoSchema { kind: kind.to_owned(), meant: nearest(kind, &names) });
    };
    Ok(whole(name, name))
}

/// The schema of a document of whatever kind.
pub fn of_any_kind() -> Value {
    whole(ANY, "balancer policies")
}

/// The name of [`of_any_kind`] among the definitions.
const ANY: &str = "any";

/// A definition as a whole schema, with those that it needs.
fn whole(name: &str, title: &str) -> Value {
    let all: BTreeMap<&str, Schema> = definitions().into_iter().collect();
    let mut needed: BTreeMap<&str, Value> = BTreeMap::new();
    let root = all.get(name).cloned().unwrap_or_default().value();
    let mut open = named_in(&root);
    while let Some(name) = open.pop() {
        if let Some((name, schema)) = all.get_key_value(name.as_str())
            && !needed.contains_key(name)
        {
            let value = schema.clone().value();
            open.extend(named_in(&value));
            needed.insert(name, value);
        }
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!(DIALECT));
    schema.insert("title".to_owned(), json!(title));
    if let Value::Object(root) = root {
        schema.extend(root);
    }
    if !needed.is_empty() {
        schema.insert("$defs".to_owned(), json!(needed));
    }
    Value::Object(schema)
}

/// The definitions that a schema names.
fn named_in(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(name)) => {
                    vec![name.trim_start_matches("#/$defs/").to_owned()]
                }
                _ => named_in(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(named_in).collect(),
        _ => Vec::new(),
    }
}

/// Every schema and every part that several have, by name.
fn definitions() -> Vec<(&'static str, Schema)> {
    let mut all = kuma::definitions();
    all.extend(routes::definitions());
    all.extend(http::definitions());
    all.extend(strategy::definitions());
    all.extend(services::definitions());
    all.extend(gateway::definitions());
    all.extend(kubernetes::definitions());
    all.push((LIST, list()));
    all.push((ANY, any_kind()));
    all
}

fn list() -> Schema {
    let items = write::list(write::of(ANY)).about("Documents of any kind; no List among them");
    write::any()
        .about("Several documents in one, as `kubectl get -o yaml` prints them")
        .with("type", "object")
        .with(
            "properties",
            json!({
                "apiVersion": names::only("v1").value(),
                "kind": names::only(LIST).value(),
                "metadata": {"type": "object"},
                "items": items.value(),
            }),
        )
        .with("required", vec!["apiVersion", "kind"])
}

/// A document of whatever kind: which schema holds for it is what its first lines say.
fn any_kind() -> Schema {
    let universal = |kind: &str| json!({"properties": {"type": {"const": kind}}, "required": ["type"], "not": {"required": ["apiVersion"]}});
    let of_group = |group: &str, kind: &str| json!({"properties": {"apiVersion": {"pattern": group}, "kind": {"const": kind}}, "required": ["apiVersion", "kind"]});
    let mut any = write::any()
        .about("A policy, or what policies name: any kind that balancer reads")
        .with("type", "object")
        .and(json!({"anyOf": [{"required": ["type"]}, {"required": ["apiVersion", "kind"]}]}))
        .and(json!({
            "if": {"not": {"required": ["apiVersion"]}},
            "then": {"properties": {"type": {"enum": kinds::of_kuma()}}},
        }))
        .and(json!({
            "if": of_versions("^kuma\\.io/"),
            "then": {"properties": {"kind": {"enum": kinds::of_kuma()}}},
        }))
        .and(json!({
            "if": of_versions(&format!("^{}/", GROUP.replace('.', "\\."))),
            "then": {"properties": {"kind": {"enum": kinds::of_the_gateway_api()}}},
        }));
    for kind in kinds::read() {
        let name = kind.name();
        let schema = json!({"$ref": format!("#/$defs/{name}")});
        any = any.and(json!({"if": universal(name), "then": schema}));
        any = any.and(json!({"if": of_group("^kuma\\.io/", name), "then": schema}));
    }
    for kind in kinds::objects() {
        let (name, Kind::Object(object)) = (kind.name(), kind) else { continue };
        let group = match object.api_versions()[0].rsplit_once('/') {
            Some((group, _)) => format!("^{}/", group.replace('.', "\\.")),
            None => "^[^/]*$".to_owned(),
        };
        let schema = json!({"$ref": format!("#/$defs/{name}")});
        any = any.and(json!({"if": of_group(&group, name), "then": schema}));
    }
    any
}

fn of_versions(pattern: &str) -> Value {
    json!({"properties": {"apiVersion": {"pattern": pattern}}, "required": ["apiVersion"]})
}
