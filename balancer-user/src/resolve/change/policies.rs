//! Policies that say something else about what they spoke of before.
//!
//! Who is concerned, what is dialled and who goes first stay as they were; then only the routes
//! that the policy has a part in can differ. They are made again, by the functions of the whole,
//! from a small set: the policies of these routes, and what they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::{
        Destination, HttpRules, Outcome, ResolveSettings, Resolved, Resolver, Route, check,
        findings::Findings, inventory::Family, mesh_http, mesh_policy, mesh_tcp,
        resolver::Deciding,
    },
    offers::{Offers, Touched},
};
use crate::{
    http::Order,
    policy::{
        BackendTarget, Diagnostic, Edit, MeshHttpRoute, MeshTcpRoute, Meta, PolicySet, SERVICE_TAG,
        Span, Tags, ToTarget, TrafficRoute, http_route::RouteFilter,
    },
};

/// What routes are made from.
#[derive(Debug)]
pub(super) struct Made(Vec<From>);

/// An item of a policy: its name, and its index in `to`.
type Item = (String, usize);

/// What a route is made from, policies by their names.
#[derive(Debug)]
struct From {
    http: Vec<Item>,
    mesh_tcp: Option<Item>,
    traffic: Option<String>,
    strategies: Vec<Item>,
    of_http_routes: Vec<Item>,
    called: Destination,
    outbound: Tags,
    family: Family,
    /// Index into [`Resolved::routes`].
    route: usize,
}

impl Made {
    pub(super) fn new(outcome: &Outcome<'_>) -> Self {
        let from = outcome.recipes.iter().map(|(recipe, route)| {
            let deciding = outcome.resolver.deciding_by(&recipe.winner, recipe.called.mesh());
            From {
                http: deciding.http.iter().map(named).collect(),
                mesh_tcp: deciding.mesh_tcp.as_ref().map(named),
                traffic: deciding.traffic.map(|route| route.meta.name.clone()),
                strategies: deciding.strategies.iter().map(named).collect(),
                of_http_routes: deciding.of_http_routes.iter().map(named).collect(),
                called: recipe.called.clone(),
                outbound: recipe.outbound.clone(),
                family: recipe.family,
                route: *route,
            }
        });
        Self(from.collect())
    }

    /// The routes that are other ones after the edit of a policy. `None`: more may differ than
    /// they.
    pub(super) fn edited(
        &self,
        edit: &Edit,
        resolved: &Resolved,
        set: &PolicySet,
        offers: &Offers,
        settings: &ResolveSettings,
    ) -> Option<Vec<(usize, Route)>> {
        let edited = Edited::of(edit)?;
        let meta = edited.meta();
        let (own, others): (Vec<&From>, Vec<&From>) =
            self.0.iter().partition(|from| from.names(meta));

        let mut small = policies_of(set, &own, meta);
        // What it named before is part of what there was to say of it.
        let mut before = edited.alone();
        let mut touched = Touched::default();
        reach(&small, offers, &mut touched);
        reach(&before, offers, &mut touched);
        for from in &own {
            offers.touch_called(&from.called, &mut touched)?;
        }
        let endpoints = offers.set_of(&touched);
        for set in [&mut small, &mut before] {
            set.dataplanes = endpoints.dataplanes.clone();
            set.external_services = endpoints.external_services.clone();
            set.mesh_services = endpoints.mesh_services.clone();
            set.mesh_multi_zone_services = endpoints.mesh_multi_zone_services.clone();
            set.mesh_external_services = endpoints.mesh_external_services.clone();
        }
        let resolver = Resolver::new(&small, settings);
        let said = said_of(&before, &Resolver::new(&before, settings), meta);
        let known: Vec<_> =
            resolved.diagnostics.iter().filter(|(of, _)| is_same(of, meta)).cloned().collect();
        if said != known || said != said_of(&small, &resolver, meta) {
            return None;
        }

        let mut new: BTreeMap<usize, Route> = BTreeMap::new();
        for from in own {
            let route = from.again(&resolver)?;
            // What came to the same might do so no longer.
            if *new.entry(from.route).or_insert_with(|| route.clone()) != route {
                return None;
            }
        }
        new.retain(|index, route| resolved.routes[*index] != *route);
        let shared = others.iter().any(|from| new.contains_key(&from.route));
        let fits = |(index, route): (&usize, &Route)| is_part(&resolved.routes[*index], route);
        (!shared && new.iter().all(fits)).then(|| new.into_iter().collect())
    }
}

fn named<P: mesh_policy::ToPolicy>(item: &mesh_policy::Item<'_, P>) -> Item {
    (item.meta().name.clone(), item.index)
}

fn is_same(a: &Meta, b: &Meta) -> bool {
    (a.kind, &a.mesh, &a.name) == (b.kind, &b.mesh, &b.name)
}

