use super::*;
use crate::resolve::{GATEWAY_CONTROLLER, tests::world::documents};

/// Namespaces, a Gateway `edge` of `shop` and two Services.
const WORLD: &str = "apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {team: a}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: node
  listeners:
  - {name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: TCPRoute}]}}
  - {name: redis, port: 6379, protocol: TCP}
  - {name: open, port: 7000, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
  - {name: team, port: 7001, protocol: TCP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}
  - {name: named, port: 7002, protocol: TCP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: team-b}}}}}
  - {name: tls, port: 7003, protocol: TCP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: TLSRoute}, {group: example.com, kind: TCPRoute}]}}
---
apiVersion: v1
kind: Service
metadata: {name: redis, namespace: shop}
spec: {ports: [{name: tcp, port: 6379}, {name: udp, port: 6380, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {ports: [{name: sql, port: 5432}, {name: admin, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com, ports: [{port: 5432}]}
---
";

/// A TCPRoute to `redis` of `shop` unless `backends` says otherwise.
fn route(namespace: &str, name: &str, parents: &str, backends: &str) -> String {
    let backends =
        if backends.is_empty() { "{name: redis, namespace: shop, port: 6379}" } else { backends };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{backends}]}}]}}\n---\n"
    )
}

fn condition(condition: &Condition) -> String {
    format!("{} {}", condition.holds, condition.reason)
}

/// `Accepted` of a route of a namespace with one parent, and the names of its points.
fn accepted(namespace: &str, parent: &str) -> (String, Vec<String>) {
    let set = documents(&format!("{WORLD}{}", route(namespace, "r", parent, "")));
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let status = &attached.routes[0].parents[0];
    assert_eq!(status.accepted.holds, !status.points.is_empty());
    let points = status.points.iter().map(|point| match point {
        Point::Listener { listener, .. } => (*listener).to_owned(),
        Point::Service { service, port, clients, .. } => format!("{service}:{port} {clients:?}"),
    });
    (condition(&status.accepted), points.collect())
}

#[test]
fn a_route_attaches_to_every_listener_that_takes_it() {
    let edge = "{name: edge, namespace: shop}";
    let of = |namespace| accepted(namespace, edge).1;
    assert_eq!(of("shop"), ["open", "redis"]);
    assert_eq!(of("team-a"), ["open", "team"]);
    // No document gives the labels of this one: its name is known all the same.
    assert_eq!(of("team-b"), ["named", "open"]);
    assert_eq!(accepted("shop", edge).0, "true Accepted");
}

