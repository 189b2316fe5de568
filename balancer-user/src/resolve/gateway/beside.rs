//! Addresses that a mesh and a Service have in common: whose policies decide (decision D21).

use std::collections::BTreeSet;

use crate::{
    policy::{Diagnostic, SERVICE_TAG},
    resolve::{
        Destination, Resolver,
        findings::Findings,
        signatures::{Connections, Signatures},
        vips::PlannedVip,
    },
};

/// Says of every policy that speaks of such an address and that another kind goes before.
/// MeshTCPRoutes go before TCPRoutes, and these before TrafficRoutes. A TrafficRoute for every
/// service is not told of each.
pub(in crate::resolve) fn losers<'a>(
    resolver: &Resolver<'a>,
    signatures: &Signatures<'_>,
    planned: &[PlannedVip],
    findings: &mut Findings<'a>,
) {
    for vip in planned {
        let Some(service) = &vip.also else { continue };
        let attached = &resolver.attached;
        let consumers = attached.consumers(service).iter().copied().map(Some);
        let points: BTreeSet<_> = consumers
            .chain([None])
            .filter_map(|clients| attached.point(service, clients))
            .collect();
        let mesh = vip.destination.mesh();
        let winners: BTreeSet<Connections> = signatures
            .unlike_unknown(resolver, &vip.destination)
            .into_iter()
            .chain([0])
            .map(|signature| signatures.winner(resolver, signature, &vip.destination).connections)
            .collect();
        for point in &points {
            let Some((status, parent)) = attached.carrier(point) else { continue };
            let own = status.route.meta();
            for winner in &winners {
                match winner {
                    Connections::MeshTcp(place) => {
                        let Some(first) = resolver.mesh_tcp_item(mesh, *place) else { continue };
                        let message = format!(
                            "connections to {} for which the MeshTCPRoute {} of mesh {mesh} speaks do \
                             not follow it: that kind goes first",
                            vip.key, first.policy.meta.name
                        );
                        let field = format!("spec.parentRefs[{}]", parent.index);
                        let found = Diagnostic::warning(field, message).at(parent.parent.span);
                        let found = found.related(first.policy.meta.span, "that policy is here");
                        findings.add(own, found);
                    }
                    Connections::Traffic(index) => {
                        let route = resolver.traffic_routes(mesh)[*index];
                        let named = |name: &String| matches!(&vip.destination, Destination::Tags { service, .. } if **service == **name);
                        let Some(at) = route.destinations.iter().position(named) else { continue };
                        let message = format!(
                            "connections to {} do not follow it where the {} carries them: it is attached \
                             to the Service of that address, and that kind goes first",
                            vip.key,
                            status.route.called()
                        );
                        let field = format!("destinations[{at}].match[\"{SERVICE_TAG}\"]");
                        let found = Diagnostic::warning(field, message).at(route.meta.span);
                        let found =
                            found.related(parent.parent.span, "that route is attached here");
                        findings.add(&route.meta, found);
                    }
                    Connections::Nobody => {}
                }
            }
        }
    }
}
