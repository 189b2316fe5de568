//! What the tests of HTTPRoutes and GRPCRoutes share.

use std::sync::Arc;

use crate::policy::{
    gateway::{BackendRef, GrpcRoute, HttpRoute},
    http_route::RouteFilter,
    testing::{LENIENT, errors, object, reading, warnings},
};

pub(super) const FIRST: &str = "spec.rules[0]";

/// An HTTPRoute whose `spec`, but for its parent, is this.
pub(super) fn route(rest: &str) -> String {
    of_kind("HTTPRoute", rest)
}

/// The same of a GRPCRoute.
pub(super) fn grpc(rest: &str) -> String {
    of_kind("GRPCRoute", rest)
}

fn of_kind(kind: &str, rest: &str) -> String {
    object(
        "gateway.networking.k8s.io/v1",
        kind,
        "metadata: {name: storefront, namespace: shop}",
        &format!("{{parentRefs: [{{name: edge}}], {rest}}}"),
    )
}

/// An HTTPRoute with one rule that has a backend and this.
pub(super) fn ruled(rest: &str) -> String {
    route(&format!("rules: [{{backendRefs: [{{name: echo, port: 80}}], {rest}}}]"))
}

/// One with these matches.
pub(super) fn matching(matches: &str) -> String {
    ruled(&format!("matches: {matches}"))
}

/// One with these filters and no backend.
pub(super) fn filtering(filters: &str) -> String {
    route(&format!("rules: [{{filters: {filters}}}]"))
}

pub(super) fn read(body: &str) -> HttpRoute {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.http_routes.remove(0))
}

pub(super) fn read_grpc(body: &str) -> GrpcRoute {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.grpc_routes.remove(0))
}

/// The only filter.
pub(super) fn filter(filter: &str) -> RouteFilter<BackendRef> {
    read(&filtering(&format!("[{filter}]"))).rules[0].filters[0].value.clone()
}

/// The errors, without the path of the first rule, sorted.
pub(super) fn of_rule(body: &str) -> Vec<String> {
    let prefix = format!("{FIRST}.");
    let found = errors(body, &LENIENT).into_iter();
    let mut found: Vec<String> =
        found.map(|f| f.strip_prefix(&prefix).map_or(f.clone(), str::to_owned)).collect();
    found.sort();
    found
}

/// Warnings.
pub(super) fn remarks(body: &str) -> Vec<String> {
    warnings(body, &LENIENT)
}
