//! Schemas and readers say the same: which fields there are, which words, what is refused.
//! `whole/KIND.yaml` has documents of each kind that together visit every part of it.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{names, of_any_kind, of_kind};
use crate::policy::{
    ReadOptions, Reading, SourceText,
    kinds::{self, Kind},
    read,
    taken::{self, Taken},
    testing::LENIENT,
    yaml::{self, Node, Value as Content},
};

mod agree;
mod documents;
mod patterns;

/// The kinds that have documents of their own.
fn kinds_read() -> Vec<Kind> {
    kinds::read().chain(kinds::objects()).collect()
}

/// What stands in `whole/KIND.yaml`: of Kuma's kinds specifications, of others what stands beside
/// `metadata`.
fn parts(kind: Kind) -> Vec<Value> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/schema/whole");
    let file = format!("{directory}/{}.yaml", kind.name());
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let documents = serde_yaml::Deserializer::from_str(&text);
    let value = |part| serde::Deserialize::deserialize(part);
    documents.map(|part| value(part).unwrap_or_else(|error| panic!("{file}: {error}"))).collect()
}

/// The documents of a kind, in each form that it has, with everything in their metadata.
fn whole(kind: Kind) -> Vec<Value> {
    let time = "2026-03-01T10:00:00Z";
    let mut metadata = json!({"name": "a", "labels": {"app": "a"}, "creationTimestamp": time});
    for name in crate::policy::envelope::OF_THE_CLUSTER {
        metadata[name] = json!({});
    }
    let mut documents = Vec::new();
    for part in parts(kind) {
        let status = json!({"vips": [{"ip": "240.0.0.1"}], "vip": {"ip": "240.0.0.1"}, "addresses": [{"hostname": "a.mesh"}]});
        if let Kind::Object(object) = kind {
            let mut metadata = metadata.clone();
            if object.namespaced() {
                metadata["namespace"] = json!("shop");
            }
            if object.name() == "EndpointSlice" {
                metadata["labels"] = json!({"kubernetes.io/service-name": "echo"});
            }
            let mut document = json!({"apiVersion": object.api_versions()[0], "kind": kind.name(), "metadata": metadata, "status": {}});
            add(&mut document, part);
            documents.push(document);
            continue;
        }
        let mut universal = json!({"type": kind.name(), "name": "a", "labels": {"app": "a"}, "creationTime": time, "modificationTime": time});
        if kind != Kind::Mesh {
            universal["mesh"] = json!("default");
        }
        let mut kubernetes = json!({"apiVersion": "kuma.io/v1alpha1", "kind": kind.name(), "metadata": metadata.clone(), "spec": part, "status": status});
        kubernetes["metadata"]["namespace"] = json!("shop");
        kubernetes["metadata"]["labels"]["kuma.io/mesh"] = json!("default");
        if kind.has_schema() {
            add(&mut universal, json!({"spec": part, "status": status}));
        } else {
            add(&mut universal, part);
            if kind != Kind::Mesh {
                kubernetes["mesh"] = json!("default");
            }
        }
        documents.extend([universal, kubernetes]);
    }
    documents
}

fn add(document: &mut Value, more: Value) {
    if let (Value::Object(document), Value::Object(more)) = (document, more) {
        document.extend(more);
    }
}

fn reading(document: &Value) -> Reading {
    reading_by(document, &LENIENT)
}

fn reading_by(document: &Value, options: &ReadOptions) -> Reading {
    read(vec![SourceText { name: "a.json".to_owned(), text: document.to_string().into() }], options)
}

fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(schema).expect("a schema of ours is one")
}

#[test]
fn every_schema_is_one_of_its_dialect() {
    for name in names() {
        let schema = of_kind(name).expect("a name of the list");
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(schema["title"], name);
        assert!(schema["description"].is_string(), "{name}");
    }
    jsonschema::meta::validate(&of_any_kind()).expect("of any kind");
}

#[test]
fn every_kind_that_is_read_has_a_schema_and_no_case_of_letters_counts() {
    let names = names();
    for kind in kinds_read() {
        assert!(names.contains(&kind.name()));
        let lower = of_kind(&kind.name().to_lowercase());
        assert_eq!(lower, of_kind(kind.name()), "{}", kind.name());
    }
    let missing = of_kind("trafficrout").expect_err("there is no such kind");
    assert_eq!(missing.meant, Some("TrafficRoute"));
    assert_eq!(of_kind("Retry").expect_err("it is not read").meant, None);
}

#[test]
fn whole_documents_have_no_error_and_fit_their_schema_and_that_of_any_kind() {
    let any = validator(&of_any_kind());
    for kind in kinds_read() {
        let own = validator(&of_kind(kind.name()).expect("a schema"));
        for document in whole(kind) {
            let reading = reading(&document);
            assert!(reading.report.valid(), "{document}\n{:#?}", reading.report);
            let unknown = |message: &str| message.starts_with("unknown field");
            assert!(!reading.report.violations().any(|found| unknown(&found.message)));
            for schema in [&own, &any] {
                if let Err(error) = schema.validate(&document) {
                    panic!("{document}\n{error} at {}", error.instance_path());
                }
            }
        }
    }
}

