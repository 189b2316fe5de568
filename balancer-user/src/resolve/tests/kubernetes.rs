use super::*;
use crate::resolve::tests::world::documents;

/// A Service `echo` of `shop` with a web and a DNS port.
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec:
  ports:
  - {name: web, port: 80, targetPort: http}
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53}
---
";

fn slice(name: &str, namespace: &str, service: &str, rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}\n{rest}\n---\n"
    )
}

/// A slice of `echo` with these endpoints at port 8080.
fn own(name: &str, endpoints: &str) -> String {
    slice(
        name,
        "shop",
        "echo",
        &format!("addressType: IPv4\nports: [{{name: web, port: 8080}}]\nendpoints: {endpoints}"),
    )
}

/// The endpoints of one port that take connections, as `address zone`.
fn endpoints(slices: &str, port: usize, family: Family) -> Vec<String> {
    let set = documents(&format!("{SERVICE}{slices}"));
    let service = &set.services[0];
    Slices::new(&set.endpoint_slices)
        .endpoints(service, &service.ports[port])
        .into_iter()
        .filter(|endpoint| endpoint.usable && Family::of(endpoint.addr.ip()) == family)
        .map(|endpoint| format!("{} {}", endpoint.addr, endpoint.zone.unwrap_or("?")))
        .collect()
}

fn web(slices: &str) -> Vec<String> {
    endpoints(slices, 0, Family::V4)
}

#[test]
fn slices_are_joined_by_namespace_service_port_name_and_protocol() {
    let good = own("a", "[{addresses: [10.0.0.1], zone: east}]");
    let others = [
        slice(
            "b",
            "other",
            "echo",
            "addressType: IPv4\nports: [{name: web, port: 1}]\nendpoints: [{addresses: [10.0.0.2]}]",
        ),
        slice(
            "c",
            "shop",
            "echo-2",
            "addressType: IPv4\nports: [{name: web, port: 1}]\nendpoints: [{addresses: [10.0.0.3]}]",
        ),
        slice(
            "d",
            "shop",
            "echo",
            "addressType: IPv4\nports: [{name: admin, port: 1}]\nendpoints: [{addresses: [10.0.0.4]}]",
        ),
        slice(
            "e",
            "shop",
            "echo",
            "addressType: IPv4\nports: [{name: web, protocol: UDP, port: 1}]\nendpoints: [{addresses: [10.0.0.5]}]",
        ),
        slice(
            "f",
            "shop",
            "echo",
            "addressType: IPv4\nports: [{name: web}]\nendpoints: [{addresses: [10.0.0.6]}]",
        ),
        slice("g", "shop", "echo", "addressType: IPv4\nendpoints: [{addresses: [10.0.0.7]}]"),
        slice(
            "h",
            "shop",
            "echo",
            "addressType: FQDN\nports: [{name: web, port: 1}]\nendpoints: [{addresses: [a.example]}]",
        ),
    ];
    assert_eq!(web(&format!("{}{good}", others.concat())), ["10.0.0.1:8080 east"]);
    // Two ports of one number are told apart by name and protocol.
    let dns = slice(
        "i",
        "shop",
        "echo",
        "addressType: IPv4\nports: [{name: dns, protocol: UDP, port: 5353}, {name: dns-tcp, port: 5354}]\nendpoints: [{addresses: [10.0.0.8]}]",
    );
    assert_eq!(endpoints(&dns, 1, Family::V4), ["10.0.0.8:5353 ?"]);
    assert_eq!(endpoints(&dns, 2, Family::V4), ["10.0.0.8:5354 ?"]);
}

#[test]
fn an_unnamed_port_is_joined_with_the_unnamed_port() {
    let body = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\nspec: {{ports: [{{port: 5432}}]}}\n---\n{}",
        slice(
            "a",
            "shop",
            "db",
            "addressType: IPv4\nports: [{name: '', port: 15432}]\nendpoints: [{addresses: [10.0.0.1]}]"
        )
    );
    let set = documents(&body);
    let found =
        Slices::new(&set.endpoint_slices).endpoints(&set.services[0], &set.services[0].ports[0]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].addr, "10.0.0.1:15432".parse().unwrap());
}

#[test]
fn endpoints_of_several_slices_are_one_list_and_each_is_there_once() {
    let a =
        own("a", "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.1], conditions: {ready: false}}]");
    let b = own("b", "[{addresses: [10.0.0.1], zone: west}, {addresses: [10.0.0.3]}]");
    let expected = ["10.0.0.1:8080 west", "10.0.0.2:8080 ?", "10.0.0.3:8080 ?"];
    assert_eq!(web(&format!("{a}{b}")), expected);
    assert_eq!(web(&format!("{b}{a}")), expected);
    // The same address at another port is another endpoint.
    let moved = b.replace("8080", "8081");
    assert_eq!(
        web(&format!("{a}{moved}")),
        ["10.0.0.1:8081 west", "10.0.0.2:8080 ?", "10.0.0.3:8081 ?"]
    );
}

#[test]
fn terminating_endpoints_serve_only_where_none_is_ready() {
    let leaving =
        "{addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}";
    let broken =
        "{addresses: [10.0.0.3], conditions: {ready: false, serving: false, terminating: true}}";
    let starting = "{addresses: [10.0.0.4], conditions: {ready: false}}";
    let serving = "{addresses: [10.0.0.5], conditions: {ready: false, serving: true}}";
    let all =
        |first: &str| own("a", &format!("[{first}{leaving}, {broken}, {starting}, {serving}]"));
    assert_eq!(web(&all("{addresses: [10.0.0.1]}, ")), ["10.0.0.1:8080 ?"]);
    assert_eq!(web(&all("")), ["10.0.0.2:8080 ?"]);
    assert_eq!(web(&own("a", &format!("[{broken}, {starting}]"))), [""; 0]);
}

#[test]
fn families_are_apart_and_each_has_its_own_fallback() {
    let v4 = own("a", "[{addresses: [10.0.0.1]}]");
    let v6 = slice(
        "b",
        "shop",
        "echo",
        "addressType: IPv6\nports: [{name: web, port: 8080}]\nendpoints: [{addresses: ['fd00::1'], conditions: {ready: false, serving: true, terminating: true}}]",
    );
    let both = format!("{v4}{v6}");
    assert_eq!(endpoints(&both, 0, Family::V4), ["10.0.0.1:8080 ?"]);
    assert_eq!(endpoints(&both, 0, Family::V6), ["[fd00::1]:8080 ?"]);
}

#[test]
fn an_external_name_has_no_endpoints() {
    let body = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: shop}}\nspec: {{type: ExternalName, externalName: a.example, ports: [{{name: web, port: 80}}]}}\n---\n{}",
        own("a", "[{addresses: [10.0.0.1]}]")
    );
    let set = documents(&body);
    let service = &set.services[0];
    assert!(Slices::new(&set.endpoint_slices).endpoints(service, &service.ports[0]).is_empty());
}

#[test]
fn a_backend_names_a_tcp_port_by_its_number() {
    let set = documents(SERVICE);
    let named = |number| {
        let port = tcp_port(&set.services[0], NonZeroU16::new(number).unwrap());
        port.map(|port| port.name.as_str())
    };
    assert_eq!((named(80), named(53), named(8080)), (Some("web"), Some("dns-tcp"), None));
}
