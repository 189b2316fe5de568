//! HTTPRoutes and GRPCRoutes as a whole: documents in, what becomes of requests and connections
//! out (semantics 5).

mod references;

use std::sync::Arc;

use super::world::{documents, settings};
use crate::{
    http::{
        Chance, Choice, Decision as Done, Router,
        tests::{Asked, asked},
    },
    policy::PolicySet,
    resolve::{
        Decision, GATEWAY_CONTROLLER, Resolved, Route,
        gateway::{ConditionReason, attach},
        resolve,
    },
};

/// Services of `shop`, `v1` to `v3` with an endpoint each, `empty` without, `far` of `data` with.
fn services() -> String {
    let service = |name: &str, namespace: &str, number: u8, port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: 10.96.0.{number}, ports: [{{name: web, port: 80{port}}}]}}\n---\n"
        )
    };
    let served = [("v1", "shop", 1), ("v2", "shop", 2), ("v3", "shop", 3), ("far", "data", 4)];
    let mut all = service("empty", "shop", 5, "");
    all += &service("tls", "shop", 6, ", appProtocol: https");
    all += &service("ws", "shop", 7, ", appProtocol: kubernetes.io/ws");
    for (name, namespace, number) in served {
        all += &service(name, namespace, number, "");
        all += &slice(name, namespace, &format!("10.0.0.{number}"));
    }
    all
}

fn slice(name: &str, namespace: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: web, port: 8080}}]\n\
         endpoints: [{{addresses: ['{address}']}}]\n---\n"
    )
}

/// A Gateway `edge` of `shop` at 192.0.2.10.
fn edge(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: edge, namespace: shop}}\n\
         spec: {{gatewayClassName: node, addresses: [{{value: 192.0.2.10}}], listeners: [{listeners}]}}\n---\n"
    )
}

const WEB: &str = "{name: web, port: 80, protocol: HTTP}";
const EDGE: &str = "{name: edge}";
const V1: &str = "{group: '', kind: Service, name: v1}";

/// A route of `shop`, created at a second of a day.
fn route(kind: &str, name: &str, second: u8, parents: &str, rest: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-03-01T10:00:{second:02}Z'}}\n\
         spec: {{parentRefs: [{parents}], {rest}}}\n---\n"
    )
}

fn http(name: &str, parents: &str, rest: &str) -> String {
    route("HTTPRoute", name, 0, parents, rest)
}

fn to(service: &str) -> String {
    format!("rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]")
}

fn below(path: &str, service: &str) -> String {
    format!(
        "rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {service}, port: 80}}]}}]"
    )
}

fn set(parts: &[&str]) -> PolicySet {
    documents(&parts.concat())
}

fn resolved(parts: &[&str]) -> Resolved {
    let services = services();
    let parts: Vec<&str> = [services.as_str()].iter().chain(parts).copied().collect();
    resolve(&set(&parts), &settings())
}

fn at<'r>(resolved: &'r Resolved, source: &str, addr: &str) -> &'r Route {
    let vip = resolved.vips.iter().find(|vip| vip.key.addr.to_string() == addr);
    resolved.route_at(source, vip.unwrap_or_else(|| panic!("no VIP {addr}")))
}

/// The Service that takes a request, or the code that it is answered with, turn by turn.
fn answers(route: &Route, asked: &Asked, turns: u64) -> Vec<String> {
    let http = route.http.as_ref().expect("requests are told apart");
    let router = Router::new(Arc::clone(&http.rules)).unwrap();
    let one = |turn| {
        let chance = Chance { backend: Choice::Turn(turn), cookie: 0 };
        match router.decide(&asked.request(), chance, |id| http.readiness(id)) {
            Done::Forward(to) => {
                let backend = &http.backends[to.backend.0 as usize];
                assert_eq!(backend.reals.len(), 1);
                backend.destination.to_string()
            }
            Done::Redirect(answer) | Done::Respond(answer) | Done::Refuse(_, answer) => {
                let answer = answer.answer;
                let code = answer.headers.get("grpc-status").map(|code| code.to_str().unwrap());
                code.map_or(answer.status.as_u16().to_string(), |code| format!("grpc {code}"))
            }
        }
    };
    (0..turns).map(one).collect()
}

fn answer(route: &Route, asked: &Asked) -> String {
    answers(route, asked, 1).remove(0)
}

const NOBODY: &str = "192.0.2.1";
const FRONT: &str = "192.0.2.10:80";

fn errors(resolved: &Resolved) -> Vec<&str> {
    let errors = resolved.diagnostics.iter().filter(|(_, found)| found.is_error());
    errors.map(|(_, found)| found.message.as_str()).collect()
}

