//! `cargo xtask demo`: a small node in network namespaces, real connections, a policy that
//! changes under them. Every command that it runs is printed, so that one can repeat it while
//! the demo stands, and everything that it makes is removed at the end, also on Ctrl-C.

mod table;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{
    Connection, EchoServer, Instance, Root, Shell, Topology, backends::anywhere, interrupt,
};
use serde_json::Value;

/// The world, from the workspace's directory.
const WORLD: &str = "policies/worlds/shop";
/// The file of it with the policy that changes.
const SPLIT: &str = "redis-canary.yaml";
/// The workload that dials; the name of its Dataplane and of its host.
const CLIENT: &str = "web-1";
const CLIENT_ADDRESS: &str = "10.71.1.10";
/// Host, address and port of each real in the world.
const REALS: [(&str, &str); 4] = [
    ("redis-1", "10.71.2.10:6379"),
    ("redis-2", "10.71.2.11:6379"),
    ("offers-1", "10.71.3.10:8080"),
    ("offers-2", "10.71.3.11:8080"),
];
const SERVICES: [&str; 2] = ["redis", "offers"];
/// Connections to each service.
const CONNECTIONS: u32 = 2_000;
/// Connections that stay open while the policy changes.
const LONG_LIVED: u32 = 200;
/// How long they talk on after the change.
const AFTERMATH: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    interrupt::watch()?;
    let root = Root::check().map_err(|missing| {
        anyhow::anyhow!("the demo needs root ({missing}): sudo -E cargo xtask demo")
    })?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::set_current_dir(&workspace).context("the workspace is gone")?;
    harness::instance::balancer_binary();
    let begun = Instant::now();
    let shell = Shell::echoing();

    title("A node, a client and two versions of two services, in network namespaces");
    let mut builder = Topology::builder().shell(shell).host(CLIENT, &[CLIENT_ADDRESS]);
    for (name, address) in REALS {
        let address: SocketAddr = address.parse()?;
        builder = builder.host(name, &[&address.ip().to_string()]);
    }
    let topology = builder.build(root)?;
    let mut servers = Vec::new();
    for (name, address) in REALS {
        interrupt::check()?;
        // Each server calls itself by its address: what a client hears is what it reached.
        servers.push(EchoServer::start(&topology.host(name).ns, address.parse()?, address)?);
    }

    title(&format!("The policies of {WORLD} go into the kernel"));
    let instance = Instance::with_shell(root, &topology.node, shell)?;
    let mut load = vec!["load".to_owned(), "-f".into(), WORLD.into()];
    for (_, host) in topology.hosts() {
        load.extend(["--attach".into(), format!("{}=tc", host.interface)]);
    }
    print!("{}", instance.balancer(&load.iter().map(String::as_str).collect::<Vec<_>>())?);

    title(&format!("{CONNECTIONS} connections to each service, through its VIP"));
    let mut rows = Vec::new();
    for service in SERVICES {
        rows.extend(measure(&topology, &instance, service)?);
    }
    table::print(&rows)?;

    let vip = Plan::ask(&instance, SERVICES[0])?.vip;
    title(&format!("90/10 becomes 50/50 while {LONG_LIVED} connections to {vip} keep talking"));
    let changed = Changed::new()?;
    let kept = keep_talking(&topology, vip, || {
        print!("{}", instance.balancer(&["load", "-f", &changed.path()])?);
        Ok(())
    })?;
    println!("\n  {} exchanges, {} during the change", kept.exchanges, kept.during);
    println!("  broken  {}\n  moved   {}\n", kept.broken, kept.moved);
    ensure!(kept.broken == 0 && kept.moved == 0, "connections did not survive the change");
    table::print(&measure(&topology, &instance, SERVICES[0])?)?;

    title("Why");
    print!("{}", instance.balancer(&["explain", "--from", CLIENT, "--to", SERVICES[0]])?);

    title("Everything is removed");
    print!("{}", instance.balancer(&["unload"])?);
    drop(servers);
    drop(instance);
    drop(topology);
    println!("\ndone in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}

/// What the live set says of a service, as `explain` tells it.
struct Plan {
    vip: SocketAddr,
    policy: String,
    backends: Vec<Backend>,
}

struct Backend {
    version: String,
    weight: u64,
    share: f64,
    reals: Vec<String>,
}

impl Plan {
    fn ask(instance: &Instance<'_>, service: &str) -> Result<Self> {
        let explained = instance.json(&["explain", "--from", CLIENT, "--to", service])?;
        Self::read(&explained).with_context(|| format!("cannot read {explained}"))
    }

    fn read(explained: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let backend = |value: &Value| {
            Some(Backend {
                version: text(&value["tags"]["version"]).unwrap_or_else(|| "any".into()),
                weight: value["weight"].as_u64()?,
                share: value["share"].as_f64()?,
                reals: value["reals"]
                    .as_array()?
                    .iter()
                    .map(|real| text(&real["address"]))
                    .collect::<Option<_>>()?,
            })
        };
        let backends = explained["backends"].as_array().context("no backends")?;
        Ok(Self {
            vip: text(&explained["destination"]["address"]).context("no VIP")?.parse()?,
            policy: text(&explained["policy"]["name"]).unwrap_or_else(|| "no policy".into()),
            backends: backends.iter().map(backend).collect::<Option<_>>().context("a field")?,
        })
    }
}

/// Opens [`CONNECTIONS`] to a service, one after the other, and counts where they arrive.
fn measure(topology: &Topology, instance: &Instance<'_>, service: &str) -> Result<Vec<table::Row>> {
    let plan = Plan::ask(instance, service)?;
    let vip = plan.vip;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    topology.host(CLIENT).ns.run(|| -> Result<()> {
        for _ in 0..CONNECTIONS {
            interrupt::check()?;
            let connection = Connection::open(anywhere(vip), vip)?;
            *seen.entry(connection.greeting.name.clone()).or_default() += 1;
            connection.close()?;
        }
        Ok(())
    })?;
    let rows = plan.backends.iter().map(|backend| table::Row {
        service: service.into(),
        vip: vip.to_string(),
        policy: plan.policy.clone(),
        version: backend.version.clone(),
        weight: backend.weight,
        total: CONNECTIONS,
        expected: backend.share,
        seen: backend.reals.iter().filter_map(|real| seen.get(real)).sum(),
    });
    Ok(rows.collect())
}

/// A copy of the world in which the first service is split evenly.
struct Changed(tempfile::TempDir);

impl Changed {
    fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("balancer-demo-").tempdir()?;
        let shell = Shell::echoing();
        shell.run(&format!("cp -r {WORLD}/. {}", home.path().display()))?;
        let file = home.path().join(SPLIT);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("{WORLD} has no {SPLIT} to change"))?;
        let even = text.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
        ensure!(even != text, "{WORLD}/{SPLIT} has no 90/10 split");
        shell.say(&format!(
            "sed -i -e 's/weight: 90/weight: 50/' -e 's/weight: 10/weight: 50/' {}",
            file.display()
        ));
        fs::write(&file, even)?;
        Ok(Self(home))
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// How the long-lived connections fared.
struct Kept {
    exchanges: u64,
    during: u64,
    broken: usize,
    moved: usize,
}

/// Opens [`LONG_LIVED`] connections, lets them talk without a pause, runs `change` meanwhile,
/// and says how many broke or answered from another real than before.
fn keep_talking(
    topology: &Topology,
    vip: SocketAddr,
    change: impl FnOnce() -> Result<()>,
) -> Result<Kept> {
    let mut connections = topology.host(CLIENT).ns.run(|| {
        (0..LONG_LIVED).map(|_| Connection::open(anywhere(vip), vip)).collect::<Result<Vec<_>>>()
    })?;
    let (changing, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let talk = || {
            let mut kept = Kept { exchanges: 0, during: 0, broken: 0, moved: 0 };
            let mut last = false;
            // One round more after the end, so that each connection has talked after the change.
            while !last {
                last = done.load(Ordering::Relaxed);
                connections.retain_mut(|connection| {
                    let before = changing.load(Ordering::Relaxed);
                    let answer = connection.talk("are you still the same?");
                    kept.exchanges += 1;
                    kept.during += u64::from(before && changing.load(Ordering::Relaxed));
                    match answer {
                        Ok(name) if name == connection.greeting.name => return true,
                        Ok(_) => kept.moved += 1,
                        Err(e) => {
                            eprintln!("broken: {e:#}");
                            kept.broken += 1;
                        }
                    }
                    false
                });
            }
            kept
        };
        let talker = scope.spawn(talk);
        changing.store(true, Ordering::Relaxed);
        let outcome = change();
        changing.store(false, Ordering::Relaxed);
        if outcome.is_ok() {
            interrupt::sleep(AFTERMATH);
        }
        done.store(true, Ordering::Relaxed);
        let kept = talker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and_then(|()| interrupt::check()).map(|()| kept)
    })
}
