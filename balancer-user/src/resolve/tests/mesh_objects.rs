//! MeshService, MeshExternalService, MeshMultiZoneService and ExternalService: their endpoints,
//! their VIPs, and what is said about them.

use std::num::NonZeroU16;

use super::world::{documents, settings};
use crate::{
    policy::{PolicySet, ServiceKind, Severity},
    resolve::{
        Destination, DestinationKind, Names, ResolveSettings, Resolved, VipOrigin, VipOwner,
        resolve,
    },
};

/// Three workloads of `backend`: v1 and v2 in zone east, v2 in zone west.
const BACKENDS: &str = "
type: Dataplane
mesh: default
name: one
networking:
  address: 10.0.0.1
  inbound:
  - {port: 8080, name: main, tags: {kuma.io/service: backend, version: v1, kuma.io/zone: east}}
  - {port: 9090, name: admin, tags: {kuma.io/service: backend-admin, kuma.io/zone: east}}
---
type: Dataplane
mesh: default
name: two
labels: {app: backend}
networking:
  address: 10.0.0.2
  inbound:
  - {port: 8080, name: main, tags: {kuma.io/service: backend, version: v2, kuma.io/zone: east}}
---
type: Dataplane
mesh: default
name: three
labels: {app: backend}
networking:
  address: 10.0.0.3
  inbound:
  - {port: 8080, name: main, tags: {kuma.io/service: backend, version: v2, kuma.io/zone: west}}
";

fn world(more: &str) -> PolicySet {
    documents(&format!("{BACKENDS}---\n{more}"))
}

fn in_zone(zone: &str) -> ResolveSettings {
    ResolveSettings { zone: Some(zone.to_owned()), ..settings() }
}

fn mesh_service(name: &str, spec: &str) -> String {
    format!("type: MeshService\nmesh: default\nname: {name}\nspec: {spec}\n")
}

/// The route of everybody to a destination by its text.
fn lines(resolved: &Resolved, destination: &str) -> Vec<String> {
    let vips = resolved.vips_of(destination);
    assert!(!vips.is_empty(), "{destination} has no VIP; {:?}", resolved.messages());
    resolved.routes[vips[0].route].lines()
}

fn addresses(resolved: &Resolved, destination: &str) -> Vec<String> {
    resolved.vips_of(destination).iter().map(|vip| vip.key.addr.to_string()).collect()
}

fn resolved(more: &str) -> Resolved {
    resolve(&world(more), &settings())
}

#[test]
fn each_form_of_selector_finds_its_dataplanes() {
    for (selector, reals) in [
        (
            "{dataplaneTags: {kuma.io/service: backend}}",
            "10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080",
        ),
        ("{dataplaneTags: {kuma.io/service: backend, version: v2}}", "10.0.0.2:8080 10.0.0.3:8080"),
        ("{dataplaneTags: {kuma.io/zone: west}}", "10.0.0.3:8080"),
        ("{dataplaneLabels: {matchLabels: {app: backend}}}", "10.0.0.2:8080 10.0.0.3:8080"),
        ("{dataplaneRef: {name: two}}", "10.0.0.2:8080"),
    ] {
        let spec = format!("{{selector: {selector}, ports: [{{port: 80, targetPort: 8080}}]}}");
        let resolved = resolved(&mesh_service("web", &spec));
        assert_eq!(lines(&resolved, "web:80"), [format!("1 web:80 ok {reals}")], "{selector}");
        assert!(resolved.messages().is_empty(), "{selector}: {:?}", resolved.messages());
    }
}

#[test]
fn selected_dataplane_offers_every_inbound_that_a_port_targets() {
    let spec = "{selector: {dataplaneTags: {version: v1}}, ports: [\
                {port: 80, targetPort: main}, {port: 81, targetPort: 9090}, {port: 82, targetPort: admin}]}";
    let resolved = resolved(&mesh_service("web", spec));
    assert_eq!(lines(&resolved, "web:80"), ["1 web:80 ok 10.0.0.1:8080"]);
    assert_eq!(
        lines(&resolved, "web:81"),
        ["1 web:81 ok 10.0.0.1:9090"],
        "though that inbound has not the tag by which another selects the Dataplane"
    );
    assert_eq!(lines(&resolved, "web:82"), ["1 web:82 ok 10.0.0.1:9090"]);
}

