//! Routes of every VIP, and the classes of sources that share them.
//!
//! Every VIP has a default route, that of an unknown source. A source is described by what
//! differs from the defaults; sources with equal differences are one class. Most sources differ
//! nowhere, or only by the signature that they share with many.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{
    Class, Destination, Route, Source, Vip,
    inventory::{Family, MESH_TAG},
    resolver::{Resolver, service_alone},
    signatures::{OfMeshes, SignatureId, Signatures, Winner},
    sources::namespace_of,
    vips::PlannedVip,
};
use crate::policy::{SERVICE_TAG, Tags};

/// VIPs with their routes, sources with their classes.
pub(super) struct Assembled {
    pub(super) vips: Vec<Vip>,
    pub(super) sources: Vec<Source>,
    pub(super) classes: Vec<Class>,
    pub(super) routes: Vec<Route>,
    /// What each route is made from, with its index, in no order; several where they come to the
    /// same. Routes that nobody decides about are missing.
    pub(super) recipes: Vec<(Recipe, usize)>,
    /// The same of what routes of the Gateway API can be attached to.
    pub(super) of_objects: Vec<(OfObject, usize)>,
}

/// What differs from the VIPs' defaults: VIP → route, both by index, sorted by VIP.
type Differences = Vec<(usize, usize)>;

/// Gives each planned VIP its routes and each source its class.
pub(super) fn assemble(
    resolver: &Resolver<'_>,
    signatures: &Signatures<'_>,
    planned: &[PlannedVip],
) -> Assembled {
    let mut routes = Routes::default();
    let mut defaults = Vec::with_capacity(planned.len());
    let mut by_signature: BTreeMap<(&str, SignatureId), Differences> = BTreeMap::new();
    let mut by_namespace: BTreeMap<&str, Differences> = BTreeMap::new();
    let mut own: BTreeMap<IpAddr, Differences> = BTreeMap::new();
    for (index, vip) in planned.iter().enumerate() {
        let (called, mesh) = (&vip.destination, vip.destination.mesh());
        let object = vip.also.as_ref().unwrap_or(called);
        for clients in resolver.attached.consumers(object) {
            let route = routes.object(resolver, vip, object, Some(clients));
            by_namespace.entry(*clients).or_default().push((index, route));
        }
        if matches!(called, Destination::Service { .. } | Destination::Listener { .. }) {
            defaults.push(routes.object(resolver, vip, called, None));
            continue;
        }
        // Where a mesh and a Service meet, its routes go after Mesh*Routes and before TrafficRoutes
        // (decision D21).
        let produced =
            vip.also.as_ref().filter(|also| resolver.attached.point(also, None).is_some());
        let alone = called.tag_service().map(service_alone).unwrap_or_default();
        let mut route_of = |signature, outbound: &Tags| {
            let winner = signatures.winner(resolver, signature, called);
            match produced {
                Some(service) if !winner.goes_first() => {
                    routes.object(resolver, vip, service, None)
                }
                _ => routes.of(resolver, vip, winner, outbound),
            }
        };
        let default = route_of(0, &alone);
        defaults.push(default);
        for signature in signatures.unlike_unknown(resolver, called) {
            let route = route_of(signature, &alone);
            if route != default {
                by_signature.entry((mesh, signature)).or_default().push((index, route));
            }
        }
        let Some(service) = called.tag_service() else { continue };
        for address in resolver.sources.declaring(vip.key.addr) {
            let tags = resolver.outbound_tags(mesh, service, vip.key, address);
            if tags.keys().all(|tag| tag == SERVICE_TAG || tag == MESH_TAG) {
                continue;
            }
            let route = route_of(signatures.of(address, mesh), &tags);
            own.entry(address).or_default().push((index, route));
        }
    }

    let mut class_ids: BTreeMap<Differences, usize> = BTreeMap::from([(Vec::new(), 0)]);
    let mut classes = vec![Class::default()];
    type Known<'k> = (&'k OfMeshes<'k>, Option<&'k Differences>, Option<&'k Differences>);
    let mut known: BTreeMap<Known<'_>, usize> = BTreeMap::new();
    let mut sources = Vec::new();
    for ((address, dataplanes), of_meshes) in resolver.sources.iter().zip(signatures.of_sources()) {
        let own = own.get(&address);
        let of_namespace = namespace_of(dataplanes).and_then(|name| by_namespace.get(name));
        let class = *known.entry((of_meshes, own, of_namespace)).or_insert_with(|| {
            let of_signature = of_meshes
                .iter()
                .filter_map(|(mesh, signature)| by_signature.get(&(*mesh, *signature)))
                .flatten();
            let mut differences: BTreeMap<usize, usize> = of_signature.copied().collect();
            differences.extend(own.into_iter().flatten().copied());
            let of_namespace = of_namespace.into_iter().flatten().filter(|(vip, _)| {
                let called = &planned[*vip].destination;
                let of_mesh = of_meshes.iter().find(|(mesh, _)| *mesh == called.mesh());
                let signature = of_mesh.map_or(0, |(_, signature)| *signature);
                !signatures.winner(resolver, signature, called).goes_first()
            });
            differences.extend(of_namespace.copied());
            differences.retain(|vip, route| defaults[*vip] != *route);
            *class_ids.entry(differences.into_iter().collect()).or_insert_with(|| {
                classes.push(Class::default());
                classes.len() - 1
            })
        });
        if class != 0 {
            classes[class].sources.push(address);
        }
        let dataplanes = dataplanes
            .iter()
            .map(|dataplane| (dataplane.meta.mesh.clone(), dataplane.meta.name.clone()))
            .collect();
        sources.push(Source { address, dataplanes, class });
    }

    let mut class_routes: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); planned.len()];
    for (differences, class) in &class_ids {
        for (vip, route) in differences {
            class_routes[*vip].insert(*class, *route);
        }
    }
    let vips = planned
        .iter()
        .zip(defaults)
        .zip(class_routes)
        .map(|((vip, route), class_routes)| Vip {
            key: vip.key,
            destination: vip.destination.clone(),
            also: vip.also.clone(),
            origin: vip.origin,
            route,
            class_routes,
        })
        .collect();
    let Routes { distinct, by_recipe, of_objects, .. } = routes;
    let decided = |(recipe, _): &(Recipe, usize)| recipe.winner != Winner::nobody();
    let recipes = by_recipe.into_iter().filter(decided).collect();
    let mut assembled = Assembled { vips, sources, classes, routes: distinct, recipes, of_objects };
    assembled.number_routes();
    assembled
}

