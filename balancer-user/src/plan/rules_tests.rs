//! HTTP rules before and after.

use super::{
    Changes, LiveFlow, RuleChange, RuleChanges, RuleFate,
    tests::{address, changes},
};
use crate::resolve::VipKey;

const WORLD: &str = "\
{type: Dataplane, mesh: default, name: web, networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: web, kuma.io/protocol: http}}]}}
---
{type: Dataplane, mesh: default, name: v1, networking: {address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v1}}]}}
---
{type: Dataplane, mesh: default, name: v2, networking: {address: 10.0.0.3, inbound: [{port: 80, tags: {kuma.io/service: backend, kuma.io/protocol: http, version: v2}}]}}
";

/// A TrafficRoute of everybody to `backend`; connections go to v1 and v2 alike.
fn conf(http: &[&str]) -> String {
    let http = match http {
        [] => String::new(),
        entries => format!(", http: [{}]", entries.join(", ")),
    };
    format!(
        "---\n{{type: TrafficRoute, mesh: default, name: shop, sources: [{{match: {{kuma.io/service: \
         '*'}}}}], destinations: [{{match: {{kuma.io/service: backend}}}}], conf: {{destination: \
         {{kuma.io/service: backend}}{http}}}}}\n"
    )
}

fn entry(path: &str, first: u32, second: u32) -> String {
    format!(
        "{{match: {{path: {{prefix: {path}}}}}, split: [{{weight: {first}, destination: \
         {{kuma.io/service: backend, version: v1}}}}, {{weight: {second}, destination: \
         {{kuma.io/service: backend, version: v2}}}}]}}"
    )
}

/// The change of the one route that changes.
fn of_rules(before: &[&str], after: &[&str]) -> (Changes, RuleChanges) {
    let changes = changes(&[WORLD, &conf(before)], &[WORLD, &conf(after)], None);
    let [route] = changes.routes.as_slice() else { panic!("{:?}", changes.routes) };
    let rules = route.http.clone().expect("rules on one side at least");
    (changes, rules)
}

fn told(rules: &RuleChanges) -> Vec<(RuleFate, String)> {
    let matched = |change: &RuleChange| match &change.matches {
        Some(matched) => matched.to_string(),
        None => "the rest".to_owned(),
    };
    rules.changed.iter().map(|change| (change.change, matched(change))).collect()
}

#[test]
fn new_weights_of_a_match_say_what_each_backend_gets_and_connections_stay() {
    let (old, new) = (entry("/api", 9, 1), entry("/api", 1, 1));
    let (changes, rules) = of_rules(&[&old], &[&new]);
    assert!(!changes.routes[0].of_connections(), "{:?}", changes.routes[0]);
    assert_eq!(told(&rules), [(RuleFate::Changed, "path beginning with `/api`".to_owned())]);
    let shares: Vec<(f64, f64)> =
        rules.changed[0].backends.iter().map(|b| (b.share.before, b.share.after)).collect();
    assert_eq!(shares, [(0.9, 0.5), (0.1, 0.5)]);
    assert_eq!((rules.rules.before, rules.rules.after), (Some(1), Some(1)));
    assert_eq!(rules.unchanged, 1, "what takes the rest");
}

#[test]
fn matches_come_go_and_move() {
    let entries = ["/a", "/b", "/c", "/d"].map(|path| entry(path, 1, 1));
    let [a, b, c, d] = entries.each_ref().map(String::as_str);
    let (_, rules) = of_rules(&[a, b, c], &[c, a, d]);
    let path = |path: &str| format!("path beginning with `{path}`");
    assert_eq!(
        told(&rules),
        [
            (RuleFate::Moved, path("/c")),
            (RuleFate::Added, path("/d")),
            (RuleFate::Removed, path("/b"))
        ]
    );
    let place = &rules.changed[0].place;
    assert_eq!((place.before, place.after), (Some(3), Some(1)));
    // Nothing has changed places that only stands behind more or fewer others.
    let (_, rules) = of_rules(&[a, b], &[d, a, b]);
    assert_eq!((told(&rules).len(), rules.unchanged), (1, 3));
}

#[test]
fn of_two_equal_matches_each_is_compared_with_its_like() {
    let (first, second) = (entry("/a", 1, 0), entry("/a", 0, 1));
    let (_, rules) = of_rules(&[&first, &second], &[&first, &first]);
    assert_eq!(rules.unchanged, 2);
    let [second] = rules.changed.as_slice() else { panic!("{rules:?}") };
    assert_eq!((second.change, second.place.after), (RuleFate::Changed, Some(2)));
}

#[test]
fn filters_are_compared_by_what_they_do() {
    let with = |modify: &str| {
        format!(
            "{{match: {{path: {{prefix: /a}}}}, modify: {modify}, destination: {{kuma.io/service: \
             backend}}}}"
        )
    };
    let (old, new) = (with("{path: {rewritePrefix: /x}}"), with("{path: {rewritePrefix: /y}}"));
    let (_, rules) = of_rules(&[&old], &[&new]);
    let filters = &rules.changed[0].filters;
    assert_eq!(filters.before, ["path: the matched bytes become `/x`"]);
    assert_eq!(filters.after, ["path: the matched bytes become `/y`"]);
}

#[test]
fn a_route_that_begins_to_tell_requests_apart_puts_no_live_connection_at_risk() {
    let api = entry("/api", 0, 1);
    let (before, after) = ([WORLD, &conf(&[])], [WORLD, &conf(&[&api])]);
    let vip = address(&changes(&[], &before, None).vips[0].vip);
    let flow = |real: &str| LiveFlow {
        client: [10, 0, 0, 1].into(),
        vip: VipKey::tcp(vip),
        real: Some(address(real)),
    };
    let flows = || Some(vec![flow("10.0.0.2:80"), flow("10.0.0.3:80")]);
    let turned = changes(&before, &after, flows());
    let [route] = turned.routes.as_slice() else { panic!("{:?}", turned.routes) };
    assert!(!route.of_connections());
    let rules = route.http.as_ref().expect("rules");
    assert_eq!((rules.rules.before, rules.rules.after), (None, Some(1)));
    assert!(rules.changed.iter().all(|change| change.change == RuleFate::Added));
    let fates = |changes: &Changes| changes.flows.as_ref().expect("flows were given").all;
    assert_eq!((fates(&turned).kept, fates(&turned).draining, fates(&turned).gone), (2, 0, 0));
    let back = changes(&after, &before, flows());
    let rules = back.routes[0].http.as_ref().expect("rules");
    assert_eq!((rules.rules.before, rules.rules.after), (Some(1), None));
    assert!(rules.changed.iter().all(|change| change.change == RuleFate::Removed));
    assert_eq!(fates(&back).kept, 2);
}

#[test]
fn connections_that_change_with_the_rules_are_told_too() {
    let api = entry("/api", 1, 1);
    let after = conf(&[&api])
        .replace("kuma.io/service: backend}, http", "kuma.io/service: backend, version: v1}, http");
    let changes = changes(&[WORLD, &conf(&[&api])], &[WORLD, &after], None);
    let route = &changes.routes[0];
    assert!(route.of_connections());
    let rules = route.http.as_ref().expect("rules");
    assert_eq!(told(rules), [(RuleFate::Changed, "the rest".to_owned())]);
}

#[test]
fn routes_without_rules_say_nothing_of_them() {
    let plain = conf(&[]);
    let changes = changes(&[WORLD], &[WORLD, &plain], None);
    assert!(changes.routes.iter().all(|route| route.http.is_none()));
}
