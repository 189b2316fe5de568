//! MeshLoadBalancingStrategies: what several of them come to for what is dialled, and what of it
//! a route carries out (semantics 4.9).

//! MeshLoadBalancingStrategies: what several of them come to for what is dialled, and what of it
//! a route carries out (semantics 4.9).

use std::{sync::Arc, time::Duration};

use super::{
    PolicyRef, Resolver, Route,
    check::{did_you_mean, with_hint},
    findings::Findings,
    http::{Backends, HttpRules, Refused},
    mesh_policy::{self, ToPolicies, check},
    objects::{has_labels, namespace, plain_name},
    split::Place,
};
use crate::{
    http::{Cookie, KeyOf, KeyPolicy, Order, Rule, Rules, Split, header_name},
    policy::{
        Diagnostic, HashKey, HashPolicy, LoadBalancer, Locality, MeshHttpRoute,
        MeshLoadBalancingStrategy, Meta, ReferredBy, StrategyBalancer, StrategyTarget,
    },
};

/// An item of a MeshLoadBalancingStrategy.
pub type Item<'a> = mesh_policy::Item<'a, MeshLoadBalancingStrategy>;

/// Which MeshLoadBalancingStrategies were considered. They are merged.
pub type Ranking<'a> = mesh_policy::Ranking<'a, MeshLoadBalancingStrategy>;

/// The MeshLoadBalancingStrategies of one mesh.
pub(super) type Strategies<'a> = ToPolicies<'a, MeshLoadBalancingStrategy>;

/// The most slots that a table has. More are asked for in vain.
pub const SLOTS_MAX: u32 = 1_048_583;

/// `failoverThreshold.percentage` where it is not given.
const DEFAULT_THRESHOLD_PERCENT: f64 = 50.0;

/// What items come to, in order: each part from the first that says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strategy<'a> {
    /// `loadBalancer`.
    pub load_balancer: Option<&'a StrategyBalancer>,
    /// `hashPolicies`.
    pub hash_policies: Option<&'a [HashPolicy]>,
    /// `localityAwareness`.
    pub locality: Option<&'a Locality>,
}

/// Merges `items`, of which the first goes before the second and so on.
pub fn merge<'a>(items: &[Item<'a>]) -> Strategy<'a> {
    let mut merged = Strategy::default();
    for item in items.iter().map(|item| item.to()) {
        merged.load_balancer = merged.load_balancer.or(item.load_balancer.as_ref());
        merged.hash_policies = merged.hash_policies.or(item.hash_policies.as_deref());
        merged.locality = merged.locality.or(item.locality.as_ref());
    }
    merged
}

/// What requests are kept together by, where a MeshLoadBalancingStrategy speaks of what a
/// MeshHTTPRoute takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfHttpRoutes<'a, 'i> {
    /// Such items, in order.
    pub(super) items: &'i [Item<'a>],
    /// The MeshHTTPRoutes of the mesh, by name.
    pub(super) routes: &'i [&'a MeshHttpRoute],
}

impl<'a> OfHttpRoutes<'a, '_> {
    /// The hash policies of the first item that means this policy.
    fn policies(&self, of: &PolicyRef) -> Option<&'a [HashPolicy]> {
        let named = |route: &&MeshHttpRoute| route.meta.name.as_str().cmp(of.name.as_str());
        let place = self.routes.binary_search_by(named).ok()?;
        let route = self.routes[place];
        let means = |item: &&Item<'a>| match &item.to().target {
            StrategyTarget::HttpRoute(by) => {
                of.kind == route.meta.kind && is_meant(by, item.meta(), &route.meta)
            }
            StrategyTarget::Mesh | StrategyTarget::Service(_) => false,
        };
        self.items.iter().filter(means).find_map(|item| item.to().hash_policies.as_deref())
    }
}

/// Whether a reference of `referrer` means this policy.
fn is_meant(by: &ReferredBy, referrer: &Meta, policy: &Meta) -> bool {
    match by {
        ReferredBy::Name { name, namespace: given } => {
            let inside = given.as_deref().or_else(|| namespace(referrer));
            policy.name == *name || (plain_name(policy) == name && namespace(policy) == inside)
        }
        ReferredBy::Labels(labels) => has_labels(policy, labels),
    }
}

impl Strategy<'_> {
    /// Carries it out on a route of what was dialled. `speaks_http`: requests can be told apart.
    pub(super) fn apply(
        &self,
        place: &Place<'_>,
        mut route: Route,
        of_http_routes: OfHttpRoutes<'_, '_>,
        speaks_http: bool,
    ) -> Route {
        if let Some(balancer) = self.load_balancer {
            route.load_balancer = balancer.algorithm;
            route.hashing.slots = balancer.table_size.map(|slots| slots.min(SLOTS_MAX));
        }
        let hashed = is_by_hash(route.load_balancer);
        let policies = self.hash_policies.filter(|_| hashed).unwrap_or_default();
        // Of a connection nothing is known but its addresses.
        let of_source = |policy: &HashPolicy| policy.key == HashKey::SourceAddress;
        route.hashing.by_source = policies.iter().any(of_source);
        if !speaks_http {
            return route;
        }
        let of_service = keys(self.hash_policies, hashed);
        if route.http.is_none() && of_service.iter().any(|key| key.of != KeyOf::Source) {
            route.http = Some(Arc::new(every_request(place, &route)));
        }
        if let Some(http) = &mut route.http {
            let http = Arc::make_mut(http);
            let mut rules = Rules::clone(&http.rules);
            for (at, rule) in rules.rules.iter_mut().enumerate() {
                let policy = http.policy_of(at);
                let own = policy.and_then(|policy| of_http_routes.policies(policy));
                rule.keys = match own {
                    Some(own) => keys(Some(own), hashed),
                    None => of_service.clone(),
                };
            }
            if let Some(otherwise) = &mut rules.otherwise {
                otherwise.keys = of_service;
            }
            http.rules = Arc::new(rules);
        }
        route
    }
}

