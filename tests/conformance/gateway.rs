//! `gatewayapi.jsonl`: manifests in, the conditions of routes out.
//!
//! Judged are cases that ask for conditions of TCPRoutes only. Nothing resolves Gateways yet, so
//! that cases with requests or shares count as of kinds not built, after their manifests have
//! been read: what the suite applies to a cluster has to be valid here.

use std::fs;

use balancer_user::{
    policy::{self, ReadOptions, SourceText},
    resolve::{
        GATEWAY_CONTROLLER,
        gateway::{Condition, attach},
    },
};
use serde_json::Value;

use crate::cases::{Verdict, corpus_place};

/// Kinds of route that are not read.
const OTHER_ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "UDPRoute"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    judged(case).unwrap_or_else(|found| Verdict::Failed {
        expected: "manifests that are valid".to_owned(),
        found,
    })
}

fn judged(case: &Value) -> Result<Verdict, String> {
    let own = case["manifests_yaml"].as_str().ok_or("the case has no manifests_yaml")?;
    let mut manifests = match case["base_manifests"].as_str() {
        Some(name) => {
            let path = corpus_place().join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => String::new(),
    };
    manifests.push_str("\n---\n");
    manifests.push_str(own);
    let manifests = manifests.replace("{GATEWAY_CLASS_NAME}", "balancer");
    let text = SourceText { name: "manifests.yaml".to_owned(), text: manifests.into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    if !reading.report.valid() {
        return Err(policy::render::report(&reading.set.texts, &reading.report, false));
    }
    let is_other = |line: &str| {
        line.trim().strip_prefix("kind: ").is_some_and(|kind| OTHER_ROUTES.contains(&kind))
    };
    let asks_for = |what: &str| case[what].as_array().is_some_and(|list| !list.is_empty());
    if own.lines().any(is_other) || asks_for("requests") || asks_for("distributions") {
        return Ok(Verdict::NotBuilt);
    }
    let wanted =
        case["route_conditions_mentioned"].as_array().ok_or("no conditions are asked for")?;
    let mut expected: Vec<String> = wanted.iter().map(wanted_condition).collect();
    let attached = attach(&reading.set, GATEWAY_CONTROLLER);
    let parents = attached.routes.iter().flat_map(|status| &status.parents);
    let mut found: Vec<String> = parents
        .flat_map(|parent| {
            [condition("Accepted", &parent.accepted), condition("ResolvedRefs", &parent.resolved)]
        })
        .collect();
    found.sort();
    expected.sort();
    if !expected.is_empty() && expected.iter().all(|condition| found.contains(condition)) {
        return Ok(Verdict::Passed);
    }
    Ok(Verdict::Failed { expected: expected.join(", "), found: found.join(", ") })
}

fn wanted_condition(condition: &Value) -> String {
    let word = |name: &str| condition[name].as_str().unwrap_or("?");
    format!("{}={} {}", word("type"), word("status"), word("reason"))
}

fn condition(kind: &str, condition: &Condition) -> String {
    let status = if condition.holds { "True" } else { "False" };
    format!("{kind}={status} {}", condition.reason)
}
