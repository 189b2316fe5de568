//! Findings about objects that stand for services, about what is outside the mesh, and about
//! host names.

use std::net::SocketAddr;

use super::{
    super::{
        Names, ResolveSettings,
        findings::Findings,
        inventory::{Joinable, Selectable, targets},
    },
    did_you_mean, with_hint,
};
use crate::policy::{
    Dataplane, DataplaneSelector, Diagnostic, Host, MeshMultiZoneService, MeshService, Meta,
    PolicySet, ServicePort, Span, TargetPort,
};

/// Selectors and ports that lead nowhere, endpoints that cannot be used, names without an answer.
pub(in super::super) fn objects<'a>(
    set: &'a PolicySet,
    settings: &ResolveSettings,
    findings: &mut Findings<'a>,
) {
    let dataplanes = Selectable::new(set);
    for service in &set.mesh_services {
        mesh_service(service, &dataplanes.selected(service), set, findings);
        repeated_ports(&service.meta, &service.ports, findings);
    }
    let joinable = Joinable::new(set);
    for service in &set.mesh_multi_zone_services {
        multi_zone(service, &joinable, findings);
        repeated_ports(&service.meta, &service.ports, findings);
    }
    outside(set, settings, findings);
    for dataplane in &set.dataplanes {
        let place = Place { meta: &dataplane.meta, span: dataplane.meta.span };
        let own = "this workload is nobody's source, and inbounds without an address of their own \
                   are no endpoints";
        place.name("networking.address", &dataplane.address, own, &settings.names, findings);
        if let Some(advertised) = &dataplane.advertised {
            let field = "networking.advertisedAddress";
            let lost = "no inbound of this Dataplane is an endpoint";
            place.name(field, advertised, lost, &settings.names, findings);
        }
    }
}

/// A MeshService that selects these Dataplanes.
pub(in super::super) fn mesh_service(
    service: &MeshService,
    selected: &[&Dataplane],
    set: &PolicySet,
    findings: &mut Findings<'_>,
) {
    let meta = &service.meta;
    if selected.is_empty() {
        // Without a selector it says itself that it has no endpoint.
        let (field, what, hint) = match &service.selector {
            DataplaneSelector::Nothing => return,
            DataplaneSelector::Name(name) => {
                let of_mesh = set.dataplanes.iter().filter(|one| one.meta.mesh == meta.mesh);
                let known = of_mesh.map(|dataplane| dataplane.meta.name.as_str());
                let what = format!("is named `{name}`");
                ("spec.selector.dataplaneRef.name", what, did_you_mean(name, known))
            }
            DataplaneSelector::Tags(tags) => {
                let what = format!("has an inbound with {}", super::tags_text(tags));
                ("spec.selector.dataplaneTags", what, None)
            }
            DataplaneSelector::Labels(labels) => {
                let what = format!("has the labels {}", super::tags_text(labels));
                ("spec.selector.dataplaneLabels.matchLabels", what, None)
            }
        };
        let message = format!(
            "no Dataplane of mesh {} {what}: the MeshService has no endpoint, and its share of \
             connections is refused",
            meta.mesh
        );
        findings.add(meta, with_hint(Diagnostic::warning(field, message).at(meta.span), hint));
        return;
    }
    for port in &service.ports {
        let Some(target) = &port.target else { continue };
        let mut inbounds = selected.iter().flat_map(|dataplane| &dataplane.inbounds);
        if inbounds.any(|inbound| targets(port, inbound)) {
            continue;
        }
        let inbounds = || selected.iter().flat_map(|dataplane| &dataplane.inbounds);
        let (what, mut there): (String, Vec<String>) = match target {
            TargetPort::Number(number) => {
                (format!("at port {number}"), inbounds().map(|i| i.port.to_string()).collect())
            }
            TargetPort::Name(name) => {
                (format!("named `{name}`"), inbounds().filter_map(|i| i.name.clone()).collect())
            }
        };
        there.sort();
        there.dedup();
        let hint = match there.as_slice() {
            [] => "none of their inbounds has a name".to_owned(),
            some => format!("their inbounds have {}", some.join(", ")),
        };
        findings.add(
            meta,
            Diagnostic::warning(
                format!("{}.targetPort", port.field),
                format!(
                    "no selected Dataplane has an inbound {what}: port {} has no endpoint, and its \
                     share of connections is refused",
                    port.port
                ),
            )
            .at(port.span)
            .hint(hint),
        );
    }
}

/// Connections to a port are told apart by its number alone.
fn repeated_ports<'a>(meta: &'a Meta, ports: &[ServicePort], findings: &mut Findings<'a>) {
    for (index, port) in ports.iter().enumerate() {
        if let Some(first) = ports[..index].iter().find(|other| other.port == port.port) {
            let message = format!(
                "has the number of `{}`, and protocols do not tell connections apart: that one \
                 counts",
                first.field
            );
            let found = Diagnostic::warning(port.field.clone(), message).at(port.span);
            findings.add(meta, found.hint("give it another `port`"));
        }
    }
}