/// What requests are kept together by: where no policy says, the client's address (decision D7).
fn keys(policies: Option<&[HashPolicy]>, hashed: bool) -> Vec<KeyPolicy> {
    match policies {
        _ if !hashed => Vec::new(),
        Some(policies) => policies.iter().filter_map(|policy| key(policy).ok()).collect(),
        None => vec![KeyPolicy { of: KeyOf::Source, terminal: true }],
    }
}

fn key(policy: &HashPolicy) -> Result<KeyPolicy, Refused> {
    let refused =
        |why: &dyn ToString| Refused { field: policy.field.clone(), why: why.to_string() };
    let of = match &policy.key {
        HashKey::Header(name) => KeyOf::Header(header_name(name).map_err(|why| refused(&why))?),
        HashKey::Cookie { name, ttl_ms, path } => {
            let ttl = ttl_ms.map(Duration::from_millis);
            KeyOf::Cookie(Cookie::new(name, ttl, path.as_deref()).map_err(|why| refused(&why))?)
        }
        HashKey::SourceAddress => KeyOf::Source,
        HashKey::QueryParameter(name) => KeyOf::Query(name.clone()),
    };
    Ok(KeyPolicy { of, terminal: policy.terminal })
}

fn is_by_hash(load_balancer: LoadBalancer) -> bool {
    matches!(load_balancer, LoadBalancer::RingHash { .. } | LoadBalancer::Maglev)
}

/// The rules of a route that tells no requests apart, but chooses by what they hold (decision
/// D16): one for all of them.
fn every_request(place: &Place<'_>, route: &Route) -> HttpRules {
    let mut backends = Backends::new(*place, false);
    let of_route = route.backends.iter().map(|backend| {
        backends.weighted(backend.weight, backend.destination.clone(), backend.tags.clone())
    });
    let split = Split::new(of_route.collect());
    let origin = route.policy.as_ref().map_or_else(
        || "the service itself".to_owned(),
        |PolicyRef { kind, name, .. }| format!("{kind} {name}"),
    );
    let otherwise = Some(Rule { origin, split, ..Rule::default() });
    let rules = Rules { order: Order::Mesh, rules: Vec::new(), otherwise };
    backends.finish(route.policy.iter().cloned().collect(), Vec::new(), rules)
}

/// What there is to say of every MeshLoadBalancingStrategy.
pub(super) fn check<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    for policy in resolver.strategies.values().flat_map(ToPolicies::policies) {
        let meta = &policy.meta;
        check::policy(resolver, *policy, findings);
        for to in &policy.to {
            let field = |part: &str| format!("{}.default.{part}", to.field);
            for Refused { field, why } in
                to.hash_policies.iter().flatten().filter_map(|policy| key(policy).err())
            {
                findings.add(meta, Diagnostic::error(field, why).at(to.span));
            }
            let warn =
                |part: &str, message: String| Diagnostic::warning(field(part), message).at(to.span);
            if let Some(locality) = to.locality.as_ref().filter(|locality| !locality.disabled) {
                if !locality.affinity.is_empty() {
                    let message = "is not carried out: endpoints of a zone are alike";
                    let part = "localityAwareness.localZone.affinityTags";
                    findings.add(meta, warn(part, message.to_owned()));
                }
                if locality.threshold_percent != DEFAULT_THRESHOLD_PERCENT {
                    let message = "is not carried out: the next zones are used when the nearer \
                                   ones have no ready endpoint";
                    let part = "localityAwareness.crossZone.failoverThreshold";
                    findings.add(meta, warn(part, message.to_owned()));
                }
                if resolver.settings.zone.is_none() {
                    let message = "has no effect: this node's zone is not known";
                    let found = warn("localityAwareness", message.to_owned());
                    findings.add(meta, found.hint("set `zone` in the configuration"));
                }
            }
            if let Some(slots) = to.load_balancer.and_then(|balancer| balancer.table_size)
                && slots > SLOTS_MAX
            {
                let message = format!("tables have at most {SLOTS_MAX} slots: so many are used");
                findings.add(meta, warn("loadBalancer.maglev.tableSize", message));
            }
            if let StrategyTarget::HttpRoute(by) = &to.target
                && !resolver
                    .mesh_http_routes(&meta.mesh)
                    .iter()
                    .any(|r| is_meant(by, meta, &r.meta))
            {
                let message = format!(
                    "mesh {} has no MeshHTTPRoute `{}`: this item has no effect",
                    meta.mesh,
                    mesh_policy::written(by)
                );
                let names = resolver.mesh_http_routes(&meta.mesh).iter();
                let known = names.map(|route| route.meta.name.as_str());
                let hint = did_you_mean(&mesh_policy::written(by), known);
                let found = Diagnostic::warning(format!("{}.targetRef", to.field), message);
                findings.add(meta, with_hint(found.at(to.span), hint));
            }
        }
    }
}
