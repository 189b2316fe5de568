//! DNAT by the kernel's own means, as those who program many services write it: nftables with one
//! look-up in a hash map, iptables with a rule for each service.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::Path, process::Stdio};

use anyhow::{Context, Result};
use harness::shell::checked;

use crate::{
    bed::{SERVER_PORT, SERVERS, VIP, VIP_PORT},
    world::{Place, World},
};

/// How nftables picks one of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NftPick {
    /// A random number for each connection.
    Numgen,
    /// The client's address and port.
    Jhash,
}

/// A service: what clients dial, and who answers.
pub(crate) struct Service {
    pub(crate) vip: Ipv4Addr,
    pub(crate) reals: [Ipv4Addr; SERVERS.len()],
}

/// A service that nobody dials.
pub(crate) fn further(number: u32) -> Service {
    let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + number);
    let first = u32::from(Ipv4Addr::new(10, 110, 0, 0)) + number * SERVERS.len() as u32;
    Service { vip, reals: [0, 1, 2, 3].map(|real| Ipv4Addr::from(first + real)) }
}

/// All services; the one that is dialled stands in the middle, where a rule that is found by
/// looking through a list costs what it costs on average.
fn services(others: u32) -> Result<Vec<Service>> {
    let mut all: Vec<Service> = (0..others).map(further).collect();
    let mut reals = [Ipv4Addr::UNSPECIFIED; SERVERS.len()];
    for (real, address) in reals.iter_mut().zip(SERVERS) {
        *real = address.parse()?;
    }
    all.insert(all.len() / 2, Service { vip: VIP.parse()?, reals });
    Ok(all)
}

/// The hook where connections appear first: those of others, or those of the node itself.
fn hook(place: Place) -> &'static str {
    match place {
        Place::Router => "prerouting",
        Place::Node => "output",
    }
}

pub(crate) fn nft(
    world: &World,
    home: &Path,
    program: &Path,
    pick: NftPick,
    others: u32,
) -> Result<()> {
    let services = services(others)?;
    let count = SERVERS.len();
    let pick = match pick {
        NftPick::Numgen => format!("numgen random mod {count}"),
        NftPick::Jhash => format!("jhash ip saddr . tcp sport mod {count}"),
    };
    let mut text = String::from("table ip bench {\n");
    // Writing to a string cannot fail.
    for (number, service) in services.iter().enumerate() {
        let reals: Vec<String> =
            service.reals.iter().enumerate().map(|(n, real)| format!("{n} : {real}")).collect();
        let _ = writeln!(
            text,
            "chain service-{number} {{ meta l4proto tcp dnat to {pick} map {{ {} }} : {SERVER_PORT}; }}",
            reals.join(", ")
        );
    }
    text.push_str("map services { type ipv4_addr . inet_proto . inet_service : verdict;\n");
    text.push_str("elements = {\n");
    for (number, Service { vip, .. }) in services.iter().enumerate() {
        let _ = writeln!(text, "{vip} . tcp . {VIP_PORT} : goto service-{number},");
    }
    let _ = writeln!(
        text,
        "}} }}\nchain dialled {{ type nat hook {} priority -100; \
         ip daddr . ip protocol . th dport vmap @services; }}\n}}",
        hook(world.place)
    );
    load(world, home, program, &["-f", "-"], &text)
}

pub(crate) fn iptables(world: &World, home: &Path, program: &Path, others: u32) -> Result<()> {
    let services = services(others)?;
    let mut text = String::from("*nat\n:SERVICES -\n");
    for number in 0..services.len() {
        let _ = writeln!(text, ":SERVICE-{number} -");
    }
    let _ = writeln!(text, "-A {} -j SERVICES", hook(world.place).to_uppercase());
    for (number, Service { vip, .. }) in services.iter().enumerate() {
        let _ = writeln!(
            text,
            "-A SERVICES -d {vip}/32 -p tcp -m tcp --dport {VIP_PORT} -j SERVICE-{number}"
        );
    }
    for (number, Service { reals, .. }) in services.iter().enumerate() {
        for (before, real) in reals.iter().enumerate() {
            let left = reals.len() - before;
            let chance = if left > 1 {
                format!("-m statistic --mode random --probability {:.8} ", 1.0 / left as f64)
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "-A SERVICE-{number} -p tcp {chance}-j DNAT --to-destination {real}:{SERVER_PORT}"
            );
        }
    }
    text.push_str("COMMIT\n");
    load(world, home, program, &[], &text)
}

/// Gives a program rules for the router's or node's namespace.
fn load(world: &World, home: &Path, program: &Path, args: &[&str], text: &str) -> Result<()> {
    let file = home.join("rules");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let output = world
        .topology
        .node
        .command(program)
        .args(args)
        .stdin(Stdio::from(fs::File::open(&file)?))
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    checked(&format!("{} {} <RULES", program.display(), args.join(" ")), output).map(drop)
}
