//! Reading the fields of a mapping: each by name, each type checked, nothing overlooked.

use std::{net::IpAddr, num::NonZeroU16};

#[cfg(test)]
use super::taken;
use super::{
    Diagnostic, ReadOptions, Span,
    scalar::{Meaning, meaning},
    words::{nearest, shortened, with_short_words},
    yaml::{Entry, Node, Scalar, Value, key_path},
};

/// How a kind spells its fields, and what a field is that it does not have (decision D20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Kuma's old kinds: `snake_case` is accepted too, unknown fields are warnings.
    #[default]
    Proto,
    /// Kinds that have a schema: unknown fields are errors.
    Schema,
    /// Kinds of Kubernetes itself, whose fields depend on the cluster's release: unknown fields
    /// are warnings.
    Core,
}

impl Form {
    /// What else a field of this name may be called.
    pub(super) fn other_spelling(self, name: &str) -> String {
        match self {
            Self::Proto => snake_case(name),
            Self::Schema | Self::Core => name.to_owned(),
        }
    }
}

/// What reading one resource needs everywhere: the options, and a place for findings.
pub(super) struct Context<'o> {
    pub(super) options: &'o ReadOptions,
    /// Set once the kind is known; mappings that are opened afterwards follow it.
    pub(super) form: Form,
    findings: Vec<Diagnostic>,
    errors: usize,
}

impl<'o> Context<'o> {
    pub(super) fn new(options: &'o ReadOptions) -> Self {
        Self { options, form: Form::default(), findings: Vec::new(), errors: 0 }
    }

    pub(super) fn report(&mut self, mut finding: Diagnostic) {
        self.errors += usize::from(finding.is_error());
        finding.message = with_short_words(finding.message);
        finding.hint = finding.hint.map(with_short_words);
        self.findings.push(finding);
    }

    /// How many errors there are so far: a reader that has added none has a valid value.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn into_findings(self) -> Vec<Diagnostic> {
        self.findings
    }

    /// An error, or where exactly one version's rules are asked for and that version accepts
    /// it, a warning.
    pub(super) fn report_unless_exact(&mut self, mut finding: Diagnostic) {
        if !self.options.lenient() {
            finding.severity = super::Severity::Warning;
        }
        self.report(finding);
    }
}

/// A value with its path.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    /// Where its key stands, for findings about the field as a whole.
    pub(super) key_span: Span,
}

