//! A small world for the tests that load: one client workload, two versions of one service.

use std::{collections::BTreeMap, fs, path::PathBuf};

use harness::{Instance, Root, Topology};

use crate::run::Ended;

/// Documents of the world; the route is apart, so that tests can change it.
pub(crate) const DATAPLANES: &str = "\
type: Mesh
name: default
---
type: Dataplane
mesh: default
name: web-1
networking:
  address: 10.0.0.11
  inbound:
  - {port: 8080, tags: {kuma.io/service: web}}
---
type: Dataplane
mesh: default
name: redis-1
networking:
  address: 10.0.0.21
  inbound:
  - {port: 6379, tags: {kuma.io/service: redis, version: '1.0'}}
---
type: Dataplane
mesh: default
name: redis-2
networking:
  address: 10.0.0.22
  inbound:
  - {port: 6379, tags: {kuma.io/service: redis, version: '2.0'}}
";

/// Splits redis between its versions, for web alone.
pub(crate) fn route(first: u32, second: u32) -> String {
    format!(
        "type: TrafficRoute\nmesh: default\nname: redis-canary\n\
         sources: [{{match: {{kuma.io/service: web}}}}]\n\
         destinations: [{{match: {{kuma.io/service: redis}}}}]\nconf:\n  \
         loadBalancer: {{maglev: {{}}}}\n  split:\n  \
         - {{weight: {first}, destination: {{kuma.io/service: redis, version: '1.0'}}}}\n  \
         - {{weight: {second}, destination: {{kuma.io/service: redis, version: '2.0'}}}}\n"
    )
}

/// Hosts web-1, redis-1 and redis-2 around a node.
pub(crate) fn topology(root: Root) -> Topology {
    Topology::builder()
        .host("web-1", &["10.0.0.11"])
        .host("redis-1", &["10.0.0.21"])
        .host("redis-2", &["10.0.0.22"])
        .build(root)
        .expect("a node with three hosts")
}

/// The attach arguments of all of them.
pub(crate) const ATTACH: [&str; 6] =
    ["--attach", "v-web-1=tc", "--attach", "v-redis-1=tc", "--attach", "v-redis-2=tc"];

/// Policy files, and an instance that loads them.
pub(crate) struct World<'a> {
    pub(crate) instance: Instance<'a>,
    pub(crate) files: tempfile::TempDir,
}

impl<'a> World<'a> {
    pub(crate) fn new(root: Root, topology: &'a Topology) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let world =
            Self { instance: Instance::new(root, &topology.node).expect("an instance"), files };
        world.write("world.yaml", DATAPLANES);
        world.write("route.yaml", &route(90, 10));
        world
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("the file can be written");
        path
    }

    /// The directory of the policies, as an argument.
    pub(crate) fn policies(&self) -> &str {
        self.files.path().to_str().expect("a UTF-8 path")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let output = self.instance.output(args).expect("balancer can be started");
        Ended::new(self.instance.line(args), output)
    }

    pub(crate) fn load(&self, more: &[&str]) -> Ended {
        let args: Vec<&str> = ["load", "-f", self.policies()].iter().chain(more).copied().collect();
        self.run(&args)
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        self.instance.json(args).expect("JSON on stdout")
    }

    /// Everything that a refused command must leave as it was.
    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, serde_json::Value> {
        let mut all: BTreeMap<&str, serde_json::Value> =
            ["vips", "sources", "routes", "backends", "reals", "tables"]
                .into_iter()
                .map(|what| (what, self.json(&["show", what])))
                .collect();
        // How long a previous table still counts runs down by itself.
        for table in all.get_mut("tables").and_then(|t| t.as_array_mut()).into_iter().flatten() {
            table["previous_for_s"].take();
        }
        let status = self.json(&["status"]);
        for key in ["epoch", "programs", "links"] {
            all.insert(key, status[key].clone());
        }
        all
    }

    /// Holds that nothing changed since a snapshot.
    #[track_caller]
    pub(crate) fn is_still(&self, before: &BTreeMap<&'static str, serde_json::Value>) {
        for (what, now) in self.snapshot() {
            assert_eq!(now, before[what], "a refused command changed {what}");
        }
    }
}
