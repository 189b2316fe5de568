//! Documents that are wrong in one place: what the reader refuses the schema refuses, as far as it
//! is the form that is wrong, and what the schema refuses the reader does not pass without a word.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{kinds_read, of_kind, reading, validator, whole};

/// A way to a part of a document, as JSON pointers write it.
type Way = String;

/// The parts of a document that are to be wrong: each that the other form does not have as well.
fn ways(document: &Value) -> Vec<Way> {
    let mut ways = Vec::new();
    parts(document, "", &mut ways);
    let kept = crate::policy::envelope::OF_THE_CLUSTER;
    let of_kuma = document["apiVersion"] == json!("kuma.io/v1alpha1");
    ways.retain(|way| {
        // Another group is no business of ours.
        let group = ["/apiVersion", "/kind"].contains(&way.as_str());
        let same = group || of_kuma && way.starts_with("/spec/");
        !same && !kept.iter().any(|name| way.starts_with(&format!("/metadata/{name}")))
    });
    ways
}

fn parts(value: &Value, at: &str, found: &mut Vec<Way>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in inner {
        let way = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(way.clone());
        parts(value, &way, found);
    }
}

fn without(document: &Value, way: &str) -> Option<Value> {
    let mut document = document.clone();
    let (parent, key) = way.rsplit_once('/')?;
    let key = key.replace("~1", "/").replace("~0", "~");
    document.pointer_mut(parent)?.as_object_mut()?.remove(&key)?;
    Some(document)
}

fn with(document: &Value, way: &str, value: Value) -> Value {
    let mut document = document.clone();
    if let Some(place) = document.pointer_mut(way) {
        *place = value;
    }
    document
}

/// What the form of a value can be wrong in: another type, a number out of its bounds, an unknown
/// word, an unknown field.
fn of_wrong_form(document: &Value, way: &str) -> Vec<Value> {
    let mut all: Vec<Value> = without(document, way).into_iter().collect();
    let here = document.pointer(way).cloned().unwrap_or_default();
    let mut others = match &here {
        Value::Number(_) => vec![json!(-1), json!(1e12 as u64), json!("x")],
        Value::String(_) => vec![json!({"x": "y"}), json!(true)],
        Value::Bool(_) => vec![json!("x"), json!(1)],
        Value::Object(_) => vec![json!(["x"]), json!("x")],
        Value::Array(_) => vec![json!({"x": "y"}), json!("x")],
        Value::Null => Vec::new(),
    };
    all.extend(others.drain(..).map(|value| with(document, way, value)));
    if let Value::Object(_) = here {
        let mut more = here;
        more["bogus"] = json!("bogus");
        all.push(with(document, way, more));
    }
    all
}

/// Values that are wrong in some fields and right in others. Nothing, an empty list and an empty
/// mapping are taken for an absent field, and are not among them.
fn other_values(document: &Value, way: &str) -> Vec<Value> {
    let values = [json!("x y"), json!("X"), json!("*"), json!(0), json!(70_000)];
    values.into_iter().map(|value| with(document, way, value)).collect()
}

/// What only reading finds out: what depends on several fields of a document.
const LEFT_TO_READING: &[(&str, &[&str])] = &[
    ("Dataplane", &["/networking/gateway", "/tags/kuma.io~1service", "/backendRef/labels/app"]),
    ("Service", &["/spec/type", "/spec/ports", "/ports/0/name", "/ports/1/name"]),
    ("Service", &["/spec/sessionAffinity"]),
    ("TrafficRoute", &["/conf/split", "/conf/http/0/match", "/conf/http/0/match/path"]),
    ("HTTPRoute", &["/sessionPersistence/absoluteTimeout"]),
    ("MeshTCPRoute", &["/labels/app"]),
    ("MeshHTTPRoute", &["/spec/targetRef", "/spec/targetRef/name", "/default/backendRefs"]),
    ("MeshHTTPRoute", &["/matches/0/path"]),
    ("MeshLoadBalancingStrategy", &["/affinityTags/0/weight", "/affinityTags/1/weight"]),
];

fn is_left_to_reading(kind: &str, way: &str) -> bool {
    let ends = LEFT_TO_READING.iter().filter(|(of, _)| *of == kind).flat_map(|(_, ends)| *ends);
    ends.into_iter().any(|end| way.ends_with(end))
}

#[test]
fn what_has_the_wrong_form_is_refused_by_both() {
    let mut differ = BTreeSet::new();
    for kind in kinds_read() {
        let schema = validator(&of_kind(kind.name()).expect("a schema"));
        for document in whole(kind) {
            for way in ways(&document) {
                let left = is_left_to_reading(kind.name(), &way);
                for wrong in of_wrong_form(&document, &way) {
                    if !left && schema.is_valid(&wrong) && !reading(&wrong).report.valid() {
                        let now = wrong.pointer(&way).unwrap_or(&Value::Null);
                        differ.insert(format!("{} {way}: {now}", kind.name()));
                    }
                }
            }
        }
    }
    assert!(differ.is_empty(), "only the reader refuses\n{}", Vec::from_iter(differ).join("\n"));
}

#[test]
fn what_a_schema_refuses_is_not_read_without_a_word() {
    let mut differ = BTreeSet::new();
    for kind in kinds_read() {
        let schema = validator(&of_kind(kind.name()).expect("a schema"));
        for document in whole(kind) {
            let usual = reading(&document).report.violations().count();
            for way in ways(&document) {
                for wrong in other_values(&document, &way) {
                    if schema.is_valid(&wrong) {
                        continue;
                    }
                    let report = reading(&wrong).report;
                    if report.valid() && report.violations().count() <= usual {
                        let now = wrong.pointer(&way).unwrap_or(&json!("gone")).clone();
                        differ.insert(format!("{} {way}: {now}", kind.name()));
                    }
                }
            }
        }
    }
    assert!(differ.is_empty(), "only the schema refuses\n{}", Vec::from_iter(differ).join("\n"));
}
