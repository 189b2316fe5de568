//! Resources of every kind, as files, and what operators change of them.

use std::{fs, net::Ipv4Addr, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use balancer_user::{compile::Limits, kernel};
use harness::{Bpffs, Root};

use crate::{
    measure::Measure,
    memory,
    node::{Load, Node, Took, of_changes},
    one::show,
    set::Files,
};

/// What the set is called among the sizes.
pub(crate) const NAME: &str = "mixed";

/// Resources of the set.
const RESOURCES: usize = 100_000;

/// Workloads, Services and their slices in one file.
const EXPORTED: usize = 2000;
/// Policies in one file.
const WRITTEN: usize = 4;

/// Services of the mesh by their tag. The first have a TrafficRoute, the next a MeshHTTPRoute, the
/// last a MeshTCPRoute.
const SERVICES: usize = 6000;
const TRAFFIC: usize = 4000;
const MESH_HTTP: usize = 1500;
/// Services with a MeshLoadBalancingStrategy, of those with a MeshHTTPRoute.
const STRATEGIES: usize = 500;
const MESH_SERVICES: usize = 3000;
const EXTERNAL: usize = 500;
const MULTI_ZONE: usize = 500;
/// Services of Kubernetes, each with an EndpointSlice. Routes lead to the two halves.
const KUBERNETES: usize = 8000;
const NAMESPACES: usize = 100;
/// One for each namespace.
const HTTP_AT_GATEWAYS: usize = 3000;
const HTTP_AT_SERVICES: usize = 1000;
const GRPC: usize = 500;

/// What is done to one resource, and undone.
struct Change {
    /// For the measure's name.
    name: &'static str,
    /// What is in the document of the `n`th resource that can be changed so, and in no other.
    document: fn(usize) -> String,
    /// How many of them there are.
    among: usize,
    /// What stands first behind that in the document, and what takes its place; nothing: the
    /// document goes, and comes again.
    text: Option<(&'static str, &'static str)>,
}

/// Every change that is measured.
const CHANGES: [Change; 9] = [
    Change {
        name: "mesh_http_route.weight",
        document: |n| format!("\nname: mesh-http-{:06}\n", TRAFFIC + n),
        among: MESH_HTTP,
        text: Some(("weight: 90", "weight: 80")),
    },
    Change {
        name: "mesh_http_route.path",
        document: |n| format!("\nname: mesh-http-{:06}\n", TRAFFIC + n),
        among: MESH_HTTP,
        text: Some(("value: /api", "value: /other")),
    },
    Change {
        name: "traffic_route.weight",
        document: |n| format!("\nname: traffic-{:06}\n", 4 * n),
        among: TRAFFIC / 4,
        text: Some(("weight: 90", "weight: 80")),
    },
    Change {
        name: "traffic_route.header",
        document: |n| format!("\nname: traffic-{:06}\n", 4 * n),
        among: TRAFFIC / 4,
        text: Some(("value: before", "value: after")),
    },
    Change {
        name: "http_route.weight",
        document: |n| format!("{{name: web-{n:06}, "),
        among: HTTP_AT_GATEWAYS,
        text: Some(("weight: 90", "weight: 80")),
    },
    Change {
        name: "http_route.path",
        document: |n| format!("{{name: web-{n:06}, "),
        among: HTTP_AT_GATEWAYS,
        text: Some(("value: /api", "value: /other")),
    },
    Change {
        name: "http_route.of_service.path",
        document: |n| format!("{{name: own-{n:06}, "),
        among: HTTP_AT_SERVICES,
        text: Some(("value: /api", "value: /other")),
    },
    Change {
        name: "endpoint_slice.ready",
        document: |n| format!("{{name: kube-{n:06}-1, "),
        among: KUBERNETES,
        text: Some(("ready: true", "ready: false")),
    },
    Change {
        name: "dataplane",
        // The first sources of classes stand at the beginning; without them classes are others.
        document: |n| format!("\nname: dataplane-{:06}\n", 10_000 + n),
        among: RESOURCES / 2,
        text: None,
    },
];

/// Loads the set, and makes each change so many times.
pub(crate) fn measures(root: Root, times: usize) -> Result<Vec<Measure>> {
    let home = tempfile::tempdir().context("no temporary directory")?;
    let (files, state) = (home.path().join("policies"), home.path().join("state"));
    fs::create_dir(&files)?;
    write(&files)?;
    let bpffs = Bpffs::mount(root, "bench")?;
    let lock = kernel::lock(&bpffs.pins())?;
    let (mut node, load) = Load::new(&files, &state, &lock, limits())?;
    let mut measures = load.measures(NAME);
    for change in &CHANGES {
        let mut took = Vec::new();
        let mut name = format!("change.{NAME}.{}", change.name);
        for number in 0..times {
            took.extend(made(&mut node, change, number * 7919 % change.among)?);
            if !took.iter().all(|one| one.by_difference) {
                name += ".whole";
                break;
            }
        }
        measures.extend(of_changes(&name, &took));
    }
    measures.push(Measure::new(format!("show.{NAME}"), "ms", &show(&bpffs.pins(), &state)?));
    measures.extend(memory::measures(&node, NAME)?);
    Ok(measures)
}

/// Makes a change of the `n`th resource, and undoes it.
fn made(node: &mut Node, change: &Change, n: usize) -> Result<[Took; 2]> {
    let mark = (change.document)(n);
    let mut places =
        (0..node.texts.len()).filter_map(|at| Some((at, node.texts[at].text.find(&mark)?)));
    let (at, place) = places.next().with_context(|| format!("nothing is named {mark}"))?;
    let before: Arc<str> = (*node.texts[at].text).into();
    let after = match change.text {
        Some((from, to)) => {
            let place = place + before[place..].find(from).context("no such text there")?;
            format!("{}{to}{}", &before[..place], &before[place + from.len()..])
        }
        None => {
            // All that stand below it move.
            let begin = before[..place].rfind("---\n").map_or(0, |at| at + 4);
            let end = before[place..].find("---\n").map_or(before.len(), |end| place + end);
            format!("{}{}", &before[..begin], &before[end..])
        }
    };
    Ok([node.turn(at, after.into(), false)?, node.turn(at, before, false)?])
}

/// Writes the set.
fn write(dir: &Path) -> Result<()> {
    let mut count = 0;
    let mut written = Files::new(dir, "policies", WRITTEN);
    let mut exported = Files::new(dir, "export", EXPORTED);
    for n in 0..NAMESPACES {
        count += 4;
        exported
            .add(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{n:03}}}\n"))?;
        // Every grant lets routes of the next namespace come.
        exported.add(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: \
             grant, namespace: ns-{n:03}}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, \
             kind: HTTPRoute, namespace: ns-{:03}}}]\n  to: [{{group: '', kind: Service}}]\n",
            (n + 1) % NAMESPACES
        ))?;
        written.add(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, \
             namespace: ns-{n:03}}}\nspec:\n  gatewayClassName: node\n  addresses: [{{value: \
             198.51.100.{n}}}]\n  listeners:\n  - {{name: web, port: 80, protocol: HTTP}}\n  - \
             {{name: tcp, port: 81, protocol: TCP}}\n"
        ))?;
        written.add(&route("TCPRoute", "tcp", n, "{name: edge, sectionName: tcp}", "", ""))?;
    }
    written.add(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: node}\n\
         spec: {controllerName: balancer.local/node-agent}\n",
    )?;
    written.add("type: Mesh\nname: default\n")?;
    let path = "\n    matches: [{path: {type: PathPrefix, value: /api}}]";
    for n in 0..HTTP_AT_GATEWAYS {
        let host = format!("\n  hostnames: [host-{n}.example.com]");
        written.add(&route(
            "HTTPRoute",
            "web",
            n,
            "{name: edge, sectionName: web}",
            &host,
            path,
        ))?;
    }
    for n in 0..HTTP_AT_SERVICES {
        let to = format!("{{group: '', kind: Service, name: kube-{n:06}}}");
        written.add(&route("HTTPRoute", "own", n, &to, "", path))?;
    }
    for n in HTTP_AT_SERVICES..HTTP_AT_SERVICES + GRPC {
        let to = format!("{{group: '', kind: Service, name: kube-{n:06}}}");
        let method = "\n    matches: [{method: {service: shop.Catalog}}]";
        written.add(&route("GRPCRoute", "call", n, &to, "", method))?;
    }
    count += 2 + HTTP_AT_GATEWAYS + HTTP_AT_SERVICES + GRPC;
    for n in 0..KUBERNETES {
        kubernetes(n, &mut exported)?;
    }
    count += 2 * KUBERNETES;
    for n in 0..SERVICES {
        policy(n, &mut written)?;
    }
    for n in 0..STRATEGIES {
        written.add(&format!(
            "type: MeshLoadBalancingStrategy\nmesh: default\nname: strategy-{n:06}\nspec:\n  \
             targetRef: {{kind: Mesh}}\n  to:\n  - targetRef: {{kind: MeshService, name: \
             service-{:06}}}\n    default:\n      loadBalancer: {{type: RoundRobin}}\n",
            TRAFFIC + n
        ))?;
    }
    count += SERVICES + STRATEGIES;
    for n in 0..MESH_SERVICES {
        written.add(&format!(
            "type: MeshService\nmesh: default\nname: mesh-service-{n:06}\nlabels: \
             {{kuma.io/display-name: shown-{:06}}}\nspec:\n  selector: {{dataplaneTags: \
             {{kuma.io/service: service-{n:06}}}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n",
            n % MULTI_ZONE
        ))?;
    }
    for n in 0..MULTI_ZONE {
        written.add(&format!(
            "type: MeshMultiZoneService\nmesh: default\nname: zones-{n:06}\nspec:\n  selector: \
             {{meshService: {{matchLabels: {{kuma.io/display-name: shown-{n:06}}}}}}}\n  ports: \
             [{{port: 80}}]\n"
        ))?;
    }
    for n in 0..EXTERNAL {
        let (third, last) = (n / 200, n % 200 + 1);
        written.add(&format!(
            "type: MeshExternalService\nmesh: default\nname: external-{n:06}\nspec:\n  match: \
             {{type: HostnameGenerator, port: 443, protocol: tcp}}\n  endpoints:\n  - {{address: \
             203.0.{third}.{last}, port: 443}}\n"
        ))?;
    }
    count += MESH_SERVICES + MULTI_ZONE + EXTERNAL;
    for n in 0..RESOURCES - count {
        let address = Ipv4Addr::from(0x0a00_0001 + n as u32);
        let (service, version) = (n % SERVICES, n / SERVICES % 2 + 1);
        exported.add(&format!(
            "type: Dataplane\nmesh: default\nname: dataplane-{n:06}\nnetworking:\n  address: \
             {address}\n  inbound:\n  - port: 8080\n    tags: {{kuma.io/service: \
             service-{service:06}, version: v{version}, kuma.io/protocol: {}}}\n",
            if speaks_http(service) { "http" } else { "tcp" }
        ))?;
    }
    written.flush()?;
    exported.flush()
}