/// What a schema says of a part of a document: the part's definition, and where in it.
struct Walk<'a> {
    definitions: BTreeMap<String, Value>,
    taken: &'a Taken,
    places: &'a mut BTreeMap<String, Place>,
}

/// An object somewhere in a schema, and what readers asked mappings there for.
#[derive(Debug, Default)]
struct Place {
    schema: Value,
    taken: BTreeSet<&'static str>,
    closed: bool,
}

impl Walk<'_> {
    /// The schema that holds for a node, and its name: definitions and what depends on the form
    /// are looked up.
    fn resolve(&self, mut schema: Value, mut at: String, node: &Node) -> (Value, String) {
        loop {
            if let Some(name) = schema["$ref"].as_str() {
                at = name.trim_start_matches("#/$defs/").to_owned();
                schema = self.definitions[&at].clone();
            } else if schema.get("then").is_some() {
                let holds = match (&schema["if"]["required"], &schema["if"]["type"]) {
                    (Value::Array(names), _) => {
                        names.iter().all(|name| node.entry(name.as_str().unwrap()).is_some())
                    }
                    (_, Value::String(_)) => matches!(node.value, Content::Sequence(_)),
                    _ => panic!("a condition that this test does not know at {at}"),
                };
                let branch = if holds { "then" } else { "else" };
                at = format!("{at}/{branch}");
                schema = schema[branch].clone();
            } else {
                return (schema, at);
            }
        }
    }

    fn node(&mut self, schema: Value, at: String, node: &Node) {
        let (schema, at) = self.resolve(schema, at, node);
        match &node.value {
            Content::Mapping(entries) => {
                if let Some(taken) = self.taken.mappings.get(&node.span) {
                    let place = self.places.entry(at.clone()).or_default();
                    place.taken.extend(&taken.names);
                    if at.ends_with("/else") {
                        // That there is none says which form it is.
                        place.taken.remove("apiVersion");
                    }
                    place.closed |= taken.closed;
                    place.schema = schema.clone();
                }
                for entry in entries {
                    let (inner, name) = match schema["properties"].get(&entry.key) {
                        Some(property) => (property.clone(), entry.key.as_str()),
                        None => (schema["additionalProperties"].clone(), "*"),
                    };
                    if inner.is_object() {
                        self.node(inner, format!("{at}/{name}"), &entry.value);
                    }
                }
            }
            Content::Sequence(items) => {
                for item in items {
                    self.node(schema["items"].clone(), format!("{at}[]"), item);
                }
            }
            Content::Scalar(_) => {
                if let Some(words) = self.taken.words.get(&node.span) {
                    let own = words_of(&schema);
                    assert!(own.is_superset(words), "{at}: the reader takes {words:?}, {own:?}");
                    // Of references it depends on what else is there which kinds are allowed.
                    let all = own == *words || at.ends_with("/kind");
                    let all = all || at.ends_with("/allowMethods[]");
                    assert!(all, "{at}: the reader takes only {words:?} of {own:?}");
                }
            }
        }
    }
}

fn words_of(schema: &Value) -> BTreeSet<String> {
    let of = |value: &Value| value.as_str().map(str::to_owned);
    let own = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
    let either = schema["anyOf"].as_array().into_iter().flatten().flat_map(words_of);
    own.filter_map(of).chain(either).collect()
}

#[test]
fn readers_and_schemas_know_the_same_fields_and_words() {
    let mut places = BTreeMap::new();
    for kind in kinds_read() {
        for document in whole(kind) {
            let text = document.to_string();
            let root = yaml::document(&text, 1, 0).and_then(|document| document.root);
            let (reading, taken) = taken::during(|| reading(&document));
            assert!(reading.report.valid());
            let all = super::definitions().into_iter();
            let definitions = all.map(|(name, schema)| (name.to_owned(), schema.value())).collect();
            let mut walk = Walk { definitions, taken: &taken, places: &mut places };
            let schema = walk.definitions[kind.name()].clone();
            walk.node(schema, kind.name().to_owned(), &root.expect("a document"));
        }
    }
    for (at, Place { schema, taken, closed }) in &places {
        let properties: BTreeSet<&str> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| &**name)
            .collect();
        assert_eq!(*taken, properties, "{at}: the reader's on the left, the schema's on the right");
        assert_eq!(*closed, schema["additionalProperties"] == json!(false), "{at}");
    }
    // Every object of every definition was met.
    for (name, schema) in super::definitions() {
        let mut objects = Vec::new();
        objects_in(&schema.value(), name.to_owned(), &mut objects);
        for at in objects {
            let own = ["List", "any"].iter().any(|name| at.starts_with(name));
            assert!(own || places.contains_key(&at), "no document in whole/ has {at}");
        }
    }
}

/// The places of objects with fields of their own.
fn objects_in(schema: &Value, at: String, found: &mut Vec<String>) {
    if schema["properties"].is_object() {
        found.push(at.clone());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        objects_in(property, format!("{at}/{name}"), found);
    }
    for (keyword, inner) in
        [("items", "[]"), ("additionalProperties", "/*"), ("then", "/then"), ("else", "/else")]
    {
        if let Some(schema) = schema.get(keyword) {
            objects_in(schema, format!("{at}{inner}"), found);
        }
    }
}
