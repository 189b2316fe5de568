//! What one packet costs: nanoseconds in the programs, net of the driver that steps through the
//! flows. `cargo xtask bench packet` builds the driver and runs this as root; what each name
//! means is told in `docs/benchmarks.md`.

#[path = "../affinity.rs"]
mod affinity;
mod cases;
mod driver;
mod frames;
#[path = "../measure.rs"]
mod measure;
#[path = "../../../balancer-ebpf/src/bin/driver/step.rs"]
mod step;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::{Root, Uplink};

use cases::{CASES, Case, Timing};
use measure::{Measure, Options};
use world::Worlds;

/// Names of the drivers with nothing behind them, which every figure is net of.
const DRIVERS: [&str; 2] = ["tc.driver", "xdp.driver"];

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
    let root = match Root::check() {
        Ok(root) => root,
        Err(missing) => {
            bail!("the bench runs programs in the kernel: run it as root ({missing})")
        }
    };
    let cases: Vec<(usize, &Case)> =
        CASES.iter().enumerate().filter(|(_, case)| options.wanted(case.name)).collect();
    if cases.is_empty() {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("no measure is named so; there are {}", names.join(", "));
    }
    affinity::pin_to_one_core()?;
    // Where the XDP program finds a next hop.
    let uplink = Uplink::new(root)?;
    let mut worlds = Worlds::load(&cases, uplink.index())?;
    let mut ready = Vec::new();
    for &(number, case) in &cases {
        case.prepare(number, worlds.of(case)?, &mut ready)
            .with_context(|| format!("preparing {}", case.name))?;
    }
    let mut timings: Vec<Vec<Timing>> = vec![Vec::new(); cases.len()];
    for run in 0..options.runs as usize {
        for turn in 0..cases.len() {
            let at = (turn + run) % cases.len();
            let (number, case) = cases[at];
            let timing = case.time(number, worlds.of(case)?);
            timings[at].push(timing.with_context(|| format!("measuring {}", case.name))?);
        }
    }
    let mut measures = Vec::new();
    for (driver, xdp) in DRIVERS.into_iter().zip([false, true]) {
        let of = cases.iter().zip(&timings).filter(|((_, case), _)| case.xdp == xdp);
        let every: Vec<f64> = of.flat_map(|(_, timings)| timings).map(|t| t.driver).collect();
        if !every.is_empty() {
            measures.push(Measure::new(driver, "ns", &every));
        }
    }
    for ((_, case), timings) in cases.iter().zip(&timings) {
        let name = DRIVERS[usize::from(case.xdp)];
        let net: Vec<f64> = timings.iter().map(|t| t.gross - t.driver).collect();
        let driver: Vec<f64> = timings.iter().map(|t| t.driver).collect();
        measures.push(Measure::new(case.name, "ns", &net).against(name, &net, &driver));
    }
    measure::print(&measures, options.output)?;
    Ok(())
}
