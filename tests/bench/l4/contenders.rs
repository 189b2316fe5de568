//! What is measured beside no balancer, and how each is set up in a world.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use harness::{Agent, Instance, Root, interrupt};

use crate::{
    bed::{Proxy, program_named},
    ours::{self, Way},
    proxies,
    rules::{self, NftPick},
    talk::Order,
    world::{Place, Traffic, World, vip},
};

/// How long a contender may take until the first connections go through it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What takes connections to the VIP to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours(Way),
    Nft(NftPick),
    Iptables,
    Haproxy,
    Nginx,
    Envoy,
}

/// What keeps a contender going; it stops when this is dropped.
enum Running<'a> {
    Ours { agent: Agent, _instance: Instance<'a> },
    Rules,
    Proxy(Proxy),
}

impl Contender {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ours(Way::Stack),
        Self::Ours(Way::Direct),
        Self::Ours(Way::Xdp),
        Self::Nft(NftPick::Numgen),
        Self::Nft(NftPick::Jhash),
        Self::Iptables,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours(Way::Stack) => "tc_stack",
            Self::Ours(Way::Direct) => "tc_direct",
            Self::Ours(Way::Xdp) => "xdp",
            Self::Nft(NftPick::Numgen) => "nft_numgen",
            Self::Nft(NftPick::Jhash) => "nft_jhash",
            Self::Iptables => "iptables",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// XDP programs see what comes in at an interface, and nothing that the node itself sends.
    pub(crate) fn works_in(self, place: Place) -> bool {
        place == Place::Router || self != Self::Ours(Way::Xdp)
    }

    /// Whether it is measured with thousands of services: a proxy would listen on thousands of
    /// addresses, which nobody has it do.
    pub(crate) fn takes_many_services(self) -> bool {
        match self {
            Self::Ours(Way::Stack | Way::Direct) | Self::Nft(NftPick::Numgen) | Self::Iptables => {
                true
            }
            Self::Ours(Way::Xdp)
            | Self::Nft(NftPick::Jhash)
            | Self::Haproxy
            | Self::Nginx
            | Self::Envoy => false,
        }
    }

    /// Sets it up with that many further services, does `work` with connections that go through
    /// it, and takes it away. Where it cannot be had on this machine, why.
    pub(crate) fn with<T>(
        self,
        root: Root,
        world: &World,
        traffic: &mut Traffic<'_>,
        others: u32,
        work: impl FnOnce(&mut Traffic<'_>) -> Result<T>,
    ) -> Result<Result<T, String>> {
        let home = tempfile::Builder::new()
            .prefix("balancer-bench-")
            .tempdir()
            .context("no temporary directory")?;
        let mut running = match self.start(root, world, home.path(), others)? {
            Ok(running) => running,
            Err(why) => return Ok(Err(why)),
        };
        let reached = reached(traffic, &mut running);
        if let (Err(fault), Self::Ours(_), Place::Node) = (&reached, self, world.place) {
            return Ok(Err(format!("no connection of the node itself is answered: {fault:#}")));
        }
        let done = reached.and_then(|()| work(traffic));
        match running {
            Running::Ours { agent, .. } => {
                let log = agent.log();
                done.with_context(|| format!("the agent's log:\n{log}")).map(Ok)
            }
            Running::Rules => done.map(Ok),
            Running::Proxy(mut proxy) => proxy.check().and(done).map(Ok),
        }
    }

    fn start<'a>(
        self,
        root: Root,
        world: &'a World,
        home: &Path,
        others: u32,
    ) -> Result<Result<Running<'a>, String>> {
        let program = match self {
            Self::Ours(way) => {
                let started = ours::start(root, world, home, way, others)?;
                return Ok(
                    started.map(|(agent, instance)| Running::Ours { agent, _instance: instance })
                );
            }
            Self::Nft(_) => "nft",
            Self::Iptables => "iptables-restore",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        };
        let Some(path) = program_named(program) else {
            return Ok(Err(format!("no program `{program}`: `cargo xtask bench l4` installs it")));
        };
        if self == Self::Nginx && !Path::new(proxies::NGINX_STREAM).is_file() {
            return Ok(Err(format!(
                "nginx has no stream module, {}: `cargo xtask bench l4` installs it",
                proxies::NGINX_STREAM
            )));
        }
        Ok(Ok(match self {
            Self::Ours(_) => unreachable!("started above"),
            Self::Nft(pick) => {
                rules::nft(world, home, &path, pick, others)?;
                Running::Rules
            }
            Self::Iptables => {
                rules::iptables(world, home, &path, others)?;
                Running::Rules
            }
            Self::Haproxy => Running::Proxy(proxies::haproxy(world, home, &path)?),
            Self::Nginx => Running::Proxy(proxies::nginx(world, home, &path)?),
            Self::Envoy => Running::Proxy(proxies::envoy(world, home, &path)?),
        }))
    }
}

/// Waits until connections to the VIP are answered.
fn reached(traffic: &mut Traffic<'_>, running: &mut Running<'_>) -> Result<()> {
    let order = Order { to: vip()?, connections: 8, at_once: 1, requests: 1, size: 1 };
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        if let Running::Proxy(proxy) = running {
            proxy.check()?;
        }
        match traffic.carry_out(&order) {
            Ok(_) => return Ok(()),
            // A proxy does not listen at once.
            Err(e) if begun.elapsed() > PATIENCE => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