impl<'n> Field<'n> {
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.path.clone(), message).at(self.node.span)
    }

    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.path.clone(), message).at(self.node.span)
    }

    fn wrong_type(&self, cx: &mut Context<'_>, wanted: &str) {
        let found = described(self.node);
        let mut finding = self.error(format!("must be {wanted}, not {found}"));
        if let Value::Scalar(scalar) = &self.node.value
            && wanted.starts_with("a string")
        {
            finding = finding.hint(format!("quote it: '{}'", scalar.text));
        }
        cx.report(finding);
    }

    /// Whether it has a value that is not empty: Kuma takes an empty one for an absent one.
    pub(super) fn is_set(&self) -> bool {
        match &self.node.value {
            Value::Scalar(scalar) => !scalar.text.is_empty(),
            Value::Mapping(entries) => !entries.is_empty(),
            Value::Sequence(items) => !items.is_empty(),
        }
    }

    /// Its fields.
    pub(super) fn fields(&self, cx: &mut Context<'_>) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Mapping(entries) => {
                let fields = Fields::new(self.node.span, entries, self.path.clone());
                Some(Fields { form: cx.form, ..fields })
            }
            Value::Sequence(_) | Value::Scalar(_) => {
                self.wrong_type(cx, "a mapping");
                None
            }
        }
    }

    /// The entries of a map whose keys are data.
    pub(super) fn entries(&self, cx: &mut Context<'_>) -> Option<&'n [Entry]> {
        match &self.node.value {
            Value::Mapping(entries) => Some(entries),
            Value::Sequence(_) | Value::Scalar(_) => {
                self.wrong_type(cx, "a mapping");
                None
            }
        }
    }

    /// The value of an entry of such a map.
    pub(super) fn at_key(&self, entry: &'n Entry) -> Field<'n> {
        let path = format!("{}[{:?}]", self.path, entry.key);
        Field { node: &entry.value, path, key_span: entry.key_span }
    }

    /// Its items.
    pub(super) fn items(&self, cx: &mut Context<'_>) -> Option<Vec<Field<'n>>> {
        match &self.node.value {
            Value::Sequence(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, node)| Field {
                        node,
                        path: format!("{}[{index}]", self.path),
                        key_span: node.span,
                    })
                    .collect(),
            ),
            Value::Mapping(_) | Value::Scalar(_) => {
                self.wrong_type(cx, "a list");
                None
            }
        }
    }

    /// A string. Numbers and booleans must be quoted to be one.
    pub(super) fn string(&self, cx: &mut Context<'_>) -> Option<&'n str> {
        match &self.node.value {
            Value::Scalar(Scalar { text, plain }) if !plain || meaning(text) == Meaning::String => {
                Some(text)
            }
            _ => {
                self.wrong_type(cx, "a string");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn one_of(
        &self,
        cx: &mut Context<'_>,
        words: &[&'static str],
    ) -> Option<&'static str> {
        #[cfg(test)]
        taken::one_of(self.node.span, words);
        let text = self.string(cx)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let mut finding = self.error(format!("`{text}` is none of {}", words.join(", ")));
            if let Some(word) = nearest(text, words) {
                finding = finding.hint(format!("did you mean `{word}`?"));
            }
            cx.report(finding);
        }
        found
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, cx: &mut Context<'_>) -> Option<bool> {
        if let Value::Scalar(Scalar { text, plain: true }) = &self.node.value
            && let Meaning::Bool(value) = meaning(text)
        {
            return Some(value);
        }
        self.wrong_type(cx, "true or false");
        None
    }

    /// A whole number; 64-bit ones may be quoted (the JSON form of protobuf).
    fn integer(&self, cx: &mut Context<'_>, max: u64) -> Option<u64> {
        if let Value::Scalar(Scalar { text, plain }) = &self.node.value
            && meaning(text) == Meaning::Integer
            && (*plain || max > u64::from(u32::MAX))
        {
            if let Ok(value) = text.parse::<u64>()
                && value <= max
            {
                return Some(value);
            }
            cx.report(self.error(format!("must be in the range [0, {max}], is {text}")));
            return None;
        }
        self.wrong_type(cx, "a whole number");
        None
    }

    pub(super) fn u32(&self, cx: &mut Context<'_>) -> Option<u32> {
        self.integer(cx, u64::from(u32::MAX)).and_then(|value| u32::try_from(value).ok())
    }

    pub(super) fn u64(&self, cx: &mut Context<'_>) -> Option<u64> {
        self.integer(cx, u64::MAX)
    }

    /// A port from 1 to 65,535.
    pub(super) fn port(&self, cx: &mut Context<'_>) -> Option<NonZeroU16> {
        if let Value::Scalar(Scalar { text, plain: true }) = &self.node.value
            && meaning(text) == Meaning::Integer
        {
            let port = text.parse::<u16>().ok().and_then(NonZeroU16::new);
            if port.is_none() {
                cx.report(self.error(PORT_RANGE));
            }
            return port;
        }
        self.wrong_type(cx, "a port number");
        None
    }

    /// An IP address.
    pub(super) fn ip(&self, cx: &mut Context<'_>, name: &str) -> Option<IpAddr> {
        let text = self.string(cx)?;
        let address = text.parse().ok();
        if address.is_none() {
            cx.report(self.error(format!("{name} has to be valid IP address")));
        }
        address
    }
}

/// Kuma's words for a port that is none.
pub(super) const PORT_RANGE: &str = "port must be in the range [1, 65535]";

/// The fields of a mapping. Those that nobody asked for are reported by [`Fields::finish`].
pub(super) struct Fields<'n> {
    /// Where the mapping stands.
    pub(super) span: Span,
    /// Its path.
    pub(super) path: String,
    /// How its fields are spelled.
    pub(super) form: Form,
    entries: &'n [Entry],
    used: Vec<bool>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn new(span: Span, entries: &'n [Entry], path: String) -> Self {
        let (form, used, known) = (Form::default(), vec![false; entries.len()], Vec::new());
        Self { span, path, form, entries, used, known }
    }

    /// A finding about a field that is not there: it stands where the mapping stands.
    pub(super) fn missing(&self, name: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(key_path(&self.path, name), message).at(self.span)
    }

    /// The same as a warning.
    pub(super) fn missing_warning(&self, name: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(key_path(&self.path, name), message).at(self.span)
    }

    /// Takes a field by its lowerCamelCase name; in [`Form::Proto`] the `snake_case` spelling is
    /// the same field. Null is absent.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, name: &'static str) -> Option<Field<'n>> {
        self.take_written(cx, name).filter(|field| !field.node.is_null())
    }

    /// Takes a field and reads it. Outer `None`: it has an error; inner `None`: it is absent.
    pub(super) fn optional<T>(
        &mut self,
        cx: &mut Context<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Context<'_>, &Field<'n>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(cx, name) {
            Some(field) => read(cx, &field).map(Some),
            None => Some(None),
        }
    }

    /// Takes the body of what has a type: the field that belongs to the type of this name. `types`
    /// are the types there are and the field of each; `other` says what is wrong with a field of
    /// another type, given that type.
    pub(super) fn take_of_type(
        &mut self,
        cx: &mut Context<'_>,
        types: &[(&'static str, &'static str)],
        name: Option<&str>,
        other: impl Fn(&Field<'n>, &str) -> Diagnostic,
    ) -> Option<Field<'n>> {
        let wanted = types.iter().find(|(of, _)| Some(*of) == name).map(|(_, part)| *part);
        let mut body = None;
        for (at, (of, part)) in types.iter().enumerate() {
            // Two types may have one field.
            if types[..at].iter().any(|(_, before)| before == part) {
                continue;
            }
            let Some(written) = self.take(cx, part) else { continue };
            if wanted == Some(*part) {
                body = Some(written);
            } else if name.is_some() {
                cx.report(other(&written, of));
            }
        }
        body
    }

    /// Like [`Fields::take`], but null is a value.
    pub(super) fn take_written(
        &mut self,
        cx: &mut Context<'_>,
        name: &'static str,
    ) -> Option<Field<'n>> {
        self.known.push(name);
        #[cfg(test)]
        taken::field(self.span, name);
        let snake = self.form.other_spelling(name);
        let path = key_path(&self.path, name);
        let mut found: Option<Field<'n>> = None;
        for (entry, used) in self.entries.iter().zip(&mut self.used) {
            if entry.key != name && entry.key != snake {
                continue;
            }
            *used = true;
            if let Some(first) = &found {
                cx.report(
                    Diagnostic::error(
                        path.clone(),
                        format!("`{name}` and `{snake}` are the same field"),
                    )
                    .at(entry.key_span)
                    .related(first.key_span, "first here")
                    .hint("remove one of them"),
                );
            } else {
                found = Some(Field {
                    node: &entry.value,
                    path: path.clone(),
                    key_span: entry.key_span,
                });
            }
        }
        found
    }

    /// Takes `port`, which has to be there.
    pub(super) fn take_port(&mut self, cx: &mut Context<'_>) -> Option<NonZeroU16> {
        match self.take(cx, "port") {
            Some(field) => field.port(cx),
            None => {
                cx.report(self.missing("port", PORT_RANGE));
                None
            }
        }
    }

    /// Fields that are known and have no effect on routing: accepted as they are.
    pub(super) fn without_effect(&mut self, names: &[&'static str]) {
        for name in names {
            self.known.push(name);
            #[cfg(test)]
            taken::field(self.span, name);
            let snake = self.form.other_spelling(name);
            for (entry, used) in self.entries.iter().zip(&mut self.used) {
                *used |= entry.key == *name || entry.key == snake;
            }
        }
    }

    /// A field that would have an effect if it were carried out.
    pub(super) fn not_carried_out(
        &mut self,
        cx: &mut Context<'_>,
        name: &'static str,
        instead: &str,
    ) {
        if let Some(field) = self.take(cx, name) {
            cx.report(
                Diagnostic::warning(
                    field.path,
                    format!("`{name}` is not carried out yet: {instead}"),
                )
                .at(field.key_span),
            );
        }
    }

    /// Reports what nobody asked for: an error in kinds with a schema, a warning in others
    /// (decision D20).
    pub(super) fn finish(self, cx: &mut Context<'_>) {
        #[cfg(test)]
        taken::all_fields(self.span, self.form);
        let refused = cx.options.deny_unknown || self.form == Form::Schema;
        for (entry, used) in self.entries.iter().zip(&self.used) {
            if *used {
                continue;
            }
            let path = key_path(&self.path, &entry.key);
            let message = format!("unknown field `{}`", shortened(&entry.key));
            let mut finding = if refused {
                Diagnostic::error(path, message)
            } else {
                Diagnostic::warning(path, format!("{message}, it has no effect"))
            };
            finding = finding.at(entry.key_span);
            finding = match nearest(&entry.key, &self.known) {
                Some(name) => finding.hint(format!("did you mean `{name}`?")),
                None => finding.hint(format!("known here: {}", self.known.join(", "))),
            };
            cx.report(finding);
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
            snake.push(c.to_ascii_lowercase());
        } else {
            snake.push(c);
        }
    }
    snake
}

fn described(node: &Node) -> String {
    match &node.value {
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Scalar(Scalar { text, plain: false }) => format!("the string '{}'", shortened(text)),
        Value::Scalar(Scalar { text, plain: true }) => match meaning(text) {
            Meaning::Null => "null".to_owned(),
            Meaning::Bool(_) => format!("the boolean {text}"),
            Meaning::Integer | Meaning::OddInteger | Meaning::Float => format!("the number {text}"),
            Meaning::String => format!("`{}`", shortened(text)),
        },
    }
}