fn multi_zone<'a>(
    service: &'a MeshMultiZoneService,
    joinable: &Joinable<'a>,
    findings: &mut Findings<'a>,
) {
    let meta = &service.meta;
    let matched = joinable.matched(service);
    if matched.is_empty() {
        let message = format!(
            "no MeshService of mesh {} has the labels {}: it has no endpoint, and its share of \
             connections is refused",
            meta.mesh,
            super::tags_text(&service.match_labels)
        );
        let field = "spec.selector.meshService.matchLabels";
        findings.add(meta, Diagnostic::warning(field, message).at(meta.span));
        return;
    }
    for port in &service.ports {
        let has = |other: &&MeshService| other.ports.iter().any(|own| own.port == port.port);
        if matched.iter().any(has) {
            continue;
        }
        let mut there: Vec<u16> =
            matched.iter().flat_map(|other| &other.ports).map(|port| port.port.get()).collect();
        there.sort_unstable();
        there.dedup();
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        let message = format!(
            "no matched MeshService has port {}: it has no endpoint, and its share of connections \
             is refused",
            port.port
        );
        let found = Diagnostic::warning(port.field.clone(), message).at(port.span);
        findings.add(meta, found.hint(format!("they have {}", there.join(", "))));
    }
}

/// What is outside the mesh.
fn outside<'a>(set: &'a PolicySet, settings: &ResolveSettings, findings: &mut Findings<'a>) {
    let lost = "this endpoint takes no connections";
    for service in set.mesh_external_services.iter().filter(|one| one.extension.is_none()) {
        if service.tls {
            let place = Place { meta: &service.meta, span: service.meta.span };
            place.tls("spec.tls.enabled", settings.allow_plain, findings);
        }
        for endpoint in &service.endpoints {
            let place = Place { meta: &service.meta, span: endpoint.span };
            let field = format!("{}.address", endpoint.field);
            place.name(&field, &endpoint.address, lost, &settings.names, findings);
            let port = endpoint.port.get();
            place.reachable(&field, &endpoint.address, port, &settings.names, findings);
        }
    }
    for external in &set.external_services {
        let place = Place { meta: &external.meta, span: external.meta.span };
        let field = "networking.address";
        if external.tls {
            place.tls("networking.tls.enabled", settings.allow_plain, findings);
        }
        place.name(field, &external.address, lost, &settings.names, findings);
        let port = external.port.get();
        place.reachable(field, &external.address, port, &settings.names, findings);
    }
}

/// A place in a document.
#[derive(Clone, Copy)]
struct Place<'a> {
    meta: &'a Meta,
    span: Span,
}

impl<'a> Place<'a> {
    fn add(self, field: &str, message: String, hint: &str, findings: &mut Findings<'a>) {
        let found = Diagnostic::warning(field, message).at(self.span).hint(hint);
        findings.add(self.meta, found);
    }

    fn tls(self, field: &str, allow_plain: bool, findings: &mut Findings<'a>) {
        let expects = "its endpoints expect TLS, which is not spoken here";
        if allow_plain {
            let message = format!(
                "{expects}: connections are carried as they come, so clients have to speak TLS \
                 themselves"
            );
            self.add(field, message, "allow_plain is set in the configuration", findings);
        } else {
            let message = format!("{expects}: connections to them are refused");
            let hint = "where clients speak TLS themselves, set `allow_plain: true` in the \
                        configuration";
            self.add(field, message, hint, findings);
        }
    }

    /// A name that was asked for and has no answer, or only an old one.
    fn name(
        self,
        field: &str,
        host: &Host,
        lost: &str,
        names: &Names,
        findings: &mut Findings<'a>,
    ) {
        let Host::Name(name) = host else { return };
        let Some(answer) = names.answer(name) else { return };
        let why = match &answer.failure {
            Some(failure) => failure.as_str(),
            None if answer.addresses.is_empty() => "it has no address",
            None => return,
        };
        let then = match answer.addresses.as_slice() {
            [] => lost.to_owned(),
            kept => {
                let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
                format!("its last answer is kept: {}", kept.join(", "))
            }
        };
        let message = format!("name `{name}` did not resolve: {why}; {then}");
        let hint = "write an IP address, or make the name known to this node's resolver";
        self.add(field, message, hint, findings);
    }

    /// Addresses at which nobody is met.
    fn reachable(
        self,
        field: &str,
        host: &Host,
        port: u16,
        names: &Names,
        findings: &mut Findings<'a>,
    ) {
        let given = match host {
            Host::Ip(address) => std::slice::from_ref(address),
            Host::Name(name) => names.of(name),
        };
        for address in given.iter().map(|address| address.to_canonical()) {
            let addr = SocketAddr::new(address, port);
            if address.is_loopback() {
                let message =
                    format!("{addr} is a loopback address: connections sent there do not arrive");
                self.add(field, message, "give it an address that other hosts reach", findings);
            } else if !super::super::inventory::dialable(address) {
                let message = format!("nobody can dial {address}, so it is no endpoint");
                self.add(field, message, "give it an address that other hosts reach", findings);
            }
        }
    }
}
