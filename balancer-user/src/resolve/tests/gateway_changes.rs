//! Endpoints that change below routes of the Gateway API: following them gives the whole.

use proptest::prelude::*;

use super::change::followed;
use crate::{
    policy::{PolicySet, ReadOptions, SourceText, read},
    resolve::Change,
};

/// Texts as files would hold them, each by itself.
pub(super) fn texts(texts: &[String]) -> PolicySet {
    let named = texts.iter().zip(0..);
    let texts: Vec<SourceText> = named
        .map(|(text, at)| SourceText { name: format!("{at}.yaml"), text: text.as_str().into() })
        .collect();
    let reading = read(texts, &ReadOptions::default());
    assert!(reading.report.valid(), "{:#?}", reading.report);
    reading.set
}

/// Two Services of two namespaces, and a route of one of them to both without a grant.
fn refused_world(route: &str, far: &str) -> PolicySet {
    let service = |name: &str, namespace: &str, address: &str, endpoint: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [{endpoint}]}}]\n---\n"
        )
    };
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                   metadata: {name: edge, namespace: shop}\nspec: {gatewayClassName: node, \
                   addresses: [{value: 192.0.2.10}], listeners: [{name: tcp, port: 80, protocol: TCP}, {name: web, port: 81, protocol: HTTP}]}\n---\n";
    texts(&[
        format!("{}{gateway}{route}", service("near", "shop", "10.96.0.1", "10.0.0.1")),
        service("far", "data", "10.96.0.2", far),
    ])
}

#[test]
fn a_refused_reference_stays_refused_when_endpoints_of_its_service_change() {
    for (kind, section) in [("TCPRoute", "tcp"), ("HTTPRoute", "web")] {
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{{name: edge, sectionName: {section}}}], rules: [{{backendRefs: [\
             {{name: near, port: 80}}, {{name: far, namespace: data, port: 80}}]}}]}}\n"
        );
        let (before, after) =
            (refused_world(&route, "10.0.0.2"), refused_world(&route, "10.0.0.3"));
        let (change, resolved) = followed(&before, &after);
        assert!(matches!(change, Change::Parts(_)), "{kind}: the rest need not be looked at");
        let listener = format!("edge.shop/{section}");
        assert_eq!(
            resolved.route_from("192.0.2.1", &listener).lines(),
            ["1 near.shop:80 ok 10.0.0.1:80", "1 far.data:80 invalid"],
            "{kind}"
        );
    }
}

#[test]
fn endpoints_of_a_rule_follow_their_slices() {
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: data}\n\
                 spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n\
                 spec: {parentRefs: [{name: edge, sectionName: web}], rules: [{backendRefs: [{name: far, namespace: data, port: 80}]}]}\n";
    let world = |far: &str| refused_world(&format!("{route}{grant}"), far);
    let (change, resolved) = followed(&world("10.0.0.2"), &world("10.0.0.3"));
    assert!(matches!(change, Change::Parts(_)), "{change:?}");
    let http = resolved.route_from("192.0.2.1", "edge.shop/web").http.clone().unwrap();
    assert_eq!(http.backends[0].reals, ["10.0.0.3:80".parse().unwrap()]);
}

/// Services of two namespaces; the last says that it speaks TLS.
const SERVICES: [(&str, &str, &str); 4] =
    [("a", "shop", ""), ("b", "shop", ""), ("c", "data", ""), ("d", "shop", "https")];

fn service(at: usize) -> String {
    let (name, namespace, spoken) = SERVICES[at];
    let spoken = if spoken.is_empty() { "" } else { ", appProtocol: https" };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: 10.96.0.{}, ports: [{{port: 80{spoken}}}]}}\n",
        at + 1
    )
}

/// Endpoints as the last number of an address, and whether they are ready.
type Endpoints = Vec<(u8, bool)>;

fn slice(at: usize, endpoints: &Endpoints) -> String {
    let (name, namespace, _) = SERVICES[at];
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(octet, ready)| {
            format!("{{addresses: [10.0.{at}.{octet}], conditions: {{ready: {ready}}}}}")
        })
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

const FRONT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
    metadata: {name: edge, namespace: shop}\nspec: {gatewayClassName: node, \
    addresses: [{value: 192.0.2.10}], listeners: [{name: tcp, port: 81, protocol: TCP}, \
    {name: any, port: 80, protocol: HTTP}, {name: below, port: 80, protocol: HTTP, hostname: '*.b'}]}\n---\n\
    apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: data}\n\
    spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}\n";

fn any_backends() -> impl Strategy<Value = String> {
    let backend = (prop::sample::select(&SERVICES[..]), 0..3u32).prop_map(
        |((name, namespace, _), weight)| {
            format!("{{name: {name}, namespace: {namespace}, port: 80, weight: {weight}}}")
        },
    );
    prop::collection::vec(backend, 1..4).prop_map(|backends| backends.join(", "))
}

