//! Virtual machines with Debian's kernels, for tests and figures on kernels other than this
//! machine's own.
//!
//! A guest has an initramfs and nothing else: no disk, no network, no init system. Its first
//! process is a program of the tests package (`tests/vm/init.rs`) that runs a list of jobs and
//! says how each ended. Two serial ports come out of it: the kernel's console, and the results.
//! Nothing here needs root on the host.

mod boot;
mod checks;
mod initramfs;
mod kernels;
mod modules;
#[path = "../../../tests/vm/plan.rs"]
pub(crate) mod plan;
pub(crate) mod suite;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::run;
use initramfs::Initramfs;
pub(crate) use kernels::{Kernel, Series};
pub(crate) use plan::End;
pub(crate) use plan::Job;
use plan::{Line, PLAN, Plan};
use watch::Limits;

/// Programs of this machine that harness and jobs run, and their packages.
const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("ethtool", "ethtool"), ("sh", "dash")];

/// A guest boots in 3 s on an idle machine and in 40 s on one with ten times the work that it has
/// CPUs for, and nothing here may fail there. A job that hangs is silent, so that `silence` is
/// what ends a bad guest, and `total` only one that never stops talking.
const LIMITS: Limits = Limits {
    boot: Duration::from_secs(120),
    silence: Duration::from_secs(120),
    total: Duration::from_secs(1500),
};

/// Binaries of this workspace, by their names, as the other suites use them.
pub(crate) type Binaries = BTreeMap<String, PathBuf>;

/// Builds the named suites of the tests package, `guest` and `balancer`.
pub(crate) fn build(suites: &[&str]) -> Result<Binaries> {
    let mut tests = run::cargo(&["test", "--no-run", "--package", "balancer-tests"]);
    for suite in suites {
        tests.args(["--test", suite]);
    }
    // Cargo builds the package's binaries, `guest` among them, for any of its suites.
    let balancer = run::cargo(&["build", "--package", "balancer-user", "--bin", "balancer"]);
    let mut binaries = Binaries::new();
    for mut command in [tests, balancer] {
        command.args(["--message-format", "json-render-diagnostics"]);
        let messages = run::read(&mut command)?;
        for line in messages.lines() {
            let message: serde_json::Value = serde_json::from_str(line)?;
            if let (Some(name), Some(path)) =
                (message["target"]["name"].as_str(), message["executable"].as_str())
            {
                binaries.insert(name.to_owned(), path.into());
            }
        }
    }
    for name in suites.iter().chain(&["guest", "balancer"]) {
        ensure!(binaries.contains_key(*name), "cargo built `{name}` and did not say where");
    }
    Ok(binaries)
}

/// All that guests need but the kernel.
pub(crate) struct Luggage {
    initramfs: Initramfs,
    jobs: Vec<Job>,
}

impl Luggage {
    /// For `jobs`: their programs and `programs`, which they may run, each where it lies on this
    /// machine. Nothing else of the repository is in a guest.
    pub(crate) fn pack(binaries: &Binaries, jobs: Vec<Job>, programs: &[PathBuf]) -> Result<Self> {
        let mut initramfs = Initramfs::default();
        let guest = binaries.get("guest").context("no `guest` was built")?;
        initramfs.add_program(guest, Path::new(boot::INIT))?;
        for (name, package) in PROGRAMS {
            let program = tool(name, package)?;
            initramfs.add_program(&program, &program)?;
        }
        for program in jobs.iter().map(|job| &job.program).chain(programs) {
            initramfs.add_program(program, program)?;
        }
        // Where the loader finds libraries that are in none of its own directories.
        let cache = Path::new("/etc/ld.so.cache");
        if cache.exists() {
            initramfs.add_file(cache)?;
        }
        Ok(Self { initramfs, jobs })
    }
}

/// What a guest did.
#[derive(Debug)]
pub(crate) struct Told {
    /// The kernel's release, as it said itself.
    pub(crate) release: String,
    pub(crate) ended: Vec<Ended>,
}

/// What a job did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) job: String,
    pub(crate) end: End,
    pub(crate) seconds: f64,
    /// All that it printed.
    pub(crate) lines: Vec<String>,
}

/// Boots a guest, runs the jobs and shows `look` every line of its results as it comes. That a
/// job failed is no error here.
///
/// # Errors
/// No emulator, no module; or a guest that panics, hangs, says nothing or ends before its jobs:
/// with its last lines.
pub(crate) fn run(kernel: &Kernel, luggage: &Luggage, look: impl FnMut(&str)) -> Result<Told> {
    run_within(kernel, luggage, LIMITS, look)
}

/// The kernels of these series, fetched if need be, after a look whether guests can run here.
///
/// # Errors
/// Another machine than x86_64, no emulator, no kernel: with what to do.
pub(crate) fn find(kernels: &[Series]) -> Result<Vec<Kernel>> {
    kernels::check_machine()?;
    boot::check()?;
    kernels.iter().map(|series| kernels::find(*series)).collect()
}

/// A guest of each of `kernels`, all at once; see [`run`]. `say` gets each line with the series
/// of the guest that it is from.
pub(crate) fn run_all(
    kernels: &[Series],
    found: &[Kernel],
    luggage: &Luggage,
    say: impl Fn(&str, &str) + Sync,
) -> Vec<Result<Told>> {
    thread::scope(|scope| {
        let guests: Vec<_> = kernels
            .iter()
            .zip(found)
            .map(|(series, kernel)| {
                let say = &say;
                scope.spawn(move || run(kernel, luggage, |line| say(series.name(), line)))
            })
            .collect();
        guests.into_iter().map(joined).collect()
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run_within(
    kernel: &Kernel,
    luggage: &Luggage,
    limits: Limits,
    mut look: impl FnMut(&str),
) -> Result<Told> {
    let mut initramfs = luggage.initramfs.clone();
    let mut modules = Vec::new();
    for module in modules::find(kernel)? {
        let path = Path::new("/guest/modules").join(module.name);
        initramfs.add_bytes(&path, module.bytes);
        modules.push(path);
    }
    let plan = Plan { modules, jobs: luggage.jobs.clone() };
    initramfs.add_bytes(Path::new(PLAN), serde_json::to_vec(&plan)?);

    let mut release = None;
    let mut ended = Vec::new();
    let mut lines = Vec::new();
    boot::boot(kernel, &initramfs, "", limits, |line| {
        look(line);
        match line.parse() {
            Ok(Line::Kernel(name)) => release = Some(name),
            Ok(Line::Begin(_)) => lines.clear(),
            Ok(Line::End { job, end, seconds }) => {
                ended.push(Ended { job, end, seconds, lines: std::mem::take(&mut lines) });
            }
            Ok(Line::Done) => {}
            Err(()) => lines.push(line.to_owned()),
        }
    })?;
    // The guest says `done` after the last job only; this holds it to that.
    let names: Vec<_> = ended.iter().map(|ended| &ended.job).collect();
    let asked: Vec<_> = luggage.jobs.iter().map(|job| &job.name).collect();
    ensure!(names == asked, "the guest was asked for {asked:?} and ran {names:?}");
    Ok(Told { release: release.context("the guest did not say its kernel")?, ended })
}

/// Where a program is, or which package has it.
fn tool(name: &str, package: &str) -> Result<PathBuf> {
    run::program(name).with_context(|| {
        format!(
            "no `{name}`, which the virtual machines need: `cargo xtask setup` installs it (on \
             Debian by hand: apt-get install --no-install-recommends {package})"
        )
    })
}
