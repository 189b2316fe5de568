//! Objects that stand for services, found as references name them.

use super::world::documents;
use crate::{
    policy::{BackendTarget, PolicySet, ServiceRef},
    resolve::objects::{NoPort, Objects},
};

const SERVICES: &str = "
type: MeshService
mesh: default
name: redis
labels: {tier: data}
creationTime: '2026-03-02T00:00:00Z'
spec: {ports: [{port: 6379, name: tcp}]}
---
apiVersion: kuma.io/v1alpha1
kind: MeshService
metadata: {name: redis, namespace: shop, labels: {tier: data}, creationTimestamp: '2026-03-01T00:00:00Z'}
spec: {ports: [{port: 6379, name: tcp}, {port: 9121, name: metrics}]}
---
apiVersion: kuma.io/v1alpha1
kind: MeshService
metadata: {name: redis-7f9c, namespace: kuma-system, labels: {kuma.io/display-name: redis, k8s.kuma.io/namespace: team, tier: data}, creationTimestamp: '2026-03-03T00:00:00Z'}
spec: {ports: [{port: 6379, name: '9'}, {port: 9, name: discard}]}
---
type: MeshExternalService
mesh: default
name: redis
spec: {match: {type: HostnameGenerator, port: 443}, endpoints: [{address: 192.0.2.1, port: 443}]}
---
type: MeshService
mesh: other
name: elsewhere
spec: {ports: [{port: 80}]}
---
";

/// What the only backend of a policy refers to, and from where.
fn referring(policy: &str, backend: &str) -> PolicySet {
    documents(&format!(
        "{SERVICES}{policy}\nspec:\n  to:\n  - targetRef: {{kind: MeshService, name: any}}\n    \
         rules: [{{default: {{backendRefs: [{{{backend}}}]}}}}]\n"
    ))
}

fn reference(set: &PolicySet) -> &ServiceRef {
    let rule = set.mesh_tcp_routes[0].to[0].rule.as_ref().unwrap();
    match &rule.backends[0].target {
        BackendTarget::Service(reference) => reference,
        BackendTarget::Subset { .. } => panic!("not a service"),
    }
}

const UNIVERSAL: &str = "type: MeshTCPRoute\nmesh: default\nname: p";
const OF_SHOP: &str =
    "apiVersion: kuma.io/v1alpha1\nkind: MeshTCPRoute\nmetadata: {name: p, namespace: shop}";

/// The object, its namespace and the port that a reference means.
fn meant(policy: &str, backend: &str) -> Option<(String, Result<u16, NoPort>)> {
    let set = referring(policy, backend);
    let (objects, reference) = (Objects::new(&set), reference(&set));
    let object = objects.meant(reference, &set.mesh_tcp_routes[0].meta)?;
    Some((object.meta.name.clone(), object.port_of(reference).map(|port| port.get())))
}

fn found(name: &str, port: u16) -> Option<(String, Result<u16, NoPort>)> {
    Some((name.to_owned(), Ok(port)))
}

#[test]
fn a_name_is_looked_for_in_the_namespace_of_who_refers() {
    let redis = "kind: MeshService, name: redis, port: 6379";
    assert_eq!(meant(UNIVERSAL, redis), found("redis", 6379));
    assert_eq!(meant(OF_SHOP, redis), found("redis.shop", 6379));
    let elsewhere = "kind: MeshService, name: redis, namespace: team, port: 6379";
    assert_eq!(meant(OF_SHOP, elsewhere), found("redis-7f9c.kuma-system", 6379));
    assert_eq!(meant(UNIVERSAL, elsewhere), found("redis-7f9c.kuma-system", 6379));
    let internal = "kind: MeshService, name: redis.shop, port: 6379";
    assert_eq!(meant(UNIVERSAL, internal), found("redis.shop", 6379));
    assert_eq!(meant(UNIVERSAL, "kind: MeshService, name: elsewhere, port: 80"), None);
    assert_eq!(meant(UNIVERSAL, "kind: MeshMultiZoneService, name: redis, port: 80"), None);
    assert_eq!(meant(UNIVERSAL, "kind: MeshExternalService, name: redis"), found("redis", 443));
}

#[test]
fn the_oldest_object_with_the_labels_is_meant() {
    let tier = "kind: MeshService, labels: {tier: data}, port: 6379";
    assert_eq!(meant(UNIVERSAL, tier), found("redis.shop", 6379));
    let also = "kind: MeshService, labels: {tier: data, k8s.kuma.io/namespace: team}, port: 9";
    assert_eq!(meant(UNIVERSAL, also).unwrap().0, "redis-7f9c.kuma-system");
    assert_eq!(meant(UNIVERSAL, "kind: MeshService, labels: {tier: web}, port: 9"), None);
}

#[test]
fn a_display_name_is_one_of_the_policys_own_namespace() {
    let redis = "kind: MeshService, labels: {kuma.io/display-name: redis}, port: 6379";
    assert_eq!(meant(OF_SHOP, redis), found("redis.shop", 6379));
    let of_nobody = OF_SHOP.replace("namespace: shop", "namespace: nobody");
    assert_eq!(meant(&of_nobody, redis), None);
    let of_system = OF_SHOP.replace("namespace: shop", "namespace: kuma-system");
    assert_eq!(meant(&of_system, redis), found("redis.shop", 6379), "the oldest of all");
}

#[test]
fn a_section_is_a_name_before_it_is_a_number_and_wins_over_the_port() {
    let of = |rest: &str| {
        meant(UNIVERSAL, &format!("kind: MeshService, name: redis, namespace: team, {rest}"))
            .unwrap()
            .1
    };
    assert_eq!(of("sectionName: discard"), Ok(9));
    assert_eq!(of("sectionName: '9'"), Ok(6379));
    assert_eq!(of("sectionName: '6379'"), Ok(6379));
    assert_eq!(of("sectionName: discard, port: 6379"), Ok(9));
    assert_eq!(of("port: 80"), Err(NoPort::Unknown("80".to_owned())));
}

#[test]
fn without_a_port_there_must_be_only_one() {
    let labels = |tier: &str| format!("kind: MeshService, labels: {{{tier}}}");
    let name = meant(OF_SHOP, &labels("kuma.io/display-name: redis")).unwrap().1;
    assert_eq!(name, Err(NoPort::Which(2)));
    let only = labels("kuma.io/display-name: redis, kuma.io/mesh: default");
    assert_eq!(meant(UNIVERSAL, &only), Some(("redis.shop".to_owned(), Err(NoPort::Which(2)))));
    let one = "kind: MeshService, name: redis, sectionName: tcp";
    assert_eq!(meant(UNIVERSAL, one), found("redis", 6379));
}
