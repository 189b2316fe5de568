//! The world that most tests live in: two clients, four reals of one service in three versions,
//! one VIP of each family, and whatever policies the test writes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use harness::{Connection, EchoServer, Greeting, Instance, Root, Topology, backends::anywhere};

/// What clients dial: outbounds of both clients.
pub(crate) const VIP4: &str = "10.99.0.1:6379";
pub(crate) const VIP6: &str = "[fd99::1]:6379";
/// A second service on the same hosts, to see two VIPs change together.
pub(crate) const OTHER_VIP4: &str = "10.99.0.2:9000";

/// A real: host, version, addresses.
struct Real {
    name: &'static str,
    version: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const REALS: [Real; 4] = [
    Real { name: "a", version: "1.0", v4: "10.71.2.10", v6: "fd71:2::10" },
    Real { name: "b", version: "1.0", v4: "10.71.2.11", v6: "fd71:2::11" },
    Real { name: "c", version: "2.0", v4: "10.71.2.12", v6: "fd71:2::12" },
    Real { name: "d", version: "3.0", v4: "10.71.2.13", v6: "fd71:2::13" },
];

/// Both ports that each real serves.
const PORTS: [(&str, u16); 2] = [("redis", 6379), ("other", 9000)];

const CLIENTS: [(&str, &str, &str); 3] = [
    ("web-1", "10.71.1.10", "fd71:1::10"),
    ("web-2", "10.71.1.11", "fd71:1::11"),
    // In the topology, in no policy: to balancer it is nobody.
    ("guest", "10.71.1.99", "fd71:1::99"),
];

/// Sizes of the maps: little memory, because tests run side by side, also in a guest with a
/// gibibyte; room for whatever a test does. (`examples` loads with the defaults.)
pub(crate) const LIMITS: &str = "limits: {flows: 32768, half_open: 4096, services: 256, sources: 256, \
                      routes: 512, reals: 1024, counters: 1024, arena_slots: 1048576, new_flows: off}\n";

/// The topology with its servers running. Dropped in order: servers first.
pub(crate) struct Bed {
    servers: Vec<EchoServer>,
    pub(crate) topology: Topology,
    policies: tempfile::TempDir,
    root: Root,
}

impl Bed {
    pub(crate) fn new(root: Root) -> Self {
        let mut builder = Topology::builder();
        for (name, v4, v6) in CLIENTS {
            builder = builder.host(name, &[v4, v6]);
        }
        for real in &REALS {
            builder = builder.host(real.name, &[real.v4, real.v6]);
        }
        let topology = builder.build(root).expect("build the topology");
        let mut servers = Vec::new();
        for real in &REALS {
            let host = topology.host(real.name);
            for (address, (_, port)) in
                host.addresses.iter().flat_map(|a| PORTS.iter().map(move |p| (a, p)))
            {
                let address = SocketAddr::new(*address, *port);
                servers
                    .push(EchoServer::start(&host.ns, address, real.name).expect("start a real"));
            }
        }
        let policies = tempfile::tempdir().expect("a directory for policies");
        Self { servers, topology, policies, root }
    }

    /// A balancer of its own in the node.
    pub(crate) fn instance(&self) -> Instance<'_> {
        Instance::new(self.root, &self.topology.node).expect("an instance")
    }

    /// Writes the inventory and `routes` (further documents) to a file.
    pub(crate) fn policies(&self, routes: &str) -> PathBuf {
        let path = self.policies.path().join("world.yaml");
        std::fs::write(&path, format!("{}---\n{routes}", inventory())).expect("write policies");
        path
    }

    /// `load -f FILE` with small maps and every interface of the node attached.
    pub(crate) fn load_args(&self, path: &Path) -> Vec<String> {
        let config = small_maps(self.policies.path()).display().to_string();
        let path = path.display().to_string();
        let mut args: Vec<_> = ["load", "-f", &path, "--config", &config].map(str::to_owned).into();
        for (_, host) in self.topology.hosts() {
            args.extend(["--attach".into(), format!("{}=tc", host.interface)]);
        }
        args
    }

    /// Loads the inventory with `routes`.
    ///
    /// # Panics
    /// If `load` fails.
    pub(crate) fn load(&self, instance: &Instance<'_>, routes: &str) {
        let path = self.policies(routes);
        let args = self.load_args(&path);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        instance.balancer(&args).expect("load");
    }

    /// The addresses of the reals that run a version.
    pub(crate) fn reals_of(&self, version: &str) -> Vec<IpAddr> {
        let reals = REALS.iter().filter(|real| real.version == version);
        reals.flat_map(|real| self.topology.host(real.name).addresses.clone()).collect()
    }

    /// Connects from `client`, which keeps the connection.
    pub(crate) fn open(&self, client: &str, to: &str) -> anyhow::Result<Connection> {
        let to = vip(to);
        self.topology.host(client).ns.run(|| Connection::open(anywhere(to), to))
    }