#[test]
fn port_without_a_target_and_a_service_without_a_selector_have_no_endpoint() {
    let one = mesh_service(
        "one",
        "{selector: {dataplaneTags: {kuma.io/service: backend}}, ports: [{port: 80}]}",
    );
    let two = mesh_service("two", "{ports: [{port: 80, targetPort: 8080}]}");
    let resolved = resolved(&format!("{one}---\n{two}"));
    assert_eq!(lines(&resolved, "one:80"), ["1 one:80 empty"]);
    assert_eq!(lines(&resolved, "two:80"), ["1 two:80 empty"]);
}

#[test]
fn selectors_and_targets_that_lead_nowhere_are_said_at_their_fields() {
    let of = |name: &str, selector: &str, target: &str| {
        let ports = format!("ports: [{{port: 80, targetPort: {target}}}]");
        mesh_service(name, &format!("{{selector: {selector}, {ports}}}"))
    };
    let documents = [
        of("a", "{dataplaneTags: {kuma.io/service: backen}}", "8080"),
        of("b", "{dataplaneRef: {name: thre}}", "8080"),
        of("c", "{dataplaneLabels: {matchLabels: {app: web}}}", "8080"),
        of("d", "{dataplaneTags: {kuma.io/service: backend}}", "8081"),
        of("e", "{dataplaneTags: {kuma.io/service: backend}}", "mein"),
    ];
    let resolved = resolved(&documents.join("---\n"));
    let said: Vec<_> = resolved
        .diagnostics
        .iter()
        .map(|(meta, found)| {
            assert!(found.span.is_some(), "{}", found.message);
            (&*meta.name, &*found.field, found.hint.as_deref().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        said,
        [
            ("a", "spec.selector.dataplaneTags", ""),
            ("b", "spec.selector.dataplaneRef.name", "did you mean three"),
            ("c", "spec.selector.dataplaneLabels.matchLabels", ""),
            ("d", "spec.ports[0].targetPort", "their inbounds have 8080, 9090"),
            ("e", "spec.ports[0].targetPort", "their inbounds have admin, main"),
        ]
    );
}

#[test]
fn own_zone_goes_first_for_objects_in_every_mesh() {
    let spec = "{selector: {dataplaneTags: {kuma.io/service: backend}}, ports: [{port: 80, targetPort: 8080}]}";
    let world = world(&mesh_service("web", spec));
    let west = resolve(&world, &in_zone("west"));
    assert_eq!(lines(&west, "web:80"), ["1 web:80 ok 10.0.0.3:8080"]);
    assert_eq!(
        lines(&west, "backend"),
        ["1 backend ok 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080"],
        "a service by its tag goes by its Mesh"
    );
    let north = resolve(&world, &in_zone("north"));
    assert_eq!(
        lines(&north, "web:80"),
        ["1 web:80 ok 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080"],
        "other zones step in where this one has none"
    );
}

#[test]
fn multi_zone_service_joins_the_services_with_its_labels_on_the_same_port() {
    let of = |name: &str, zone: &str, dataplane: &str, more: &str| {
        format!(
            "type: MeshService\nmesh: default\nname: {name}\nlabels: {{kuma.io/display-name: \
             backend, kuma.io/zone: {zone}}}\nspec: {{selector: {{dataplaneRef: {{name: \
             {dataplane}}}}}, ports: [{{port: 80, targetPort: 8080}}, {{port: 90, targetPort: \
             9090}}]{more}}}\n"
        )
    };
    let multi = "type: MeshMultiZoneService\nmesh: default\nname: all\nspec: {selector: \
                 {meshService: {matchLabels: {kuma.io/display-name: backend}}}, ports: [{port: \
                 80}]}\n";
    let world = |state: &str| {
        let west = of("backend-west", "west", "three", state);
        world(&[of("backend-east", "east", "one", ""), west, multi.to_owned()].join("---\n"))
    };
    let both = "1 all:80 ok 10.0.0.1:8080 10.0.0.3:8080";
    assert_eq!(
        lines(&resolve(&world(", state: Available"), &settings()), "all:80"),
        [both],
        "a node without a zone prefers none"
    );
    let east = in_zone("east");
    let set = world(", state: Available");
    assert_eq!(lines(&resolve(&set, &east), "all:80"), ["1 all:80 ok 10.0.0.1:8080"]);
    assert_eq!(lines(&resolve(&set, &in_zone("west")), "all:80"), ["1 all:80 ok 10.0.0.3:8080"]);
    let north = in_zone("north");
    assert_eq!(
        lines(&resolve(&set, &north), "all:80"),
        ["1 all:80 ok 10.0.0.3:8080"],
        "of remote ones only those that are available"
    );
    assert_eq!(lines(&resolve(&world(""), &north), "all:80"), ["1 all:80 empty"]);
}

#[test]
fn multi_zone_service_that_joins_nothing_says_so() {
    let of = |name: &str, label: &str, port: u16| {
        format!(
            "type: MeshMultiZoneService\nmesh: default\nname: {name}\nspec: {{selector: \
             {{meshService: {{matchLabels: {{kuma.io/display-name: {label}}}}}}}, ports: [{{port: \
             {port}}}]}}\n"
        )
    };
    let spec = "{selector: {dataplaneRef: {name: one}}, ports: [{port: 80, targetPort: 8080}]}";
    let documents = [mesh_service("backend", spec), of("a", "gone", 80), of("b", "backend", 81)];
    let resolved = resolved(&documents.join("---\n"));
    let said: Vec<_> = resolved
        .diagnostics
        .iter()
        .map(|(meta, found)| (&*meta.name, &*found.field, found.hint.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        said,
        [
            ("a", "spec.selector.meshService.matchLabels", ""),
            ("b", "spec.ports[0]", "they have 80"),
        ]
    );
}

fn weather(spec: &str) -> String {
    format!("type: MeshExternalService\nmesh: default\nname: weather\nspec: {spec}\n")
}

#[test]
fn external_service_uses_the_smallest_priority_that_is_there() {
    let spec = "{match: {port: 443}, endpoints: [{address: 192.0.2.2, port: 8443, priority: 1}, \
                {address: 192.0.2.1, port: 8443}, {address: '2001:db8::1', port: 443}]}";
    let resolved = resolved(&weather(spec));
    let vips = addresses(&resolved, "weather:443");
    assert_eq!(vips.len(), 2, "one for each family: {vips:?}");
    assert_eq!(lines(&resolved, "weather:443"), ["1 weather:443 ok 192.0.2.1:8443"]);
    let six = &resolved.routes[resolved.vips_of("weather:443")[1].route];
    assert_eq!(six.lines(), ["1 weather:443 ok [2001:db8::1]:443"]);
}

#[test]
fn host_names_are_what_the_answers_say() {
    let spec = "{match: {port: 443}, endpoints: [{address: API.example.com, port: 443}, \
                {address: gone.example.com, port: 443}, {address: old.example.com, port: 443}]}";
    let world = world(&weather(spec));
    let mut names = Names::default();
    let hundred = (1..=100_u8).map(|n| [192, 0, 2, n].into());
    names.insert("api.example.com", hundred, None);
    names.insert("gone.example.com", [], Some("no such host".to_owned()));
    let kept = "203.0.113.9".parse().unwrap();
    names.insert("old.example.com", [kept], Some("timed out".to_owned()));
    let answered = resolve(&world, &ResolveSettings { names, ..settings() });
    let reals = &answered.routes[answered.vips_of("weather:443")[0].route].backends[0].reals;
    assert_eq!(reals.len(), 101);
    assert_eq!(
        answered.messages(),
        [
            "name `gone.example.com` did not resolve: no such host; this endpoint takes no \
             connections",
            "name `old.example.com` did not resolve: timed out; its last answer is kept: \
             203.0.113.9"
        ]
    );
    let unasked = resolve(&world, &settings());
    assert_eq!(lines(&unasked, "weather:443"), ["1 weather:443 empty"]);
    assert!(unasked.messages().is_empty(), "who does not ask says nothing about answers");
    assert_eq!(
        addresses(&unasked, "weather:443"),
        addresses(&answered, "weather:443"),
        "the VIP does not wait for an answer"
    );
}

#[test]
fn dataplane_may_be_named() {
    let set = documents(
        "type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: web.example.com\n  \
         inbound:\n  - {port: 80, tags: {kuma.io/service: web}}\n",
    );
    let mut names = Names::default();
    names.insert("web.example.com", ["10.0.0.9".parse().unwrap()], None);
    let resolved = resolve(&set, &ResolveSettings { names, ..settings() });
    assert_eq!(lines(&resolved, "web"), ["1 web ok 10.0.0.9:80"]);
    assert_eq!(resolved.sources[0].address.to_string(), "10.0.0.9");
    let unasked = resolve(&set, &settings());
    assert!(unasked.sources.is_empty());
    assert_eq!(lines(&unasked, "web"), ["1 web empty"]);
}

#[test]
fn tls_is_refused_unless_plain_bytes_are_allowed() {
    let spec = "{match: {port: 443}, endpoints: [{address: 192.0.2.1, port: 443}], tls: \
                {enabled: true}}";
    let by_tag = |name: &str, address: &str, tls: &str| {
        format!(
            "type: ExternalService\nmesh: default\nname: {name}\ntags: {{kuma.io/service: pay, \
             version: {name}}}\nnetworking: {{address: '{address}:443'{tls}}}\n"
        )
    };
    let documents = [
        weather(spec),
        by_tag("plain", "192.0.2.7", ""),
        by_tag("secret", "192.0.2.8", ", tls: {enabled: true}"),
    ];
    let world = world(&documents.join("---\n"));
    let refused = resolve(&world, &settings());
    assert_eq!(lines(&refused, "weather:443"), ["1 weather:443 invalid"]);
    assert_eq!(lines(&refused, "pay"), ["1 pay ok 192.0.2.7:443"]);
    let said: Vec<_> = refused.diagnostics.iter().map(|(m, f)| (&*m.name, &*f.field)).collect();
    assert_eq!(said, [("secret", "networking.tls.enabled"), ("weather", "spec.tls.enabled")]);
    assert!(refused.messages()[0].ends_with("connections to them are refused"));

    let allowed = resolve(&world, &ResolveSettings { allow_plain: true, ..settings() });
    assert_eq!(lines(&allowed, "weather:443"), ["1 weather:443 ok 192.0.2.1:443"]);
    assert_eq!(lines(&allowed, "pay"), ["1 pay ok 192.0.2.7:443 192.0.2.8:443"]);
    assert_eq!(allowed.messages().len(), 2, "it is still said: {:?}", allowed.messages());
}

#[test]
fn external_services_are_endpoints_that_splits_tell_apart() {
    let set = world(
        "type: ExternalService\nmesh: default\nname: one\ntags: {kuma.io/service: pay, version: \
         v3}\nnetworking: {address: '192.0.2.7:443'}\n---\ntype: ExternalService\nmesh: \
         default\nname: two\ntags: {kuma.io/service: pay, version: v4}\nnetworking: {address: \
         '192.0.2.8:8443'}\n---\ntype: TrafficRoute\nmesh: default\nname: out\nsources: [{match: \
         {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: backend}}]\nconf:\n  \
         split:\n  - {weight: 9, destination: {kuma.io/service: backend}}\n  - {weight: 1, \
         destination: {kuma.io/service: pay, version: v4}}\n",
    );
    let resolved = resolve(&set, &settings());
    assert_eq!(lines(&resolved, "pay"), ["1 pay ok 192.0.2.7:443 192.0.2.8:8443"]);
    assert_eq!(lines(&resolved, "backend")[1], "1 pay,version=v4 ok 192.0.2.8:8443");
    assert_eq!(resolved.vips_of("pay").len(), 2, "one VIP with the port of each endpoint");
}

#[test]
fn control_planes_vips_are_dialled_and_the_rest_allocated() {
    let with = "type: MeshService\nmesh: default\nname: web\nspec: {selector: {dataplaneRef: \
                {name: one}}, ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: \
                9090}]}\nstatus: {vips: [{ip: 241.0.0.4}]}\n";
    let without = mesh_service(
        "api",
        "{selector: {dataplaneRef: {name: one}}, ports: [{port: 80, targetPort: 8080}, {port: \
         81, targetPort: 9090}]}",
    );
    let resolved = resolved(&format!("{with}---\n{without}"));
    assert_eq!(addresses(&resolved, "web:80"), ["241.0.0.4:80"]);
    assert_eq!(addresses(&resolved, "web:81"), ["241.0.0.4:81"]);
    assert_eq!(resolved.vips_of("web:80")[0].origin, VipOrigin::Status);
    let ips: Vec<_> = ["api:80", "api:81"]
        .iter()
        .map(|destination| resolved.vips_of(destination)[0].key.addr.ip())
        .collect();
    assert_eq!(ips[0], ips[1], "all ports of an object have one address");
    assert_eq!(resolved.vips_of("api:80")[0].origin, VipOrigin::Allocated);
    let owner = VipOwner { kind: DestinationKind::MeshService, ..VipOwner::tags("default", "api") };
    assert_eq!(resolved.assigned[&owner].v4.map(Into::into), Some(ips[0]));
    assert!(!resolved.assigned.keys().any(|owner| &*owner.name == "web"));
}

fn caller(outbound: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: caller\nnetworking:\n  address: 10.0.0.20\n  \
         inbound: [{{port: 80, tags: {{kuma.io/service: caller}}}}]\n  outbound:\n  - {outbound}\n"
    )
}

const WEB: &str = "type: MeshService\nmesh: default\nname: web\nspec: {selector: {dataplaneRef: \
                   {name: one}}, ports: [{port: 80, targetPort: 8080, name: main}, {port: 81, \
                   targetPort: 9090}]}\n---\n";

#[test]
fn referring_outbound_gives_a_port_its_address() {
    let outbound =
        "{address: 240.9.9.9, port: 3001, backendRef: {kind: MeshService, name: web, port: 80}}";
    let resolved = resolved(&format!("{WEB}{}", caller(outbound)));
    assert_eq!(addresses(&resolved, "web:80"), ["240.9.9.9:3001"]);
    assert_eq!(lines(&resolved, "web:80"), ["1 web:80 ok 10.0.0.1:8080"]);
    let other = addresses(&resolved, "web:81");
    assert!(other[0].starts_with("240.") && other[0].ends_with(":81"), "{other:?}");
}

#[test]
fn referring_outbounds_that_mean_nothing_are_said_with_what_they_could_mean() {
    for (reference, message, hint) in [
        (
            "{kind: MeshService, name: wep, port: 80}",
            "no MeshService of mesh default is named `wep`: this outbound has no effect",
            "did you mean web",
        ),
        (
            "{kind: MeshService, name: web, port: 82}",
            "MeshService `web` has no port 82: this outbound has no effect",
            "it has main (80), 81",
        ),
        (
            "{kind: MeshExternalService, name: web}",
            "no MeshExternalService of mesh default is named `web`: this outbound has no effect",
            "",
        ),
        (
            "{kind: MeshService, labels: {app: x}, port: 80}",
            "no MeshService of mesh default has the labels app=x: this outbound has no effect",
            "",
        ),
    ] {
        let outbound = format!("{{address: 240.9.9.9, port: 3001, backendRef: {reference}}}");
        let resolved = resolved(&format!("{WEB}{}", caller(&outbound)));
        let (meta, found) = &resolved.diagnostics[0];
        assert_eq!(meta.name, "caller");
        assert_eq!(found.field, "networking.outbound[0].backendRef");
        assert_eq!(found.message, message);
        assert_eq!(found.hint.as_deref().unwrap_or(""), hint);
        assert!(found.span.is_some());
        assert!(resolved.vips.iter().all(|vip| vip.key.addr.port() != 3001));
    }
}

#[test]
fn referring_outbound_on_loopback_is_reported_and_the_vip_serves() {
    let outbound = "{port: 3001, backendRef: {kind: MeshService, name: web, port: 80}}";
    let resolved = resolved(&format!("{WEB}{}", caller(outbound)));
    let vip = &addresses(&resolved, "web:80")[0];
    let message = resolved.messages()[0];
    assert!(message.contains("127.0.0.1:3001 is not carried out (needs the socket hook)"));
    assert!(message.ends_with(&format!("the VIP of MeshService `web:80` serves instead: {vip}")));
}

#[test]
fn one_address_for_two_things_names_both_places() {
    let status = WEB.replace("---\n", "status: {vips: [{ip: 240.9.9.9}]}\n---\n");
    let outbound = "{address: 240.9.9.9, port: 80, tags: {kuma.io/service: backend}}";
    let resolved = resolved(&format!("{status}{}", caller(outbound)));
    let errors: Vec<_> = resolved
        .diagnostics
        .iter()
        .filter(|(_, found)| found.severity == Severity::Error)
        .collect();
    assert_eq!(errors.len(), 2, "{:?}", resolved.messages());
    let (meta, found) = errors[1];
    assert_eq!((meta.kind, &*found.field), ("MeshService", "status.vips"));
    assert!(
        found.message.contains("for MeshService `web:80` of mesh default here")
            && found.message.contains("service `backend` of mesh default by Dataplane caller ("),
        "{}",
        found.message
    );
}

#[test]
fn vip_of_a_status_that_nobody_can_dial_or_that_is_a_real_is_refused() {
    for (address, message) in [
        ("0.0.0.0", "0.0.0.0 is the unspecified address, which nobody can dial"),
        ("127.0.0.1", "127.0.0.1 is a loopback address, which nobody can dial"),
        ("224.0.0.1", "224.0.0.1 is a multicast address, which nobody can dial"),
        ("192.0.2.1", "is also what endpoint 0 of MeshExternalService weather is dialled at"),
    ] {
        let status = WEB.replace("---\n", &format!("status: {{vips: [{{ip: {address}}}]}}\n---\n"));
        let endpoint = "{match: {port: 443}, endpoints: [{address: 192.0.2.1, port: 80}]}";
        let resolved = resolved(&format!("{status}{}", weather(endpoint)));
        let found = resolved.diagnostics.iter().find(|(_, f)| f.severity == Severity::Error);
        let (meta, found) = found.unwrap_or_else(|| panic!("{address} was accepted"));
        assert_eq!((&*meta.name, &*found.field), ("web", "status.vips"));
        assert!(found.message.contains(message), "{}", found.message);
    }
}

#[test]
fn services_of_two_kinds_and_one_name_have_addresses_of_their_own() {
    let spec = "{selector: {dataplaneTags: {kuma.io/service: backend}}, ports: [{port: 8080, targetPort: 8080}]}";
    let resolved = resolved(&mesh_service("backend", spec));
    let port = NonZeroU16::new(8080).unwrap();
    let object = Destination::port("default", ServiceKind::MeshService, "backend", port);
    let of = |destination: &Destination| {
        resolved.vips.iter().find(|vip| vip.destination == *destination).unwrap().key.addr
    };
    assert_ne!(of(&object).ip(), of(&Destination::tags("default", "backend")).ip());
}
