//! The sentences about MeshTCPRoutes and MeshHTTPRoutes: which of them were considered, and which
//! won or are merged in which order.

use super::steps::{LISTED, Told, counted, listed};
use crate::{
    http::Found,
    policy::{Meta, RouteTarget, ServiceKind},
    resolve::{
        Decision, mesh_http,
        mesh_policy::{Item, Mismatch, Nobody, Ranking, Role, Rule, Spoken, ToPolicy, role},
        mesh_tcp,
    },
};

impl Told<'_, '_> {
    /// What there is to say where the mesh has MeshHTTPRoutes.
    pub(super) fn mesh_http_routes(&self) -> Vec<String> {
        let mesh = self.vip.destination.mesh();
        let all = self.resolver.mesh_http_routes(mesh).len();
        let ranking = &self.source.mesh_http;
        let Some(winner) = &ranking.winner else { return nobody(ranking, mesh, all) };
        let matching = 1 + ranking.losers.len();
        let number = counted(matching, "item of a MeshHTTPRoute is", "items of MeshHTTPRoutes are");
        if !self.source.by_mesh_http {
            return vec![format!(
                "policy: {number} for this source and destination and has no effect: {} does not \
                 speak HTTP",
                self.vip.destination
            )];
        }
        let merged = if matching > 1 { ", and they are merged" } else { "" };
        let mut steps = vec![format!(
            "policy: {number} for this source and destination{merged}; {} goes first: {}",
            winner.meta().name,
            place(winner)
        )];
        steps.extend(losers(ranking, "adds what others leave open"));
        steps.extend(mismatches(ranking));
        steps.extend(self.mesh_tcp_below(winner));
        steps.extend(self.overruled(winner));
        let no_rule = ranking.in_order().iter().all(|item| item.to().rules.is_empty());
        steps.extend(no_rule.then(|| {
            format!("policy: {} has no rule: the destination itself takes all", place(winner))
        }));
        steps
    }

    /// What becomes of a MeshTCPRoute beside MeshHTTPRoutes.
    fn mesh_tcp_below(&self, winner: &mesh_http::Item<'_>) -> Option<String> {
        let below = self.source.mesh_tcp.winner.as_ref()?;
        let name = &below.meta().name;
        let decides =
            self.route.policy.as_ref().is_some_and(|policy| policy.kind == "MeshTCPRoute");
        Some(if decides {
            format!("policy: MeshTCPRoute {name} says where connections go while no proxy listens")
        } else {
            format!(
                "policy: MeshTCPRoute {name} would match and has no effect here: MeshHTTPRoute {} \
                 goes before every MeshTCPRoute",
                winner.meta().name
            )
        })
    }

    /// Whose filters and backends a merged rule has, where they are not its own.
    pub(super) fn merged(&self, found: Found<'_>) -> Vec<String> {
        if !self.source.by_mesh_http {
            return Vec::new();
        }
        let merged = mesh_http::merge(&self.source.mesh_http.in_order());
        let Some(one) = found.place.and_then(|at| merged.get(at.rule)) else { return Vec::new() };
        let other = |item: mesh_http::Item<'_>| (item != one.item).then(|| place(&item));
        let filters = one.filters.and_then(|(item, _)| other(item));
        let backends = one.backends.and_then(|given| other(given.item));
        let says = |what: &str, of: Option<String>| {
            of.map(|of| format!("policy: the rule says no {what}; they are those of {of}"))
        };
        says("filters", filters).into_iter().chain(says("backends", backends)).collect()
    }

    /// What there is to say where the mesh has MeshTCPRoutes.
    pub(super) fn mesh_tcp_routes(&self) -> Vec<String> {
        let mesh = self.vip.destination.mesh();
        let all = self.resolver.mesh_tcp_routes(mesh).len();
        let ranking = &self.source.mesh_tcp;
        let Some(winner) = &ranking.winner else { return nobody(ranking, mesh, all) };
        let matching = 1 + ranking.losers.len();
        let mut steps = vec![format!(
            "policy: {} for this source and destination; {} wins: {}",
            counted(matching, "item of a MeshTCPRoute is", "items of MeshTCPRoutes are"),
            winner.meta().name,
            place(winner)
        )];
        steps.extend(losers(ranking, "is also for them"));
        steps.extend(mismatches(ranking));
        steps.extend(self.overruled(winner));
        steps.extend(self.what_it_says(winner));
        steps
    }

