//! The sentences about MeshTCPRoutes: which of them were considered, and which won.

use super::steps::{LISTED, Told, counted, listed};
use crate::{
    policy::{Meta, RouteTarget, ServiceKind, ToTarget},
    resolve::{
        Decision,
        mesh_policy::{Mismatch, Nobody, Role, Rule, role},
        mesh_tcp::Item,
    },
};

impl Told<'_, '_> {
    /// What there is to say where the mesh has MeshTCPRoutes.
    pub(super) fn mesh_tcp_routes(&self) -> Vec<String> {
        let mesh = self.vip.destination.mesh();
        let all = self.resolver.mesh_tcp_routes(mesh).len();
        if all == 0 {
            return Vec::new();
        }
        let ranking = &self.source.mesh_tcp;
        let mut steps = Vec::new();
        match &ranking.winner {
            None => steps.push(format!(
                "policy: no MeshTCPRoute of mesh {mesh} is for this source and destination ({all} \
                 in all)"
            )),
            Some(winner) => {
                let matching = 1 + ranking.losers.len();
                steps.push(format!(
                    "policy: {} for this source and destination; {} wins: {}",
                    counted(matching, "item of a MeshTCPRoute is", "items of MeshTCPRoutes are"),
                    winner.policy.meta.name,
                    place(winner)
                ));
                for (loser, rule) in ranking.losers.iter().take(LISTED) {
                    steps.push(format!(
                        "policy: {} is also for them; {} goes first: {}",
                        place(loser),
                        place(winner),
                        rule_text(*rule, winner, loser)
                    ));
                }
                if ranking.losers.len() > LISTED {
                    steps.push(format!(
                        "policy: {} more come after these",
                        ranking.losers.len() - LISTED
                    ));
                }
            }
        }
        if !ranking.mismatches.is_empty() {
            let named =
                ranking.mismatches.iter().map(|m| format!("{} ({})", m.policy.meta.name, why(m)));
            steps.push(format!("policy: MeshTCPRoutes not matching: {}", listed(named)));
        }
        if let Some(winner) = &ranking.winner {
            steps.extend(self.overruled(winner));
            steps.extend(self.what_it_says(winner));
        }
        steps
    }

    /// TrafficRoutes that would decide without it (decision D23).
    fn overruled(&self, winner: &Item<'_>) -> Option<String> {
        let traffic = &self.source.ranking;
        let first = traffic.winner.as_ref()?;
        let others = match traffic.losers.len() {
            0 => String::new(),
            more => format!(" and {}", counted(more, "other", "others")),
        };
        Some(format!(
            "policy: TrafficRoute {}{others} would match and has no effect here: MeshTCPRoute {} \
             goes before every TrafficRoute",
            first.route.meta.name, winner.policy.meta.name
        ))
    }

    fn what_it_says(&self, winner: &Item<'_>) -> Option<String> {
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

/// `redis-canary spec.to[0]`.
fn place(item: &Item<'_>) -> String {
    format!("{} {}", item.policy.meta.name, item.to().field)
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

fn rule_text(rule: Rule, winner: &Item<'_>, loser: &Item<'_>) -> String {
    let (first, second) = (&winner.policy.meta, &loser.policy.meta);
    match rule {
        Rule::NamesBackends => "the other names no backend, and leaves that to others".to_owned(),
        Rule::NarrowerTarget => format!(
            "a targetRef of kind {} goes before one of kind {}",
            target(&winner.policy.target),
            target(&loser.policy.target)
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

fn destination(item: &Item<'_>) -> String {
    match &item.to().target {
        ToTarget::Mesh => "a destination of kind Mesh".to_owned(),
        ToTarget::Service(to) => {
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
