//! `ports` and `status` of objects that stand for services.

use std::{collections::BTreeMap, net::IpAddr};

use super::super::{
    Api, Diagnostic, ServicePort, ServiceStatus, Span, TargetPort,
    envelope::only,
    fields::{Context, Field},
    scalar::{Meaning, meaning},
    tags::PROTOCOLS,
    yaml::{Scalar, Value},
};

/// Protocols of Kuma 3: without kafka.
const PROTOCOLS_OF_KUMA_3: &[&str] = &["grpc", "http", "http2", "tcp"];

/// Whose ports they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// They have a `targetPort`, and up to Kuma 2.14 any protocol.
    MeshService,
    /// A name that is given is not empty.
    MeshMultiZoneService,
}

/// Reads `ports`.
pub(super) fn ports(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    owner: Owner,
) -> Option<Vec<ServicePort>> {
    let items = field.items(cx)?;
    let read: Vec<Option<ServicePort>> = items.iter().map(|item| port(cx, item, owner)).collect();
    let mut first: BTreeMap<(u16, &str), Span> = BTreeMap::new();
    for port in read.iter().flatten() {
        if let Some(other) = first.insert((port.port.get(), &port.protocol), port.span) {
            cx.report(
                Diagnostic::error(
                    port.field.clone(),
                    format!("port {} with protocol {} stands twice", port.port, port.protocol),
                )
                .at(port.span)
                .related(other, "the other is here")
                .hint("remove one of them"),
            );
        }
    }
    read.into_iter().collect()
}

fn port(cx: &mut Context<'_>, item: &Field<'_>, owner: Owner) -> Option<ServicePort> {
    let mut fields = item.fields(cx)?;
    let errors_before = cx.errors();
    let port = fields.take_port(cx);
    let name = fields.take(cx, "name").and_then(|field| {
        let name = field.string(cx)?;
        if name.is_empty() && owner == Owner::MeshMultiZoneService {
            cx.report(field.error("must not be empty").hint("leave it out for the decimal port"));
        }
        Some(name.to_owned()).filter(|name| !name.is_empty())
    });
    let target = match owner {
        Owner::MeshService => target_port(cx, &mut fields),
        Owner::MeshMultiZoneService => None,
    };
    let protocol = match fields.take(cx, "appProtocol").filter(Field::is_set) {
        Some(field) => protocol(cx, &field, owner),
        None => Some("tcp".to_owned()),
    };
    fields.finish(cx);
    if cx.errors() > errors_before {
        return None;
    }
    let (span, field) = (item.node.span, item.path.clone());
    Some(ServicePort { span, field, port: port?, name, target, protocol: protocol? })
}

/// `targetPort`: a number, or the name of a port.
fn target_port(cx: &mut Context<'_>, fields: &mut super::Fields<'_>) -> Option<TargetPort> {
    let Some(field) = fields.take(cx, "targetPort") else {
        cx.report(
            fields
                .missing_warning("targetPort", "not given: no inbound matches this port")
                .hint("give the `port` or the `name` of the inbounds"),
        );
        return None;
    };
    match &field.node.value {
        Value::Scalar(Scalar { text, plain: true }) if meaning(text) == Meaning::Integer => {
            field.port(cx).map(TargetPort::Number)
        }
        _ => {
            let name = field.string(cx)?;
            if name.is_empty() {
                cx.report(field.error("must not be empty"));
                return None;
            }
            Some(TargetPort::Name(name.to_owned()))
        }
    }
}

/// `appProtocol`, in any case of letters (semantics 2.1).
fn protocol(cx: &mut Context<'_>, field: &Field<'_>, owner: Owner) -> Option<String> {
    let protocol = field.string(cx)?.to_ascii_lowercase();
    let kuma_3 = only(cx.options, &[Api::Kuma3]);
    let known = if kuma_3 { PROTOCOLS_OF_KUMA_3 } else { PROTOCOLS };
    if !known.contains(&protocol.as_str()) {
        let finding = if kuma_3 || owner == Owner::MeshMultiZoneService {
            field.error(format!("appProtocol must be one of: {}", known.join(", ")))
        } else {
            field.warning(format!("`{protocol}` is none of {}: taken as tcp", known.join(", ")))
        };
        cx.report(finding);
    }
    Some(protocol)
}

/// Reads `status`. What a control plane writes there grows with its versions, so fields that are
/// not known are none of ours.
pub(super) fn status(cx: &mut Context<'_>, field: Option<&Field<'_>>) -> Option<ServiceStatus> {
    let mut status = ServiceStatus::default();
    let Some(field) = field else { return Some(status) };
    let errors_before = cx.errors();
    let mut fields = field.fields(cx)?;
    let several = fields.take(cx, "vips").and_then(|field| field.items(cx)).unwrap_or_default();
    let one = fields.take(cx, "vip");
    for vip in several.iter().chain(&one) {
        status.vips.extend(entry(cx, vip, "ip").and_then(|ip| address(cx, &ip)));
    }
    let addresses = fields.take(cx, "addresses").and_then(|field| field.items(cx));
    for item in addresses.iter().flatten() {
        let name = entry(cx, item, "hostname");
        status.hostnames.extend(name.and_then(|name| name.string(cx).map(str::to_owned)));
    }
    (cx.errors() == errors_before).then_some(status)
}

/// A field of an item of a status, if it is given.
fn entry<'n>(cx: &mut Context<'_>, item: &Field<'n>, name: &'static str) -> Option<Field<'n>> {
    item.fields(cx)?.take(cx, name).filter(Field::is_set)
}

fn address(cx: &mut Context<'_>, field: &Field<'_>) -> Option<IpAddr> {
    field.ip(cx, "ip").map(|address| address.to_canonical())
}