/// Those whose policies tell requests apart.
fn speaks_http(service: usize) -> bool {
    service < TRAFFIC && service.is_multiple_of(4)
        || (TRAFFIC..TRAFFIC + MESH_HTTP).contains(&service)
}

/// A Service of Kubernetes and its endpoints.
fn kubernetes(n: usize, files: &mut Files<'_>) -> Result<()> {
    let cluster = Ipv4Addr::from(0xac14_0000 + n as u32);
    let namespace = n % NAMESPACES;
    let protocol = if (HTTP_AT_SERVICES..HTTP_AT_SERVICES + GRPC).contains(&n) {
        "grpc"
    } else if n % (KUBERNETES / 2) < HTTP_AT_GATEWAYS.max(HTTP_AT_SERVICES) {
        "http"
    } else {
        "tcp"
    };
    files.add(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-{n:06}, namespace: \
         ns-{namespace:03}}}\nspec:\n  clusterIP: {cluster}\n  ports: [{{name: main, port: 80, \
         targetPort: 8080, appProtocol: {protocol}}}]\n"
    ))?;
    let endpoint = |at: usize| {
        let address = Ipv4Addr::from(0x0a80_0001 + (3 * n + at) as u32);
        format!("- {{addresses: [{address}], conditions: {{ready: true}}}}\n")
    };
    files.add(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: kube-{n:06}-1, \
         namespace: ns-{namespace:03}, labels: {{kubernetes.io/service-name: \
         kube-{n:06}}}}}\naddressType: IPv4\nports: [{{name: main, port: \
         8080}}]\nendpoints:\n{}{}{}",
        endpoint(0),
        endpoint(1),
        endpoint(2)
    ))
}

