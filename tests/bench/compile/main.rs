//! `cargo xtask bench compile`: how long tables and whole sets take to compile.
//!
//! Each repetition goes once through all subjects of a group, in an order that turns, on one
//! core. `publish` and `republish` need root.
//!
//! | measure | is |
//! |---|---|
//! | `maglev.M.N` | a Maglev table of M slots for N equal reals, hashing of their names included |
//! | `maglev_listing.M.N` | the same table by the paper's listing, permutations computed lazily |
//! | `compile.SxR` | S services of R reals, from parsed policies to all tables and ids |
//! | `tables.SxR` | the part of it behind resolution |
//! | `recompile.SxR.one_changed` | the same part by a compiler that remembers, after one service lost a real |
//! | `publish.SxR` | from parsed policies to the epoch that packets see, into empty maps |
//! | `republish.SxR.one_changed` | the same when one real came or went; `.p99` its 99th percentile, `.maps` its part from tables to the flip, `.whole` until publishing returns |

#![forbid(unsafe_code)]

use std::{hint::black_box, net::SocketAddr, process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
use balancer_user::{
    compile::{Assignment, Compiler, Limits, TableSize, apportion::evenly, compile, maglev},
    resolve::resolve,
};
use clap::Parser;
use xxhash_rust::xxh64::xxh64;

#[path = "../affinity.rs"]
mod affinity;
#[path = "../measure.rs"]
mod measure;
mod publish;
mod world;

use measure::{Measure, Options};

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
    affinity::pin_to_one_core()?;
    let mut measures = Vec::new();
    for slots in [65_537, 655_373] {
        if options.wanted("maglev") {
            measures.extend(maglev_tables(slots, 1000, options.runs as usize)?);
        }
    }
    if options.wanted("compile") {
        measures.extend(whole_sets(10_000, 10, options.runs as usize)?);
    }
    if options.wanted("publish") {
        let mut set = world::policies(10_000, 10)?;
        let runs = options.runs as usize;
        measures.extend(publish::published_sets(&mut set, &world::settings(), (10_000, 10), runs)?);
    }
    ensure!(
        !measures.is_empty(),
        "no measures are named so; there are maglev, compile and publish"
    );
    measure::print(&measures, options.output)?;
    Ok(())
}

/// What is measured: a name, and the name of what it is compared with.
struct Subject<'a> {
    name: String,
    baseline: Option<usize>,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
}

/// Times the subjects in turn, in microseconds. One repetition before that does not count.
fn interleave(runs: usize, mut subjects: Vec<Subject<'_>>) -> Result<Vec<Measure>> {
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(runs); subjects.len()];
    for run in 0..=runs {
        for turn in 0..subjects.len() {
            let at = (run + turn) % subjects.len();
            let begin = Instant::now();
            (subjects[at].run)()?;
            let took = begin.elapsed().as_secs_f64() * 1e6;
            if run > 0 {
                times[at].push(took);
            }
        }
    }
    let measured = subjects.iter().zip(&times).map(|(subject, values)| {
        let measure = Measure::new(&subject.name, "us", values);
        match subject.baseline {
            Some(at) => measure.against(&subjects[at].name, values, &times[at]),
            None => measure,
        }
    });
    Ok(measured.collect())
}

fn maglev_tables(slots: u32, reals: usize, runs: usize) -> Result<Vec<Measure>> {
    let size = TableSize::new(slots)?;
    let mut names: Vec<String> = (0..reals)
        .map(|i| SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 8080)).to_string())
        .collect();
    names.sort();
    let targets: Vec<(String, u32)> = names.into_iter().zip(evenly(slots, reals)).collect();
    ensure!(
        listing(&targets, slots) == maglev::fill(&targets, size),
        "the two ways to fill a table of {slots} slots disagree"
    );
    let by_listing = || {
        black_box(listing(black_box(&targets), slots));
        Ok(())
    };
    let fill = || {
        black_box(maglev::fill(black_box(&targets), size));
        Ok(())
    };
    let subjects = vec![
        Subject {
            name: format!("maglev_listing.{slots}.{reals}"),
            baseline: None,
            run: Box::new(by_listing),
        },
        Subject { name: format!("maglev.{slots}.{reals}"), baseline: Some(0), run: Box::new(fill) },
    ];
    interleave(runs, subjects)
}

/// The listing of the paper (Eisenbud et al., NSDI 2016, 3.4) with the same hashes. `targets`
/// are sorted by name.
fn listing(targets: &[(String, u32)], slots: u32) -> Vec<u16> {
    let m = u64::from(slots);
    let mut walks: Vec<(u64, u64, u64)> = targets
        .iter()
        .map(|(name, _)| {
            (xxh64(name.as_bytes(), 0) % m, xxh64(name.as_bytes(), 1) % (m - 1) + 1, 0)
        })
        .collect();
    let mut entry = vec![-1i32; slots as usize];
    let mut filled = 0;
    loop {
        for (i, (offset, skip, next)) in walks.iter_mut().enumerate() {
            let mut c = (*offset + *next * *skip) % m;
            while entry[c as usize] >= 0 {
                *next += 1;
                c = (*offset + *next * *skip) % m;
            }
            entry[c as usize] = i as i32;
            *next += 1;
            filled += 1;
            if filled == slots {
                return entry.into_iter().map(|target| target as u16).collect();
            }
        }
    }
}

fn whole_sets(services: usize, reals: usize, runs: usize) -> Result<Vec<Measure>> {
    let limits = Limits {
        services: 2 * services as u32,
        sources: 2 * (services * reals) as u32,
        routes: 2 * services as u32,
        reals: 2 * (services * reals) as u32,
        counters: 2 * services as u32,
        arena_slots: 2048 * services as u32,
        ..Limits::default()
    };
    let settings = world::settings();
    let mut set = world::policies(services, reals)?;
    let before = resolve(&set, &settings);
    let nothing = Assignment::default();
    let first = compile(&before, &nothing, &limits)?;
    ensure!(first.vips.len() == services, "{} VIPs, not {services}", first.vips.len());
    let assignment = nothing.after(&first);
    let lost = set.dataplanes.remove(set.dataplanes.len() / 2);
    let after = resolve(&set, &settings);
    set.dataplanes.insert(services * reals / 2, lost);

    let mut compiler = Compiler::new();
    compiler.compile(&before, &assignment, &limits)?;
    let changed = compiler.compile(&after, &assignment, &limits)?;
    ensure!(changed != first, "the lost real makes no difference");
    ensure!(
        changed == compile(&after, &assignment, &limits)?,
        "compiling with a memory gives something else"
    );

    let whole = || {
        let resolved = resolve(black_box(&set), &settings);
        black_box(compile(&resolved, &nothing, &limits)?);
        Ok(())
    };
    let tables = || {
        black_box(compile(black_box(&before), &nothing, &limits)?);
        Ok(())
    };
    let mut lost = false;
    let one_changed = || {
        lost = !lost;
        let resolved = if lost { &before } else { &after };
        black_box(compiler.compile(black_box(resolved), &assignment, &limits)?);
        Ok(())
    };
    let size = format!("{services}x{reals}");
    let subjects = vec![
        Subject { name: format!("compile.{size}"), baseline: None, run: Box::new(whole) },
        Subject { name: format!("tables.{size}"), baseline: Some(0), run: Box::new(tables) },
        Subject {
            name: format!("recompile.{size}.one_changed"),
            baseline: Some(1),
            run: Box::new(one_changed),
        },
    ];
    interleave(runs, subjects)
}
