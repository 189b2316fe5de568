//! Documents that are read without a word fit their schemas.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{add, of_any_kind, reading, validator};

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The documents of a text, and of lists their items.
fn documents(text: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match Value::deserialize(document).expect("YAML") {
            Value::Null => {}
            Value::Object(list) if list.get("kind") == Some(&json!("List")) => {
                documents.extend(list["items"].as_array().cloned().unwrap_or_default());
            }
            document => documents.push(document),
        }
    }
    documents
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
}

/// Whether nothing is said of it, but that something is not carried out.
fn is_read_without_a_word(document: &Value) -> bool {
    let reading = reading(document);
    let said = |message: &str| !message.contains("not carried out");
    !reading.report.violations().any(|found| said(&found.message))
}

/// How many of these documents were held against the schema of any kind.
fn hold(documents: impl IntoIterator<Item = Value>) -> usize {
    let any = validator(&of_any_kind());
    let mut held = 0;
    for document in documents.into_iter().filter(is_read_without_a_word) {
        if let Err(error) = any.validate(&document) {
            panic!("{document}\n{error} at {}", error.instance_path());
        }
        held += 1;
    }
    held
}

#[test]
fn examples_fit_their_schemas() {
    let mut found = Vec::new();
    files(&beside("policies"), &mut found);
    let texts = found.iter().map(|file| fs::read_to_string(file).expect("an example"));
    assert!(hold(texts.flat_map(|text| documents(&text))) > 50);
}

#[test]
fn cases_of_conformance_fit_their_schemas() {
    let mut all = Vec::new();
    for name in ["validation", "routing", "gatewayapi"] {
        let file = beside(&format!("tests/conformance/own/{name}.jsonl"));
        for line in fs::read_to_string(file).expect("cases").lines() {
            let case: Value = serde_json::from_str(line).expect("a case");
            if let Some(text) = case["manifests_yaml"].as_str() {
                all.extend(documents(text));
            }
            all.extend(case["resources"].as_array().into_iter().flatten().cloned());
            if let (Some(kind), Some(text)) = (case["kind"].as_str(), case["input_yaml"].as_str()) {
                all.extend(documents(text).into_iter().map(|part| in_an_envelope(kind, part)));
            }
        }
    }
    assert!(hold(all) > 50);
}

fn in_an_envelope(kind: &str, part: Value) -> Value {
    let old = ["Mesh", "Dataplane", "TrafficRoute", "ExternalService"].contains(&kind);
    let mut document = json!({"type": kind, "name": "a", "mesh": "default"});
    if kind == "Mesh" {
        document = json!({"type": kind, "name": "a"});
    }
    add(&mut document, if old { part } else { json!({"spec": part}) });
    document
}
