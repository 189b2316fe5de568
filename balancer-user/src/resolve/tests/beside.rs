//! One address of a mesh and a Service: whose policies decide.

use super::world::{documents, settings};
use crate::resolve::{Resolved, resolve};

/// Services `v1` and `v2` of `shop`; three clients whose outbound is `v1` as Kuma names it, one
/// of the namespace `team`.
const WORLD: &str = "apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{port: 6379}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: v1, namespace: shop, labels: {kubernetes.io/service-name: v1}}
addressType: IPv4
ports: [{port: 6379}]
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: v2, namespace: shop, labels: {kubernetes.io/service-name: v2}}
addressType: IPv4
ports: [{port: 6379}]
endpoints: [{addresses: [10.0.0.2]}]
---
type: Dataplane
mesh: default
name: v1
networking: {address: 10.0.0.1, inbound: [{port: 6379, tags: {kuma.io/service: v1_shop_svc_6379}}]}
---
type: Dataplane
mesh: default
name: v3
networking: {address: 10.0.0.3, inbound: [{port: 6379, tags: {kuma.io/service: v3}}]}
---
";

fn client(name: &str, namespace: &str, address: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\nlabels: {{k8s.kuma.io/namespace: {namespace}}}\n\
         networking: {{address: {address}, inbound: [{{port: 80, tags: {{kuma.io/service: {name}}}}}], \
         outbound: [{{address: 10.96.0.1, port: 6379, tags: {{kuma.io/service: v1_shop_svc_6379}}}}]}}\n---\n"
    )
}

const TO_V3: &str = "type: TrafficRoute
mesh: default
name: traffic
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: v1_shop_svc_6379}}]
conf: {destination: {kuma.io/service: v3}}
---
";

fn tcp_route(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: v1, namespace: shop}}], \
         rules: [{{backendRefs: [{{name: v2, namespace: shop, port: 6379}}]}}]}}\n---\n"
    )
}

/// For the clients of the service `name`.
fn mesh_route(name: &str) -> String {
    format!(
        "type: MeshTCPRoute\nmesh: default\nname: mesh-route\nspec:\n  targetRef: {{kind: MeshService, name: {name}}}\n  \
         to:\n  - targetRef: {{kind: MeshService, name: v1_shop_svc_6379}}\n    rules:\n    - default: \
         {{backendRefs: [{{kind: MeshService, name: v3}}]}}\n---\n"
    )
}

fn resolved(parts: &[&str]) -> Resolved {
    let clients =
        [client("in", "team", "10.1.0.1"), client("out", "shop", "10.1.0.2"), String::new()];
    resolve(&documents(&[WORLD, &clients.concat(), &parts.concat()].concat()), &settings())
}

/// Who decides for a source, and where its connections end.
fn of(resolved: &Resolved, source: &str) -> String {
    let vip = resolved.vips.iter().find(|vip| vip.key.addr.to_string() == "10.96.0.1:6379");
    let route = resolved.route_at(source, vip.expect("the address that both name"));
    let kind = route.policy.as_ref().map_or("-", |policy| &policy.kind);
    let reals = route.backends.iter().flat_map(|backend| &backend.reals);
    format!("{kind} {}", reals.map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// The clients of `team` and of `shop`, and an address that nobody has.
fn everybody(resolved: &Resolved) -> [String; 3] {
    ["10.1.0.1", "10.1.0.2", "192.0.2.1"].map(|source| of(resolved, source))
}

const DIRECT: &str = "- 10.0.0.1:6379";
const BY_TCP_ROUTE: &str = "TCPRoute 10.0.0.2:6379";
const BY_TRAFFIC_ROUTE: &str = "TrafficRoute 10.0.0.3:6379";
const BY_MESH_ROUTE: &str = "MeshTCPRoute 10.0.0.3:6379";

#[test]
fn one_vip_stands_for_both() {
    let resolved = resolved(&[]);
    let at =
        |addr: &str| resolved.vips.iter().filter(|vip| vip.key.addr.to_string() == addr).count();
    assert_eq!(at("10.96.0.1:6379"), 1);
    assert_eq!(everybody(&resolved), [DIRECT; 3]);
    assert!(resolved.diagnostics.iter().all(|(_, found)| !found.is_error()));
}

#[test]
fn a_tcp_route_goes_before_a_traffic_route_that_says_so() {
    assert_eq!(everybody(&resolved(&[TO_V3])), [BY_TRAFFIC_ROUTE; 3]);
    let both = resolved(&[TO_V3, &tcp_route("tcp", "shop")]);
    assert_eq!(everybody(&both), [BY_TCP_ROUTE; 3]);
    let [(meta, found)] = both.diagnostics.as_slice() else { panic!("{:?}", both.messages()) };
    assert_eq!(
        (meta.name.as_str(), found.field.as_str()),
        ("traffic", "destinations[0].match[\"kuma.io/service\"]")
    );
    assert!(found.message.contains("the TCPRoute shop/tcp carries them"), "{}", found.message);
}

#[test]
fn a_consumers_route_leaves_others_to_the_traffic_route() {
    let resolved = resolved(&[TO_V3, &tcp_route("own", "team")]);
    assert_eq!(everybody(&resolved), [BY_TCP_ROUTE, BY_TRAFFIC_ROUTE, BY_TRAFFIC_ROUTE]);
}

#[test]
fn a_mesh_tcp_route_goes_first_for_whom_it_speaks() {
    let producer = tcp_route("tcp", "shop");
    let of_out = resolved(&[TO_V3, &producer, &mesh_route("out")]);
    assert_eq!(everybody(&of_out), [BY_TCP_ROUTE, BY_MESH_ROUTE, BY_TCP_ROUTE]);
    let said = of_out.diagnostics.iter().find(|(meta, _)| meta.kind == "TCPRoute");
    let (_, found) = said.expect("a finding about the TCPRoute");
    assert!(found.message.contains("the MeshTCPRoute mesh-route of mesh default"), "{found:?}");

    let consumer = tcp_route("own", "team");
    let of_in = resolved(&[&consumer, &mesh_route("in")]);
    assert_eq!(everybody(&of_in), [BY_MESH_ROUTE, DIRECT, DIRECT]);
}
