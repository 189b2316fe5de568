//! Routes of outbounds whose policy was picked already.
//!
//! The second half of resolution on its own: for callers that have effective rules and endpoints
//! but no policies to choose from, such as cases of a conformance corpus.

use std::net::SocketAddr;

use super::{
    Decision, NoRoute, Route,
    inventory::{Family, Inventory},
    split::Place,
};
use crate::policy::{Tags, TrafficRouteConf};

/// An outbound and what was picked for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectiveOutbound<'a> {
    /// What is dialled. Its family decides which endpoints count.
    pub addr: SocketAddr,
    /// Its tags, `kuma.io/service` among them.
    pub tags: &'a Tags,
    /// The conf of the policy that was picked; `None`: none matched.
    pub conf: Option<&'a TrafficRouteConf>,
}

/// The route of one outbound. Endpoints are those of `mesh` in `inventory`; with a `zone` those
/// of other zones only step in where it has none. `no_route` says what happens without a policy
/// (decision D6).
pub fn effective_route(
    inventory: &Inventory<'_>,
    mesh: &str,
    outbound: &EffectiveOutbound<'_>,
    zone: Option<&str>,
    no_route: NoRoute,
) -> Route {
    let place = Place {
        inventory,
        mesh,
        family: Family::of(outbound.addr.ip()),
        zone,
        own_zone: zone,
        locality: None,
    };
    match (outbound.conf, no_route) {
        (Some(conf), _) => place.conf_route(None, conf, outbound.tags),
        (None, NoRoute::Direct) => place.no_policy_route(Decision::Direct, outbound.tags),
        (None, NoRoute::Deny) => place.no_policy_route(Decision::Reject, outbound.tags),
    }
}

#[cfg(test)]
mod tests {
    use super::{EffectiveOutbound, effective_route};
    use crate::resolve::{
        Decision, NoRoute,
        inventory::{Endpoint, Inventory},
        tests::world::{route, tags},
    };

    #[test]
    fn picked_conf_becomes_a_route() {
        let (one, two) = (tags("service=db,role=master"), tags("service=db,role=replica"));
        let endpoint = |addr: &str, tags| Endpoint::new(addr.parse().unwrap(), tags, true);
        let inventory = Inventory::of_endpoints(
            "m",
            [("db", endpoint("10.0.0.1:1", &one)), ("db", endpoint("10.0.0.2:1", &two))],
        );
        let policy = route("x").split(10, "service=*,role=master").split(90, "service=db,role=*");
        let outbound = tags("service=db");
        let addr = "127.0.0.1:54321".parse().unwrap();
        let picked = |conf| EffectiveOutbound { addr, tags: &outbound, conf };
        let with = |conf, no_route| effective_route(&inventory, "m", &picked(conf), None, no_route);
        assert_eq!(
            with(Some(&policy.conf), NoRoute::Deny).lines(),
            ["10 db,role=master ok 10.0.0.1:1", "90 db ok 10.0.0.1:1 10.0.0.2:1"]
        );
        assert_eq!(with(None, NoRoute::Deny).decision, Decision::Reject);
        assert_eq!(with(None, NoRoute::Direct).lines(), ["1 db ok 10.0.0.1:1 10.0.0.2:1"]);
    }
}
