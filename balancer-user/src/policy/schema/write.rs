//! How a schema is written down: keywords of JSON Schema, draft 2020-12, by their meaning.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::super::fields::Form;

/// A schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema(Map<String, Value>);

/// A field of an object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) schema: Schema,
    pub(super) required: bool,
}

/// A field that may be there.
pub(super) fn may(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, required: false }
}

/// A field that has to be there.
pub(super) fn must(name: &'static str, schema: Schema) -> Member {
    Member { name, schema, required: true }
}

/// Anything.
pub(super) fn any() -> Schema {
    Schema::default()
}

/// Nothing: a field that a reader knows only to refuse it.
pub(super) fn never() -> Schema {
    any().with("not", json!({}))
}

/// A definition of this name, see [`definitions`](super::definitions).
pub(super) fn of(name: &str) -> Schema {
    any().with("$ref", format!("#/$defs/{name}"))
}

/// A string.
pub(super) fn text() -> Schema {
    any().with("type", "string")
}

/// A string that is one of these.
pub(super) fn word<'w>(words: impl IntoIterator<Item = &'w str>) -> Schema {
    let words: Vec<&str> = words.into_iter().collect();
    match words[..] {
        [only] => any().with("const", only),
        _ => any().with("enum", words),
    }
}

/// The names of types that each have a field.
pub(super) fn type_names(types: &[(&'static str, &str)]) -> Vec<&'static str> {
    types.iter().map(|(name, _)| *name).collect()
}

/// A whole number.
pub(super) fn whole(range: RangeInclusive<u64>) -> Schema {
    any().with("type", "integer").with("minimum", *range.start()).with("maximum", *range.end())
}

/// A whole number of 64 bits, which may be quoted: the JSON form of protobuf.
pub(super) fn long(most: u64) -> Schema {
    let digits = json!({"type": "string", "pattern": "^(0|[1-9][0-9]*)$"});
    any().with("anyOf", vec![whole(0..=most).value(), digits])
}

/// A number that may be written as a decimal string.
pub(super) fn decimal(least: u64, most: Option<u64>) -> Schema {
    let mut number = any().with("type", "number").with("minimum", least);
    if let Some(most) = most {
        number = number.with("maximum", most);
    }
    let digits = json!({"type": "string", "pattern": "^[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)$"});
    any().with("anyOf", vec![number.value(), digits])
}

/// A port.
pub(super) fn port() -> Schema {
    whole(1..=u64::from(u16::MAX))
}

/// `true` or `false`.
pub(super) fn boolean() -> Schema {
    any().with("type", "boolean")
}

/// A list.
pub(super) fn list(items: Schema) -> Schema {
    any().with("type", "array").with("items", items.value())
}

/// A map whose keys are data.
pub(super) fn map(values: Schema) -> Schema {
    any().with("type", "object").with("additionalProperties", values.value())
}

/// An object with these fields, spelled as `form` spells them. Fields that it does not have are
/// errors where the reader makes them errors, and else pass.
pub(super) fn object(form: Form, members: Vec<Member>) -> Schema {
    let mut schema = any().with("type", "object");
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut spelled = Vec::new();
    for Member { name, schema, required: is_required } in members {
        properties.insert(name.to_owned(), schema.value());
        let snake = form.other_spelling(name);
        if is_required && snake != name {
            spelled.push(json!({"anyOf": [{"required": [name]}, {"required": [snake]}]}));
        } else if is_required {
            required.push(name);
        }
    }
    schema = schema.with("properties", Value::Object(properties));
    if !required.is_empty() {
        schema = schema.with("required", required);
    }
    for either in spelled {
        schema = schema.and(either);
    }
    if form == Form::Schema {
        schema = schema.with("additionalProperties", false);
    }
    schema
}

impl Schema {
    /// The same with a keyword.
    pub(super) fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// What it is, for people.
    pub(super) fn about(self, about: &str) -> Self {
        self.with("description", about)
    }

    /// What an absent one means.
    pub(super) fn or(self, default: impl Into<Value>) -> Self {
        self.with("default", default)
    }

    /// Of a string: it looks like this.
    pub(super) fn like(self, pattern: &str) -> Self {
        self.with("pattern", pattern)
    }

    /// Of a string: how long it may be, in characters.
    pub(super) fn characters(self, range: RangeInclusive<usize>) -> Self {
        let schema = if *range.start() > 0 { self.with("minLength", *range.start()) } else { self };
        if *range.end() < usize::MAX { schema.with("maxLength", *range.end()) } else { schema }
    }

    /// Of a string: it is not empty.
    pub(super) fn not_empty(self) -> Self {
        self.characters(1..=usize::MAX)
    }

    /// Of a list: how many items it has.
    pub(super) fn items(self, range: RangeInclusive<usize>) -> Self {
        let schema = if *range.start() > 0 { self.with("minItems", *range.start()) } else { self };
        if *range.end() < usize::MAX { schema.with("maxItems", *range.end()) } else { schema }
    }

    /// Of a map: it has an entry.
    pub(super) fn some(self) -> Self {
        self.with("minProperties", 1)
    }

    /// Of a map: what its keys look like.
    pub(super) fn keys(self, names: Schema) -> Self {
        self.with("propertyNames", names.value())
    }

    /// Of an object: this holds too.
    pub(super) fn and(mut self, other: Value) -> Self {
        match self.0.get_mut("allOf") {
            Some(Value::Array(all)) => all.push(other),
            _ => drop(self.0.insert("allOf".to_owned(), json!([other]))),
        }
        self
    }

    /// Of an object: exactly one of these fields is there.
    pub(super) fn exactly_one(self, names: &[&str]) -> Self {
        let each: Vec<Value> = names.iter().map(|name| json!({"required": [name]})).collect();
        self.and(json!({"oneOf": each}))
    }

    /// Of an object: one of these fields is there, or several.
    pub(super) fn at_least_one(self, names: &[&str]) -> Self {
        let each: Vec<Value> = names.iter().map(|name| json!({"required": [name]})).collect();
        self.and(json!({"anyOf": each}))
    }

    /// Of an object: not both of these fields are there.
    pub(super) fn not_both(self, one: &str, other: &str) -> Self {
        self.and(json!({"not": {"required": [one, other]}}))
    }

    /// Of an object: where the field has this value, others are there.
    pub(super) fn when(self, field: &str, value: &str, then: &[&str]) -> Self {
        self.and(json!({
            "if": {"properties": {field: {"const": value}}, "required": [field]},
            "then": {"required": then},
        }))
    }

    /// Of an object: the field of each type is there where it is of that type.
    pub(super) fn body_of_type(self, types: &[(&str, &str)]) -> Self {
        types.iter().fold(self, |schema, (name, field)| schema.when("type", name, &[field]))
    }

    /// As JSON.
    pub(super) fn value(self) -> Value {
        Value::Object(self.0)
    }
}
