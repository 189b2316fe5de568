//! The same route with what leads nowhere left out, as the peer does in versions or at layers where
//! we let its share fail (decision D10, semantics 4.3).

use std::sync::Arc;

use balancer_user::{
    http::{self, Rule, Rules, Split},
    resolve::{Backend, Decision, Destination, HttpRules, Route, inventory::Inventory},
};

use crate::found::is_invalid;

/// Routes that would come of leaving out; none where nothing of the route leads nowhere. At L4
/// every version leaves objects out that are not there, at L7 those before 3 do.
pub(crate) fn variants(route: &Route, inventory: &Inventory<'_>, version_2: bool) -> Vec<Route> {
    let Some(rules) = &route.http else {
        let missing =
            |backend: &Backend| matches!(backend.destination, Destination::Missing { .. });
        let mut left = route.clone();
        left.backends.retain(|backend| !missing(backend));
        if left.backends.iter().all(|backend| backend.weight == 0) {
            left.decision = Decision::Reject;
        }
        let any = left.backends.len() < route.backends.len();
        return if any { vec![left] } else { Vec::new() };
    };
    let nobody = |backend: &http::Backend| {
        let http::Destination::Backend(id) = backend.destination else { return true };
        let Some(backend) = rules.backends.get(id.0 as usize) else { return true };
        let tag = backend.destination.tag_service().is_some();
        is_invalid(backend, inventory) || (tag && backend.reals.is_empty())
    };
    let any = |rule: &Rule| rule.split.backends().iter().any(|one| one.weight > 0 && nobody(one));
    if !version_2 || !rules.rules.rules.iter().any(any) {
        return Vec::new();
    }
    let rest = |rule: &Rule| {
        let kept = rule.split.backends().iter().filter(|one| !nobody(one)).cloned().collect();
        Rule { split: Split::new(kept), ..rule.clone() }
    };
    let or_itself = |rule: &Rule| match (&rules.rules.otherwise, rest(rule)) {
        (Some(otherwise), left) if left.split.sum() == 0 => {
            Rule { split: otherwise.split.clone(), ..left }
        }
        (_, left) => left,
    };
    let all = || rules.rules.rules.iter();
    [
        // The backend goes; of a rule that has no other the service itself takes the requests.
        all().map(rest).collect(),
        all().map(or_itself).collect(),
        // The rule goes: if it has no other backend, or as soon as one is none.
        all().map(rest).filter(|rule| rule.split.sum() > 0).collect(),
        all().filter(|rule| !any(rule)).cloned().collect(),
    ]
    .map(|left| with_rules(route, rules, left))
    .into()
}

fn with_rules(route: &Route, rules: &HttpRules, left: Vec<Rule>) -> Route {
    let left = Rules { rules: left, ..(*rules.rules).clone() };
    let http = HttpRules { rules: Arc::new(left), ..rules.clone() };
    Route { http: Some(Arc::new(http)), ..route.clone() }
}