    /// What there is to say where the mesh has MeshLoadBalancingStrategies.
    pub(super) fn strategies(&self) -> Vec<String> {
        let ranking = &self.source.strategies;
        let Some(winner) = &ranking.winner else {
            return mismatches(ranking).into_iter().collect();
        };
        let merged = if ranking.losers.is_empty() { "" } else { ", and they are merged" };
        let first = format!(
            "policy: {} for this source and destination{merged}; {} goes first: {}",
            counted(
                1 + ranking.losers.len(),
                "item of a MeshLoadBalancingStrategy is",
                "items of MeshLoadBalancingStrategies are"
            ),
            winner.meta().name,
            place(winner)
        );
        let others = losers(ranking, "adds what others leave open");
        std::iter::once(first).chain(others).chain(mismatches(ranking)).collect()
    }

    /// TrafficRoutes that would decide without it (decision D23).
    fn overruled<P: ToPolicy>(&self, winner: &Item<'_, P>) -> Option<String> {
        let traffic = &self.source.ranking;
        let first = traffic.winner.as_ref()?;
        let others = match traffic.losers.len() {
            0 => String::new(),
            more => format!(" and {}", counted(more, "other", "others")),
        };
        let Meta { kind, name, .. } = winner.meta();
        Some(format!(
            "policy: TrafficRoute {}{others} would match and has no effect here: {kind} {name} goes \
             before every TrafficRoute",
            first.route.meta.name
        ))
    }

    fn what_it_says(&self, winner: &mesh_tcp::Item<'_>) -> Option<String> {
        if self.route.decision == Decision::Reject {
            let why = if self.route.backends.is_empty() {
                "it names no backend"
            } else {
                "no backend has any weight"
            };
            return Some(format!("policy: {why}, so connections are reset"));
        }
        winner.to().rule.is_none().then(|| {
            format!("policy: {} has no rule: the destination itself takes all", place(winner))
        })
    }
}

/// What there is to say where policies of a kind are there, and none decides.
fn nobody<P: ToPolicy>(ranking: &Ranking<'_, P>, mesh: &str, all: usize) -> Vec<String> {
    let Some(first) = ranking.mismatches.first() else { return Vec::new() };
    let kind = first.policy.meta().kind;
    let none = format!(
        "policy: no {kind} of mesh {mesh} is for this source and destination ({all} in all)"
    );
    std::iter::once(none).chain(mismatches(ranking)).collect()
}

fn losers<P: ToPolicy>(ranking: &Ranking<'_, P>, what: &str) -> Vec<String> {
    let Some(winner) = &ranking.winner else { return Vec::new() };
    let told = ranking.losers.iter().take(LISTED).map(|(loser, rule)| {
        format!(
            "policy: {} {what}; {} goes first: {}",
            place(loser),
            place(winner),
            rule_text(*rule, winner, loser)
        )
    });
    let more = ranking.losers.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("policy: {more} more come after these"));
    told.chain(more).collect()
}

fn mismatches<P: ToPolicy>(ranking: &Ranking<'_, P>) -> Option<String> {
    let kinds = match ranking.mismatches.first()?.policy.meta().kind {
        "MeshLoadBalancingStrategy" => "MeshLoadBalancingStrategies".to_owned(),
        kind => format!("{kind}s"),
    };
    let named = ranking.mismatches.iter().map(|m| format!("{} ({})", m.policy.meta().name, why(m)));
    Some(format!("policy: {kinds} not matching: {}", listed(named)))
}

/// `redis-canary spec.to[0]`.
fn place<P: ToPolicy>(item: &Item<'_, P>) -> String {
    format!("{} {}", item.meta().name, item.place().1)
}

