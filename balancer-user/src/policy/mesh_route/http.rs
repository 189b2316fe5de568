//! `MeshHTTPRoute` (semantics 4.4, 4.5, 4.8).

use super::{
    super::{
        Diagnostic, Meta, Span,
        fields::{Context, Field, Fields},
        http_route::{Located, RequestMatch, RouteFilter, matches},
        names, object,
    },
    BackendRef, RouteTarget, ToTarget, backend, http_filter, http_match, policy, route_target,
};

/// `MeshHTTPRoute`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshHttpRoute {
    /// Identity.
    pub meta: Meta,
    /// `targetRef`: whose requests it concerns. Absent: everybody's.
    pub target: RouteTarget,
    /// `to[]` in written order.
    pub to: Vec<MeshHttpTo>,
}

/// One item of `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshHttpTo {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0]`.
    pub field: String,
    /// `targetRef`: what is dialled.
    pub target: ToTarget,
    /// `hostnames`, only where the policy's own target is a MeshGateway; empty: all of the
    /// listener's. The first label may be `*`, or all of it.
    pub hostnames: Vec<String>,
    /// `rules[]` in written order. None: requests go to what is dialled.
    pub rules: Vec<MeshHttpRule>,
}

/// One item of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshHttpRule {
    /// Where it stands.
    pub span: Span,
    /// Its field path: `spec.to[0].rules[0]`.
    pub field: String,
    /// `matches[]`: any of them. Policies are merged by the whole list.
    pub matches: Vec<Located<RequestMatch>>,
    /// `default.filters[]` in written order. `None`: not given, another policy's apply.
    pub filters: Option<Vec<Located<RouteFilter<BackendRef>>>>,
    /// `default.backendRefs[]`. `None`: not given; another policy's apply, or the service itself.
    pub backends: Option<Vec<BackendRef>>,
}

/// Reads a MeshHTTPRoute. `None`: it has an error.
pub(in crate::policy) fn mesh_http_route(
    cx: &mut Context<'_>,
    meta: Meta,
    spec: Fields<'_>,
) -> Option<MeshHttpRoute> {
    let (target, to) = policy(cx, &meta, spec, to_item)?;
    Some(MeshHttpRoute { meta, target, to })
}

fn to_item(cx: &mut Context<'_>, item: &Field<'_>, gateway: bool) -> Option<MeshHttpTo> {
    let mut fields = item.fields(cx)?;
    let target = route_target(cx, &mut fields, gateway);
    let hostnames = match fields.take(cx, "hostnames").filter(Field::is_set) {
        Some(field) if !gateway => {
            cx.report(
                field
                    .error("must not be defined")
                    .hint("only where `spec.targetRef` is a MeshGateway; a service has all hosts"),
            );
            None
        }
        Some(field) => hostnames(cx, &field),
        None => Some(Vec::new()),
    };
    let rules = match fields.take(cx, "rules") {
        Some(field) => rules(cx, &field, gateway),
        None => Some(Vec::new()),
    };
    fields.finish(cx);
    Some(MeshHttpTo {
        span: item.node.span,
        field: item.path.clone(),
        target: target?,
        hostnames: hostnames?,
        rules: rules?,
    })
}

fn hostnames(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Vec<String>> {
    let one = |cx: &mut Context<'_>, item: &Field<'_>| {
        if item.node.is_text("*") { Some("*".to_owned()) } else { names::hostname(cx, item) }
    };
    let read: Vec<_> = field.items(cx)?.iter().map(|item| one(cx, item)).collect();
    read.into_iter().collect()
}

fn rules(cx: &mut Context<'_>, field: &Field<'_>, gateway: bool) -> Option<Vec<MeshHttpRule>> {
    let items = field.items(cx)?;
    let read: Vec<Option<MeshHttpRule>> =
        items.iter().map(|item| rule(cx, item, gateway)).collect();
    let whole = read.iter().flatten().map(|rule| {
        let matches: Vec<&RequestMatch> = rule.matches.iter().map(|one| &one.value).collect();
        (rule.field.as_str(), rule.span, matches)
    });
    matches::repeated(cx, whole, |first| {
        format!("never takes a request: `{first}` has the same matches and comes first")
    });
    read.into_iter().collect()
}

fn rule(cx: &mut Context<'_>, item: &Field<'_>, gateway: bool) -> Option<MeshHttpRule> {
    let mut fields = item.fields(cx)?;
    let matches_field = object::required(cx, &mut fields, "matches");
    let matches = match &matches_field {
        Some(field) => http_match::matches(cx, field),
        None => Some(Vec::new()),
    };
    let default = object::required(cx, &mut fields, "default");
    fields.finish(cx);
    let default_fields = default.as_ref().and_then(|field| field.fields(cx));
    let (mut filters_field, mut backends_field) = (None, None);
    if let Some(mut fields) = default_fields {
        filters_field = fields.take(cx, "filters");
        backends_field = fields.take(cx, "backendRefs");
        fields.finish(cx);
    }
    // What the matches are has to be known for what may be replaced.
    let prefixes = matches_field.as_ref().is_none_or(http_match::all_prefixes);
    let (filters, redirects) = match &filters_field {
        Some(field) => {
            let read = http_filter::filters(cx, field, prefixes, gateway);
            (read.filters.map(Some), read.redirects)
        }
        None => (Some(None), false),
    };
    let backends = match &backends_field {
        Some(field) => backend::backends(cx, field).map(Some),
        None => Some(None),
    };
    if let Some(backends) = &backends {
        let named = backends.as_deref().unwrap_or_default();
        let place = backends_field.as_ref().or(default.as_ref());
        let path = format!("{}.default.backendRefs", item.path);
        let at = place.map_or(item.node.span, |field| field.key_span);
        if gateway && named.is_empty() && !redirects {
            cx.report(
                Diagnostic::error(path, "must not be empty")
                    .at(at)
                    .hint("below a MeshGateway a rule names its backends, or redirects"),
            );
        } else if !named.is_empty() && named.iter().all(|backend| backend.weight == 0) {
            cx.report(
                Diagnostic::warning(path, "every weight is 0: requests are answered with 500")
                    .at(at)
                    .hint("give one of them a weight above 0"),
            );
        } else if redirects && !named.is_empty() {
            cx.report(
                Diagnostic::warning(
                    path,
                    "get no request: a filter of the rule redirects them all",
                )
                .at(at)
                .hint("remove them, or the filter"),
            );
        }
    }
    Some(MeshHttpRule {
        span: item.node.span,
        field: item.path.clone(),
        matches: matches?,
        filters: filters?,
        backends: backends?,
    })
}

#[cfg(test)]
#[path = "../mesh_http_route_tests.rs"]
mod tests;
