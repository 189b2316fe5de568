//! What there is to say of Gateways and their routes: what is left alone, what is not accepted,
//! what leads nowhere.

use super::{Attachments, Point, listeners::is_carried};
use crate::{
    policy::{
        Diagnostic,
        gateway::{Gateway, Listener, ListenerProtocol},
    },
    resolve::findings::Findings,
};

mod hints;
mod requests;
mod routes;

pub(in crate::resolve) use routes::routes;

/// Gateways that are another controller's, listeners that are not carried out, and those that
/// refuse everything.
pub(in crate::resolve) fn gateways<'a>(
    attached: &Attachments<'a>,
    controller: &str,
    findings: &mut Findings<'a>,
) {
    for (gateway, class) in &attached.foreign {
        let message = format!(
            "the Gateway is left to the controller {}, which its GatewayClass names: this node is \
             {controller}",
            class.controller
        );
        let found = Diagnostic::warning("spec.gatewayClassName", message);
        findings.add(
            &gateway.meta,
            found.at(gateway.class_span).related(class.meta.span, "the class is here").hint(
                "to carry it out here, name that controller as `gateway_controller` of the \
                 configuration",
            ),
        );
    }
    for gateway in &attached.gateways {
        shared_ports(gateway, findings);
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}]");
            if !is_carried(listener) {
                let protocol = listener.protocol.name();
                let why = match listener.protocol {
                    ListenerProtocol::Https => ", as TLS is not terminated here",
                    _ => " yet",
                };
                let message = format!(
                    "a listener of {protocol} is not carried out{why}: what is sent to its port \
                     passes untouched"
                );
                let found = Diagnostic::warning(format!("{field}.protocol"), message);
                findings.add(&gateway.meta, found.at(listener.span));
                continue;
            }
            let (namespace, name) = gateway.meta.object();
            let point = Point::Listener { namespace, gateway: name, listener: &listener.name };
            if !attached.points.contains_key(&point) {
                let message = match listener.protocol {
                    ListenerProtocol::Tcp => "no TCPRoute is attached: connections are refused",
                    _ => {
                        "no HTTPRoute or GRPCRoute is attached: every request is answered with 404"
                    }
                };
                let hint = format!(
                    "attach one: `parentRefs: [{{name: {name}, sectionName: {}}}]`",
                    listener.name
                );
                let found = Diagnostic::warning(field, message);
                findings.add(&gateway.meta, found.at(listener.span).hint(hint));
            }
        }
    }
}

/// Listeners that claim one TCP port in different protocols.
fn shared_ports<'a>(gateway: &'a Gateway, findings: &mut Findings<'a>) {
    let claims_tcp = |protocol: &ListenerProtocol| *protocol != ListenerProtocol::Udp;
    for (index, listener) in gateway.listeners.iter().enumerate() {
        let other = gateway.listeners.iter().find(|other| {
            other.name != listener.name
                && other.port == listener.port
                && other.protocol != listener.protocol
                && claims_tcp(&other.protocol)
        });
        // Said once of two that would both be carried.
        let said_of = |other: &&Listener| {
            is_carried(listener)
                && (listener.protocol == ListenerProtocol::Tcp || !is_carried(other))
        };
        let Some(other) = other.filter(said_of) else {
            continue;
        };
        let message = format!(
            "port {} is also that of the listener `{}`, which is of {}: connections cannot be \
             told apart",
            listener.port,
            other.name,
            other.protocol.name()
        );
        let found = Diagnostic::error(format!("spec.listeners[{index}].port"), message);
        findings.add(
            &gateway.meta,
            found
                .at(listener.span)
                .related(other.span, format!("`{}` is here", other.name))
                .hint("change the port of one of them"),
        );
    }
}
