//! The route that an item of a MeshTCPRoute gives (semantics 4.3).

use super::{
    super::{
        Backend, Decision, Destination, Hashing, PolicyRef, Route, inventory::Inventory,
        mesh_policy::backends::led_to, objects::Objects, split::Place,
    },
    Item,
};
use crate::policy::{LoadBalancer, Tags};

/// Where an item leads: the backends that take connections.
pub(in crate::resolve) fn leads_to(
    item: &Item<'_>,
    objects: &Objects<'_>,
    inventory: &Inventory<'_>,
) -> Vec<Destination> {
    let backends = item.to().rule.iter().flat_map(|rule| &rule.backends);
    let taking = backends.filter(|backend| backend.weight > 0);
    taking.map(|backend| led_to(&backend.target, item.meta(), objects, inventory).0).collect()
}

impl Place<'_> {
    /// The route that an item of a MeshTCPRoute gives to connections to `called`. Backends that
    /// name nothing keep their share, which is refused (decision D10); where no weight is left,
    /// connections are.
    pub fn mesh_tcp_route(
        &self,
        item: &Item<'_>,
        objects: &Objects<'_>,
        called: &Destination,
    ) -> Route {
        let meta = item.meta();
        let backends: Vec<Backend> = match &item.to().rule {
            None => vec![self.backend_of(1, called.clone(), Tags::new())],
            Some(rule) => rule
                .backends
                .iter()
                .map(|backend| {
                    let (to, tags) = led_to(&backend.target, meta, objects, self.inventory);
                    self.backend_of(backend.weight, to, tags)
                })
                .collect(),
        };
        let closed = backends.iter().all(|backend| backend.weight == 0);
        Route {
            policy: Some(PolicyRef::of(meta)),
            decision: if closed { Decision::Reject } else { Decision::Forward },
            load_balancer: LoadBalancer::RoundRobin,
            hashing: Hashing::default(),
            backends,
            http: None,
        }
    }
}
