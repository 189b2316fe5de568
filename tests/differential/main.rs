//! Requests that are malformed or odd, sent as bytes to our proxy, to nginx and to HAProxy: what is
//! refused, and what reaches the backend as what.
//!
//! All three have a backend of their own that takes nothing but strict HTTP/1.1 and writes down what
//! it gets. Where ours differs from one of the others, `differences.txt` has to say why; and a
//! backend of ours never sees another number of requests than answers go back to the client.
//! Everything is on loopback.

use std::{fmt::Write as _, thread};

use anyhow::{Context, Result, ensure};

mod backend;
mod cases;
mod differences;
mod framing;
mod servers;
mod verdict;

use cases::Case;
use differences::{Differences, Outcome};
use servers::Server;
use verdict::Verdict;

/// Each proxy answers every case, one after the other; the proxies side by side.
fn verdicts(servers: &[Server], cases: &[Case]) -> Result<Vec<Vec<Verdict>>> {
    thread::scope(|scope| {
        let each = servers.iter().map(|server| {
            scope.spawn(|| {
                let of = |case| {
                    Verdict::of(server, case)
                        .with_context(|| format!("{}, {}", server.name, case.name))
                };
                cases.iter().map(of).collect::<Result<Vec<_>>>()
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(|of| of.join().expect("a thread that asks")).collect()
    })
}

#[test]
fn every_difference_is_explained_and_nothing_is_smuggled() -> Result<()> {
    let cases = cases::all();
    ensure!(cases.len() >= 200, "only {} cases", cases.len());
    let directory = tempfile::tempdir()?;
    let servers = [
        servers::balancer()?,
        servers::nginx(directory.path())?,
        servers::haproxy(directory.path())?,
    ];
    let verdicts = verdicts(&servers, &cases)?;
    let [ours, nginx, haproxy] = &verdicts[..] else { unreachable!("three servers") };
    let mut differences = Differences::read(include_str!("differences.txt"))?;
    let mut wrong = String::new();
    let mut alike = 0;
    for (((case, ours), nginx), haproxy) in cases.iter().zip(ours).zip(nginx).zip(haproxy) {
        let (name, outcome) = (&case.name, Outcome::new(ours, nginx, haproxy));
        let told = || format!("\n  ours    {ours}\n  nginx   {nginx}\n  haproxy {haproxy}\n");
        if let Some(why) = ours.smuggled() {
            write!(wrong, "{name}: {why}{}", told())?;
        } else if outcome.is_alike() {
            alike += 1;
        } else if !differences.explain(name, &outcome) {
            write!(wrong, "{name}: no line explains `{outcome}`{}", told())?;
        }
    }
    for line in differences.unused() {
        writeln!(wrong, "no case needs the line: {line}")?;
    }
    println!("{} cases, {alike} alike in all three", cases.len());
    ensure!(wrong.is_empty(), "\n{wrong}");
    Ok(())
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<_> = cases::all().into_iter().map(|case| case.name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
