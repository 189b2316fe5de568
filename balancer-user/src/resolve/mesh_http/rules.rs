//! What merged rules do with requests, and with connections while nobody carries that out.

use super::{
    super::{
        Decision, Destination, Hashing, PolicyRef, Route,
        http::{
            Backends, HttpRules, Refused, SplitPlace,
            filters::{Family, filters},
            matches::request_match,
        },
        inventory::Inventory,
        mesh_policy::backends::led_to,
        objects::Objects,
        split::Place,
    },
    Item, Merged, merge,
    merge::Given,
};
use crate::{
    http::{self, Order, Rule, Rules, Split},
    policy::{
        BackendRef, LoadBalancer, MeshHttpRule, Tags,
        http_route::{Located, PathMatch, RequestMatch, RouteFilter},
    },
};

impl<'p> Place<'p> {
    /// The route that items of MeshHTTPRoutes, in order, give to what is called: with these tags,
    /// where it is a service by its tag. `connections` is the route without them, where a policy
    /// gives one.
    pub fn mesh_http_route(
        &self,
        items: &[Item<'_>],
        objects: &Objects<'_>,
        called: (&Destination, &Tags),
        connections: Option<Route>,
    ) -> Route {
        let merged = merge(items);
        let itself = || vec![self.backend_of(1, called.0.clone(), called.1.clone())];
        let to_itself = |policy, decision| Route {
            policy,
            decision,
            load_balancer: LoadBalancer::RoundRobin,
            hashing: Hashing::default(),
            backends: itself(),
            http: None,
        };
        if merged.is_empty() {
            let policy = items.first().map(|item| PolicyRef::of(item.meta()));
            return to_itself(policy, Decision::Forward);
        }
        let for_all = merged.iter().position(takes_all);
        let of_rules = for_all.map(|place| self.connections(&merged[place], objects, called));
        let route = of_rules.or(connections).unwrap_or_else(|| to_itself(None, Decision::Direct));
        let mut rules = self.mesh_http_rules(&merged, objects, called);
        rules.connections = for_all;
        Route { http: Some(rules.into()), ..route }
    }

    /// What connections get of a rule that takes every request.
    fn connections(
        &self,
        merged: &Merged<'_>,
        objects: &Objects<'_>,
        (called, tags): (&Destination, &Tags),
    ) -> Route {
        let giving = merged.backends.map_or(merged.item, |given| given.item);
        let backends = match merged.backends {
            None => vec![self.backend_of(1, called.clone(), tags.clone())],
            Some(Given { item, backends, .. }) => backends
                .iter()
                .map(|backend| {
                    let (to, tags) = led_to(&backend.target, item.meta(), objects, self.inventory);
                    self.backend_of(backend.weight, to, tags)
                })
                .collect(),
        };
        let closed = backends.iter().all(|backend| backend.weight == 0);
        Route {
            policy: Some(PolicyRef::of(giving.meta())),
            decision: if closed { Decision::Reject } else { Decision::Forward },
            load_balancer: LoadBalancer::RoundRobin,
            hashing: Hashing::default(),
            backends,
            http: None,
        }
    }

    fn mesh_http_rules(
        &self,
        merged: &[Merged<'_>],
        objects: &Objects<'_>,
        (called, tags): (&Destination, &Tags),
    ) -> HttpRules {
        let mut backends = Backends::new(*self, true);
        let mut policies: Vec<PolicyRef> = Vec::new();
        let mut rules = Vec::with_capacity(merged.len());
        let mut given_by = Vec::with_capacity(merged.len());
        for one in merged {
            let policy = PolicyRef::of(one.item.meta());
            let known = policies.iter().position(|other| *other == policy);
            given_by.push(known.unwrap_or_else(|| {
                policies.push(policy);
                policies.len() - 1
            }));
            let led = |backend: &BackendRef, item: Item<'_>| {
                led_to(&backend.target, item.meta(), objects, self.inventory)
            };
            let split = match one.backends {
                Some(Given { item, backends: all, .. }) => all
                    .iter()
                    .map(|backend| {
                        let (to, tags) = led(backend, item);
                        backends.weighted(backend.weight, to, tags)
                    })
                    .collect(),
                None => vec![backends.weighted(1, called.clone(), tags.clone())],
            };
            // What is refused is said of the policy, once (`check`).
            let mut refused = Vec::new();
            let filters = one.filters.map(|(item, all)| {
                filters(all, Family::Mesh, &mut refused, |backend| {
                    let (to, tags) = led(backend, item);
                    http::Destination::Backend(backends.id(to, tags))
                })
            });
            let matches = one.rule.matches.iter().map(|m| request_match(m, &mut refused));
            let meta = one.item.meta();
            rules.push(Rule {
                origin: format!("{} {}: {}", meta.kind, meta.name, one.rule.field),
                matches: matches.collect(),
                filters: filters.unwrap_or_default(),
                split: Split::new(split),
                ..Rule::default()
            });
        }
        let all = merged.iter().flat_map(|one| &one.rule.matches).any(|m| is_root(&m.value));
        let otherwise = (!all).then(|| Rule {
            origin: format!("{}, which no rule speaks of", called.called()),
            split: Split::new(vec![backends.weighted(1, called.clone(), tags.clone())]),
            ..Rule::default()
        });
        let rules = Rules { order: Order::Mesh, rules, otherwise };
        let place = |Given { item, rule, .. }: Given<'_>| SplitPlace {
            policy: PolicyRef::of(item.meta()),
            to: item.index,
            rule,
        };
        let splits = merged.iter().map(|one| one.backends.map(place)).collect();
        HttpRules { splits, ..backends.finish(policies, given_by, rules) }
    }
}

/// Where the rules of an item lead: the backends that take requests.
pub(in crate::resolve) fn leads_to(
    item: &Item<'_>,
    objects: &Objects<'_>,
    inventory: &Inventory<'_>,
) -> Vec<Destination> {
    let backends = item.to().rules.iter().flat_map(|rule| &rule.backends).flatten();
    let taking = backends.filter(|backend| backend.weight > 0);
    taking.map(|backend| led_to(&backend.target, item.meta(), objects, inventory).0).collect()
}

/// What of a rule cannot be carried out.
pub(super) fn refusals(rule: &MeshHttpRule) -> Vec<Refused> {
    let mut refused = Vec::new();
    for one in &rule.matches {
        request_match(one, &mut refused);
    }
    let written = rule.filters.as_deref().unwrap_or_default();
    filters(written, Family::Mesh, &mut refused, |_| http::Destination::Invalid);
    refused
}

/// Whether a rule takes every request, and sends it to a backend.
fn takes_all(merged: &Merged<'_>) -> bool {
    let answers = |filter: &Located<RouteFilter<BackendRef>>| {
        matches!(filter.value, RouteFilter::Redirect(_) | RouteFilter::Unsupported(_))
    };
    let any = |one: &RequestMatch| is_root(one) || *one == RequestMatch::default();
    merged.rule.matches.iter().any(|one| any(&one.value))
        && !merged.filters.is_some_and(|(_, filters)| filters.iter().any(answers))
}

/// Exactly `PathPrefix /` and nothing else: where there is such a match, nothing is left for the
/// service itself (semantics 4.4).
fn is_root(one: &RequestMatch) -> bool {
    let path = Some(PathMatch::Prefix("/".to_owned()));
    *one == RequestMatch { path, ..RequestMatch::default() }
}
