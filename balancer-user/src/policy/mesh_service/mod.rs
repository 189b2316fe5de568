//! Objects that stand for services: `MeshService`, `MeshExternalService`,
//! `MeshMultiZoneService` (semantics 2.6 to 2.8), and the older `ExternalService` (2.5).

pub(super) mod external;
mod multi_zone;
mod ports;

use std::num::NonZeroU16;

use super::{
    Api, Diagnostic, Host, Meta, ServicePort, ServiceStatus, Span, Tags,
    envelope::only,
    fields::{Context, Field, Fields},
    metadata,
    tags::{self, TagRules},
};

pub(super) use external::{external_host, mesh_external_service};
pub(super) use multi_zone::mesh_multi_zone_service;

/// `MeshService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshService {
    /// Identity.
    pub meta: Meta,
    /// `selector`: whose inbounds are its endpoints.
    pub selector: DataplaneSelector,
    /// `ports[]` in written order; (port, protocol) is unique.
    pub ports: Vec<ServicePort>,
    /// `state` is `Available`; absent: it is not.
    pub available: bool,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// `selector` of a MeshService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataplaneSelector {
    /// Absent: no endpoints.
    Nothing,
    /// `dataplaneTags`: one inbound of the Dataplane has all these.
    Tags(Tags),
    /// `dataplaneLabels.matchLabels`: the Dataplane has all these labels.
    Labels(Tags),
    /// `dataplaneRef.name`: this Dataplane.
    Name(String),
}

/// `MeshExternalService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshExternalService {
    /// Identity.
    pub meta: Meta,
    /// `match.port`: what clients dial.
    pub port: NonZeroU16,
    /// `match.protocol`; `tcp` where absent.
    pub protocol: String,
    /// `endpoints[]` in written order.
    pub endpoints: Vec<ExternalEndpoint>,
    /// `tls.enabled`: the endpoints expect TLS.
    pub tls: bool,
    /// `extension.type`: a plug-in of Kuma's knows the endpoints.
    pub extension: Option<String>,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// One of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalEndpoint {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.endpoints[0]`.
    pub field: String,
    /// `address`.
    pub address: Host,
    /// `port`.
    pub port: NonZeroU16,
    /// `priority`: others take over as those of smaller numbers fail; 0 where absent.
    pub priority: u32,
}

/// `MeshMultiZoneService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshMultiZoneService {
    /// Identity.
    pub meta: Meta,
    /// `selector.meshService.matchLabels`: MeshServices that have all these labels; at least one.
    pub match_labels: Tags,
    /// `ports[]` in written order, at least one.
    pub ports: Vec<ServicePort>,
    /// What the control plane allocated.
    pub status: ServiceStatus,
}

/// `ExternalService`: an endpoint of a service of the tag `kuma.io/service`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalService {
    /// Identity.
    pub meta: Meta,
    /// `tags`, `kuma.io/service` among them.
    pub tags: Tags,
    /// Host of `networking.address`.
    pub address: Host,
    /// Port of `networking.address`.
    pub port: NonZeroU16,
    /// `networking.tls.enabled`: the endpoint expects TLS.
    pub tls: bool,
}

/// `state`.
pub(super) const STATES: &[&str] = &["Available", "Unavailable"];

/// Reads a MeshService. `None`: it has an error.
pub(super) fn mesh_service(
    cx: &mut Context<'_>,
    meta: Meta,
    name_span: Span,
    mut spec: Fields<'_>,
    status: Option<&Field<'_>>,
) -> Option<MeshService> {
    label_name(cx, &meta, name_span);
    let selector = match spec.take(cx, "selector") {
        Some(field) => selector(cx, &field),
        None => Some(DataplaneSelector::Nothing),
    };
    let ports = match spec.take(cx, "ports") {
        Some(field) => ports::ports(cx, &field, ports::Owner::MeshService),
        None => Some(Vec::new()),
    };
    let state = spec.take(cx, "state").and_then(|field| field.one_of(cx, STATES));
    spec.without_effect(&["identities"]);
    spec.finish(cx);
    let status = ports::status(cx, status);
    let available = state == Some("Available");
    Some(MeshService { meta, selector: selector?, ports: ports?, available, status: status? })
}

