//! `cargo xtask test vm`: the suites that depend on the kernel, on each kernel that users run.

use std::{sync::Mutex, thread, time::Instant};

use anyhow::{Context, Result};

use super::{Binaries, Ended, Job, Luggage, Series, Told, boot, build, checks, kernels, plan::End};
use crate::{run, test::Tally};

/// A suite as guests run it.
struct Suite {
    /// As cargo knows it.
    name: &'static str,
    /// What the test runner is told to leave out: what does not fit into a guest.
    skip: &'static [&'static str],
    /// What it is told to run; all of the rest where this is empty.
    only: &'static [&'static str],
    /// Files of the repository that it reads.
    files: &'static [&'static str],
    limit_s: u64,
}

const SUITES: [Suite; 1] =
    [Suite { name: "datapath", skip: &[], only: &[], files: &["docs/datapath.md"], limit_s: 600 }];

/// Runs the suites in a guest of each of `kernels`, all guests at once. `words` go to each test
/// runner in place of the names that a suite is limited to. `look` sees each line as the test
/// runner wrote it.
///
/// # Errors
/// What kept the guests from running. That tests failed, or a guest, is `false`.
pub(crate) fn run(
    kernels: &[Series],
    words: &[String],
    look: impl FnMut(&str) + Send,
) -> Result<bool> {
    let begun = Instant::now();
    kernels::check_machine()?;
    boot::check()?;
    let found = kernels.iter().map(|series| kernels::find(*series)).collect::<Result<Vec<_>>>()?;
    let binaries = build(&SUITES.map(|suite| suite.name))?;
    let luggage = pack(&binaries, words)?;

    let look = Mutex::new(look);
    let say = |label: &str, line: &str| {
        // Whoever panicked while looking ends this run in the end.
        let mut look = look.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        println!("{label:<4} | {line}");
        look(line);
    };
    let (checked, told) = thread::scope(|scope| {
        // Somebody who looks for one test has no use for them.
        let checks = words.is_empty().then(|| {
            let (kernel, binaries, say) = (&found[0], &binaries, &say);
            scope.spawn(move || checks::run(kernel, binaries, |line| say("vm", line)))
        });
        let guests: Vec<_> = kernels
            .iter()
            .zip(&found)
            .map(|(series, kernel)| {
                let (luggage, say) = (&luggage, &say);
                scope.spawn(move || super::run(kernel, luggage, |line| say(series.name(), line)))
            })
            .collect();
        let told: Vec<_> = guests.into_iter().map(joined).collect();
        (checks.is_none_or(joined), told)
    });

    println!();
    let mut fine = checked;
    for (series, told) in kernels.iter().zip(told) {
        match told {
            Ok(told) => fine &= summary(*series, &told, !words.is_empty()),
            Err(e) => {
                fine = false;
                println!("FAILED kernel {series}: {e:#}");
            }
        }
    }
    println!("vm: {} kernels in {:.0} s", kernels.len(), begun.elapsed().as_secs_f64());
    Ok(fine)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn pack(binaries: &Binaries, words: &[String]) -> Result<Luggage> {
    let root = run::root();
    let jobs = SUITES
        .iter()
        .map(|suite| {
            let mut args: Vec<_> =
                suite.skip.iter().flat_map(|name| ["--skip".into(), (*name).into()]).collect();
            if words.is_empty() {
                args.extend(suite.only.iter().map(|name| (*name).to_owned()));
            }
            args.extend_from_slice(words);
            let binary = |name: &str| {
                binaries.get(name).cloned().with_context(|| format!("no `{name}` was built"))
            };
            let env = [
                // In a guest every privilege is there: a test that skips for want of one is wrong.
                ("CI".into(), "true".into()),
                ("BALANCER_SCALE".into(), "guest".into()),
                ("BALANCER_BIN".into(), binary("balancer")?.display().to_string()),
            ];
            Ok(Job {
                name: suite.name.into(),
                program: binary(suite.name)?,
                args,
                env: env.into(),
                directory: root.join("tests"),
                limit_s: suite.limit_s,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let programs = binaries.get("balancer").cloned();
    let files: Vec<_> =
        SUITES.iter().flat_map(|suite| suite.files).map(|file| root.join(file)).collect();
    Luggage::pack(binaries, jobs, programs.as_slice(), &files)
}

/// A line for each job and each skip; whether all went well.
fn summary(series: Series, told: &Told, chosen: bool) -> bool {
    let mut fine = true;
    let mut passed = 0;
    for ended in &told.ended {
        let Ended { job, end, seconds, lines } = ended;
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.add(line));
        // A runner that ran nothing at all proves nothing, unless somebody chose tests of another.
        let ran = tally.passed > 0 || chosen;
        let good = *end == End::Exit(0) && tally.failed == 0 && ran;
        fine &= good;
        passed += tally.passed;
        println!(
            "{} {:<28} {job:<10} {tally} in {seconds:.1} s{}{}",
            if good { "ok    " } else { "FAILED" },
            told.release,
            if *end == End::Exit(0) { String::new() } else { format!(" ({end})") },
            if ran { "" } else { " (it ran no test)" },
        );
        for line in lines.iter().filter(|line| line.starts_with("skipped:")) {
            println!("       {:<28} {job:<10} {line}", told.release);
        }
    }
    if chosen && passed == 0 {
        println!("FAILED kernel {series}: no test has such a name");
        fine = false;
    }
    fine
}