#[test]
fn rules_of_all_routes_of_a_listener_hold_together() {
    let all = [http("a", EDGE, &below("/a", "v1")), http("b", EDGE, &below("/a/b", "v2"))].concat();
    let resolved = resolved(&[&edge(WEB), &all]);
    let route = at(&resolved, NOBODY, FRONT);
    let of = |path| answer(route, &asked("GET", path));
    assert_eq!([of("/a"), of("/a/b/c"), of("/")], ["v1.shop:80", "v2.shop:80", "404"]);
    let http = route.http.as_ref().unwrap();
    let policies: Vec<_> = http.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(policies, ["a.shop", "b.shop"]);
    assert_eq!(http.rules.rules[1].origin, "HTTPRoute shop/b: spec.rules[0]");
    assert_eq!(http.policy_of(1).unwrap().name, "b.shop");
    assert_eq!(route.decision, Decision::Reject, "no rule takes any request");
}

#[test]
fn a_split_of_any_request_is_one_of_connections_until_requests_are_told_apart() {
    let halves = "rules: [{backendRefs: [{name: v1, port: 80}, {name: v2, port: 80}]}]";
    for (parent, addr) in [(EDGE, FRONT), (V1, "10.96.0.1:80")] {
        let resolved = resolved(&[&edge(WEB), &http("echo", parent, halves)]);
        let route = at(&resolved, NOBODY, addr);
        assert_eq!(
            (route.decision, route.lines()),
            (
                Decision::Forward,
                vec![
                    "1 v1.shop:80 ok 10.0.0.1:8080".to_owned(),
                    "1 v2.shop:80 ok 10.0.0.2:8080".to_owned()
                ]
            )
        );
        assert_eq!(route.policy.as_ref().unwrap().kind, "HTTPRoute");
        let mut took = answers(route, &asked("GET", "/any"), 2);
        took.sort();
        assert_eq!(took, ["v1.shop:80", "v2.shop:80"]);
    }
}

#[test]
fn connections_follow_no_rule_that_is_for_some_requests_only() {
    let method = "rules: [{matches: [{method: GET}], backendRefs: [{name: v2, port: 80}]}]";
    let host = format!("hostnames: [a.example.com], {}", to("v2"));
    let moved = "rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]";
    let narrow = edge("{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'}");
    for (gateway, rest) in
        [(edge(WEB), method), (edge(WEB), &host), (edge(WEB), moved), (narrow, &to("v2"))]
    {
        let resolved = resolved(&[&gateway, &http("r", EDGE, rest)]);
        let route = at(&resolved, NOBODY, FRONT);
        assert_eq!((route.decision, &route.policy), (Decision::Reject, &None), "{rest}");
    }
    let resolved = resolved(&[&http("r", V1, method)]);
    let route = at(&resolved, NOBODY, "10.96.0.1:80");
    assert_eq!(
        (route.decision, route.lines()),
        (Decision::Direct, vec!["1 v1.shop:80 ok 10.0.0.1:8080".to_owned()]),
        "a Service is there all the same"
    );
    assert_eq!(answer(route, &asked("GET", "/")), "v2.shop:80");
    assert_eq!(answer(route, &asked("PUT", "/")), "404", "no rule, and nothing behind the rules");
}

#[test]
fn listeners_of_one_port_are_one_vip_and_the_most_specific_takes_a_host() {
    let listeners = "{name: any, port: 80, protocol: HTTP},\
                     {name: below, port: 80, protocol: HTTP, hostname: '*.example.com'},\
                     {name: exact, port: 80, protocol: HTTP, hostname: a.example.com},\
                     {name: bare, port: 80, protocol: HTTP, hostname: bare.example.com},\
                     {name: other, port: 81, protocol: HTTP}";
    let on = |section: &str| format!("{{name: edge, sectionName: {section}}}");
    let everywhere = format!("hostnames: [a.example.com, b.example.com], {}", to("v1"));
    let all = [
        http("any", &on("any"), &everywhere),
        http("below", &on("below"), &below("/b", "v2")),
        http("exact", &on("exact"), &to("v3")),
    ]
    .concat();
    let resolved = resolved(&[&edge(listeners), &all]);
    assert_eq!(errors(&resolved), [""; 0]);
    let own = resolved.vips.iter().filter(|vip| vip.key.addr.ip().to_string() == "192.0.2.10");
    let names: Vec<_> = own.map(|vip| format!("{} {}", vip.key.addr, vip.destination)).collect();
    assert_eq!(names, ["192.0.2.10:80 edge.shop/any", "192.0.2.10:81 edge.shop/other"]);
    let route = at(&resolved, NOBODY, FRONT);
    let of = |host: &str, path| answer(route, &asked("GET", path).host(host));
    assert_eq!(of("a.example.com", "/"), "v3.shop:80");
    assert_eq!(of("b.example.com", "/b"), "v2.shop:80");
    assert_eq!(of("b.example.com", "/"), "404", "the host is the other listener's");
    assert_eq!(of("bare.example.com", "/b"), "404", "its listener has no route");
    assert_eq!(of("example.com", "/"), "404", "the route of `any` is for two hosts");
    assert_eq!(answer(at(&resolved, NOBODY, "192.0.2.10:81"), &asked("GET", "/")), "404");
}

