//! What is measured, and how each is set up in a world.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use harness::{Agent, Instance, Root};

use crate::{
    bed::{CLIENT, Proxy, SERVER_PORT, SERVERS, VIP, VIP_PORT, program_named},
    proxies,
    work::Work,
    world::World,
};

/// What takes requests for the VIP to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours {
        /// Rules besides the one that takes the requests.
        others: u32,
    },
    Nginx,
    Haproxy,
    Envoy,
}

/// What keeps a contender going; it stops when this is dropped.
pub(crate) enum Running<'a> {
    Ours { agent: Agent, _instance: Instance<'a> },
    Proxy(Proxy),
}

impl Running<'_> {
    /// The process, or the first of them.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Ours { agent, .. } => agent.pid(),
            Self::Proxy(proxy) => proxy.pid(),
        }
    }
}

/// Starts a proxy in a world; with a directory of its own, from this file.
type Start = fn(&World, &Path, &Path) -> Result<Proxy>;

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Ours { others: 0 },
        Self::Ours { others: 1000 },
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours { others: 0 } => "ours",
            Self::Ours { .. } => "ours_1000",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Whether it can do that with so many files. HAProxy has room for as many connections as it has
    /// pairs of files, each with a server.
    pub(crate) fn can(self, work: Work, files: u64) -> bool {
        self != Self::Haproxy || work != Work::Idle || files / 2 > Work::Idle.requests() + 100
    }

    /// Sets it up, does `work` with requests that go through it, and takes it away. Where it cannot
    /// be had on this machine, why.
    pub(crate) fn with<T>(
        self,
        root: Root,
        world: &World,
        work: impl FnOnce(&Running<'_>) -> Result<T>,
    ) -> Result<Result<T, String>> {
        let home = tempfile::Builder::new()
            .prefix("balancer-bench-")
            .tempdir()
            .context("no temporary directory")?;
        let mut running = match self.start(root, world, home.path())? {
            Ok(running) => running,
            Err(why) => return Ok(Err(why)),
        };
        let reached = world.wait_for(|| match &mut running {
            Running::Ours { .. } => Ok(()),
            Running::Proxy(proxy) => proxy.check(),
        });
        let done = reached.and_then(|()| work(&running));
        match running {
            Running::Ours { agent, .. } => {
                let log = agent.log();
                done.with_context(|| format!("the agent's log:\n{log}")).map(Ok)
            }
            Running::Proxy(mut proxy) => proxy.check().and(done).map(Ok),
        }
    }

    fn start<'a>(
        self,
        root: Root,
        world: &'a World,
        home: &Path,
    ) -> Result<Result<Running<'a>, String>> {
        let (name, start): (_, Start) = match self {
            Self::Ours { others } => return Ok(Ok(ours(root, world, home, others)?)),
            Self::Nginx => ("nginx", proxies::nginx),
            Self::Haproxy => ("haproxy", proxies::haproxy),
            Self::Envoy => ("envoy", proxies::envoy),
        };
        match program_named(name) {
            Some(program) => Ok(Ok(Running::Proxy(start(world, home, &program)?))),
            None => Ok(Err(format!("no program `{name}`: `cargo xtask bench l7` installs it"))),
        }
    }
}

/// The agent, as it runs on a node.
fn ours<'a>(root: Root, world: &'a World, home: &Path, others: u32) -> Result<Running<'a>> {
    let policies = home.join("policies.yaml");
    fs::write(&policies, self::policies(others))
        .with_context(|| format!("cannot write {}", policies.display()))?;
    let config = home.join("config.yaml");
    let text =
        format!("policies: ['{}']\nattach: [{{interface: 'v-*', hook: tc}}]\n", policies.display());
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let instance = Instance::new(root, &world.topology.node)?;
    let agent = Agent::start(&instance, &config, &[])?;
    world.group.add(agent.pid())?;
    Ok(Running::Ours { agent, _instance: instance })
}

/// A Mesh, the client, the servers in two versions, and the route that splits between them.
fn policies(others: u32) -> String {
    let mut text = format!(
        "type: Mesh\nname: default\n---\ntype: Dataplane\nmesh: default\nname: \
         client\nnetworking:\n  address: {CLIENT}\n  inbound:\n  - {{port: 1, tags: \
         {{kuma.io/service: client}}}}\n  outbound:\n  - {{address: {VIP}, port: {VIP_PORT}, \
         tags: {{kuma.io/service: server}}}}\n"
    );
    for (number, address) in SERVERS.iter().enumerate() {
        let version = if number < 3 { "v1" } else { "v2" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\ntype: Dataplane\nmesh: default\nname: server-{number}\nnetworking:\n  address: \
             {address}\n  inbound:\n  - {{port: {SERVER_PORT}, tags: {{kuma.io/service: server, \
             kuma.io/protocol: http, version: {version}}}}}\n"
        );
    }
    text += "---\ntype: TrafficRoute\nmesh: default\nname: server\nsources: [{match: \
             {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: server}}]\nconf:\n  \
             http:\n";
    for other in 0..others {
        let _ = write!(
            text,
            "  - match: {{path: {{prefix: /other-{other}/}}}}\n    destination: {{kuma.io/service: \
             server, version: v1}}\n"
        );
    }
    text += "  - match: {path: {prefix: /api/}}\n    modify: {path: {rewritePrefix: /new/}, \
             requestHeaders: {add: [{name: x-bench, value: '1'}]}}\n    split:\n    - {weight: 90, \
             destination: {kuma.io/service: server, version: v1}}\n    - {weight: 10, destination: \
             {kuma.io/service: server, version: v2}}\n  destination: {kuma.io/service: server}\n";
    text
}
