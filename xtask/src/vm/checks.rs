//! Whether the machinery would notice: real guests that panic, hang and say nothing. Each has to
//! fail, with its last lines, within its limit.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Binaries, Job, Limits, Luggage, boot, initramfs::Initramfs, kernels::Kernel, modules, tool,
};

/// Short where the limit is what is tested, long where anything but the limit must end it.
const LONG: Duration = Duration::from_secs(180);
const SHORT: Duration = Duration::from_secs(10);

type Check = fn(&Kernel, &Binaries) -> Result<()>;

const CHECKS: [(&str, Check); 4] = [
    ("guest_that_panics_fails_with_its_last_lines", panics),
    ("guest_that_hangs_fails_with_its_last_lines", hangs),
    ("guest_that_says_nothing_fails_in_time", says_nothing),
    ("missing_module_is_named_with_what_to_do", misses_a_module),
];

/// Runs all at the same time and shows `look` how that went, in the test runner's form.
pub(super) fn run(kernel: &Kernel, binaries: &Binaries, look: impl Fn(&str) + Sync) -> bool {
    let begun = Instant::now();
    look(&format!("running {} tests", CHECKS.len()));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let run = |(name, check): (&'static str, Check)| {
            let look = &look;
            scope.spawn(move || {
                let outcome = check(kernel, binaries);
                let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                look(&format!("test vm::checks::{name} ... {word}"));
                (name, outcome)
            })
        };
        let threads: Vec<_> = CHECKS.into_iter().map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut failed = 0;
    for (name, outcome) in &outcomes {
        if let Err(e) = outcome {
            failed += 1;
            look(&format!("---- vm::checks::{name} ----\n{e:#}"));
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let passed = outcomes.len() - failed;
    let seconds = begun.elapsed().as_secs_f64();
    look(&format!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered \
         out; finished in {seconds:.2}s"
    ));
    failed == 0
}

/// What the watcher says of a guest whose first process is `program` of this machine.
fn verdict(kernel: &Kernel, program: &str, words: &str, limits: Limits) -> Result<String> {
    let mut initramfs = Initramfs::default();
    initramfs.add_program(&tool(program, "coreutils")?, Path::new(boot::INIT))?;
    let outcome = boot::boot(kernel, &initramfs, words, limits, |_| {});
    Ok(format!("{:#}", outcome.err().context("the guest passed for a good one")?))
}

fn has(failure: &str, words: &[&str]) -> Result<()> {
    for words in words {
        ensure!(failure.contains(words), "the failure does not say `{words}`: {failure}");
    }
    Ok(())
}

/// A first process that ends is a kernel's panic.
fn panics(kernel: &Kernel, _: &Binaries) -> Result<()> {
    let limits = Limits { boot: LONG, silence: LONG, total: LONG };
    let failure = verdict(kernel, "true", "", limits)?;
    has(&failure, &["its kernel panicked: ", "Attempted to kill init!", "console:\n"])
}

fn says_nothing(kernel: &Kernel, _: &Binaries) -> Result<()> {
    let begun = Instant::now();
    let limits = Limits { boot: SHORT, silence: LONG, total: LONG };
    let failure = verdict(kernel, "sleep", "-- 1000", limits)?;
    has(&failure, &["it said nothing for 10 s", "nothing on the results"])?;
    ensure!(begun.elapsed() < LONG, "it took {:?} to notice", begun.elapsed());
    Ok(())
}

/// One job is over its own limit, which the guest sees to; the next one is silent.
fn hangs(kernel: &Kernel, binaries: &Binaries) -> Result<()> {
    let job = |name: &str, limit_s| -> Result<Job> {
        Ok(Job {
            name: name.into(),
            program: tool("sleep", "coreutils")?,
            args: vec!["1000".into()],
            env: Vec::new(),
            directory: "/".into(),
            limit_s,
        })
    };
    let jobs = vec![job("over its limit", 1)?, job("silent", 1000)?];
    let luggage = Luggage::pack(binaries, jobs, &[])?;
    let limits = Limits { boot: LONG, silence: SHORT, total: 2 * LONG };
    let outcome = super::run_within(kernel, &luggage, limits, |_| {});
    let failure = format!("{:#}", outcome.err().context("the guest passed for a good one")?);
    let killed = "    guest: end over its limit: killed at its limit after ";
    has(&failure, &["it hangs: nothing for 10 s", killed, "    guest: begin silent"])
}

/// Like a package that was unpacked by hand and is not whole.
fn misses_a_module(kernel: &Kernel, _: &Binaries) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let release = kernel.release.clone();
    fs::create_dir_all(directory.path().join("lib/modules").join(&release))?;
    let broken = Kernel { directory: directory.path().into(), release };
    let outcome = modules::find(&broken);
    let failure = format!("{:#}", outcome.err().context("no module was missing")?);
    has(&failure, &["has no module `veth` (for pairs of interfaces)", "fetches it anew"])
}
