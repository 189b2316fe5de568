//! `networking.inbound[]`.

use std::net::IpAddr;

use super::super::{
    Api, Diagnostic, Inbound, PROTOCOL_TAG, SERVICE_TAG, Tags,
    envelope::only,
    fields::{Context, Field, Fields},
    tags::{self, TagRules},
};

/// `state`.
pub(in super::super) const STATES: &[&str] = &["Ready", "NotReady", "Ignored"];

/// Reads one inbound of a Dataplane whose own address is `own`.
pub(super) fn inbound(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    own: Option<IpAddr>,
) -> Option<Inbound> {
    let mut fields = field.fields(cx)?;
    let errors_before = cx.errors();
    let port = fields.take_port(cx);
    let address = fields
        .take(cx, "address")
        .and_then(|field| field.ip(cx, "address"))
        .map(|address| address.to_canonical());
    let service_address_field = fields.take(cx, "serviceAddress");
    let service_address = service_address_field
        .as_ref()
        .and_then(|field| field.ip(cx, "serviceAddress"))
        .map(|address| address.to_canonical());
    // An explicit 0 means absent, as everywhere in protobuf.
    let service_port = fields
        .take(cx, "servicePort")
        .filter(|field| !is_zero(field))
        .and_then(|field| field.port(cx));
    if let Some(field) = &service_address_field
        && service_address.is_some()
        && (service_address == own || service_address == address)
        && (service_port.is_none() || service_port == port)
    {
        cx.report(
            field.error("serviceAddress and servicePort has to differ from address and port"),
        );
    }

    let tags = inbound_tags(cx, &mut fields);
    let state = fields.take(cx, "state").and_then(|field| field.one_of(cx, STATES));
    // `health: {}` decodes as not ready; only an absent one means healthy.
    let healthy = match fields.take(cx, "health") {
        Some(health) => health.fields(cx).is_some_and(|mut health| {
            let ready = health.take(cx, "ready").and_then(|ready| ready.boolean(cx));
            health.finish(cx);
            ready.unwrap_or(false)
        }),
        None => true,
    };
    if let Some(probe) = fields.take(cx, "serviceProbe") {
        super::aside::service_probe(cx, &probe);
    }
    let name = fields
        .take(cx, "name")
        .and_then(|field| field.string(cx))
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    if only(cx.options, &[Api::Kuma3]) {
        fields.without_effect(&["protocol"]);
    }
    fields.finish(cx);
    if cx.errors() > errors_before {
        return None;
    }
    Some(Inbound {
        span: field.node.span,
        address,
        port: port?,
        name,
        service_address,
        service_port,
        tags: tags?,
        ready: state.is_none_or(|state| state == "Ready") && healthy,
    })
}

fn inbound_tags(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<Tags> {
    let field = fields.take(cx, "tags");
    let path = format!("{}.tags", fields.path);
    let unprefixed = field.as_ref().is_some_and(|field| super::prefixed(cx, field));
    let rules = TagRules { unprefixed, ..TagRules::default() };
    let protocol_entry = field.as_ref().and_then(|field| {
        field
            .node
            .entry(PROTOCOL_TAG)
            .or_else(|| field.node.entry("protocol").filter(|_| unprefixed))
    });
    let tags = tags::tags(cx, &path, field.as_ref(), fields.span, rules);

    if let Some(tags) = &tags
        && let Some(protocol) = tags.get(PROTOCOL_TAG)
        && let Some(entry) = protocol_entry
        && !tags::is_protocol(protocol)
    {
        cx.report(
            Diagnostic::error(
                format!("{path}[{:?}]", entry.key),
                format!(
                    "tag \"{PROTOCOL_TAG}\" has an invalid value \"{protocol}\". Allowed values: {}",
                    tags::PROTOCOLS.join(", ")
                ),
            )
            .at(entry.value.span),
        );
    }
    let named =
        field.as_ref().is_some_and(|field| field.node.entry(SERVICE_TAG).is_some() || unprefixed);
    if !named {
        let at = field.as_ref().map_or(fields.span, |field| field.node.span);
        let path = format!("{path}[\"{SERVICE_TAG}\"]");
        match cx.options.api {
            Some(Api::Kuma27 | Api::Kuma29) => {
                cx.report(Diagnostic::error(path, "tag has to exist").at(at));
            }
            // Kuma 3 has inbounds without tags, for MeshServices.
            Some(Api::Kuma3) => {}
            None => cx.report(
                Diagnostic::warning(
                    path,
                    "tag does not exist: this inbound is an endpoint of no service",
                )
                .at(at)
                .hint(format!("add the tag `{SERVICE_TAG}`; only Kuma 3 does without")),
            ),
        }
    }
    tags
}

fn is_zero(field: &Field<'_>) -> bool {
    use super::super::yaml::{Scalar, Value};
    matches!(&field.node.value, Value::Scalar(Scalar { text, plain: true }) if text == "0")
}
