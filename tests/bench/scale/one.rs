//! One size: load, change, show, memory.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_user::{
    compile::{Assignment, Compiler, Limits},
    kernel::{self, Datapath, PublishOptions},
    policy::{self, PolicySet, ReadOptions},
    resolve::{ResolveSettings, resolve},
    settings::Settings,
    store::{Recorder, Store},
};
use harness::{Bpffs, Root, instance::balancer_binary};

use crate::{measure::Measure, memory, set};

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What one set took until packets saw it.
#[derive(Default)]
struct Took {
    resolve: f64,
    compile: f64,
    publish: f64,
    record: f64,
}

impl Took {
    fn all(&self) -> f64 {
        self.resolve + self.compile + self.publish
    }
}

/// A node as `load` and the agent have it.
struct Node {
    datapath: Datapath,
    compiler: Compiler,
    recorder: Recorder,
    settings: ResolveSettings,
    limits: Limits,
}

impl Node {
    fn carry_out(&mut self, set: &PolicySet) -> Result<(Took, usize)> {
        let begun = Instant::now();
        let resolved = resolve(set, &self.settings);
        ensure!(resolved.diagnostics.is_empty(), "{:?}", resolved.diagnostics.first());
        let resolve = begun.elapsed();
        let begun = Instant::now();
        let before: &Assignment = self.datapath.assignment()?;
        let tables = self.compiler.compile(&resolved, before, &self.limits)?;
        let compile = begun.elapsed();
        let mut recorded = Duration::ZERO;
        let (recorder, settings) = (&mut self.recorder, &self.settings);
        let mut record = |epoch| {
            let begun = Instant::now();
            recorder.save(epoch, settings, Some(&resolved.assigned), &set.texts)?;
            recorded = begun.elapsed();
            Ok(())
        };
        let published = self.datapath.publish(
            &tables,
            PublishOptions {
                previous_for: Duration::from_secs(3600),
                gone_reset: Some(Duration::ZERO),
                before_flip: Some(&mut record),
                ..PublishOptions::default()
            },
        )?;
        self.recorder.settle(published.epoch)?;
        self.settings.assigned = resolved.assigned;
        let took = Took {
            resolve: ms(resolve),
            compile: ms(compile),
            publish: ms(published.flip),
            record: ms(recorded),
        };
        Ok((took, published.written.tables))
    }
}

pub(crate) fn measures(root: Root, size: (usize, usize), changes: usize) -> Result<Vec<Measure>> {
    let name = format!("{}x{}", size.0, size.1);
    let home = tempfile::tempdir().context("no temporary directory")?;
    let files = home.path().join("policies");
    fs::create_dir(&files)?;
    set::write(&files, size, set::ROUTED)?;
    let bpffs = Bpffs::mount(root, "bench")?;
    let state = home.path().join("state");
    // The largest table is that of a split, 90/10 over all reals of a service.
    let slots = if size.1 > 9 { 1100 } else { 1060 };
    let mut limits = set::limits(size, slots);
    if size.0 * size.1 > 100_000 {
        // Half the default: what such a set leaves of 512 MiB.
        limits.flows = 131_072;
    }

    let begun = Instant::now();
    let texts = policy::gather(&[files])?;
    let reading = policy::read(texts, &ReadOptions::default());
    ensure!(reading.report.valid(), "the policies of the bench are not valid");
    let mut policies = reading.set;
    drop(reading.report);
    ensure!(policies.dataplanes.len() == size.0 * size.1, "a Dataplane was lost");
    let read = ms(begun.elapsed());

    let lock = kernel::lock(&bpffs.pins())?;
    let begun = Instant::now();
    let datapath = Datapath::create(&lock, &limits)?;
    let create = ms(begun.elapsed());
    let mut node = Node {
        datapath,
        compiler: Compiler::new(),
        recorder: Recorder::new(Store::open(&state)?, &bpffs.pins()),
        settings: Settings::default().resolve_settings(Default::default()),
        limits,
    };
    let (first, _) = node.carry_out(&policies)?;

    let mut took: Vec<Took> = Vec::new();
    for change in 0..changes.max(1) {
        let at = (change * 7919) % policies.dataplanes.len();
        let lost = policies.dataplanes.remove(at);
        let (without, tables) = node.carry_out(&policies)?;
        ensure!(tables == 1, "one table changes, not {tables}");
        policies.dataplanes.insert(at, lost);
        let (with, tables) = node.carry_out(&policies)?;
        ensure!(tables == 1, "one table changes, not {tables}");
        took.extend([without, with]);
    }
    let show = show(&bpffs.pins(), &state)?;
    let maps = memory::maps(node.datapath.view())?;
    let process = memory::of_process()?;
    drop(node);
    drop(lock);

    let of = |part: fn(&Took) -> f64| took.iter().map(part).collect::<Vec<f64>>();
    let all = of(Took::all);
    let change = format!("change.{name}");
    let part = |what: &str, values: Vec<f64>| {
        Measure::new(format!("{change}.{what}"), "ms", &values).against(&change, &values, &all)
    };
    let one = |name: String, unit, value| Measure::new(name, unit, &[value]);
    let load = format!("load.{name}");
    Ok(vec![
        one(load.clone(), "ms", read + create + first.all()),
        one(format!("{load}.read"), "ms", read),
        one(format!("{load}.create"), "ms", create),
        one(format!("{load}.resolve"), "ms", first.resolve),
        one(format!("{load}.compile"), "ms", first.compile),
        one(format!("{load}.publish"), "ms", first.publish),
        Measure::new(&change, "ms", &all),
        one(format!("{change}.p99"), "ms", percentile_99(&all)),
        part("resolve", of(|took| took.resolve)),
        part("compile", of(|took| took.compile)),
        part("publish", of(|took| took.publish)),
        part("record", of(|took| took.record)),
        Measure::new(format!("show.{name}"), "ms", &show),
        one(format!("memory.maps.{name}"), "KiB", maps.all / 1024.0),
        one(format!("memory.maps.{name}.arena"), "KiB", maps.arena / 1024.0),
        one(format!("memory.process.{name}"), "KiB", process.most),
        one(format!("memory.process.{name}.own"), "KiB", process.own),
    ])
}

/// Times `balancer show vips`, three times.
fn show(bpffs: &Path, state: &Path) -> Result<Vec<f64>> {
    (0..3)
        .map(|_| {
            let begun = Instant::now();
            let output = Command::new(balancer_binary())
                .args(["show", "vips", "-o", "json", "--bpffs"])
                .arg(bpffs)
                .arg("--state")
                .arg(state)
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
                .context("cannot run balancer")?;
            let took = ms(begun.elapsed());
            ensure!(output.status.success(), "balancer show failed");
            ensure!(output.stdout.len() > 1000, "balancer show printed nothing");
            Ok(took)
        })
        .collect()
}

fn percentile_99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}
