//! `networking.outbound[]`.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
};

use super::super::{
    Api, Diagnostic, Outbound, ReferredBy, ReferringOutbound, SERVICE_TAG, ServiceKind, ServiceRef,
    Tags,
    envelope::only,
    fields::{Context, Field, Fields, PORT_RANGE},
    metadata,
    tags::{self, TagRules},
};

/// What became of an outbound.
pub(super) struct Read {
    pub(super) address: IpAddr,
    pub(super) port: Option<NonZeroU16>,
    /// It names a service by tags, and is valid.
    pub(super) by_tags: Option<Outbound>,
    /// It names an object, and is valid.
    pub(super) by_reference: Option<ReferringOutbound>,
}

/// Reads the outbound at `index` of the list.
pub(super) fn outbound(cx: &mut Context<'_>, field: &Field<'_>, index: u32) -> Read {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut read = Read { address: loopback, port: None, by_tags: None, by_reference: None };
    let Some(mut fields) = field.fields(cx) else { return read };
    read.port = fields.take_port(cx);
    let address = match fields.take(cx, "address") {
        Some(field) => field.ip(cx, "address").map(|address| address.to_canonical()),
        None => Some(loopback),
    };
    read.address = address.unwrap_or(loopback);

    let reference = fields.take(cx, "backendRef");
    let service = fields.take(cx, "service");
    let tags_field = fields.take(cx, "tags");
    let some_tags = tags_field
        .as_ref()
        .is_some_and(|field| field.entries(cx).is_some_and(|entries| !entries.is_empty()));
    let mut to = None;
    if let Some(reference) = &reference {
        to = backend_ref(cx, reference);
        if some_tags || service.is_some() {
            cx.report(
                Diagnostic::error(
                    reference.path.clone(),
                    "both backendRef and tags/service cannot be defined",
                )
                .at(reference.key_span),
            );
        }
    }
    let tags = if reference.is_some() {
        None
    } else {
        outbound_tags(cx, &fields, tags_field.filter(|_| some_tags).as_ref(), service.as_ref())
    };
    fields.finish(cx);
    let span = field.node.span;
    if let (Some(address), Some(port)) = (address, read.port) {
        read.by_tags = tags.map(|tags| Outbound { span, index, address, port, tags });
        read.by_reference = to.map(|to| ReferringOutbound { span, index, address, port, to });
    }
    read
}

fn outbound_tags(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    tags_field: Option<&Field<'_>>,
    service: Option<&Field<'_>>,
) -> Option<Tags> {
    let path = format!("{}.tags", fields.path);
    let Some(field) = tags_field else {
        // Kuma 0.5's spelling, which all of 2.x still takes.
        if let Some(service) = service {
            let name = service.string(cx).filter(|name| !name.is_empty())?;
            return Some(Tags::from([(SERVICE_TAG.to_owned(), name.to_owned())]));
        }
        cx.report(
            Diagnostic::error(path, format!("mandatory tag \"{SERVICE_TAG}\" is missing"))
                .at(fields.span)
                .hint(format!("add `tags: {{{SERVICE_TAG}: NAME}}`")),
        );
        return None;
    };
    if let Some(service) = service {
        cx.report(
            Diagnostic::warning(service.path.clone(), "has no effect next to `tags`")
                .at(service.key_span),
        );
    }
    let unprefixed = super::prefixed(cx, field);
    let rules = TagRules { service: true, unprefixed, ..TagRules::default() };
    tags::tags(cx, &path, Some(field), fields.span, rules)
}

/// Kinds that a reference may name.
pub(in super::super) const REFERRED: &[(&str, ServiceKind)] = &[
    ("MeshExternalService", ServiceKind::MeshExternalService),
    ("MeshMultiZoneService", ServiceKind::MeshMultiZoneService),
    ("MeshService", ServiceKind::MeshService),
];

fn backend_ref(cx: &mut Context<'_>, field: &Field<'_>) -> Option<ServiceRef> {
    let errors_before = cx.errors();
    let mut fields = field.fields(cx)?;
    let kind_field = fields.take(cx, "kind");
    let written = kind_field.as_ref().and_then(|kind| kind.string(cx)).unwrap_or_default();
    // Kuma 2.7 knows one kind, by name.
    let old = only(cx.options, &[Api::Kuma27]);
    let kinds = if old { &REFERRED[2..] } else { REFERRED };
    let kind = kinds.iter().find(|(name, _)| *name == written).map(|(_, kind)| *kind);
    if kind.is_none() {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        let message = format!("invalid value. Available values are: {}", names.join(","));
        let at = kind_field.as_ref().map_or(fields.span, |kind| kind.node.span);
        cx.report(Diagnostic::error(format!("{}.kind", fields.path), message).at(at));
    }
    let name = fields
        .take(cx, "name")
        .and_then(|name| name.string(cx))
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    let namespace =
        fields.take(cx, "namespace").and_then(|namespace| namespace.string(cx)).map(str::to_owned);
    let labels_field = fields.take(cx, "labels");
    let has_labels = labels_field.as_ref().is_some_and(Field::is_set);
    let labels = metadata::labels(cx, labels_field.as_ref());
    if old && name.is_none() {
        cx.report(fields.missing("name", "cannot be empty"));
    } else if name.is_none() && !has_labels {
        cx.report(field.error("either 'name' or 'labels' should be specified"));
    }
    if let Some(labels_field) = labels_field.filter(|_| name.is_some() && has_labels) {
        cx.report(
            Diagnostic::warning(labels_field.path, "has no effect next to `name`")
                .at(labels_field.key_span),
        );
    }
    // The port of a MeshExternalService is that of its endpoints.
    let external = kind == Some(ServiceKind::MeshExternalService);
    let port = match fields.take(cx, "port") {
        Some(port) if !external => port.port(cx),
        None if !external => {
            cx.report(fields.missing("port", PORT_RANGE));
            None
        }
        Some(_) | None => None,
    };
    fields.finish(cx);
    if cx.errors() > errors_before {
        return None;
    }
    let by = match name {
        Some(name) => ReferredBy::Name { name, namespace },
        None => ReferredBy::Labels(labels),
    };
    let (span, field) = (field.node.span, field.path.clone());
    Some(ServiceRef { span, field, kind: kind?, by, section: None, port })
}
