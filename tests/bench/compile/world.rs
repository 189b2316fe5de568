//! Many services, as policies.

use std::{fmt::Write, net::Ipv4Addr};

use anyhow::ensure;
use balancer_user::{
    policy::{self, PolicySet, ReadOptions, SourceText},
    resolve::{GATEWAY_CONTROLLER, Names, NoRoute, ResolveSettings, VipAssignments},
};

/// `services` services of `reals` reals each: a Dataplane for each real, and no TrafficRoute.
pub(crate) fn policies(services: usize, reals: usize) -> anyhow::Result<PolicySet> {
    let mut text = "type: Mesh\nname: default\n".to_owned();
    for n in 0..services * reals {
        let address = Ipv4Addr::from(0x0a00_0001 + n as u32);
        let service = n / reals;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\ntype: Dataplane\nmesh: default\nname: dataplane-{n:06}\nnetworking:\n  address: \
             {address}\n  inbound:\n  - port: 8080\n    tags: {{kuma.io/service: \
             service-{service:05}}}\n"
        );
    }
    // One file is limited in size, and a name is as good as a file here.
    let mut texts: Vec<SourceText> = Vec::new();
    for (index, part) in text.split("---\n").collect::<Vec<_>>().chunks(10_000).enumerate() {
        texts.push(SourceText { name: format!("{index}.yaml"), text: part.join("---\n").into() });
    }
    let reading = policy::read(texts, &ReadOptions::default());
    ensure!(reading.report.valid(), "the policies of the bench are not valid");
    ensure!(reading.set.dataplanes.len() == services * reals, "a Dataplane was lost");
    Ok(reading.set)
}

/// What the node is told besides policies.
pub(crate) fn settings() -> ResolveSettings {
    ResolveSettings {
        vips4: (Ipv4Addr::new(240, 0, 0, 0), 8),
        vips6: (std::net::Ipv6Addr::new(0xfd62, 0x616c, 0, 0, 0, 0, 0, 0), 64),
        zone: None,
        no_route: NoRoute::Direct,
        gateway_controller: GATEWAY_CONTROLLER.to_owned(),
        allow_plain: false,
        protocols: Vec::new(),
        names: Names::default(),
        assigned: VipAssignments::new(),
    }
}