/// A route of the Gateway API, 90/10 between two Services of its namespace, a rule for the
/// `matches` and, where there are some, another for the rest.
fn route(kind: &str, name: &str, n: usize, parent: &str, hosts: &str, matches: &str) -> String {
    let (near, far) = (n, n + KUBERNETES / 2);
    let rest = match matches {
        "" => String::new(),
        _ => format!("\n  - backendRefs: [{{name: kube-{near:06}, port: 80}}]"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}-{n:06}, \
         namespace: ns-{:03}}}\nspec:\n  parentRefs: [{parent}]{hosts}\n  rules:\n  - backendRefs:\n    \
         - {{name: kube-{near:06}, port: 80, weight: 90}}\n    - {{name: kube-{far:06}, port: 80, \
         weight: 10}}{matches}{rest}\n",
        n % NAMESPACES
    )
}

/// The policy of a service of the mesh.
fn policy(n: usize, files: &mut Files<'_>) -> Result<()> {
    let service = format!("service-{n:06}");
    // Every tenth is for one client alone.
    let client = if n % 10 == 9 { format!("service-{:06}", n / 10) } else { "'*'".to_owned() };
    let (traffic, mesh_http) = (n < TRAFFIC, n < TRAFFIC + MESH_HTTP);
    let split = |indent: &str| {
        let one = |(weight, version): (u32, u32)| {
            format!(
                "{indent}- {{weight: {weight}, destination: {{kuma.io/service: {service}, \
                 version: v{version}}}}}\n"
            )
        };
        [(90, 1), (10, 2)].map(one).concat()
    };
    let backends = [(90, 1), (10, 2)].map(|(weight, version)| {
        format!(
            "        - {{kind: MeshServiceSubset, name: {service}, tags: {{version: v{version}}}, \
             weight: {weight}}}\n"
        )
    });
    let backends = backends.concat();
    if traffic {
        let http = if speaks_http(n) {
            format!(
                "  http:\n  - match: {{path: {{prefix: /api}}}}\n    modify: {{requestHeaders: \
                 {{add: [{{name: x-env, value: before}}]}}}}\n    split:\n{}",
                split("    ")
            )
        } else {
            String::new()
        };
        return files.add(&format!(
            "type: TrafficRoute\nmesh: default\nname: traffic-{n:06}\nsources: [{{match: \
             {{kuma.io/service: {client}}}}}]\ndestinations: [{{match: {{kuma.io/service: \
             {service}}}}}]\nconf:\n{http}  loadBalancer: {{roundRobin: {{}}}}\n  split:\n{}",
            split("  ")
        ));
    }
    if mesh_http {
        return files.add(&format!(
            "type: MeshHTTPRoute\nmesh: default\nname: mesh-http-{n:06}\nspec:\n  targetRef: \
             {{kind: Mesh}}\n  to:\n  - targetRef: {{kind: MeshService, name: {service}}}\n    \
             rules:\n    - matches: [{{path: {{type: PathPrefix, value: /api}}}}]\n      \
             default:\n        filters: [{{type: RequestHeaderModifier, requestHeaderModifier: \
             {{set: [{{name: x-env, value: prod}}]}}}}]\n        backendRefs:\n{backends}    - \
             matches: [{{path: {{type: PathPrefix, value: /}}}}]\n      default: {{backendRefs: \
             [{{kind: MeshService, name: {service}}}]}}\n"
        ));
    }
    files.add(&format!(
        "type: MeshTCPRoute\nmesh: default\nname: mesh-tcp-{n:06}\nspec:\n  targetRef: {{kind: \
         Mesh}}\n  to:\n  - targetRef: {{kind: MeshService, name: {service}}}\n    rules:\n    - \
         default:\n        backendRefs:\n{backends}"
    ))
}

/// Limits for the set, with some room.
fn limits() -> Limits {
    Limits {
        services: 24_000,
        sources: 110_000,
        routes: 24_000,
        reals: 110_000,
        counters: 48_000,
        arena_slots: 60_000_000,
        ..Limits::default()
    }
}
