//! What benches with namespaces have in common: addresses, processes of their own, proxies.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use harness::{Cgroup, NetNs, Topology};
use serde::{Serialize, de::DeserializeOwned};

/// Tells a process which part of the bench is its own.
pub(crate) const PART: &str = "BALANCER_BENCH_PART";
/// Where Envoy is, as `cargo xtask bench` says.
const ENVOY: &str = "BALANCER_BENCH_ENVOY";

/// What clients dial where there is a balancer.
pub(crate) const VIP: &str = "10.99.0.1";
pub(crate) const VIP_PORT: u16 = 80;
/// The address of the load.
pub(crate) const CLIENT: &str = "10.72.1.10";
pub(crate) const SERVERS: [&str; 4] = ["10.72.2.10", "10.72.2.11", "10.72.2.12", "10.72.2.13"];
pub(crate) const SERVER_PORT: u16 = 8080;

/// Has no namespace keep what is left of a connection: the direct ones and those through a
/// balancer meet a server from the same address and port, with other sequence numbers. A socket in
/// TIME_WAIT would refuse the second, and a port that it holds is sought past.
pub(crate) fn leave_no_remains(topology: &Topology) -> Result<()> {
    for ns in topology.hosts().map(|(_, host)| &host.ns).chain([&topology.node]) {
        ns.sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
        ns.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    }
    Ok(())
}

/// Where a program is: Envoy where it was installed, others on PATH or where Debian keeps root's.
pub(crate) fn program_named(name: &str) -> Option<PathBuf> {
    if name == "envoy"
        && let Some(path) = std::env::var_os(ENVOY)
    {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A running proxy. It ends with the group that it is in.
pub(crate) struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Starts a program that listens on the VIP, which becomes an address of the node; `home` is
    /// where it may have files.
    pub(crate) fn start(
        group: &Cgroup,
        node: &NetNs,
        (program, home): (&Path, &Path),
        config: &str,
        args: impl FnOnce(&mut Command, &Path),
    ) -> Result<Self> {
        node.ip(&[format!("addr add {VIP}/32 dev lo")])?;
        let file = home.join("config.json");
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let log = home.join("log");
        let said = fs::File::create(&log)?;
        let mut command = group.command(node, program);
        args(&mut command, &file);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log })
    }
    /// Its process, or the first of them.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with what it said if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the proxy has ended ({status})\n{log}");
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("warning: process {} is left behind: {e}", self.pid());
        }
    }
}

/// A process of the bench that reads a line and answers a line.
pub(crate) struct Part {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Part {
    pub(crate) fn start(group: &Cgroup, ns: &NetNs, part: &str) -> Result<Self> {
        let me = std::env::current_exe().context("cannot find this program")?;
        let mut command = group.command(ns, me);
        command.env(PART, part).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{part}`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<T> {
        let stdin = self.stdin.as_mut().context("no stdin")?;
        let line = serde_json::to_string(question)?;
        stdin.write_all(format!("{line}\n").as_bytes()).context("a process of the bench ended")?;
        self.answer()
    }

    pub(crate) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("cannot read")?;
        serde_json::from_str(&line)
            .with_context(|| format!("a process of the bench answered {line:?}"))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Its end is the end of its stdin.
        drop(self.stdin.take());
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("warning: process {} is left behind: {e}", self.child.id());
        }
    }
}