fn why<P>(mismatch: &Mismatch<'_, P>) -> &'static str {
    match (mismatch.nobody, mismatch.source, mismatch.destination) {
        (Some(Nobody::MeshGateway), ..) => "for a MeshGateway, which is not carried out",
        (Some(Nobody::OtherZone), ..) => "of another zone",
        (Some(Nobody::NoNamespace), ..) => "for workloads of its namespace, and has none",
        (None, true, true) => "source and destination",
        (None, true, false) => "source",
        (None, false, _) => "destination",
    }
}

fn rule_text<P: ToPolicy>(rule: Rule, winner: &Item<'_, P>, loser: &Item<'_, P>) -> String {
    let (first, second) = (winner.meta(), loser.meta());
    match rule {
        Rule::NamesBackends => "the other names no backend, and leaves that to others".to_owned(),
        Rule::NarrowerTarget => format!(
            "a targetRef of kind {} goes before one of kind {}",
            target(winner.policy.target()),
            target(loser.policy.target())
        ),
        Rule::NearerOrigin => format!(
            "what comes from {} goes before what comes from {}",
            origin(first),
            origin(second)
        ),
        Rule::NearerRole => format!(
            "the role {} goes before the role {}",
            role_name(role(winner.policy)),
            role_name(role(loser.policy))
        ),
        Rule::NarrowerDestination => {
            format!("{} goes before {}", destination(winner), destination(loser))
        }
        Rule::SmallerName => "all else equal, smaller name".to_owned(),
        Rule::LaterInPolicy => "it stands later in the same policy".to_owned(),
    }
}

fn target(target: &RouteTarget) -> &'static str {
    match target {
        RouteTarget::Mesh { .. } => "Mesh",
        RouteTarget::MeshSubset { .. } => "MeshSubset",
        RouteTarget::Dataplane(Some(crate::policy::ReferredBy::Name { .. })) => {
            "Dataplane (by name)"
        }
        RouteTarget::Dataplane(_) => "Dataplane",
        RouteTarget::MeshService { .. } => "MeshService",
        RouteTarget::MeshServiceSubset { .. } => "MeshServiceSubset",
        RouteTarget::MeshGateway { .. } => "MeshGateway",
    }
}

fn origin(meta: &Meta) -> &str {
    match meta.labels.get("kuma.io/origin").map(String::as_str) {
        Some(known @ ("global" | "zone")) => known,
        _ => "nowhere in particular",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Producer => "producer",
        Role::Consumer => "consumer",
        Role::WorkloadOwner => "workload-owner",
    }
}