/// Rules of a route of a kind.
fn any_rules(kind: &'static str) -> impl Strategy<Value = String> {
    let matches = prop::sample::select(match kind {
        "TCPRoute" => &[""][..],
        _ => &["", "matches: [{headers: [{name: x, value: y}]}], "][..],
    });
    (matches, any_backends())
        .prop_map(|(matches, backends)| format!("{{{matches}backendRefs: [{backends}]}}"))
}

/// A kind of route, what it attaches to, and two rules that it may have.
fn any_route() -> impl Strategy<Value = (&'static str, String, [String; 2])> {
    let kind = prop::sample::select(&["TCPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute"][..]);
    let parent = prop::sample::select(
        &[
            "{name: edge}",
            "{name: edge, sectionName: below}",
            "{group: '', kind: Service, name: a}",
            "{group: '', kind: Service, name: b}",
        ][..],
    );
    let host = prop::sample::select(&["", "hostnames: [a.b], ", "hostnames: ['*.b'], "][..]);
    (kind, parent, host).prop_flat_map(|(kind, parent, host)| {
        let host = if kind == "TCPRoute" { "" } else { host };
        let about = format!("parentRefs: [{parent}], {host}");
        (Just(kind), Just(about), [any_rules(kind), any_rules(kind)])
    })
}

fn route(at: usize, (kind, about, rules): &(&str, String, [String; 2]), rule: usize) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r{at}, \
         namespace: shop}}\nspec: {{{about}rules: [{}]}}\n",
        rules[rule]
    )
}

fn any_endpoints() -> impl Strategy<Value = Endpoints> {
    let endpoints = prop::collection::btree_map(1..5u8, prop::bool::weighted(0.7), 0..4);
    endpoints.prop_map(|endpoints| endpoints.into_iter().collect())
}

proptest! {
    #[test]
    fn following_endpoints_below_any_routes_gives_the_whole(
        routes in prop::collection::vec(any_route(), 0..6),
        endpoints in prop::collection::vec(any_endpoints(), 4),
        steps in prop::collection::vec((0..4usize, any_endpoints()), 1..4),
    ) {
        let mut fixed = vec![FRONT.to_owned()];
        fixed.extend((0..SERVICES.len()).map(service));
        fixed.extend(routes.iter().enumerate().map(|(at, one)| route(at, one, 0)));
        let world = |endpoints: &[Endpoints]| {
            let slices = endpoints.iter().enumerate().map(|(at, endpoints)| slice(at, endpoints));
            texts(&fixed.iter().cloned().chain(slices).collect::<Vec<_>>())
        };
        let mut endpoints = endpoints;
        for (at, other) in steps {
            let before = world(&endpoints);
            endpoints[at] = other;
            followed(&before, &world(&endpoints));
        }
    }

    #[test]
    fn following_routes_that_say_something_else_gives_the_whole(
        routes in prop::collection::vec(any_route(), 1..6),
        endpoints in prop::collection::vec(any_endpoints(), 4),
        edited in prop::collection::vec(any::<bool>(), 6),
    ) {
        let mut fixed = vec![FRONT.to_owned()];
        fixed.extend((0..SERVICES.len()).map(service));
        fixed.extend(endpoints.iter().enumerate().map(|(at, endpoints)| slice(at, endpoints)));
        let world = |edited: &dyn Fn(usize) -> bool| {
            let routes =
                routes.iter().enumerate().map(|(at, one)| route(at, one, edited(at).into()));
            texts(&fixed.iter().cloned().chain(routes).collect::<Vec<_>>())
        };
        followed(&world(&|_| false), &world(&|at| edited[at]));
        followed(&world(&|_| false), &world(&|at| at == 0));
    }
}

#[test]
fn another_match_or_weight_of_a_route_is_a_small_change() {
    let world = |kind: &str, value: &str, weight: u32| {
        let matches = format!("matches: [{{headers: [{{name: x, value: {value}}}]}}], ");
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: \
             shop}}\nspec: {{parentRefs: [{{name: edge, sectionName: web}}], rules: [{{{matches}backendRefs: \
             [{{name: near, port: 80, weight: {weight}}}]}}, {{backendRefs: [{{name: near, port: 80}}]}}]}}\n"
        );
        refused_world(&route, "10.0.0.2")
    };
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for after in [world(kind, "z", 1), world(kind, "y", 2)] {
            let (change, _) = followed(&world(kind, "y", 1), &after);
            let Change::Parts(parts) = change else { panic!("{kind} was resolved as a whole") };
            assert_eq!(parts.routes.len(), 1);
        }
    }
}
