//! Shares of connections.

use std::collections::BTreeMap;

use balancer_user::{
    compile::{Assignment, Limits, compile},
    resolve::{GATEWAY_CONTROLLER, VipKey, gateway::attach, resolve},
};
use serde_json::Value;

use super::cluster::{cluster, gateway_address, pods};
use crate::{cases::Verdict, routing::settings};

/// As many connections as the case makes, in turn through the table of the one listener that the
/// case's own route is attached to: which Service's pods take which share.
pub(super) fn distribution(manifests: &str, wanted: &Value) -> Result<Verdict, String> {
    let requests = wanted["requests"].as_u64().ok_or("a distribution without requests")?;
    let tolerance = wanted["absolute_tolerance"].as_f64().ok_or("no absolute_tolerance")?;
    let shares = wanted["share"].as_object().ok_or("a distribution without share")?;

    let set = cluster(manifests, &[])?;
    let resolved = resolve(&set, &settings());
    let (Some(route), 1) = (set.tcp_routes.front(), set.tcp_routes.len()) else {
        return Err("not one TCPRoute".to_owned());
    };
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let listener = attached.points.keys().next().ok_or("the route is attached nowhere")?;
    let gateway = set.gateways.iter().position(|gateway| {
        route.parents.iter().any(|parent| {
            gateway.meta.object() == (parent.namespace.as_str(), parent.name.as_str())
        })
    });
    let gateway = gateway.ok_or_else(|| format!("{listener} is of no Gateway"))?;
    let address = gateway_address(gateway);
    let vip = resolved.vips.iter().find(|vip| vip.key.addr.ip() == address);
    let vip: VipKey = vip.ok_or_else(|| format!("{listener} has no VIP"))?.key;
    let tables = compile(&resolved, &Assignment::default(), &Limits::default())
        .map_err(|error| error.to_string())?;
    let table = tables.routes[&tables.vips[&vip].route].table.as_ref().ok_or("no table")?;

    let pods = pods(&set);
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    for slot in table.slots.iter().cycle().take(usize::try_from(requests).unwrap_or(usize::MAX)) {
        let real = tables.reals.get(&table.targets[usize::from(*slot)].real);
        // As the own cases call what is refused.
        let name = real.map_or("(refused)", |real| &pods[&real.addr.ip()].meta.name);
        *taken.entry(name).or_default() += 1;
    }
    let share = |name: &str| taken.get(name).copied().unwrap_or(0) as f64 / requests as f64;
    let right = shares.iter().all(|(name, wanted)| {
        let wanted = wanted.as_f64().unwrap_or(f64::NAN);
        let none = wanted == 0.0 && share(name) == 0.0;
        none || (wanted > 0.0 && (share(name) - wanted).abs() <= tolerance)
    });
    let of_these: u64 = shares.keys().filter_map(|name| taken.get(name.as_str())).sum();
    if right && of_these == requests {
        return Ok(Verdict::Passed);
    }
    Ok(Verdict::Failed { expected: format!("{shares:?}"), found: format!("{taken:?}") })
}
