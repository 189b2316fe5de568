//! `show vips -o hosts`: lines for `/etc/hosts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet, output::printable},
    resolve::VipOwner,
};

/// One line for each address: `SERVICE`, where only one mesh has it, and `SERVICE.MESH`.
pub(super) fn text(live: &LiveSet) -> Result<String, Failure> {
    let mut owners: BTreeMap<IpAddr, BTreeSet<VipOwner>> = BTreeMap::new();
    for row in live.view.vips().map_err(failed)? {
        if let Some(vip) = live.names.vip(row.key) {
            owners.entry(row.key.addr.ip()).or_default().insert(vip.destination.owner());
        }
    }
    let services = owners
        .iter()
        .map(|(address, owners)| {
            (*address, owners.iter().map(|owner| (&*owner.name, &*owner.mesh)).collect())
        })
        .collect();
    Ok(lines(&services))
}

fn lines(services: &BTreeMap<IpAddr, BTreeSet<(&str, &str)>>) -> String {
    let mut meshes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (service, mesh) in services.values().flatten() {
        meshes.entry(service).or_default().insert(mesh);
    }
    let mut text = String::new();
    for (address, services) in services {
        for (service, mesh) in services {
            let plain =
                if meshes[service].len() == 1 { format!("{service} ") } else { String::new() };
            // Writing to a string cannot fail.
            let _ = if is_host_name(service) && is_host_name(mesh) {
                writeln!(text, "{address}\t{plain}{service}.{mesh}")
            } else {
                writeln!(text, "# {address}\t{} is no host name", printable(service))
            };
        }
    }
    text
}

/// Letters, digits, `-`, `_` and inner dots: what resolvers look up (RFC 1123, and the
/// underscore of Kubernetes service names).
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_two_meshes_have_get_their_mesh() {
        let a: IpAddr = "240.0.0.1".parse().unwrap();
        let b: IpAddr = "240.0.0.2".parse().unwrap();
        let services = BTreeMap::from([
            (a, BTreeSet::from([("redis", "default"), ("web", "default")])),
            (b, BTreeSet::from([("web", "test"), ("redis:1", "test")])),
        ]);
        assert_eq!(
            lines(&services),
            "240.0.0.1\tredis redis.default\n240.0.0.1\tweb.default\n\
             # 240.0.0.2\tredis:1 is no host name\n240.0.0.2\tweb.test\n"
        );
    }
}
