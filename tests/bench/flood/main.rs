//! `cargo xtask bench flood`: what established connections of one VIP keep while another one is
//! flooded with SYNs (root).
//!
//! A client downloads from a real through VIP A, by IPv4 and IPv6, while a thread on each CPU sends
//! SYNs from random sources, [`RATE`] a second, before anybody else gets that CPU: so the flood is
//! the same whatever a packet of it costs, and what it costs is missing elsewhere. The node between
//! them, whose program meets both, has a guard, `limits.new_flows`, of [`LIMIT`], or none. The
//! machine's CPUs are shared by all, the reals too. Rounds take the cases in turn, each beginning
//! with another.
//!
//! | measure | is | unit |
//! |---|---|---|
//! | `flood.none` | no flood | 10⁶ bytes a second of all connections |
//! | `flood.no_vip` | a flood to an address that is no VIP: routed into nothing, the cheapest that the stack has | the same |
//! | `flood.vip` | to VIP B | the same |
//! | `flood.vip_unguarded` | to VIP B, `new_flows: off` | the same |
//! | `….packets` | SYNs that the node took | 10³ a second |
//!
//! After each case every connection must still live and have both of its entries; else the bench
//! fails.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::{Flood, Root, interrupt};

mod downloads;
#[path = "../measure.rs"]
mod measure;
mod world;

use downloads::Downloads;
use measure::{Measure, Options, Output};
use world::{NO_VIP, VIP_B, World};

/// Until what went before is over.
const SETTLE: Duration = Duration::from_millis(300);
/// Each measurement.
const WINDOW: Duration = Duration::from_secs(1);
/// SYNs a second and CPU: that many cost most of a CPU where each is answered by a real on it.
const RATE: u32 = 25_000;
/// New flows a second and CPU, of them half for the flooded VIP. The default is more than this
/// flood.
pub(crate) const LIMIT: u32 = 2_000;
/// The part that must be left.
const GOAL: f64 = 0.9;

/// What happens beside the downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    None,
    NoVip,
    Vip,
    VipUnguarded,
}

impl Case {
    const ALL: [Self; 4] = [Self::None, Self::NoVip, Self::Vip, Self::VipUnguarded];

    fn name(self) -> &'static str {
        match self {
            Self::None => "flood.none",
            Self::NoVip => "flood.no_vip",
            Self::Vip => "flood.vip",
            Self::VipUnguarded => "flood.vip_unguarded",
        }
    }

    /// Where SYNs are sent to.
    fn target(self) -> Result<Option<SocketAddrV4>> {
        Ok(match self {
            Self::None => None,
            Self::NoVip => Some(NO_VIP.parse()?),
            Self::Vip | Self::VipUnguarded => Some(VIP_B.parse()?),
        })
    }
}

/// Values of each case, round by round.
#[derive(Default)]
struct Values {
    throughput: Vec<f64>,
    packets: Vec<f64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    interrupt::watch()?;
    let root = Root::check().map_err(anyhow::Error::msg)?;
    // Built now, not while something is measured.
    harness::instance::balancer_binary();
    let home = tempfile::tempdir()?;
    let world = World::new(root)?;
    let balancer = world.balancer(root, home.path())?;
    let downloads = Downloads::start(&world)?;
    // What the others are compared with is always measured.
    let mut cases = Case::ALL.to_vec();
    cases.retain(|case| *case == Case::NoVip || options.wanted(case.name()));
    let mut values: BTreeMap<&str, Values> = BTreeMap::new();
    for round in 0..options.runs as usize {
        for turn in 0..cases.len() {
            interrupt::check()?;
            let case = cases[(turn + round) % cases.len()];
            balancer.guard(case != Case::VipUnguarded)?;
            let refused = balancer.refused()?;
            let (throughput, packets) = measure_one(&world, &downloads, case)
                .with_context(|| format!("round {}, {}", round + 1, case.name()))?;
            let refused = balancer.refused()? - refused;
            eprintln!(
                "round {}: {}: {throughput:.0} MB/s beside {packets:.0} k/s, {refused} refused",
                round + 1,
                case.name()
            );
            match case {
                Case::Vip => ensure!(refused > 0, "the guard has refused nothing"),
                _ => ensure!(refused == 0, "the guard has refused {refused} in {}", case.name()),
            }
            for connection in downloads.ends() {
                balancer.has_both_entries(connection)?;
            }
            let values = values.entry(case.name()).or_default();
            values.throughput.push(throughput);
            values.packets.push(packets);
        }
        eprintln!("round {}: every connection lives, none of their entries was evicted", round + 1);
    }
    let measures = measures(&values)?;
    measure::print(&measures, options.output)?;
    if options.output == Output::Text {
        let kept = measures.iter().find(|m| m.name == Case::Vip.name()).and_then(|m| m.ratio);
        let found = match kept {
            Some(kept) if kept >= GOAL => format!("{kept:.2}: met"),
            Some(kept) => format!("{kept:.2}: not met"),
            None => "not measured".to_owned(),
        };
        println!("\ngoal: flood.vip ≥ {GOAL:.2} × flood.no_vip: {found}");
    }
    Ok(())
}

/// 10⁶ bytes a second of the downloads, and 10³ packets a second of the flood.
fn measure_one(world: &World, downloads: &Downloads, case: Case) -> Result<(f64, f64)> {
    let attacker = &world.topology.host("attacker").ns;
    let flood = match case.target()? {
        Some(to) => Some(Flood::start(attacker, to, RATE)?),
        None => None,
    };
    let sent = || flood.as_ref().map_or(0, Flood::sent);
    thread::sleep(SETTLE);
    let (begun, bytes, packets) = (Instant::now(), downloads.bytes(), sent());
    thread::sleep(WINDOW);
    let (after, packets) = (downloads.bytes(), sent() - packets);
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(flood) = flood {
        flood.stop()?;
        ensure!(packets > 0, "no SYN was sent");
    }
    let mut sum = 0;
    for ((before, after), (from, to)) in bytes.iter().zip(&after).zip(downloads.ends()) {
        if before == after {
            bail!("the connection {from} – {to} stands still");
        }
        sum += after - before;
    }
    Ok((sum as f64 / seconds / 1e6, packets as f64 / seconds / 1e3))
}

fn measures(values: &BTreeMap<&str, Values>) -> Result<Vec<Measure>> {
    let baseline = values.get(Case::NoVip.name()).context("nothing was measured")?;
    let mut measures = Vec::new();
    for case in Case::ALL {
        let Some(values) = values.get(case.name()) else { continue };
        let name = Case::NoVip.name();
        let mut throughput = Measure::new(case.name(), "MB/s", &values.throughput);
        if case != Case::NoVip {
            throughput = throughput.against(name, &values.throughput, &baseline.throughput);
        }
        measures.push(throughput);
        if case != Case::None {
            let packets = format!("{}.packets", case.name());
            measures.push(Measure::new(packets, "k/s", &values.packets));
        }
    }
    Ok(measures)
}

/// A file in the bench's directory.
fn write(path: PathBuf, text: &str) -> Result<String> {
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}
