//! CPU time, counted so that nothing of the work is left out and little else is in it.
//!
//! Counted are all processes of the group, and the kernel's softirq threads. A packet's way
//! through veth pairs, router and balancer runs as softirq on top of the process that sent it,
//! and is in that process's time (`CONFIG_IRQ_TIME_ACCOUNTING` is off on Debian's kernels too);
//! what piles up goes to `ksoftirqd`. Not counted are timers that fire on an idle CPU and kernel
//! workers, such as the one that sweeps old connections out of conntrack: peers that use conntrack
//! are flattered by that.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::Cgroup;

/// Units of `/proc/stat` are hundredths of a second for user space, whatever the kernel's tick.
const TICK: Duration = Duration::from_millis(10);

/// Counts what a group of processes costs.
pub(crate) struct Meter<'a> {
    group: &'a Cgroup,
    softirq_threads: Vec<PathBuf>,
}

/// The counters at one moment.
pub(crate) struct Reading {
    at: Instant,
    group: Duration,
    softirq: Duration,
    busy: Duration,
}

/// What passed between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// CPU time of the group and of the softirq threads.
    pub(crate) cpu: Duration,
    /// Part of all CPU time that went to anybody else.
    pub(crate) others: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(group: &'a Cgroup) -> Result<Self> {
        let mut softirq_threads = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let path = entry?.path();
            // A process may be gone by now, and then it is none of these.
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.starts_with("ksoftirqd/") {
                softirq_threads.push(path.join("schedstat"));
            }
        }
        ensure!(!softirq_threads.is_empty(), "/proc shows no ksoftirqd: a container's own /proc?");
        Ok(Self { group, softirq_threads })
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        let mut softirq = Duration::ZERO;
        for file in &self.softirq_threads {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
            softirq += Duration::from_nanos(
                nanos.with_context(|| format!("no time on a CPU in {}: {text}", file.display()))?,
            );
        }
        Ok(Reading { at: Instant::now(), group: self.group.cpu()?, softirq, busy: busy()? })
    }

    /// What passed since `before`.
    pub(crate) fn since(&self, before: &Reading) -> Result<Cost> {
        let now = self.read()?;
        let cpu = (now.group - before.group) + (now.softirq - before.softirq);
        let cpus = std::thread::available_parallelism().context("no number of CPUs")?.get();
        let all = (now.at - before.at).as_secs_f64() * cpus as f64;
        let others = (now.busy.saturating_sub(before.busy)).as_secs_f64() - cpu.as_secs_f64();
        Ok(Cost { cpu, others: (others / all).max(0.0) })
    }
}

/// Time that all CPUs were not idle: by ticks, so good for a part of it only.
fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let numbers: Vec<u32> =
        line.into_iter().flat_map(str::split_whitespace).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq (proc_stat(5)); guests are within user.
    let [user, nice, system, _, _, irq, softirq, ..] = numbers[..] else {
        anyhow::bail!("/proc/stat begins with {:?}", text.lines().next());
    };
    Ok(TICK * (user + nice + system + irq + softirq))
}