/// What there is to say of a policy.
fn said_of(set: &PolicySet, resolver: &Resolver<'_>, meta: &Meta) -> Vec<(Meta, Diagnostic)> {
    let mut findings = Findings::new(set, &resolver.settings.names);
    check::traffic_routes(&resolver.inventory, &resolver.policies, &mut findings);
    mesh_tcp::by_themselves(resolver, &mut findings);
    mesh_http::by_themselves(resolver, &mut findings);
    let mut found = findings.into_sorted();
    found.retain(|(of, _)| is_same(of, meta));
    found
}

/// Whether [`Parts`](super::Parts) can say what differs, and nothing has to be said of rules that
/// take no request: that depends on all routes that they are part of.
pub(super) fn is_part(old: &Route, new: &Route) -> bool {
    let names = |route: &Route| -> Vec<_> {
        route.backends.iter().map(|one| (one.destination.clone(), one.tags.clone())).collect()
    };
    (&old.policy, old.decision, old.load_balancer, old.hashing)
        == (&new.policy, new.decision, new.load_balancer, new.hashing)
        && names(old) == names(new)
        && [old, new].into_iter().all(is_reached)
}

fn is_reached(route: &Route) -> bool {
    let listed = |http: &HttpRules| http.rules.order == Order::Listed;
    route.http.as_deref().is_none_or(|http| listed(http) || http.rules.unreached().is_empty())
}

impl From {
    /// Whether a policy has a part in it.
    fn names(&self, meta: &Meta) -> bool {
        let of = |items: &[Item]| items.iter().any(|(name, _)| *name == meta.name);
        self.called.mesh() == meta.mesh
            && match meta.kind {
                "MeshHTTPRoute" => of(&self.http),
                "MeshTCPRoute" => {
                    self.mesh_tcp.as_ref().is_some_and(|(name, _)| *name == meta.name)
                }
                _ => self.traffic.as_ref() == Some(&meta.name),
            }
    }

    /// The route that the policies of a set give now.
    fn again(&self, resolver: &Resolver<'_>) -> Option<Route> {
        let mesh = self.called.mesh();
        let strategies = resolver.strategies.get(mesh).map_or(&[][..], |all| all.policies());
        let traffic = resolver.traffic_routes(mesh).iter();
        let deciding = Deciding {
            http: items(resolver.mesh_http_routes(mesh), &self.http)?,
            mesh_tcp: match &self.mesh_tcp {
                Some(one) => items(resolver.mesh_tcp_routes(mesh), [one])?.pop(),
                None => None,
            },
            traffic: match &self.traffic {
                Some(name) => Some(traffic.copied().find(|route| route.meta.name == *name)?),
                None => None,
            },
            strategies: items(strategies, &self.strategies)?,
            of_http_routes: items(strategies, &self.of_http_routes)?,
        };
        Some(resolver.route(&deciding, &self.called, self.family, &self.outbound))
    }
}

fn items<'a, 'i, P: mesh_policy::ToPolicy>(
    policies: &[&'a P],
    items: impl IntoIterator<Item = &'i Item>,
) -> Option<Vec<mesh_policy::Item<'a, P>>> {
    let item = |(name, index): &Item| {
        let policy = policies.iter().copied().find(|policy| policy.meta().name == *name)?;
        Some(mesh_policy::Item { policy, index: *index })
    };
    items.into_iter().map(item).collect()
}