impl Assembled {
    /// Numbers routes in the order in which VIPs and classes name them, and forgets those that
    /// nobody names.
    fn number_routes(&mut self) {
        let mut numbers: Vec<Option<usize>> = vec![None; self.routes.len()];
        let mut next = 0;
        for vip in &mut self.vips {
            for route in std::iter::once(&mut vip.route).chain(vip.class_routes.values_mut()) {
                *route = *numbers[*route].get_or_insert_with(|| {
                    next += 1;
                    next - 1
                });
            }
        }
        let named = |route: &mut usize| {
            let number = numbers[*route];
            *route = number.unwrap_or(*route);
            number.is_some()
        };
        self.recipes.retain_mut(|(_, route)| named(route));
        self.of_objects.retain_mut(|(_, route)| named(route));
        let mut numbered: Vec<(usize, Route)> = std::mem::take(&mut self.routes)
            .into_iter()
            .zip(numbers)
            .filter_map(|(route, number)| Some((number?, route)))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        self.routes = numbered.into_iter().map(|(_, route)| route).collect();
    }
}

/// What a route is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recipe {
    pub(super) winner: Winner,
    pub(super) called: Destination,
    /// Tags of the outbound.
    pub(super) outbound: Tags,
    pub(super) family: Family,
}

/// What a route to something in no mesh is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfObject {
    pub(super) object: Destination,
    /// The clients' namespace, where they have a route of their own.
    pub(super) clients: Option<String>,
    pub(super) family: Family,
}

/// Distinct routes. The maps are only asked, never walked: their order does not matter.
#[derive(Default)]
struct Routes {
    distinct: Vec<Route>,
    ids: HashMap<Route, usize>,
    by_recipe: HashMap<Recipe, usize>,
    of_objects: Vec<(OfObject, usize)>,
}

impl Routes {
    fn of(
        &mut self,
        resolver: &Resolver<'_>,
        vip: &PlannedVip,
        winner: Winner,
        outbound: &Tags,
    ) -> usize {
        let family = Family::of(vip.key.addr.ip());
        let (called, outbound) = (vip.destination.clone(), outbound.clone());
        let recipe = Recipe { winner, called, outbound, family };
        if let Some(id) = self.by_recipe.get(&recipe) {
            return *id;
        }
        let route = resolver.route_of(&recipe);
        let id = self.number(route);
        self.by_recipe.insert(recipe, id);
        id
    }

    /// The route of a VIP as something in no mesh, for clients of a namespace.
    fn object(
        &mut self,
        resolver: &Resolver<'_>,
        vip: &PlannedVip,
        object: &Destination,
        clients: Option<&str>,
    ) -> usize {
        let family = Family::of(vip.key.addr.ip());
        let route = self.number(resolver.object_route(object, clients, family));
        let listener = matches!(object, Destination::Listener { .. });
        if listener || resolver.attached.point(object, clients).is_some() {
            let clients = clients.map(str::to_owned);
            self.of_objects.push((OfObject { object: object.clone(), clients, family }, route));
        }
        route
    }

    fn number(&mut self, route: Route) -> usize {
        let next = self.distinct.len();
        *self.ids.entry(route).or_insert_with_key(|route| {
            self.distinct.push(route.clone());
            next
        })
    }
}
