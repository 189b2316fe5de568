//! What the author of a reference that names nothing may have meant.

use crate::policy::{
    PolicySet,
    gateway::{BackendRef, GROUP, ParentRef},
    suggest::suggest,
};

/// What the author of a reference to a parent may have meant.
pub(super) fn parents_there(set: &PolicySet, parent: &ParentRef) -> Option<String> {
    let named = (parent.namespace.as_str(), parent.name.as_str());
    let is_gateway = parent.group == GROUP;
    let all: Vec<(&str, &str)> = if is_gateway {
        set.gateways.iter().map(|gateway| gateway.meta.object()).collect()
    } else {
        set.services.iter().map(|service| service.meta.object()).collect()
    };
    if !all.contains(&named) {
        return object_meant(named, &all);
    }
    let there: Vec<String> = if is_gateway {
        let gateway = set.gateways.iter().find(|gateway| gateway.meta.object() == named)?;
        let listeners = gateway.listeners.iter();
        listeners.map(|listener| format!("`{}` ({})", listener.name, listener.port)).collect()
    } else {
        let service = set.services.iter().find(|service| service.meta.object() == named)?;
        let ports = service.ports.iter().filter(|port| port.is_tcp());
        ports.map(|port| named_port(&port.name, port.port.get())).collect()
    };
    let what = if is_gateway { "listeners" } else { "TCP ports" };
    Some(match there.is_empty() {
        true => format!("it has no {what}"),
        false => format!("its {what} are {}", there.join(", ")),
    })
}

fn named_port(name: &str, port: u16) -> String {
    if name.is_empty() { port.to_string() } else { format!("`{name}` ({port})") }
}

/// Objects of the same namespace with a name like it, and of the same name in another.
fn object_meant((namespace, name): (&str, &str), all: &[(&str, &str)]) -> Option<String> {
    let here = all.iter().filter(|(of, _)| *of == namespace).map(|(_, name)| *name);
    let close = suggest(name, here);
    if !close.is_empty() {
        return Some(format!("did you mean {}", close.join(" or ")));
    }
    let elsewhere = all.iter().find(|(_, other)| *other == name)?;
    Some(format!("there is one in the namespace {0}: name it with `namespace: {0}`", elsewhere.0))
}

/// What the author of a reference to a backend may have meant.
pub(super) fn backends_there(set: &PolicySet, backend: &BackendRef) -> Option<String> {
    let named = (backend.namespace.as_str(), backend.name.as_str());
    let Some(service) = set.services.iter().find(|service| service.meta.object() == named) else {
        let all: Vec<_> = set.services.iter().map(|service| service.meta.object()).collect();
        return object_meant(named, &all);
    };
    let ports: Vec<String> = service
        .ports
        .iter()
        .filter(|port| port.is_tcp())
        .map(|port| named_port(&port.name, port.port.get()))
        .collect();
    Some(match ports.is_empty() {
        true => "it has no TCP ports".to_owned(),
        false => format!("its TCP ports are {}", ports.join(", ")),
    })
}
