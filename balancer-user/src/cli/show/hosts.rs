//! `show vips -o hosts`: lines for `/etc/hosts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use super::failed;
use crate::{
    cli::{failure::Failure, live::LiveSet, output::printable},
    policy::{PolicySet, ServiceKind},
    resolve::{DestinationKind, VipOwner},
};

/// One line for each address and owner: `NAME`, where only one mesh has it, `NAME.MESH`, and the
/// host names that a control plane gave it. What has the name of a service by its tag is told
/// apart by the latter alone.
pub(super) fn text(live: &LiveSet) -> Result<String, Failure> {
    let hostnames = hostnames(&live.names.set);
    let mut owners: BTreeMap<IpAddr, BTreeSet<VipOwner>> = BTreeMap::new();
    for row in live.view.vips().map_err(failed)? {
        if let Some(vip) = live.names.vip(row.key) {
            owners.entry(row.key.addr.ip()).or_default().insert(vip.destination.owner());
        }
    }
    Ok(lines(&owners, &hostnames))
}

/// Host names below `status` of objects.
fn hostnames(set: &PolicySet) -> BTreeMap<VipOwner, Vec<String>> {
    let services = set.mesh_services.iter();
    let services = services.map(|one| (&one.meta, ServiceKind::MeshService, &one.status));
    let zones = set.mesh_multi_zone_services.iter();
    let zones = zones.map(|one| (&one.meta, ServiceKind::MeshMultiZoneService, &one.status));
    let external = set.mesh_external_services.iter();
    let external = external.map(|one| (&one.meta, ServiceKind::MeshExternalService, &one.status));
    services
        .chain(zones)
        .chain(external)
        .filter(|(.., status)| !status.hostnames.is_empty())
        .map(|(meta, kind, status)| {
            let kind = kind.into();
            (VipOwner { kind, ..VipOwner::tags(&meta.mesh, &meta.name) }, status.hostnames.clone())
        })
        .collect()
}

fn lines(
    owners: &BTreeMap<IpAddr, BTreeSet<VipOwner>>,
    hostnames: &BTreeMap<VipOwner, Vec<String>>,
) -> String {
    let mut meshes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // The kind that has a name in a mesh: of several the first.
    let mut kinds: BTreeMap<(&str, &str), DestinationKind> = BTreeMap::new();
    for owner in owners.values().flatten() {
        meshes.entry(&owner.name).or_default().insert(&owner.mesh);
        let kind = kinds.entry((&owner.mesh, &owner.name)).or_insert(owner.kind);
        *kind = owner.kind.min(*kind);
    }
    let mut text = String::new();
    for (address, owners) in owners {
        for owner in owners {
            let VipOwner { mesh, kind, name } = owner;
            let mut names: Vec<String> = Vec::new();
            let own = kinds[&(&**mesh, &**name)] == *kind;
            if own && is_host_name(name) {
                let plain = mesh.is_empty() || meshes[&**name].len() == 1;
                names.extend(plain.then(|| name.to_string()));
                names.extend(is_host_name(mesh).then(|| format!("{name}.{mesh}")));
            }
            let given = hostnames.get(owner).into_iter().flatten();
            names.extend(given.filter(|name| is_host_name(name)).cloned());
            // Writing to a string cannot fail.
            let _ = match names.as_slice() {
                [] if own => writeln!(text, "# {address}\t{} is no host name", printable(name)),
                [] => writeln!(text, "# {address}\t{owner}: its name is another's"),
                names => writeln!(text, "{address}\t{}", names.join(" ")),
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

    fn owner(kind: DestinationKind, mesh: &str, name: &str) -> VipOwner {
        VipOwner { kind, ..VipOwner::tags(mesh, name) }
    }

    #[test]
    fn names_that_two_meshes_have_get_their_mesh() {
        let tags = |name, mesh| owner(DestinationKind::Tags, mesh, name);
        let owners = BTreeMap::from([
            (
                "240.0.0.1".parse().unwrap(),
                BTreeSet::from([tags("redis", "default"), tags("web", "default")]),
            ),
            (
                "240.0.0.2".parse().unwrap(),
                BTreeSet::from([
                    tags("web", "test"),
                    tags("redis:1", "test"),
                    owner(DestinationKind::Service, "", "web"),
                ]),
            ),
        ]);
        assert_eq!(
            lines(&owners, &BTreeMap::new()),
            "240.0.0.1\tredis redis.default\n240.0.0.1\tweb.default\n\
             240.0.0.2\tweb\n# 240.0.0.2\tredis:1 is no host name\n240.0.0.2\tweb.test\n"
        );
    }

    #[test]
    fn kinds_of_one_name_do_not_share_it_and_hostnames_of_a_status_are_added() {
        let object = |name| owner(DestinationKind::MeshService, "default", name);
        let owners = BTreeMap::from([
            ("240.0.0.1".parse().unwrap(), BTreeSet::from([VipOwner::tags("default", "redis")])),
            ("240.0.0.2".parse().unwrap(), BTreeSet::from([object("redis")])),
            ("240.0.0.3".parse().unwrap(), BTreeSet::from([object("api")])),
            (
                "240.0.0.4".parse().unwrap(),
                BTreeSet::from([owner(DestinationKind::Service, "", "echo.shop")]),
            ),
        ]);
        let hostname = "api.svc.mesh.local".to_owned();
        let hostnames = BTreeMap::from([(object("api"), vec![hostname])]);
        assert_eq!(
            lines(&owners, &hostnames),
            "240.0.0.1\tredis redis.default\n\
             # 240.0.0.2\tMeshService `redis` of mesh default: its name is another's\n\
             240.0.0.3\tapi api.default api.svc.mesh.local\n240.0.0.4\techo.shop\n"
        );
    }
}
