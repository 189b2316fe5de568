//! Questions about routes of requests of the Gateway API: those that are not attached, references
//! that are refused, and listeners of one port.

use super::{Answer, Input, Query, QueryError, RequestQuery, explain};
use crate::resolve::{
    resolve,
    tests::world::{documents, settings},
};

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: web, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: data}
spec: {clusterIP: 10.96.0.2, ports: [{name: web, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: v1-a, namespace: shop, labels: {kubernetes.io/service-name: v1}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
---
type: Dataplane
mesh: default
name: client
labels: {k8s.kuma.io/namespace: team}
networking: {address: 10.1.0.1, inbound: [{port: 80, tags: {kuma.io/service: client}}]}
";

const V1: &str = "rules: [{backendRefs: [{name: v1, namespace: shop, port: 80}]}]";

fn edge(listeners: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, \
         namespace: shop}}\nspec: {{gatewayClassName: node, addresses: [{{value: 192.0.2.10}}], \
         listeners: [{listeners}]}}\n"
    )
}

/// A route; `name` may have its namespace behind a dot.
fn route(kind: &str, name: &str, parent: &str, rest: &str) -> String {
    let (name, namespace) = name.split_once('.').unwrap_or((name, "shop"));
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, \
         namespace: {namespace}}}\nspec: {{parentRefs: [{parent}], {rest}}}\n"
    )
}

fn ask(parts: &[String], to: &str, request: Option<RequestQuery>) -> Result<Answer, QueryError> {
    let (set, settings) = (documents(&(SERVICES.to_owned() + &parts.concat())), settings());
    let resolved = resolve(&set, &settings);
    let from = "client".to_owned();
    let query = Query { from, to: to.to_owned(), request, ..Query::default() };
    let (set, settings, resolved) = (&set, &settings, &resolved);
    explain(&Input { set, settings, resolved, tables: None }, &query)
}

fn get(host: Option<&str>) -> Option<RequestQuery> {
    Some(RequestQuery { host: host.map(str::to_owned), ..RequestQuery::default() })
}

/// The steps that begin so.
fn steps(answer: &Answer, begin: &str) -> Vec<String> {
    answer.steps.iter().filter(|step| step.starts_with(begin)).cloned().collect()
}

const WEB: &str = "{name: web, port: 80, protocol: HTTP}";
const EDGE: &str = "{name: edge}";

#[test]
fn a_route_that_loses_to_one_of_another_kind_is_named_with_it() {
    let both =
        [edge(WEB), route("GRPCRoute", "calls", EDGE, V1), route("HTTPRoute", "pages", EDGE, V1)];
    assert_eq!(
        steps(&ask(&both, "edge.shop/web", None).unwrap(), "policy"),
        [
            "policy: rules are given by GRPCRoute shop/calls, at the listener edge.shop/web",
            "policy: HTTPRoute shop/pages is not attached: the GRPCRoute shop/calls is attached to \
             the listener edge.shop/web for some of its hosts and goes first: neither is older, and \
             its namespace and name come first",
        ]
    );
    let service = "{group: '', kind: Service, name: v1}";
    let both = [route("TCPRoute", "plain", service, V1), route("HTTPRoute", "pages", service, V1)];
    assert_eq!(
        steps(&ask(&both, "v1.shop:80", None).unwrap(), "policy"),
        [
            "policy: rules are given by HTTPRoute shop/pages, at the Service v1.shop:80",
            "policy: TCPRoute shop/plain is not attached: the HTTPRoute shop/pages is attached to \
             the Service v1.shop:80, and its kind goes first",
        ]
    );
}

#[test]
fn routes_that_a_listener_refuses_are_named_with_why() {
    let listeners = "{name: web, port: 80, protocol: HTTP, hostname: '*.b', allowedRoutes: \
                     {kinds: [{kind: HTTPRoute}]}}, {name: other, port: 81, protocol: HTTP}";
    let host = |host: &str| format!("hostnames: ['{host}'], {V1}");
    let parts = [
        edge(listeners),
        route("GRPCRoute", "calls", EDGE, V1),
        route("HTTPRoute", "away.team", "{name: edge, namespace: shop}", V1),
        route("HTTPRoute", "hosts", EDGE, &host("a.c")),
        route("HTTPRoute", "misspelt", "{name: edge, sectionName: wbe}", V1),
        route("HTTPRoute", "elsewhere", "{name: edge, sectionName: other}", &host("x.y")),
        route("HTTPRoute", "lost", "{name: egde}", V1),
    ];
    let answer = ask(&parts, "edge.shop/web", None).unwrap();
    assert_eq!(
        steps(&answer, "policy"),
        [
            "policy: no route is attached to the listener, so connections are reset",
            "policy: GRPCRoute shop/calls is not attached: the listener edge.shop/web allows no GRPCRoute",
            "policy: HTTPRoute shop/hosts is not attached: the listener edge.shop/web is for the host \
             *.b, and the route for none of its",
            "policy: HTTPRoute shop/misspelt is not attached: no listener of shop/edge has the name `wbe`",
            "policy: HTTPRoute team/away is not attached: the listener edge.shop/web allows no route \
             of the namespace `team`",
        ]
    );
}

