//! Manifests as a cluster completes them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use balancer_user::policy::{
    self, Host, PolicySet, ReadOptions, SourceText,
    kubernetes::{Service, TargetPort},
};
use serde_json::Value;

use crate::cases::corpus_place;

/// The manifests of a case, those that it stands on before them.
pub(super) fn manifests(case: &Value) -> Result<String, String> {
    let own = case["manifests_yaml"].as_str().ok_or("the case has no manifests_yaml")?;
    let mut manifests = match case["base_manifests"].as_str() {
        Some(name) => {
            let path = corpus_place().join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => String::new(),
    };
    manifests.push_str("\n---\n");
    manifests.push_str(own);
    Ok(manifests.replace("{GATEWAY_CLASS_NAME}", "balancer"))
}

/// What they say.
pub(super) fn read(manifests: &str) -> Result<PolicySet, String> {
    let text = SourceText { name: "manifests.yaml".to_owned(), text: manifests.into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    if !reading.report.valid() {
        return Err(policy::render::report(&reading.report, false));
    }
    Ok(reading.set)
}

/// The Service whose pod has an address.
pub(super) fn pods(set: &PolicySet) -> BTreeMap<IpAddr, &Service> {
    let services = set.services.iter().enumerate();
    services.map(|(at, service)| (pod_address(at), &**service)).collect()
}

/// The manifests as a cluster completes them: to each Service that the case gives no endpoints
/// itself an EndpointSlice with one pod, to each Gateway an address.
pub(super) fn cluster(manifests: &str, without_pods: &[&str]) -> Result<PolicySet, String> {
    let bare = read(manifests)?;
    let mut all = manifests.to_owned();
    for (at, service) in bare.services.iter().enumerate() {
        if without_pods.contains(&service.meta.name.as_str()) {
            continue;
        }
        let (namespace, name) = service.meta.object();
        let ports: Vec<String> = service
            .ports
            .iter()
            .filter(|port| port.is_tcp())
            .map(|port| {
                let number = match port.target {
                    TargetPort::Number(number) => number,
                    TargetPort::Name(_) => port.port,
                };
                format!("{{name: '{}', port: {number}}}", port.name)
            })
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(
            all,
            "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-pods, \
             namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{}]\nendpoints: [{{addresses: ['{}']}}]\n",
            ports.join(", "),
            pod_address(at),
        );
    }
    let mut set = read(&all)?;
    for (at, gateway) in set.gateways.iter_mut().enumerate() {
        Arc::make_mut(gateway).addresses = vec![Host::Ip(gateway_address(at))];
    }
    Ok(set)
}

fn pod_address(service: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 1).to_bits() + service as u32))
}

pub(super) fn gateway_address(gateway: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 1).to_bits() + gateway as u32))
}