    /// Connects from each of `ports` of `client` in turn and closes again; checks on the way
    /// that the client talks to the VIP and the real to the client.
    pub(crate) fn dial(
        &self,
        client: &str,
        to: &str,
        ports: impl IntoIterator<Item = u16> + Send,
    ) -> Vec<(SocketAddr, Greeting)> {
        let host = self.topology.host(client);
        let to = vip(to);
        let address = host.address_like(to.ip());
        host.ns.run(|| {
            let one = |port| {
                let from = SocketAddr::new(address, port);
                let connection = Connection::open(from, to)
                    .unwrap_or_else(|e| panic!("connection {from} to {to}: {e:#}"));
                let greeting = connection.greeting.clone();
                assert_eq!(connection.remote().expect("a peer"), to, "the client sees the VIP");
                assert_eq!(greeting.peer, from, "the real sees the client");
                connection.close().unwrap_or_else(|e| panic!("end of {from} to {to}: {e:#}"));
                (from, greeting)
            };
            ports.into_iter().map(one).collect()
        })
    }

    /// Connections that each real accepted so far, by name.
    pub(crate) fn accepted(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for server in &self.servers {
            *counts.entry(name_of(server.address().ip())).or_default() += server.accepted();
        }
        counts
    }
}

/// Writes a configuration with small maps into `folder`, for `load --config`.
pub(crate) fn small_maps(folder: &Path) -> PathBuf {
    let path = folder.join("config.yaml");
    std::fs::write(&path, LIMITS).expect("write the configuration");
    path
}

/// Parses an address of this file.
pub(crate) fn vip(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

/// The real with this address.
pub(crate) fn name_of(address: IpAddr) -> &'static str {
    let text = address.to_string();
    let real = REALS.iter().find(|r| r.v4 == text || r.v6 == text);
    real.unwrap_or_else(|| panic!("no real has {address}")).name
}

/// The version that a real runs.
pub(crate) fn version_of(name: &str) -> &'static str {
    REALS.iter().find(|r| r.name == name).unwrap_or_else(|| panic!("no real {name}")).version
}

/// How many of `greetings` came from each real.
pub(crate) fn count<'a>(
    greetings: impl IntoIterator<Item = &'a Greeting>,
) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for greeting in greetings {
        *counts.entry(greeting.name.as_str()).or_default() += 1;
    }
    counts
}

/// Mesh and Dataplanes. One Dataplane has one address, so each family has its own.
pub(crate) fn inventory() -> String {
    let mut yaml = "type: Mesh\nname: default\n".to_owned();
    for (name, v4, v6) in CLIENTS.iter().filter(|(name, ..)| *name != "guest") {
        for (family, address, vips) in [(4, v4, vec![VIP4, OTHER_VIP4]), (6, v6, vec![VIP6])] {
            let _ = write!(
                yaml,
                "---\ntype: Dataplane\nmesh: default\nname: {name}-v{family}\nnetworking:\n  \
                 address: '{address}'\n  inbound:\n  - port: 8080\n    tags: {{kuma.io/service: \
                 {name}}}\n  outbound:\n"
            );
            for address in vips {
                let vip = vip(address);
                let service = if vip.port() == 6379 { "redis" } else { "other" };
                let _ = writeln!(
                    yaml,
                    "  - address: '{}'\n    port: {}\n    tags: {{kuma.io/service: {service}}}",
                    vip.ip(),
                    vip.port()
                );
            }
        }
    }
    for real in &REALS {
        for (family, address) in [(4, real.v4), (6, real.v6)] {
            let _ = write!(
                yaml,
                "---\ntype: Dataplane\nmesh: default\nname: {}-v{family}\nnetworking:\n  \
                 address: '{address}'\n  inbound:\n",
                real.name
            );
            for (service, port) in PORTS {
                let _ = writeln!(
                    yaml,
                    "  - port: {port}\n    tags: {{kuma.io/service: {service}, version: '{}'}}",
                    real.version
                );
            }
        }
    }
    yaml
}

/// A TrafficRoute called `name` from `source` to `service` that splits by version; `balancer`
/// is the content of `loadBalancer`.
pub(crate) fn split(
    name: &str,
    source: &str,
    service: &str,
    weights: &[(&str, u32)],
    load_balancer: &str,
) -> String {
    let mut yaml = format!(
        "type: TrafficRoute\nmesh: default\nname: {name}\nsources:\n- match: {{kuma.io/service: \
         '{source}'}}\ndestinations:\n- match: {{kuma.io/service: {service}}}\nconf:\n  \
         loadBalancer: {load_balancer}\n  split:\n"
    );
    for (version, weight) in weights {
        let _ = writeln!(
            yaml,
            "  - weight: {weight}\n    destination: {{kuma.io/service: {service}, version: \
             '{version}'}}"
        );
    }
    yaml
}

/// The load balancer where a test does not care.
pub(crate) const MAGLEV: &str = "{maglev: {}}";
