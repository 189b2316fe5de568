//! `cargo xtask bench match`: how long it takes to find the HTTP rule for a request.
//!
//! Each measure is the CPU time of one request, in nanoseconds: from what hyper hands over (method,
//! target, nine headers) to the match that takes it. The requests of a measure ask for rules all
//! over the set, in an order that the processor cannot foresee, and one of eight for nothing that
//! a rule is for. One repetition goes once through all measures, in an order that turns, on one
//! core.
//!
//! | measure | is |
//! |---|---|
//! | `mixed.N` | N rules in the order of the Gateway API: of eight, three prefixes, three exact paths, one prefix with a header, one pattern |
//! | `exact.N`, `prefix.N` | exact paths only, prefixes only |
//! | `listed.N` | prefixes of bytes in written order, as a TrafficRoute has them |
//! | `hosts.N` | one prefix for each of N hostnames, every fourth a wildcard |
//! | `decide.N` | as `mixed.N`, to the decision: a choice of two backends and a changed header |
//!
//! Each is compared with the same of one rule.

#![forbid(unsafe_code)]

use std::{hint::black_box, net::IpAddr, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use balancer_user::http::{
    BackendId, Chance, Choice, Connection, Readiness, Request, Router, Scheme,
};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};

#[path = "../affinity.rs"]
mod affinity;
#[path = "../measure.rs"]
mod measure;
mod world;

use measure::{Measure, Options};
use world::{Asked, Kind};

/// Numbers of rules.
const SIZES: [usize; 3] = [1, 100, 10_000];
/// Requests of a measure, and how often it asks all of them in one repetition.
const REQUESTS: usize = 4096;
const ROUNDS: usize = 64;

const CONNECTION: Connection = Connection {
    client: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)),
    port: 80,
    scheme: Scheme::Http,
};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Subject {
    name: String,
    router: Router,
    requests: Vec<Asked>,
    decides: bool,
    times: Vec<f64>,
}

fn run(options: &Options) -> Result<()> {
    affinity::pin_to_one_core()?;
    let mut subjects = Vec::new();
    for kind in Kind::ALL {
        for size in SIZES {
            for decides in [false, true] {
                let verb = if decides { "decide" } else { kind.name() };
                let name = format!("{verb}.{size}");
                if !options.wanted(&name) || (decides && kind != Kind::Mixed) {
                    continue;
                }
                let router = Router::new(world::rules(kind, size)?)?;
                let requests = world::requests(kind, size, REQUESTS)?;
                world::check(&router, &requests, CONNECTION)?;
                subjects.push(Subject { name, router, requests, decides, times: Vec::new() });
            }
        }
    }
    ensure!(
        !subjects.is_empty(),
        "no measures are named so; there are mixed, exact, prefix, listed, hosts and decide"
    );
    for run in 0..=options.runs as usize {
        for turn in 0..subjects.len() {
            let at = (run + turn) % subjects.len();
            let subject = &mut subjects[at];
            let took = time(subject)?;
            // One repetition before the others does not count.
            if run > 0 {
                subject.times.push(took);
            }
        }
    }
    let measures = subjects.iter().map(|subject| {
        let measure = Measure::new(&subject.name, "ns", &subject.times);
        let alone = format!("{}.1", subject.name.split('.').next().unwrap_or_default());
        match subjects.iter().find(|other| other.name == alone && alone != subject.name) {
            Some(alone) => measure.against(&alone.name, &subject.times, &alone.times),
            None => measure,
        }
    });
    measure::print(&measures.collect::<Vec<_>>(), options.output)?;
    Ok(())
}

/// Nanoseconds for one request.
fn time(subject: &Subject) -> Result<f64> {
    let begin = on_cpu()?;
    let mut number = 0u64;
    for _ in 0..ROUNDS {
        for asked in &subject.requests {
            let request = Request::new(&asked.method, &asked.target, &asked.headers, CONNECTION)?;
            if subject.decides {
                number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let chance = Chance { backend: Choice::Number(number), cookie: number };
                let ready = |id: BackendId| match id.0 {
                    0 | 1 => Readiness::Ready,
                    _ => Readiness::Empty,
                };
                black_box(subject.router.decide(black_box(&request), chance, ready));
            } else {
                black_box(subject.router.find(black_box(&request)));
            }
        }
    }
    Ok((on_cpu()? - begin).as_secs_f64() * 1e9 / (ROUNDS * subject.requests.len()) as f64)
}

/// How long this thread was on a CPU: what else runs costs it cache, but not time.
fn on_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