#[test]
fn of_a_service_only_routes_for_the_client_are_named() {
    let service =
        |port| format!("{{group: '', kind: Service, name: v1, namespace: shop, port: {port}}}");
    let parts = [
        route("HTTPRoute", "all", &service(81), V1),
        route("HTTPRoute", "own.team", &service(82), V1),
        route("HTTPRoute", "others.data", &service(83), V1),
    ];
    assert_eq!(
        steps(&ask(&parts, "v1.shop:80", None).unwrap(), "policy"),
        [
            "policy: no route is attached, so the endpoints are reached directly",
            "policy: HTTPRoute team/own is not attached: no TCP port of shop/v1 has the port 82",
            "policy: HTTPRoute shop/all is not attached: no TCP port of shop/v1 has the port 81",
        ]
    );
}

#[test]
fn a_reference_that_is_refused_says_why_for_requests_and_for_connections() {
    let refs = "{name: v1, port: 80}, {name: far, namespace: data, port: 80}, {name: gone, port: 80}, \
                {name: v1, port: 81}, {name: v1, port: 53}, {group: x.io, kind: Pool, name: p}";
    let mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: far, namespace: \
                  data, port: 80}}}]";
    let rules = format!("rules: [{{{mirror}, backendRefs: [{refs}]}}]");
    let parts = [edge(WEB), route("HTTPRoute", "pages", EDGE, &rules)];
    let answer = ask(&parts, "edge.shop/web", get(None)).unwrap();
    let whys = [
        "no ReferenceGrant of `data` allows HTTPRoutes of `shop` to name the Service far",
        "there is no Service shop/gone",
        "shop/v1 has no port 81",
        "port 53 of shop/v1 is no TCP port",
        "requests do not go to a Pool of the group 'x.io'",
    ];
    let backends = steps(&answer, "backend");
    assert_eq!(backends.len(), 12, "{backends:#?}");
    for (at, why) in whys.iter().enumerate() {
        let end = format!("; {why}, so this share is answered with 500");
        assert!(backends[1 + at].ends_with(&end), "{} {end}", backends[1 + at]);
        let end = format!("; {why}, so this share is reset");
        assert!(backends[7 + at].ends_with(&end), "{} {end}", backends[7 + at]);
    }
    let mirrored = format!("mirror far.data:80: {}, so no copy of a request is sent", whys[0]);
    assert_eq!(steps(&answer, "mirror"), [mirrored]);
    // On a Service no grant is asked for.
    let service = "{group: '', kind: Service, name: v1}";
    let answer = ask(&[route("HTTPRoute", "pages", service, &rules)], "v1.shop:80", get(None));
    assert!(steps(&answer.unwrap(), "backend")[1].contains("no ready IPv4 endpoint"));
}

#[test]
fn each_listener_of_one_port_can_be_named_and_the_host_says_which_is_asked() {
    let listeners = "{name: any, port: 80, protocol: HTTP}, \
                     {name: below, port: 80, protocol: HTTP, hostname: '*.b'}, \
                     {name: exact, port: 80, protocol: HTTP, hostname: a.b}";
    let on = |section: &str| format!("{{name: edge, sectionName: {section}}}");
    let parts = [
        edge(listeners),
        route("HTTPRoute", "all", &on("any"), V1),
        route("HTTPRoute", "one", &on("exact"), V1),
    ];
    let asked = |to: &str, host: Option<&str>| {
        let answer = ask(&parts, to, get(host)).unwrap_or_else(|error| panic!("{to}: {error}"));
        let service = answer.destination.service.clone().unwrap();
        let policy = answer.policy.as_ref().filter(|_| answer.rule.is_some());
        (service, policy.map(|policy| policy.name.clone()), answer)
    };
    let (service, policy, answer) = asked("edge.shop/exact", None);
    assert_eq!((&*service, policy.as_deref()), ("edge.shop/exact", Some("one.shop")));
    assert_eq!(
        steps(&answer, "destination")[1..],
        [
            "destination: listeners of this address and port are edge.shop/any (host *), \
             edge.shop/below (host *.b), edge.shop/exact (host a.b); a request belongs to the one \
             with the most specific hostname that takes its host",
            "destination: the host a.b is that of the listener edge.shop/exact",
        ]
    );
    assert_eq!(
        steps(&answer, "policy"),
        [
            "policy: rules are given by HTTPRoute shop/all, at the listener edge.shop/any",
            "policy: no route is attached to the listener edge.shop/below",
            "policy: rules are given by HTTPRoute shop/one, at the listener edge.shop/exact",
        ]
    );
    let (service, policy, answer) = asked("edge.shop/any", Some("c.b"));
    assert_eq!((&*service, policy), ("edge.shop/any", None));
    assert_eq!(
        steps(&answer, "destination")[2],
        "destination: the host c.b is that of the listener edge.shop/below, so no rule of \
         edge.shop/any takes the request"
    );
    let (_, policy, answer) = asked("192.0.2.10:80", None);
    assert_eq!(policy.as_deref(), Some("all.shop"));
    let host = "destination: the host 192.0.2.10 is that of the listener edge.shop/any";
    assert_eq!(steps(&answer, "destination")[2], host);
    assert_eq!(asked("edge.shop/below", None).1, None);
    let error = ask(&parts, "edge.shop/exakt", None).unwrap_err();
    assert_eq!(error.candidates, ["edge.shop/exact", "edge.shop/any"]);
}
