//! Connections to a Gateway's listener: TCPRoutes over Services and their EndpointSlices.

use std::{collections::BTreeMap, fmt::Write as _};

use harness::{Connection, Instance, root_or_skip, scaled};

use crate::bed::{Bed, count, version_of};

/// The listener, an address of each family.
const EDGE: [&str; 2] = ["10.99.1.1:7000", "[fd99:1::1]:7000"];

/// The Services, one for each version, and the reals behind them: `redis` of the bed.
const SERVICES: [(&str, &str); 2] = [("v1", "1.0"), ("v2", "2.0")];

/// Services and slices of the bed's reals, a Gateway, and a TCPRoute with these weights.
fn objects(bed: &Bed, weights: [u32; 2]) -> String {
    let mut yaml = String::new();
    for (name, version) in SERVICES {
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: redis, port: 80, targetPort: 6379}}]}}\n"
        );
        for (family, is_v6) in [("IPv4", false), ("IPv6", true)] {
            let endpoints: Vec<String> = bed
                .reals_of(version)
                .into_iter()
                .filter(|address| address.is_ipv6() == is_v6)
                .map(|address| format!("{{addresses: ['{address}']}}"))
                .collect();
            let _ = write!(
                yaml,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{}, \
                 namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: {family}\n\
                 ports: [{{name: redis, port: 6379}}]\nendpoints: [{}]\n",
                family.to_lowercase(),
                endpoints.join(", ")
            );
        }
    }
    let addresses = EDGE.map(|address| {
        let ip = address.parse::<std::net::SocketAddr>().expect("an address").ip();
        format!("{{value: '{ip}'}}")
    });
    let _ = write!(
        yaml,
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\n\
         spec: {{gatewayClassName: node, addresses: [{}], listeners: [{{name: redis, port: 7000, protocol: TCP}}]}}\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: canary, namespace: shop}}\n\
         spec: {{parentRefs: [{{name: edge, sectionName: redis}}], rules: [{{backendRefs: [\
         {{name: v1, port: 80, weight: {}}}, {{name: v2, port: 80, weight: {}}}]}}]}}\n",
        addresses.join(", "),
        weights[0],
        weights[1]
    );
    yaml
}

/// How many of so many new connections each version takes.
fn shares(bed: &Bed, to: &str, ports: std::ops::Range<u16>) -> BTreeMap<&'static str, u64> {
    let greetings = bed.dial("guest", to, ports);
    let mut versions = BTreeMap::new();
    for (name, number) in count(greetings.iter().map(|(_, greeting)| greeting)) {
        *versions.entry(version_of(name)).or_default() += number;
    }
    versions
}

fn load(bed: &Bed, instance: &Instance<'_>, weights: [u32; 2]) {
    bed.load(instance, &objects(bed, weights));
}

#[test]
fn listener_splits_over_services_and_a_new_weight_leaves_live_connections_alone() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let number = scaled(1_000, 200);
    load(&bed, &instance, [90, 10]);
    for to in EDGE {
        let shares = shares(&bed, to, 20_000..20_000 + number);
        let first = shares["1.0"] as f64 / f64::from(number);
        assert!((0.85..=0.95).contains(&first), "90 % of {number} at {to}: {shares:?}");
        assert_eq!(shares.len(), 2, "and the rest at {to}: {shares:?}");
    }

    let mut live: Vec<Connection> = (0..scaled(100, 40))
        .map(|i| bed.open("guest", EDGE[i % 2]).expect("a connection"))
        .collect();
    load(&bed, &instance, [0, 10]);
    for connection in &mut live {
        let name = connection.talk("still there").expect("no connection breaks");
        assert_eq!(name, connection.greeting.name, "no connection moves");
    }
    for to in EDGE {
        let shares = shares(&bed, to, 30_000..30_000 + number / 4);
        assert_eq!(shares.keys().copied().collect::<Vec<_>>(), ["2.0"], "weight 0 at {to}");
    }
    for connection in live {
        connection.close().expect("an orderly end");
    }

    // Whoever the sources are: a Service's own address goes to its endpoints, by default.
    let vips = instance.json(&["show", "vips"]).expect("show vips");
    let rows = vips.as_array().expect("rows");
    let of = |service: &str| {
        let row = rows.iter().find(|row| row["service"] == service);
        row.unwrap_or_else(|| panic!("no VIP of {service}: {vips}"))["vip"].as_str().expect("a VIP")
    };
    let direct = shares(&bed, of("v1.shop:80"), 31_000..31_050);
    assert_eq!(direct.keys().copied().collect::<Vec<_>>(), ["1.0"]);
}

#[test]
fn listener_without_a_route_refuses_at_once() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let objects = objects(&bed, [1, 1]);
    let gateway = objects.split("---\n").filter(|document| !document.contains("kind: TCPRoute"));
    bed.load(&instance, &gateway.collect::<Vec<_>>().join("---\n"));
    for to in EDGE {
        let error = bed.open("guest", to).err().unwrap_or_else(|| panic!("{to} answered"));
        assert!(format!("{error:#}").contains("refused"), "{to}: {error:#}");
    }
}
