//! The bed of the other tests, with an agent that watches a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Agent, Instance, Root};

use crate::bed::{Bed, LIMITS, MAGLEV, VIP4, inventory, split, version_of};

/// A directory that lives as long as the test.
pub(super) struct World {
    pub(super) bed: Bed,
    pub(super) home: tempfile::TempDir,
}

impl World {
    /// A bed, and a directory `policies` with the inventory and everything to version 1.0.
    pub(super) fn new(root: Root) -> Self {
        let world = Self { bed: Bed::new(root), home: tempfile::tempdir().expect("a directory") };
        let policies = world.policies();
        fs::create_dir(&policies).expect("make the policy directory");
        fs::write(policies.join("inventory.yaml"), inventory()).expect("write the inventory");
        fs::write(policies.join("route.yaml"), only("1.0")).expect("write the route");
        world
    }

    /// What the configuration names.
    pub(super) fn policies(&self) -> PathBuf {
        self.home.path().join("policies")
    }

    /// A configuration that watches `policies` and attaches to every interface of the node.
    pub(super) fn config(&self, more: &str) -> PathBuf {
        self.config_for(&[self.policies()], "[{interface: 'v-*', hook: tc}]", more)
    }

    pub(super) fn config_for(&self, policies: &[PathBuf], attach: &str, more: &str) -> PathBuf {
        let path = self.home.path().join("config.yaml");
        let list: Vec<String> = policies.iter().map(|p| format!("'{}'", p.display())).collect();
        let text = format!("policies: [{}]\nattach: {attach}\n{LIMITS}{more}", list.join(", "));
        replace(&path, &text);
        path
    }

    pub(super) fn agent(&self, instance: &Instance<'_>) -> Agent {
        Agent::start(instance, &self.config(""), &[]).expect("an agent")
    }

    /// The version that a new connection of `web-1` meets.
    pub(super) fn version(&self) -> anyhow::Result<&'static str> {
        let connection = self.bed.open("web-1", VIP4)?;
        let version = version_of(&connection.greeting.name);
        connection.close()?;
        Ok(version)
    }

    /// Whether new connections meet this version.
    pub(super) fn meets(&self, version: &str) -> bool {
        self.version().is_ok_and(|met| met == version)
    }

    /// Puts a route to `version` in the place of the one there, by rename.
    pub(super) fn route(&self, version: &str) {
        replace(&self.policies().join("route.yaml"), &only(version));
    }
}

/// Everything to one version.
pub(super) fn only(version: &str) -> String {
    split("redis-canary", "*", "redis", &[(version, 1)], MAGLEV)
}

/// Writes beside and renames into place.
pub(super) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("beside");
    fs::write(&beside, text).expect("write beside");
    fs::rename(&beside, path).expect("rename into place");
}

/// What `status` says of the agent.
pub(super) fn status(instance: &Instance<'_>) -> serde_json::Value {
    instance.json(&["status"]).expect("status")["agent"].clone()
}

/// Messages of everything that is wrong with the set, as `status` has them.
pub(super) fn problems(status: &serde_json::Value) -> Vec<String> {
    let problems = status["set"]["problems"].as_array().expect("a list of problems");
    problems
        .iter()
        .map(|p| format!("{}:{}: {}", text(&p["object"]), p["line"], text(&p["message"])))
        .collect()
}

pub(super) fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
