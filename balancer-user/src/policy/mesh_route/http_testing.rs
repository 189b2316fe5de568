//! What the tests of MeshHTTPRoutes share.

use std::sync::Arc;

use super::{
    super::{
        Api, ReadOptions,
        http_route::{RequestMatch, RouteFilter},
        testing::{LENIENT, errors, exactly, reading, warnings},
    },
    BackendRef, MeshHttpRoute,
};

pub(super) const KUMA_27: ReadOptions = exactly(Api::Kuma27);
pub(super) const KUMA_29: ReadOptions = exactly(Api::Kuma29);
pub(super) const KUMA_3: ReadOptions = exactly(Api::Kuma3);
pub(super) const WITH_TAGS: &[&ReadOptions] = &[&LENIENT, &KUMA_27, &KUMA_29];
pub(super) const RULE: &str = "spec.to[0].rules[0]";

/// A MeshHTTPRoute whose `spec` is this flow mapping.
pub(super) fn policy_of(spec: &str) -> String {
    format!("type: MeshHTTPRoute\nname: r\nmesh: default\nspec: {spec}\n")
}

/// One whose only item of `to` has these `rules`.
pub(super) fn ruled(rules: &str) -> String {
    policy_of(&format!(
        "{{targetRef: {{kind: Mesh}}, to: [{{targetRef: {{kind: MeshService, name: backend}}, rules: {rules}}}]}}"
    ))
}

/// The same below a MeshGateway.
pub(super) fn of_gateway(rules: &str) -> String {
    policy_of(&format!(
        "{{targetRef: {{kind: MeshGateway, name: edge}}, to: [{{targetRef: {{kind: Mesh}}, hostnames: ['*.example.com', '*'], rules: {rules}}}]}}"
    ))
}

/// One with one rule of these matches.
pub(super) fn matching(matches: &str) -> String {
    ruled(&format!("[{{matches: {matches}, default: {{}}}}]"))
}

/// One with one rule for all requests that has this `default`.
pub(super) fn doing(default: &str) -> String {
    ruled(&format!("[{{matches: [{{path: {{type: PathPrefix, value: /}}}}], default: {default}}}]"))
}

/// One with these filters.
pub(super) fn filtering(filters: &str) -> String {
    doing(&format!("{{filters: {filters}}}"))
}

pub(super) fn read(body: &str, options: &ReadOptions) -> MeshHttpRoute {
    let mut reading = reading(body, options);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    reading.set.mesh_http_routes.pop_back().map(Arc::unwrap_or_clone).expect("a MeshHTTPRoute")
}

/// The first match of the first rule.
pub(super) fn request(matches: &str) -> RequestMatch {
    read(&matching(matches), &LENIENT).to[0].rules[0].matches[0].value.clone()
}

/// The only filter.
pub(super) fn filter(filter: &str) -> RouteFilter<BackendRef> {
    let route = read(&filtering(&format!("[{filter}]")), &LENIENT);
    route.to[0].rules[0].filters.as_ref().expect("filters")[0].value.clone()
}

/// Fields that there is a warning about.
pub(super) fn remarks(body: &str) -> Vec<String> {
    warnings(body, &LENIENT)
}

/// The errors about the first rule, without its path.
pub(super) fn of_rule(body: &str, options: &ReadOptions) -> Vec<String> {
    let found = errors(body, options);
    let prefix = format!("{RULE}.");
    found.iter().map(|f| f.strip_prefix(&prefix).unwrap_or(f).to_owned()).collect()
}
