//! `TrafficRoute` (semantics 3), in the form of Kuma 1 and 2 and in that of 0.5.

mod http;
pub(super) mod load_balancer;
mod split;

use super::{
    Diagnostic, Meta, SERVICE_TAG, Tags, TrafficRoute, TrafficRouteConf,
    fields::{Context, Field, Fields},
    tags::{self, DESTINATION, TagRules},
    yaml::Value,
};

/// Reads a TrafficRoute. `None`: it has an error.
pub(super) fn traffic_route(
    cx: &mut Context<'_>,
    meta: Meta,
    mut spec: Fields<'_>,
) -> Option<TrafficRoute> {
    let sources_field = spec.take(cx, "sources");
    let destinations_field = spec.take(cx, "destinations");
    let conf_field = spec.take(cx, "conf");
    // The form of `conf` says whose tag names the whole policy uses.
    let old = conf_field
        .as_ref()
        .is_some_and(|conf| matches!(conf.node.value, Value::Sequence(_)) && cx.options.lenient());
    let rules = TagRules { unprefixed: old, ..DESTINATION };
    let sources = selectors(cx, &spec, "sources", sources_field.as_ref(), rules);
    let only_service = TagRules { some: false, only_service: true, unprefixed: old, ..DESTINATION };
    let destinations =
        selectors(cx, &spec, "destinations", destinations_field.as_ref(), only_service);
    let conf = match &conf_field {
        Some(conf) if old => old_conf(cx, conf),
        Some(conf) => conf_of_fields(cx, conf),
        None => {
            cx.report(
                spec.missing("conf", "cannot be empty")
                    .hint("add `conf:` with `split` or `destination`"),
            );
            None
        }
    };
    spec.finish(cx);
    let destinations =
        destinations?.into_iter().filter_map(|mut tags| tags.remove(SERVICE_TAG)).collect();
    Some(TrafficRoute { meta, sources: sources?, destinations, conf: conf? })
}

/// `sources` or `destinations`: at least one, each with a `match`.
fn selectors(
    cx: &mut Context<'_>,
    spec: &Fields<'_>,
    name: &str,
    field: Option<&Field<'_>>,
    rules: TagRules,
) -> Option<Vec<Tags>> {
    let items = match field {
        Some(field) => field.items(cx)?,
        None => Vec::new(),
    };
    if items.is_empty() {
        let finding = match field {
            Some(field) => field.error("must have at least one element"),
            None => spec.missing(name, "must have at least one element"),
        };
        cx.report(finding.hint(format!("add `- match: {{{SERVICE_TAG}: '*'}}` for any")));
        return None;
    }
    let mut read = Vec::new();
    let mut complete = true;
    for item in &items {
        let Some(mut fields) = item.fields(cx) else {
            complete = false;
            continue;
        };
        let tags_field = fields.take(cx, "match");
        let path = format!("{}.match", fields.path);
        let tags = tags::tags(cx, &path, tags_field.as_ref(), fields.span, rules);
        fields.finish(cx);
        match tags {
            Some(tags) => read.push(tags),
            None => complete = false,
        }
    }
    complete.then_some(read)
}

/// `conf` of Kuma 0.5: a list of weighted destinations (decision D5).
fn old_conf(cx: &mut Context<'_>, field: &Field<'_>) -> Option<TrafficRouteConf> {
    cx.report(
        Diagnostic::warning(field.path.clone(), "read as the form of Kuma 0.5")
            .at(field.key_span)
            .hint("since Kuma 1.0 this list is `conf.split`, and the tag `service` is `kuma.io/service`"),
    );
    let split = split::old_split(cx, field)?;
    Some(TrafficRouteConf { load_balancer: None, split, http: Vec::new(), http_span: None })
}

fn conf_of_fields(cx: &mut Context<'_>, field: &Field<'_>) -> Option<TrafficRouteConf> {
    if matches!(field.node.value, Value::Sequence(_)) {
        cx.report(
            field
                .error("must be a mapping, not a list")
                .hint("the list of Kuma 0.5 is `conf.split` since 1.0; without --strict and --api it is read as it is"),
        );
        return None;
    }
    let mut fields = field.fields(cx)?;
    let balancer_field = fields.take(cx, "loadBalancer");
    let http_field = fields.take(cx, "http");
    let split_field = fields.take(cx, "split");
    let destination_field = fields.take(cx, "destination");

    let http_items = match &http_field {
        Some(field) => field.items(cx),
        None => Some(Vec::new()),
    };
    let entries: Option<Vec<http::Read>> = http_items
        .as_ref()
        .map(|items| items.iter().map(|item| http::http_entry(cx, item)).collect());
    let always_last = cx.options.lenient()
        && entries.as_deref().and_then(<[_]>::last).is_some_and(|entry| entry.always);
    let outer = if split_field.is_none() && destination_field.is_none() && always_last {
        // Decision D3: the last entry takes what no other takes, as an outer split would.
        cx.report(
            Diagnostic::warning(
                fields.path.clone(),
                "neither \"destination\" nor \"split\": the last `http` entry takes what no other takes",
            )
            .at(field.key_span)
            .hint("Kuma asks for an outer `split` or `destination`"),
        );
        Some(Vec::new())
    } else {
        split::split_or_destination(
            cx,
            &fields,
            field.node.span,
            split_field.as_ref(),
            destination_field.as_ref(),
        )
    };
    let load_balancer =
        balancer_field.as_ref().map(|field| load_balancer::load_balancer(cx, field));
    fields.finish(cx);
    Some(TrafficRouteConf {
        load_balancer: match load_balancer {
            Some(read) => read?,
            None => None,
        },
        split: outer?,
        http: entries?.into_iter().map(|read| read.entry).collect::<Option<_>>()?,
        http_span: http_field.map(|field| field.key_span),
    })
}

#[cfg(test)]
#[path = "../traffic_route_old_tests.rs"]
mod old_tests;
#[cfg(test)]
#[path = "../traffic_route_tests.rs"]
mod tests;
