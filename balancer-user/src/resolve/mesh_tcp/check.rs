//! Findings about MeshTCPRoutes: where they lead, and which TrafficRoutes they leave without
//! effect.

use super::super::{
    Resolver,
    findings::Findings,
    mesh_policy::check,
    signatures::{Before, Signatures},
};

/// Looks at every MeshTCPRoute.
pub(in crate::resolve) fn check<'a>(
    resolver: &Resolver<'a>,
    signatures: &Signatures<'a>,
    findings: &mut Findings<'a>,
) {
    by_themselves(resolver, findings);
    check::overruled(resolver, signatures, Before::MeshTcp, &resolver.mesh_tcp, findings);
}

/// What there is to say of each, whatever other policies there are.
pub(in crate::resolve) fn by_themselves<'a>(resolver: &Resolver<'a>, findings: &mut Findings<'a>) {
    const REFUSED: &str = "its share of the connections is refused";
    for policy in resolver.mesh_tcp.values().flat_map(|routes| routes.policies()) {
        check::policy(resolver, *policy, findings);
        let rules = policy.to.iter().flat_map(|to| &to.rule);
        let backends = rules.flat_map(|rule| &rule.backends);
        for backend in backends.filter(|backend| backend.weight > 0) {
            let found = check::backend(resolver, &policy.meta, backend, (REFUSED, REFUSED));
            findings.extend(&policy.meta, found);
        }
    }
}
