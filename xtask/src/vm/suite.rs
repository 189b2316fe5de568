//! `cargo xtask test vm`: the suites that depend on the kernel, on each kernel that users run.

use std::{sync::Mutex, thread, time::Instant};

use anyhow::{Context, Result};

use super::{Binaries, End, Ended, Job, Luggage, Series, Told, build, checks, joined};
use crate::{bpf::stats, run, test::Tally};

/// A suite as guests run it.
struct Suite {
    /// As cargo knows it.
    name: &'static str,
    /// How the names of the tests to run begin; all, where this is empty.
    only: &'static [&'static str],
    limit_s: u64,
}

const SUITES: [Suite; 3] = [
    Suite { name: "datapath", only: &[], limit_s: 600 },
    Suite {
        name: "kernel",
        // What differs from kernel to kernel: hooks and the words of the verifier.
        only: &["attach::", "rejected::"],
        limit_s: 600,
    },
    // A test of the command takes an emulated machine a minute: one for each thing that another
    // kernel could do otherwise.
    Suite {
        name: "e2e",
        only: &[
            // Also attaches and detaches with what is left: by tc where there is no tcx.
            "agent::life::capabilities_are_reduced_to_what_later_work_needs",
            "changes::publishes_break_and_move_none_of_the_live_connections",
            "fall_backs::",
            "paths::clients_see_the_vip_and_reals_see_the_client",
            "paths::traffic_to_no_vip_passes_untouched",
            "proxy::a_client_takes_its_port_again_though_the_proxy_closed_first",
            "proxy::the_proxy_sees_the_client_and_the_vip_it_dialled",
            "shares::maglev_connections_meet_the_real_of_their_slot",
            "unload::",
        ],
        limit_s: 600,
    },
];

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
    let found = super::find(kernels)?;
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
        let told = super::run_all(kernels, &found, &luggage, say);
        (checks.is_none_or(joined), told)
    });

    println!();
    let mut fine = checked;
    let mut figures = Vec::new();
    for (series, told) in kernels.iter().zip(told) {
        match told {
            Ok(told) => {
                fine &= summary(*series, &told, !words.is_empty());
                match stats::told_by(&told) {
                    Ok(rows) => figures.extend(rows.unwrap_or_default()),
                    Err(e) => {
                        fine = false;
                        println!("FAILED kernel {series}: {e:#}");
                    }
                }
            }
            Err(e) => {
                fine = false;
                println!("FAILED kernel {series}: {e:#}");
            }
        }
    }
    if !figures.is_empty() {
        stats::compare(&figures)?;
    }
    println!("vm: {} kernels in {:.0} s", kernels.len(), begun.elapsed().as_secs_f64());
    Ok(fine)
}

fn pack(binaries: &Binaries, words: &[String]) -> Result<Luggage> {
    let root = run::root();
    let suites = SUITES
        .iter()
        .map(|suite| {
            let only = suite.only.iter().map(|name| (*name).to_owned());
            let args = if words.is_empty() { only.collect() } else { words.to_vec() };
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
    // Somebody who looks for one test has no use for figures.
    let figures = words.is_empty().then(|| stats::job(binaries)).transpose()?;
    let jobs = suites.into_iter().chain(figures).collect();
    let programs = binaries.get("balancer").cloned();
    Luggage::pack(binaries, jobs, programs.as_slice())
}

/// A line for each job and each skip; whether all went well.
fn summary(series: Series, told: &Told, chosen: bool) -> bool {
    let mut fine = true;
    let mut passed = 0;
    for ended in told.ended.iter().filter(|ended| SUITES.iter().any(|s| s.name == ended.job)) {
        let Ended { job, end, seconds, lines } = ended;
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.add(line));
        // Somebody who chose tests need not have chosen some of each suite.
        let absent = if chosen { Vec::new() } else { absent(job, lines) };
        let good = *end == End::Exit(0) && tally.failed == 0 && absent.is_empty();
        fine &= good;
        passed += tally.passed;
        println!(
            "{} {:<28} {job:<10} {tally} in {seconds:.1} s{}",
            if good { "ok    " } else { "FAILED" },
            told.release,
            if *end == End::Exit(0) { String::new() } else { format!(" ({end})") },
        );
        for name in absent {
            println!("       {:<28} {job:<10} not run: {name}*", told.release);
        }
        for name in unfinished(lines) {
            println!("       {:<28} {job:<10} unfinished: {name}", told.release);
        }
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

/// What of a suite should have run and did not: a test that got another name must not drop out
/// of the guests unseen.
fn absent(suite: &str, lines: &[String]) -> Vec<&'static str> {
    let ran = |name: &str| {
        let start = format!("test {name}");
        lines.iter().any(|line| line.starts_with(&start) && line.contains(" ... "))
    };
    let only = SUITES.iter().find(|known| known.name == suite).map_or(&[][..], |s| s.only);
    let names = if only.is_empty() { &[""] } else { only };
    names.iter().copied().filter(|name| !ran(name)).collect()
}

/// Tests that the runner said were slow, and of which it said nothing more: one of them is why it
/// had to be killed.
fn unfinished(lines: &[String]) -> impl Iterator<Item = &str> {
    let ended =
        |name: &str| lines.iter().any(|line| line.starts_with(&format!("test {name} ... ")));
    lines.iter().filter_map(move |line| {
        let (name, _) = line.strip_prefix("test ")?.split_once(" has been running for over")?;
        (!ended(name)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_a_suite_should_run_and_does_not_are_named() {
        let lines =
            ["test attach::links ... ok".to_owned(), "test result: ok. 1 passed".to_owned()];
        assert_eq!(absent("kernel", &lines), ["rejected::"]);
        assert!(absent("datapath", &lines).is_empty());
        assert_eq!(absent("datapath", &lines[1..]), [""]);
    }

    #[test]
    fn tests_that_were_running_when_a_job_was_killed_are_named() {
        let lines = [
            "test a::slow has been running for over 60 seconds",
            "test a::stuck has been running for over 60 seconds",
            "test a::slow ... ok",
            "test a::quick ... ok",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(unfinished(&lines).collect::<Vec<_>>(), ["a::stuck"]);
    }
}
