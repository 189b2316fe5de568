//! References from policies and Dataplanes to objects that stand for services (semantics 4.2,
//! 4.3), and what all such objects have in common.

use std::{net::IpAddr, num::NonZeroU16};

use super::{
    Api, Diagnostic, Span, Tags,
    envelope::only,
    fields::{Context, Field, Fields},
    metadata,
    scalar::{Meaning, meaning},
    words::nearest,
    yaml::{Scalar, Value},
};

/// A kind of object that stands for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// A service of one zone.
    MeshService,
    /// A service outside the mesh.
    MeshExternalService,
    /// One service made of MeshServices in several zones.
    MeshMultiZoneService,
}

/// How a reference says which object it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferredBy {
    /// By name.
    Name {
        /// As written. For a MeshService without port and section it is a value of
        /// `kuma.io/service` first of all ([`ServiceRef::tag_service`]).
        name: String,
        /// As written; absent: that of the document that refers.
        namespace: Option<String>,
    },
    /// By labels, at least one.
    Labels(Tags),
}

/// A reference to an object that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].targetRef`.
    pub field: String,
    /// What it names.
    pub kind: ServiceKind,
    /// Which one.
    pub by: ReferredBy,
    /// `sectionName`: the name or number of a port. Wins over `port`.
    pub section: Option<String>,
    /// `port`: that of the service, not that of its endpoints.
    pub port: Option<NonZeroU16>,
}

impl ServiceRef {
    /// The value of `kuma.io/service` that the reference names, up to Kuma 2.14: a MeshService
    /// by name, without port and section.
    pub fn tag_service(&self) -> Option<&str> {
        match (self.kind, &self.by) {
            (ServiceKind::MeshService, ReferredBy::Name { name, .. })
                if self.section.is_none() && self.port.is_none() =>
            {
                Some(name)
            }
            _ => None,
        }
    }
}

/// One port of an object that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.ports[0]`.
    pub field: String,
    /// The port that clients dial and references name.
    pub port: NonZeroU16,
    /// `name`; a `sectionName` means either this or the decimal port.
    pub name: Option<String>,
    /// `targetPort`. Absent: no inbound matches (semantics 2.6). A MeshMultiZoneService has none.
    pub target: Option<TargetPort>,
    /// `appProtocol` in lower case; `tcp` where absent.
    pub protocol: String,
}

/// Which inbounds a port of a MeshService leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// Those with this `port`.
    Number(NonZeroU16),
    /// Those with this `name`.
    Name(String),
}

/// What a control plane has written below `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// `vips[].ip`, `vip.ip`.
    pub vips: Vec<IpAddr>,
    /// `addresses[].hostname`.
    pub hostnames: Vec<String>,
}

/// The parts of a `targetRef` or `backendRef`. Which of them may be there depends on the kind.
pub(super) struct Written<'n> {
    /// What else stands there.
    pub(super) fields: Fields<'n>,
    field: Field<'n>,
    kind: Option<Field<'n>>,
    parts: Vec<(&'static str, Field<'n>)>,
}

/// Every field that a reference may have in any version, but for `kind`, `port` and `weight`.
const PARTS: [&str; 7] =
    ["name", "namespace", "labels", "tags", "mesh", "sectionName", "proxyTypes"];

/// What Kuma 3 took away: it refers by `labels` alone.
const NOT_IN_KUMA_3: [&str; 5] = ["name", "namespace", "tags", "mesh", "proxyTypes"];

impl<'n> Written<'n> {
    /// Takes a reference apart.
    pub(super) fn new(cx: &mut Context<'_>, field: &Field<'n>) -> Option<Self> {
        let mut fields = field.fields(cx)?;
        let kind = fields.take(cx, "kind");
        let parts =
            PARTS.into_iter().filter_map(|name| Some((name, fields.take(cx, name)?))).collect();
        Some(Self { fields, field: field.clone(), kind, parts })
    }

    /// The kind, if it is one of `kinds`. Of others nothing else is judged.
    pub(super) fn kind(
        &self,
        cx: &mut Context<'_>,
        kinds: &[&'static str],
    ) -> Option<&'static str> {
        let Some(field) = self.kind.as_ref().filter(|field| field.is_set()) else {
            cx.report(
                self.fields
                    .missing("kind", "must be set")
                    .hint(format!("here it may be {}", kinds.join(", "))),
            );
            return None;
        };
        #[cfg(test)]
        super::taken::one_of(field.node.span, kinds);
        let text = field.string(cx)?;
        let Some(kind) = kinds.iter().find(|kind| **kind == text).copied() else {
            let finding = field.error(format!("value '{text}' is not supported"));
            cx.report(match nearest(text, kinds) {
                Some(kind) => finding.hint(format!("did you mean `{kind}`?")),
                None => finding.hint(format!("here it may be {}", kinds.join(", "))),
            });
            return None;
        };
        if only(cx.options, &[Api::Kuma3]) {
            for (name, part) in self.parts.iter().filter(|(name, _)| NOT_IN_KUMA_3.contains(name)) {
                cx.report(
                    Diagnostic::error(
                        part.path.clone(),
                        format!("unknown field `{name}`: Kuma 3 refers by labels"),
                    )
                    .at(part.key_span)
                    .hint("e.g. `labels: {kuma.io/display-name: NAME}`"),
                );
            }
        }
        Some(kind)
    }