#[test]
fn section_and_port_narrow_the_listeners() {
    let of = |rest: &str| accepted("shop", &format!("{{name: edge{rest}}}"));
    let all = |reason: &str, points: &[&str]| {
        (reason.to_owned(), points.iter().map(|point| (*point).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(of(", sectionName: redis"), all("true Accepted", &["redis"]));
    assert_eq!(of(", port: 7000"), all("true Accepted", &["open"]));
    assert_eq!(of(", sectionName: open, port: 7000"), all("true Accepted", &["open"]));
    assert_eq!(of(", sectionName: open, port: 6379"), all("false NoMatchingParent", &[]));
    assert_eq!(of(", sectionName: radis"), all("false NoMatchingParent", &[]));
    assert_eq!(of(", port: 1"), all("false NoMatchingParent", &[]));
    assert_eq!(of(", namespace: other"), all("false NoMatchingParent", &[]));
    assert_eq!(of(", sectionName: web"), all("false NotAllowedByListeners", &[]));
    assert_eq!(of(", sectionName: tls"), all("false NotAllowedByListeners", &[]));
    assert_eq!(of(", sectionName: team"), all("false NotAllowedByListeners", &[]));
    assert_eq!(of(", kind: ListenerSet"), all("false UnsupportedValue", &[]));
    assert_eq!(of(", group: '', kind: Service"), all("false NoMatchingParent", &[]));
}

#[test]
fn a_condition_says_what_is_wrong_on_which_object() {
    let set =
        documents(&format!("{WORLD}{}", route("shop", "r", "{name: edge, sectionName: tls}", "")));
    let attached = attach(&set, GATEWAY_CONTROLLER);
    assert_eq!(attached.routes[0].parents[0].accepted.message, "`tls` allows no TCPRoute");
    let set = documents(&format!("{WORLD}{}", route("shop", "r", "{name: edge, port: 1}", "")));
    let attached = attach(&set, GATEWAY_CONTROLLER);
    assert_eq!(
        attached.routes[0].parents[0].accepted.message,
        "no listener of shop/edge has the port 1"
    );
}

#[test]
fn a_route_attaches_to_the_tcp_ports_of_a_service() {
    let of = |namespace, parent: &str| {
        accepted(namespace, &format!("{{group: '', kind: Service, {parent}}}"))
    };
    assert_eq!(of("shop", "name: redis").1, ["redis:6379 None"]);
    assert_eq!(of("data", "name: db").1, ["db:5432 None", "db:8080 None"]);
    assert_eq!(of("data", "name: db, sectionName: sql").1, ["db:5432 None"]);
    assert_eq!(of("data", "name: db, port: 8080").1, ["db:8080 None"]);
    // Of another namespace: for clients of that namespace only.
    assert_eq!(of("shop", "name: db, namespace: data, port: 5432").1, ["db:5432 Some(\"shop\")"]);
    assert_eq!(of("shop", "name: redis, port: 6380").0, "false NoMatchingParent");
    assert_eq!(of("shop", "name: nobody").0, "false NoMatchingParent");
}

#[test]
fn the_oldest_of_two_routes_carries_the_connections_of_a_listener() {
    let created = |name: &str, at: &str| {
        route("shop", name, "{name: edge, sectionName: redis}", "").replace(
            "namespace: shop}\nspec",
            &format!("namespace: shop, creationTimestamp: '{at}'}}\nspec"),
        )
    };
    let order = |routes: &[String]| {
        let set = documents(&format!("{WORLD}{}", routes.concat()));
        let attached = attach(&set, GATEWAY_CONTROLLER);
        assert!(attached.routes.iter().all(|status| status.parents[0].accepted.holds));
        let point = Point::Listener { namespace: "shop", gateway: "edge", listener: "redis" };
        let names =
            attached.points[&point].iter().map(|at| attached.routes[*at].route.meta().name.clone());
        names.collect::<Vec<_>>()
    };
    let (old, new) = ("2026-03-01T10:00:00Z", "2026-03-01T10:00:01Z");
    assert_eq!(order(&[created("a", new), created("b", old)]), ["b", "a"]);
    assert_eq!(order(&[created("b", old), created("a", old)]), ["a", "b"]);
    let undated = route("shop", "z", "{name: edge, sectionName: redis}", "");
    assert_eq!(order(&[created("a", old), undated]), ["z", "a"]);
    // Two references of one route to one listener are one.
    let twice = "{name: edge, sectionName: redis, port: 6379}, {name: edge, port: 6379}";
    assert_eq!(order(&[route("shop", "twice", twice, "")]), ["twice"]);
}

/// `ResolvedRefs` of a route of `shop` on `edge`, and each backend's reason.
fn resolved_refs(backends: &str, more: &str) -> (String, Vec<String>) {
    let body = format!("{WORLD}{more}{}", route("shop", "r", "{name: edge, port: 7000}", backends));
    let set = documents(&body);
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let status = &attached.routes[0].parents[0];
    assert!(status.accepted.holds, "references do not decide about attaching");
    let reasons = status.backends.iter().map(|backend| match backend {
        Ok((service, port)) => format!("{}:{}", service.meta.name, port.port),
        Err((reason, _)) => reason.to_string(),
    });
    (condition(&status.resolved), reasons.collect())
}

#[test]
fn every_backend_is_found_or_has_its_reason() {
    for (backend, reason) in [
        ("{name: radis, port: 6379}", "BackendNotFound"),
        ("{name: redis, port: 1}", "BackendNotFound"),
        ("{name: redis, port: 6380}", "UnsupportedProtocol"),
        ("{name: pool, group: example.com, kind: Pool}", "InvalidKind"),
        ("{name: pool, kind: Pool, port: 1}", "InvalidKind"),
        ("{name: outside, port: 5432}", "InvalidKind"),
        ("{name: db, namespace: data, port: 5432}", "RefNotPermitted"),
        // What is in a namespace that is not open is nobody's business.
        ("{name: nobody, namespace: data, port: 5432}", "RefNotPermitted"),
    ] {
        let (condition, reasons) =
            resolved_refs(&format!("{{name: redis, port: 6379}}, {backend}"), "");
        assert_eq!(condition, format!("false {reason}"), "{backend}");
        assert_eq!(reasons, ["redis:6379", reason], "{backend}");
    }
    let (condition, reasons) = resolved_refs("{name: redis, port: 6379}", "");
    assert_eq!(
        (condition.as_str(), reasons.as_slice()),
        ("true ResolvedRefs", ["redis:6379".to_owned()].as_slice())
    );
}

#[test]
fn the_condition_has_the_first_reason_and_every_message() {
    let body = route(
        "shop",
        "r",
        "{name: edge, port: 7000}",
        "{name: a, port: 1}, {name: b, kind: Pool, port: 1}",
    );
    let set = documents(&format!("{WORLD}{body}"));
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let resolved = &attached.routes[0].parents[0].resolved;
    assert_eq!(resolved.reason, ConditionReason::BackendNotFound);
    assert_eq!(
        resolved.message,
        "there is no Service shop/a; connections do not go to a Pool of the group ''"
    );
}

#[test]
fn a_grant_opens_what_it_names_to_whom_it_names() {
    let grant = |from: &str, to: &str, namespace: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
             spec: {{from: [{{{from}}}], to: [{{{to}}}]}}\n---\n"
        )
    };
    let shop = "group: gateway.networking.k8s.io, kind: TCPRoute, namespace: shop";
    let service = "group: '', kind: Service";
    let db = "{name: db, namespace: data, port: 5432}";
    let with =
        |from: &str, to: &str, namespace: &str| resolved_refs(db, &grant(from, to, namespace)).0;
    assert_eq!(with(shop, service, "data"), "true ResolvedRefs");
    assert_eq!(with(shop, "group: '', kind: Service, name: db", "data"), "true ResolvedRefs");
    let refused = "false RefNotPermitted";
    assert_eq!(with(shop, "group: '', kind: Service, name: other", "data"), refused);
    assert_eq!(with(shop, "group: '', kind: Secret", "data"), refused);
    assert_eq!(with(shop, "group: example.com, kind: Service", "data"), refused);
    assert_eq!(with(shop, service, "shop"), refused);
    let other = shop.replace("namespace: shop", "namespace: other");
    assert_eq!(with(&other, service, "data"), refused);
    assert_eq!(with(&shop.replace("TCPRoute", "HTTPRoute"), service, "data"), refused);
}

#[test]
fn a_route_on_a_service_needs_no_grant() {
    let parents = "{name: edge, port: 7000}, {group: '', kind: Service, name: redis}";
    let body = route("shop", "r", parents, "{name: db, namespace: data, port: 5432}");
    let set = documents(&format!("{WORLD}{body}"));
    let attached = attach(&set, GATEWAY_CONTROLLER);
    let reasons: Vec<_> =
        attached.routes[0].parents.iter().map(|status| condition(&status.resolved)).collect();
    assert_eq!(reasons, ["false RefNotPermitted", "true ResolvedRefs"]);
}

#[test]
fn a_gateway_of_another_controllers_class_is_left_to_it() {
    let class = |controller: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: node}}\n\
             spec: {{controllerName: {controller}}}\n---\n"
        )
    };
    let of = |class: &str| {
        let body = route(
            "shop",
            "r",
            "{name: edge, port: 7000}, {group: '', kind: Service, name: redis}",
            "",
        );
        let set = documents(&format!("{WORLD}{class}{body}"));
        let attached = attach(&set, GATEWAY_CONTROLLER);
        (attached.gateways.len(), attached.foreign.len(), attached.routes[0].parents.len())
    };
    assert_eq!(of(""), (1, 0, 2), "nobody says whose the class is");
    assert_eq!(of(&class(GATEWAY_CONTROLLER)), (1, 0, 2));
    assert_eq!(of(&class("example.com/other")), (0, 1, 1));
    assert_eq!(of(&class("example.com/other").replace("name: node", "name: another")), (1, 0, 2));
}
