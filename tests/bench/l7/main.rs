//! `cargo xtask bench l7`: what a request costs through balancer's proxy, through the proxies that
//! people run for the same task, and with nothing between (root).
//!
//! A client, a router that has the contender, and four servers (nginx, one worker each), in network
//! namespaces that share the machine's CPUs: CPU time of everything together is the figure
//! (`cost.rs` says what is counted). The task: requests below `/api/` go to `/new/` with one more
//! header, nine of ten to the three servers of `v1` and one to that of `v2`; a server answers
//! anything else with an error, which fails the bench. With nothing between, the load asks the
//! servers for what they would be asked for. Each contender gets a world of its own, in which all
//! works are measured with nothing between first; the ratio is of these two, and rounds take the
//! contenders in turn, each beginning with another.
//!
//! Names are `WORK.CONTENDER`; `none` is no proxy, `ours_1000` has 1,000 further rules.
//!
//! | work | is | unit |
//! |---|---|---|
//! | `kept` | requests on 32 connections that stay | µs of CPU a request |
//! | `short` | connections of one request, 32 at once | µs of CPU a connection |
//! | `memory` | after both, all processes of the contender | MiB (proportional set size) |
//! | `idle` | the same with 10,000 connections that had a request each | MiB |

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::{Root, interrupt};

#[path = "../bed.rs"]
mod bed;
mod contenders;
#[path = "../cost.rs"]
mod cost;
mod goals;
mod load;
#[path = "../measure.rs"]
mod measure;
mod proxies;
mod work;
mod world;

use contenders::Contender;
use measure::{Measure, Options, Output};
use work::Work;
use world::World;

/// A CPU time is too long where others had more than this part of the CPUs.
const QUIET: f64 = 0.05;

fn main() -> ExitCode {
    let done = match std::env::var(bed::PART) {
        Ok(_) => load::run(),
        Err(_) => run(&Options::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Values with a contender and, pair by pair, those with nothing between; memory has none of these.
#[derive(Default)]
struct Pairs {
    with: Vec<f64>,
    none: Vec<f64>,
}

#[derive(Default)]
struct Results {
    pairs: BTreeMap<String, Pairs>,
    /// What part of the CPUs others had in each measurement.
    others: Vec<f64>,
}

fn name(work: Work, contender: Contender) -> String {
    format!("{}.{}", work.name(), contender.name())
}

fn run(options: &Options) -> Result<()> {
    interrupt::watch()?;
    let root = Root::check().map_err(anyhow::Error::msg)?;
    let files = world::allow_many_files()?;
    // Built now, not while something is measured.
    harness::instance::balancer_binary();
    let works = |contender| -> Vec<Work> {
        let wanted = |work: &Work| options.wanted(&name(*work, contender));
        Work::ALL.into_iter().filter(wanted).filter(|work| contender.can(*work, files)).collect()
    };
    if !Contender::Haproxy.can(Work::Idle, files) {
        eprintln!("skipped: idle.haproxy: it wants two files for each connection, of {files}");
    }
    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| !works(*contender).is_empty());
    let mut results = Results::default();
    let mut failed = Vec::new();
    for round in 0..options.runs as usize {
        let mut without = Vec::new();
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let contender = contenders[at];
            match measure(root, contender, &works(contender), &mut results) {
                Ok(Ok(())) => eprintln!("round {}: {}", round + 1, contender.name()),
                Ok(Err(why)) => {
                    eprintln!("skipped: {}: {why}", contender.name());
                    without.push(at);
                }
                Err(error) => {
                    interrupt::check()?;
                    // What others have cost stays worth knowing.
                    eprintln!("failed: {}: {error:#}", contender.name());
                    failed.push(contender.name());
                    without.push(at);
                }
            }
        }
        without.sort_unstable();
        for at in without.into_iter().rev() {
            contenders.remove(at);
        }
    }
    ensure!(!results.pairs.is_empty(), "nothing was measured");
    let measures = results.measures();
    measure::print(&measures, options.output)?;
    if options.output == Output::Text {
        println!();
        goals::print(&measures);
    }
    results.say_how_busy_others_were();
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// One round of one contender; where it cannot be had, why.
fn measure(
    root: Root,
    contender: Contender,
    works: &[Work],
    results: &mut Results,
) -> Result<Result<(), String>> {
    let world = World::new(root)?;
    let mut none = BTreeMap::new();
    for work in works.iter().filter(|work| work.is_timed()) {
        let cost = world.cost(*work, None).context("with nothing between")?;
        results.others.push(cost.others);
        none.insert(*work, work.each(cost.cpu));
    }
    let with = contender.with(root, &world, |running| {
        let mut values = Vec::new();
        for work in works {
            interrupt::check()?;
            if work.is_timed() {
                let cost = world.cost(*work, Some(contender))?;
                results.others.push(cost.others);
                values.push(work.each(cost.cpu));
            } else {
                values.push(world.memory(*work, running)?);
            }
        }
        Ok(values)
    })?;
    Ok(with.map(|with| {
        for (work, with) in works.iter().zip(with) {
            let pairs = results.pairs.entry(name(*work, contender)).or_default();
            pairs.with.push(with);
            pairs.none.extend(none.get(work));
        }
    }))
}

impl Results {
    fn measures(&self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for work in Work::ALL {
            let pairs: Vec<(String, &Pairs)> = Contender::ALL
                .into_iter()
                .map(|contender| name(work, contender))
                .filter_map(|name| Some((name.clone(), self.pairs.get(&name)?)))
                .collect();
            let none: Vec<f64> =
                pairs.iter().flat_map(|(_, pairs)| pairs.none.iter().copied()).collect();
            let baseline = format!("{}.none", work.name());
            if !none.is_empty() {
                measures.push(Measure::new(&baseline, work.unit(), &none));
            }
            measures.extend(pairs.into_iter().map(|(name, pairs)| {
                let measure = Measure::new(name, work.unit(), &pairs.with);
                if pairs.none.is_empty() {
                    return measure;
                }
                measure.against(&baseline, &pairs.with, &pairs.none)
            }));
        }
        measures
    }

    fn say_how_busy_others_were(&self) {
        let busy = self.others.iter().filter(|part| **part > QUIET).count();
        if busy > 0 {
            let most = self.others.iter().copied().fold(0.0, f64::max);
            eprintln!(
                "busy: in {busy} of {} measurements other processes had more than {:.0} % of the \
                 CPUs, once {:.0} %: times are too long, ratios uncertain",
                self.others.len(),
                QUIET * 100.0,
                most * 100.0
            );
        }
    }
}