    /// Whether this is the kind as written.
    pub(super) fn is_kind(&self, kind: &str) -> bool {
        let value = self.kind.as_ref().map(|field| &field.node.value);
        matches!(value, Some(Value::Scalar(scalar)) if scalar.text == kind)
    }

    /// Says something about the kind.
    pub(super) fn warn_of_kind(&self, cx: &mut Context<'_>, message: &str) {
        if let Some(field) = &self.kind {
            cx.report(field.warning(message));
        }
    }

    /// A part that is given, empty or not.
    pub(super) fn part(&self, name: &str) -> Option<&Field<'n>> {
        self.parts.iter().find(|(part, _)| *part == name).map(|(_, field)| field)
    }

    /// A part that is given and not empty.
    fn set(&self, name: &str) -> Option<&Field<'n>> {
        self.part(name).filter(|field| field.is_set())
    }

    /// Reports every part that this kind does not have.
    pub(super) fn allow(&self, cx: &mut Context<'_>, kind: &str, allowed: &[&str]) {
        let gone = only(cx.options, &[Api::Kuma3]);
        for (name, part) in &self.parts {
            let said = gone && NOT_IN_KUMA_3.contains(name);
            if !allowed.contains(name) && part.is_set() && !said {
                let message = format!("must not be set with kind {kind}");
                cx.report(Diagnostic::error(part.path.clone(), message).at(part.key_span));
            }
        }
    }

    /// `name`, which must be there.
    pub(super) fn name(&self, cx: &mut Context<'_>, kind: &str) -> Option<String> {
        let Some(field) = self.set("name") else {
            let message = format!("must be set with kind {kind}");
            cx.report(match self.part("name") {
                Some(field) => field.error(message),
                None => self.fields.missing("name", message),
            });
            return None;
        };
        let name = field.string(cx)?;
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        if !name.bytes().all(allowed) {
            cx.report(field.error("invalid characters: must consist of lower case latin characters, numbers and the symbols `.`, `-`, `_`"));
            return None;
        }
        Some(name.to_owned())
    }

    /// By name or by labels, one of them and not both. `None`: neither, or an error.
    pub(super) fn given_by(&self, cx: &mut Context<'_>, kind: &str) -> Option<ReferredBy> {
        let errors_before = cx.errors();
        let labels = metadata::labels(cx, self.part("labels"));
        let by_name = self.set("name").or_else(|| self.set("namespace"));
        if let (Some(labels), Some(by_name)) = (self.set("labels"), by_name) {
            if !only(cx.options, &[Api::Kuma3]) {
                cx.report(
                    Diagnostic::error(
                        labels.path.clone(),
                        "either labels or name and namespace must be specified",
                    )
                    .at(labels.key_span)
                    .related(by_name.key_span, format!("`{}` is here", by_name.path))
                    .hint("keep one of them"),
                );
            }
            return None;
        }
        if by_name.is_none() {
            let valid = self.set("labels").is_some() && cx.errors() == errors_before;
            return valid.then_some(ReferredBy::Labels(labels));
        }
        let name = self.name(cx, kind)?;
        let namespace = match self.set("namespace") {
            Some(field) => Some(field.string(cx)?.to_owned()),
            None => None,
        };
        Some(ReferredBy::Name { name, namespace })
    }

    /// The same where something must be given.
    pub(super) fn by(&self, cx: &mut Context<'_>, kind: &str) -> Option<ReferredBy> {
        let given = ["name", "namespace", "labels"].iter().any(|part| self.set(part).is_some());
        if !given {
            if only(cx.options, &[Api::Kuma3]) {
                let message = format!("must be set with kind {kind}");
                cx.report(
                    self.fields
                        .missing("labels", message)
                        .hint("e.g. `labels: {kuma.io/display-name: NAME}`"),
                );
            } else {
                self.name(cx, kind);
            }
            return None;
        }
        self.given_by(cx, kind)
    }

    /// A reference to an object that stands for a service. `port` was read by the caller.
    pub(super) fn service(
        &self,
        cx: &mut Context<'_>,
        kind: &str,
        port: Option<NonZeroU16>,
    ) -> Option<ServiceRef> {
        let (service_kind, section_allowed) = match kind {
            "MeshExternalService" => (ServiceKind::MeshExternalService, false),
            "MeshMultiZoneService" => (ServiceKind::MeshMultiZoneService, true),
            _ => (ServiceKind::MeshService, true),
        };
        let allowed: &[&str] = &["name", "namespace", "labels", "sectionName"];
        let errors_before = cx.errors();
        self.allow(cx, kind, if section_allowed { allowed } else { &allowed[..3] });
        let section = self.set("sectionName").filter(|_| section_allowed).and_then(|field| {
            // A number is the decimal port.
            match &field.node.value {
                Value::Scalar(Scalar { text, plain: true })
                    if meaning(text) == Meaning::Integer =>
                {
                    Some(text.clone())
                }
                _ => field.string(cx).map(str::to_owned),
            }
        });
        let by = self.by(cx, kind)?;
        (cx.errors() == errors_before).then(|| ServiceRef {
            span: self.field.node.span,
            field: self.field.path.clone(),
            kind: service_kind,
            by,
            section,
            port,
        })
    }
}
