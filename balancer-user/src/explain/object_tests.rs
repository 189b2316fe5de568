//! Questions about Services and listeners.

use super::{Answer, Input, Query, QueryError, explain};
use crate::{
    compile::{Assignment, Limits, compile},
    resolve::{
        VipProtocol, resolve,
        tests::world::{documents, settings},
    },
};

const WORLD: &str = "apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: a, port: 6379}, {name: b, port: 6380}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: shop}
spec: {clusterIP: 10.96.0.3, ports: [{name: dns, port: 53, protocol: UDP}, {name: tcp, port: 53}, {name: time, port: 123, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: v1-a, namespace: shop, labels: {kubernetes.io/service-name: v1}}
addressType: IPv4
ports: [{port: 16379}]
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: node
  addresses: [{value: 192.0.2.10}]
  listeners: [{name: redis, port: 6379, protocol: TCP}, {name: idle, port: 6380, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: old, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  parentRefs: [{name: edge, sectionName: redis}, {group: '', kind: Service, name: v1}]
  rules: [{backendRefs: [{name: v1, port: 6379}, {name: v3, port: 6379}, {name: v2, port: 6379}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: new, namespace: shop, creationTimestamp: '2026-01-02T00:00:00Z'}
spec:
  parentRefs: [{name: edge, sectionName: redis}]
  rules: [{backendRefs: [{name: v1, port: 6379}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: own, namespace: team}
spec:
  parentRefs: [{group: '', kind: Service, name: v1, namespace: shop}]
  rules: [{backendRefs: [{name: v2, namespace: shop, port: 6379}]}]
---
type: Dataplane
mesh: default
name: client
labels: {k8s.kuma.io/namespace: team}
networking: {address: 10.1.0.1, inbound: [{port: 80, tags: {kuma.io/service: client}}]}
";

fn ask(from: &str, to: &str) -> Result<Answer, QueryError> {
    ask_with(from, to, None)
}

fn ask_with(from: &str, to: &str, protocol: Option<VipProtocol>) -> Result<Answer, QueryError> {
    let (set, settings) = (documents(WORLD), settings());
    let resolved = resolve(&set, &settings);
    let tables = compile(&resolved, &Assignment::default(), &Limits::default()).unwrap();
    let query = Query { from: from.to_owned(), to: to.to_owned(), protocol, ..Query::default() };
    let (set, settings, resolved) = (&set, &settings, &resolved);
    explain(&Input { set, settings, resolved, tables: Some(&tables) }, &query)
}

/// The steps that begin so.
fn steps(answer: &Answer, begin: &str) -> Vec<String> {
    answer.steps.iter().filter(|step| step.starts_with(begin)).cloned().collect()
}

#[test]
fn a_listener_says_which_route_carries_and_why_the_other_does_not() {
    let answer = ask("203.0.113.9", "edge.shop/redis").unwrap();
    assert_eq!(answer.destination.address, "192.0.2.10:6379");
    let policy = serde_json::to_value(answer.policy.as_ref().unwrap()).unwrap();
    assert_eq!(policy, serde_json::json!({"kind": "TCPRoute", "mesh": null, "name": "old.shop"}));
    assert_eq!(
        steps(&answer, "policy"),
        [
            "policy: 2 TCPRoutes are attached to the listener edge.shop/redis; old of shop carries",
            "policy: new of shop is attached too and carries nothing; old of shop goes first: it \
             was created earlier",
        ]
    );
    assert_eq!(
        steps(&answer, "source"),
        ["source: 203.0.113.9 is the address of no Dataplane, so it is of no namespace"]
    );
    let backends = steps(&answer, "backend");
    assert!(backends[1].ends_with("there is no Service shop/v3, so this share is reset"));
    assert!(backends[2].ends_with("no ready IPv4 endpoint, so this share is reset"));
}

#[test]
fn a_listener_without_a_route_says_that_it_refuses() {
    let answer = ask("203.0.113.9", "192.0.2.10:6380").unwrap();
    assert_eq!(
        steps(&answer, "policy"),
        ["policy: no route is attached to the listener, so connections are reset"]
    );
    assert_eq!(answer.decision, super::Decision::Reject);
}

#[test]
fn a_client_follows_the_route_of_its_own_namespace() {
    for from in ["client", "10.1.0.1", "kuma.io/service=x,k8s.kuma.io/namespace=team"] {
        let answer = ask(from, "v1.shop:6379").unwrap();
        assert_eq!(
            steps(&answer, "policy"),
            [
                "policy: one TCPRoute is attached to the Service v1.shop:6379 from the namespace \
                 team; own of team carries",
                "policy: old of shop is for all clients; those of the namespace team follow their own",
            ],
            "{from}"
        );
        assert_eq!(answer.backends[0].service, "v2.shop:6379", "{from}");
    }
    let other = ask("203.0.113.9", "v1.shop:6379").unwrap();
    assert_eq!(other.policy.unwrap().name, "old.shop");
    let direct = ask("client", "v2.shop:6379").unwrap();
    assert_eq!(
        steps(&direct, "policy"),
        ["policy: no route is attached, so the endpoints are reached directly"]
    );
}

#[test]
fn what_is_named_without_its_port_must_have_one() {
    assert_eq!(ask("client", "v1.shop").unwrap().destination.service.unwrap(), "v1.shop:6379");
    let error = ask("client", "v2.shop").unwrap_err();
    assert_eq!(error.message, "`v2.shop` can be dialled as 2 things");
    assert_eq!(error.candidates, ["v2.shop:6379", "v2.shop:6380"]);
    let error = ask("client", "v1.shp:6379").unwrap_err();
    assert_eq!(error.candidates, ["v1.shop", "v2.shop"]);
    let error = ask("client", "edge.shop/radis").unwrap_err();
    assert_eq!(error.candidates[0], "edge.shop/redis");
}

#[test]
fn tcp_is_meant_where_both_are_dialled_unless_the_question_says_udp() {
    let service = |to: &str, protocol| {
        let answer = ask_with("10.1.0.1", to, protocol).unwrap_or_else(|error| panic!("{error}"));
        (answer.destination.service.unwrap_or_default(), answer.protocol)
    };
    let (tcp, udp) = (Some(VipProtocol::Tcp), Some(VipProtocol::Udp));
    let own = |name: &str, protocol: &str| (name.to_owned(), protocol.to_owned());
    for to in ["10.96.0.3:53", "dns.shop:53"] {
        assert_eq!(service(to, None), own("dns.shop:53", "tcp"), "{to}");
        assert_eq!(service(to, tcp), own("dns.shop:53", "tcp"), "{to}");
        assert_eq!(service(to, udp), own("dns.shop:53/udp", "udp"), "{to}");
    }
    assert_eq!(service("10.96.0.3:53/udp", None), own("dns.shop:53/udp", "udp"));
    assert_eq!(service("10.96.0.3:123/udp", None), own("dns.shop:123/udp", "udp"));
    assert_eq!(service("dns.shop:123", None), own("dns.shop:123/udp", "udp"));
    let nothing = ask("10.1.0.1", "10.96.0.3:123").expect("any address can be asked about");
    assert_eq!(nothing.destination.service, None);
    let other = "a VIP at port 53 (Service dns.shop:53), 53 of UDP (Service dns.shop:53/udp), \
                 123 of UDP (Service dns.shop:123/udp)";
    assert!(nothing.steps.iter().any(|step| step.contains(other)), "{:?}", nothing.steps);
    let answer = ask_with("10.1.0.1", "dns.shop:53", udp).expect("there is such a VIP");
    let begin = "destination: VIP 10.96.0.3:53/udp of Service dns.shop:53/udp";
    assert!(answer.steps[1].starts_with(begin), "{:?}", answer.steps);
}
