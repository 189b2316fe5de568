//! Selectors that nobody can match: a wildcard for a tag that no workload has.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    findings::Findings, precedence::MeshPolicies, selection::ANY, sources::tag_sets,
};
use crate::policy::{Dataplane, Diagnostic, SERVICE_TAG, TrafficRoute};

/// The tags, but for the service, of which a TrafficRoute's sources take any value: `field`, tag.
pub(in crate::resolve) fn wildcards(
    route: &TrafficRoute,
) -> impl Iterator<Item = (String, &String)> {
    route.sources.iter().enumerate().flat_map(|(index, selector)| {
        let any = selector.iter().filter(|(tag, value)| *value == ANY && *tag != SERVICE_TAG);
        any.map(move |(tag, _)| (format!("sources[{index}].match[\"{tag}\"]"), tag))
    })
}

/// Whether a workload has a tag, on whichever inbound.
pub(in crate::resolve) fn has_tag(dataplane: &Dataplane, tag: &str) -> bool {
    tag_sets([dataplane]).iter().any(|tags| tags.contains_key(tag))
}

/// Looks at every TrafficRoute of a mesh that has workloads.
pub(in crate::resolve) fn sources<'a>(
    dataplanes: &[&'a Dataplane],
    policies: &BTreeMap<&'a str, MeshPolicies<'a>>,
    findings: &mut Findings<'a>,
) {
    let mut asked: BTreeMap<(&str, &str), Vec<(&TrafficRoute, String)>> = BTreeMap::new();
    for (mesh, policies) in policies {
        for route in policies.routes() {
            for (field, tag) in wildcards(route) {
                asked.entry((mesh, tag)).or_default().push((route, field));
            }
        }
    }
    if asked.is_empty() {
        return;
    }
    let meshes: BTreeSet<&str> = dataplanes.iter().map(|one| one.meta.mesh.as_str()).collect();
    for dataplane in dataplanes {
        for tag in tag_sets([*dataplane]).into_iter().flat_map(|tags| tags.keys()) {
            asked.remove(&(dataplane.meta.mesh.as_str(), tag.as_str()));
        }
    }
    for ((mesh, tag), routes) in asked.into_iter().filter(|((mesh, _), _)| meshes.contains(mesh)) {
        for (route, field) in routes {
            let message =
                format!("no Dataplane of mesh {mesh} has the tag `{tag}`: this matches nobody");
            let found = Diagnostic::warning(field, message).at(route.meta.span);
            findings.add(
                &route.meta,
                found.hint("`*` is any value of a tag that is there; leave the tag out for all"),
            );
        }
    }
}
