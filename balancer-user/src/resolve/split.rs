//! A policy's split into backends: wildcards (semantics 3.6), weights (3.7), endpoints.

use std::sync::Arc;

use super::{
    Backend, BackendState, Decision, Destination, Hashing, PolicyRef, Route,
    inventory::{Family, Inventory, MESH_TAG, Zones},
    selection::ANY,
};
use crate::policy::{
    LoadBalancer, Locality, SERVICE_TAG, SplitEntry, Tags, TrafficRoute, TrafficRouteConf,
};

/// A destination with its wildcards replaced: entries whose value is `*` are dropped, then every
/// tag of the outbound comes in whose key is not there. So a `*` means "as the outbound says",
/// and for the service "the one that is called".
pub fn substitute(destination: &Tags, outbound: &Tags) -> Tags {
    let mut tags: Tags = destination
        .iter()
        .filter(|(_, value)| *value != ANY)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in outbound {
        if !tags.contains_key(key) {
            tags.insert(key.clone(), value.clone());
        }
    }
    tags
}

/// The split that connections follow: the outer one. Where it is missing, the last http entry
/// has no `match` and catches everything that is left (decision D3), so it stands in.
pub fn outer_split(conf: &TrafficRouteConf) -> &[SplitEntry] {
    match conf.http.last() {
        Some(last) if conf.split.is_empty() && !last.has_match => &last.split,
        _ => &conf.split,
    }
}

/// The splits of http entries that are not [`outer_split`].
pub(super) fn http_splits(conf: &TrafficRouteConf) -> impl Iterator<Item = &SplitEntry> {
    let outer = outer_split(conf);
    let splits = conf.http.iter().map(|entry| &entry.split);
    splits.filter(move |split| !std::ptr::eq(split.as_slice(), outer)).flatten()
}

/// Where endpoints are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// All services.
    pub inventory: &'a Inventory<'a>,
    /// The mesh of the VIP.
    pub mesh: &'a str,
    /// The family of the VIP: it carries reals of its own family only.
    pub family: Family,
    /// This node's zone, where the mesh is locality-aware: for services by their tag.
    pub zone: Option<&'a str>,
    /// This node's zone: objects prefer it in every mesh (semantics 4.9).
    pub own_zone: Option<&'a str>,
    /// What a policy says of zones, in place of that.
    pub locality: Option<&'a Locality>,
}

impl Place<'_> {
    /// Which zones' endpoints of a destination go first.
    pub fn zones_for(&self, destination: &Destination) -> Zones<'_> {
        let preferred = match destination {
            Destination::Tags { .. } => self.zone,
            Destination::Port { .. } => self.own_zone,
            Destination::Missing { .. }
            | Destination::Service { .. }
            | Destination::Listener { .. } => return Zones::Alike,
        };
        match (self.locality, self.own_zone) {
            (Some(locality), _) if locality.disabled => Zones::Alike,
            (Some(Locality { failover: Some(rules), .. }), Some(own)) => {
                Zones::Failover(own, rules)
            }
            // Endpoints of other zones are not used where a policy speaks of the zone alone.
            (Some(locality), Some(own)) if !locality.affinity.is_empty() => {
                Zones::Failover(own, &[])
            }
            (Some(_), Some(own)) => Zones::Own(own),
            (Some(_), None) | (None, _) => preferred.map_or(Zones::Alike, Zones::Own),
        }
    }

    /// The route that `policy` gives to an outbound with these tags.
    pub fn policy_route(&self, policy: &TrafficRoute, outbound: &Tags) -> Route {
        self.conf_route(Some(PolicyRef::of(&policy.meta)), &policy.conf, outbound)
    }

    /// The route of a conf that was picked already.
    pub fn conf_route(
        &self,
        policy: Option<PolicyRef>,
        conf: &TrafficRouteConf,
        outbound: &Tags,
    ) -> Route {
        let backends = outer_split(conf)
            .iter()
            .map(|entry| self.backend(entry.weight, substitute(&entry.destination, outbound)))
            .collect();
        let http = self.traffic_rules(policy.as_ref(), conf, outbound);
        Route {
            policy,
            decision: Decision::Forward,
            load_balancer: conf.load_balancer.unwrap_or(LoadBalancer::RoundRobin),
            hashing: Hashing::default(),
            backends,
            http: http.map(Arc::new),
        }
    }

    /// The route where no policy matches (decision D6): to the service itself, with the
    /// outbound's own tags, or nowhere.
    pub fn no_policy_route(&self, decision: Decision, outbound: &Tags) -> Route {
        let backends = match decision {
            Decision::Reject => Vec::new(),
            Decision::Direct | Decision::Forward => vec![self.backend(1, outbound.clone())],
        };
        Route {
            policy: None,
            decision,
            load_balancer: LoadBalancer::RoundRobin,
            hashing: Hashing::default(),
            backends,
            http: None,
        }
    }

    /// The route of a destination that no policy routes: to its own endpoints.
    pub fn direct_route(&self, destination: &Destination) -> Route {
        Route {
            policy: None,
            decision: Decision::Direct,
            load_balancer: LoadBalancer::RoundRobin,
            hashing: Hashing::default(),
            backends: vec![self.backend_of(1, destination.clone(), Tags::new())],
            http: None,
        }
    }

    fn backend(&self, weight: u32, tags: Tags) -> Backend {
        let (destination, tags) = self.subset(tags);
        self.backend_of(weight, destination, tags)
    }

    /// The service that tags name, and those that its endpoints must have.
    pub(super) fn subset(&self, mut tags: Tags) -> (Destination, Tags) {
        let service = tags.remove(SERVICE_TAG).unwrap_or_default();
        tags.remove(MESH_TAG);
        (Destination::tags(self.mesh, &service), tags)
    }

    /// A weighted destination with its endpoints: those that have all of `tags`.
    pub fn backend_of(&self, weight: u32, destination: Destination, tags: Tags) -> Backend {
        let zones = self.zones_for(&destination);
        let reals = self.inventory.subset(&destination, &tags, self.family, zones);
        let known = self.inventory.endpoints(&destination);
        let state = if weight == 0 {
            BackendState::Drained
        } else if !reals.is_empty() {
            BackendState::Ok
        } else if known.is_some_and(|known| !known.refused(&tags)) {
            BackendState::Empty
        } else {
            BackendState::Invalid
        };
        Backend { destination, tags, weight, state, reals }
    }
}