/// A policy that says something else, and is about what it was about before.
enum Edited<'e> {
    Traffic(&'e Arc<TrafficRoute>),
    MeshTcp(&'e Arc<MeshTcpRoute>),
    MeshHttp(&'e Arc<MeshHttpRoute>),
}

impl<'e> Edited<'e> {
    /// The policy before. `None`: it is about something else now, or new, or gone.
    fn of(edit: &'e Edit) -> Option<Self> {
        match edit {
            Edit::TrafficRoute { before: Some(before), after: Some(after) } => {
                let same = TrafficRoute { conf: before.conf.clone(), ..TrafficRoute::clone(after) };
                (same == **before).then_some(Self::Traffic(before))
            }
            Edit::MeshTcpRoute { before: Some(before), after: Some(after) } => {
                let plain = |policy: &MeshTcpRoute| {
                    let mut plain = policy.clone();
                    for to in &mut plain.to {
                        // Which items say where connections go is part of who goes first.
                        to.rule = to.rule.take().filter(|rule| rule.backends.is_empty());
                        to.span = Span::default();
                        unplace(&mut to.target);
                    }
                    plain
                };
                (plain(before) == plain(after)).then_some(Self::MeshTcp(before))
            }
            Edit::MeshHttpRoute { before: Some(before), after: Some(after) } => {
                let plain = |policy: &MeshHttpRoute| {
                    let mut plain = policy.clone();
                    for to in &mut plain.to {
                        to.rules.clear();
                        to.span = Span::default();
                        unplace(&mut to.target);
                    }
                    plain
                };
                (plain(before) == plain(after)).then_some(Self::MeshHttp(before))
            }
            _ => None,
        }
    }

    fn meta(&self) -> &'e Meta {
        match self {
            Self::Traffic(policy) => &policy.meta,
            Self::MeshTcp(policy) => &policy.meta,
            Self::MeshHttp(policy) => &policy.meta,
        }
    }

    /// A set with the policy alone.
    fn alone(&self) -> PolicySet {
        let mut set = PolicySet::default();
        match *self {
            Self::Traffic(policy) => set.traffic_routes.push_back(policy.clone()),
            Self::MeshTcp(policy) => set.mesh_tcp_routes.push_back(policy.clone()),
            Self::MeshHttp(policy) => set.mesh_http_routes.push_back(policy.clone()),
        }
        set
    }
}

fn unplace(target: &mut ToTarget) {
    if let ToTarget::Service(reference) = target {
        reference.span = Span::default();
    }
}

/// The policies of `set` that routes are made from, and that of `meta`.
fn policies_of(set: &PolicySet, from: &[&From], meta: &Meta) -> PolicySet {
    let kinds = ["TrafficRoute", "MeshTCPRoute", "MeshHTTPRoute", "MeshLoadBalancingStrategy"];
    let mut wanted: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    wanted.insert((meta.kind, &meta.mesh, &meta.name));
    for from in from {
        let strategies = from.strategies.iter().chain(&from.of_http_routes);
        let names: [Vec<&String>; 4] = [
            from.traffic.iter().collect(),
            from.mesh_tcp.iter().map(|(name, _)| name).collect(),
            from.http.iter().map(|(name, _)| name).collect(),
            strategies.map(|(name, _)| name).collect(),
        ];
        for (kind, names) in kinds.into_iter().zip(names) {
            wanted.extend(names.into_iter().map(|name| (kind, from.called.mesh(), name.as_str())));
        }
    }
    let is_wanted = |meta: &Meta| wanted.contains(&(meta.kind, &*meta.mesh, &*meta.name));
    macro_rules! those {
        ($list:ident) => {
            set.$list.iter().filter(|policy| is_wanted(&policy.meta)).cloned().collect()
        };
    }
    PolicySet {
        meshes: set.meshes.clone(),
        traffic_routes: those!(traffic_routes),
        mesh_tcp_routes: those!(mesh_tcp_routes),
        mesh_http_routes: those!(mesh_http_routes),
        mesh_load_balancing_strategies: those!(mesh_load_balancing_strategies),
        ..PolicySet::default()
    }
}

/// Adds to `touched` what policies name.
fn reach(set: &PolicySet, offers: &Offers, touched: &mut Touched) {
    for policy in &set.traffic_routes {
        let outer = policy.conf.split.iter();
        for entry in outer.chain(policy.conf.http.iter().flat_map(|http| &http.split)) {
            if let Some(name) = entry.destination.get(SERVICE_TAG) {
                touched.add_service(Destination::tags(&policy.meta.mesh, name));
            }
        }
    }
    for MeshTcpRoute { meta, to, .. } in set.mesh_tcp_routes.iter().map(|policy| &**policy) {
        for to in to {
            spoken(meta, &to.target, offers, touched);
            for backend in to.rule.iter().flat_map(|rule| &rule.backends) {
                target(meta, &backend.target, offers, touched);
            }
        }
    }
    for MeshHttpRoute { meta, to, .. } in set.mesh_http_routes.iter().map(|policy| &**policy) {
        for to in to {
            spoken(meta, &to.target, offers, touched);
            for rule in &to.rules {
                for backend in rule.backends.iter().flatten() {
                    target(meta, &backend.target, offers, touched);
                }
                for filter in rule.filters.iter().flatten() {
                    if let RouteFilter::Mirror(mirror) = &filter.value {
                        target(meta, &mirror.backend.target, offers, touched);
                    }
                }
            }
        }
    }
}

fn spoken(meta: &Meta, to: &ToTarget, offers: &Offers, touched: &mut Touched) {
    match to {
        ToTarget::Mesh => {}
        ToTarget::Service(to) => offers.refer(meta, to, touched),
    }
}

fn target(meta: &Meta, to: &BackendTarget, offers: &Offers, touched: &mut Touched) {
    match to {
        BackendTarget::Subset { name, .. } => {
            touched.add_service(Destination::tags(&meta.mesh, name));
        }
        BackendTarget::Service(to) => offers.refer(meta, to, touched),
    }
}
