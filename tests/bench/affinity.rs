//! One core for benches that measure what fits into its caches.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Stays on the last core that this process may run on. A move to another one would bring cold
/// caches into the figures.
///
/// # Errors
/// The process may run on no core, or may not say where.
pub(crate) fn pin_to_one_core() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this process may run on no core")?)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    Ok(())
}