fn destination<P: ToPolicy>(item: &Item<'_, P>) -> String {
    match item.spoken() {
        Spoken::Mesh => "a destination of kind Mesh".to_owned(),
        Spoken::HttpRoute(_) => "a destination of kind MeshHTTPRoute".to_owned(),
        Spoken::Service(to) => {
            let kind = match to.kind {
                ServiceKind::MeshService => "MeshService",
                ServiceKind::MeshExternalService => "MeshExternalService",
                ServiceKind::MeshMultiZoneService => "MeshMultiZoneService",
            };
            let section = if to.section.is_some() { " with a section" } else { "" };
            format!("a destination of kind {kind}{section}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        explain::{
            Answer, Decision,
            tests::{ask, has_step},
        },
        policy::PolicySet,
        resolve::tests::world::documents,
    };

    fn policy(name: &str, target: &str, rules: &str) -> String {
        format!(
            "type: MeshTCPRoute\nmesh: default\nname: {name}\nspec: {{targetRef: {{{target}}}, to: \
             [{{targetRef: {{kind: MeshService, name: other}}}}, {{targetRef: {{kind: MeshService, \
             name: redis}}, rules: {rules}}}]}}\n---\n"
        )
    }

    fn backends(list: &str) -> String {
        format!("[{{default: {{backendRefs: [{list}]}}}}]")
    }

    fn shop(rest: &str) -> PolicySet {
        documents(&format!(
            "type: Dataplane\nmesh: default\nname: redis-1\nnetworking: {{address: 10.0.0.21, inbound: \
             [{{port: 6379, tags: {{kuma.io/service: redis}}}}]}}\n---\ntype: Dataplane\nmesh: \
             default\nname: web-1\nnetworking: {{address: 10.0.0.11, inbound: [{{port: 80, tags: \
             {{kuma.io/service: web}}}}]}}\n---\ntype: TrafficRoute\nmesh: default\nname: all\nsources: \
             [{{match: {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: \
             '*'}}}}]\nconf: {{destination: {{kuma.io/service: '*'}}}}\n---\n{rest}"
        ))
    }

    fn answer(rest: &str, from: &str) -> Answer {
        ask(&shop(rest), from, "redis").unwrap()
    }

    #[test]
    fn answer_names_the_policy_its_item_and_who_lost() {
        let redis = backends("{kind: MeshService, name: redis}");
        let all = policy("wide", "kind: Mesh", &redis)
            + &policy("narrow", "kind: MeshService, name: web", &redis)
            + &policy("batch", "kind: MeshService, name: batch", &redis);
        let of_web = answer(&all, "web-1");
        let value = serde_json::to_value(&of_web).unwrap();
        assert_eq!(
            value["policy"],
            json!({"kind": "MeshTCPRoute", "mesh": "default", "name": "narrow"})
        );
        assert_eq!(value["rule"], json!({"index": 1}));
        assert_eq!(of_web.decision, Decision::Forward);
        has_step(
            &of_web,
            "2 items of MeshTCPRoutes are for this source and destination; narrow wins: narrow spec.to[1]",
        );
        has_step(
            &of_web,
            "wide spec.to[1] is also for them; narrow spec.to[1] goes first: a targetRef of kind MeshService goes before one of kind Mesh",
        );
        has_step(&of_web, "MeshTCPRoutes not matching: batch (source)");
        has_step(
            &of_web,
            "TrafficRoute all would match and has no effect here: MeshTCPRoute narrow goes before every TrafficRoute",
        );
        assert_eq!(answer(&all, "192.0.2.1").policy.unwrap().name, "wide");
        // A workload that does not exist is asked about by its tags.
        let batch = answer(&all, "kuma.io/service=batch,version=1");
        assert_eq!(batch.policy.unwrap().name, "batch");
    }

    #[test]
    fn traffic_route_decides_where_no_mesh_tcp_route_speaks() {
        let of_batch = policy("batch", "kind: MeshService, name: batch", "[]");
        let of_web = answer(&of_batch, "web-1");
        assert_eq!(of_web.policy.as_ref().unwrap().kind, "TrafficRoute");
        assert_eq!(of_web.rule, None);
        has_step(
            &of_web,
            "no MeshTCPRoute of mesh default is for this source and destination (1 in all)",
        );
        has_step(&of_web, "1 of 1 TrafficRoutes of mesh default match; all wins");
        let of_batch = answer(&of_batch, "kuma.io/service=batch");
        has_step(&of_batch, "batch spec.to[1] has no rule: the destination itself takes all");
    }

    #[test]
    fn closed_route_says_that_connections_are_reset_and_why() {
        let drained = backends("{kind: MeshService, name: redis, weight: 0}");
        let closed = answer(&policy("closed", "kind: Mesh", &drained), "web-1");
        assert_eq!((closed.decision, closed.load_balancer.clone()), (Decision::Reject, None));
        has_step(&closed, "no backend has any weight, so connections are reset");
        let empty = answer(&policy("empty", "kind: Mesh", "[{default: {}}]"), "web-1");
        assert_eq!(empty.decision, Decision::Reject);
        has_step(&empty, "it names no backend, so connections are reset");
    }

    #[test]
    fn backend_that_is_not_there_keeps_its_share_and_says_so() {
        let both = backends(
            "{kind: MeshService, name: redis, weight: 3}, {kind: MeshService, name: gone, port: 80}",
        );
        let split = answer(&policy("p", "kind: Mesh", &both), "web-1");
        let value = serde_json::to_value(&split).unwrap();
        assert_eq!(value["backends"][1]["service"], "gone:80");
        assert_eq!(value["backends"][1]["kind"], "MeshService");
        assert_eq!(value["backends"][1]["state"], "invalid");
        assert_eq!(value["backends"][1]["share"], 0.25);
        has_step(&split, "mesh default has no such object or port, so this share is reset");
    }

    #[test]
    fn each_rule_of_the_order_has_its_words() {
        let redis = backends("{kind: MeshService, name: redis}");
        let labelled = |name: &str, labels: &str| {
            policy(name, "kind: Mesh", &redis).replace(
                &format!("name: {name}\n"),
                &format!("name: {name}\nlabels: {{{labels}}}\n"),
            )
        };
        let words = |one: String, other: String, words: &str| {
            has_step(&answer(&(one + &other), "web-1"), words);
        };
        let plain = || policy("b", "kind: Mesh", &redis);
        words(plain(), labelled("a", ""), "all else equal, smaller name");
        let zone = labelled("z", "kuma.io/origin: zone");
        words(
            plain(),
            zone,
            "what comes from zone goes before what comes from nowhere in particular",
        );
        let producer = labelled("z", "kuma.io/policy-role: producer");
        words(plain(), producer, "the role producer goes before the role system");
        let empty = policy("a", "kind: Mesh", "[{default: {}}]");
        words(plain(), empty, "the other names no backend, and leaves that to others");
    }
}