#[test]
fn a_request_is_matched_by_hostname_first() {
    let hosts = |hosts: &str, service: &str| format!("hostnames: [{hosts}], {}", to(service));
    let all = [
        http("a", EDGE, &to("v1")),
        http("b", EDGE, &hosts("'*.example.com'", "v2")),
        http("c", EDGE, &hosts("a.example.com", "v3")),
    ]
    .concat();
    let resolved = resolved(&[&edge(WEB), &all]);
    let of = |host: &str| answer(at(&resolved, NOBODY, FRONT), &asked("GET", "/").host(host));
    assert_eq!(of("x.org"), "v1.shop:80");
    assert_eq!(of("b.example.com:8080"), "v2.shop:80", "the port is none of the host");
    assert_eq!(of("a.example.com"), "v3.shop:80");
}

/// `Accepted` of the first parent of each route, by name.
fn accepted(parts: &[&str]) -> Vec<(String, ConditionReason, usize)> {
    let services = services();
    let parts: Vec<&str> = [services.as_str()].iter().chain(parts).copied().collect();
    let set = set(&parts);
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let of = |status: &crate::resolve::gateway::RouteStatus<'_>| {
        let parent = &status.parents[0];
        assert_eq!(parent.accepted.holds, !parent.points.is_empty());
        (status.route.called(), parent.accepted.reason, parent.points.len())
    };
    attached.routes.iter().map(of).collect()
}

#[test]
fn a_route_attaches_to_listeners_of_http_that_have_a_host_of_its_and_allow_it() {
    let listeners = "{name: shop, port: 80, protocol: HTTP, hostname: '*.shop.example'},\
                     {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}},\
                     {name: calls, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}},\
                     {name: tcp, port: 83, protocol: TCP}";
    let of = |section: &str, host: &str| {
        let parent = format!("{{name: edge, sectionName: {section}}}");
        let hosts =
            if host.is_empty() { String::new() } else { format!("hostnames: ['{host}'], ") };
        let route = http("r", &parent, &format!("{hosts}{}", to("v1")));
        accepted(&[&edge(listeners), &route])[0].1
    };
    use ConditionReason::{Accepted, NoMatchingListenerHostname, NotAllowedByListeners};
    assert_eq!(of("shop", ""), Accepted);
    assert_eq!(of("shop", "a.b.shop.example"), Accepted);
    assert_eq!(of("shop", "*.example"), Accepted);
    assert_eq!(of("shop", "shop.example"), NoMatchingListenerHostname);
    assert_eq!(of("shop", "*.org"), NoMatchingListenerHostname);
    assert_eq!(of("tls", "a.org"), Accepted, "TLS is another's matter, the route is attached");
    assert_eq!(of("calls", ""), NotAllowedByListeners);
    assert_eq!(of("tcp", ""), NotAllowedByListeners);
    // Of two reasons the one that the author can mend.
    let route = http("r", EDGE, &format!("hostnames: [a.org], {}", to("v1")));
    let one = edge(
        "{name: shop, port: 80, protocol: HTTP, hostname: b.org}, {name: tcp, port: 83, protocol: TCP}",
    );
    assert_eq!(accepted(&[&one, &route])[0].1, NoMatchingListenerHostname);
}

#[test]
fn of_two_kinds_for_one_host_of_a_listener_the_older_is_accepted() {
    let of = |http_at: u8, grpc_at: u8, host: &str| {
        let hosts = format!("hostnames: ['{host}'], {}", to("v2"));
        let http =
            route("HTTPRoute", "h", http_at, EDGE, &format!("hostnames: [a.b], {}", to("v1")));
        accepted(&[&edge(WEB), &http, &route("GRPCRoute", "g", grpc_at, EDGE, &hosts)])
    };
    use ConditionReason::{Accepted, Conflicted};
    let both = |grpc, http| {
        let one = |kind: &str, reason| (kind.to_owned(), reason, usize::from(reason == Accepted));
        vec![one("GRPCRoute shop/g", grpc), one("HTTPRoute shop/h", http)]
    };
    assert_eq!(of(1, 2, "a.b"), both(Conflicted, Accepted));
    assert_eq!(of(2, 1, "a.b"), both(Accepted, Conflicted));
    assert_eq!(of(1, 2, "*.b"), both(Conflicted, Accepted));
    assert_eq!(of(1, 1, "a.b"), both(Accepted, Conflicted), "g comes before h");
    assert_eq!(of(1, 2, "c.b"), both(Accepted, Accepted));
}

