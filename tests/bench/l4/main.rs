//! `cargo xtask bench l4`: what a connection, a request and a gigabyte cost through balancer,
//! through what others make of the same task, and with nothing between (root).
//!
//! A load asks four servers, in network namespaces that share the machine's CPUs, so CPU time of
//! everything together is the figure (`cost.rs` says what is counted). Each contender gets a world
//! of its own, in which all works are measured with no balancer first, then with the contender;
//! the ratio is of these two, and rounds take the contenders in turn, each beginning with another.
//! A figure is taken only if every connection ended well and every server got its share.
//!
//! Names are `PLACE.WORK.CONTENDER`, with a number of further services at the end where there
//! are some; `none` is no balancer.
//!
//! | place | is |
//! |---|---|
//! | `router` | client – router – servers: also two workloads of one node |
//! | `node` | the client is a process of the node itself |
//!
//! | work | is | unit |
//! |---|---|---|
//! | `short` | connect, 128 bytes asked for and got, closed by both; 32 at once | µs of CPU a connection |
//! | `kept` | the same bytes on 32 connections that stay | µs of CPU a request |
//! | `bulk` | downloads of 16 MiB, 4 at once | ms of CPU for 10⁹ bytes |

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
mod ours;
mod proxies;
mod rules;
mod serve;
mod talk;
mod work;
mod world;

use contenders::Contender;
use measure::{Measure, Options, Output};
use work::Work;
use world::{Place, Traffic, World};

/// Numbers of further services.
const SERVICES: [u32; 2] = [1_000, 5_000];
/// A CPU time is too long where others had more than this part of the CPUs.
const QUIET: f64 = 0.05;

fn main() -> ExitCode {
    let done = match std::env::var(bed::PART) {
        Ok(part) => part_of(&part),
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

fn part_of(part: &str) -> Result<()> {
    match part.split_once(' ') {
        Some(("serve", address)) => serve::run(address.parse()?),
        None if part == "load" => load::run(),
        _ => anyhow::bail!("{} is `{part}`", bed::PART),
    }
}

/// One contender in one place with a number of further services.
#[derive(Clone, Copy, Debug)]
struct Subject {
    place: Place,
    contender: Contender,
    others: u32,
}

impl Subject {
    /// Everything there is, in the order in which it is shown.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for place in Place::ALL {
            let here = Contender::ALL.into_iter().filter(|c| c.works_in(place));
            all.extend(here.map(|contender| Self { place, contender, others: 0 }));
        }
        for others in SERVICES {
            let many = Contender::ALL.into_iter().filter(|c| c.takes_many_services());
            all.extend(many.map(|contender| Self { place: Place::Router, contender, others }));
        }
        all
    }

    fn name(self, work: Work) -> String {
        let Self { place, contender, others } = self;
        let name = format!("{}.{}.{}", place.name(), work.name(), contender.name());
        if others == 0 { name } else { format!("{name}.{others}") }
    }

    /// Further services can only cost something where a destination is looked for: with each
    /// connection.
    fn works(self, options: &Options) -> Vec<Work> {
        let works = if self.others == 0 { &Work::ALL[..] } else { &[Work::Short] };
        works.iter().copied().filter(|work| options.wanted(&self.name(*work))).collect()
    }
}

/// Values with a contender and, pair by pair, those with nothing between.
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

fn run(options: &Options) -> Result<()> {
    interrupt::watch()?;
    let root = Root::check().map_err(anyhow::Error::msg)?;
    // Built now, not while something is measured.
    harness::instance::balancer_binary();
    let mut subjects = Subject::all();
    subjects.retain(|subject| !subject.works(options).is_empty());
    let shown = subjects.clone();
    let mut results = Results::default();
    let mut failed = Vec::new();
    for round in 0..options.runs as usize {
        let mut without = Vec::new();
        for turn in 0..subjects.len() {
            let at = (turn + round) % subjects.len();
            let subject = subjects[at];
            let works = subject.works(options);
            let measured = measure(root, subject, &works, &mut results);
            let names: Vec<String> = works.iter().map(|work| subject.name(*work)).collect();
            let names = names.join(", ");
            match measured {
                Ok(Ok(())) => eprintln!("round {}: {names}", round + 1),
                Ok(Err(why)) => {
                    eprintln!("skipped: {names}: {why}");
                    without.push(at);
                }
                Err(error) => {
                    interrupt::check()?;
                    // What others have cost stays worth knowing.
                    eprintln!("failed: {names}: {error:#}");
                    failed.push(names);
                    without.push(at);
                }
            }
        }
        without.sort_unstable();
        for at in without.into_iter().rev() {
            subjects.remove(at);
        }
    }
    ensure!(!results.pairs.is_empty(), "nothing was measured");
    let measures = results.measures(&shown, options);
    measure::print(&measures, options.output)?;
    if options.output == Output::Text {
        println!();
        for goal in goals::all(&measures, &SERVICES) {
            println!("goal: {goal}");
        }
    }
    results.say_how_busy_others_were();
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// One round of one subject; where the contender cannot be had, why.
fn measure(
    root: Root,
    subject: Subject,
    works: &[Work],
    results: &mut Results,
) -> Result<Result<(), String>> {
    let world = World::new(root, subject.place)?;
    let mut traffic = Traffic::start(&world)?;
    let direct = world::direct()?;
    let vip = world::vip()?;
    let mut all = |traffic: &mut Traffic<'_>, to: &[_]| -> Result<Vec<f64>> {
        let mut values = Vec::new();
        for work in works {
            interrupt::check()?;
            traffic.carry_out(&work.warm_up(to.to_vec()))?;
            let order = work.order(to.to_vec());
            let cost = traffic.carry_out(&order)?;
            results.others.push(cost.others);
            values.push(work.each(cost.cpu.as_secs_f64(), &order));
        }
        Ok(values)
    };
    let none = all(&mut traffic, &direct).context("with nothing between")?;
    let contender = subject.contender;
    let with =
        contender.with(root, &world, &mut traffic, subject.others, |traffic| all(traffic, &vip))?;
    Ok(with.map(|with| {
        for ((work, with), none) in works.iter().zip(with).zip(none) {
            let pairs = results.pairs.entry(subject.name(*work)).or_default();
            pairs.with.push(with);
            pairs.none.push(none);
        }
    }))
}

impl Results {
    fn measures(&self, subjects: &[Subject], options: &Options) -> Vec<Measure> {
        let mut measures = Vec::new();
        for place in Place::ALL {
            for work in Work::ALL {
                let none = format!("{}.{}.none", place.name(), work.name());
                let pairs: Vec<(String, &Pairs)> = subjects
                    .iter()
                    .filter(|subject| subject.place == place)
                    .filter(|subject| subject.works(options).contains(&work))
                    .map(|subject| subject.name(work))
                    .filter_map(|name| self.pairs.get(&name).map(|pairs| (name, pairs)))
                    .collect();
                if pairs.is_empty() {
                    continue;
                }
                let all: Vec<f64> =
                    pairs.iter().flat_map(|(_, pairs)| pairs.none.iter().copied()).collect();
                measures.push(Measure::new(&none, work.unit(), &all));
                measures.extend(pairs.into_iter().map(|(name, pairs)| {
                    Measure::new(name, work.unit(), &pairs.with).against(
                        &none,
                        &pairs.with,
                        &pairs.none,
                    )
                }));
            }
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