fn selector(cx: &mut Context<'_>, field: &Field<'_>) -> Option<DataplaneSelector> {
    let errors_before = cx.errors();
    let mut fields = field.fields(cx)?;
    // Tags go with Kuma 3, labels come with 2.14.
    let tags_field =
        if only(cx.options, &[Api::Kuma3]) { None } else { fields.take(cx, "dataplaneTags") };
    let labels_field = if only(cx.options, &[Api::Kuma27, Api::Kuma29]) {
        None
    } else {
        fields.take(cx, "dataplaneLabels")
    };
    let reference_field = fields.take(cx, "dataplaneRef");
    fields.finish(cx);

    let name = reference_field.as_ref().and_then(|field| {
        let mut fields = field.fields(cx)?;
        let name = match fields.take(cx, "name") {
            Some(name) => name.string(cx).map(str::to_owned),
            None => {
                cx.report(fields.missing("name", "must be set"));
                None
            }
        };
        fields.finish(cx);
        name
    });
    let labels = labels_field.as_ref().and_then(|field| {
        let mut fields = field.fields(cx)?;
        let matched = fields.take(cx, "matchLabels");
        fields.finish(cx);
        Some(metadata::labels(cx, matched.as_ref()))
    });
    let tags = tags_field.as_ref().and_then(|field| {
        tags::tags(cx, &field.path, Some(field), field.node.span, TagRules::default())
    });
    if cx.errors() > errors_before {
        return None;
    }
    several_forms(cx, field, &[&reference_field, &labels_field, &tags_field]);
    // An empty map says nothing about Dataplanes, as an absent one does.
    let some = |tags: &Tags| !tags.is_empty();
    Some(match (name, labels.filter(some), tags.filter(some)) {
        (Some(name), ..) => DataplaneSelector::Name(name),
        (None, Some(labels), _) => DataplaneSelector::Labels(labels),
        (None, None, Some(tags)) => DataplaneSelector::Tags(tags),
        (None, None, None) => DataplaneSelector::Nothing,
    })
}

/// One form is enough: Kuma 3 refuses more, earlier versions take the first of `forms`.
fn several_forms(cx: &mut Context<'_>, selector: &Field<'_>, forms: &[&Option<Field<'_>>]) {
    let mut given = forms.iter().filter_map(|form| form.as_ref());
    let (Some(first), Some(second)) = (given.next(), given.next()) else { return };
    let finding = if only(cx.options, &[Api::Kuma3]) {
        let message = "must specify only one of: dataplaneTags, dataplaneRef, or dataplaneLabels";
        selector.error(message)
    } else {
        Diagnostic::warning(second.path.clone(), format!("has no effect next to `{}`", first.path))
            .at(second.key_span)
    };
    cx.report(finding.hint("keep one of them"));
}

/// Longest name: such an object becomes one label of a host name.
pub(super) const LABEL_CHARACTERS_MAX: usize = 63;

/// The name of an object that stands for a service, without the namespace: one label of RFC 1035
/// in Kuma 3, of any version at most 63 characters (semantics 2.6, 2.7).
fn label_name(cx: &mut Context<'_>, meta: &Meta, name_span: Span) {
    let own = meta
        .namespace
        .as_ref()
        .and_then(|namespace| meta.name.strip_suffix(namespace.as_str())?.strip_suffix('.'));
    let name = match meta.labels.get("kuma.io/display-name") {
        Some(name) => name.as_str(),
        None => own.unwrap_or(&meta.name),
    };
    if name.chars().count() > LABEL_CHARACTERS_MAX {
        let message = format!("must not be longer than {LABEL_CHARACTERS_MAX} characters");
        cx.report(Diagnostic::error("name", message).at(name_span));
    }
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = name.bytes().all(|byte| inner(byte) || byte == b'-')
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().last().is_some_and(inner);
    if only(cx.options, &[Api::Kuma3]) && !label {
        cx.report(
            Diagnostic::error(
                "name",
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            )
            .at(name_span),
        );
    }
}

#[cfg(test)]
#[path = "../mesh_service_tests.rs"]
mod tests;
