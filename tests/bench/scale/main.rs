//! `cargo xtask bench scale`: thousands of services, from files to packets (root).
//!
//! Each size has a process of its own, so that its memory is its own. Sizes are SxR: S services
//! of R reals, a Dataplane for each real, and a TrafficRoute (90/10 between two versions) for
//! every tenth service. `mixed` is 100,000 resources of every kind. Times are milliseconds, memory
//! is KiB.
//!
//! | measure | is |
//! |---|---|
//! | `load.SxR` | from files to the flip, into empty maps; `.read`, `.resolve`, `.compile`, `.publish` its parts |
//! | `change.SxR` | one endpoint came or went: from its reading to the flip; `.p99` the 99th percentile, `.read`, `.resolve`, `.compile`, `.publish` its parts (`.publish` with the record in the state directory, `.record`) |
//! | `change.SxR.whole` | the same as if nothing were known of the set before |
//! | `change.mixed.WHAT` | a weight, a path, … of a resource of that kind was changed, and changed back |
//! | `show.SxR` | `balancer show vips`, a process |
//! | `memory.maps.SxR` | what the kernel accounts for all maps; `.arena` the arena's part |
//! | `memory.process.SxR` | most memory that the loading process had at once, mapped maps included; `.own` without them, at the end |
//! | `memory.split` | what one VIP with a 90/10 split of two reals adds to maps made to fit; bytes |

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::Root;

#[path = "../measure.rs"]
mod measure;
mod memory;
mod mixed;
mod node;
mod one;
mod set;

use measure::{Measure, Options};

/// Tells the child which part is its own.
const PART: &str = "BALANCER_BENCH_PART";

/// Services and reals of each, and how many changes are timed for each run.
const SIZES: [(usize, usize, usize); 2] = [(10_000, 10, 100), (100_000, 5, 20)];

/// How many times each change of the mixed set is made and undone for each run.
const MIXED: usize = 10;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match std::env::var(PART) {
        Ok(part) => part_of(&part, &options),
        Err(_) => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn name((services, reals, _): (usize, usize, usize)) -> String {
    format!("{services}x{reals}")
}

fn run(options: &Options) -> Result<()> {
    Root::check().map_err(anyhow::Error::msg)?;
    let parts = SIZES.map(name).into_iter().chain([mixed::NAME, "split"].map(str::to_owned));
    let parts: Vec<String> = parts.collect();
    let wanted: Vec<&String> = parts.iter().filter(|part| options.wanted(part)).collect();
    ensure!(!wanted.is_empty(), "there are {}", parts.join(", "));
    let mut measures: Vec<Measure> = Vec::new();
    for part in wanted {
        let me = std::env::current_exe().context("cannot find this program")?;
        let runs = options.runs.to_string();
        let output = Command::new(me)
            .args(["--runs", &runs])
            .env(PART, part)
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run the part {part}"))?;
        ensure!(output.status.success(), "the part {part} failed");
        let list: Vec<Measure> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the part {part} printed no measures"))?;
        measures.extend(list);
    }
    measure::print(&measures, options.output)?;
    Ok(())
}

fn part_of(part: &str, options: &Options) -> Result<()> {
    let root = Root::check().map_err(anyhow::Error::msg)?;
    let measures = match SIZES.into_iter().find(|size| name(*size) == part) {
        Some((services, reals, changes)) => {
            one::measures(root, (services, reals), changes * options.runs as usize)?
        }
        None if part == mixed::NAME => mixed::measures(root, MIXED * options.runs as usize)?,
        None => vec![memory::split(root)?],
    };
    measure::print(&measures, measure::Output::Json)?;
    Ok(())
}