#[test]
fn both_kinds_stand_beside_each_other_where_their_hosts_differ() {
    let call = "hostnames: [grpc.b], rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: v2, port: 80}]}]";
    let all = [
        http("h", EDGE, &format!("hostnames: [a.b], {}", below("/a.B", "v1"))),
        route("GRPCRoute", "g", 0, EDGE, call),
    ]
    .concat();
    let resolved = resolved(&[&edge(WEB), &all]);
    let route = at(&resolved, NOBODY, FRONT);
    let of = |host: &str, path| {
        let call = asked("POST", path).host(host).header("content-type", "application/grpc");
        answer(route, &call)
    };
    assert_eq!(of("a.b", "/a.B/Get"), "v1.shop:80");
    assert_eq!(of("grpc.b", "/a.B/Get"), "v2.shop:80");
    assert_eq!(of("grpc.b", "/a.C/Get"), "grpc 12");
    assert_eq!(answer(route, &asked("GET", "/x").host("a.b")), "404");
}

#[test]
fn at_a_port_of_a_service_one_kind_alone_is_accepted() {
    let all = [
        route("TCPRoute", "t", 0, V1, &to("v3")),
        route("HTTPRoute", "h", 1, V1, &to("v2")),
        route("HTTPRoute", "i", 2, V1, &below("/i", "v3")),
    ]
    .concat();
    use ConditionReason::{Accepted, Conflicted};
    let of = |parts: &[&str]| accepted(parts).into_iter().map(|one| one.1).collect::<Vec<_>>();
    assert_eq!(of(&[&all]), [Accepted, Accepted, Conflicted]);
    let grpc = route("GRPCRoute", "g", 3, V1, &to("v2"));
    assert_eq!(of(&[&all, &grpc]), [Accepted, Conflicted, Conflicted, Conflicted]);
    let resolved = resolved(&[&all]);
    let route = at(&resolved, NOBODY, "10.96.0.1:80");
    assert_eq!(answer(route, &asked("GET", "/i/x")), "v3.shop:80");
    assert_eq!(answer(route, &asked("GET", "/")), "v2.shop:80");
    let said = resolved.messages();
    assert!(
        said.iter().any(|m| m.starts_with(
            "not accepted (Conflicted): the HTTPRoute shop/h is attached to the Service v1.shop:80"
        )),
        "{said:?}"
    );
}

#[test]
fn clients_of_a_namespace_with_a_route_of_its_own_follow_no_producers_route() {
    let client = "type: Dataplane\nmesh: default\nname: cart\nlabels: {k8s.kuma.io/namespace: data}\n\
                  networking: {address: 10.1.0.1, inbound: [{port: 80, tags: {kuma.io/service: cart}}]}\n---\n";
    let producer = http("p", V1, &format!("hostnames: [no.matter], {}", to("v2")));
    let consumer =
        http("c", "{group: '', kind: Service, name: v1, namespace: shop}", &below("/c", "far"))
            .replace("namespace: shop, creationTimestamp", "namespace: data, creationTimestamp");
    let resolved = resolved(&[client, &producer, &consumer]);
    let of = |source, path| {
        answer(at(&resolved, source, "10.96.0.1:80"), &asked("GET", path).host("v1.shop"))
    };
    assert_eq!(of(NOBODY, "/c"), "v2.shop:80", "hostnames mean nothing at a Service");
    assert_eq!(of("10.1.0.1", "/c"), "far.data:80");
    assert_eq!(of("10.1.0.1", "/"), "404");
}

#[test]
fn a_route_is_told_what_becomes_of_connections_and_what_is_in_vain() {
    let all = [
        http("a", EDGE, &to("v1")),
        route("HTTPRoute", "b", 1, EDGE, &to("v2")),
        http("c", EDGE, &format!("hostnames: [a.example.com, a.org], {}", to("v1"))),
    ]
    .concat();
    let listener = "{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'}";
    let of = |listener: &str| {
        let resolved = resolved(&[&edge(listener), &all]);
        let findings = resolved.diagnostics.iter();
        let said = findings.map(|(meta, found)| format!("{}: {}", meta.name, found.message));
        said.collect::<Vec<_>>()
    };
    assert_eq!(
        of(WEB),
        ["b: never takes a request: `spec.rules[0]` of the HTTPRoute shop/a takes all that it \
             could and goes first: its route is older, or first by name",]
    );
    let narrow = of(listener);
    assert!(
        narrow.contains(&"c: no request for a.org comes here: the listeners that are meant are for *.example.com".to_owned()),
        "{narrow:#?}"
    );
}
