//! `default.localityAwareness` of a MeshLoadBalancingStrategy.

use super::{
    super::{
        Api,
        envelope::only,
        fields::{Context, Field},
        http_route::matches::decimal,
        object,
    },
    AffinityTag, Dialled, Failover, FailoverTo, Locality,
};

/// Below how many live endpoints of a hundred the next priority is used.
pub(in super::super) const THRESHOLD_PERCENT: f64 = 50.0;
/// `to.type`.
pub(in super::super) const FAILOVERS: &[&str] = &["None", "Only", "Any", "AnyExcept"];

/// Reads it. `None`: it has an error.
pub(super) fn locality(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    dialled: Dialled,
) -> Option<Locality> {
    let mut fields = field.fields(cx)?;
    let disabled = match fields.take(cx, "disabled") {
        Some(field) => field.boolean(cx),
        None => Some(false),
    };
    let local = fields.take(cx, "localZone");
    let cross = fields.take(cx, "crossZone");
    fields.finish(cx);
    let affinity = match &local {
        Some(field) => affinity(cx, field),
        None => Some(Vec::new()),
    };
    let errors_before = cx.errors();
    let read = match &cross {
        Some(field) => cross_zone(cx, field, dialled),
        None => Some((None, THRESHOLD_PERCENT)),
    };
    let (failover, threshold_percent) = read.filter(|_| cx.errors() == errors_before)?;
    if let (Some(local), None, Some(false)) = (&local, &failover, disabled) {
        cx.report(
            local
                .warning("without `crossZone.failover` no endpoint of another zone is used")
                .hint("add `crossZone: {failover: [{to: {type: Any}}]}` to use them at need"),
        );
    }
    Some(Locality { disabled: disabled?, affinity: affinity?, failover, threshold_percent })
}

fn affinity(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<AffinityTag>> {
    let mut fields = field.fields(cx)?;
    let list = fields.take(cx, "affinityTags");
    fields.finish(cx);
    let Some(list) = list else { return Some(Vec::new()) };
    let items = list.items(cx)?;
    let mut weighted = 0;
    let read: Vec<Option<AffinityTag>> = items
        .iter()
        .map(|item| {
            let mut fields = item.fields(cx)?;
            let key = match fields.take(cx, "key").filter(Field::is_set) {
                Some(field) => field.string(cx).map(str::to_owned),
                None => {
                    cx.report(fields.missing("key", "must not be empty"));
                    None
                }
            };
            let weight = match fields.take(cx, "weight") {
                Some(field) => {
                    weighted += 1;
                    let weight = field.u32(cx);
                    if weight == Some(0) {
                        cx.report(field.error("must be greater than 0"));
                    }
                    weight.filter(|weight| *weight > 0).map(Some)
                }
                None => Some(None),
            };
            fields.finish(cx);
            Some(AffinityTag { key: key?, weight: weight? })
        })
        .collect();
    if weighted > 0 && weighted != items.len() {
        cx.report(
            list.error("all or none affinity tags should have weight")
                .hint("give each a weight, or none: then it is 90%, 9%, 0.9%, …"),
        );
        return None;
    }
    read.into_iter().collect()
}

/// `crossZone`: where other zones take over, and below which percentage.
fn cross_zone(
    cx: &mut Context<'_>,
    field: &Field<'_>,
    dialled: Dialled,
) -> Option<(Option<Vec<Failover>>, f64)> {
    if only(cx.options, &[Api::Kuma3]) && dialled != Dialled::MultiZone {
        cx.report(field.error("must not be set: only a MeshMultiZoneService is of several zones"));
        return None;
    }
    if dialled == Dialled::OneZone {
        cx.report(
            field
                .error("must not be set: a MeshService is of one zone")
                .hint("for several zones there is MeshMultiZoneService"),
        );
    }
    let mut fields = field.fields(cx)?;
    let list = fields.take(cx, "failover");
    let threshold = fields.take(cx, "failoverThreshold");
    fields.finish(cx);
    let failover = match &list {
        Some(list) => {
            let items = list.items(cx)?;
            let read: Vec<_> = items.iter().map(|item| rule(cx, item)).collect();
            read.into_iter().collect::<Option<Vec<_>>>().map(Some)
        }
        None => Some(None),
    };
    let percent = match &threshold {
        Some(field) => {
            let mut fields = field.fields(cx)?;
            let percent = object::required(cx, &mut fields, "percentage")
                .and_then(|field| percentage(cx, &field));
            fields.finish(cx);
            percent
        }
        None => Some(THRESHOLD_PERCENT),
    };
    Some((failover?, percent?))
}

fn percentage(cx: &mut Context<'_>, field: &Field<'_>) -> Option<f64> {
    let percent = decimal(cx, field)?;
    if !(percent > 0.0 && percent <= 100.0) {
        cx.report(field.error("must be above 0 and at most 100"));
        return None;
    }
    Some(percent)
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>) -> Option<Failover> {
    let mut fields = item.fields(cx)?;
    let from_field = fields.take(cx, "from");
    let to_field = object::required(cx, &mut fields, "to");
    fields.finish(cx);
    let from = match &from_field {
        Some(field) => {
            let mut fields = field.fields(cx)?;
            let list = fields.take(cx, "zones");
            let zones = list.as_ref().and_then(|field| zones(cx, field));
            if !list.as_ref().is_some_and(Field::is_set) {
                cx.report(fields.missing("zones", "must not be empty"));
            }
            fields.finish(cx);
            zones.map(Some)
        }
        None => Some(None),
    };
    let to = to_field.and_then(|field| target(cx, &field));
    Some(Failover { from: from?, to: to? })
}

fn target(cx: &mut Context<'_>, field: &Field<'_>) -> Option<FailoverTo> {
    let mut fields = field.fields(cx)?;
    let kind = match fields.take(cx, "type") {
        Some(field) => field.one_of(cx, FAILOVERS),
        None => {
            cx.report(
                fields.missing("type", "unrecognized type").hint("None, Only, Any or AnyExcept"),
            );
            None
        }
    };
    let list = fields.take(cx, "zones").filter(Field::is_set);
    let read = match &list {
        Some(field) => zones(cx, field),
        None => Some(Vec::new()),
    };
    let kind = kind?;
    match (kind, &list) {
        ("Any" | "None", Some(field)) => {
            cx.report(field.error(format!("must be empty when type is {kind}")));
        }
        ("Only" | "AnyExcept", None) => {
            let message = format!("must not be empty when type is {kind}");
            cx.report(fields.missing("zones", message));
        }
        _ => {}
    }
    fields.finish(cx);
    let zones = read?;
    Some(match kind {
        "Any" => FailoverTo::Any,
        "None" => FailoverTo::None,
        "Only" => FailoverTo::Only(zones),
        _ => FailoverTo::AnyExcept(zones),
    })
}

fn zones(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<String>> {
    let read: Vec<Option<String>> = field
        .items(cx)?
        .iter()
        .map(|item| {
            let text = item.string(cx)?;
            if text.is_empty() {
                cx.report(item.error("must not be empty"));
                return None;
            }
            Some(text.to_owned())
        })
        .collect();
    read.into_iter().collect()
}
