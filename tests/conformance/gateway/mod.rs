//! `gatewayapi.jsonl`: manifests in, the conditions of routes, what becomes of requests, and the
//! shares of backends out.
//!
//! The manifests are read before anything else: what the suite applies to a cluster has to be
//! valid here. What a cluster would add is added ([`cluster`]). Requests are decided by the L7
//! model on what resolution gives to the listener or Service ([`requests`]); nothing is sent.
//! Routes of other kinds than TCPRoute, HTTPRoute and GRPCRoute are not built, unless the case
//! only asks what becomes of one of these beside them.

use balancer_user::{
    policy::PolicySet,
    resolve::{
        GATEWAY_CONTROLLER,
        gateway::{Condition, attach},
    },
};
use serde_json::Value;

use crate::cases::Verdict;

mod cluster;
mod requests;
mod shares;
mod tries;

/// Kinds of route that are not carried out.
const OTHER_ROUTES: [&str; 2] = ["TLSRoute", "UDPRoute"];

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    judged(case).unwrap_or_else(|found| Verdict::Failed {
        expected: "manifests that are valid, and a case that can be understood".to_owned(),
        found,
    })
}

fn judged(case: &Value) -> Result<Verdict, String> {
    let manifests = cluster::manifests(case)?;
    let own = case["manifests_yaml"].as_str().unwrap_or_default();
    let is_other = |line: &str| {
        line.strip_prefix("kind: ").is_some_and(|kind| OTHER_ROUTES.contains(&kind.trim()))
    };
    if own.lines().any(is_other) {
        return Ok(Verdict::NotBuilt);
    }
    let set = cluster::read(&manifests)?;
    let mut verdicts = Vec::new();
    if let Some(wanted) = case["route_conditions_mentioned"].as_array() {
        verdicts.push(conditions(&set, wanted));
    }
    let with_requests: Vec<&Value> = case["requests"].as_array().into_iter().flatten().collect();
    if !with_requests.is_empty() {
        verdicts.push(requests::requests(case, &manifests, &with_requests)?);
    }
    for wanted in case["distributions"].as_array().into_iter().flatten() {
        verdicts.push(if set.tcp_routes.is_empty() {
            requests::distribution(case, &manifests, wanted)?
        } else {
            shares::distribution(&manifests, wanted)?
        });
    }
    let failed = verdicts.iter().position(|verdict| !matches!(verdict, Verdict::Passed));
    match failed {
        Some(failed) => Ok(verdicts.swap_remove(failed)),
        None if verdicts.is_empty() => Err("the case asks for nothing".to_owned()),
        None => Ok(Verdict::Passed),
    }
}

fn conditions(set: &PolicySet, wanted: &[Value]) -> Verdict {
    let mut expected: Vec<String> = wanted.iter().map(wanted_condition).collect();
    let attached = attach(set, GATEWAY_CONTROLLER);
    let parents = attached.routes.iter().flat_map(|status| &status.parents);
    let mut found: Vec<String> = parents
        .flat_map(|parent| {
            let partially = parent.partially_invalid.iter();
            let always = [("Accepted", &parent.accepted), ("ResolvedRefs", &parent.resolved)];
            let all = always.into_iter().chain(partially.map(|one| ("PartiallyInvalid", one)));
            all.map(|(kind, one)| condition(kind, one)).collect::<Vec<_>>()
        })
        .collect();
    found.sort();
    expected.sort();
    if !expected.is_empty() && expected.iter().all(|condition| found.contains(condition)) {
        return Verdict::Passed;
    }
    Verdict::Failed { expected: expected.join(", "), found: found.join(", ") }
}

fn wanted_condition(condition: &Value) -> String {
    let word = |name: &str| condition[name].as_str().unwrap_or("?");
    format!("{}={} {}", word("type"), word("status"), word("reason"))
}

fn condition(kind: &str, condition: &Condition) -> String {
    let status = if condition.holds { "True" } else { "False" };
    format!("{kind}={status} {}", condition.reason)
}
