//! VIPs of UDP: which there are, and whose they are.

use std::num::NonZeroU16;

use super::world::{dataplane, documents, route, set, settings};
use crate::resolve::{
    Decision, ProtocolRule, ResolveSettings, Resolved, VipKey, VipProtocol, resolve,
};

/// A Service of DNS, with both protocols at one port.
const DNS: &str = "apiVersion: v1
kind: Service
metadata: {name: dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
  - {name: metrics, port: 9153}
  - {name: signal, port: 3868, protocol: SCTP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-a, namespace: kube-system, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 1053, protocol: UDP}, {name: dns-tcp, port: 1054}, {name: signal, port: 3868, protocol: SCTP}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
---
";

const TCP_ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: elsewhere, namespace: kube-system}
spec:
  parentRefs: [{group: '', kind: Service, name: dns}]
  rules: [{backendRefs: [{name: dns, port: 9153}]}]
---
";

fn rule(service: &str, port: u16, protocol: VipProtocol) -> ProtocolRule {
    let port = NonZeroU16::new(port);
    ProtocolRule { mesh: "default".to_owned(), service: service.to_owned(), port, protocol }
}

fn with(protocols: Vec<ProtocolRule>) -> ResolveSettings {
    ResolveSettings { protocols, ..settings() }
}

fn keys(resolved: &Resolved) -> Vec<String> {
    resolved.vips.iter().map(|vip| format!("{} {}", vip.key, vip.destination)).collect()
}

fn lines(resolved: &Resolved, key: &str) -> (Decision, Vec<String>) {
    let key: VipKey = key.parse().expect("a VIP");
    let vip = resolved.vips.iter().find(|vip| vip.key == key).expect("there is such a VIP");
    let route = &resolved.routes[vip.route];
    (route.decision, route.lines())
}

#[test]
fn ports_of_udp_are_vips_with_endpoints_of_their_own() {
    let resolved = resolve(&documents(DNS), &settings());
    assert_eq!(resolved.messages(), [] as [&str; 0]);
    assert_eq!(
        keys(&resolved),
        [
            "10.96.0.10:53 dns.kube-system:53",
            "10.96.0.10:53/udp dns.kube-system:53/udp",
            "10.96.0.10:9153 dns.kube-system:9153"
        ]
    );
    let direct = |target: &str, port: u16| {
        let line = format!("1 {target} ok 10.0.0.1:{port} 10.0.0.2:{port}");
        (Decision::Direct, vec![line])
    };
    assert_eq!(lines(&resolved, "10.96.0.10:53"), direct("dns.kube-system:53", 1054));
    assert_eq!(lines(&resolved, "10.96.0.10:53/udp"), direct("dns.kube-system:53/udp", 1053));
}

#[test]
fn a_tcp_route_does_not_carry_datagrams() {
    let resolved = resolve(&documents(&format!("{DNS}{TCP_ROUTE}")), &settings());
    assert_eq!(lines(&resolved, "10.96.0.10:53").0, Decision::Forward);
    assert_eq!(lines(&resolved, "10.96.0.10:53/udp").0, Decision::Direct);
}

#[test]
fn a_service_without_address_has_its_protocols_at_one_allocated_address() {
    let resolved = resolve(&documents(&DNS.replace("  clusterIP: 10.96.0.10\n", "")), &settings());
    let of = |name: &str| resolved.vips_of(name)[0].key;
    let (tcp, udp) = (of("dns.kube-system:53"), of("dns.kube-system:53/udp"));
    assert_eq!(udp, VipKey::udp(tcp.addr));
}

#[test]
fn configuration_says_what_a_service_of_a_mesh_is_dialled_with() {
    let world = || {
        let dns = dataplane("dns-1", "10.0.0.1").inbound(53, "service=dns,version=1");
        let other = dataplane("dns-2", "10.0.0.2").inbound(53, "service=dns,version=2");
        let client = dataplane("web", "10.0.0.9").outbound("10.1.1.1:53", "service=dns");
        let split = route("dns").from("service=*").to("dns");
        let split = split.split(90, "service=dns,version=1").split(10, "service=dns,version=2");
        set(vec![dns, other, client], vec![split])
    };
    let of = |rules: Vec<ProtocolRule>| keys(&resolve(&world(), &with(rules)));
    assert_eq!(of(vec![]), ["10.1.1.1:53 dns"]);
    assert_eq!(of(vec![rule("dns", 0, VipProtocol::Udp)]), ["10.1.1.1:53/udp dns"]);
    assert_eq!(
        of(vec![rule("dns", 53, VipProtocol::Udp), rule("dns", 0, VipProtocol::Tcp)]),
        ["10.1.1.1:53 dns", "10.1.1.1:53/udp dns"]
    );
    assert_eq!(of(vec![rule("dns", 54, VipProtocol::Udp)]), ["10.1.1.1:53 dns"]);
    assert_eq!(of(vec![rule("web", 0, VipProtocol::Udp)]), ["10.1.1.1:53 dns"]);
    let mut elsewhere = rule("dns", 0, VipProtocol::Udp);
    elsewhere.mesh = "other".to_owned();
    assert_eq!(of(vec![elsewhere]), ["10.1.1.1:53 dns"]);
    let resolved = resolve(&world(), &with(vec![rule("dns", 0, VipProtocol::Udp)]));
    assert_eq!(
        lines(&resolved, "10.1.1.1:53/udp"),
        (
            Decision::Forward,
            vec![
                "90 dns,version=1 ok 10.0.0.1:53".to_owned(),
                "10 dns,version=2 ok 10.0.0.2:53".to_owned()
            ]
        ),
        "the policies of the service decide"
    );
}

#[test]
fn two_services_share_an_address_and_port_if_their_protocols_differ() {
    let world = |first: &str, second: &str| {
        let named = dataplane("a", "10.0.0.1").inbound(5353, "service=names");
        let other = dataplane("b", "10.0.0.2").inbound(5354, "service=zones");
        let client = dataplane("c", "10.0.0.9").outbound(first, "service=names");
        set(vec![named, other, client.outbound(second, "service=zones")], vec![])
    };
    let both = || world("10.1.1.1:53", "10.1.1.1:53");
    let disputed = resolve(&both(), &settings());
    assert!(disputed.messages().iter().any(|message| message.contains("10.1.1.1:53 is claimed")));
    let apart = resolve(&both(), &with(vec![rule("names", 0, VipProtocol::Udp)]));
    assert_eq!(apart.messages(), [] as [&str; 0]);
    assert_eq!(keys(&apart), ["10.1.1.1:53 zones", "10.1.1.1:53/udp names"]);
    let rules = vec![rule("names", 0, VipProtocol::Udp), rule("zones", 0, VipProtocol::Udp)];
    let again = resolve(&both(), &with(rules));
    let claimed = |message: &&str| message.contains("VIP 10.1.1.1:53/udp is claimed");
    assert_eq!(again.messages().iter().copied().filter(|m| claimed(m)).count(), 2);
}
