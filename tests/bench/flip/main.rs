//! `cargo xtask bench flip`: from a renamed policy file to packets that meet it (root).
//!
//! An agent watches a directory; one client, four reals, two services. A TrafficRoute is replaced
//! by rename, to the other version of a service each time, while the client dials without pause.
//! The state directory is on the disk that the tree is built on. Times are milliseconds.
//!
//! | measure | is |
//! |---|---|
//! | `flip.seen` | from the return of rename(2), which may itself have waited for the disk, to the answer of the first connection that meets the new version |
//! | `flip.noticed` | `noticed_to_flip_ms` of the agent's log: from the first event of inotify to the flip |

#![forbid(unsafe_code)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::{Agent, Connection, EchoServer, Instance, Root, Topology, backends::anywhere};

#[path = "../measure.rs"]
mod measure;

use measure::{Measure, Options};

const CLIENT: (&str, &str) = ("web-1", "10.71.1.10");
/// Host, service, version, address. A server's name is its version.
const REALS: [(&str, &str, &str, &str); 4] = [
    ("redis-1", "redis", "1.0", "10.71.2.10"),
    ("redis-2", "redis", "2.0", "10.71.2.11"),
    ("offers-1", "offers", "1.0", "10.71.3.10"),
    ("offers-2", "offers", "2.0", "10.71.3.11"),
];
const VIP: &str = "10.99.0.1:6379";
/// Flips of a run.
const FLIPS: u32 = 20;
/// Between flips, so that none is waited out together with the one before.
const APART: Duration = Duration::from_millis(200);
/// A flip that takes longer never comes.
const NEVER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let root = Root::check().map_err(anyhow::Error::msg)?;
    let mut builder = Topology::builder().host(CLIENT.0, &[CLIENT.1]);
    for (name, _, _, address) in REALS {
        builder = builder.host(name, &[address]);
    }
    let topology = builder.build(root)?;
    let mut servers = Vec::new();
    for (name, _, version, address) in REALS {
        let address: SocketAddr = format!("{address}:6379").parse()?;
        servers.push(EchoServer::start(&topology.host(name).ns, address, version)?);
    }
    let instance = Instance::new(root, &topology.node)?;
    // What is synced takes the time of a disk; the harness' own directory may be in memory.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).context("no directory")?;
    let state = home.path().join("state");
    fs::create_dir(&state).context("no state directory")?;
    symlink(&state, instance.state()).context("no link to the state directory")?;
    let policies = home.path().join("policies");
    fs::create_dir(&policies).context("no policy directory")?;
    fs::write(policies.join("inventory.yaml"), inventory()).context("cannot write")?;
    fs::write(policies.join("offers.yaml"), route("offers", "1.0")).context("cannot write")?;
    let redis = policies.join("redis.yaml");
    fs::write(&redis, route("redis", "1.0")).context("cannot write")?;
    let config = home.path().join("config.yaml");
    let text =
        format!("policies: ['{}']\nattach: [{{interface: 'v-*', hook: tc}}]\n", policies.display());
    fs::write(&config, text).context("cannot write")?;

    let mut agent = Agent::start(&instance, &config, &["--log-format", "json"])?;
    let vip = VIP.parse()?;
    let client = &topology.host(CLIENT.0).ns;
    let count = FLIPS * options.runs;
    let mut one = |n| {
        // A service manager that does not read makes the agent wait.
        agent.forget_told();
        flip(&redis, n, vip)
    };
    let seen = client.run(|| (0..count).map(&mut one).collect::<Result<Vec<_>>>());
    let seen = seen.with_context(|| format!("the agent's log:\n{}", agent.log()))?;
    let noticed = noticed(&agent.stop()?)?;
    ensure!(
        noticed.len() == seen.len(),
        "the agent has logged {} flips, not {}",
        noticed.len(),
        seen.len()
    );
    let measures = [
        Measure::new("flip.seen", "ms", &seen).against("flip.noticed", &seen, &noticed),
        Measure::new("flip.noticed", "ms", &noticed),
    ];
    let wanted: Vec<Measure> =
        measures.into_iter().filter(|measure| options.wanted(&measure.name)).collect();
    measure::print(&wanted, options.output)?;
    Ok(())
}

/// The other version, by rename; how long until a connection meets it.
fn flip(file: &Path, n: u32, vip: SocketAddr) -> Result<f64> {
    let (from, to) = if n.is_multiple_of(2) { ("1.0", "2.0") } else { ("2.0", "1.0") };
    thread::sleep(APART);
    let meets = || -> Result<String> {
        let connection = Connection::open(anywhere(vip), vip)?;
        let met = connection.greeting.name.clone();
        connection.close()?;
        Ok(met)
    };
    let met = meets()?;
    ensure!(met == from, "a connection met {met} before the route changed from {from}");
    let beside = file.with_extension("beside");
    fs::write(&beside, route("redis", to)).context("cannot write")?;
    // What the agent notices of this file is not what is measured.
    thread::sleep(APART);
    fs::rename(&beside, file).context("cannot rename")?;
    let begun = Instant::now();
    while meets()? != to {
        ensure!(begun.elapsed() < NEVER, "no connection meets {to}");
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// What the log says of every flip but the first, which nothing was noticed for.
fn noticed(log: &str) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("no event: {line}"))?;
        if event["message"] == "published" {
            times.extend(event["noticed_to_flip_ms"].as_f64());
        }
    }
    Ok(times)
}

fn inventory() -> String {
    let (client, address) = CLIENT;
    let mut text = format!(
        "type: Mesh\nname: default\n---\ntype: Dataplane\nmesh: default\nname: {client}\n\
         networking:\n  address: {address}\n  inbound:\n  - {{port: 80, tags: \
         {{kuma.io/service: web}}}}\n  outbound:\n  - {{address: 10.99.0.1, port: 6379, tags: \
         {{kuma.io/service: redis}}}}\n"
    );
    for (name, service, version, address) in REALS {
        text.push_str(&format!(
            "---\ntype: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: \
             {address}\n  inbound:\n  - {{port: 6379, tags: {{kuma.io/service: {service}, \
             version: '{version}'}}}}\n"
        ));
    }
    text
}

/// Everything of a service to one version.
fn route(service: &str, version: &str) -> String {
    format!(
        "type: TrafficRoute\nmesh: default\nname: {service}\nsources: [{{match: \
         {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: \
         {service}}}}}]\nconf:\n  loadBalancer: {{maglev: {{}}}}\n  split:\n  - {{weight: 1, \
         destination: {{kuma.io/service: {service}, version: '{version}'}}}}\n"
    )
}
