//! Where it all happens: a client, a router and four servers, made anew for each contender, so
//! that nothing of one is left for the next.

use std::{
    cell::RefCell,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{Cgroup, Root, Topology};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    bed::{CLIENT, Part, SERVER_PORT, SERVERS, VIP, VIP_PORT, leave_no_remains, program_named},
    contenders::{Contender, Running},
    cost::{Cost, Meter},
    load::Outcome,
    work::{Order, Work},
};

/// What follows the last answer belongs to the cost too: a proxy still has to close.
const SETTLE: Duration = Duration::from_millis(20);
/// After so long a connection has nothing to do.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// How far from its share of the requests a server may be.
const FAIR: f64 = 0.3;
/// So many requests show how they are shared.
const MANY: u64 = 1000;

/// Parts of the requests that servers get with nothing between, and through a contender: the
/// first three are `v1`.
const EVEN: [f64; 4] = [0.25; 4];
const SPLIT: [f64; 4] = [0.3, 0.3, 0.3, 0.1];

/// The namespaces, the servers and what asks them.
pub(crate) struct World {
    // Dropped in this order: everything that runs, then where it ran.
    load: RefCell<Part>,
    _servers: Vec<Server>,
    pub(crate) group: Cgroup,
    pub(crate) topology: Topology,
    _home: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(root: Root) -> Result<Self> {
        let mut builder = Topology::builder().fixed_neighbours().host("client", &[CLIENT]);
        for (number, address) in SERVERS.iter().enumerate() {
            builder = builder.host(&format!("server-{number}"), &[address]);
        }
        let topology = builder.build(root)?;
        leave_no_remains(&topology)?;
        let group = Cgroup::new(root, "l7")?;
        let home = tempfile::Builder::new()
            .prefix("balancer-bench-")
            .tempdir()
            .context("no temporary directory")?;
        let mut servers = Vec::new();
        for (number, address) in SERVERS.iter().enumerate() {
            let ns = &topology.host(&format!("server-{number}")).ns;
            let home = home.path().join(format!("server-{number}"));
            let mut command = group.command(ns, nginx()?);
            command.args(["-e", "stderr", "-p"]).arg(&home).arg("-c").arg(server(&home, address)?);
            command.stdin(Stdio::null()).stderr(fs::File::create(home.join("log"))?);
            servers.push(Server(command.spawn().context("cannot start nginx")?));
        }
        let load = Part::start(&group, &topology.host("client").ns, "load")?;
        let load = RefCell::new(load);
        let world = Self { load, _servers: servers, group, topology, _home: home };
        let begun = Instant::now();
        while let Err(e) = world.answered() {
            ensure!(begun.elapsed() < PATIENCE, "the servers do not answer: {e:#}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(world)
    }

    /// Carries out a work and says what it cost; fails unless all of it was answered, and every
    /// server got its share.
    pub(crate) fn cost(&self, work: Work, through: Option<Contender>) -> Result<Cost> {
        let (to, request) = asked(through.is_some())?;
        self.carry_out(&work.warm_up(to.clone(), request.clone()))?;
        let order = work.order(to, request);
        let before = self.answered()?;
        let meter = Meter::new(&self.group)?;
        let begun = meter.read()?;
        self.carry_out(&order)?;
        thread::sleep(SETTLE);
        let cost = meter.since(&begun)?;
        let after = self.answered()?;
        // Asking for the number is a request too.
        let each: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b - 1).collect();
        let all = work.requests();
        ensure!(each.iter().sum::<u64>() == all, "the servers answered {each:?} of {all}");
        let shares = if through.is_some() { SPLIT } else { EVEN };
        for (answered, share) in each.iter().zip(shares) {
            let fair = all as f64 * share;
            ensure!(
                all < MANY || (*answered as f64 - fair).abs() < fair * FAIR,
                "the servers answered {each:?} requests, which are not the shares {shares:?}"
            );
        }
        Ok(cost)
    }

    /// MiB that a contender has after, or during, a work.
    pub(crate) fn memory(&self, work: Work, running: &Running<'_>) -> Result<f64> {
        let (to, request) = asked(true)?;
        self.carry_out(&work.order(to, request))?;
        if work == Work::Idle {
            thread::sleep(SILENCE);
        }
        let mut bytes = 0;
        for process in family(running.pid())? {
            bytes += proportional(process)?;
        }
        Ok(bytes as f64 / f64::from(1 << 20))
    }

    /// Asks for one thing, until it is answered.
    pub(crate) fn wait_for(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        let (to, request) = asked(true)?;
        let order = Order { to, request, connections: 8, at_once: 1, requests: 1, hold: false };
        let begun = Instant::now();
        loop {
            harness::interrupt::check()?;
            check()?;
            match self.carry_out(&order) {
                Ok(()) => return Ok(()),
                // A proxy does not listen at once.
                Err(e) if begun.elapsed() > PATIENCE => return Err(e),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn carry_out(&self, order: &Order) -> Result<()> {
        let outcome: Outcome = self.load.borrow_mut().ask(order)?;
        outcome.map_err(|fault| anyhow!("the load failed: {fault}"))
    }

    /// Requests that each server has answered so far.
    fn answered(&self) -> Result<Vec<u64>> {
        let client = &self.topology.host("client").ns;
        let ask = |address: &&str| -> Result<u64> {
            let mut stream = client.run(|| TcpStream::connect((*address, SERVER_PORT)))?;
            stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            // A line of three numbers: accepted, handled, requests.
            let line = text.lines().rev().nth(1).unwrap_or_default();
            let number = line.split_whitespace().nth(2).and_then(|number| number.parse().ok());
            number.with_context(|| format!("nginx says of its requests {text:?}"))
        };
        SERVERS.iter().map(ask).collect()
    }
}

/// Where requests go, and each of them: through a contender, or as that would send it.
fn asked(through: bool) -> Result<(Vec<SocketAddr>, String)> {
    const REST: &str = "Host: shop.test\r\nUser-Agent: bench/1\r\nAccept: */*\r\n";
    Ok(if through {
        let vip = format!("{VIP}:{VIP_PORT}").parse()?;
        (vec![vip], format!("GET /api/items/7 HTTP/1.1\r\n{REST}\r\n"))
    } else {
        let to = SERVERS.iter().map(|address| format!("{address}:{SERVER_PORT}").parse());
        let to = to.collect::<Result<_, _>>()?;
        (to, format!("GET /new/items/7 HTTP/1.1\r\n{REST}X-Bench: 1\r\n\r\n"))
    })
}

/// A running server. It ends with the group that it is in.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(e) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("warning: process {} is left behind: {e}", self.0.id());
        }
    }
}

fn nginx() -> Result<PathBuf> {
    program_named("nginx").context("no program `nginx`: `cargo xtask bench l7` installs it")
}

/// Writes the configuration of a server: 128 bytes for who asks for the right thing.
fn server(home: &Path, address: &str) -> Result<PathBuf> {
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    let text = "x".repeat(128);
    let config = format!(
        "worker_processes 1;\ndaemon off;\npid nginx.pid;\nevents {{ worker_connections 16384; \
         }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path \
         body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path \
         uwsgi;\n  scgi_temp_path scgi;\n  server {{\n    listen {address}:{SERVER_PORT} \
         backlog=16384;\n    location = /status {{ stub_status; }}\n    location /new/ {{\n      if \
         ($http_x_bench != 1) {{ return 500; }}\n      return 200 {text};\n    }}\n    location / \
         {{ return 404; }}\n  }}\n}}\n"
    );
    let file = home.join("nginx.conf");
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Ten thousand connections are as many files, here and in everything that is started from here.
/// Gives how many there may be.
pub(crate) fn allow_many_files() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most > 11_000, "no more than {most} files may be open: raise the limit (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// A process and everything that it has started.
fn family(first: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone by now, and then it is none of these.
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parents.extend(parent.and_then(|parent| Some((pid, parent.parse::<u32>().ok()?))));
    }
    let mut family = vec![first];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(family)
}

/// Bytes of memory of a process, its part of what it shares with others.
fn proportional(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(number.with_context(|| format!("no Pss in {file}"))? << 10)
}
