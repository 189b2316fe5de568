//! The sentences about MeshTCPRoutes: which of them were considered, and which won.

use super::steps::{LISTED, Told, counted, listed};
use crate::{
    policy::{Meta, RouteTarget, ServiceKind, ToTarget},
    resolve::{
        Decision,
        mesh_tcp::{Item, Mismatch, Nobody, Role, Rule, role},
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

fn why(mismatch: &Mismatch<'_>) -> &'static str {
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
