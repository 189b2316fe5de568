//! Whole sets into the kernel: from parsed policies to the epoch that packets see.
//!
//! Needs root: it loads the datapath into a BPF file system of its own and attaches it nowhere.

use std::{time::Duration, time::Instant};

use anyhow::{Result, ensure};
use balancer_user::{
    compile::{Compiler, Limits},
    kernel::{self, Datapath, PublishOptions},
    policy::PolicySet,
    resolve::{ResolveSettings, resolve},
};
use harness::{Bpffs, Root};

use crate::measure::Measure;

/// Changes in a row for each repetition: a 99th percentile needs a hundred.
const CHANGES: usize = 20;

fn options() -> PublishOptions<'static> {
    PublishOptions {
        previous_for: Duration::from_secs(3600),
        gone_reset: Some(Duration::ZERO),
        ..PublishOptions::default()
    }
}

/// Publishes `set` into empty maps, then takes one Dataplane away and puts it back again and
/// again. Times are milliseconds to the flip.
pub(crate) fn published_sets(
    set: &mut PolicySet,
    settings: &ResolveSettings,
    (services, reals): (usize, usize),
    runs: usize,
) -> Result<Vec<Measure>> {
    let size = format!("{services}x{reals}");
    let root = Root::check().map_err(anyhow::Error::msg)?;
    let bpffs = Bpffs::mount(root, "bench")?;
    let (mut first, mut changed, mut returned) = (Vec::new(), Vec::new(), Vec::new());
    let mut maps = Vec::new();
    for run in 0..=runs {
        let lock = kernel::lock(&bpffs.pins())?;
        let mut datapath = Datapath::create(&lock, &limits(services, services * reals))?;
        let mut compiler = Compiler::new();
        let took = publish(set, settings, &mut compiler, &mut datapath)?;
        if run > 0 {
            first.push(took.flip);
        }
        for change in 0..CHANGES {
            let at = (change * 7919) % set.dataplanes.len();
            let lost = set.dataplanes.remove(at);
            let without = publish(set, settings, &mut compiler, &mut datapath)?;
            set.dataplanes.insert(at, lost);
            let with = publish(set, settings, &mut compiler, &mut datapath)?;
            ensure!(with.tables == 1 && without.tables == 1, "one table changes");
            if run > 0 {
                changed.extend([without.flip, with.flip]);
                returned.extend([without.whole, with.whole]);
                maps.extend([without.maps, with.maps]);
            }
        }
        drop((datapath, lock));
        kernel::unload(&bpffs.pins())?;
    }
    let name = format!("republish.{size}.one_changed");
    let mut sorted = changed.clone();
    sorted.sort_by(f64::total_cmp);
    let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
    Ok(vec![
        Measure::new(format!("publish.{size}"), "ms", &first),
        Measure::new(&name, "ms", &changed),
        Measure::new(format!("{name}.p99"), "ms", &[p99]),
        Measure::new(format!("{name}.maps"), "ms", &maps),
        Measure::new(format!("{name}.whole"), "ms", &returned),
    ])
}

struct Took {
    /// Milliseconds until packets see the set.
    flip: f64,
    /// The part of it behind compilation: from tables to the flip.
    maps: f64,
    /// Milliseconds until publishing returns, a grace period later.
    whole: f64,
    tables: usize,
}

fn publish(
    set: &PolicySet,
    settings: &ResolveSettings,
    compiler: &mut Compiler,
    datapath: &mut Datapath,
) -> Result<Took> {
    let limits = datapath.limits()?;
    let begun = Instant::now();
    let resolved = resolve(set, settings);
    let tables = compiler.compile(&resolved, datapath.assignment()?, &limits)?;
    let before = begun.elapsed();
    let published = datapath.publish(&tables, options())?;
    let whole = begun.elapsed();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    Ok(Took {
        flip: ms(before + published.flip),
        maps: ms(published.flip),
        whole: ms(whole),
        tables: published.written.tables,
    })
}

/// Set to fit: twice what a set of this many services and reals takes.
fn limits(services: usize, reals: usize) -> Limits {
    let twice = |n: usize| u32::try_from(2 * n).unwrap_or(u32::MAX);
    Limits {
        services: twice(services),
        sources: twice(reals),
        routes: twice(services),
        reals: twice(reals),
        counters: twice(services),
        arena_slots: twice(services).saturating_mul(1300),
        ..Limits::default()
    }
}
