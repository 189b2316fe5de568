//! Name, mesh, labels and time of creation of Kuma's kinds (semantics 1).

use super::{
    Diagnostic, Meta, Span, Tags,
    fields::{Context, Field, Fields},
    kinds::Kind,
    tags, time,
};

/// Longest name (semantics 1).
pub(super) const NAME_CHARACTERS_MAX: usize = 253;

/// Reads the name, and where it stands.
pub(super) fn name(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    field: Option<&Field<'_>>,
) -> (Option<String>, Span) {
    let Some(field) = field else {
        cx.report(
            Diagnostic::error("name", "cannot be empty").at(fields.span).hint("give it a name"),
        );
        return (None, fields.span);
    };
    let at = field.node.span;
    let Some(name) = field.string(cx) else { return (None, at) };
    if name.is_empty() {
        cx.report(field.error("cannot be empty"));
    } else if name.chars().count() > NAME_CHARACTERS_MAX {
        cx.report(field.error(format!("cannot be longer than {NAME_CHARACTERS_MAX} characters")));
    } else if !is_subdomain(name) {
        cx.report(field.error(SUBDOMAIN_RULE));
    } else {
        return (Some(name.to_owned()), at);
    }
    (None, at)
}

/// What a name must be, in Kuma's words.
pub(super) const SUBDOMAIN_RULE: &str = "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/// Whether it is a lowercase subdomain of RFC 1123 (2.1).
pub(super) fn is_subdomain(name: &str) -> bool {
    name.split('.').all(|label| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.bytes().all(|byte| inner(byte) || byte == b'-')
            && label.bytes().next().is_some_and(inner)
            && label.bytes().last().is_some_and(inner)
    })
}

/// Reads the mesh, and where it stands. A Mesh is in none.
pub(super) fn mesh(
    cx: &mut Context<'_>,
    kind: Kind,
    fields: &Fields<'_>,
    field: Option<&Field<'_>>,
    labels: &Tags,
    kubernetes: bool,
) -> (Option<String>, Span) {
    if kind == Kind::Mesh {
        if let Some(field) = field {
            cx.report(
                Diagnostic::warning("mesh", "a Mesh is in no mesh, this has no effect")
                    .at(field.key_span),
            );
        }
        return (None, fields.span);
    }
    let labelled = kubernetes && kind.has_schema();
    if let Some(field) = field.filter(|_| labelled) {
        let hint = "write it as the label `kuma.io/mesh`; without it, it is `default`";
        cx.report(Diagnostic::error("mesh", "unknown field `mesh`").at(field.key_span).hint(hint));
        return (None, fields.span);
    }
    let Some(field) = field else {
        if let Some(label) = labels.get("kuma.io/mesh").filter(|_| kubernetes) {
            return (Some(label.clone()), fields.span);
        }
        if labelled {
            return (Some("default".to_owned()), fields.span);
        }
        cx.report(
            Diagnostic::error("mesh", "cannot be empty")
                .at(fields.span)
                .hint("add `mesh: default`"),
        );
        return (None, fields.span);
    };
    let at = field.node.span;
    let Some(mesh) = field.string(cx) else { return (None, at) };
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    if mesh.is_empty() {
        cx.report(field.error("cannot be empty").hint("write `mesh: default`"));
    } else if !mesh.bytes().all(allowed) {
        cx.report(field.error("invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols"));
    } else {
        return (Some(mesh.to_owned()), at);
    }
    (None, at)
}

/// Reads a map of labels. An absent one is empty.
pub(super) fn labels(cx: &mut Context<'_>, field: Option<&Field<'_>>) -> Tags {
    let Some(field) = field else { return Tags::new() };
    let entries = field.entries(cx).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| {
            let value = tags::value(cx, &field.at_key(entry), "label")?;
            Some((entry.key.clone(), value))
        })
        .collect()
}

/// Reads a time of creation: seconds since 1970.
pub(super) fn created(cx: &mut Context<'_>, field: Option<&Field<'_>>) -> Option<f64> {
    let field = field?;
    let text = field.string(cx)?;
    let seconds = time::seconds(text);
    if seconds.is_none() {
        cx.report(
            field
                .error(format!("`{text}` is no time stamp"))
                .hint("write it as in RFC 3339, e.g. 2026-03-01T10:00:00Z"),
        );
    }
    seconds
}

/// The parts of a resource's identity.
pub(super) struct Who {
    pub(super) kind: Kind,
    pub(super) mesh: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) labels: Tags,
    pub(super) created: Option<f64>,
}

impl Who {
    /// Puts them together.
    pub(super) fn meta(self, span: Span) -> Meta {
        // Other old kinds than Dataplane are cluster-scoped, and a namespace that K0.5 examples
        // give them never mattered.
        let namespaced = self.kind.has_internal_name();
        let name = match &self.namespace {
            Some(namespace) if namespaced => format!("{}.{namespace}", self.name),
            _ => self.name,
        };
        let display_name =
            self.labels.get("kuma.io/display-name").cloned().unwrap_or_else(|| name.clone());
        Meta {
            kind: self.kind.name(),
            mesh: if self.kind == Kind::Mesh { name.clone() } else { self.mesh },
            namespace: self.namespace,
            name,
            display_name,
            labels: self.labels,
            created: self.created,
            item: 0,
            span,
        }
    }
}
